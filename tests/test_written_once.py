"""An option's name and choices are written once: in the specification, from which everything else follows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.cli.runs import SETTINGS
from core.runs.spec import OPTIONS, TASKS, flag

ROOT = Path(__file__).parents[1]
SPECIFICATION = ROOT / "core" / "runs" / "spec.py"
SOURCES = [
    path
    for folder in ("core/cli", "core/runs", "core/files", "core/analysis", "pages")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
CHOICES = {name: set(one.literals) for name, one in OPTIONS.items() if len(one.literals) > 1}  # one text is no list
NAMES = {one.named(task) for one in OPTIONS.values() for task in TASKS}


def texts(node: ast.expr) -> set[str]:
    """The texts that a tuple, list, set or Literal lists."""
    if isinstance(node, ast.Subscript):
        return texts(node.slice) if isinstance(node.value, ast.Name) and node.value.id == "Literal" else set()
    items = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else []
    return {item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)}


def lists() -> Iterator[tuple[Path, int, set[str]]]:
    """Every list of texts in the sources: file, line, texts. What is inside of another list counts with it."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.expr) and (found := texts(node)):
                yield path, node.lineno, found


def declared(path: Path) -> list[str]:
    """The options of the command line that a file adds by name."""
    return [
        str(call.args[0].value)
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant)
        and isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
    ]  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_listed_once(name):
    places = {(path, line) for path, line, found in lists() if found >= CHOICES[name]}
    assert {path for path, _ in places} == {SPECIFICATION}
    assert len({line for _, line in places}) == 1


def test_names_of_options_are_not_listed_again():
    again = [
        f"{path.relative_to(ROOT)}:{line}: {', '.join(sorted(found & NAMES))}"
        for path, line, found in lists()
        if path != SPECIFICATION and len(found & NAMES) > 5  # a table of results has a few columns of their names
    ]
    assert again == []


def test_each_option_is_a_field_of_one_group():
    groups = [node for node in ast.parse(SPECIFICATION.read_text()).body if isinstance(node, ast.ClassDef)]
    fields = [
        item.target.id
        for group in groups
        for item in group.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id in OPTIONS
        and "Option(" in ast.unparse(item.annotation)
    ]  # fmt: skip
    assert sorted(fields) == sorted(OPTIONS)


def test_run_and_branch_add_no_option_by_name():
    """`step --labels` and the like are options of other commands, which happen to have the same name."""
    flags = {flag(name, task) for name in SETTINGS for task in TASKS}
    assert set(declared(ROOT / "core" / "cli" / "runs.py")) & flags == {"--labels"}
    assert not set(declared(ROOT / "core" / "cli" / "options.py")) & flags


def test_no_other_source_names_a_question():
    """Pages, exports and the engine ask `Config.question` what it is; `example` gives it on the command line."""
    named = [
        str(path.relative_to(ROOT))
        for folder in ("core", "pages")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path not in (SPECIFICATION, ROOT / "core" / "cli" / "example.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in TASKS
    ]
    assert named == []
