"""`core.relabel.simulate` on CIFAR-10H beside the public reference simulator.

The reference's seconds and areas were measured once, with its own code on one CPU core of the same kind of machine; they are
constants here because that code is not a package.
"""

import time

import numpy as np

import data
from core import relabel
from data import votes
from data.errors import UserError

REFERENCE = {  # temperature: (noise, budget, {policy: (AUC, seconds a seed)})
    2.0: (0.154, 2307, {"oracle": (0.9360, 8.4), "random": (0.8671, 2.7)}),
    10.0: (0.297, 4455, {"oracle": (0.8864, 13.5), "random": (0.7866, 6.2)}),
}
SEEDS = range(5)


def measure() -> None:
    """AUC and milliseconds a seed, median of 15 calls, and the ratio to the reference."""
    try:
        counts = data.load("cifar10h").label_counts
    except UserError as error:
        print(f"skipped: {error}")
        return
    assert counts is not None
    print("T    noise  policy  AUC     reference  ms/seed  reference ms  ratio")
    for temperature, (_, budget, policies) in REFERENCE.items():
        for policy, (auc, seconds) in policies.items():
            areas, times, noise = [], [], []
            for _ in range(3):
                for seed in SEEDS:
                    initial = votes.initial_labels(counts, temperature, seed)
                    noise.append((initial != counts.argmax(axis=1)).mean())
                    began = time.perf_counter()
                    areas.append(relabel.simulate(counts, initial, policy, budget=budget, seeds=[seed]).auc)
                    times.append(time.perf_counter() - began)
            ms = 1000 * float(np.median(times))
            print(
                f"{temperature:<4.0f} {np.mean(noise):.3f}  {policy:7} {np.mean(areas):.4f}  {auc:.4f}     "
                f"{ms:7.2f}  {1000 * seconds:12,.0f}  {1000 * seconds / ms:,.0f} ×"
            )
