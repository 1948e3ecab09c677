"""The contract that every strategy passes."""

import numpy as np
import pytest

from core import scores
from core.strategies import STRATEGIES


class FakePool:
    """Twenty samples with a posterior, and gradient norms that name the loss they were asked for."""

    def __init__(self, seed=0):
        self.seed = seed
        self.asked = []

    def __len__(self):
        return 20

    def probs(self):
        return np.random.default_rng(1).dirichlet(np.ones(4), 20)

    def gradient_norms(self, loss):
        self.asked.append(loss)
        return np.linspace(1, 2, 20)


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_finite_score_a_sample_and_the_same_again(name):
    score = STRATEGIES[name](FakePool())
    assert score.shape == (20,)
    assert score.dtype == np.float64
    assert np.isfinite(score).all()
    np.testing.assert_array_equal(score, STRATEGIES[name](FakePool()))


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_has_a_title_and_a_formula(name):
    assert name in scores.REGISTRY


@pytest.mark.parametrize(
    ("name", "loss"), [("entropy-gradnorm", "entropy"), ("expected-gradnorm", "expected"), ("egl", "egl")]
)
def test_gradient_strategies_ask_for_their_loss(name, loss):
    pool = FakePool()
    STRATEGIES[name](pool)
    assert pool.asked == [loss]


def test_random_depends_on_the_seed_alone():
    assert not np.array_equal(STRATEGIES["random"](FakePool(0)), STRATEGIES["random"](FakePool(1)))


def test_margin_prefers_two_close_classes():
    best = STRATEGIES["margin"](FakePool()).argmax()
    top = np.sort(FakePool().probs(), axis=1)
    assert best == (top[:, -1] - top[:, -2]).argmin()
