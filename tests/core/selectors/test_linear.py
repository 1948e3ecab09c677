"""The head on fixed embeddings, against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.architectures import Headed
from core.selectors import linear
from data.errors import UserError


class Bare(Headed):
    """A head without an embedding of its own."""

    def __init__(self, size: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.head, self.dropout = nn.Linear(size, n_classes), nn.Dropout(dropout)

    def embed(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    return rng.normal(size=(3, 6))[labels] * 2 + rng.normal(size=(400, 6)) * [1, 5, 0.1, 1, 1, 20] + 7, labels


def test_it_is_penalised_logistic_regression_on_standardised_embeddings(problem, monkeypatch):
    monkeypatch.setattr(linear, "PENALTIES", (0.05,))
    x, labels = problem
    model = Bare(6, 3)
    linear.fit(model, torch.tensor(x, dtype=torch.float32), labels, seed=0)
    scaled, penalty = StandardScaler().fit_transform(x), 1 / (0.05 * len(x))
    theirs = LogisticRegression(C=penalty, max_iter=1000, tol=1e-8).fit(scaled, labels).predict_proba(scaled)
    with torch.no_grad():
        ours = model.classify(torch.tensor(x, dtype=torch.float32)).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_more_wrong_labels_ask_for_a_stronger_penalty():
    """100 features of which one tells the class: a weak penalty learns wrong labels by heart."""
    rng = np.random.default_rng(0)
    right = np.arange(300) % 2
    x = rng.normal(size=(300, 100))
    x[:, 0] += 4 * right
    embeddings, sizes = torch.tensor(x, dtype=torch.float32), []
    for noise in (0.0, 0.2):
        labels = np.where(rng.random(300) < noise, 1 - right, right)
        model = Bare(100, 2)
        linear.fit(model, embeddings, labels, seed=0)
        sizes.append(float(model.head.weight.detach().norm()))
    with torch.no_grad():
        guess = model.classify(embeddings).argmax(dim=1).numpy()
    assert sizes[1] < sizes[0] / 2
    assert (guess == right).mean() > (labels == right).mean() + 0.05


def test_with_dropout_the_head_is_trained_for_what_the_model_drops(problem):
    x, labels = torch.tensor(problem[0], dtype=torch.float32), problem[1]
    losses = []
    for trained_with in (0.0, 0.5):
        model = Bare(6, 3, trained_with)
        linear.fit(model, x, labels, seed=0)
        model.dropout.p = 0.5
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            logits = model.train().classify(x.repeat(100, 1))
        losses.append(float(F.cross_entropy(logits, torch.from_numpy(labels).repeat(100))))
    assert losses[1] < losses[0] / 2


def test_what_cannot_be_learnt_from_is_said(problem):
    labels = problem[1]
    with pytest.raises(UserError, match="no labelled sample"):
        linear.fit(Bare(6, 3), torch.zeros(0, 6), labels[:0], seed=0)
    with pytest.raises(UserError, match="not finite"):
        linear.fit(Bare(6, 3), torch.full((400, 6), torch.nan), labels, seed=0)
