"""The contract that every strategy passes."""

import numpy as np
import pytest
import torch

from core import methods, scores, strategies

N, M = 20, 12


class FakePool:
    """Twenty unlabelled and twelve labelled samples of four classes, and gradient norms that tell what they were asked."""

    def __init__(self, seed=0):
        self.seed, self.budget, self.n_labelled = seed, 5, M
        self.batch_size, self.steps, self.width = 4, 2, 2
        self.asked = []

    def __len__(self):
        return N

    def probs(self):
        return np.random.default_rng(1).dirichlet(np.ones(4), N)

    def mc_probs(self, passes):
        return np.random.default_rng(2).dirichlet(np.ones(4), (passes, N))

    def entropy(self):
        return scores.entropy(self.probs())

    def margin(self):
        return scores.margin(self.probs())

    def bald(self, passes):
        return scores.bald(self.mc_probs(passes))

    def shares(self):
        return self.probs()

    def labelled_shares(self):
        return np.eye(4)[self.labels()]

    def gradient_norms(self, loss):
        self.asked.append(loss)
        return np.linspace(1, 2, N)

    def embeddings(self):
        return torch.randn(N, 6, generator=torch.Generator().manual_seed(3))

    def labelled_embeddings(self):
        return torch.randn(M, 6, generator=torch.Generator().manual_seed(4))

    def labels(self):
        return torch.arange(M) % 4

    def images(self, positions):
        return torch.randn(N, 3, 10, 7, generator=torch.Generator().manual_seed(5))[positions]

    def labelled_images(self, positions):
        return torch.randn(M, 3, 10, 7, generator=torch.Generator().manual_seed(6))[positions]

    def companion(self):
        return np.arange(N, dtype=np.float64)

    def expected_influence(self):
        return np.arange(N, dtype=np.float64)


class RareClass(FakePool):
    """A pool of which samples 3 and 7 alone are expected to be of the class that no label has."""

    def shares(self):
        found = np.tile([1.0, 0.0], (N, 1))
        found[[3, 7]] = [0.5, 0.5]
        return found

    def labelled_shares(self):
        return np.tile([1.0, 0.0], (M, 1))


def score(name, pool=None):
    return strategies.load(name).score(pool or FakePool())


@pytest.mark.parametrize("name", strategies.CATALOGUE)
def test_one_finite_score_a_sample_and_the_same_again(name):
    random = torch.get_rng_state()
    found = score(name)
    assert found.shape == (N,)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, score(name))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("name", strategies.CATALOGUE)
def test_a_budget_as_large_as_the_pool(name):
    pool = FakePool()
    pool.budget = N
    assert np.isfinite(score(name, pool)).all()


@pytest.mark.parametrize(
    ("name", "loss"), [("entropy-gradnorm", "entropy"), ("expected-gradnorm", "expected"), ("egl", "egl")]
)
def test_gradient_strategies_ask_for_their_loss(name, loss):
    pool = FakePool()
    score(name, pool)
    assert pool.asked == [loss] == [strategies.load(name).loss]


@pytest.mark.parametrize("name", ["random", "badge", "vaal", "sraal"])
def test_chance_depends_on_the_seed_alone(name):
    assert not np.array_equal(score(name, FakePool(0)), score(name, FakePool(1)))


def test_margin_prefers_two_close_classes():
    top = np.sort(FakePool().probs(), axis=1)
    assert score("margin").argmax() == (top[:, -1] - top[:, -2]).argmin()


def test_entropy_prefers_the_flattest_posterior():
    np.testing.assert_array_equal(score("entropy"), scores.entropy(FakePool().probs()))


def test_expected_influence_asks_a_second_model_for_it():
    np.testing.assert_array_equal(score("expected-influence"), FakePool().expected_influence())
    assert [name for name, one in strategies.CATALOGUE.items() if one.validation] == ["expected-influence"]


def test_no_strategy_has_the_name_of_a_column_of_the_evidence():
    assert not set(strategies.CATALOGUE) & set(methods.EVIDENCE)


def test_mc_dropout_is_the_mutual_information_of_its_passes():
    assert strategies.load("mc-dropout").dropout > 0
    np.testing.assert_array_equal(score("mc-dropout"), scores.bald(FakePool().mc_probs(50)))


def test_class_balanced_random_begins_with_the_class_that_has_the_fewest_labels():
    found = score("balanced-random", RareClass())
    assert set(np.argsort(-found)[:2]) == {3, 7}
    assert len(set(found)) == N
