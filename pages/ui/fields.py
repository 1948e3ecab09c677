"""An option of the specification as a field of a form: widget, bounds, choices and help follow from it."""

from collections.abc import Callable
from typing import Any

from streamlit.delta_generator import DeltaGenerator

from core.runs.spec import Described
from data.files import roots
from pages.ui import frame

ROOM = 16  # characters that an empty field shows


def field(
    place: DeltaGenerator,
    one: Described,
    task: str,
    default: Any,
    name: Callable[[str], str] = str,
    offered: Callable[[str], bool] = lambda choice: True,
) -> Any:
    """Draw the field of an option where a question is asked, and return its value; None where it may be left empty and is.

    name: what a choice is called · offered: whether a choice is one here. The field keeps what was typed for as long as its
    default is the same. Raises `UserError` for a path that a browser may not name.
    """
    title, choices = one.headed(task), [choice for choice in one.choices(task) if offered(choice)]
    empty = one.option.unset if len(one.option.unset) <= ROOM else "default"
    said: dict[str, Any] = {"key": f"{one.named(task)}-{default}", "help": _help(one, task)}
    if one.kind is bool and choices:
        switch: list[bool | str] = [False, True, *choices]
        said["format_func"] = lambda it: {False: "no", True: "yes"}.get(it, it)
        return place.selectbox(title, switch, switch.index(default), **said)
    if choices:
        names = [None, *choices] if one.optional else choices
        return place.selectbox(
            title,
            names,
            names.index(default),
            format_func=lambda it: empty if it is None else name(it),
            accept_new_options=one.option.also is not None,
            **said,
        )
    if one.kind is bool:
        return place.toggle(title, default, **said)
    if one.kind in (int, float):
        step = 0.05 if one.kind is float else 10 ** max(0, len(str(default or 0)) - 2)
        form = "%g" if one.kind is float else "%d"
        hint = empty if default is None else None
        # Without bounds: the browser would keep what is out of them to itself, and the run start with the value before
        return place.number_input(title, value=default, step=step, format=form, placeholder=hint, **said)
    typed = place.text_input(title, default or "", placeholder=empty, **said).strip()
    if one.kind is list:
        return list(dict.fromkeys(part.strip() for part in typed.split(",") if part.strip())) or None
    path = one.option.path and typed not in one.option.words
    return (str(roots.inside(typed)) if path else typed) if typed else None


def _help(one: Described, task: str) -> str:
    text = one.describe(task)
    unset = one.option.unset
    empty = "" if not unset or one.choices(task) else f" Empty: {unset}." if one.optional else f" 0: {unset}."
    return frame.plain(f"{text[0].upper()}{text[1:]}.{empty if one.default in (None, 0) else ''}")
