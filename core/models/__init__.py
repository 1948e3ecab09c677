"""Models: one a file, which exports its `MODEL`, how it is called and built. Modules import torch when they build one.

`architectures` holds the classes, `segmenters` those of masks, `networks` those that come from elsewhere, `weights` reads their
files, `batches` images on their way to them, `forward` what they say of these.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.catalogue import Catalogue, Description

if TYPE_CHECKING:
    from core.models.architectures import Classifier
    from core.models.segmenters import Segmenter

Answer = Literal["class", "mask"]
"""What a model says of an image: one class, logits [N, K], or one a pixel, logits [N, K, H, W]."""


@dataclass(frozen=True, kw_only=True)
class Architecture(Description):
    """An architecture that `--model` names."""

    build: "Callable[[int, int, int, float], Classifier | Segmenter]"
    """build(channels, n_classes, width, dropout): a fresh model, dropout the probability before the head; torch is seeded."""
    answer: Answer = "class"


CATALOGUE = Catalogue(
    Architecture,
    "model",
    "MODEL",
    "core.models",
    "models",
    helpers=("architectures", "batches", "forward", "networks", "segmenters", "weights"),
)

TIMM, TORCHVISION, SMP = "timm:", "torchvision:", "smp:"
BACKBONES = {"mobilenet_v2": "classifier", "resnet18": "fc", "resnet50": "fc"}
"""Networks of torchvision, and the attribute that is their last layer."""
RANDOM = "none"
"""What stands for the weights of a network that is to begin from random ones."""
ELSEWHERE = re.compile(rf"{TIMM}[A-Za-z0-9_.]+|{TORCHVISION}({'|'.join(BACKBONES)})")
OF_MASKS = re.compile(rf"{SMP}[a-z0-9]+/[A-Za-z0-9_.\-]+")
"""Networks of segmentation-models-pytorch: an architecture and its encoder."""
OF_MASKS_TEXT = f"{SMP}ARCHITECTURE/ENCODER"
FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
TRUSTED: set[str] = set()
"""The factories that the command line of this process named, and that it may therefore import. Nothing else may name them: not a
form, a configuration file or a bundle, all of which somebody else may have written."""
OTHERS = f"{TIMM}NAME or, on the command line, MODULE:FACTORY"
"""How the models are written that no list names."""


FILES = {"mobilenet_v2": "7ebf99e0", "resnet18": "f37072fd", "resnet50": "11ad3fa6"}
"""Of each backbone, the hash in the name of the file that torchvision downloads."""


def weights_there() -> str | None:
    """The first of the backbones whose weights torch has downloaded already; None where there are none."""
    cache = Path(
        os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch")
    ).expanduser()
    for name in BACKBONES:
        if (cache / "hub" / "checkpoints" / f"{name}-{FILES[name]}.pth").is_file():
            return name
    return None


def has_weights(name: str, weights: str | None) -> bool:
    """Whether a model begins from weights that were learnt elsewhere; of a factory of the user's own it may be so."""
    elsewhere = ELSEWHERE.fullmatch(name) or OF_MASKS.fullmatch(name)
    return is_factory(name) or (elsewhere is not None and weights != RANDOM)


def is_factory(name: str) -> bool:
    """Whether a name is that of a function of the user's own, MODULE:FACTORY."""
    return FACTORY.fullmatch(name) is not None and not name.startswith((TIMM, TORCHVISION))


def is_elsewhere(name: str) -> bool:
    """Whether a name is that of a network of timm, of torchvision or of the user's own."""
    return ELSEWHERE.fullmatch(name) is not None or is_factory(name)


def listed(answer: Answer = "class") -> list[str]:
    """The models of the catalogue that answer so."""
    return [name for name, model in CATALOGUE.items() if model.answer == answer]


def is_named(name: str) -> bool:
    """Whether a name is one that a model of any answer can have."""
    return is_known(name) or is_known(name, "mask")


def is_known(name: str, answer: Answer = "class") -> bool:
    """Whether a name is one that a model of this answer can have; whether timm has it, or it can be imported, shows where it is
    built."""
    elsewhere = is_elsewhere(name) if answer == "class" else OF_MASKS.fullmatch(name) is not None
    return name in listed(answer) or elsewhere
