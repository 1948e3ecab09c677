"""Label cleaning at scale: `core.relabel`, the ranking by Φ and the graph selector, each in a process of its own on one thread.

The seconds are processor time, so that a neighbour on the machine does not count.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import data
from core import graph, relabel, scores
from data import votes
from data.errors import UserError

NOISE, BUDGET, CLASSES, VOTES = 0.15, 3.0, 10, 50  # budget: labels for each wrong one
SEEDS = range(5)


def people(n: int, seed: int = 0) -> np.ndarray:
    """Counts of 50 votes an image, int64 [n, 10], as spread as CIFAR-10H's: 44% unanimous, 5% ambiguous."""
    rng = np.random.default_rng(seed)
    doubt = rng.beta(0.4, 7.5, n)[:, None]
    sure = np.eye(CLASSES)[rng.integers(0, CLASSES, n)]
    return rng.multinomial(VOTES, (1 - doubt) * sure + doubt * rng.dirichlet(np.full(CLASSES, 0.2), n))


def noisy(counts: np.ndarray) -> tuple[np.ndarray, int]:
    """Initial labels of which 15% are wrong, and the budget that goes with them."""
    temperature = votes.temperature_for(counts[:10_000], NOISE)
    initial = votes.initial_labels(counts, temperature, seed=0)
    return initial, int(BUDGET * (initial != counts.argmax(axis=1)).sum())


def posteriors(labels: np.ndarray, seed: int) -> np.ndarray:
    """What a middling model says, float64 [N, C]: unsure everywhere, and drawn to the right class."""
    logits = np.random.default_rng(seed).standard_normal((len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += 2
    p = np.exp(logits)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it gave."""
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


def peak() -> str:
    """Most memory this process has held; Linux counts in KiB, macOS in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{most * (1 if sys.platform == 'darwin' else 1024) / 1e9:.2f} GB"


def policies(counts: np.ndarray, name: str) -> None:
    """Seven rankings over five seeds, static."""
    initial, budget = noisy(counts)
    histogram = np.eye(CLASSES, dtype=np.int64)[initial]
    ranked: list[Any] = ["oracle", "random"]
    ranked += [scores.cleaning_score(histogram, posteriors(counts.argmax(axis=1), seed)) for seed in SEEDS]
    spent = [
        timed(partial(relabel.simulate, counts, initial, policy, budget=budget, seeds=SEEDS))[0] for policy in ranked
    ]
    print(
        f"{name}, {len(counts):,} × {CLASSES}, {budget:,} labels, 7 policies × 5 seeds: {sum(spent):.2f} s "
        f"(oracle {spent[0]:.2f}, random {spent[1]:.2f}, scores {sum(spent[2:]):.2f}), peak {peak()}"
    )


def made() -> None:
    """Seven policies on made counts."""
    policies(people(10_000), "made like CIFAR-10H")


def cifar10h() -> None:
    """Seven policies on all of CIFAR-10H, where it is at hand."""
    try:
        dataset = data.load("cifar10h", size=10_000)
    except UserError as error:
        print(f"skipped: {error}")
        return
    assert dataset.label_counts is not None
    policies(dataset.label_counts, "CIFAR-10H")


def million() -> None:
    """Ranking and one simulation of a million samples, with the memory that each takes."""
    counts = people(1_000_000)
    initial, budget = noisy(counts)
    histogram, p = np.eye(CLASSES, dtype=np.int64)[initial], posteriors(counts.argmax(axis=1), seed=0)
    print(f"1,000,000 × {CLASSES}, {budget:,} labels; peak {peak()} with the arrays alone")
    spent, phi = timed(lambda: scores.cleaning_score(histogram, p))
    order, _ = timed(lambda: np.argsort(-phi, kind="stable"))
    print(f"ranking by Φ: {spent + order:.2f} s (score {spent:.2f}, order {order:.2f}), peak {peak()}")
    for name, policy in (("Φ", phi), ("oracle", "oracle")):
        spent, _ = timed(partial(relabel.simulate, counts, initial, policy, budget=budget, seeds=[0]))
        print(f"simulation, {name}: {spent:.2f} s, peak {peak()}")


def diffusion(n: int) -> None:
    """The graph selector on blobs of 512 dimensions."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, n)
    x = rng.standard_normal((CLASSES, 512), dtype=np.float32)[truth] + 3 * rng.standard_normal(
        (n, 512), dtype=np.float32
    )
    labels = np.where(rng.random(n) < NOISE, rng.integers(0, CLASSES, n), truth)
    spent, _ = timed(lambda: graph.diffuse(x, np.eye(CLASSES, dtype=np.int64)[labels]))
    print(f"graph, {n:,} × 512: {spent:.1f} s, peak {peak()}")


PARTS: dict[str, Callable[[], None]] = {
    "made": made,
    "cifar10h": cifar10h,
    "million": million,
    "graph-5000": lambda: diffusion(5_000),
    "graph-50000": lambda: diffusion(50_000),
}


def measure() -> None:
    """Run each part in a process of its own, so that its peak of memory is its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    sys.stdout.flush()  # before the children's lines
    for name in PARTS:
        subprocess.run([sys.executable, "-m", "benchmarks.cleaning", name], env=os.environ | threads, check=True)


if __name__ == "__main__":
    PARTS[sys.argv[1]]()
