"""Per-sample gradient norms from one batched forward and one backward pass.

All parameters are frozen while the model runs, so that the backward pass derives no weight. A `TorchFunctionMode` sees
every torch function in which samples meet one of them, whatever module it sits in, and hooks the function's output: as the
gradient of the output arrives, a rule of `rules` turns it into what each sample adds to the squared norm of the
parameter, or, for a parameter used more than once, to its gradient, for contributions add up before the norm is taken.
What is made of parameters alone, as a standardised weight or a relative position bias, is watched like a parameter; its
gradient of every sample is taken back to the parameters by autograd.

Nothing of that is trusted: `make_plan` first lets two samples of the batch tell where they are on every output, whether they
mix, and whether the norms of a batch are those that plain autograd finds for each of them alone. `Unsupported` says
what stands in the way.
"""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from core.gradnorm import slow
from core.gradnorm.losses import LossFunction, at_least_float32
from core.gradnorm.rules import RULES, Joint, Layout, Unsupported, Use, square

# What one chunk of samples may keep for its backward pass: on a CPU smaller chunks and larger ones were slower (64 to 384
# MiB, widths 8, 16 and 64), a GPU wants to be filled.
CPU_CHUNK_BYTES = 192 * 2**20
CUDA_CHUNK_BYTES = 2 * 2**30
# But what a chunk costs whatever its size, which is a millisecond for a few layers, must be shared by some samples: of
# large images this many are taken at once, as long as they stay within this much memory.
FEW, FEW_BYTES = 4, 2**30
# How far two exact computations may differ: by rounding. CUDA multiplies float32 with the 10 bits of TF32.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
ROUGH_TOLERANCE = 5e-2  # TF32, autocast

# Attention itself, less its question whether a mode wants to see it: the linear functions inside it are what we watch.
_attention = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


def _scaled_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, dropout_p: float = 0.0, **options: Any
) -> Tensor:
    """Attention with a mask of floats, in functions that are watched: the mask may be made of parameters."""
    scale = options.pop("scale", None) or query.shape[-1] ** -0.5
    if dropout_p or any(options.values()):
        raise Unsupported(f"scaled_dot_product_attention with {', '.join(options) or 'dropout'}")
    return (query @ key.mT * scale + attn_mask).softmax(dim=-1) @ value


# Functions that are watched from within, where a parameter is given to them.
_WITHIN: dict[Any, Callable[..., Any]] = {
    F.multi_head_attention_forward: _attention,
    F.scaled_dot_product_attention: _scaled_attention,
}
_IN_PLACE = {f"__i{name}__" for name in ("add", "sub", "mul", "div", "truediv", "floordiv", "pow", "matmul", "mod")}

# A parameter is near zero below this root mean square, as a share of 1/√(its inputs), where initial weights are.
NEAR_ZERO = 0.1

