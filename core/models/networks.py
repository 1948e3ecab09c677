"""Networks from elsewhere: timm's, torchvision's, segmentation-models-pytorch's, and what a function of the user's own makes.

Each is split into an embedding and its last linear layer, which is ours and fits the classes of the data; those of masks into
encoder, decoder and head.
"""

import difflib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from core.models import BACKBONES, RANDOM, SMP, TIMM, TORCHVISION, TRUSTED, is_factory
from core.models import weights as files
from core.models.architectures import SIDE, Backbone, Headed, Model, Whole
from core.models.segmenters import Segmenter
from data.dataset import Pixels
from data.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which torchvision's weights expect
UNIVERSAL = "tu-"  # begins the names of encoders that segmentation-models-pytorch takes from timm
STRIDE = 32  # pixels that become one position of most networks: fewer leave nothing to be pooled
Statistics = tuple[Tensor, Tensor]  # mean and standard deviation [C, 1, 1] on the 0 to 1 scale


def build(
    name: str, channels: int, n_classes: int, dropout: float, *, weights: str | None, side: tuple[int, int]
) -> Model:
    """The model of this name for images of `channels` × side, its new layers drawn from torch's generator.

    weights: a file, "none" for random ones, None for those that its authors offer, downloaded · side: height and width.
    Raises `UserError` for a name that is not there, for weights that cannot be had or do not fit, and for a network that cannot
    take the images.
    """
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM), channels, n_classes, dropout, weights, side)
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION), channels, n_classes, dropout, weights)
    if name.startswith(SMP):
        return _smp(name.removeprefix(SMP), channels, n_classes, dropout, weights, side)
    if weights is not None:
        raise UserError(
            f"--weights belongs to timm and torchvision: let {name} load its own, and leave the option out."
        )
    return split(made(name, channels, n_classes), name, channels, n_classes, dropout, side)


def statistics(name: str, weights: str | None, channels: int) -> Statistics | None:
    """What a network's weights expect images to be normalised by; None: by the images' own statistics.

    Raises `UserError` as `build` for a name that timm does not have.
    """
    if weights == RANDOM:
        return None
    if name.startswith((TORCHVISION, SMP)):
        return of_channels(MEAN, STD, channels)
    if name.startswith(TIMM):
        found = _timm_named(name.removeprefix(TIMM)).get_pretrained_cfg(name.removeprefix(TIMM))
        return of_channels(found.mean, found.std, channels)
    return None


def imagenet_statistics(images: Pixels) -> Statistics:
    """ImageNet's mean and standard deviation [C, 1, 1], for grey images their mean over the colours."""
    return of_channels(MEAN, STD, images.shape[3])


def of_channels(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> Statistics:
    """Mean and standard deviation [C, 1, 1]; for other than colour images their mean over the colours."""
    found = torch.tensor(mean), torch.tensor(std)
    if channels != len(mean):
        found = found[0].mean().repeat(channels), found[1].mean().repeat(channels)
    return found[0].reshape(-1, 1, 1), found[1].reshape(-1, 1, 1)


def code(name: str) -> str:
    """What stands for the code of a factory, "" for a network of a library: a change of it is another model."""
    if not is_factory(name):
        return ""
    found = Path(inspect.getsourcefile(_module(name)) or "")
    return hashlib.sha256(found.read_bytes()).hexdigest()[:16] if found.is_file() else ""


# timm


class _Timm(Backbone):
    """A network of timm's, split by its own functions."""

    def features(self, x: Tensor) -> Tensor:
        network: Any = self.network
        return network.forward_head(network.forward_features(x), pre_logits=True)


def _timm_named(name: str) -> Any:
    """timm, if it has a network of this name. Raises `UserError` where it has not."""
    from data.torchvision_import import torchvision  # noqa: F401  # which timm imports

    try:
        import timm
    except ImportError as error:
        raise UserError("The networks of timm need the package timm: pip install timm.") from error
    known = timm.is_model(name)
    tag = name.partition(".")[2]
    if known and (not tag or name in timm.list_pretrained(f"{name.partition('.')[0]}.*")):
        return timm
    close = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), 1, 0.5)
    meant = f"did you mean {TIMM}{close[0]}?" if close else "`timm.list_models()` names all."
    raise UserError(f'timm has no network "{name}": {meant}')


