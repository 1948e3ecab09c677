"""Whether influence predicts what labels are worth: a model is retrained without some of them, and its held-out loss compared.

The labels that help most by signed Eq. 2 of Wang et al. 2022, those that help least or harm, and as many at random are removed
in turn. Koh & Liang 2017 checked influence functions so, Koh et al. 2019 those of groups. Evidence alone: the loss is that of the
half of the test images that `core.engine.influence` holds out. Every training is kept, so that a study that was interrupted goes
on where it was.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from core import metrics
from core.engine import influence
from core.engine.estimate import duration
from core.engine.influence import Values
from core.engine.learner import WHOLE, Learner, weights
from core.relabel import Floats, Ints
from core.runs import questions, removal
from core.runs.removal import CHOICES, Damped, Removal, Removed
from core.runs.run import Run
from core.store.atomic import writing
from data import votes
from data.dataset import ImageDataset
from data.errors import UserError

REMOVED, RETRAINED = 20, 21  # purposes of seeds: which labels go at random, and how a model is retrained
FOLDER = "removal"  # of a run: the models that were retrained
Report = Callable[[str], None]


def study(
    run: Run,
    dataset: ImageDataset,
    cycle: int,
    *,
    share: float,
    trainings: int,
    dampings: Sequence[float],
    report: Report = lambda line: None,
) -> Removal:
    """Predict and measure what removing a share of a cycle's labels does, keep it with the cycle, and return it.

    trainings: retrainings of each choice, and with all labels, by the run's own recipe; the first has the run's seed, so that
    with all labels it is the cycle's own · dampings: others, under which the influences are ranked too. Raises `UserError` where
    a run has no influence, or its conjugate gradients do not converge at its own damping.
    """
    _check(run, dataset, cycle, trainings, dampings)
    one = _Study(run, dataset, cycle, report)
    n = len(one.learnt.rows)
    m = round(share * n) if 0 < share < 1 else 0
    if not 0 < m < n - 1:
        raise UserError(
            f"--share is {share:g}, which removes {'no label' if m == 0 else 'every label'} of the {n:,} that cycle {cycle} "
            "learnt from: give a share that removes some and leaves some, such as 0.05."
        )
    own = one.values(run.config.damping)
    if own.why:
        raise UserError(f"{own.why} start a run with more --damping.")
    order = np.argsort(-own.target, kind="stable")
    drawn = np.flatnonzero(votes.random_order(n, one.learner.seed(cycle, REMOVED)) < m)
    chosen = dict(zip(CHOICES, (order[:m], order[-m:], drawn), strict=True))
    stable = [one.damped(damping, own, m) for damping in dict.fromkeys(dampings) if damping != run.config.damping]
    seeds = one.seeds(trainings)
    losses = one.losses({"none": drawn[:0], **chosen}, seeds)
    found = Removal(
        cycle=cycle,
        share=share,
        damping=run.config.damping,
        weight_decay=one.weight_decay,
        iterations=own.iterations,
        residual=own.residual,
        n_held_out=len(one.held_out.rows),
        sample_ids=[dataset.ids[row] for row in one.learnt.rows],
        influence=own.target.tolist(),
        bound=own.bound.tolist(),
        seeds=seeds,
        losses=losses["none"],
        removed=[Removed(name, at.tolist(), losses[name]) for name, at in chosen.items()],
        dampings=stable,
    )
    removal.write(run, found)
    return found


def _check(run: Run, dataset: ImageDataset, cycle: int, trainings: int, dampings: Sequence[float]) -> None:
    """Raise `UserError` where there is nothing to remove, to retrain, or to measure by."""
    config = run.config
    if config.question.checks:
        raise UserError(
            f"Run {run.id} cleans labels, and influence says what labels are worth to active learning: name such a run."
        )
    if not config.trains:
        raise UserError(
            f"Run {run.id} has imported predictions, and influence needs the gradients of a model that is trained here: name a "
            "run that trains one."
        )
    if config.freeze:
        raise UserError(
            f"Run {run.id} trains a head on a frozen network, by a penalty of its own, and influence inverts the curvature of a "
            "network that is trained with weight decay: name a run without --freeze."
        )
    if dataset.test_labels.ndim != 1:
        raise UserError(
            f"Influence is computed from labels of one class each, and those of run {run.id} are masks: name another run."
        )
    run.check_work()
    run.check_data(len(dataset))
    if cycle > 0 and (config.warm_start or config.finetune_epochs):
        raise UserError(
            f"Cycle {cycle} of run {run.id} goes on from the weights of the cycle before, which have learnt what would be "
            "removed: give --cycle 0, or name a run that retrains from scratch."
        )
    if not weights(run.cycle_path(cycle)).is_file():
        raise UserError(
            f"The weights of cycle {cycle} of run {run.id} are not here: open a bundle that was made with them "
            "(`python -m core bundle RUN --with-weights`), or name another run."
        )
    if not (dataset.readable_test() & (dataset.test_labels >= 0)).any():
        raise UserError(
            f"Influence is on the loss of test images, and the data of run {run.id} have none with a label: start a run with "
            "--test-share."
        )
    if trainings < 1:
        raise UserError(f"--trainings is {trainings}: give 1 or more; an interval needs 2.")
    for damping in dampings:
        if not (math.isfinite(damping) and damping >= 0):
            raise UserError(f"--dampings has {damping:g}: give numbers of 0 or more.")


class _Study:
    """The models of a study, and what they say of the held-out images."""

    def __init__(self, run: Run, dataset: ImageDataset, cycle: int, report: Report) -> None:
        self.run, self.cycle, self.report = run, cycle, report
        config = run.config_at(cycle)
        task = questions.of(config, dataset)
        strategy = task.strategy
        assert strategy is not None
        # As the loop trains: the first model is shared by all strategies
        self.dropout = strategy.dropout if cycle > 0 else 0.0
        self.companion = strategy.companion if cycle > 0 else None
        self.learner = Learner(config, dataset, run.path.parent)
        self.state = run.state(dataset.ids, cycle)[0]
        self.learnt = influence.learnt_labels(self.learner, self.state, cycle)
        self.held_out = influence.half_of_test(self.learner)
        self.weight_decay = self.learner.settings(cycle, len(self.learnt.rows)).weight_decay

    def values(self, damping: float) -> Values:
        """The influence of every label that was learnt. Raises `UserError` as `core.influence` does `ValueError`."""
        scorer = self.learner.scorers(self.run.cycle_path(self.cycle), self.cycle, self.dropout)[WHOLE]
        try:
            found = influence.values(
                scorer, self.learnt, self.learnt, self.held_out, damping=damping, weight_decay=self.weight_decay
            )
        except ValueError as error:
            raise UserError(f"There is no influence at damping {damping:g}: {error}") from error
        self.report(
            f"damping {damping:g}: relative residual {found.residual:.1e} after {found.iterations:,} iterations"
            + (", not converged" if found.why else "")
        )
        return found

    def damped(self, damping: float, own: Values, k: int) -> Damped:
        """How alike another damping ranks the labels."""
        try:
            found = self.values(damping)
        except UserError as error:
            return Damped(damping, failed=str(error))
        if found.why:
            return Damped(damping, iterations=found.iterations, residual=found.residual, failed=found.why)
        pairs = [(own.target, found.target), (np.abs(own.target), np.abs(found.target))]
        correlations = (metrics.spearman(*pair) for pair in pairs)
        signed, absolute = (None if np.isnan(rho) else rho for rho in correlations)
        signed_top, absolute_top = (_common(*pair, k) for pair in pairs)
        return Damped(damping, signed, absolute, signed_top, absolute_top, found.iterations, found.residual)

    def seeds(self, n: int) -> list[int]:
        """Seeds of n retrainings."""
        config, cycle = self.learner.config, self.cycle
        others = np.random.SeedSequence([config.seed, cycle, RETRAINED]).generate_state(n - 1)
        return [config.seed, *others.tolist()]

    def losses(self, choices: dict[str, Ints], seeds: list[int]) -> dict[str, list[float]]:
        """The mean held-out loss without each choice of the learnt labels, of a training by each seed."""
        found: dict[str, list[float]] = {name: [] for name in choices}
        began, trained, total = time.monotonic(), 0, len(choices) * len(seeds)
        for done, (seed, name) in enumerate(((seed, name) for seed in seeds for name in choices), start=1):
            loss, shared = self.retrained(name, choices[name], seed)
            found[name].append(loss)
            trained += not shared
            line = f"training {done} of {total}, {name} removed, seed {seed}: held-out loss {loss:.4f}"
            if trained and done < total:
                line += f"; about {duration((time.monotonic() - began) / trained * (total - done))} left"
            self.report(line)
        return found

    def retrained(self, name: str, at: Ints, seed: int) -> tuple[float, bool]:
        """The mean held-out loss of a training without the labels at these places, and whether it was there already."""
        rows = np.flatnonzero(self.state.majority >= 0)
        rows = rows[self.learner.dataset.readable(rows)]
        rows = np.setdiff1d(rows, self.learnt.rows[at])
        learner, folder = self.learner.reseeded(seed), self._folder(f"{self.cycle}-{name}-{len(at)}-{seed}")
        labels = self.state.majority[rows]
        result = learner.train(folder, self.cycle, rows, labels, dropout=self.dropout, companion=self.companion)
        scorer = learner.scorers(folder, self.cycle, self.dropout)[WHOLE]
        return float(influence.losses(scorer, self.held_out).mean()), bool(result["shared"])

    def _folder(self, name: str) -> Path:
        home = self.run.path / FOLDER
        with writing(home):
            home.mkdir(exist_ok=True)
        return home / name


def _common(one: Floats, two: Floats, k: int) -> int:
    """Of the k highest by one score, how many are among the k highest by the other."""
    first, second = (set(np.argsort(-values, kind="stable")[:k].tolist()) for values in (one, two))
    return len(first & second)
