"""Which folders a browser may name."""

import os
from pathlib import Path

import pytest

from data.errors import UserError
from data.files import roots
from data.sources import folder


def test_only_folders_below_the_configured_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("NEXTLABEL_ROOTS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert roots.inside(f" {tmp_path}/b/images ") == tmp_path / "b" / "images"
    for outside in (f"{tmp_path}/c", f"{tmp_path}/a/../c", "/etc", "relative"):
        with pytest.raises(
            UserError, match=r"lies outside of what this dashboard may read .*restart it with NEXTLABEL_ROOTS="
        ):
            roots.inside(outside)


def test_a_link_does_not_lead_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/etc")
    monkeypatch.setenv("NEXTLABEL_ROOTS", str(tmp_path / "a"))
    with pytest.raises(UserError, match="lies outside"):
        roots.inside(f"{tmp_path}/a/link")


def test_a_link_to_a_table_does_not_lead_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "secret.csv").write_text("sample_id,annotator,label\n")
    (tmp_path / "a" / "votes.csv").symlink_to(tmp_path / "secret.csv")
    monkeypatch.setenv("NEXTLABEL_ROOTS", str(tmp_path / "a"))
    with pytest.raises(UserError, match="lies outside"):
        roots.inside(f"{tmp_path}/a/votes.csv")


def test_nor_does_a_link_in_a_folder_that_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("elsewhere/cat", "images/test/cat"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "images" / "train").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("NEXTLABEL_ROOTS", str(tmp_path / "images"))
    with pytest.raises(UserError, match="train is a link that leads out of the folder"):
        folder.find(roots.inside(f"{tmp_path}/images"))


def test_the_same_answer_whether_it_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody learns from the dashboard what lies elsewhere."""
    monkeypatch.setenv("NEXTLABEL_ROOTS", str(tmp_path))
    said = []
    for path in ("/etc/passwd", "/etc/nothing-of-this-name"):
        with pytest.raises(UserError) as refused:
            roots.inside(path)
        said.append(str(refused.value).replace(path, "…"))
    assert said[0] == said[1]


def test_by_default_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEXTLABEL_ROOTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert roots.inside("~/images") == tmp_path / "images"


def test_what_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is no path"):
        roots.inside("a\0b")
    with pytest.raises(UserError, match=r"is no path|lies outside"):
        roots.inside("~nobody-of-this-name/x")
