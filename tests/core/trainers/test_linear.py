"""The head on fixed embeddings, against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from core.models import Headed
from core.trainers import linear
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


def test_it_is_penalised_logistic_regression_on_standardised_embeddings(problem):
    x, labels = problem
    model = Bare(6, 3)
    linear.fit(model, torch.tensor(x, dtype=torch.float32), labels, seed=0)
    scaled = StandardScaler().fit_transform(x)
    theirs = LogisticRegression(C=linear.PENALTY, max_iter=1000, tol=1e-8).fit(scaled, labels).predict_proba(scaled)
    with torch.no_grad():
        ours = model.classify(torch.tensor(x, dtype=torch.float32)).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_with_dropout_the_head_learns_too(problem):
    x, labels = problem
    model = Bare(6, 3, dropout=0.25)
    linear.fit(model, torch.tensor(x, dtype=torch.float32), labels, seed=0)
    with torch.no_grad():
        guess = model.eval().classify(torch.tensor(x, dtype=torch.float32)).argmax(dim=1).numpy()
    assert (guess == labels).mean() > 0.8


def test_what_cannot_be_learnt_from_is_said(problem):
    labels = problem[1]
    with pytest.raises(UserError, match="no labelled sample"):
        linear.fit(Bare(6, 3), torch.zeros(0, 6), labels[:0], seed=0)
    with pytest.raises(UserError, match="not finite"):
        linear.fit(Bare(6, 3), torch.full((400, 6), torch.nan), labels, seed=0)
