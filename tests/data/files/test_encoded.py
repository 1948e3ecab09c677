"""Where encoded images lie: what leads out of a folder, and ranges of large files."""

import os
from pathlib import Path

import numpy as np
import pytest

from data.files.encoded import Links, Ranges


def test_links_that_lead_out(tmp_path: Path) -> None:
    top, out = (tmp_path / "in").resolve(), (tmp_path / "out").resolve()
    (top / "deep").mkdir(parents=True)
    out.mkdir()
    for folder in (top, out):
        (folder / "x").write_text("")
    made = {"inside": "x", "up": "../out/x", "absolute": str(out / "x"), "ring": "ring", "gone": "nowhere"}
    for name, target in made.items():
        (top / name).symlink_to(target)
    (top / "over").symlink_to("up")
    (top / "folder").symlink_to(out)
    (top / "deep/back").symlink_to("../x")
    links = Links(top)
    out_of = [name for name in ("x", *made, "over") if links.leads_out(str(top), name)]
    assert out_of == ["up", "absolute", "over"]
    assert links.leads_out(str(top / "folder"), "x")
    assert not links.leads_out(str(top / "deep"), "back")
    assert not Links(top, out).leads_out(str(top), "up")
    assert links.leads_out(str(top), "..")


def test_ranges_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    one = np.array([0, 0], np.int32)
    found = Ranges([tmp_path / "a"], one, np.array([2, 8]), np.array([3, 5]), ["x", "y"], np.array([7]))
    assert found.file(0) == b"234"
    with pytest.raises(ValueError, match="ends before it"):
        found.file(1)
    assert found.take(np.array([0])).file(0) == b"234"
    os.unlink(tmp_path / "a")
    with pytest.raises(OSError, match="No such file"):
        found.file(0)
