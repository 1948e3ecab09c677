"""How many labels are right: the interval against known noise, and the queue that makes it possible."""

import numpy as np
import pytest

from core import metrics
from core.runs import audit
from data import votes


@pytest.mark.parametrize(("population", "drawn"), [(200, 20), (200, 120), (2000, 50)])
@pytest.mark.parametrize("share", [0.5, 0.72, 0.93, 0.99, 1.0])
def test_the_interval_of_a_share_covers_it_in_95_percent_of_all_draws(population, drawn, share):
    """Exactly, by the distribution of the draws; over the draws that can happen no interval is empty or leaves [0, 1]."""
    from scipy.stats import hypergeom

    right = round(share * population)
    hits = np.arange(max(0, drawn - (population - right)), min(drawn, right) + 1)
    intervals = np.array([metrics.share_interval(int(h), drawn, population) for h in hits])
    assert (intervals[:, 0] <= intervals[:, 1]).all()
    assert (intervals >= 0).all()
    assert (intervals <= 1).all()
    covers = (intervals[:, 0] <= right / population) & (right / population <= intervals[:, 1])
    assert hypergeom.pmf(hits, population, right, drawn)[covers].sum() >= 0.95


def test_whoever_draws_everything_knows_the_share():
    assert metrics.share_interval(93, 100, 100) == (0.93, 0.93)


def test_an_interval_narrows_with_the_draw():
    widths = [np.diff(metrics.share_interval(round(0.9 * n), n, 5000))[0] for n in (20, 100, 500)]
    assert widths == sorted(widths, reverse=True)
    assert 0.1 < widths[1] < 0.14


NOISE = [(kind, rate) for kind in votes.NOISE_KINDS for rate in (0.05, 0.3)]


@pytest.mark.parametrize(("kind", "rate"), NOISE)
def test_people_who_follow_the_queue_learn_the_share_of_right_labels(kind, rate):
    """300 draws at known noise: a ranking that finds most wrong labels first would fool any estimate from its own top."""
    n, n_classes, draws, inside = 500, 5, 300, 0
    rng = np.random.default_rng(0)
    truth = rng.integers(n_classes, size=n)
    images = rng.integers(256, size=(n, 4, 4, 1), dtype=np.uint8)
    for seed in range(draws):
        given = votes.inject(kind, images, truth, list("abcde"), rate, seed)
        right = float((given == truth).mean())
        suspicion = (given != truth) + rng.normal(size=n)
        drawn, decided, answered = audit.order(n, seed), np.full(n, -1), np.zeros(n, dtype=bool)
        queue = audit.interleaved(np.argsort(-suspicion), drawn, 0)[:200]
        decided[queue], answered[queue] = truth[queue], True
        found = audit.label_accuracy(given, decided, answered, drawn)
        standing = right + (given != truth)[queue].sum() / n
        assert found.checked >= 20
        inside += found.low - 1e-12 <= standing <= found.high + 1e-12
    assert inside >= 0.95 * draws


def test_one_image_in_ten_is_drawn_at_random_wherever_the_queue_begins():
    ranked, drawn = np.arange(100), audit.order(100, 0)
    queue = audit.interleaved(ranked, drawn, 0)
    assert sorted(queue) == list(range(100))
    assert queue[:9].tolist() == [one for one in range(100) if one != drawn[0]][:9]
    assert queue[9] == drawn[0]
    later = audit.interleaved(queue[7:][np.argsort(queue[7:])], drawn[np.isin(drawn, queue[7:])], 7)
    assert later[2] == queue[9]


def test_what_the_ranking_already_asked_for_is_not_asked_again():
    ranked = np.arange(30)
    queue = audit.interleaved(ranked, np.concatenate([[3], np.delete(ranked, 3)]), 0)
    assert queue[3] == 3  # by rank, before its turn by chance
    assert len(set(queue.tolist())) == 30


def test_undecided_images_widen_the_interval_on_both_sides():
    given, drawn, n = np.zeros(100, dtype=np.int64), np.arange(100), 40
    answered = np.arange(100) < n
    sure = np.where(answered, 0, -1)
    unsure = np.where(np.arange(100) < n - 10, 0, -1)
    whole = audit.label_accuracy(given, sure, answered, drawn)
    partly = audit.label_accuracy(given, unsure, answered, drawn)
    assert whole.low > partly.low
    assert whole.high == partly.high == 1.0


def test_the_sample_ends_at_the_first_image_that_still_waits():
    given, drawn = np.zeros(50, dtype=np.int64), np.arange(50)
    answered = np.ones(50, dtype=bool)
    answered[12] = False
    assert audit.label_accuracy(given, np.where(answered, 0, -1), answered, drawn).checked == 12
    answered[0] = False
    assert audit.label_accuracy(given, np.where(answered, 0, -1), answered, drawn) is None


def test_labels_that_were_corrected_count_as_right_now():
    given, drawn = np.zeros(40, dtype=np.int64), np.arange(40)
    decided = np.where(np.arange(40) % 4 == 0, 1, 0)  # every fourth was wrong, and all were checked
    found = audit.label_accuracy(given, decided, np.ones(40, dtype=bool), drawn)
    assert (found.share, found.low, found.high) == (1.0, 1.0, 1.0)
