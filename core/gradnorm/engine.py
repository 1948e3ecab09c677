"""Per-sample gradient norms from one batched forward and one backward pass.

All parameters are frozen while the model runs, so that the backward pass derives no weight. A `TorchFunctionMode` sees
every torch function that is given one of them, whatever module it sits in, and hooks the function's output: as the
gradient of the output arrives, a rule of `rules` turns it into what each sample adds to the squared norm of the
parameter, or, for a parameter used more than once, to its gradient, for contributions add up before the norm is taken.

Nothing of that is trusted: `make_plan` first lets two samples of the batch tell where they are on every output, whether they
mix, and whether the norms of a batch are those that plain autograd finds for each of them alone. `Unsupported` says
what stands in the way.
"""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from core.gradnorm import slow
from core.gradnorm.losses import LossFunction, at_least_float32
from core.gradnorm.rules import RULES, Layout, Unsupported, Use, square

# What one chunk of samples may keep for its backward pass: on a CPU smaller chunks and larger ones were slower (64 to 384
# MiB, widths 8, 16 and 64), a GPU wants to be filled.
CPU_CHUNK_BYTES = 192 * 2**20
CUDA_CHUNK_BYTES = 2 * 2**30
# But what a chunk costs whatever its size, which is a millisecond for a few layers, must be shared by some samples: of
# large images this many are taken at once, as long as they stay within this much memory.
FEW, FEW_BYTES = 8, 2**30
# How far two exact computations may differ: by rounding. CUDA multiplies float32 with the 10 bits of TF32.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
ROUGH_TOLERANCE = 5e-2  # TF32, autocast

# Attention itself, less its question whether a mode wants to see it: the linear functions inside it are what we watch.
_attention = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)

# A parameter is near zero below this root mean square, as a share of 1/√(its inputs), where initial weights are.
NEAR_ZERO = 0.1

# What turns values into Python: a batch decides for all of its samples alike, where each might have decided otherwise.
_DECISIONS = (
    *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__complex__),
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.nonzero, torch.nonzero),
)

_DIFFERENT_CALLS = "the model calls its layers differently from one batch to the next"
_FOREIGN_MEMORY = "memory that is not the parameter's own"
_OUT_OF_SIGHT = "it is used where autograd does not look (a custom autograd.Function, or torch.no_grad)"


class _Undecided(Unsupported):
    """These values do not tell whether the engine can run the model; others may."""


