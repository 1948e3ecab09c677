"""ImageNet features: a torchvision network that has seen a million other images, and a head on its embedding."""

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from core.described import ORANGE
from core.selectors import Selector, Shape, vanilla
from data.dataset import Pixels
from data.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from core.models.architectures import Pretrained

BACKBONES = {
    "mobilenet_v2": "classifier",
    "resnet18": "fc",
    "resnet50": "fc",
}  # and the attribute that is their last layer
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the weights expect


def build(shape: Shape) -> "Pretrained":
    """The network with its ImageNet weights and a fresh head.

    Raises `UserError` for a network that is not among `BACKBONES`, and for weights that cannot be had or do not fit.
    """
    import torch
    from torch import nn

    from core.models.architectures import Pretrained
    from data.torchvision_import import torchvision

    name = shape.backbone
    if name not in BACKBONES:
        raise UserError(f'There is no backbone "{name}": choose one of {", ".join(BACKBONES)}.')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        network = getattr(torchvision.models, name)(weights=None)
        state = _downloaded(name) if shape.weights is None else _from_file(Path(shape.weights))
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            source = "The weights" if shape.weights is None else shape.weights
            raise UserError(
                f"{source} are not those of torchvision's {name}: give the file of that network, or name another --backbone "
                f"({', '.join(BACKBONES)})."
            ) from error
        last: Any = getattr(network, BACKBONES[name])
        linear: Any = last[-1] if isinstance(last, nn.Sequential) else last
        setattr(network, BACKBONES[name], nn.Identity())
        return Pretrained(network, linear.in_features, shape.n_classes, shape.dropout)


def _downloaded(name: str) -> dict[str, Any]:
    from data.torchvision_import import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        # The hash is checked of a download alone, not of a file that lies in the cache already
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"The ImageNet weights of {name} could not be downloaded, or what lies in torch's cache is damaged ({reason}): "
            f"fetch {weights.url} and give the file with --weights."
        ) from error


def _from_file(path: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"There is no file {path}: give the weights of the backbone, a .pth or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or no file of weights: download it again.") from error
    except Exception as error:  # pickle's own errors, for a file that holds more than tensors
        raise UserError(
            f"{path} holds more than weights, which is not loaded for safety: give a state dict, or a .safetensors file."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict: give the file that torchvision's weights come in.")
    return state


def statistics(images: Pixels) -> "tuple[Tensor, Tensor]":
    """ImageNet's mean and standard deviation [C, 1, 1], for grey images their mean over the colours."""
    import torch

    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    if images.shape[3] == 1:
        mean, std = mean.mean(dim=0, keepdim=True), std.mean(dim=0, keepdim=True)
    return mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)


SELECTOR = Selector(
    name="pretrained",
    title="ImageNet embedding, linear head",
    options=("backbone", "weights", "head"),
    build=build,
    fit=vanilla.fit,
    prepared=True,
    statistics=statistics,
    colour=ORANGE,
    dash="dash",
    place=4,
)