def _timm(
    name: str, channels: int, n_classes: int, dropout: float, weights: str | None, side: tuple[int, int]
) -> Headed:
    timm = _timm_named(name)
    try:
        network = timm.create_model(name, pretrained=weights is None, num_classes=0, in_chans=channels)
    except Exception as error:  # of the hub, the network, the file system, and of a network that has no weights
        if weights is not None:
            raise UserError(f"timm cannot build {name} ({_first_line(error)}): choose another network.") from error
        raise UserError(
            f"The weights of timm's {name} could not be downloaded ({_first_line(error)}): fetch them elsewhere and give the "
            f"file with --weights, or begin from random ones with --weights {RANDOM}."
        ) from error
    about = network.pretrained_cfg
    if weights not in (None, RANDOM):
        _fill(network, files.read(Path(str(weights))), about, f"timm's {name}", str(weights), channels)
    sides = tuple(about["input_size"][1:]) if about.get("fixed_input_size") else None
    least = STRIDE if weights == RANDOM else SIDE
    model = _Timm(network, 1, n_classes, dropout, sides=sides, least=least)
    size = _embedding_size(model, f"{TIMM}{name}", channels, side)
    model.head = nn.Linear(size, n_classes)
    return model


def _fill(network: nn.Module, state: dict[str, Tensor], about: Any, whose: str, file: str, channels: int) -> None:
    """Load weights but those of the class head; a first layer for colours is brought to other channels as timm does."""
    from timm.models import adapt_input_conv

    heads = tuple(f"{one}." for one in _names(about.get("classifier")))
    state = {name.removeprefix("module."): t for name, t in state.items()}
    state = {name: t for name, t in state.items() if not name.startswith(heads)}
    for first in _names(about.get("first_conv")):
        of_colours = state.get(f"{first}.weight")
        if of_colours is not None and of_colours.ndim == 4 and of_colours.shape[1] == 3 != channels:
            state[f"{first}.weight"] = adapt_input_conv(channels, of_colours)
    _loaded(network, state, whose, file, "name the --model that they were trained for")


def _names(found: Any) -> tuple[str, ...]:
    return () if not found else (found,) if isinstance(found, str) else tuple(found)


