"""Scores by hand, their ranges and signs."""

import numpy as np
import pytest

from core import scores
from data.errors import UserError

SURE, SPLIT = [0.98, 0.01, 0.01], [0.5, 0.5, 0.0]


def test_entropy_in_nats():
    np.testing.assert_allclose(scores.entropy([[1, 0], [0.5, 0.5]]), [0, np.log(2)])


def test_cross_entropy_of_a_histogram():
    """−Σ l̂ ln p with l̂ = (2/3, 1/3)."""
    found = scores.cross_entropy([[2, 1]], [[0.9, 0.1]])
    np.testing.assert_allclose(found, -(2 / 3 * np.log(0.9) + 1 / 3 * np.log(0.1)))


def test_cross_entropy_stays_finite_where_a_softmax_underflowed():
    assert scores.cross_entropy([[1, 0]], [[0.0, 1.0]])[0] == pytest.approx(87.3, abs=0.1)


def test_cleaning_score_puts_clear_noise_above_ambiguity_above_right_labels():
    """A sure model that disagrees; an unsure one; a sure one that agrees."""
    counts = [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    phi = scores.cleaning_score(counts, [SURE, SPLIT, SURE])
    assert phi[0] > phi[1] > phi[2]
    np.testing.assert_allclose(
        phi, scores.cross_entropy(counts, [SURE, SPLIT, SURE]) - scores.entropy([SURE, SPLIT, SURE])
    )


def test_gamma_ignores_little_ambiguity():
    """The public code's max(H − 0.30, 0) on the base-C scale, in nats."""
    counts, probs = [[1, 0, 0]] * 2, [SURE, SPLIT]
    base_c = scores.entropy(probs) / np.log(3)
    expected = scores.cross_entropy(counts, probs) - np.log(3) * np.maximum(base_c - 0.30, 0)
    np.testing.assert_allclose(scores.cleaning_score(counts, probs, gamma=0.30), expected)


def test_margin_and_self_confidence():
    np.testing.assert_allclose(scores.margin([SURE, SPLIT]), [0.03, 1.0])
    np.testing.assert_allclose(scores.self_confidence([0, 2], [SURE, SPLIT]), [0.02, 1.0])


def test_the_self_confidence_of_a_tie_is_the_mean_over_the_classes_that_tie():
    counts, p = [[2, 2, 1], [1, 1, 1], [0, 2, 1]], [[0.7, 0.1, 0.2]] * 3
    np.testing.assert_allclose(scores.self_confidence([-1, -1, 1], p, counts), [0.6, 2 / 3, 0.9])


def test_bald_is_zero_where_passes_agree_and_ln_2_where_they_flip():
    agree, flip = [[0.5, 0.5]], [[1.0, 0.0]]
    np.testing.assert_allclose(scores.bald([agree, agree]), 0, atol=1e-15)
    np.testing.assert_allclose(scores.bald([flip, [[0.0, 1.0]]]), np.log(2))


def test_bald_lies_between_zero_and_ln_c():
    passes = np.random.default_rng(0).dirichlet(np.full(4, 0.1), (8, 50))
    assert (scores.bald(passes) >= 0).all()
    np.testing.assert_allclose(scores.bald(np.eye(4)[:, None]), np.log(4))


def test_pixels_are_averaged():
    probs = np.random.default_rng(0).dirichlet(np.ones(3), (2, 4, 5)).transpose(0, 3, 1, 2)
    by_hand = [
        np.mean([scores.entropy(probs[n : n + 1, :, i, j])[0] for i in range(4) for j in range(5)]) for n in range(2)
    ]
    np.testing.assert_allclose(scores.entropy(probs), by_hand)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.entropy([[np.nan, 1]]), "NaN.*first at row 0.*learning rate"),
        (lambda: scores.cross_entropy([[0, 0]], [[0.5, 0.5]]), "no annotation"),
        (lambda: scores.cross_entropy([[1, 0, 0]], [[0.5, 0.5]]), "do not fit"),
        (lambda: scores.cleaning_score([[1, 0, 0]], [[0.5, 0.5]]), "do not fit"),
        (lambda: scores.cleaning_score([[1, 0]], [[np.nan, 0.5]]), "NaN"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(UserError, match=message):
        call()
