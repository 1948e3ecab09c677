"""What labels are worth: the influence of images on a held-out loss, and its bounds (Wang et al. 2022).

`terms` is evidence alone: of the candidates of the cycle before, with their labels, on the loss of a half of the test images;
nothing that ranks or selects reads it. `expected` is a score: of the candidates as they are, on the loss of a validation split.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from core.engine.inference import SCORE_BATCH, Scorer
from core.engine.learner import WHOLE, Learner, weights
from core.gradnorm import sample_loss
from core.influence import Solution, Vector, gradient_dots, influence, inverse_hvp, loss_gradient
from core.models.batches import Images
from core.models.forward import at_once
from core.relabel import Floats, Ints, Labels
from core.store.cache import digest
from data import votes
from data.errors import UserError

if TYPE_CHECKING:
    from core.engine.scoring import Scoring

HALVED = 9  # the purpose of the seed that halves the test images
EQ_2, EQ_4, EQ_5 = "influence", "bound", "earlier-bound"  # columns of a ranking


@dataclass(frozen=True)
class Labelled:
    """Images with labels: rows int [n] of `images`, labels int [len(images)]."""

    images: Images
    rows: Ints
    labels: Ints

    @property
    def key(self) -> list[str]:
        """Names the rows and their labels."""
        return [digest(self.rows), digest(self.labels[self.rows])]

    def targets(self, rows: Ints) -> torch.Tensor:
        """Labels of some rows, on the device of the images."""
        return torch.from_numpy(self.labels[rows]).to(self.images.device)


@dataclass(frozen=True)
class Terms:
    """Of the n candidates of the cycle before that have a reference label, whose k best were then labelled.

    rows: in the pool, int [n] · target: Eq. 2, signed · bound: Eq. 4 · before: Eq. 5, by the model that ranked them; float64 [n]
    each · residual, iterations: of the conjugate gradients · failed: why there are no terms, or none of Eq. 5, which are NaN
    then; "" where nothing failed.
    """

    rows: Ints
    k: int
    target: Floats
    bound: Floats
    before: Floats
    residual: float
    iterations: int
    failed: str = ""

    def columns(self, n: int) -> dict[str, Floats]:
        """The terms that are known as columns of a pool of n images, NaN where an image was no candidate."""
        found = {}
        for name, values in ((EQ_2, self.target), (EQ_4, self.bound), (EQ_5, self.before)):
            if np.isfinite(values).any():
                found[name] = np.full(n, np.nan)
                found[name][self.rows] = values
        return found

    def measures(self) -> dict[str, Any]:
        """What Table 2 and its controls say of the terms, as metrics of a cycle; what is not known is left out.

        influence_eq3_eq5: of the k of highest Eq. 3, how many are among the k of highest Eq. 5; by chance k²/n are. _eq2_eq5,
        _eq2_eq3: the same of signed Eq. 2. _step_3_4, _step_4_5: the median of Eq. 3 / Eq. 4 and of Eq. 4 / Eq. 5. _positive: the
        share of Eq. 2 above 0.
        """
        found: dict[str, Any] = {"influence_n": len(self.rows), "influence_k": self.k}
        absolute = np.abs(self.target)
        ranked = {"eq2": self.target, "eq3": absolute, "eq5": self.before}
        top = {
            name: set(np.argsort(-values, kind="stable")[: self.k].tolist())
            for name, values in ranked.items()
            if len(values) and np.isfinite(values).all()
        }
        for one, other in (("eq3", "eq5"), ("eq2", "eq5"), ("eq2", "eq3")):
            if {one, other} <= set(top):
                found[f"influence_{one}_{other}"] = len(top[one] & top[other])
        for name, above, below in (("3_4", absolute, self.bound), ("4_5", self.bound, self.before)):
            known = np.isfinite(above) & (below > 0)
            if known.any():
                found[f"influence_step_{name}"] = float(np.median(above[known] / below[known]))
        if "eq2" in top:
            found["influence_positive"] = float((self.target > 0).mean())
        if np.isfinite(self.residual):
            found |= {"influence_residual": self.residual, "influence_iterations": self.iterations}
        return found | ({"influence_failed": self.failed} if self.failed else {})


def terms(cycle: "Scoring") -> Terms | None:
    """The terms by a cycle's model, computed once for equal content; None where nobody asked for them, and in the first cycle."""
    learner, config = cycle.learner, cycle.learner.config
    if config.evidence != "influence" or cycle.cycle == 0:
        return None
    learner, dataset = cast(Learner, learner), learner.dataset
    ranked = cycle.run.ranking(cycle.cycle - 1, ["rank"])["rank"].notna().to_numpy()
    rows = np.flatnonzero(ranked & (dataset.labels >= 0))
    k = min(len(rows), int((cycle.run.log.labels(cycle.cycle)["cycle"] == cycle.cycle).sum()))
    nothing, failed = np.full(len(rows), np.nan), ""
    held_out = half_of_test(learner)
    if not len(rows) or not len(held_out.rows):
        why = "No candidate has a reference label." if not len(rows) else "No held-out image can be read."
        return Terms(rows, k, nothing, nothing, nothing, np.nan, 0, why)
    before = _before(cycle, learner)
    if before is None:
        failed = f"The weights of cycle {cycle.cycle - 1} are not here, so that Eq. 5 is not known."
    learnt = learnt_labels(learner, cycle.state, cycle.cycle)
    try:
        found = values(
            cycle.scorer,
            Labelled(learner.pool, rows, dataset.labels),
            learnt,
            held_out,
            before=before,
            damping=config.damping,
            weight_decay=learner.settings(cycle.cycle, len(learnt.rows)).weight_decay,
        )
    except ValueError as error:  # what a model or its curvature has not: the run goes on without it
        return Terms(rows, k, nothing, nothing, nothing, np.nan, 0, str(error))
    if found.why:
        failed = f"{found.why} start a run with more --damping."
    return Terms(rows, k, found.target, found.bound, found.before, found.residual, found.iterations, failed)