@dataclass(frozen=True)
class Piece:
    """A parameter or a view of one, as a stretch of its memory."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def overlaps(self, other: "Piece") -> bool:
        return self.name == other.name and self.offset < other._end() and other.offset < self._end()

    def within(self, elements: int) -> bool:
        """Whether it lies in a parameter of so many elements, none of them twice."""
        own = math.prod(self.shape)
        return self.offset >= 0 and self._end() <= elements and own <= self._end() - self.offset

    def _end(self) -> int:
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


@dataclass(frozen=True)
class Call:
    """One call that took parameters, with the state of what its rules read again."""

    function: Any
    pieces: tuple[Piece, ...]
    uses: tuple[Use, ...]
    shape: torch.Size  # of the output
    versions: tuple[int, ...]

    @property
    def signature(self) -> tuple[Any, tuple[Piece, ...]]:
        return self.function, self.pieces


@dataclass(frozen=True)
class Plan:
    """What a model does with its parameters, verified on two samples."""

    logits: torch.Size  # of one sample: [K, …]
    calls: tuple[Any, ...]  # the signature of each
    layouts: tuple[Layout | None, ...]  # None for a call of which the logits are not made
    shared: frozenset[str]  # parameters whose uses overlap: their gradients are added before the norm
    chunk: int  # so many samples at once
    final: bool  # whether every gradient was put to the proof; not so where one vanished


class _Watch(TorchFunctionMode):
    """Sees every call that takes one of the parameters. With `taps`, hooks its output to `receive` (place, gradient)."""

    def __init__(self, parameters: dict[str, Tensor], taps: bool) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.anchor = torch.zeros((), requires_grad=True)
        self.receive: Callable[[int, Call, Tensor], None] = lambda place, call, gradient: None
        self._parameters, self._taps = parameters, taps
        own = {name: p for name, p in parameters.items() if p.numel()}
        self._names = {p.untyped_storage().data_ptr(): name for name, p in own.items()}
        if len(self._names) < len(own):
            raise Unsupported("parameters that share their memory")
        for name, p in own.items():
            if not Piece(name, tuple(p.shape), p.stride(), 0).within(p.numel()):
                raise Unsupported(_FOREIGN_MEMORY, name)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DECISIONS:
            raise Unsupported("the model decides by the values of a tensor")
        name = next((name for tensor in _tensors((args, kwargs)) if (name := self._name(tensor))), None)
        if name is None:
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _attention(*args, **kwargs)
        if func not in RULES:
            return self._view(name, func, args, kwargs)
        if not torch.is_grad_enabled():
            raise Unsupported(_OUT_OF_SIGHT, name)
        try:
            uses = tuple(use for use in RULES[func](*args, **kwargs) if self._name(use.parameter))
        except (TypeError, Unsupported) as error:  # or a form of the call that the rule does not know
            raise Unsupported(str(error), name) from error
        if any(self._name(tensor) for use in uses for tensor in use.saved):
            raise Unsupported(f"{_name_of(func)} of two parameters", name)
        pieces = tuple(self._piece(use.parameter) for use in uses)
        versions = tuple(tensor._version for use in uses for tensor in use.saved)
        output = func(*args, **kwargs)
        if self._name(output):  # from here on it is the samples' own
            output = output.clone()
        call = Call(func, pieces, uses, output.shape, versions)
        if self._taps:
            output = self._tap(output, len(self.calls))
        self.calls.append(call)
        return output

    def _view(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A view of a parameter, or what is asked of it and is no tensor (its shape), goes through."""
        output = func(*args, **kwargs)
        cut = func in (Tensor.detach, Tensor.data.__get__)  # type: ignore[attr-defined]
        if cut or any(self._name(tensor) != name for tensor in _tensors(output)):
            seen = torch.is_grad_enabled()
            raise Unsupported(f"there is no rule for {_name_of(func)}" if seen else _OUT_OF_SIGHT, name)
        return output

    def _tap(self, output: Tensor, place: int) -> Tensor:
        """The graph starts here if it has not yet; the first layers have nothing below them that could be derived."""
        if not output.requires_grad:
            if output._is_view():
                output = output.clone()
            output = _Begin.apply(output, self.anchor)  # type: ignore[no-untyped-call]
        watch = weakref.ref(self)  # or tensors would keep alive the hooks, and these the tensors

        def hook(gradient: Tensor) -> None:
            if (owner := watch()) is not None:
                owner.receive(place, owner.calls[place], gradient)

        output.register_hook(hook)
        return output

    def _name(self, tensor: Tensor) -> str | None:
        return self._names.get(tensor.untyped_storage().data_ptr()) if tensor.layout is torch.strided else None

    def _piece(self, tensor: Tensor) -> Piece:
        name = self._name(tensor)
        assert name is not None
        whole = self._parameters[name]
        piece = Piece(name, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset() - whole.storage_offset()))
        if not piece.within(whole.numel()):
            raise Unsupported(_FOREIGN_MEMORY, name)
        return piece


