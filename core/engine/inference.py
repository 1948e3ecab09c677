"""What a trained model says of images: posteriors, embeddings and gradient norms, each computed once for equal content."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from core import scores, tsne
from core.gradnorm import Loss, Reduction, gradient_norms
from core.models import architectures
from core.models.architectures import Frozen, Headed, Model
from core.models.batches import Images
from core.models.forward import at_once, autocast, predict
from core.relabel import Floats, Ints
from core.selectors import Progress
from core.store.cache import ScoreCache, digest
from data.errors import UserError
from data.lazy import Lazy, taken

SCORE_BATCH = 512
HEAD_BATCH = 4_096  # embeddings at a time
BASIS_ROWS = 2_000  # samples that principal axes are taken from
AXES = 32  # of them: 64 bytes a sample, and nearly all of the variance of a trained embedding
BLOCK = 20_000  # samples whose stochastic posteriors are held at once
Norm = Literal["sum", "l2", "head"]
NORMS: tuple[Norm, ...] = ("sum", "l2", "head")  # all from one pass


class Scorer:
    """Posteriors, embeddings and gradient norms of a trained model over the pool."""

    sampled: ClassVar[dict[str, int]] = {}
    """How the loss "egl" draws labels, where their number is beyond a sum over all."""

    def __init__(
        self,
        model: Model,
        weights: Path | None,
        images: Images,
        fingerprint: str,
        cache: ScoreCache,
        progress: Progress,
        *,
        fixed: bool = False,
    ) -> None:
        """weights: the model's file, None before it is trained · fixed: its embedding does not depend on the training."""
        self.model, self.images, self.cache, self.progress, self.fixed = model, images, cache, progress, fixed
        self.shared = {"data": fingerprint, "device": images.device.type}
        self.key = {"weights": None if weights is None else digest(np.fromfile(weights, dtype=np.uint8)), **self.shared}

    def probs(self) -> NDArray[np.float32]:
        """Posterior of the whole pool, float32 [N, C]."""
        if self.fixed or len(self.images) == 0:
            return self.probs_of(self.images, "posterior")

        def compute() -> NDArray[np.float32]:
            probs, places = self._pass()
            self.cache.get({**self.key, "score": "projection"}, lambda: places)
            return probs

        return self.cache.get({**self.key, "score": "posterior"}, compute)

    def projection(self) -> NDArray[np.float16]:
        """Embeddings of the whole pool in few dimensions, of unit length, float16 [N, d]: whose angle to whose is small."""
        if self.fixed:
            return compact(self.embeddings(np.arange(len(self.images))))
        return self.cache.get({**self.key, "score": "projection"}, lambda: self._pass()[1])

    def places(self, before: Floats | None) -> NDArray[np.float32]:
        """Where the embedding map has the images, float32 [N, 2]; before: where the cycle before had them (`core.tsne`)."""
        if before is not None and self.fixed:
            return np.asarray(before, dtype=np.float32)
        found = self.projection()
        key = {"score": "layout", "of": digest(found), "from": None if before is None else digest(before)}
        return self.cache.get(key, lambda: tsne.plane(found, before))

    def _pass(self) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Posterior and projection of the pool by one pass over it."""
        n = len(self.images)
        mean, axes = _basis(self._embed(self.images, np.arange(0, n, max(1, n // BASIS_ROWS))))
        probs, places, done = [], [], 0
        self.model.eval()
        with torch.inference_mode(), autocast(self.images.device):
            for at, x in self.images.batches(np.arange(n), at_once(self.model, self.images, SCORE_BATCH)):
                embedding = self.model.embed(x)
                probs.append(self.model.classify(embedding).float().softmax(dim=1).cpu().numpy())
                places.append(_project(embedding.float(), mean, axes))
                done += len(at)
                self.progress(done / n)
        return np.concatenate(probs), np.concatenate(places)

    def probs_of(self, images: Images, name: str) -> NDArray[np.float32]:
        """Posterior of images, cached under a name that goes with them, float32 [n, C]."""

        def compute() -> NDArray[np.float32]:
            if not self.fixed or len(images) == 0:
                return predict(self.model, images, progress=self.progress)
            with torch.inference_mode():
                logits = self.model.classify(self._fixed_embeddings(images, name))
            return np.asarray(logits.float().softmax(dim=1).cpu().numpy())

        return self.cache.get({**self.key, "score": name}, compute)

    def check_embedding(self, needs: str) -> None:
        """Raise `UserError`, which says what needs it, where no embedding of the network is known."""
        architectures.embedding(self.model, needs)

    def embeddings(self, rows: Ints) -> Tensor:
        """What the head sees of the rows, float32 [n, D] on the device."""
        if self.fixed:
            every = self._fixed_embeddings(self.images, "posterior")
            return every if len(rows) == len(every) else every[torch.from_numpy(rows).to(every.device)]
        return self._embed(self.images, rows)

    def _fixed_embeddings(self, images: Images, name: str) -> Tensor:
        if isinstance(self.model, Frozen):
            model = self.model.name
        else:
            parts = [
                t.float().cpu().numpy().ravel() for key, t in self.model.state_dict().items() if key[:5] != "head."
            ]
            model = digest(np.concatenate(parts))
        key = {**self.shared, "score": "embedding", "of": name, "model": model}
        found = self.cache.get(key, lambda: self._embed(images, np.arange(len(images))).cpu().numpy())
        return torch.from_numpy(found).to(images.device)

    def _embed(self, images: Images, rows: Ints) -> Tensor:
        parts, done = [], 0
        self.model.eval()
        with torch.no_grad(), autocast(images.device):
            for at, x in images.batches(rows, at_once(self.model, images, SCORE_BATCH)):
                parts.append(self.model.embed(x).float())
                done += len(at)
                self.progress(done / len(rows))
        return torch.cat(parts)

    def mc_probs(self, rows: Ints, passes: int, seed: int) -> Floats:
        """Posteriors [S, n, C] of the rows, so many passes with dropout before the head."""
        model, embeddings = self.model, self.embeddings(rows)
        parts = []
        devices = [embeddings.device] if embeddings.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            model.dropout.train()
            for _ in range(passes):
                parts.append(model.classify(embeddings).double().softmax(dim=1).cpu().numpy())
            model.dropout.eval()
        return np.stack(parts)

    def bald(self, passes: int, seed: int, rows: Ints | None = None) -> Floats:
        """Mutual information between label and dropped weights of the rows, by default of all, [n]."""
        if rows is not None:  # candidates, whose passes have one seed
            return scores.bald(self.mc_probs(rows, passes, seed))
        rows = np.arange(len(self.images))
        return np.concatenate(
            [
                scores.bald(self.mc_probs(rows[start : start + BLOCK], passes, seed + start))
                for start in range(0, len(rows), BLOCK)
            ]
        )

    def gradient_norms(self, rows: Ints, loss: Loss, reduction: Norm, labels: Ints | None = None) -> Floats:
        """Gradient norms [n] of the rows over all parameters ("sum", "l2") or the head's ("head", summed).

        Where the embedding is fixed the head has all parameters, and is asked alone, without the images. labels: int [N], for
        loss "label".
        """
        model: nn.Module = self.model
        if self.fixed:
            assert isinstance(self.model, Headed)
            model = self.model.head
        if loss == "egl":  # its expectation is over norms that are reduced already
            assert reduction != "head"
            sampled: dict[str, Any] = self.sampled
            over_all: Reduction = reduction
            return self._cached(
                rows,
                {"loss": loss, "reduction": reduction, **self.sampled},
                lambda x, _: gradient_norms(model, x, loss=loss, reduction=over_all, **sampled),
            )
        # Both schemes of the paper are one function, term by term (`core.gradnorm`): one computation serves both
        loss = "entropy" if loss == "expected" else loss
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        head = [self.fixed or name.startswith("head.") for name in names]

        def all_three(x: Tensor, at: Ints) -> Tensor:
            targets = None if labels is None else torch.from_numpy(labels[at]).to(x.device)
            each = gradient_norms(model, x, loss=loss, targets=targets, reduction="none")
            return torch.stack([each.sum(1), torch.linalg.vector_norm(each, dim=1), each[:, head].sum(1)], dim=1)

        known = None if labels is None else label_digest(taken(labels, rows))
        return self._cached(rows, {"loss": loss, "labels": known}, all_three)[:, NORMS.index(reduction)]

    def _cached(self, rows: Ints, what: dict[str, Any], compute: Callable[[Tensor, Ints], Tensor]) -> Floats:
        def over_batches() -> Floats:
            parts, done = [], 0
            for at, x in self._batches(rows):
                try:
                    parts.append(compute(x, at))
                except ValueError as error:  # the model is ours and fits: what remains is a loss that is not finite
                    raise UserError(
                        f"{error} Training probably diverged: lower the learning rate and run again."
                    ) from error
                done += len(at)
                self.progress(done / len(rows))
            return torch.cat(parts).double().cpu().numpy() if parts else np.empty((0, len(NORMS)))

        key = {**self.key, "score": "gradient-norm", **what, "rows": digest(rows)}
        return self.cache.get(key, over_batches)

    def _batches(self, rows: Ints) -> Iterator[tuple[Ints, Tensor]]:
        """What gradients are computed from, a batch at a time: images, or the embeddings that a head sees."""
        if not self.fixed:
            yield from self.images.batches(rows, at_once(self.model, self.images, SCORE_BATCH))
            return
        for start in range(0, len(rows), HEAD_BATCH):
            at = rows[start : start + HEAD_BATCH]
            yield at, self.embeddings(at)


def label_digest(labels: Any) -> str:
    """A short name for labels, an array or masks that are read on demand."""
    return labels.version if isinstance(labels, Lazy) else digest(labels)


def compact(embeddings: Tensor) -> NDArray[np.float16]:
    """Embeddings [N, D] in few dimensions, of unit length, float16 [N, d]."""
    return _project(embeddings, *_basis(embeddings[:: max(1, len(embeddings) // BASIS_ROWS)]))


def _basis(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and the first principal axes [D, d] of embeddings [n, D]."""
    embeddings = torch.nan_to_num(embeddings)  # a model that diverged is reported by its posterior
    mean = embeddings.mean(dim=0)
    _, _, axes = torch.linalg.svd((embeddings - mean).double(), full_matrices=False)
    return mean, axes[:AXES].T.float()


def _project(embeddings: Tensor, mean: Tensor, axes: Tensor) -> NDArray[np.float16]:
    return F.normalize((embeddings - mean).float() @ axes, dim=1).half().cpu().numpy()
