"""The scores of a cycle: what a strategy may ask of the pool, what a score needs beyond the posterior, and the ranking."""

import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from core import graph, neighbours, regions, tsne
from core.engine import influence
from core.engine.imported import Importer
from core.engine.inference import NORMS, SCORE_BATCH, Scorer
from core.engine.learner import COMPANION, WHOLE, Learner, Part
from core.gradnorm import Loss
from core.models.architectures import Classifier
from core.models.forward import autocast
from core.posterior import ClassPosterior, Posterior
from core.relabel import Floats, Ints, Labels
from core.runs import audit
from core.runs.questions import Task
from core.runs.run import Run
from data.errors import UserError
from data.lazy import taken


@dataclass(frozen=True)
class Scoring:
    """A cycle that is to be scored.

    trained: the cycle whose models score it · scorers: these models · state: the labels it was trained on ·
    standing: these, [N, …] · events: those of the log that gave them · posterior: what the models say of the pool ·
    candidates: pool rows int [n] that are ranked.
    """

    run: Run
    task: Task
    learner: Learner | Importer
    cycle: int
    trained: int
    scorers: dict[Part, Scorer]
    state: Labels
    standing: Any
    events: pd.DataFrame
    posterior: Posterior
    candidates: Ints

    @property
    def scorer(self) -> Scorer:
        """The only model, where there are no folds and no ensemble."""
        return self.scorers[WHOLE]

    @functools.cached_property
    def terms(self) -> influence.Terms | None:
        """What the candidates of the cycle before are worth to this one's model, where it is asked for."""
        return influence.terms(self)


class AskedModel:
    """The `core.label_scores.AskedModel` that a score of labels asks."""

    def __init__(self, cycle: Scoring) -> None:
        self.cycle = cycle

    def bald(self, passes: int) -> Floats:
        cycle = self.cycle
        cycle.scorer.check_embedding("BALD")
        seed = cycle.learner.seed(cycle.trained, 2)
        return cycle.learner.combined(cycle.scorers, lambda one: one.bald(passes, seed))

    def neighbours(self) -> Floats:
        """As of the protocol; each fold by the embedding of its own models.

        Embeddings of two models have no axes in common, so that every model's embedding makes a graph of all samples, through
        which the labels are diffused; of a fold's graph the rows count that its models have not been trained on.
        """
        cycle, n = self.cycle, len(self.cycle.posterior)
        cycle.scorer.check_embedding("The graph score")

        def diffused(scorer: Scorer) -> Floats:
            return graph.diffuse(scorer.embeddings(np.arange(n)).cpu().numpy(), cycle.state.histogram)

        if cycle.learner.fixed:  # all models have one embedding, which has seen no label
            return diffused(cycle.scorer)
        return cycle.learner.combined(cycle.scorers, diffused)


def dropout(task: Task) -> float:
    """Probability of dropout before the head that the scores or the strategy of a task need."""
    return task.dropout if task.strategy is None else task.strategy.dropout


def validation(run: Run, task: Task, learner: Learner | Importer) -> Ints | None:
    """Rows of the initial labels that the strategy's second model does not learn; None where it needs no such model."""
    if task.strategy is None or not task.strategy.validation:
        return None
    state, _, _ = run.state(learner.dataset.ids, 0)
    return cast(Learner, learner).validation(np.flatnonzero(state.majority >= 0), task.strategy.validation)


def columns(cycle: Scoring) -> dict[str, Floats]:
    """All scores of the pool, [N] each, NaN where a sample is no candidate of a strategy."""
    found = cycle.task.score_columns(cycle.state, cycle.posterior)
    found |= cycle.task.model_columns(cycle.state, cycle.posterior, AskedModel(cycle))
    for name, values in _of_strategy(cycle).items():
        found[name] = np.full(len(cycle.posterior), np.nan)
        found[name][cycle.candidates] = values
    if cycle.terms is not None:
        found |= cycle.terms.columns(len(cycle.posterior))
    return found | cycle.posterior.columns() | _places(cycle)


def _of_strategy(cycle: Scoring) -> dict[str, Floats]:
    """Scores of the candidates by the strategy, and for the tables of `core.analysis.comparison`, [n] each."""
    strategy, config, rows = cycle.task.strategy, cycle.learner.config, cycle.candidates
    if strategy is None:
        return {}
    if not len(rows):  # the last cycle has labelled the whole pool
        return {config.method: np.empty(0)}
    found, scorer = {config.method: strategy.of(Unlabelled(cycle))}, cycle.scorer
    if config.evidence:
        scorer.check_embedding("--evidence")
        labels = cycle.learner.dataset.labels
        found["label-gradnorm"] = scorer.gradient_norms(rows, "label", config.reduction, labels)
        if strategy.loss == "egl":
            found["entropy-gradnorm"] = scorer.gradient_norms(rows, "entropy", config.reduction)
        elif strategy.loss is not None:
            found |= {f"{name}-gradnorm": scorer.gradient_norms(rows, strategy.loss, name) for name in NORMS}
    return found


