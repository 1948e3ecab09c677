"""Models: one a file, which exports its `MODEL`, how it is called and built. Modules import torch when they build one.

`architectures` holds the classes, `batches` images on their way to them, `forward` what they say of these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.catalogue import Catalogue, Description

if TYPE_CHECKING:
    from core.models.architectures import Classifier


@dataclass(frozen=True, kw_only=True)
class Architecture(Description):
    """An architecture that `--model` names."""

    build: "Callable[[int, int, int, float], Classifier]"
    """build(channels, n_classes, width, dropout): a fresh model, dropout the probability before the head; torch is seeded."""


CATALOGUE = Catalogue(
    Architecture, "model", "MODEL", "core.models", "models", helpers=("architectures", "batches", "forward")
)
