"""What the forms of a rule cost, and how many samples share its temporary memory."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Prices(NamedTuple):
    """Nanoseconds a sample. Only their proportions matter."""

    convolution: float  # a floating-point operation within a convolution
    product: float  # … within a matrix product
    unfolded: float  # an element of an unfolded image, written and read
    gradient: float  # an element of a per-sample gradient, written and squared
    added: float  # an element of one elementwise sum


# CPU: measured on two cores of an AMD EPYC (AVX2). CUDA: 40 TFLOP/s (TF32) against 2 TB/s. A grouped convolution has no
# tensor-core kernel there, so its operations are dear.
CPU = Prices(convolution=1 / 240, product=1 / 200, unfolded=1.5, gradient=0.5, added=0.25)
CUDA = Prices(convolution=1 / 1_000, product=1 / 40_000, unfolded=0.004, gradient=0.004, added=0.008)
# Of channels-last images on a CPU: an element written in the usual order, and a call of the library, whatever its size.
COPIED, CALL = 0.25, 16_000
# Temporary memory of one rule. On a CPU a block should stay in the cache; a GPU wants many samples a launch.
CPU_SCRATCH_BYTES = 4 * 2**20
CUDA_SCRATCH_BYTES = 256 * 2**20
# From this many elements on, input and gradient of one sample leave a CPU's cache by themselves, and the convolution's own
# copies of a whole block are memory that is new each time: such samples go one by one, up to 5 times as fast.
LARGE = 2**19


def cheapest(costs: dict[str, float]) -> str:
    """The form of the lowest cost, the first among equals."""
    return min(costs, key=lambda form: costs[form])


def prices(tensor: Tensor) -> Prices:
    """Of the device that holds the tensor."""
    return CUDA if tensor.is_cuda else CPU


def in_blocks(form: Callable[[Tensor, Tensor], Tensor], x: Tensor, g: Tensor, elements: float) -> Tensor:
    """form(x, g) over blocks of samples, such that `elements` of temporaries a sample stay within the scratch memory."""
    scratch = CUDA_SCRATCH_BYTES if g.is_cuda else CPU_SCRATCH_BYTES
    size = max(1, int(scratch / max(1.0, elements * g.element_size())))
    return torch.cat([form(a, b) for a, b in zip(x.split(size), g.split(size), strict=True)])
