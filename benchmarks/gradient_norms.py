"""Gradient norms of all parameters: ours against the floor of one plain pass, the paper's loop and other libraries.

Every way runs in a process of its own, for its peak of memory; the processes take turns, so that a machine that is
slow for a while is slow for all of them. Rivals that are not installed, or cannot do this model, are named with the
reason.
"""

import functools
import logging
import multiprocessing
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from core.gradnorm import gradient_norms, sample_loss
from core.models import architectures
from core.models.batches import pick_device
from core.models.forward import place
from data.torchvision_import import torchvision

TURNS, FEW_TURNS = 4, 3
PHOTOGRAPHS = 8  # of 224 px in a batch
Way = Callable[[nn.Module, Tensor], Callable[[], Tensor]]


def floor(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """One plain batched forward and backward pass, with the gradient of every parameter."""
    parameters = list(model.parameters())

    def call() -> Tensor:
        torch.autograd.grad(sample_loss(model(x), "entropy", None).sum(), parameters)
        return torch.empty(0)

    return call


def ours(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: gradient_norms(model, x)


def ours_head(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        gradient_norms(model, x, scope="head")
        return torch.empty(0)

    return call


def loop(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A batch of one sample at a time, as the paper's code."""
    parameters = list(model.parameters())

    def norm(image: Tensor) -> Tensor:
        gradients = torch.autograd.grad(sample_loss(model(image[None]), "entropy", None).sum(), parameters)
        return torch.stack([torch.linalg.vector_norm(g) for g in gradients]).sum()

    return lambda: torch.stack([norm(image) for image in x])


def torch_func(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def value(own: dict[str, Tensor], image: Tensor) -> Tensor:
        return sample_loss(functional_call(model, {**own, **buffers}, (image[None],)), "entropy", None)[0]

    def norm(image: Tensor) -> Tensor:
        gradients = grad(value)(parameters, image)
        return torch.stack([torch.linalg.vector_norm(g) for g in gradients.values()]).sum()

    # 16 at once: with all 64 the per-sample gradients of a ResNet-18 alone are 2.9 GB, and slower
    return lambda: vmap(norm, chunk_size=16 if x.device.type == "cpu" else 128)(x)


def opacus(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Hooks that materialise the gradient of every sample."""
    from opacus import GradSampleModule

    wrapped = GradSampleModule(made_for_opacus(model), strict=False, loss_reduction="sum")

    def call() -> Tensor:
        wrapped.zero_grad()
        sample_loss(wrapped(x), "entropy", None).sum().backward()
        norms = [p.grad_sample.flatten(1).norm(dim=1) for p in wrapped.parameters()]
        wrapped.zero_grad()
        return torch.stack(norms).sum(dim=0)

    return call


def opacus_ghost(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Hooks that keep norms: by Gram matrices for linear layers, of gradients for all others."""
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(
        made_for_opacus(model), strict=False, loss_reduction="sum", use_ghost_clipping=True, max_grad_norm=1.0
    )

    def call() -> Tensor:
        wrapped.zero_grad()
        sample_loss(wrapped(x), "entropy", None).sum().backward()
        return torch.stack([p._norm_sample for p in wrapped.parameters()]).sum(dim=0)

    return call


class KnownStatistics(nn.BatchNorm2d):
    """Batch normalisation as in eval mode, in a module that says that it trains."""

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def made_for_opacus(model: nn.Module) -> nn.Module:
    """Opacus looks at layers in training mode only and refuses batch normalisation, which in eval mode is but affine."""
    from opacus.grad_sample import register_grad_sampler

    def sampler(layer: nn.BatchNorm2d, activations: list[Tensor], g: Tensor) -> dict[nn.Parameter, Tensor]:
        normal = F.batch_norm(activations[0], layer.running_mean, layer.running_var, eps=layer.eps)
        return {layer.weight: torch.einsum("nchw,nchw->nc", g, normal), layer.bias: g.sum(dim=(2, 3))}

    register_grad_sampler(KnownStatistics)(sampler)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = KnownStatistics
    return not_in_place(model).train()


def not_in_place(model: nn.Module) -> nn.Module:
    """Hooks of modules do not survive what is changed in place."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model


def backpack(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """BackPACK's extension BatchL2Grad. It sees modules only: our ResNet-18 is built of such, others it converts itself."""
    from backpack import backpack as extended_by
    from backpack import extend
    from backpack.extensions import BatchL2Grad

    if isinstance(model, architectures.ResNet18):
        extended = extend(of_modules(model))
    else:
        extended = extend(not_in_place(model).eval(), use_converter=True)
    parameters: list[Any] = list(extended.parameters())  # each with batch_l2, which BackPACK gives it

    def call() -> Tensor:
        extended.zero_grad()
        with extended_by(BatchL2Grad()):
            sample_loss(extended(x), "entropy", None).sum().backward()
        return torch.stack([p.batch_l2.sqrt() for p in parameters]).sum(dim=0)

    return call


def of_modules(model: architectures.ResNet18) -> nn.Module:
    from backpack.custom_module.branching import Parallel

    def block(own: nn.Module) -> nn.Module:
        assert isinstance(own, architectures.BasicBlock)
        way = nn.Sequential(own.conv1, own.bn1, nn.ReLU(), own.conv2, own.bn2)
        return nn.Sequential(Parallel(way, own.shortcut), nn.ReLU())

    blocks = [block(own) for own in model.blocks]
    modules = nn.Sequential(
        model.conv1, model.bn1, nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head
    )
    return modules.eval()


FLOOR, LOOP = "floor: one forward + backward", "batch-size-1 loop"
OURS, HEAD = "NextLabel, all parameters", "NextLabel, head"
WAYS: dict[str, Way] = {
    FLOOR: floor,
    OURS: ours,
    HEAD: ours_head,
    LOOP: loop,
    "torch.func, vmap(grad)": torch_func,
    "Opacus, grad_sample": opacus,
    "Opacus, ghost norms": opacus_ghost,
    "BackPACK, BatchL2Grad": backpack,
}


REAL = (
    *("resnet50", "efficientnet_b0", "convnext_tiny", "mobilenet_v3_large", "densenet121", "shufflenet_v2_x1_0"),
    *("swin_t", "vit_b_16"),
)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"ResNet-18, width {w}": functools.partial(architectures.build, "resnet18", 3, 10, w, seed=0)
        for w in (4, 16, 64)
    },
    **{name: getattr(torchvision.models, name) for name in REAL},
    **{
        f"U-Net, width {w}": functools.partial(architectures.build, "small-unet", 3, 11, w, seed=0) for w in (8, 16, 32)
    },
}


@dataclass(frozen=True)
class Case:
    """What is measured: a network of `NETWORKS` on a batch of images, square ones unless their width is said."""

    network: str
    side: int
    batch: int
    device: str
    bfloat16: bool = False
    width: int | None = None
    channels_last: bool = False  # images and weights, as the loop has them

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.side, self.width or self.side

    def __str__(self) -> str:
        more = ", bfloat16" * self.bfloat16 + ", channels last" * self.channels_last
        return f"{self.network}, {self.sides[0]} × {self.sides[1]}, batch {self.batch}, {self.device}{more}"

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, torch.bfloat16) if self.bfloat16 else nullcontext()


def prepare(way: Way, case: Case) -> Callable[[], dict[str, Any]]:
    """Make a way ready in this process. Each call runs it twice and answers for the second time: {"seconds" that passed,
    "cpu": seconds of all threads, "bytes" of peak memory beyond model and images, "norms"}. Raises what the way raises."""
    device = torch.device(case.device)
    torch.manual_seed(0)
    model = NETWORKS[case.network]().eval().to(device)
    x = torch.randn(case.batch, 3, *case.sides, generator=torch.Generator().manual_seed(0)).to(device)
    if case.channels_last:
        model, x = place(model, device), x.contiguous(memory_format=torch.channels_last)
    with case.autocast():
        call = way(model, x)
        sample_loss(model(x[:1]), "entropy", None).sum().backward()  # libraries load their kernels
    model.zero_grad()
    before = peak(device)

    def run() -> dict[str, Any]:
        with case.autocast():
            call()  # after the turns of the others its memory and caches are cold
            wait(device)
            began, worked = time.perf_counter(), time.process_time()
            norms = call()
            wait(device)
        spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
        return {**spent, "bytes": peak(device) - before, "norms": norms.tolist()}

    return run


def wait(device: torch.device) -> None:
    """Until the GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak(device: torch.device) -> int:
    """Most bytes that this process has held: on the GPU, or of resident memory.

    Linux tells it of the process alone; `getrusage`, which answers elsewhere, starts with the peak of the parent.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def work(way: Way, case: Case, pipe: Connection) -> None:
    """In a process of its own: make it ready, say so, then run once for each message until None comes."""
    warnings.simplefilter("ignore")
    logging.disable()
    try:
        run = prepare(way, case)
        pipe.send({})
        while pipe.recv():
            pipe.send(run())
    except Exception as error:  # a rival that cannot take the model is a row that says so
        pipe.send({"error": reason(error)})


def reason(error: Exception) -> str:
    """In one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def answer_of(pipe: Connection) -> dict[str, Any]:
    try:
        return pipe.recv()
    except EOFError:
        return {"error": "its process was killed, by lack of memory as a rule"}


def take_turns(
    case: Case, names: list[str], turns: int = TURNS, ways: dict[str, Way] = WAYS
) -> dict[str, dict[str, Any]]:
    """For each of these ways the medians of "seconds" and "cpu", "bytes" and "norms", or {"error": why it cannot}."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # whose turn it is not must not spin
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    why_not: dict[str, str] = {}
    processes = []
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(ways[name], case, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        if error := answer_of(pipes[name]).get("error"):
            why_not[name] = error
    for _ in range(turns):
        for name in names:
            if name in why_not:
                continue
            pipes[name].send(True)
            answer = answer_of(pipes[name])
            if error := answer.get("error"):
                why_not[name] = error
            else:
                answers[name].append(answer)
    for process in processes:
        process.terminate()
        process.join()
    return {
        name: {"error": why_not[name]}
        if name in why_not
        else {
            **{what: statistics.median(answer[what] for answer in answers[name]) for what in ("seconds", "cpu")},
            **{what: answers[name][-1][what] for what in ("bytes", "norms")},
        }
        for name in names
    }


def show(case: Case, found: dict[str, dict[str, Any]], signed: bool = False) -> None:
    """One table: milliseconds, ratio to the floor, peak memory, deviation from the norms of the loop, each as a share of the
    norm; `signed`: of the largest, for values that may be next to zero."""
    plain, reference = found[FLOOR], found.get(LOOP, {}).get("norms")
    print(case)
    print(f"  {'':30} {'ms':>9} {'× floor':>8} {'peak MiB':>9} {'× floor':>8} {'deviation':>10}")
    for name, one in found.items():
        if "error" in one:
            print(f"  {name:30} cannot: {one['error']}")
            continue
        norms, deviation = torch.tensor(one["norms"]), f"{'':>10}"
        if reference and len(norms):
            exact = torch.tensor(reference)
            deviation = f"{float(((norms - exact) / (exact.abs().max() if signed else exact)).abs().max()):10.1e}"
        times = [f"{one['seconds'] / plain['seconds']:8.2f}"] if "seconds" in plain else [f"{'':>8}"]
        memory = [f"{one['bytes'] / max(1, plain['bytes']):8.2f}"] if "bytes" in plain else [f"{'':>8}"]
        print(
            f"  {name:30} {1000 * one['seconds']:9.1f}",
            *times,
            f"{one['bytes'] / 2**20:9.0f}",
            *memory,
            deviation,
            flush=True,
        )


def compare(case: Case, names: list[str]) -> None:
    show(case, take_turns(case, names))


def measure_networks() -> None:
    """Real networks at 224 px: seconds and peak memory in units of the floor. CPU time counts the work of all threads, which
    other processes on the machine hardly change."""
    names, device = [FLOOR, OURS, LOOP, "Opacus, ghost norms", "BackPACK, BatchL2Grad"], pick_device().type
    print(
        f"Real networks, 224 × 224, batch {PHOTOGRAPHS}, {device}, median of {FEW_TURNS} turns, in units of the floor"
    )
    print(
        f"  {'':20} {'floor':>8}  {'NextLabel: time, CPU time, memory':>34}  {'loop: time, CPU time':>21}  Opacus  BackPACK"
    )
    for network in REAL:
        case = Case(network, 224, PHOTOGRAPHS, device)
        found = take_turns(case, names, FEW_TURNS)
        plain = found[FLOOR]

        def ratio(name: str, what: str, found: Any = found, plain: Any = plain) -> str:
            return f"{found[name][what] / max(plain[what], 1e-9):.2f}" if what in found[name] else "cannot"

        ours = "  ".join(f"{ratio(OURS, what):>6}" for what in ("seconds", "cpu", "bytes"))
        loop = "  ".join(f"{ratio(LOOP, what):>6}" for what in ("seconds", "cpu"))
        rivals = "  ".join(f"{ratio(name, 'seconds'):>6}" for name in names[3:])
        print(f"  {network:20} {plain['seconds']:6.2f} s  {ours:>34}  {loop:>21}  {rivals}", flush=True)
        for name in names:
            if "error" in found[name]:
                print(f"    {name}: {found[name]['error']}")


def measure_many() -> None:
    """Ours on as many images as CIFAR-10 trains on, in one call: images a second, and memory beyond the images."""
    device = pick_device()
    images = torch.randn(50_000, 3, 32, 32).to(device)
    model = architectures.build("resnet18", 3, 10, 4, seed=0).eval().to(device)
    gradient_norms(model, images[:512])
    before = peak(device)
    began = time.perf_counter()
    gradient_norms(model, images)
    spent = time.perf_counter() - began
    more = (peak(device) - before) / 2**20
    print(
        f"ResNet-18, width 4, 50,000 images of 32 × 32 in one call: {spent:.1f} s, {50_000 / spent:.0f} images a second, "
        f"{more:.0f} MiB more than for 512 (the images are {images.nbytes / 2**20:.0f} MiB)"
    )


def measure() -> None:
    """The tables of a ResNet-18 on small images."""
    names, device = list(WAYS), pick_device().type
    fewer = [name for name in names if not name.startswith("Opacus, grad")]
    compare(Case("ResNet-18, width 64", 32, 64, device), names)
    compare(Case("ResNet-18, width 16", 32, 512, device), fewer)
    many = multiprocessing.get_context("spawn").Process(target=measure_many)  # its peak is its own
    many.start()
    many.join()