def without_duplicates(cycle: Scoring, score: Floats) -> Scoring:
    """The cycle with one candidate of each group of near duplicates, that of the highest score, and none where one has a label.

    score: that which ranks, [N]; NaN for those left out afterwards, so that they are not collected either.
    """
    distance, neighbour = neighbours.nearest(cycle.scorer.projection())
    group = neighbours.near_duplicates(distance, neighbour)
    rows = cycle.candidates
    best_first = rows[np.lexsort((rows, -score[rows]))]
    seen = set(group[cycle.state.majority >= 0].tolist()) - {0}
    kept = []
    for row in best_first.tolist():
        if group[row] not in seen:
            kept.append(row)
            seen |= {int(group[row])} - {0}
    candidates = np.array(sorted(kept), dtype=np.int64)
    score[np.setdiff1d(rows, candidates)] = np.nan
    return dataclasses.replace(cycle, candidates=candidates)


def spread(cycle: Scoring, score: Floats, most: int) -> Scoring:
    """The cycle with at most so many candidates of each group (frames of one video), those of the highest scores.

    score: that which ranks, [N]; NaN for those left out afterwards, so that they are not collected either.
    """
    groups = cycle.learner.dataset.groups
    assert groups is not None
    rows, seen, kept = cycle.candidates, Counter[str](), []
    for row in rows[np.lexsort((rows, -score[rows]))].tolist():
        if seen[groups[row]] < most:
            kept.append(row)
        seen[groups[row]] += 1
    candidates = np.array(sorted(kept), dtype=np.int64)
    score[np.setdiff1d(rows, candidates)] = np.nan
    return dataclasses.replace(cycle, candidates=candidates)


def _places(cycle: Scoring) -> dict[str, Floats]:
    """The columns of the embedding map, [N] each; they stay where no training has changed the embedding."""
    before = None
    if cycle.cycle > 0:
        ranking = cycle.run.ranking(cycle.cycle - 1)
        if set(tsne.COLUMNS) <= set(ranking.columns):
            before = ranking[list(tsne.COLUMNS)].to_numpy(np.float32)
    moved = cycle.trained == cycle.cycle
    found = cycle.scorer.places(before) if moved or before is None else before
    return dict(zip(tsne.COLUMNS, found.T, strict=True))


def measures(cycle: Scoring) -> dict[str, Any]:
    """Metrics of the cycle, on the pool and on the test images."""
    found: dict[str, Any] = cycle.task.measure(cycle.state, cycle.events, cycle.posterior)
    if cycle.task.audited and cycle.cycle > 0:
        found |= _audited(audit.of_run(cycle.run, cycle.learner.dataset.ids, cycle.cycle))
    found |= _fall(cycle)
    if cycle.terms is not None:
        found |= cycle.terms.measures()
    first = cycle.task.answer.measured[0]
    learnt_from = _fitted(cycle, f"train_{first}")
    if f"train_{first}" not in found and learnt_from is not None:
        found["fitted"] = learnt_from
    found |= cycle.learner.test_measures(cycle.scorers)
    if first in found and f"train_{first}" in found:
        found["gap"] = found[f"train_{first}"] - found[first]
    return found


def _fitted(cycle: Scoring, measure: str) -> float | None:
    """How well the models predict the labels that they learnt from; None of one that an earlier version trained."""
    phases = cycle.run.log.phases()
    trained = phases[(phases["cycle"] == cycle.trained) & (phases["phase"] == "train")]
    result = {} if trained.empty else trained["result"].iloc[-1]
    return result.get(measure)


def _audited(found: audit.Estimate | None) -> dict[str, float]:
    """An estimate as the metrics of a cycle."""
    if found is None:
        return {}
    return {
        "estimated_correctness": found.share,
        "estimated_low": found.low,
        "estimated_high": found.high,
        "checked_at_random": found.checked,
    }


def _fall(cycle: Scoring) -> dict[str, float]:
    """As evidence: of the samples chosen by gradient norm a cycle ago, how many have none larger now that they are learnt.

    selected, fell; pool, pool_fell: the same of all samples that the cycle before ranked, chosen or not, as a control.
    """
    config, strategy = cycle.learner.config, cycle.task.strategy
    if not config.evidence or strategy is None or strategy.loss is None:
        return {}
    if cycle.cycle in (0, config.branched_at):  # nothing was chosen yet, or not by this strategy
        return {}
    events = cycle.run.log.labels(cycle.cycle)
    ranking = cycle.run.ranking(cycle.cycle - 1, ["rank", config.method])
    ranked, before = ranking["rank"].notna().to_numpy(), ranking[config.method].to_numpy(np.float64)
    chosen = np.isin(cycle.learner.dataset.ids, events.loc[events["cycle"] == cycle.cycle, "sample_id"])
    others = ranked & ~chosen
    others[cycle.candidates] = False  # these have been scored for this cycle's ranking, and are not computed again
    after = np.full(len(ranked), np.nan)
    for rows in (np.flatnonzero(chosen), cycle.candidates, np.flatnonzero(others)):
        if len(rows):
            after[rows] = cycle.scorer.gradient_norms(rows, strategy.loss, config.reduction)
    fell = after <= before
    return {
        "selected": int(chosen.sum()),
        "fell": int(fell[chosen].sum()),
        "pool": int(ranked.sum()),
        "pool_fell": int(fell[ranked].sum()),
    }