class _Begin(Function):
    """Identity that makes a tensor part of the graph in its place, so that in-place functions may follow."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, None


class _Norms:
    """Collects, for n samples, the squared norms of all parameters from the gradients that arrive."""

    def __init__(
        self, parameters: dict[str, Tensor], shared: frozenset[str], layouts: Sequence[Layout | None], n: int
    ) -> None:
        self._n, self._layouts = n, layouts
        self._squares: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}  # of the shared ones, in the order of the parameter's memory
        self._parameters, self._shared = parameters, shared

    def receive(self, place: int, call: Call, gradient: Tensor) -> None:
        try:
            self._add(place, call, gradient)
        except Unsupported as error:
            error.parameter = error.parameter or call.pieces[0].name
            raise

    def _add(self, place: int, call: Call, gradient: Tensor) -> None:
        if call.versions != tuple(tensor._version for use in call.uses for tensor in use.saved):
            raise Unsupported("its input was changed in place after the call", call.pieces[0].name)
        layout = self._layouts[place]
        if layout is None:
            raise Unsupported(_DIFFERENT_CALLS, call.pieces[0].name)
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            rows = layout.rows(gradient)
            for use, piece in zip(call.uses, call.pieces, strict=True):
                name = piece.name
                if name in self._shared:
                    if name not in self._gradients:
                        self._gradients[name] = rows.new_zeros(self._n, self._parameters[name].numel())
                    whole = self._gradients[name]
                    strides = (whole.stride(0), *piece.stride)
                    part = whole.as_strided((self._n, *piece.shape), strides, piece.offset)
                    part += use.gradient(layout, rows)
                else:
                    squared = square(use.gradient(layout, rows)) if use.squared is None else use.squared(layout, rows)
                    self._squares[name] = self._squares[name] + squared if name in self._squares else squared

    def norms(self) -> Tensor:
        """[n, tensors], 0 for a parameter that no gradient reached."""
        squares = self._squares | {name: square(gradient) for name, gradient in self._gradients.items()}
        some = next(iter(squares.values()), next(iter(self._parameters.values())))
        nothing = at_least_float32(some.new_zeros(self._n))
        return torch.stack([squares.get(name, nothing) for name in self._parameters], dim=1).sqrt()


def passes(
    model: nn.Module,
    parameters: dict[str, Tensor],
    plan: Plan,
    x: Tensor,
    targets: Tensor | None,
    losses: Sequence[LossFunction],
) -> tuple[Tensor, Iterator[Tensor]]:
    """Logits [n, K, …] and, for each loss, the norms [n, tensors]: one forward pass, a backward pass a loss.

    Raises `Unsupported` where the model does something else than what was planned.
    """
    watch, logits = _forward(model, parameters, x)
    if (logits.shape[1:], tuple(call.signature for call in watch.calls)) != (plan.logits, plan.calls) or any(
        layout is not None and call.shape[layout.dim] != len(x) * layout.items
        for call, layout in zip(watch.calls, plan.layouts, strict=True)
    ):
        raise Unsupported(_DIFFERENT_CALLS)

    def norms() -> Iterator[Tensor]:
        for i, loss in enumerate(losses):
            with torch.enable_grad():
                values = loss(logits, targets)
            found = _Norms(parameters, plan.shared, plan.layouts, len(x))
            watch.receive = found.receive
            _backward(watch, values, retain=i + 1 < len(losses))
            yield found.norms()

    return logits.detach(), norms()


def make_plan(model: nn.Module, parameters: dict[str, Tensor], pair: Tensor) -> Plan:
    """Find out where the samples are in every call, and verify two of them, [2, …], against plain autograd.

    What is derived for that is a linear function of the logits, whose gradient does not vanish where a softmax is sure
    of itself. Where it does vanish, below a head or in front of a norm that start as zeros, nothing would be verified:
    the plan is then made with such parameters lifted from zero. It holds for any values. Raises `Unsupported`.
    """
    _Watch(parameters, taps=False)  # refuses memory that is shared, which lifted parameters would not show
    with suppress(_Undecided):
        plan = _verified(model, parameters, pair, sure=True)
        if plan.final:
            return plan
    with _lifted(model):
        return _verified(model, parameters, pair, sure=False)


def _verified(model: nn.Module, parameters: dict[str, Tensor], pair: Tensor, sure: bool) -> Plan:
    """A plan that was verified with the parameters as they are now. It is final if no gradient vanished; `sure`: if each
    was large enough among the others that its absence would have been noticed."""
    alone, expected = _alone(model, parameters, pair)
    kept = _Kept(model)
    with kept:
        watch, logits = _forward(model, parameters, pair)
    calls = tuple(call.signature for call in watch.calls)
    if calls != tuple(call.signature for call in alone):
        raise Unsupported(_DIFFERENT_CALLS)
    for call in watch.calls:
        for use in call.uses:
            for tensor in use.saved:
                kept.count(tensor)
    with torch.enable_grad():
        values = _projection(logits)

    layouts = [_candidates(one, two) for one, two in zip(alone, watch.calls, strict=True)]
    reached = set()

    for own, other in ((0, 1), (1, 0)):

        def tell(place: int, call: Call, gradient: Tensor, other: int = other) -> None:
            """Where the gradient of one sample's value is zero, the other sample may be."""
            reached.add(place)
            layouts[place] = [layout for layout in layouts[place] if not layout.rows(gradient)[other].any()]
            if not layouts[place]:
                raise Unsupported("samples of a batch reach each other", call.pieces[0].name)

        watch.receive = tell
        _backward(watch, values[own : own + 1], retain=True)
    for place in sorted(reached):
        if len(layouts[place]) != 1:
            raise _Undecided("it does not show where the samples are", watch.calls[place].pieces[0].name)
    known = tuple(left[0] if place in reached else None for place, left in enumerate(layouts))

    pieces = [piece for call in watch.calls for piece in call.pieces]
    shared = frozenset(a.name for i, a in enumerate(pieces) for b in pieces[:i] if a.overlaps(b))
    found = _Norms(parameters, shared, known, 2)
    watch.receive = found.receive
    _backward(watch, values, retain=False)
    norms = found.norms()
    allowed = _tolerance(logits) * (expected + 1e-2 * expected.amax(dim=1, keepdim=True))
    wrong = (norms - expected).abs() > allowed
    if bool((wrong | ~norms.isfinite()).any()):
        name = list(parameters)[int(wrong.any(dim=0).int().argmax())]
        raise Unsupported("its gradients in a batch differ from those of the samples alone", name)
    used = {piece.name for place in reached for piece in watch.calls[place].pieces}
    proven = (expected > (allowed if sure else 0))[:, [name in used for name in parameters]]
    final = bool(proven.all()) and not torch.equal(pair[0], pair[1])
    bytes_a_sample = kept.total // 2 + sum(4 * parameters[name].numel() for name in shared)
    return Plan(logits.shape[1:], calls, known, shared, _chunk(bytes_a_sample, pair.is_cuda), final)


