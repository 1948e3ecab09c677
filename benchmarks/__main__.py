"""Run the measurements that are named, or all of them, and say on which machine. `gpu` has a command line of its own."""

import argparse
import os
import sys

from benchmarks import (
    cleaning,
    core_set,
    dashboard,
    first_picture,
    gpu,
    gradient_norms,
    images,
    influence,
    label_accuracy,
    masks,
    own_predictions,
    pretrained,
    prices,
    simulate,
    votes,
)
from core.engine import provenance

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch reads it, as core.__main__ does


MEASUREMENTS = {
    "simulate": simulate.measure,
    "cleaning": cleaning.measure,
    "label-accuracy": label_accuracy.measure,
    "pretrained": pretrained.measure,
    "votes": votes.measure,
    "own-predictions": own_predictions.measure,
    "gradient-norms": gradient_norms.measure,
    "networks": gradient_norms.measure_networks,
    "masks": masks.measure,
    "influence": influence.measure,
    "prices": prices.measure,
    "core-set": core_set.measure,
    "images": images.measure,
    "first-picture": first_picture.measure,
    "dashboard": dashboard.measure,
}

LONG = ("votes", "own-predictions")  # an hour on one core, a quarter on two: only where they are named

if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:
        gpu.main(sys.argv[2:])
        sys.exit()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(MEASUREMENTS)} (default: all but {', '.join(LONG)})")
    chosen = parser.parse_args().name or [name for name in MEASUREMENTS if name not in LONG]
    if unknown := set(chosen) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}: choose from {', '.join(MEASUREMENTS)}")
    print(provenance.describe())
    for name in chosen:
        print(f"\n## {name}")
        MEASUREMENTS[name]()
