"""What the forms of a rule cost on this device, as `core.gradnorm.rules.costs` states it: nanoseconds, of which only the
proportions matter."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gradient_norms import wait
from core.gradnorm.rules import costs
from core.gradnorm.rules.convolutions import Patches
from core.gradnorm.rules.products import product
from core.gradnorm.rules.registry import square
from core.models.batches import pick_device

TURNS = 7


def calibrate(device: torch.device, n: int) -> dict[str, float]:
    """The prices, each from layers as a ResNet has them, for n samples of 32 × 32 pixels or less."""

    def nanoseconds(call: Callable[[], object], operations: float) -> float:
        call()
        spent = []
        for _ in range(TURNS):
            wait(device)
            began = time.perf_counter()
            call()
            wait(device)
            spent.append(time.perf_counter() - began)
        return 1e9 * statistics.median(spent) / (n * operations)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)

    x, g = random(n, 1, 64, 16, 16), random(n, 1, 64, 16, 16)
    patches = Patches((3, 3), (1, 1), (1, 1), (1, 1), 1)
    rows, outputs = random(n, 256, 128), random(n, 256, 128)
    gradients, image = random(n, 64 * 64 * 9), random(n, 64, 16, 16)
    weights = 64 * 64 * 9

    def added() -> None:
        gradients.add_(gradients)
        gradients.mul_(0.5)

    return {
        "convolution": nanoseconds(lambda: patches._grouped(x, g), 2 * 256 * weights),
        "product": nanoseconds(lambda: product(rows, outputs), 2 * 256 * 128 * 128),
        "unfolded": nanoseconds(lambda: F.unfold(image, 3, padding=1), 64 * 9 * 256),
        "gradient": nanoseconds(lambda: square(gradients.clone()), weights),
        "added": nanoseconds(added, 2 * weights),
    }


def show(found: dict[str, float], device: str) -> None:
    """Next to what the rules assume, in units of a product's operation."""
    assumed = (costs.CUDA if device == "cuda" else costs.CPU)._asdict()
    print(f"  {'':12} {'ns':>10} {'÷ product':>10} {'assumed':>10}")
    for name in assumed:
        value = found[name]
        own, theirs = value / found["product"], assumed[name] / assumed["product"]
        print(f"  {name:12} {value:10.2e} {own:10.1f} {theirs:10.1f}")


def measure() -> None:
    """The table of this device."""
    device = pick_device()
    show(calibrate(device, 512 if device.type == "cuda" else 16), device.type)
