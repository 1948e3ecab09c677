"""k-centre greedy, the core-set strategy, on as many embeddings as CIFAR-10 has images: ours against the plain loop."""

import time

import torch
from torch import Tensor

from core.models.batches import pick_device
from core.strategies.core_set import k_centre_greedy

N, LABELLED, CHOSEN, SIZE, CLASSES = 50_000, 5_000, 2_500, 512, 10
LOOPED = 100  # choices of the plain loop, whose time grows evenly


def plain(x: Tensor, centres: Tensor, k: int) -> tuple[float, list[int], float]:
    """Update the distance of every point after every choice: (seconds to the centres, choices, seconds for these)."""
    began = time.perf_counter()
    distance = torch.full((len(x),), torch.inf, device=x.device)
    for start in range(0, len(x), 4096):
        distance[start : start + 4096] = torch.cdist(x[start : start + 4096], centres).amin(dim=1)
    middle, chosen = time.perf_counter(), []
    for _ in range(k):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.cdist(x, x[chosen[-1] :][:1])[:, 0])
    return middle - began, chosen, time.perf_counter() - middle


def measure() -> None:
    """Print seconds for one cycle of the paper's protocol, over the whole pool."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(CLASSES, SIZE, generator=generator)
    x = (
        means[torch.randint(0, CLASSES, (N,), generator=generator)] + 0.5 * torch.randn(N, SIZE, generator=generator)
    ).relu()
    x = x.to(pick_device())
    began = time.perf_counter()
    ours, _ = k_centre_greedy(x[LABELLED:], x[:LABELLED], CHOSEN)
    spent = time.perf_counter() - began
    first, theirs, loop = plain(x[LABELLED:], x[:LABELLED], LOOPED)
    whole = first + loop * CHOSEN / LOOPED
    same = sum(a == b for a, b in zip(ours.tolist(), theirs, strict=False))
    print(f"{N - LABELLED:,} × {SIZE} to {LABELLED:,} centres, {CHOSEN:,} chosen: {spent:.1f} s")
    print(
        f"plain loop: {whole:.0f} s, from its first {LOOPED} choices ({same} of them the same); ratio {whole / spent:.0f}"
    )
