"""What cleaned labels are worth: classifiers trained before and after, and chosen on noisy and on cleaned validation labels.

Bernhardt et al. 2022, Table 1 and its section on model selection. Results are kept as facts of the run whose labels they
are about, one at a time, so that work that was interrupted goes on where it was.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core import metrics, selectors
from core.engine.learner import Learner
from core.relabel import Ints
from core.runs.reference import clean_labels, reference_counts
from core.runs.run import Run
from core.runs.spec import Config
from data import votes
from data.dataset import ImageDataset
from data.errors import UserError

Labelled = Literal["before", "after", "clean"]
LABELLED: tuple[Labelled, ...] = ("before", "after", "clean")
VALIDATION = 5  # a fifth of the pool is validation set
Report = Callable[[str], None]


def labels_of(run: Run, dataset: ImageDataset, which: Labelled, relabelled: float | None = None) -> tuple[Ints, int]:
    """The majority labels [N] of a run before or after its cleaning, or the right ones, and how many were collected for it.

    relabelled: stop after so large a share of the samples was relabelled; None: take all that the run collected. Raises
    `UserError` where the run has not come so far, or no ground truth is available.
    """
    if which == "clean":
        return clean_labels(run.config, dataset), 0
    state, taken, events = run.state(dataset.ids, 0 if which == "before" else None)
    if which == "before":
        return state.majority, 0
    asked = np.flatnonzero((events["cycle"] > 0).to_numpy())
    if len(asked) == 0:
        raise UserError(f"Run {run.id} has collected no labels yet: step it first.")
    if relabelled is None:
        return state.majority, len(asked)
    before = run.state(dataset.ids, 0)[0].majority
    sample, majority = taken.sample[asked], taken.majority[asked]
    # Samples are relabelled one after the other: the first label of the next sample ends the share
    new = np.zeros(len(sample), dtype=bool)
    new[np.unique(sample, return_index=True)[1]] = True
    wanted = round(relabelled * len(before))
    if new.sum() < wanted:
        raise UserError(
            f"Run {run.id} has relabelled {new.sum() / len(before):.1%} of its images, less than the {relabelled:.1%} asked "
            "for: step it further, or ask for less."
        )
    count = int(np.searchsorted(np.cumsum(new), wanted + 1)) if new.sum() > wanted else len(sample)
    after = before.copy()
    after[sample[:count]] = majority[:count]  # the last event of a sample wins
    return after, count


def evaluate(
    run: Run,
    dataset: ImageDataset,
    classifier: Config,
    which: Labelled,
    *,
    seed: int,
    relabelled: float | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Train a classifier on the labels of a run and measure it on the clean test set.

    classifier: its selector, model and training, as a run has them. Returns accuracy, correctness (of the labels it learnt
    from, None without ground truth), n_labels (collected for them), relabelled and seconds; what is known is not computed
    again. Bernhardt et al. 2022, Table 1.
    """
    if len(dataset.test_labels) == 0:
        raise UserError("This data set has no test images: classifiers cannot be compared on it.")
    share = relabelled if which == "after" else None
    selector = classifier.selector
    name = f"evaluation/{selector}/{which}/{'all' if share is None else f'{share:g}'}/{seed}"
    known = run.log.fact(name)
    if known is not None:
        return dict(known)
    run.check_work()
    began = time.monotonic()
    labels, collected = labels_of(run, dataset, which, share)
    learner = Learner(_alone(classifier, seed), dataset, run.path.parent)
    folder = run.path / name.replace("/", "-")
    rows = np.flatnonzero(labels >= 0)  # a tie of people's votes is no label
    accuracy = _accuracy(learner, folder, rows, labels[rows])
    reference = reference_counts(run.config, dataset)
    found = {
        "classifier": selector,
        "labels": which,
        "seed": seed,
        "accuracy": accuracy,
        "correctness": None if reference is None else metrics.correctness(labels, reference),
        "n_labels": collected,
        "relabelled": share,
        "seconds": time.monotonic() - began,
    }
    run.log.set_fact(name, found)
    learnt_from = "correct labels" if which == "clean" else f"labels {which} cleaning"
    report(f"{selector} on the {learnt_from}, seed {seed}: test accuracy {accuracy:.2%}")
    return found


def candidates(config: Config) -> list[dict[str, Any]]:
    """Classifiers to choose from, as settings beside those of the run: some plainly worse, some close to one another."""
    short, narrow = max(1, config.epochs // 4), max(4, config.width // 2)
    return [
        {"selector": "vanilla"},
        {"selector": "vanilla", "epochs": short},
        {"selector": "vanilla", "width": narrow},
        {"selector": "elr"},
        {"selector": "co-teaching"},
        {"selector": "vanilla", "epochs": short, "width": narrow},
    ]


def select_models(
    run: Run, dataset: ImageDataset, *, seed: int, report: Report = lambda line: None
) -> list[dict[str, Any]]:
    """Rank classifiers on a validation set before and after its labels were cleaned.

    A fifth of the pool is the validation set; each of `candidates` learns from the noisy labels of the rest. Returns for
    each its settings and its accuracy on the validation set with the noisy, the cleaned and the right labels, and on the
    test set, which says who is really better. Bernhardt et al. 2022, model selection.
    """
    run.check_work()
    before, after = labels_of(run, dataset, "before")[0], labels_of(run, dataset, "after")[0]
    held_out = votes.random_order(len(dataset), seed) < len(dataset) // VALIDATION
    rows = np.flatnonzero(~held_out)
    against = {"noisy": before, "cleaned": after, "right": clean_labels(run.config, dataset)}
    found = []
    for settings in candidates(run.config):
        name = "model-selection/" + "-".join(str(value) for value in settings.values()) + f"/{seed}"
        known = run.log.fact(name)
        if known is None:
            config = _alone(dataclasses.replace(run.config, **settings), seed)
            learner, folder = Learner(config, dataset, run.path.parent), run.path / name.replace("/", "-")
            learner.train(folder, 0, rows, before[rows])
            scorers = learner.scorers(folder, 0)
            probs = learner.combined(scorers, lambda one: one.probs().astype(np.float64))
            known = {**settings, "width": config.width, "epochs": config.epochs, "seed": seed}
            known |= {
                f"validation_{which}": metrics.accuracy(probs[held_out], labels[held_out])
                for which, labels in against.items()
            }
            known["accuracy"] = metrics.accuracy(learner.test_probs(scorers), dataset.test_labels)
            run.log.set_fact(name, known)
            report(f"{name}: test accuracy {known['accuracy']:.2%}")
        found.append(known)
    return found


def _alone(config: Config, seed: int) -> Config:
    """A single model that learns from whatever labels it is given, without folds."""
    learns = config.trains and config.selector != "clean"
    selector = config.selector if learns else "vanilla"
    frozen = config.freeze and selectors.load(selector).plain  # another way of learning trains the network
    config = dataclasses.replace(config, predictions=None, embeddings=None, predicted=None, imported=None)
    return dataclasses.replace(config, selector=selector, freeze=frozen, seed=seed, folds=1, ensemble=1)


def _accuracy(learner: Learner, folder: Path, rows: Ints, labels: Ints) -> float:
    """Test accuracy of a selector trained on the rows with `labels` [n]; its weights stay in `folder`."""
    learner.train(folder, 0, rows, labels)
    return metrics.accuracy(learner.test_probs(learner.scorers(folder, 0)), learner.dataset.test_labels)
