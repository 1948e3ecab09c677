"""What nobody may do: run code from a file, look in from another machine, read folders that are not theirs."""

import ast
import re
from pathlib import Path

import pytest

from core import password
from core.__main__ import main
from core.runs.jobs import ROOT
from data.errors import UserError

SOURCES = [
    ROOT / "app.py",
    *(path for name in ("core", "data", "pages") for path in sorted((ROOT / name).rglob("*.py"))),
]
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE = {"eval", "exec", "read_pickle", "to_pickle", "unsafe_load"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_can_run_code_is_loaded(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert not {name.name.split(".")[0] for name in node.names} & RUNS_CODE
        if isinstance(node, ast.ImportFrom):
            names = {name.name for name in node.names}
            assert (node.module or "").split(".")[0] not in RUNS_CODE or names <= {
                "Parallel",
                "delayed",
                "UnpicklingError",
            }
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        keywords = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        method = isinstance(node.func, ast.Attribute)
        assert called not in UNSAFE or (called == "eval" and method), ast.unparse(node)  # model.eval() is no eval
        if owner == "np" and called == "load":
            assert keywords.get("allow_pickle") is False, ast.unparse(node)
        if owner == "torch" and called == "load":
            assert keywords.get("weights_only") is True, ast.unparse(node)
        assert keywords.get("allow_pickle") is not True
        assert keywords.get("unsafe_allow_html") is not True
        assert keywords.get("unsafe_allow_javascript") is not True
        assert keywords.get("shell") is not True


ASSETS = sorted((ROOT / "pages" / "ui" / "assets").iterdir())


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_script_style_or_html_stands_in_python(source: Path) -> None:
    """They are files of their own; HTML made of strings escapes nothing."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and source.name != "__init__.py":
            assert not re.search(r"</?(style|script|div|span|td|h[1-6])\b|addEventListener|@media", node.value), (
                node.lineno
            )


@pytest.mark.parametrize("script", [path for path in ASSETS if path.suffix == ".js"], ids=lambda path: path.name)
def test_scripts_make_no_html_of_names(script: Path) -> None:
    """Names come from files and people: they are set as text."""
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script.read_text()
    )


def test_the_report_escapes_all_but_the_figure_that_it_draws_itself() -> None:
    template = (ROOT / "core" / "files" / "report.html").read_text()
    assert re.findall(r"(\w+)\s*\|\s*safe", template) == ["interactive"]
    assert "autoescape=True" in (ROOT / "core" / "files" / "report.py").read_text()


def test_the_server_listens_on_this_machine_alone() -> None:
    assert 'address = "127.0.0.1"' in (ROOT / ".streamlit" / "config.toml").read_text()
    assert "ADDRESS ?= 127.0.0.1" in (ROOT / "Makefile").read_text()


def test_every_page_asks_who_looks() -> None:
    """`frame.setup` asks, and no page does without it."""
    for page in [ROOT / "app.py", *(ROOT / "pages").glob("*.py")]:
        assert re.search(r"^ *frame\.setup\(|frame\.here\(", page.read_text(), re.MULTILINE), page.name
    frame = (ROOT / "pages" / "ui" / "frame.py").read_text()
    setup = next(
        node for node in ast.walk(ast.parse(frame)) if isinstance(node, ast.FunctionDef) and node.name == "setup"
    )
    assert "login.require()" in ast.unparse(setup)


def test_a_password_is_known_by_its_hash_alone() -> None:
    text = password.hashed("correct horse battery")
    assert "horse" not in text
    assert password.hashed("correct horse battery") != text  # another salt
    assert password.matches("correct horse battery", text)
    assert not password.matches("correct horse battery ", text)
    assert not password.matches("", text)


@pytest.mark.parametrize(
    "text", ["", "secret", "scrypt:1:2:3", "md5:1:8:1:AAAA:AAAA", "scrypt:x:8:1:AAAA:AAAA", "scrypt:3:8:1:AAAA:AAAA"]
)
def test_what_is_no_hash_lets_nobody_in(text: str) -> None:
    with pytest.raises(UserError, match="make one with `python -m core password`"):
        password.matches("secret", text)


def test_a_password_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed = iter(
        ["correct horse battery", "correct horse battery", "short", "correct horse battery", "another long one"]
    )
    monkeypatch.setattr("core.cli.machine.getpass.getpass", lambda _: next(typed))
    assert main(["password"]) == 0
    said = capsys.readouterr().out
    found = re.fullmatch(rf"{password.VARIABLE}='([^']+)'\n", said)
    assert found is not None
    assert password.matches("correct horse battery", found[1])
    assert main(["password"]) == 2
    assert "at least 12" in capsys.readouterr().err
    assert main(["password"]) == 2
    assert "two different passwords" in capsys.readouterr().err