class Unlabelled:
    """The `Pool` that a strategy sees."""

    def __init__(self, cycle: Scoring) -> None:
        self.cycle, self.scorer, self.rows = cycle, cycle.scorer, cycle.candidates
        self.known = np.flatnonzero(cycle.state.majority >= 0)
        config = cycle.learner.config
        self.seed = cycle.learner.seed(cycle.cycle, 2)
        self.budget = regions.images(config.budget, config.budget_unit, cycle.learner.dataset.images.shape)
        self.n_labelled, self.batch_size, self.width = len(self.known), config.batch_size, config.width
        self.steps = max(config.epochs * -(-len(self.known) // config.batch_size), config.steps or 0)

    def __len__(self) -> int:
        return len(self.rows)

    def probs(self) -> Floats:
        return cast(ClassPosterior, self.cycle.posterior).probs[self.rows]

    def entropy(self) -> Floats:
        return self.cycle.posterior.entropy()[self.rows]

    def margin(self) -> Floats:
        return self.cycle.posterior.margin()[self.rows]

    def bald(self, passes: int) -> Floats:
        self._check_embedding()
        return self.scorer.bald(passes, self.seed, self.rows)

    def shares(self) -> Floats:
        return self.cycle.posterior.shares()[self.rows]

    def labelled_shares(self) -> Floats:
        return self.cycle.task.answer.shares(taken(self.cycle.standing, self.known))

    def _check_embedding(self) -> None:
        assert self.cycle.task.strategy is not None
        self.scorer.check_embedding(self.cycle.task.strategy.title)

    def mc_probs(self, passes: int) -> Floats:
        self._check_embedding()
        return self.scorer.mc_probs(self.rows, passes, self.seed)

    def gradient_norms(self, loss: Loss) -> Floats:
        return self.scorer.gradient_norms(self.rows, loss, self.cycle.learner.config.reduction)

    def embeddings(self) -> Tensor:
        self._check_embedding()
        return self.scorer.embeddings(self.rows)

    def labelled_embeddings(self) -> Tensor:
        return self.scorer.embeddings(self.known)

    def labels(self) -> Tensor:
        return torch.from_numpy(self.cycle.state.majority[self.known]).to(self.scorer.images.device)

    def images(self, positions: Ints) -> Tensor:
        return self.scorer.images[self.rows[positions]]

    def labelled_images(self, positions: Ints) -> Tensor:
        return self.scorer.images[self.known[positions]]

    def companion(self) -> Floats:
        cycle, images = self.cycle, self.scorer.images
        assert cycle.task.strategy is not None
        assert cycle.task.strategy.companion is not None
        companion = cast(Learner, cycle.learner).companion(cycle.cycle, cycle.task.strategy.companion)
        companion.load_state_dict(load_file(cycle.run.cycle_path(cycle.cycle) / COMPANION))
        companion.to(images.device).eval()
        model, parts = cast(Classifier, self.scorer.model), []
        with torch.no_grad(), autocast(images.device):
            for _, x in images.batches(self.rows, SCORE_BATCH):
                parts.append(companion(model.with_stages(x)[1]).double().cpu().numpy())
        return np.concatenate(parts)

    def expected_influence(self) -> Floats:
        cycle = self.cycle
        held_out = validation(cycle.run, cycle.task, cycle.learner)
        assert held_out is not None
        return influence.expected(cycle, held_out)


def ranking_table(
    ids: list[str],
    state: Labels,
    posterior: Posterior,
    columns: dict[str, Floats],
    method: str,
    candidates: Ints,
    priority: Floats,
    status: NDArray[np.str_],
) -> pd.DataFrame:
    """One row a sample in pool order: sample_id, rank (1 = next, missing where it cannot be chosen), label (−1 none),
    suggested, confidence, status, n_votes, then the scores. Ties come first, whatever the score: one more vote decides most.
    priority, status: as of `core.runs.questions.Task`. Raises `UserError` where a candidate has no finite score.
    """
    wrong = ~np.isfinite(columns[method][candidates])
    if wrong.any():
        raise UserError(
            f"{int(wrong.sum())} samples got no finite {method} score: training probably diverged; lower the learning rate and "
            "run again."
        )
    order = candidates[np.lexsort((candidates, -priority[candidates], ~state.tied[candidates]))]
    rank = np.full(len(ids), -1, dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return pd.DataFrame(
        {
            "sample_id": ids,
            "rank": pd.Series(rank).where(rank > 0).astype("Int64"),
            "label": state.majority,
            "suggested": posterior.suggested(),
            "confidence": posterior.confidence(),
            "status": status,
            "n_votes": state.histogram.sum(axis=1),
            **columns,
        }
    )
