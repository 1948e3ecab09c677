"""Where in the network a sample's gradient lies, and what its label does to every held-out image: one image at a time."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import filelock
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from core.engine.inference import SCORE_BATCH, Scorer
from core.engine.influence import Labelled, half_of_test, learnt_labels, s_test
from core.engine.learner import WHOLE, Learner, Part, weights
from core.gradnorm import gradient_norms
from core.influence import Solution, gradient_dots, inverse_hvp, loss_gradient
from core.models.forward import at_once
from core.relabel import Floats
from core.runs import attribution, live, saliency
from core.runs.attribution import MOST, Attribution, Effect, Layer
from core.runs.run import Run
from core.store.atomic import writing
from data.dataset import ImageDataset
from data.errors import UserError

HEADER = 3  # numbers before a solution in the cache
PATIENCE = 3.0  # seconds for which another process may hold the lock


def layer_norms(run: Run, dataset: ImageDataset, cycle: int, sample_id: str) -> pd.DataFrame:
    """L2 norms of the gradient of the entropy H(p) of one sample, one row a parameter tensor: parameter, shape, norm.

    The model is that of the cycle; with folds, the one that has not seen the sample. The sum of all norms is the entropy
    gradient norm (Wang et al. 2022, Eq. 7). Raises `UserError` for an unknown sample, and where the weights are not kept.
    """
    if not run.config.trains:
        raise UserError(
            f"Run {run.id} ranks by imported predictions, which have no gradients: choose a run that trains its model."
        )
    row = _row(run, dataset, sample_id)
    learner = Learner(run.config, dataset, run.path.parent)
    scorer = _scorer(run, learner, cycle, (int(learner.fold_of[row]), 0))
    _, x = next(iter(learner.pool.batches(np.array([row]), 1)))
    norms = gradient_norms(scorer.model, x, loss="entropy", reduction="none")[0].double().cpu().numpy()
    named = [(name, p) for name, p in scorer.model.named_parameters() if p.requires_grad]
    shapes = [" × ".join(map(str, parameter.shape)) for _, parameter in named]
    return pd.DataFrame({"parameter": [name for name, _ in named], "shape": shapes, "norm": norms})


def pixel_gradient(run: Run, dataset: ImageDataset, cycle: int, sample_id: str) -> NDArray[np.float32]:
    """‖∂ H / ∂x‖ of each pixel of one sample, over the channels of the normalised image; float32 [H, W], in nats.

    H is the entropy of the prediction, of a mask its mean over the pixels; the model is that of the cycle, with folds the one
    that has not seen the sample (Simonyan et al. 2014, with the entropy in place of a class). It is kept with the cycle. Raises
    `UserError` for an unknown sample, and where nothing can be computed or written.
    """
    if not run.config.trains:
        raise UserError(
            f"Run {run.id} ranks by imported predictions, which have no gradients: choose a run that trains its model."
        )
    row = _row(run, dataset, sample_id)
    learner = Learner(run.config, dataset, run.path.parent)
    model = _scorer(run, learner, cycle, (int(learner.fold_of[row]), 0)).model.eval()
    _, x = next(iter(learner.pool.batches(np.array([row]), 1)))
    x.requires_grad_()
    log_p = model(x).float().log_softmax(dim=1)
    (gradient,) = torch.autograd.grad(-(log_p.exp() * log_p).sum(dim=1).mean(), x, allow_unused=True)
    if gradient is None:
        raise UserError(
            f"The network of run {run.id} is frozen and sees no pixels: choose a run that trains its network."
        )
    found = gradient[0].float().norm(dim=0).cpu().numpy()
    saliency.write(run, cycle, row, found)
    return np.asarray(found)


def extremes(run: Run, cycle: int, n: int) -> list[str]:
    """The n candidates of the cycle before with the largest influence, then the n with the smallest, fewer where there are fewer.

    Raises `UserError` where the cycle's influence was not measured.
    """
    ranking = run.ranking(cycle)
    if "influence" not in ranking:
        raise UserError(
            f"The influence of the candidates was not measured in cycle {cycle} of run {run.id}: name a sample, or choose a "
            "later cycle of a run with --evidence influence."
        )
    known = ranking[ranking["influence"].notna()].sort_values("influence", ascending=False, kind="stable")
    ids = known["sample_id"].tolist()
    return list(dict.fromkeys([*ids[:n], *ids[-n:]]))


def influence(
    run: Run,
    dataset: ImageDataset,
    cycle: int,
    sample_ids: list[str],
    report: Callable[[str], None] = lambda line: None,
) -> list[Attribution]:
    """What the labels of some samples are worth to the model of a cycle, and to whom; what is kept is taken over.

    Each is kept in the folder of the cycle as soon as it is there. Raises `UserError` for an unknown sample, as
    `core.runs.attribution.check`, where no influence can be computed, and where another process is at it.
    """
    rows = {sample_id: _row(run, dataset, sample_id) for sample_id in sample_ids}
    found = {one: attribution.read(run, cycle, row, one) for one, row in rows.items()}
    missing = {one: row for one, row in rows.items() if found[one] is None}
    if missing:
        for row in missing.values():
            attribution.check(run, dataset, cycle, row)
        for one in _worked(run, dataset, cycle, missing, report):
            found[one.sample_id] = one
    return [one for one in found.values() if one is not None]


def _worked(
    run: Run, dataset: ImageDataset, cycle: int, rows: dict[str, int], report: Callable[[str], None]
) -> Iterator[Attribution]:
    """Compute and keep it, as the only process that does so in this run, and say how far it is."""
    folder = attribution.folder(run)
    with writing(run.path):
        folder.mkdir(exist_ok=True)
    lock = filelock.FileLock(folder / live.LOCK, timeout=PATIENCE, is_singleton=False)
    try:
        with lock, live.working(folder) as state, live.noting_crashes(folder):
            try:
                state.begin(cycle, live.EXPLAIN, next(iter(rows)))
                asked = _Asked(run, dataset, cycle)
                for k, (sample_id, row) in enumerate(rows.items()):
                    state.progress((k + 1) / (len(rows) + 1))
                    found = asked.about(sample_id, row)
                    attribution.write(run, cycle, row, found)
                    report(f"{sample_id}: influence {found.influence:+.4g} nats")
                    yield found
            except UserError as error:
                state.end(error=str(error))
                raise
            except Exception as error:  # the dashboard, which does not read this process's output, is to say it too
                what = f"{type(error).__name__}: {error}"
                state.end(error=f"Internal error ({what}): please report it with worker.log.")
                raise
    except filelock.Timeout as error:
        raise UserError(
            f"The influence of an image of run {run.id} is being computed by another process: wait for it."
        ) from error


class _Asked:
    """The model of a cycle, whose held-out loss labels have an influence on."""

    def __init__(self, run: Run, dataset: ImageDataset, cycle: int) -> None:
        learner = Learner(run.config, dataset, run.path.parent)
        self.dataset, self.learner, self.damping = dataset, learner, run.config.damping
        self.scorer = _scorer(run, learner, cycle, WHOLE)
        self.held_out = half_of_test(learner)
        self.learnt = learnt_labels(learner, run.state(dataset.ids, cycle)[0], cycle)
        self.weight_decay = learner.settings(cycle, len(self.learnt.rows)).weight_decay
        if not len(self.held_out.rows):
            raise UserError("No held-out image can be read, so that nothing has a loss: restore the test images.")
        self.probs = learner.test_probs({WHOLE: self.scorer})
        with _mendable():
            self.s_test = self._s_test()

    def about(self, sample_id: str, row: int) -> Attribution:
        """The influence of an image with its reference label. Raises `UserError` where it cannot be computed."""
        model, n = self.scorer.model, len(self.learnt.rows)
        image = Labelled(self.learner.pool, np.array([row]), self.dataset.labels)
        with _mendable():
            gradient = loss_gradient(model, image.images[image.rows], image.targets(image.rows))
            x, y = self.scorer.images[self.learnt.rows], self.learnt.targets(self.learnt.rows)
            solution = inverse_hvp(model, x, y, gradient, damping=self.damping, weight_decay=self.weight_decay)
            _check_converged(solution)
            effects = self._effects(solution) / n
        layers = []
        for module, of in itertools.groupby(gradient, lambda name: name.rpartition(".")[0]):
            names = list(of)
            kind = type(model.get_submodule(module)).__name__ if module else ""
            part = sum(float((gradient[name].double() * self.s_test.vector[name].double()).sum()) for name in names) / n
            size = sum(gradient[name].numel() for name in names)
            layers.append(Layer(module or ", ".join(names), kind, size, part))
        order = np.argsort(-effects, kind="stable")
        helpful, harmful = order[effects[order] > 0], order[effects[order] < 0][::-1]
        return Attribution(
            sample_id=sample_id,
            label=int(self.dataset.labels[row]),
            influence=sum(layer.influence for layer in layers),
            n_labels=n,
            n_held_out=len(effects),
            n_helped=len(helpful),
            n_harmed=len(harmful),
            helps=tuple(self._effect(at, effects) for at in helpful[:MOST]),
            harms=tuple(self._effect(at, effects) for at in harmful[:MOST]),
            layers=tuple(layers),
            damping=self.damping,
            residual=max(solution.residual, self.s_test.residual),
            iterations=solution.iterations,
        )

    def _effects(self, solution: Solution) -> Floats:
        """⟨∇L(x_j), H⁻¹ ∇L(x)⟩ of every held-out image, float64 [M]."""
        model, held_out, parts = self.scorer.model, self.held_out, []
        for at, x in held_out.images.batches(held_out.rows, at_once(model, held_out.images, SCORE_BATCH)):
            found = gradient_dots(model, x, solution.vector, targets=held_out.targets(at))
            parts.append(found.double().cpu().numpy())
        return np.concatenate(parts)

    def _effect(self, at: int, effects: Floats) -> Effect:
        row = int(self.held_out.rows[at])
        suggested = int(self.probs[row].argmax())
        label, confidence = int(self.dataset.test_labels[row]), float(self.probs[row, suggested])
        return Effect(row, label, suggested, round(confidence, 6), float(effects[at]))

    def _s_test(self) -> Solution:
        """That of the held-out images, solved once for equal content."""
        scorer, of = self.scorer, (self.learnt, self.held_out)

        def compute() -> NDArray[np.float64]:
            found = s_test(scorer, *of, damping=self.damping, weight_decay=self.weight_decay)
            flat = [tensor.double().cpu().numpy().ravel() for tensor in found.vector.values()]
            return np.concatenate([[found.residual, found.iterations, found.converged], *flat])

        key = {
            **scorer.key,
            "score": "s_test",
            "of": [one.key for one in of],
            "damping": self.damping,
            "weight decay": self.weight_decay,
        }
        kept = scorer.cache.get(key, compute)
        parameters = {name: p for name, p in scorer.model.named_parameters() if p.requires_grad}
        parts = torch.from_numpy(kept[HEADER:]).split([p.numel() for p in parameters.values()])
        vector = {
            name: part.view(p.shape).to(p.device, p.dtype)
            for (name, p), part in zip(parameters.items(), parts, strict=True)
        }
        residual, iterations, converged = kept[:HEADER]
        return _check_converged(Solution(vector, float(residual), int(iterations), bool(converged)))


def _row(run: Run, dataset: ImageDataset, sample_id: str) -> int:
    """Where a sample is in the pool. Raises `UserError` where it is not."""
    if sample_id not in dataset.ids:
        raise UserError(f"Run {run.id} has no sample {sample_id[:100]!r}: `export --table ranking` lists them.")
    return dataset.ids.index(sample_id)


def _scorer(run: Run, learner: Learner, cycle: int, part: Part) -> Scorer:
    """One of the models that scored a cycle. Raises `UserError` where its weights cannot be read."""
    trained = 0 if run.config.static else cycle
    try:
        return learner.scorers(run.cycle_path(trained), trained)[part]
    except (OSError, SafetensorError) as error:
        file = weights(run.cycle_path(trained), part)
        raise UserError(
            f"Cycle {cycle} of run {run.id} has no readable weights ({file.name}), which its gradients need: choose another "
            "run, or restore the file."
        ) from error


@contextmanager
def _mendable() -> Iterator[None]:
    """Turn what `core.influence` says of a model or its curvature into a `UserError`."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_converged(solution: Solution) -> Solution:
    """Raise `UserError` for a solution that is none."""
    if not solution.converged:
        raise UserError(
            f"Conjugate gradients did not converge: the relative residual is {solution.residual:.2g} after "
            f"{solution.iterations:,} iterations; start a run with more --damping."
        )
    return solution
