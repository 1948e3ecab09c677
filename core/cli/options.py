"""Options of the command line: those of a run follow from the specification, and every mistake is one sentence.

argparse reads them. Of the libraries that make a command line from types, typer has no option with several values
(`--seed 0 1`), pydantic-settings neither that nor choices that are looked up, and tyro answers a mistake with a box of many
lines; the options here take `Described` as it is.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from core.runs import settle, spec
from core.runs.spec import OPTIONS, Described
from data.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong by `UserError` instead of usage and exit."""

    def error(self, message: str) -> NoReturn:
        said = message.removeprefix("argument ")
        raise UserError(f"{said[0].upper()}{said[1:]}; see `{self.prog} --help`.")

    def flags(self) -> list[str]:
        """All options."""
        return [text for action in self._actions for text in action.option_strings]


def add(
    parser: argparse.ArgumentParser, names: Iterable[str], *, several: bool = True, default: str | None = None
) -> None:
    """Add options of the specification, under the titles of their groups.

    several: whether those take several values of which each makes a run · default: what holds where one is not given, by default
    what the specification says.
    """
    groups: dict[str, Any] = {}
    for name in names:
        one = OPTIONS[name]
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        for task in (flag.task for flag in one.option.flags) if one.option.flags else (None,):
            _add(groups[one.group], one, task, several, _default(one) if default is None else default)


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """What was given of these options, by name."""
    found = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _add(group: Any, one: Described, task: str | None, several: bool, default: str) -> None:
    names, text = one.choices(task), one.describe(task)
    if one.only is not None and (question := one.only.replace("-", " ")) != one.group.lower():
        text = f"{question}: {text}"
    listed = bool(names) and one.kind is not bool
    text += f": {', '.join([*names, one.option.also[1]] if one.option.also else names)}" if listed else ""
    text += f" (default: {default})" if default else ""
    settings: dict[str, Any] = {"help": text.replace("%", "%%"), "dest": one.named(task), "default": None}
    if one.kind is bool and not one.literals:
        group.add_argument(spec.flag(one.name), action=argparse.BooleanOptionalAction, **settings)
        return
    if one.kind is bool:  # alone it says yes
        yes = spec.flag(one.name)
        group.add_argument(yes, nargs="?", const=True, metavar="NAME", type=partial(_value, one, task), **settings)
        no = f"--no-{yes.removeprefix('--')}"
        group.add_argument(no, action="store_false", dest=one.named(task), default=None, help=f"no {yes}")
        return
    settings["metavar"] = (
        "NAME" if names or one.kind is list else "PATH" if one.option.path else one.kind.__name__.upper()
    )
    if one.kind is list or (several and one.several(task)):
        settings["nargs"] = "+"
    group.add_argument(spec.flag(one.name, task), type=partial(_value, one, task), **settings)


def _value(one: Described, task: str | None, text: str) -> Any:
    if one.option.path and text not in one.option.words:
        return str(Path(text).resolve())
    return spec.parsed(one.name, text, task)


def _default(one: Described) -> str:
    if one.option.unset:
        return one.option.unset
    if any(one.name in preset for preset in settle.PRESETS.values()):
        return "by data set"
    return "" if one.default in (None, False) else "yes" if one.default is True else str(one.default)


def choice(flag: str, names: Sequence[str]) -> Callable[[str], str]:
    """The type of an argument that is one of some names."""

    def chosen(text: str) -> str:
        if text not in names:
            raise UserError(f'{flag} is "{text[:60]}": choose one of {", ".join(names)}.')
        return text

    return chosen


def add_choice(parser: Any, flag: str, names: Sequence[str], help: str, **settings: Any) -> None:
    """Add an argument that is one of some names."""
    text = f"{help}: {', '.join(names)}" if help else ", ".join(names)
    parser.add_argument(flag, type=choice(flag, names), metavar="NAME", help=text.replace("%", "%%"), **settings)
