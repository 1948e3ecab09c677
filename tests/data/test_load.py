"""The registry: one door for all sets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data
from data.errors import UserError


def test_unknown_names_and_options_are_answered_with_the_known() -> None:
    with pytest.raises(UserError, match='"mnist": choose one of fashion, cifar10, cifar10h, noisycxr, folder'):
        data.load("mnist")
    with pytest.raises(UserError, match="no option 'seed'; its options are size, limit"):
        data.load("cifar10h", seed=1)
    with pytest.raises(UserError, match="needs the path"):
        data.load("folder")


def test_limit_keeps_balance_order_and_ids() -> None:
    whole, part = data.load("fashion"), data.load("fashion", limit=500)
    np.testing.assert_array_equal(np.bincount(part.labels), np.full(10, 50))
    place = [whole.ids.index(id) for id in part.ids]
    assert place == sorted(place)
    np.testing.assert_array_equal(part.images, whole.images[place])
    assert part.fingerprint == data.load("fashion", limit=500).fingerprint
    assert len(data.load("fashion", limit=4000)) == 4000
    for limit in (0, -1, 4001):
        with pytest.raises(UserError, match="choose from 1 to 4000"):
            data.load("fashion", limit=limit)


def test_root_defaults_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "sets"))
    assert str(tmp_path / "sets") in {row.name: row for row in data.available()}["cifar10"].reason
    monkeypatch.delenv("NEXTLABEL_DATA")
    assert str(Path.home() / ".cache" / "nextlabel") in data.available()[1].reason


def test_available(tmp_path: Path) -> None:
    rows = {row.name: row for row in data.available(tmp_path)}
    assert list(rows) == [
        "fashion",
        "cifar10",
        "cifar10h",
        "noisycxr",
        "folder",
        "csv",
        "coco",
        "parquet",
        "webdataset",
        "garments",
        "camvid",
        "voc",
        "cityscapes",
        "masks",
        "coco-masks",
    ]
    assert rows["fashion"].available
    assert rows["fashion"].n_images == 4000
    assert not rows["cifar10h"].available
    assert rows["cifar10h"].reason.startswith("put cifar10h-counts.npy")
    assert "cifar-10-batches-py" in rows["cifar10h"].reason


def test_data_sets_with_masks_say_so(tmp_path: Path) -> None:
    rows = {row.name: row for row in data.available(tmp_path) if data.CATALOGUE[row.name].answer == "mask"}
    assert list(rows) == ["garments", "camvid", "voc", "cityscapes", "masks", "coco-masks"]
    assert [name for name, row in rows.items() if row.available] == ["garments", "masks", "coco-masks"]


ELSEWHERE = ("noisycxr", "voc", "cityscapes")  # what the real data here are without


def test_available_finds_what_is_there(real_data: Path) -> None:
    assert all(row.available and not row.reason for row in data.available(real_data) if row.name not in ELSEWHERE)


def test_the_package_imports_neither_torch_nor_sklearn() -> None:
    code = "import data, sys; data.available(); data.load('fashion'); data.load('garments'); "
    code += "assert not {'torch', 'torchvision', 'sklearn', 'core'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(data.__file__).parents[1])
