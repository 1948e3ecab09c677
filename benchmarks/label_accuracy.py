"""What an estimate of the share of right labels is worth, at known noise: from a model alone, and from images checked at random.

Protocol, fixed before it was run. 3,000 of the embedded images; noise of three kinds at five rates, two draws each; three models
of different strength, which are linear on the pixels' first 40, 8 and 2 principal components, in and out of fold (five folds).
Estimates: the share of labels that the model agrees with, and one minus the noise by the confident joint (Northcutt et al.
2021), in sample and out of fold. Beside them `core.runs.audit`: 300 images in the order of a queue, of which one in ten is
random, answered rightly; repeated with 200 random orders for its coverage, and for the width of its interval.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import data
from core import metrics
from core.runs import audit
from data import votes

N, FOLDS, ASKED, ORDERS = 3000, 5, 300, 200
RATES, DRAWS = (0.0, 0.07, 0.15, 0.3, 0.4), (0, 1)
MODELS = {"strong": 40, "weak": 8, "very weak": 2}  # principal components


def predictions(x: np.ndarray, labels: np.ndarray, n_classes: int) -> dict[str, np.ndarray]:
    """Posteriors [N, C] of a linear model, in sample and out of fold."""

    def fitted(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        model = LogisticRegression(max_iter=100).fit(x[rows], labels[rows])
        probs = np.zeros((int(at.sum()), n_classes))
        probs[:, model.classes_] = model.predict_proba(x[at])
        return probs

    everything, fold = np.ones(len(x), dtype=bool), votes.random_order(len(x), 0) % FOLDS
    held_out = np.empty((len(x), n_classes))
    for k in range(FOLDS):
        held_out[fold == k] = fitted(fold != k, fold == k)
    return {"in sample": fitted(everything, everything), "out of fold": held_out}


def audited(given: np.ndarray, right: np.ndarray, probs: np.ndarray) -> tuple[float, float]:
    """Coverage and mean width of the interval over random orders, with the queue of 1 − p[label]."""
    ranked = np.argsort(probs[np.arange(len(given)), given], kind="stable")
    inside, widths = [], []
    for seed in range(ORDERS):
        drawn = audit.order(len(given), seed)
        queue = audit.interleaved(ranked, drawn, 0)[:ASKED]
        decided = np.full(len(given), -1)
        decided[queue] = right[queue]
        found = audit.label_accuracy(given, decided, decided >= 0, drawn)
        assert found is not None
        standing = (np.where(decided >= 0, decided, given) == right).mean()
        inside.append(found.low - 1e-12 <= standing <= found.high + 1e-12)
        widths.append(found.high - found.low)
    return float(np.mean(inside)), float(np.mean(widths))


def table() -> pd.DataFrame:
    """One row a noise, draw and model: truth, estimates, and what the audit reaches."""
    found = data.load("fashion", limit=N)
    right, n_classes = found.labels, len(found.class_names)
    pixels = PCA(max(MODELS.values()), random_state=0).fit_transform(np.asarray(found.images).reshape(N, -1) / 255.0)
    rows = []
    for kind in votes.NOISE_KINDS:
        for rate in RATES:
            for draw in DRAWS:
                given = votes.inject(kind, found.images, right, found.class_names, rate, draw)
                for name, components in MODELS.items():
                    row = {"noise": kind, "rate": rate, "draw": draw, "model": name, "truth": (given == right).mean()}
                    both = predictions(pixels[:, :components], given, n_classes)
                    for where, probs in both.items():
                        row[f"agrees, {where}"] = metrics.accuracy(probs, given)
                        row[f"confident joint, {where}"] = 1 - metrics.estimated_noise(given, probs)
                    row["coverage"], row["width"] = audited(given, right, both["out of fold"])
                    rows.append(row)
    return pd.DataFrame(rows)


def measure() -> None:
    """Print how far each estimate lies from the truth, in points, and the coverage of the interval."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = table()
    names = [name for name in found if "," in name]
    errors = found[names].sub(found["truth"], axis=0).mul(100)
    shown = errors.groupby(found["model"], sort=False).agg(["mean", "min", "max"]).stack(0, future_stack=True)
    print("estimate less truth, points, over noise kinds, rates and draws\n" + shown.round(1).to_string())
    print(
        f"interval from {ASKED} answers, {ASKED // audit.EVERY} of them at random: coverage {found['coverage'].min():.3f} to "
        f"{found['coverage'].max():.3f} (mean {found['coverage'].mean():.3f}), mean width "
        f"{100 * found['width'].mean():.1f} points"
    )
