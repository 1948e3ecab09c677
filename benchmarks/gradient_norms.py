"""Gradient norms of all parameters: ours against the floor of one plain pass, the paper's loop and other libraries.

Every way runs in a process of its own, for its peak of memory; the processes take turns, so that a machine that is
slow for a while is slow for all of them. Rivals that are not installed, or cannot do this model, are named with the
reason.
"""

import logging
import multiprocessing
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable
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

TURNS = 4
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

    # 16 at once: with all 64 the per-sample gradients alone are 2.9 GB, and slower
    return lambda: vmap(norm, chunk_size=16 if x.device.type == "cpu" else None)(x)


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
    return model.train()


def backpack(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """BackPACK's extension BatchL2Grad. It sees modules only, so this is the same network of the same layers as such."""
    from backpack import backpack as extended_by
    from backpack import extend
    from backpack.custom_module.branching import Parallel
    from backpack.extensions import BatchL2Grad

    def block(own: nn.Module) -> nn.Module:
        assert isinstance(own, architectures.BasicBlock)
        way = nn.Sequential(own.conv1, own.bn1, nn.ReLU(), own.conv2, own.bn2)
        return nn.Sequential(Parallel(way, own.shortcut), nn.ReLU())

    assert isinstance(model, architectures.ResNet18)
    blocks = [block(own) for own in model.blocks]
    modules = nn.Sequential(
        model.conv1, model.bn1, nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head
    )
    extended = extend(modules.eval())
    parameters: list[Any] = list(model.parameters())  # each with batch_l2, which BackPACK gives it

    def call() -> Tensor:
        extended.zero_grad()
        with extended_by(BatchL2Grad()):
            sample_loss(extended(x), "entropy", None).sum().backward()
        return torch.stack([p.batch_l2.sqrt() for p in parameters]).sum(dim=0)

    return call


WAYS: dict[str, Way] = {
    "floor: one forward + backward": floor,
    "NextLabel, all parameters": ours,
    "NextLabel, head": ours_head,
    "batch-size-1 loop": loop,
    "torch.func, vmap(grad)": torch_func,
    "Opacus, grad_sample": opacus,
    "Opacus, ghost norms": opacus_ghost,
    "BackPACK, BatchL2Grad": backpack,
}


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


def work(name: str, width: int, batch: int, pipe: Connection) -> None:
    """In a process of its own: make it ready, say so, then run once for each message until None comes.

    Answers are {"error": …}, or {"seconds", "bytes" of peak memory beyond model and images, "norms"}.
    """
    warnings.simplefilter("ignore")
    logging.disable()
    device = pick_device()
    model = architectures.build("resnet18", 3, 10, width, seed=0).eval().to(device)
    x = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)

    try:
        call = WAYS[name](model, x)
        sample_loss(model(x[:1]), "entropy", None).sum().backward()  # libraries load their kernels
        model.zero_grad()
        before = peak(device)
        pipe.send({})
        while pipe.recv():
            call()  # after the turns of the others its memory and caches are cold
            began = time.perf_counter()
            norms = call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent = time.perf_counter() - began
            pipe.send({"seconds": spent, "bytes": peak(device) - before, "norms": norms.tolist()})
    except Exception as error:
        pipe.send({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})


def answer_of(pipe: Connection) -> dict[str, Any]:
    try:
        return pipe.recv()
    except EOFError:
        return {"error": "its process was killed, by lack of memory as a rule"}


def compare(width: int, batch: int, names: list[str]) -> None:
    """One table: median milliseconds, ratio to the floor, peak memory, deviation from the norms of the loop."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # whose turn it is not must not spin
    spawn = multiprocessing.get_context("spawn")
    pipes, answers, why_not = {}, {name: [] for name in names}, {}  # type: ignore[var-annotated]
    processes = []
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(name, width, batch, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        if error := answer_of(pipes[name]).get("error"):
            why_not[name] = error
    for _ in range(TURNS):
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

    def milliseconds(name: str) -> float:
        return 1000 * statistics.median(answer["seconds"] for answer in answers[name])

    plain, reference = milliseconds(names[0]), torch.tensor(answers["batch-size-1 loop"][0]["norms"])
    plain_bytes = max(1, answers[names[0]][-1]["bytes"])
    print(f"ResNet-18, width {width}, 32 × 32, batch {batch}, {pick_device().type}, median of {TURNS} turns")
    print(f"  {'':30} {'ms':>9} {'× floor':>8} {'peak MiB':>9} {'× floor':>8} {'deviation':>10}")
    for name in names:
        if name in why_not:
            print(f"  {name:30} cannot: {why_not[name]}")
            continue
        spent, peak, norms = milliseconds(name), answers[name][-1]["bytes"], torch.tensor(answers[name][-1]["norms"])
        deviation = f"{float(((norms - reference) / reference).abs().max()):10.1e}" if len(norms) else f"{'':>10}"
        print(
            f"  {name:30} {spent:9.1f} {spent / plain:8.2f} {peak / 2**20:9.0f} {peak / plain_bytes:8.2f} {deviation}",
            flush=True,
        )


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
    """The tables."""
    names = list(WAYS)
    compare(64, 64, names)
    compare(16, 512, [name for name in names if not name.startswith("Opacus, grad")])
    if pick_device().type == "cuda":
        compare(64, 512, [name for name in names if not name.startswith("Opacus, grad")])
    many = multiprocessing.get_context("spawn").Process(target=measure_many)  # its peak is its own
    many.start()
    many.join()
