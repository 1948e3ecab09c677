"""Which other runs a run can be compared with."""

from core.runs import same
from core.runs.run import Run, all_runs
from data.errors import UserError


def of_study(run: Run) -> list[Run]:
    """The comparable runs of the run's study; those that differ in their seed alone where it has none."""
    if run.config.study is None:
        return same_experiment(run)
    return [other for other in comparable(run) if other.config.study == run.config.study]


def comparable(run: Run) -> list[Run]:
    """Other runs of the same task on the same data and noise, asking the same annotators, that have finished a cycle."""
    return [other for other in same.alike(run, beside(run), same.START) if len(other.cycles())]


def same_experiment(run: Run) -> list[Run]:
    """The other runs that differ from this one in their seed alone and have come at least as far."""
    return [one for one in same.alike(run, beside(run), same.EXPERIMENT) if len(one.cycles()) >= len(run.cycles())]


def beside(run: Run) -> list[Run]:
    """The other runs that can be read: of an example the examples, of the user's own runs those alone."""
    return [o for o in all_runs() if o.id != run.id and o.is_example == run.is_example and readable(o)]


def readable(run: Run) -> bool:
    """Whether the run's configuration can be read."""
    try:
        return bool(run.config)
    except UserError:
        return False