# What turns values into Python: a batch decides for all of its samples alike, where each might have decided otherwise.
DECISIONS = (
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
    """A parameter, or what was made of parameters, or a view of one, as a stretch of its memory."""

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


def _whole(name: str, tensor: Tensor) -> Piece:
    return Piece(name, tuple(tensor.shape), tensor.stride(), 0)


@dataclass(frozen=True)
class Call:
    """One call in which samples met parameters, with the state of what its rules read again."""

    function: Any
    pieces: tuple[Piece, ...]
    uses: tuple[Use, ...]
    shape: torch.Size  # of the output
    versions: tuple[int, ...]

    @property
    def signature(self) -> tuple[Any, tuple[Piece, ...]]:
        return self.function, self.pieces


@dataclass
class Derived:
    """A tensor made of parameters alone, before a sample meets it: a standardised weight, a bias from a table."""

    graph: Tensor  # by which autograd finds back to the leaves
    leaves: dict[str, Tensor]  # in the memory of the parameters

    def pull(self, gradients: Tensor) -> dict[str, Tensor]:
        """[n, *shape] of this tensor → [n, *shape] of each parameter."""
        found = torch.autograd.grad(
            self.graph,
            list(self.leaves.values()),
            gradients.to(self.graph.dtype),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        return {name: g for name, g in zip(self.leaves, found, strict=True) if g is not None}


# Which torch function of a forward pass, counted from its start, and within what was taken apart from its start.
Place = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What a model does with its parameters, verified on two samples."""

    logits: torch.Size  # of one sample: [K, …]
    grown: frozenset[Place]  # where what parameters alone make is as long as the batch
    made: tuple[Any, ...]  # of parameters alone: function and shapes of each
    calls: tuple[Any, ...]  # the signature of each
    layouts: tuple[Layout | None, ...]  # None for a call of which the logits are not made
    shared: frozenset[str]  # parameters whose uses overlap: their gradients are added before the norm
    chunk: int  # so many samples at once
    final: bool  # whether every gradient was put to the proof; not so where one vanished


class _Watch(TorchFunctionMode):
    """Sees every call that takes one of the parameters.

    A call in which they meet samples is a `Call`: its output is hooked to `receive` (place, gradient). What is made of
    parameters alone is `Derived`, and watched as a parameter is; at the places of `grown`, where it is as long as
    the batch, it counts as samples.
    """

    def __init__(self, parameters: dict[str, Tensor], grown: frozenset[Place] = frozenset()) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.derived: dict[str, Derived] = {}
        self.made: dict[Place, tuple[Any, tuple[torch.Size, ...]]] = {}
        self.failure: Unsupported | None = (
            None  # the first call that no rule can tell of; its result was computed all the same
        )
        self.last = False  # whether this is the last backward pass
        self.anchor = torch.zeros((), requires_grad=True)
        self.receive: Callable[[int, Call, Tensor], None] = lambda place, call, gradient: None
        self._grown = grown
        self._place: Place = (0,)
        self._samples: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # what does not show it by requires_grad
        self._graphs: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # what the model sees → what leads back
        self._leaves: dict[str, Tensor] = {}
        self._wholes = {name: p for name, p in parameters.items() if p.numel()}
        self._names = {p.untyped_storage().data_ptr(): name for name, p in self._wholes.items()}
        if len(self._names) < len(self._wholes):
            raise Unsupported("parameters that share their memory")
        for name, p in self._wholes.items():
            if not _whole(name, p).within(p.numel()):
                raise Unsupported(_FOREIGN_MEMORY, name)

    def samples(self, x: Tensor) -> Tensor:
        """Let all that is made of x count as samples."""
        self._samples[x] = True
        return x

    def elements(self, name: str) -> int:
        """Of a parameter, or of what was made of parameters."""
        return self._wholes[name].numel()

    def parameters_of(self, pieces: Iterable[Piece]) -> set[str]:
        """The names of the parameters in which these pieces lie, or of which they were made."""
        names = {piece.name for piece in pieces}
        return {leaf for name in names for leaf in (self.derived[name].leaves if name in self.derived else (name,))}

    def name(self, tensor: Tensor) -> str | None:
        """The parameter, or what was made of parameters, in whose memory the tensor lies."""
        return self._names.get(tensor.untyped_storage().data_ptr()) if tensor.layout is torch.strided else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DECISIONS:
            raise Unsupported("the model decides by the values of a tensor")
        self._place = (*self._place[:-1], self._place[-1] + 1)
        name, of_samples = None, False
        for tensor in _tensors(*args, kwargs):
            if tensor.requires_grad:  # which parameters do not, as long as they are frozen
                of_samples = True
            elif (own := self.name(tensor)) is not None:
                name = name or own
            elif tensor in self._samples:
                of_samples = True
        if name is None:
            return self._plain(func, args, kwargs) if of_samples else func(*args, **kwargs)
        if func in _WITHIN:
            place, self._place = self._place, (*self._place, 0)
            with self:
                output = _WITHIN[func](*args, **kwargs)
            self._place = place
            return output
        if not of_samples and self._place not in self._grown:
            return self._make(name, func, args, kwargs)
        try:
            return self._call(name, func, args, kwargs)
        except Unsupported as error:
            self.failure = self.failure or error
            return self._plain(func, args, kwargs)

    def _plain(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call without parameters: what it makes is of samples, or what it writes to."""
        output = func(*args, **kwargs)
        for tensor in _tensors(output, args[0] if _in_place(func) else None):
            if not tensor.requires_grad:
                self._samples[tensor] = True
        return output

    def _call(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func not in RULES:
            if not _in_place(func) and not _tensors(output := func(*args, **kwargs)):
                return output  # a shape, say
            seen = torch.is_grad_enabled()
            raise Unsupported(f"there is no rule for {_name_of(func)}" if seen else _OUT_OF_SIGHT, name)
        if not torch.is_grad_enabled():
            raise Unsupported(_OUT_OF_SIGHT, name)
        try:
            made = RULES[func](*args, **kwargs)
        except (TypeError, Unsupported) as error:  # or a form of the call that the rule does not know
            raise Unsupported(str(error), name) from error
        joint = made.output if isinstance(made, Joint) else None
        uses = tuple(use for use in (made.uses if isinstance(made, Joint) else made) if self.name(use.parameter))
        pieces = tuple(self._piece(use.parameter) for use in uses)
        versions = tuple(tensor._version for use in uses for tensor in use.saved)
        output = func(*args, **kwargs) if joint is None else joint()
        if self.name(output):  # from here on it is the samples' own
            output = output.clone()
        call = Call(func, pieces, uses, output.shape, versions)
        output = self._tap(output, len(self.calls))
        self.calls.append(call)
        return output

    def _tap(self, output: Tensor, place: int) -> Tensor:
        """The graph starts here if it has not yet; the first layers have nothing below them that could be derived."""
        if not output.requires_grad:
            if output._is_view():
                output = output.clone()
            output = _Begin.apply(output, self.anchor)  # type: ignore[no-untyped-call]
        watch = weakref.ref(self)  # or tensors would keep alive the hooks, and these the tensors

        def hook(gradient: Tensor) -> Tensor:
            gradient = _together(gradient)
            if (owner := watch()) is not None:
                owner.receive(place, owner.calls[place], gradient)
                if owner.last:  # what its rules would read again can go
                    owner.calls[place] = replace(owner.calls[place], uses=())
            return gradient

        output.register_hook(hook)
        return output

    def _make(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is made of parameters alone is computed with their leaves, and shown to the model without its graph."""
        if _in_place(func) and self.name(args[0]) not in self.derived:
            raise Unsupported(f"there is no rule for {_name_of(func)}", name)
        try:
            output = func(*_each(self._graph, args), **_each(self._graph, kwargs))
        except RuntimeError as error:
            raise Unsupported(f"{_name_of(func)}: {error}", name) from error
        leaves: dict[str, Tensor] = {}
        for given in _tensors(*args, kwargs):
            if source := self.name(given):
                leaves |= self.derived[source].leaves if source in self.derived else {source: self._leaves[source]}
        output = _each(lambda tensor: self._shown(name, func, tensor, leaves), output)
        if shapes := tuple(tensor.shape for tensor in _tensors(output)):
            self.made[self._place] = (func, shapes)
        return output

    def _graph(self, tensor: Tensor) -> Tensor:
        """What leads back to the leaves, instead of what the model sees."""
        name = self.name(tensor)
        if name is None:
            return tensor
        if name not in self.derived and name not in self._leaves:
            whole = self._wholes[name]
            self._leaves[name] = self._graphs[whole] = whole.detach().requires_grad_()
        if tensor in self._graphs:
            return self._graphs[tensor]
        whole = self.derived[name].graph if name in self.derived else self._leaves[name]
        return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def _shown(self, name: str, func: Any, graph: Tensor, leaves: dict[str, Tensor]) -> Tensor:
        """A result without its graph, which is remembered; what does not depend on the leaves is as any other tensor."""
        known = self.name(graph)
        if not graph.requires_grad:
            if known or (graph.is_floating_point() and not torch.is_grad_enabled()):
                seen = torch.is_grad_enabled()
                raise Unsupported(f"there is no rule for {_name_of(func)}" if seen else _OUT_OF_SIGHT, name)
            return graph
        if known and _whole(known, graph).within(graph.untyped_storage().nbytes() // graph.element_size()):
            if known in self.derived:
                self.derived[known].leaves |= leaves
        else:
            graph = graph.contiguous()
            known = f"{name}#{len(self.derived)}"
            self.derived[known] = Derived(graph, leaves)
            self._wholes[known] = graph.detach()
            self._names[graph.untyped_storage().data_ptr()] = known
        shown = graph.detach()
        self._graphs[shown] = graph
        return shown

    def _piece(self, tensor: Tensor) -> Piece:
        name = self.name(tensor)
        assert name is not None
        whole = self._wholes[name]
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
    """Collects, for n samples, the squared norms of all parameters from the gradients that arrive.

    A gradient is kept only as long as it is not complete: until the last use of a parameter, or of what was made of
    parameters, has added to it.
    """

    def __init__(
        self,
        watch: _Watch,
        parameters: dict[str, Tensor],
        shared: frozenset[str],
        layouts: Sequence[Layout | None],
        n: int,
    ) -> None:
        self._watch, self._parameters, self._layouts, self._n = watch, parameters, layouts, n
        self._squares: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}  # [n, elements], in the order of the memory
        self._left = Counter(
            piece.name
            for call, layout in zip(watch.calls, layouts, strict=True)
            if layout is not None
            for piece in call.pieces
        )
        made = [name for name in watch.derived if self._left[name]]
        self._left.update(leaf for name in made for leaf in watch.derived[name].leaves)
        leaves = {leaf for name in made for leaf in watch.derived[name].leaves}
        self._kept = shared | set(made) | {leaf for leaf in leaves if self._left[leaf] > 1}

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
                if piece.name in self._kept:
                    self._keep(piece, use.gradient(layout, rows))
                else:
                    squared = square(use.gradient(layout, rows)) if use.squared is None else use.squared(layout, rows)
                    self._count(piece.name, squared)
                self._arrived(piece.name)

    def _keep(self, piece: Piece, gradient: Tensor) -> None:
        if piece.name not in self._gradients:
            self._gradients[piece.name] = gradient.new_zeros(self._n, self._watch.elements(piece.name))
        whole = self._gradients[piece.name]
        part = whole.as_strided((self._n, *piece.shape), (whole.stride(0), *piece.stride), piece.offset)
        part += gradient

    def _count(self, name: str, squared: Tensor) -> None:
        self._squares[name] = self._squares[name] + squared if name in self._squares else squared

    def _arrived(self, name: str) -> None:
        self._left[name] -= 1
        if not self._left[name]:
            self._finish(name)

    def _finish(self, name: str) -> None:
        if name not in self._gradients:
            return
        gradient = self._gradients.pop(name)
        if name in self._parameters:
            self._count(name, square(gradient))
            return
        derived = self._watch.derived[name]
        found = derived.pull(gradient.view(self._n, *derived.graph.shape))
        for leaf in derived.leaves:
            if leaf in found and leaf in self._kept:
                self._keep(_whole(leaf, self._parameters[leaf]), found[leaf])
            elif leaf in found:
                self._count(leaf, square(found[leaf]))
            self._arrived(leaf)

    def norms(self) -> Tensor:
        """[n, tensors], 0 for a parameter that no gradient reached."""
        with torch.no_grad():
            for name in (*self._watch.derived, *self._parameters):  # whose last use had no gradient
                self._finish(name)
        some = next(iter(self._squares.values()), next(iter(self._parameters.values())))
        nothing = at_least_float32(some.new_zeros(self._n))
        return torch.stack([self._squares.get(name, nothing) for name in self._parameters], dim=1).sqrt()


def passes(
    model: nn.Module,
    parameters: dict[str, Tensor],
    plan: Plan,
    x: Tensor,
    targets: Tensor | None,
    losses: Sequence[LossFunction],
) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]:
    """Logits [n, K, …] and, for each loss, its values [n] and the norms [n, tensors]: one forward pass, a backward pass a loss.

    Raises `Unsupported` where the model does something else than what was planned.
    """
    watch, logits = _forward(model, parameters, x, plan.grown)
    calls = tuple(call.signature for call in watch.calls)
    if (logits.shape[1:], tuple(watch.made.values()), calls) != (plan.logits, plan.made, plan.calls) or any(
        layout is not None and call.shape[layout.dim] != len(x) * layout.items
        for call, layout in zip(watch.calls, plan.layouts, strict=True)
    ):
        raise Unsupported(_DIFFERENT_CALLS)

    def norms() -> Iterator[tuple[Tensor, Tensor]]:
        for i, loss in enumerate(losses):
            with torch.enable_grad():
                values = loss(logits, targets)
            found = _Norms(watch, parameters, plan.shared, plan.layouts, len(x))
            watch.receive = found.receive
            _backward(watch, values, retain=i + 1 < len(losses))
            yield values.detach(), found.norms()

    return logits.detach(), norms()


def make_plan(model: nn.Module, parameters: dict[str, Tensor], pair: Tensor) -> Plan:
    """Find out where the samples are in every call, and verify two of them, [2, …], against plain autograd.

    What is derived for that is a linear function of the logits, whose gradient does not vanish where a softmax is sure
    of itself. Where it does vanish, below a head or in front of a norm that start as zeros, nothing would be verified:
    the plan is then made with such parameters lifted from zero. It holds for any values. Raises `Unsupported`.
    """
    _Watch(parameters)  # refuses memory that is shared, which lifted parameters would not show
    with suppress(_Undecided):
        plan = _verified(model, parameters, pair, sure=True)
        if plan.final:
            return plan
    with _lifted(model):
        return _verified(model, parameters, pair, sure=False)


def _verified(model: nn.Module, parameters: dict[str, Tensor], pair: Tensor, sure: bool) -> Plan:
    """A plan that was verified with the parameters as they are now. It is final if no gradient vanished; `sure`: if each
    was large enough among the others that its absence would have been noticed."""
    alone, watch, kept, logits, grown = _survey(model, parameters, pair)
    expected = _alone(model, parameters, pair, alone)
    for call in watch.calls:
        for use in call.uses:
            for tensor in use.saved:
                kept.count(tensor)
    with torch.enable_grad():
        values = projection(logits)

    layouts = [_candidates(one, two) for one, two in zip(alone.calls, watch.calls, strict=True)]
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
    found = _Norms(watch, parameters, shared, known, 2)
    watch.receive = found.receive
    _backward(watch, values, retain=False)
    norms = found.norms()
    allowed = tolerance(logits) * (expected + 1e-2 * expected.amax(dim=1, keepdim=True))
    wrong = (norms - expected).abs() > allowed
    if bool((wrong | ~norms.isfinite()).any()):
        name = list(parameters)[int(wrong.any(dim=0).int().argmax())]
        raise Unsupported("its gradients in a batch differ from those of the samples alone", name)
    used = watch.parameters_of(piece for place in reached for piece in watch.calls[place].pieces)
    proven = (expected > (allowed if sure else 0))[:, [name in used for name in parameters]]
    final = bool(proven.all()) and not torch.equal(pair[0], pair[1])
    held = sum(watch.elements(name) for name in shared) + 2 * max(map(watch.elements, watch.derived), default=0)
    calls, chunk = tuple(call.signature for call in watch.calls), chunk_of(kept.total // 2 + 4 * held, pair.is_cuda)
    return Plan(logits.shape[1:], grown, tuple(watch.made.values()), calls, known, shared, chunk, final)


def _survey(
    model: nn.Module, parameters: dict[str, Tensor], pair: Tensor
) -> tuple[_Watch, _Watch, "_Kept", Tensor, frozenset[Place]]:
    """One forward pass of one sample and one of both, with what the second keeps, its logits, and where parameters alone
    make something as long as the batch. These places show once both passes were seen, and the passes are run again."""
    grown: frozenset[Place] = frozenset()
    while True:
        one, _ = _watched(model, parameters, pair[:1], grown)
        kept = _Kept(model)
        with kept:
            two, logits = _watched(model, parameters, pair, grown, kept)
        if one.made.keys() != two.made.keys():
            raise Unsupported(_DIFFERENT_CALLS)
        more = {place for place, made in one.made.items() if made != two.made[place]}
        if not more:
            break
        grown |= more
    if failure := one.failure or two.failure:
        raise failure
    if [call.signature for call in one.calls] != [call.signature for call in two.calls]:
        raise Unsupported(_DIFFERENT_CALLS)
    return one, two, kept, logits, grown


def chunk_of(bytes_a_sample: int, is_cuda: bool) -> int:
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


def _alone(model: nn.Module, parameters: dict[str, Tensor], pair: Tensor, watch: _Watch) -> Tensor:
    """The norms [2, tensors] of two samples, by plain autograd; watch: what was seen of one."""
    seen, rows = watch.parameters_of(piece for call in watch.calls for piece in call.pieces), []
    for sample in pair:
        with torch.enable_grad():
            value = projection(slow.single(model, sample)).sum()
        if not value.requires_grad:
            raise Unsupported("the output does not depend on the parameters")
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and name not in seen:
                raise Unsupported("it is used where no torch function shows it", name)
        rows.append(
            torch.stack([value.new_zeros(()) if g is None else torch.linalg.vector_norm(_dense(g)) for g in gradients])
        )
    return torch.stack(rows)


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


def projection(logits: Tensor) -> Tensor:
    """[n, K, …] → [n], a fixed linear function of each sample's logits."""
    flat = at_least_float32(logits).flatten(1)
    return flat @ torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype).cos()


def tolerance(logits: Tensor) -> float:
    """How far, relatively, what is derived of such logits may differ between two exact computations."""
    rough = logits.is_cuda or logits.dtype not in TOLERANCE or torch.is_autocast_enabled(logits.device.type)
    return ROUGH_TOLERANCE if rough and logits.dtype != torch.float64 else TOLERANCE[logits.dtype]


def _forward(
    model: nn.Module, parameters: dict[str, Tensor], x: Tensor, grown: frozenset[Place]
) -> tuple[_Watch, Tensor]:
    watch, logits = _watched(model, parameters, x, grown)
    if watch.failure is not None:
        raise watch.failure
    return watch, logits


def _watched(
    model: nn.Module,
    parameters: dict[str, Tensor],
    x: Tensor,
    grown: frozenset[Place],
    kept: "_Kept | None" = None,
) -> tuple[_Watch, Tensor]:
    """A forward pass and what was seen of it, to be trusted only if there was no failure."""
    watch = _Watch(parameters, grown)
    if kept is not None:
        kept.ignored = watch.name
    with _frozen(model), torch.enable_grad(), watch:
        return watch, model(watch.samples(x))


def _backward(watch: _Watch, values: Tensor, retain: bool) -> None:
    watch.last = not retain
    if values.requires_grad:
        torch.autograd.grad(values, watch.anchor, torch.ones_like(values), retain_graph=retain, allow_unused=True)


class _Kept(saved_tensors_hooks):
    """Adds up the memory that a forward pass keeps for its backward pass, each storage once, without the model's own."""

    def __init__(self, model: nn.Module) -> None:
        self.total = 0
        self.ignored: Callable[[Tensor], Any] = lambda tensor: None  # what is as much for any number of samples
        self._seen = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        super().__init__(self._pack, lambda tensor: tensor)

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen and not self.ignored(tensor):
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


def _together(gradient: Tensor) -> Tensor:
    """Some channels of channels-last images, as the gradient of one part of a concatenation, without the others between them:
    copied once for the rule and for the backward pass, which would make a copy each."""
    if gradient.ndim != 4 or gradient.stride(1) != 1 or not all(gradient.stride()):
        return gradient
    return gradient.contiguous(memory_format=torch.channels_last)


def _tensors(*values: Any) -> list[Tensor]:
    """The tensors among arguments or results."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(*value)
        elif isinstance(value, dict):
            found += _tensors(*value.values())
    return found


def _each(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same arguments or results, with something else instead of each tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _each(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_each(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _in_place(func: Any) -> bool:
    name = _name_of(func)
    return name == "__setitem__" or name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _name_of(func: Any) -> str:
    return getattr(func, "__name__", repr(func))
