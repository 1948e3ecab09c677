"""Which runs are alike: one rule for what is averaged, drawn together, compared and set side by side.

It follows from what each option of the specification decides (`spec.Option.identity`), and from the data that a run was started
on.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from core.runs import spec
from core.runs.run import Run

IMAGES: tuple[spec.Identity, ...] = ("data",)
"""The same images: two rankings can be set side by side."""
START: tuple[spec.Identity, ...] = (*IMAGES, "labels")
"""The same question on the same images and initial labels, their seed aside, answered alike: curves can be drawn together."""
SETTING: tuple[spec.Identity, ...] = (*START, "method", "lineage")
"""All but the arm, the seed and how far a run goes: strategies can be compared."""
EXPERIMENT: tuple[spec.Identity, ...] = (*SETTING, "arm", "plan")
"""All but the seed: runs can be averaged."""


def deciding(run: Run, identities: Sequence[spec.Identity]) -> dict[str, Any]:
    """What decides a run in these respects. Runs are alike in them where these are equal.

    A data set that has a name is the same in every place, and so are images that a bundle brought; folders are told apart by
    their place. Raises `UserError` where the run cannot be read.
    """
    config, about = run.config, run.about
    moved = config.dataset not in spec.OWN or (run.path / "data").is_dir()
    facts = {"n_samples": about["n_samples"], "class_names": about["class_names"]}
    return {**spec.deciding(config, *identities), **facts, **({"root": None} if moved else {})}


def differing(one: Run, other: Run, identities: Sequence[spec.Identity]) -> list[str]:
    """What differs between two runs in these respects."""
    first, second = deciding(one, identities), deciding(other, identities)
    return [name for name, value in first.items() if value != second[name]]


def alike(run: Run, others: Iterable[Run], identities: Sequence[spec.Identity]) -> list[Run]:
    """Those of the others that are like this run in these respects."""
    mine = deciding(run, identities)
    return [other for other in others if deciding(other, identities) == mine]
