"""The model of a cycle where none is trained: what a file says of the pool, to the loop as a learner and a scorer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import selectors
from core.engine import inference
from core.engine.inference import Scorer
from core.engine.learner import WHOLE, MakeCompanion, Part, seed_of
from core.posterior import ClassPosterior, Posterior
from core.relabel import Floats, Ints, Labels
from core.runs import imported, settle
from core.runs.run import Run
from core.store.cache import ScoreCache
from data.dataset import ImageDataset
from data.errors import UserError


class Importer:
    """Takes the place of `core.engine.learner.Learner`: the predictions of a cycle are those that the run keeps."""

    fixed = True
    """No embedding depends on labels that are looked at here."""

    def __init__(self, run: Run, dataset: ImageDataset) -> None:
        self.run, self.dataset, self.config = run, dataset, run.config
        self.selector = selectors.load(settle.IMPORTED)
        self.cache = ScoreCache(run.path.parent / ".cache")

    def seed(self, cycle: int, purpose: int, part: Part = WHOLE) -> int:
        """As of a learner."""
        return seed_of(self.config, cycle, purpose, part)

    def train(
        self,
        folder: Path,
        cycle: int,
        rows: Ints,
        labels: Ints,
        *,
        dropout: float = 0.0,
        companion: MakeCompanion | None = None,
        validation: Ints | None = None,
        previous: Path | None = None,
    ) -> dict[str, Any]:
        """Keep the predictions that the run starts from; returns the digest of those that rank the cycle, and where they lie."""
        if cycle == 0:
            return {"imported": imported.begin(self.run, self.dataset)}
        place = self._place(cycle)
        return {"imported": imported.load(place).digest, "of": place.name}

    def scorers(self, folder: Path, cycle: int, dropout: float = 0.0) -> dict[Part, Scorer]:
        """What the predictions of a cycle say, or of the last before it that has some."""
        place = self._place(cycle)
        return {WHOLE: Given(place, self.cache, earlier=place != folder)}

    def _place(self, cycle: int) -> Path:
        place = imported.of_cycle(self.run, cycle)
        if place is None:
            raise UserError(f"The predictions of run {self.run.id} are missing: open its bundle, or start a new run.")
        return place

    def combined(self, found: dict[Part, Scorer], ask: Callable[[Scorer], Floats]) -> Floats:
        """As of a learner with one part."""
        return np.asarray(ask(found[WHOLE]))

    def posterior(
        self, found: dict[Part, Scorer], folder: Path, standing: Any = None, state: Labels | None = None
    ) -> Posterior:
        """As of a learner."""
        return ClassPosterior(np.asarray(found[WHOLE].probs(), dtype=np.float64))

    def test_measures(self, found: dict[Part, Scorer]) -> dict[str, Any]:
        """None: the predictions are of the pool."""
        return {}


class Given(Scorer):
    """The predictions of the pool in a cycle's folder; it has no model, so that what asks for one is refused before a run starts.

    Where there are no embeddings, the roots of the probabilities stand in for them on the map and among neighbours: the angle
    between two is Bhattacharyya's.
    """

    def __init__(self, place: Path, cache: ScoreCache, *, earlier: bool) -> None:
        """earlier: whether they are of a cycle before, so that the map stays."""
        self.cache, self.fixed, self.found = cache, earlier, imported.load(place)

    def probs(self) -> NDArray[np.floating]:
        """Of the whole pool, float [N, C]."""
        return np.asarray(self.found.probs)

    def check_embedding(self, needs: str) -> None:
        """There is one, or what stands in for it."""

    def projection(self) -> NDArray[np.float16]:
        return inference.compact(self.embeddings(np.arange(len(self.found.probs))))

    def embeddings(self, rows: Ints) -> Tensor:
        embedded = self.found.embeddings
        if embedded is None:
            return torch.from_numpy(np.sqrt(np.maximum(self.found.probs[rows], 0)).astype(np.float32))
        return torch.from_numpy(np.asarray(embedded[rows], dtype=np.float32))