def _loaded(network: nn.Module, state: dict[str, Tensor], whose: str, file: str, instead: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{file} are not those of {whose}: give the file of that network, or {instead}.") from error


def _embedding_size(model: Backbone, name: str, channels: int, side: tuple[int, int]) -> int:
    """D of what a network makes of such images. Raises `UserError` where it cannot take them, or gives no vector."""
    found = _answer(model.embed, model, name, channels, side)
    if found.ndim != 2:
        raise UserError(f"{name} gives no embedding [N, D], but {list(found.shape)}: choose another network.")
    return found.shape[1]


def _answer(ask: Callable[[Tensor], Any], model: nn.Module, name: str, channels: int, side: tuple[int, int]) -> Tensor:
    """What a model says of two blank images. Raises `UserError` where it cannot take them."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()
            found = ask(torch.zeros(2, channels, *side))
    except Exception as error:  # whatever somebody else's network raises
        raise UserError(
            f"{name} cannot take images of {side[0]} × {side[1]} pixels with {channels} channel{'s' * (channels != 1)} "
            f"({_first_line(error)}): give --image-size, or choose another --model."
        ) from error
    finally:
        model.train(training)
    if not isinstance(found, Tensor) or len(found) != 2:
        raise UserError(f"{name} must give a Tensor with a row for each image, and gave {_shape(found)}: correct it.")
    return found


def _shape(found: Any) -> str:
    return f"shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


# torchvision


def torchvision_network(name: str, weights: str | None, instead: str) -> tuple[nn.Module, int]:
    """A network of `core.models.BACKBONES` without its last layer, and the size of its embedding.

    weights: as of `build` · instead: what else to do where a file does not fit. Raises `UserError` for weights that cannot be
    had or do not fit.
    """
    from data.torchvision_import import torchvision

    network = getattr(torchvision.models, name)(weights=None)
    if weights != RANDOM:
        state = _downloaded(name) if weights is None else files.read(Path(weights))
        _loaded(network, state, f"torchvision's {name}", "The weights" if weights is None else weights, instead)
    last: Any = getattr(network, BACKBONES[name])
    linear: Any = last[-1] if isinstance(last, nn.Sequential) else last
    setattr(network, BACKBONES[name], nn.Identity())
    return network, linear.in_features


def _torchvision(name: str, channels: int, n_classes: int, dropout: float, weights: str | None) -> Headed:
    if channels not in (1, 3):
        raise UserError(
            f"{TORCHVISION}{name} takes grey or colour images, and these have {channels} channels: choose a --model {TIMM}NAME."
        )
    network, size = torchvision_network(name, weights, "name the --model that they were trained for")
    least = STRIDE if weights == RANDOM else SIDE
    return Backbone(network, size, n_classes, dropout, least=least, channels=3)


def _downloaded(name: str) -> dict[str, Any]:
    from data.torchvision_import import torchvision

    found = torchvision.models.get_model_weights(name).DEFAULT
    try:
        # The hash is checked of a download alone, not of a file that lies in the cache already
        return dict(found.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"The ImageNet weights of {name} could not be downloaded, or what lies in torch's cache is damaged ({reason}): "
            f"fetch {found.url} and give the file with --weights, or train a small network: --model resnet18 --image-size 64."
        ) from error


# segmentation-models-pytorch


class _Smp(Segmenter):
    """A network of segmentation-models-pytorch: its encoder, decoder and head."""

    def __init__(self, network: Any, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.n_classes, self.stride = n_classes, network.encoder.output_stride
        self.stage_widths = tuple(network.encoder.out_channels)
        self.encoder, self.decoder = network.encoder, network.decoder
        self.dropout = nn.Dropout(dropout)
        self.head = network.segmentation_head

    def stages(self, x: Tensor) -> list[Tensor]:
        """Those of the encoder; most begin with the images themselves."""
        return self.encoder(x)

    def decode(self, stages: list[Tensor]) -> Tensor:
        return self.decoder(stages)


def _smp(
    name: str, channels: int, n_classes: int, dropout: float, weights: str | None, side: tuple[int, int]
) -> Segmenter:
    from data.torchvision_import import torchvision  # noqa: F401  # which it imports

    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise UserError(
            f"{SMP}{name} needs the package segmentation-models-pytorch: pip install segmentation-models-pytorch, or choose "
            "--model small-unet."
        ) from error
    architecture, _, encoder = name.partition("/")
    # dpt hands tokens from its encoder to its decoder, too
    for word, given, known in (
        ("architecture", architecture, sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"dpt"})),
        ("encoder", encoder, smp.encoders.get_encoder_names()),
    ):
        if given not in known and not (given is encoder and given.startswith(UNIVERSAL)):
            close = difflib.get_close_matches(given, known, 3, 0.0)
            raise UserError(
                f'segmentation-models-pytorch has no {word} "{given}": write {SMP}ARCHITECTURE/ENCODER with {word} '
                f"{', '.join(close)} or another."
            )
    try:
        network = smp.create_model(
            architecture, encoder, "imagenet" if weights is None else None, in_channels=channels, classes=n_classes
        )
    except Exception as error:  # of the hub, the network, timm, the file system, and of parts that do not go together
        if weights is not None:
            raise UserError(
                f"segmentation-models-pytorch cannot build {SMP}{name} ({_first_line(error)}): choose another network."
            ) from error
        raise UserError(
            f"The weights of {SMP}{name} could not be downloaded ({_first_line(error)}): fetch those of its encoder elsewhere "
            f"and give the file with --weights, or begin from random ones with --weights {RANDOM}."
        ) from error
    if weights not in (None, RANDOM):
        _fill_encoder(smp, network, encoder, str(weights), channels)
    model = _Smp(network, n_classes, dropout)
    found = _answer(model, model, f"{SMP}{name}", channels, side)
    if found.shape[1:] != (n_classes, *side):
        raise UserError(f"{SMP}{name} gives no logits of pixels, but {_shape(found)}: choose another network.")
    return model


def _fill_encoder(smp: Any, network: Any, encoder: str, file: str, channels: int) -> None:
    """Load the weights of an encoder from a file; a first layer for colours is brought to other channels as the package does."""
    if encoder.startswith(UNIVERSAL):
        raise UserError(
            f"The weights of the encoder {encoder} cannot be read from a file: choose one of segmentation-models-pytorch's own, "
            f"such as resnet18, or --weights {RANDOM}."
        )
    whole = smp.encoders.get_encoder(encoder, weights=None)
    _loaded(
        whole, files.read(Path(file)), f"the encoder {encoder}", file, "name the --model that they were trained for"
    )
    whole.set_in_channels(channels, pretrained=True)
    network.encoder.load_state_dict(whole.state_dict())


# A function of the user's own


def made(name: str, channels: int, n_classes: int) -> nn.Module:
    """What the factory of this name makes, called with (channels, n_classes).

    Raises `UserError` where the command line did not name it, it cannot be imported, it fails, or it makes no `nn.Module`.
    """
    if name not in TRUSTED:
        raise UserError(
            f"The model {name} is code, which only a command line may name: go on with `python -m core resume RUN --model "
            f"{name}`."
        )
    where, function = name.split(":")
    factory = getattr(_module(name), function, None)
    if not callable(factory):
        raise UserError(f"{where} has no function {function}: correct --model {name}.")
    try:
        network = factory(channels, n_classes)
    except Exception as error:  # whatever somebody else's code raises
        raise UserError(
            f"{name} failed with {channels} channels and {n_classes} classes ({type(error).__name__}: {_first_line(error)}): "
            "correct it."
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} made a {type(network).__name__}, and must return a torch.nn.Module: correct it.")
    return network


def _module(name: str) -> Any:
    where = name.partition(":")[0]
    try:
        return importlib.import_module(where)
    except Exception as error:  # whatever somebody else's module does when it is imported
        if isinstance(error, ModuleNotFoundError) and where.split(".")[0] == (error.name or "").split(".")[0]:
            raise UserError(
                f"There is no module {where} to import: start where it lies, set PYTHONPATH, or install it ({Path.cwd()} was "
                f"{'searched' if '' in sys.path or str(Path.cwd()) in sys.path else 'not searched'})."
            ) from error
        raise UserError(
            f"{where} cannot be imported ({type(error).__name__}: {_first_line(error)}): correct it."
        ) from error


def split(network: nn.Module, name: str, channels: int, n_classes: int, dropout: float, side: tuple[int, int]) -> Model:
    """A network of the user's own as embedding and head: the head is the linear layer whose output is the network's.

    One that ends otherwise stays whole. Raises `UserError` where its answer to two images is not [2, n_classes].
    """
    last: list[tuple[str, Tensor, Tensor]] = []
    watched = {part: module for part, module in network.named_modules() if isinstance(module, nn.Linear)}
    hooks = [
        module.register_forward_hook(lambda module, given, out, part=part: last.append((part, given[0], out)))
        for part, module in watched.items()
    ]
    try:
        found = _answer(network, network, name, channels, side)
    finally:
        for hook in hooks:
            hook.remove()
    if found.shape[1:] != (n_classes,):
        raise UserError(
            f"{name} must give logits [N, {n_classes}], one for each class, and gave {_shape(found)} for two images: correct it."
        )
    asked = [part for part, _, _ in last]
    ends = [part for part, given, out in last if out is found and given.ndim == 2 and asked.count(part) == 1]
    if not ends or not ends[0]:
        return Whole(network)
    head = watched[ends[0]]
    parent, _, own = ends[0].rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity())
    model = Backbone(network, 1, n_classes, dropout)
    model.head = head
    try:
        whole = torch.allclose(_answer(model, model, name, channels, side), found)
    except UserError:
        whole = False
    if not whole:  # the network looks into its last layer itself
        setattr(network.get_submodule(parent), own, head)
        return Whole(network)
    return model
