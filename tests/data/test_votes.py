"""The simulated draw: right in distribution, and the same whatever is asked for first."""

from pathlib import Path

import numpy as np
import pytest

from data import votes
from data.errors import UserError
from data.votes import (
    ambiguous,
    draw_votes,
    expected_noise,
    initial_labels,
    random_order,
    symmetric_noise,
    temper,
    temperature_for,
    uniforms,
)


@pytest.fixture(scope="module")
def counts(real_data: Path) -> np.ndarray:
    """CIFAR-10H's votes: int64 [10000,10]."""
    return np.asarray(np.load(real_data / "cifar10h-counts.npy", allow_pickle=False))


def test_uniforms_depend_on_seed_sample_and_draw_alone() -> None:
    grid = uniforms(3, np.arange(50)[:, None], np.arange(20)[None, :])
    assert grid.shape == (50, 20)
    assert grid.dtype == np.float64
    np.testing.assert_array_equal(grid[[7, 2]][:, [5]], uniforms(3, np.array([[7], [2]]), np.array([[5]])))
    assert grid[7, 5] == uniforms(3, np.array(7), 5)
    assert len(np.unique(grid)) == grid.size
    assert not np.isin(uniforms(4, np.arange(50), 0), grid).any()
    assert uniforms(0, np.zeros(0, np.int64), 0).shape == (0,)


def test_the_same_numbers_in_every_version() -> None:
    """Runs that were recorded must resume years later: the numbers are part of the format."""
    np.testing.assert_array_equal(
        uniforms(0, np.array([0, 0, 1, 4999]), np.array([0, 1, 0, 2**32])) * 2**53,
        [262_603_140_007_479, 802_856_626_375_910, 8_464_762_320_365_434, 4_692_995_428_035_517],
    )


def test_uniforms_are_uniform_and_independent() -> None:
    u = uniforms(0, np.arange(20000)[:, None], np.arange(10)[None, :])
    assert u.min() >= 0
    assert u.max() < 1
    histogram = np.histogram(u, bins=100, range=(0, 1))[0]
    chi_square = ((histogram - u.size / 100) ** 2 / (u.size / 100)).sum()
    assert 50 < chi_square < 160  # 99 degrees of freedom: mean 99, standard deviation 14
    neighbours = [np.corrcoef(u[:, 0], u[:, 1])[0, 1], np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]]
    seeds = np.corrcoef(u[:, 0], uniforms(1, np.arange(20000), 0))[0, 1]
    assert np.abs([*neighbours, seeds]).max() < 4 / 20000**0.5


def test_draws_follow_the_counts() -> None:
    counts = np.array([[0, 3, 0, 1], [5, 0, 5, 0], [0, 0, 7, 0]])
    votes = draw_votes(counts, 0, np.arange(3), np.arange(20000))
    assert votes.shape == (3, 20000)
    assert votes.dtype == np.int64
    shares = (votes[:, :, None] == np.arange(4)).mean(axis=1)
    np.testing.assert_allclose(shares, counts / counts.sum(axis=1, keepdims=True), atol=0.015)
    assert (shares[counts == 0] == 0).all()


def test_a_vote_is_the_same_whoever_asks_for_it() -> None:
    counts = np.random.default_rng(0).integers(1, 9, (30, 5))
    whole = draw_votes(counts, 1, np.arange(30), np.arange(8))
    some = np.array([20, 3, 11])
    np.testing.assert_array_equal(draw_votes(counts[some], 1, some, np.array([6, 2])), whole[some][:, [6, 2]])
    assert (whole != draw_votes(counts, 2, np.arange(30), np.arange(8))).any()


def test_temper() -> None:
    counts = np.array([[4, 1, 0], [0, 0, 9]])
    np.testing.assert_allclose(temper(counts, 1), [[0.8, 0.2, 0], [0, 0, 1]])
    np.testing.assert_allclose(temper(counts, 2), [[2 / 3, 1 / 3, 0], [0, 0, 1]])
    np.testing.assert_allclose(temper(counts, 1e9), [[0.5, 0.5, 0], [0, 0, 1]])
    np.testing.assert_allclose(temper(counts, 1e-3), [[1, 0, 0], [0, 0, 1]])
    with pytest.raises(UserError, match="must be positive"):
        temper(counts, 0)


