"""Things that describe themselves, found where they lie: in a package of ours, an installed package, or a folder of the user's.

A strategy, selector, score, model or data set is one module that exports one `Description` under a fixed name. A catalogue
imports the modules of its package, the entry points of its group and the files of the folder that $NEXTLABEL_PLUGINS names:

    $NEXTLABEL_PLUGINS/strategies/my_strategy.py        exports STRATEGY
    [project.entry-points."nextlabel.strategies"]       my-strategy = "my_package.my_strategy"

That is code, and only who starts the program can name it: the variable is never read from a browser. One that cannot be
imported is left out and named; the rest works.
"""

import functools
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from data.errors import UserError

VARIABLE = "NEXTLABEL_PLUGINS"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
AFTER_OURS = 1000  # place of what names none


@dataclass(frozen=True, kw_only=True)
class Description:
    """What anything in a catalogue says of itself. Raises `ValueError` for a name that cannot be one."""

    name: str
    """As commands, files and addresses have it: lower-case letters, digits and hyphens."""
    title: str
    """As pages and figures have it."""
    reference: str = ""
    """Author and year of the paper."""
    options: tuple[str, ...] = ()
    """Settings that it alone reads: fields of `core.runs.spec.Config`, of a data set those that its `load` takes."""
    place: int = AFTER_OURS
    """Position in lists, the lowest first; equal ones by name."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"the name {self.name!r} must be lower-case letters, digits and single hyphens")


T = TypeVar("T", bound=Description)


class Catalogue(Mapping[str, T], Generic[T]):
    """Name → description of everything of one kind, in the order of their `place`. Reads nothing before it is asked."""

    def __init__(
        self,
        described: type[T],
        word: str,
        exported: str,
        package: str,
        folder: str,
        *,
        helpers: Collection[str] = (),
        taken: Collection[str] = (),
    ) -> None:
        """A catalogue of `described`.

        word: what a message calls one · exported: the name under which a module has it · package: of our own modules · folder:
        of plug-ins, and the entry points' group below "nextlabel." · helpers: modules of the package that describe nothing,
        beside those that begin with "_" · taken: names that nothing may have.
        """
        self.described, self.word, self.package, self.folder = described, word, package, folder
        self.exported, self.helpers, self.taken = exported, frozenset(helpers), frozenset(taken)
        self._lock = threading.RLock()  # a module may ask the catalogue that imports it: it sees what is there so far
        self._found: dict[str, T] | None = None
        self._refused: list[str] = []

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def named(self, name: str) -> T:
        """The one of this name. Raises `UserError` where there is none."""
        if name not in self:
            raise UserError(f'There is no {self.word} "{name}": choose one of {", ".join(self)}.')
        return self[name]

    @property
    def refused(self) -> tuple[str, ...]:
        """One sentence for each plug-in that was left out, and why."""
        self._all()
        return tuple(self._refused)

    def _all(self) -> dict[str, T]:
        with self._lock:
            if self._found is None:
                self._found = {}
                for origin, load in self._modules():
                    self._add(origin, load)
                self._found = dict(sorted(self._found.items(), key=lambda item: (item[1].place, item[0])))
            return self._found

    def _add(self, origin: str, load: Callable[[], Any]) -> None:
        assert self._found is not None
        try:
            found = load()
            if not isinstance(found, self.described):
                found = getattr(found, self.exported, None)
            if not isinstance(found, self.described):
                raise TypeError(
                    f"it exports no {self.exported}, a {self.described.__module__}.{self.described.__name__}"
                )
            if found.name in self.taken:
                raise ValueError(f'"{found.name}" is the name of a column of every table')
            if found.name in self._found:
                raise ValueError(f'there is a {self.word} "{found.name}" already')
        except (Exception, SystemExit) as error:  # whatever somebody else's file does when it is imported
            what = " ".join(f"{type(error).__name__}: {error}".split())
            self._refused.append(f"{origin} was left out ({what}): correct or remove it, then restart.")
        else:
            self._found[found.name] = found

    def _modules(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Where each comes from, and what imports it."""
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            if not module.name.startswith("_") and module.name not in self.helpers:
                name = f"{self.package}.{module.name}"
                yield name, lambda name=name: importlib.import_module(name)  # type: ignore[misc]
        for point in sorted(
            _installed().select(group=f"nextlabel.{self.folder}"), key=lambda one: (one.name, one.value)
        ):
            of = f" of {point.dist.name}" if point.dist is not None else ""
            yield f"The entry point {point.name} ({point.value}){of}", point.load
        if given := os.environ.get(VARIABLE):
            top = Path(given).expanduser()
            if not top.is_dir():
                self._refused.append(f"${VARIABLE} names {top}, which is no folder: correct it, then restart.")
            for path in sorted((top / self.folder).glob("*.py")):
                if not path.name.startswith("_"):
                    yield f"The plug-in {path}", lambda path=path: self._from_file(path)  # type: ignore[misc]

    def _from_file(self, path: Path) -> Any:
        name = f"nextlabel_plugins.{self.folder}.{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module


@functools.cache  # every call reads the metadata of all packages
def _installed() -> Any:
    return entry_points()  # SelectableGroups up to Python 3.11, EntryPoints after: both select
