"""What removing labels does to the held-out loss, predicted and realised: a file of the cycle whose labels they are.

`core.engine.removal` measures it, `core.analysis.removal` tabulates and draws it. Needs no torch.
"""

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

import numpy as np
from annotated_types import Ge, Gt, Len
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic import dataclasses as pydantic

from core.relabel import Floats
from core.runs.run import Run
from core.store.atomic import write_atomically
from data.errors import UserError

FILE = "removal.json"
STRICT = ConfigDict(strict=True, extra="forbid")

Choice = Literal["top", "bottom", "random"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Gt(0), Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Ge(0), Field(allow_inf_nan=False)]
Whole = Annotated[int, Ge(0)]


@pydantic.dataclass(frozen=True, config=STRICT)
class Removed:
    """Labels that were removed, and what came of it.

    choice: top and bottom by signed Eq. 2, those that help most and those that help least or harm; or random · at: their places
    among the labelled images · losses: mean held-out loss of each retraining without them, nats.
    """

    choice: Choice
    at: list[Whole]
    losses: list[Real]


@pydantic.dataclass(frozen=True, config=STRICT)
class Damped:
    """How alike the influences are under another damping and under the run's.

    signed, absolute: Spearman's rank correlations of Eq. 2 and of Eq. 3 · signed_top, absolute_top: of the k highest by one
    damping, how many are among the k highest by the other, k labels being removed · iterations, residual: of the conjugate
    gradients · failed: why the others are not known, "" where they are.
    """

    damping: NotNegative
    signed: Real | None = None
    absolute: Real | None = None
    signed_top: Whole | None = None
    absolute_top: Whole | None = None
    iterations: Whole | None = None
    residual: Real | None = None
    failed: str = ""


@pydantic.dataclass(frozen=True, config=STRICT)
class Removal:
    """A removal study of a cycle.

    cycle · share: of the labels that were removed · damping, weight_decay: of the curvature · iterations, residual: of its
    conjugate gradients · n_held_out: images that the loss is a mean over · sample_ids: the labelled images [n] · influence: Eq. 2
    of each, signed, and bound: Eq. 4, of the summed held-out loss · seeds: of the retrainings · losses: mean held-out loss of
    each of them with all labels, nats · removed: of `CHOICES`, in their order · dampings: others than the run's.
    """

    cycle: Whole
    share: Positive
    damping: NotNegative
    weight_decay: NotNegative
    iterations: Whole
    residual: NotNegative
    n_held_out: Annotated[int, Ge(1)]
    sample_ids: Annotated[list[str], Len(2)]
    influence: list[Real]
    bound: list[NotNegative]
    seeds: Annotated[list[Whole], Len(1)]
    losses: list[Real]
    removed: list[Removed]
    dampings: list[Damped]

    @model_validator(mode="after")
    def _fits(self) -> "Removal":
        n, wrong = len(self.sample_ids), len(self.losses) != len(self.seeds)
        wrong = wrong or {len(self.influence), len(self.bound)} != {n} or len(set(self.sample_ids)) != n
        wrong = wrong or [one.choice for one in self.removed] != list(CHOICES)
        for one in self.removed:
            wrong = wrong or not 0 < len(one.at) < n or len(set(one.at)) != len(one.at) or max(one.at) >= n
            wrong = wrong or len(one.at) != len(self.removed[0].at) or len(one.losses) != len(self.seeds)
        if wrong:
            raise ValueError("its lists do not fit together")
        return self

    @property
    def n_removed(self) -> int:
        """Labels that each choice removes."""
        return len(self.removed[0].at)

    def predicted(self, one: Removed) -> float:
        """The change of the mean held-out loss, nats: Eq. 2 summed over the removed. Their losses no longer count, and the mean
        of the training loss still divides by n, as in Koh & Liang 2017."""
        return float(np.array(self.influence)[one.at].sum()) / self.n_held_out

    def predicted_rest(self, one: Removed) -> float:
        """The same for a mean that divides by the n − m labels that are left, as the retraining does.

        Its gradient differs by m/(n(n−m)) Σ ∇L(x) over all labels, so that the change is n/(n−m) times the sum of Eq. 2 over
        the removed less m/n of the sum over all (the group effect of Koh et al. 2019, which keep n, with other weights).
        """
        values, n, m = np.array(self.influence), len(self.influence), len(one.at)
        return float(n / (n - m) * (values[one.at].sum() - m / n * values.sum())) / self.n_held_out

    def realised(self, one: Removed) -> Floats:
        """The change of the mean held-out loss that each retraining shows, nats, [seeds]; above 0 where the labels helped."""
        return np.array(one.losses) - np.array(self.losses)


_ADAPTER = TypeAdapter(Removal)


def write(run: Run, found: Removal) -> None:
    """Put a study into the folder of its cycle, in the place of an earlier one."""
    write_atomically(run.cycle_path(found.cycle) / FILE, json.dumps(asdict(found)).encode())


def parsed(content: bytes) -> Removal:
    """The study that a file holds. Raises `ValueError` for what is none."""
    return _ADAPTER.validate_json(content)


def read(run: Run, cycle: int) -> Removal | None:
    """The study of a cycle; None where there is none. Raises `UserError` where its file is damaged."""
    path = run.cycle_path(cycle) / FILE
    try:
        return parsed(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise UserError(
            f"Cycle {cycle} of run {run.id} has no readable {FILE}: make it again with `{command(run, cycle)}`; trainings that "
            "are there are taken over."
        ) from error


def there(run: Run) -> bool:
    """Whether a run has any study, readable or not."""
    return any(run.path.glob(f"cycle-*/{FILE}"))


def of_run(run: Run) -> list[Removal]:
    """The studies of a run, by cycle. Raises as `read`."""
    found = (read(run, cycle) for cycle in range(len(run.cycles())))
    return [one for one in found if one is not None]


def command(run: Run, cycle: int | None = None) -> str:
    """What makes a study; of an example, which stays as it is, in a run of the user's own."""
    name = "RUN" if run.is_example else run.id
    return f"python -m core influence {name}" + ("" if cycle is None else f" --cycle {cycle}")


def as_object(run: Run, found: Removal) -> dict[str, Any]:
    """A study as `--json` prints it: what the file holds, and the predicted and realised changes of each choice."""
    content = asdict(found)
    for one, written in zip(found.removed, content["removed"], strict=True):
        written |= {
            "predicted": found.predicted(one),
            "predicted_rest": found.predicted_rest(one),
            "realised": found.realised(one).tolist(),
        }
    return {"run": run.id, "seed": run.config.seed, **content}