def test_ambiguous_samples_of_cifar10h(counts: np.ndarray) -> None:
    assert ambiguous(counts).sum() == 454


def test_noise_of_cifar10h(counts: np.ndarray) -> None:
    """T = 2 and T = 10 give about 15% and 30% on the published pool: 5,000 images with all the ambiguous ones."""
    hard = ambiguous(counts)
    pool = counts[np.concatenate([np.flatnonzero(hard), np.flatnonzero(~hard)[::2]])[:5000]]
    for temperature, nominal in ((2.0, 0.15), (10.0, 0.30)):
        noise = expected_noise(pool, temperature)
        assert noise == pytest.approx(nominal, abs=0.012)
        labels = initial_labels(pool, temperature, seed=0)
        assert labels.shape == (5000,)
        assert (labels != pool.argmax(axis=1)).mean() == pytest.approx(noise, abs=0.015)
        assert np.take_along_axis(pool, labels[:, None], axis=1).min() > 0
    np.testing.assert_array_equal(initial_labels(pool, 2.0, 7), initial_labels(pool, 2.0, 7))
    assert (initial_labels(pool, 2.0, 7) != initial_labels(pool, 2.0, 8)).any()


def test_temperature_for_a_noise_rate(counts: np.ndarray) -> None:
    for noise in (0.05, 0.15, 0.25):
        assert expected_noise(counts, temperature_for(counts, noise)) == pytest.approx(noise, abs=1e-9)
    with pytest.raises(
        UserError, match=r"0\.9 cannot be drawn from these annotations; choose between 0\.00\d and 0\.\d+"
    ):
        temperature_for(counts, 0.9)


def test_symmetric_noise() -> None:
    labels = np.arange(20000) % 5
    noisy = symmetric_noise(labels, 5, 0.3, seed=0)
    assert noisy.dtype == np.int64
    assert (noisy != labels).mean() == pytest.approx(0.3, abs=0.015)
    steps = np.bincount((noisy - labels)[noisy != labels] % 5, minlength=5)
    assert steps[0] == 0
    np.testing.assert_allclose(steps[1:] / steps.sum(), 0.25, atol=0.02)
    np.testing.assert_array_equal(symmetric_noise(labels[:100], 5, 0.3, seed=0), noisy[:100])
    np.testing.assert_array_equal(symmetric_noise(labels, 5, 0.0, seed=0), labels)
    assert (symmetric_noise(labels, 5, 1.0, seed=0) != labels).all()
    np.testing.assert_array_equal(symmetric_noise(np.array([-1, -1]), 5, 1.0, seed=0), [-1, -1])
    with pytest.raises(UserError, match="between 0 and 1"):
        symmetric_noise(labels, 5, 1.5, seed=0)


def test_random_order_is_a_permutation() -> None:
    order = random_order(1000, seed=0)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert (order != random_order(1000, seed=1)).any()


CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_asymmetric_noise_confuses_similar_classes_of_cifar10() -> None:
    labels = np.arange(20_000) % 10
    noisy = votes.asymmetric_noise(labels, CIFAR10, 0.2, seed=0)
    changed = noisy != labels
    assert changed.mean() == pytest.approx(0.2, abs=0.01)
    pairs = {(CIFAR10[a], CIFAR10[b]) for a, b in zip(labels[changed], noisy[changed], strict=True)}
    assert pairs == set(votes.CONFUSIONS.items())
    np.testing.assert_array_equal(votes.asymmetric_noise(labels[:500], CIFAR10, 0.2, seed=0), noisy[:500])