def half_of_test(learner: Learner) -> Labelled:
    """What the held-out loss is of: a seeded half of the test images, of those that can be read and have a label."""
    right = learner.dataset.test_labels
    usable = np.flatnonzero(learner.dataset.readable_test() & (right >= 0))
    half = votes.random_order(len(usable), learner.seed(0, HALVED)) < -(-len(usable) // 2)
    return Labelled(learner.test, usable[half], right)


def learnt_labels(learner: Learner, state: Labels, cycle: int) -> Labelled:
    """The labels that a cycle's model was fitted to: all that are known, less those that early stopping held out."""
    rows = np.flatnonzero(state.majority >= 0)
    rows = rows[learner.dataset.readable(rows)]
    return Labelled(learner.pool, rows[learner.learnt(len(rows), learner.seed(cycle, 1))], state.majority)


def _before(cycle: "Scoring", learner: Learner) -> Scorer | None:
    """The model of the cycle before; None where its weights are not here, as in a run that was opened without them."""
    folder = cycle.run.cycle_path(cycle.cycle - 1)
    if not weights(folder).is_file():
        return None
    strategy = cycle.task.strategy
    return learner.scorers(folder, cycle.cycle - 1, 0.0 if strategy is None else strategy.dropout)[WHOLE]


@dataclass(frozen=True)
class Values:
    """Influences of n images on the summed held-out loss.

    residual, iterations, converged: of the conjugate gradients · target: Eq. 2, signed · bound: Eq. 4 · before: Eq. 5; float64
    [n] each, NaN where it did not converge, and of Eq. 5 without the model before.
    """

    residual: float
    iterations: int
    converged: bool
    target: Floats
    bound: Floats
    before: Floats

    @property
    def why(self) -> str:
        """That it did not converge, as the beginning of a sentence that says what to do; "" where it did."""
        if self.converged:
            return ""
        return _unconverged(self.residual, self.iterations)


def values(
    scorer: Scorer,
    images: Labelled,
    learnt: Labelled,
    held_out: Labelled,
    *,
    before: Scorer | None = None,
    damping: float,
    weight_decay: float,
) -> Values:
    """What labelled images are worth to a model that has learnt `learnt`, computed once for equal content.

    before: the model of the cycle before, for Eq. 5. Raises `ValueError` as `core.influence` does.
    """
    found = _computed(scorer, before, images, learnt, held_out, damping=damping, weight_decay=weight_decay)
    residual, iterations, converged = found[0]
    target, bound, earlier = found[1:].T
    return Values(float(residual), int(iterations), bool(converged), target, bound, earlier)


def losses(scorer: Scorer, held_out: Labelled) -> Floats:
    """Cross-entropy of each held-out image, nats, float64 [n]; computed once for equal content."""

    def compute() -> NDArray[np.float64]:
        model, parts = scorer.model.eval(), []
        with torch.inference_mode():
            for at, x in held_out.images.batches(held_out.rows, at_once(model, held_out.images, SCORE_BATCH)):
                parts.append(sample_loss(model(x), "label", held_out.targets(at)).double().cpu().numpy())
        return np.concatenate(parts)

    return scorer.cache.get({**scorer.key, "score": "held-out loss", "held out": held_out.key}, compute)


def _computed(
    scorer: Scorer,
    before: Scorer | None,
    candidates: Labelled,
    learnt: Labelled,
    held_out: Labelled,
    *,
    damping: float,
    weight_decay: float,
) -> NDArray[np.float64]:
    """`values` as the cache keeps them, float64 [1 + n, 3]: (residual, iterations, whether it converged), then of each image
    (Eq. 2, Eq. 4, Eq. 5)."""
    model, images = scorer.model, scorer.images

    def compute() -> NDArray[np.float64]:
        solution = s_test(scorer, learnt, held_out, damping=damping, weight_decay=weight_decay)
        rows = [np.array([[solution.residual, solution.iterations, solution.converged]], dtype=np.float64)]
        if not solution.converged:
            return np.concatenate([*rows, np.full((len(candidates.rows), 3), np.nan)])
        done = 0
        for at, x in images.batches(candidates.rows, at_once(model, images, SCORE_BATCH)):
            found = influence(
                model,
                x,
                solution,
                n_labels=len(learnt.rows),
                targets=candidates.targets(at),
                before=None if before is None else before.model,
            )
            earlier = torch.full_like(found.target, torch.nan) if found.approx_3 is None else found.approx_3
            rows.append(torch.stack([found.target, found.approx_2, earlier], dim=1).double().cpu().numpy())
            done += len(at)
            scorer.progress(done / len(candidates.rows))
        return np.concatenate(rows)

    key = {
        **scorer.key,
        "score": "influence",
        "before": None if before is None else before.key["weights"],
        "candidates": candidates.key,
        "learnt": learnt.key,
        "held out": held_out.key,
        "damping": damping,
        "weight decay": weight_decay,
    }
    return scorer.cache.get(key, compute)


def expected(cycle: "Scoring", validation: Ints) -> Floats:
    """Float64 [n] ≥ 0 in nats: Σ_y p_y |(1/l) Σ_j ∇L(x_j)ᵀ H⁻¹ ∇CE(·, y)| of each candidate, Eq. 3 over its predicted labels.

    By the model that has learnt all labels but those of the rows `validation`, which are the x_j; once for equal content. Raises
    `UserError` where conjugate gradients do not converge, and for a model or a curvature that has no such numbers.
    """
    learner, config, rows = cast(Learner, cycle.learner), cycle.learner.config, cycle.candidates
    scorer = learner.second(cycle.run.cycle_path(cycle.trained), cycle.trained)
    labels = cycle.state.majority
    known = np.flatnonzero(labels >= 0)
    known = known[learner.dataset.readable(known)]
    held = np.isin(known, validation)
    learnt = known[~held]
    learnt = learnt[learner.learnt(len(learnt), learner.seed(cycle.trained, 1))]
    train, held_out = Labelled(learner.pool, learnt, labels), Labelled(learner.pool, known[held], labels)
    weight_decay = learner.settings(cycle.trained, len(learnt)).weight_decay

    def compute() -> NDArray[np.float64]:
        solution = s_test(scorer, train, held_out, damping=config.damping, weight_decay=weight_decay)
        if not solution.converged:
            raise UserError(f"{_unconverged(solution.residual, solution.iterations)} start a run with more --damping.")
        parts, done = [], 0
        for at, x in scorer.images.batches(rows, at_once(scorer.model, scorer.images, SCORE_BATCH)):
            parts.append(gradient_dots(scorer.model, x, solution.vector, loss="egl").double().cpu().numpy())
            done += len(at)
            scorer.progress(done / len(rows))
        return np.concatenate(parts) / len(learnt)

    key = {
        **scorer.key,
        "score": "expected influence",
        "candidates": digest(rows),
        "learnt": train.key,
        "held out": held_out.key,
        "damping": config.damping,
        "weight decay": weight_decay,
    }
    try:
        found = scorer.cache.get(key, compute)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not found.any():
        raise UserError(
            "No candidate has an expected influence above 0, as where every softmax is saturated: train for fewer epochs, or "
            "choose another strategy."
        )
    return found


def s_test(scorer: Scorer, learnt: Labelled, held_out: Labelled, *, damping: float, weight_decay: float) -> Solution:
    """H⁻¹ Σ_j ∇L(x_j) over the held-out images (Koh & Liang 2017). Raises `ValueError` as `core.influence.inverse_hvp`."""
    model, vector = scorer.model, Vector()
    for at, x in held_out.images.batches(held_out.rows, at_once(model, held_out.images, SCORE_BATCH)):
        part = loss_gradient(model, x, held_out.targets(at))
        vector = {name: vector[name] + tensor if vector else tensor for name, tensor in part.items()}
    x, y = scorer.images[learnt.rows], learnt.targets(learnt.rows)
    return inverse_hvp(model, x, y, vector, damping=damping, weight_decay=weight_decay)


def _unconverged(residual: float, iterations: int) -> str:
    return f"Conjugate gradients did not converge: the relative residual is {residual:.2g} after {iterations:,} iterations;"