def _chunk(bytes_a_sample: int, is_cuda: bool) -> int:
    """So many samples at once; never one, for a batch of one is not safe to differentiate (`slow.single`)."""
    limit = CUDA_CHUNK_BYTES if is_cuda else CPU_CHUNK_BYTES
    fits, few = limit // max(1, bytes_a_sample), FEW_BYTES // max(1, bytes_a_sample)
    return max(2, fits, min(FEW, few))


@contextmanager
def _lifted(model: nn.Module) -> Iterator[None]:
    """Within, parameters that are zero or near it hold other values instead; their own memory is not written to."""
    random = torch.Generator().manual_seed(0)
    found = [(p, p.data) for p in model.parameters() if p.is_floating_point() and p.numel()]
    try:
        torch.clear_autocast_cache()  # of weights cast as they are
        for p, own in found:
            scale = NEAR_ZERO / math.sqrt(own[0].numel() if own.ndim else 1)
            if float(own.square().mean()) < scale**2:
                noise = torch.randn(own.shape, generator=random).to(own.device, own.dtype)
                p.data = torch.empty_strided(own.shape, own.stride(), device=own.device, dtype=own.dtype)
                p.data.copy_(own + scale * noise)
        yield
    finally:
        torch.clear_autocast_cache()
        for p, own in found:
            p.data = own


def _alone(model: nn.Module, parameters: dict[str, Tensor], pair: Tensor) -> tuple[list[Call], Tensor]:
    """The calls for one sample, and the norms [2, tensors] of two, by plain autograd."""
    watch = _Watch(parameters, taps=False)
    with torch.enable_grad(), watch:
        model(pair[:1])
    seen, rows = {piece.name for call in watch.calls for piece in call.pieces}, []
    for sample in pair:
        with torch.enable_grad():
            value = _projection(slow.single(model, sample)).sum()
        if not value.requires_grad:
            raise Unsupported("the output does not depend on the parameters")
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and name not in seen:
                raise Unsupported("it is used where no torch function shows it", name)
        rows.append(
            torch.stack([value.new_zeros(()) if g is None else torch.linalg.vector_norm(_dense(g)) for g in gradients])
        )
    return watch.calls, torch.stack(rows)


def _dense(gradient: Tensor) -> Tensor:
    """An embedding may answer with a sparse one."""
    return at_least_float32(gradient.to_dense() if gradient.is_sparse else gradient)


def _candidates(one: Call, two: Call) -> list[Layout]:
    """Where the samples may be in an output, from its shapes for one sample and for two."""
    grown = [d for d, (a, b) in enumerate(zip(one.shape, two.shape, strict=False)) if a != b]
    if len(one.shape) != len(two.shape) or len(grown) != 1 or two.shape[grown[0]] != 2 * one.shape[grown[0]]:
        raise Unsupported("the output of its function does not grow with the samples", one.pieces[0].name)
    (dim,) = grown
    items = one.shape[dim]
    return [Layout(dim, items, inner) for inner in ((False, True) if items > 1 else (False,))]


def _projection(logits: Tensor) -> Tensor:
    """[n, K, …] → [n], a fixed linear function of each sample's logits."""
    flat = at_least_float32(logits).flatten(1)
    return flat @ torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype).cos()


def _tolerance(logits: Tensor) -> float:
    rough = logits.is_cuda or logits.dtype not in TOLERANCE or torch.is_autocast_enabled(logits.device.type)
    return ROUGH_TOLERANCE if rough and logits.dtype != torch.float64 else TOLERANCE[logits.dtype]


def _forward(model: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> tuple[_Watch, Tensor]:
    watch = _Watch(parameters, taps=True)
    with _frozen(model), torch.enable_grad(), watch:
        return watch, model(x)


def _backward(watch: _Watch, values: Tensor, retain: bool) -> None:
    if values.requires_grad:
        torch.autograd.grad(values, watch.anchor, torch.ones_like(values), retain_graph=retain, allow_unused=True)


class _Kept(saved_tensors_hooks):
    """Adds up the memory that a forward pass keeps for its backward pass, each storage once, without the model's own."""

    def __init__(self, model: nn.Module) -> None:
        self.total = 0
        self._seen = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        super().__init__(self._pack, lambda tensor: tensor)

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()

    def _pack(self, tensor: Tensor) -> Tensor:
        self.count(tensor)
        return tensor.detach()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    trainable = [p for p in model.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _name_of(func: Any) -> str:
    return getattr(func, "__name__", repr(func))
