"""How samples go through a model for products with their gradients: in batches by forward mode, or one by one.

Forward mode derives the logits of every sample along one direction of the parameters in one pass, which keeps nothing for a
backward pass. As in `core.gradnorm.engine` nothing of it is trusted: on two samples it must first find what plain autograd
finds for each of them alone. It does not where an operator has no forward rule, samples of a batch reach each other, a
parameter is out of reach of torch.func, or the code asks for no gradient (which forward mode does not heed).
"""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from core.gradnorm import checks, engine, sample_loss, slow
from core.gradnorm.losses import LossFunction
from core.gradnorm.rules import Unsupported

Vector = dict[str, Tensor]
"""A tensor for each parameter by its name; a parameter that is left out counts as zeros."""

MOST = 256  # samples in a forward-mode pass: more were not faster
# Gradients this much smaller than a model's largest one take part in the verification as if they were as large as this.
SMALL = 1e-2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """How a model's samples go through it."""

    logits: torch.Size  # of one sample: [K, …]
    reason: str | None  # why they go one by one; None: in batches
    ahead: int  # samples in a forward-mode pass
    back: int  # samples in a pass that keeps what a backward pass needs

    def chunks(
        self, images: Tensor, targets: Tensor | None, *, back: bool = False
    ) -> Iterable[tuple[Tensor, Tensor | None]]:
        """Images and targets in parts of about one size: a small last one would be slow."""
        parts = -(-len(images) // (self.back if back else self.ahead))
        own = [None] * parts if targets is None else targets.tensor_split(parts)
        return zip(images.tensor_split(parts), own, strict=True)


_ways: WeakKeyDictionary[nn.Module, tuple[Any, Way]] = (
    WeakKeyDictionary()
)  # the last one of each model, and what it is of
_told: WeakSet[nn.Module] = WeakSet()


def direction(vector: Vector, parameters: dict[str, Tensor]) -> Vector:
    """The vector in the types and on the devices of the parameters. Raises `ValueError` where it does not fit them."""
    if unknown := vector.keys() - parameters.keys():
        raise ValueError(
            f'The vector has an entry "{min(unknown)}", which is no trainable parameter of the model: name its entries as '
            "named_parameters does."
        )
    found = {name: vector[name].detach().to(p.device, p.dtype) for name, p in parameters.items() if name in vector}
    if not found:
        raise ValueError("The vector is empty: give a tensor for at least one of the model's trainable parameters.")
    for name, tensor in found.items():
        if tensor.shape != parameters[name].shape:
            raise ValueError(
                f'The vector\'s entry "{name}" is of shape {list(tensor.shape)}, its parameter of '
                f"{list(parameters[name].shape)}: give them the same shape."
            )
        if not tensor.isfinite().all():
            raise ValueError(f'The vector\'s entry "{name}" is not finite: look at what it was computed from.')
    return found


@contextmanager
def exact(model: nn.Module, images: Tensor) -> Iterator[None]:
    """As `checks.as_found`, without autocast: products cancel, and half precision would leave little of them."""
    with checks.as_found(model, images), torch.autocast(images.device.type, enabled=False):
        yield


def way(model: nn.Module, parameters: dict[str, Tensor], images: Tensor) -> Way:
    """How these images go through the model, verified once for its present weights; a log line if one by one.

    Raises `ValueError` for images that the model cannot take, and where its losses are not finite.
    """
    state = _state(model, parameters, images)
    if model in _ways and _ways[model][0] == state:
        return _ways[model][1]
    shape = checks.answer(model, images[:1])
    pair = torch.stack([images[0], images[-1]])
    sizes = _Sizes()
    try:
        _verify(model, parameters, pair, sizes)
        reason = None
    except (
        Exception
    ) as error:  # a model's code may fail in any way under torch.func; where the model fails, it fails again
        reason = _reason(error)
    if reason is None:
        ahead = min(MOST, engine.chunk_of(4 * sizes.largest // len(pair), images.is_cuda))
        found = Way(shape, None, ahead, min(ahead, engine.chunk_of(sizes.total // len(pair), images.is_cuda)))
    else:
        with torch.no_grad():  # what is not finite would be no reason
            parts = [sample_loss(model(part), "entropy", None) for part in images.split(slow.MAX_CHUNK)]
        checks.check_finite(torch.cat(parts))
        found = Way(shape, reason, slow.MAX_CHUNK, 1)
        if model not in _told:
            _told.add(model)
            log.warning("Products with gradients sample by sample, which is slower: %s.", reason)
    _ways[model] = state, found
    return found


def ahead(
    model: nn.Module,
    parameters: dict[str, Tensor],
    x: Tensor,
    vector: Vector,
    watch: AbstractContextManager[Any] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits [n, K, …] and their derivatives along the vector, of the same shape, in one forward-mode pass.

    parameters: those that are trainable; the vector may name fewer of them · watch: what the model's own code runs in.
    """
    fixed = {name: p.detach() for name, p in model.named_parameters() if name not in vector}
    fixed |= {name: b.detach() for name, b in model.named_buffers()}

    def logits(own: Vector) -> Tensor:
        with watch or nullcontext():
            return functional_call(model, {**own, **fixed}, (x,))

    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward rule
        found = jvp(logits, ({name: parameters[name].detach() for name in vector},), (vector,))
    return found[0], found[1]


def answers(model: nn.Module, x: Tensor) -> Tensor:
    """Logits [n, K, …] by the model itself, to be differentiated."""
    return slow.single(model, x[0]) if len(x) == 1 else model(x)


def one_by_one(
    model: nn.Module,
    parameters: dict[str, Tensor],
    x: Tensor,
    targets: Tensor | None,
    losses: list[LossFunction],
    vector: Vector,
) -> tuple[Tensor, list[Tensor]]:
    """Logits [n, K, …] and, for each loss, the products [n] of its gradients with the vector: a backward pass for each."""
    rows, found = [], []
    for n, sample in enumerate(x):
        with torch.enable_grad():
            logits = slow.single(model, sample)
            values = [loss(logits, None if targets is None else targets[n : n + 1]).sum() for loss in losses]
        rows.append(logits.detach())
        found.append(torch.stack([inner(gradients(value, parameters, retain=True), vector) for value in values]))
    return torch.cat(rows), list(torch.stack(found, dim=1))


def inner(one: Vector, other: Vector) -> Tensor:
    """⟨one, other⟩, []."""
    return torch.stack([(one[name] * tensor).sum() for name, tensor in other.items()]).sum()


def gradients(value: Tensor, parameters: dict[str, Tensor], *, retain: bool = False) -> Vector:
    """Of one number, by parameter; zeros where it does not depend on one."""
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in parameters.items()}
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=retain, allow_unused=True)
    return {name: dense(g, p) for (name, p), g in zip(parameters.items(), found, strict=True)}


def dense(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    """What autograd answers for a parameter: nothing where it has no part, and sparse rows of some embeddings."""
    if gradient is None:
        return torch.zeros_like(parameter)
    return gradient.to_dense() if gradient.is_sparse else gradient


def _state(model: nn.Module, parameters: dict[str, Tensor], images: Tensor) -> Any:
    """What a way depends on: the modules and their weights as they are, and how they are called."""
    weights = ((id(t), t.data_ptr(), t._version) for t in (*model.parameters(), *model.buffers()))
    modules = tuple(map(id, model.modules()))
    return modules, tuple(weights), tuple(parameters), images.shape[1:], images.dtype, images.device


class _Sizes(TorchFunctionMode):
    """Counts the bytes of what functions make, and refuses what decides for a whole batch by its values."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.total = 0, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in engine.DECISIONS:
            raise Unsupported("the model decides by the values of a tensor")
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            size = output.numel() * output.element_size()
            self.largest, self.total = max(self.largest, size), self.total + size
        return output


def _verify(model: nn.Module, parameters: dict[str, Tensor], pair: Tensor, sizes: _Sizes) -> None:
    """Hold forward mode on two samples against plain autograd for each of them alone; raises where they differ.

    What is derived is a linear function of the logits, which does not vanish where a softmax is sure of itself, along a random
    direction in which every parameter tensor counts as much as another.
    """
    alone, each = [], []
    for sample in pair:
        with torch.enable_grad():
            logits = slow.single(model, sample)
            each.append(gradients(engine.projection(logits).sum(), parameters))
        alone.append(logits.detach())
    norms = {name: sum(float(torch.linalg.vector_norm(g[name])) for g in each) for name in parameters}
    floor = SMALL * max(norms.values()) or 1.0
    random = torch.Generator().manual_seed(0)
    along = {
        name: torch.randn(p.shape, generator=random, dtype=torch.float64).to(p.device, p.dtype)
        / max(norms[name], floor)
        for name, p in parameters.items()
    }
    with torch.enable_grad():
        logits, tangents = ahead(model, parameters, pair, along, sizes)
    if logits.requires_grad:  # all that was put into the model is detached
        raise Unsupported("the model holds a parameter where torch.func cannot put another in its place")
    expected, found = torch.stack([inner(g, along) for g in each]), engine.projection(tangents)
    allowed = engine.tolerance(logits)
    together = torch.cat(alone)
    if not torch.allclose(logits, together, rtol=allowed, atol=allowed * float(together.abs().max())):
        raise Unsupported("samples of a batch reach each other")
    if not torch.allclose(found, expected.to(found.dtype), rtol=0, atol=allowed):
        raise Unsupported("forward mode differs from plain autograd for each sample alone")


def _reason(error: Exception) -> str:
    if missing := re.search(r"forward AD with (\w+)", str(error)):
        return f"torch has no forward rule for {missing[1]}"
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