def test_asymmetric_noise_takes_the_next_class_of_others() -> None:
    labels = np.array([0, 1, 2, -1] * 3000)
    noisy = votes.asymmetric_noise(labels, ["x", "y", "z"], 0.4, seed=1)
    assert noisy.dtype == np.int64
    changed = noisy != labels
    assert set(noisy[changed] - labels[changed]) == {1, -2}
    assert changed[labels >= 0].mean() == pytest.approx(0.4, abs=0.02)
    assert (noisy[labels < 0] == -1).all()


def test_asymmetric_noise_out_of_reach_says_the_range() -> None:
    with pytest.raises(UserError, match=r"0\.6 cannot be had.*choose between 0 and 0\.500"):
        votes.asymmetric_noise(np.arange(100) % 10, CIFAR10, 0.6, seed=0)


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """5,000 images uint8 [5000,6,6,1] and labels of five classes, a hundred of them unknown."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 5000)
    labels[:100] = -1
    return rng.integers(0, 256, (5000, 6, 6, 1), np.uint8), labels


@pytest.mark.parametrize("noise", [0.02, 0.3, 0.9])
def test_instance_noise_reaches_its_rate(pictures: tuple[np.ndarray, np.ndarray], noise: float) -> None:
    images, labels = pictures
    noisy = votes.instance_noise(images, labels, 5, noise, seed=3)
    assert noisy.dtype == np.int64
    assert (noisy != labels)[100:].mean() == pytest.approx(noise, abs=1e-3)
    assert (noisy[:100] == -1).all()
    assert noisy[100:].min() >= 0
    np.testing.assert_array_equal(noisy, votes.instance_noise(images, labels, 5, noise, seed=3))
    assert (noisy != votes.instance_noise(images, labels, 5, noise, seed=4)).any()


def test_the_wrong_class_follows_from_the_image(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    """One sample at a time in float64, with the same random numbers."""
    images, labels = pictures
    noisy = votes.instance_noise(images, labels, 5, 0.4, seed=3)
    rng = np.random.default_rng(3)
    directions = [rng.standard_normal((36, 5), np.float32).astype(float) for _ in range(5)]
    for i in np.flatnonzero(noisy != labels)[:300]:
        x = images[i].astype(float).ravel()
        score = (x - x.mean()) / x.std() @ directions[labels[i]]
        shares = np.exp(score - score.max())
        shares[labels[i]] = 0
        u = uniforms(3, i, votes.REPLACEMENT)
        assert noisy[i] == np.searchsorted(np.cumsum(shares) / shares.sum(), u, side="right")


def test_some_samples_are_mistaken_more_easily(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    """The flip rates spread around the noise by 0.1: the sample's own draw decides, not only chance."""
    images, labels = pictures
    flipped = (votes.instance_noise(images, labels, 5, 0.3, seed=3) != labels)[100:]
    ease = uniforms(3, np.arange(100, 5000), votes.FLIP_RATE)
    assert flipped[ease > 0.8].mean() == pytest.approx(0.3 + 0.14, abs=0.05)  # 1.4 s.d. above the mean
    assert flipped[ease < 0.2].mean() == pytest.approx(0.3 - 0.14, abs=0.05)


def test_inject_takes_the_noise_by_name(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = pictures
    names = list("abcde")
    expected = {
        "symmetric": symmetric_noise(labels, 5, 0.2, 1),
        "asymmetric": votes.asymmetric_noise(labels, names, 0.2, 1),
        "instance": votes.instance_noise(images, labels, 5, 0.2, 1),
    }
    assert list(expected) == list(votes.NOISE_KINDS)
    for kind, noisy in expected.items():
        np.testing.assert_array_equal(votes.inject(kind, images, labels, names, 0.2, 1), noisy)
        np.testing.assert_array_equal(votes.inject(kind, images, labels, names, 0.0, 1), labels)
        with pytest.raises(UserError, match="between 0 and"):
            votes.inject(kind, images, labels, names, 1.5, 1)
    with pytest.raises(UserError, match="no noise 'pink'; choose from symmetric, asymmetric, instance"):
        votes.inject("pink", images, labels, names, 0.2, 1)
