"""The one command for a machine with a GPU, in small on a CPU: what is finished is passed over, what failed is said."""

import hashlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import gpu
from benchmarks import gradient_norms as norms
from data.errors import UserError


def command(out, *options):
    line = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--miniature", "--out", str(out), *options]
    return subprocess.run(line, cwd=gpu.ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_goes_on_where_it_was_left(tmp_path):
    for part in gpu.parts():
        content = {"unfinished": True} if part.name == "prices" else {"seconds": 1.0, "bytes": 1, "norms": [1.0]}
        (tmp_path / f"{part.name}.json").write_text(json.dumps(content))
    done = command(tmp_path, "--minutes", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "prices: done"
    found = json.loads((tmp_path / "prices.json").read_text())
    assert found["product"] > 0
    assert found["took"] >= 0


@pytest.mark.slow
def test_begins_nothing_without_time(tmp_path):
    done = command(tmp_path, "--minutes", "0.01")
    assert done.stdout.splitlines()[0] == "machine: no time left; the same command goes on from here"
    assert not list(tmp_path.glob("*.json"))


def test_a_part_that_fails_says_why_and_is_tried_again(tmp_path, monkeypatch):
    def fails(setting, seconds):
        raise UserError("Plug in the GPU.")

    monkeypatch.setattr(gpu, "parts", lambda: [gpu.Part("tests", 5, fails, again=True)])
    gpu.do("tests", gpu.Setting(tmp_path, "cpu", True, None), 5)
    found = gpu.read(tmp_path / "tests.json")
    assert found["error"] == "UserError: Plug in the GPU."
    assert not gpu.finished(found)


def test_unpacks_the_batches_of_cifar10(tmp_path):
    """As strips of lossless WebP between the bytes of a pickle, with the md5 of the whole."""
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    batch = b"head" + images.transpose(0, 3, 1, 2).tobytes() + b"tail"
    strip = io.BytesIO()
    Image.fromarray(images.reshape(96, 32, 3)).save(strip, "WEBP", lossless=True)
    packed = {
        "webp": np.frombuffer(strip.getvalue(), np.uint8),
        "offsets": np.array([0, len(strip.getvalue())]),
        "header": np.frombuffer(b"head", np.uint8),
        "tail": np.frombuffer(b"tail", np.uint8),
    }
    given = tmp_path / "given" / "cifar10"
    given.mkdir(parents=True)
    (given / "batches.meta").write_bytes(b"meta")
    for name in ("data_batch_1", "test_batch"):
        np.savez(given / f"{name}.npz", md5=hashlib.md5(batch).hexdigest(), **packed)
    gpu.prepare_cifar10(tmp_path / "given", tmp_path / "data")
    folder = tmp_path / "data" / "cifar-10-batches-py"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "batches.meta": b"meta",
        "data_batch_1": batch,
        "test_batch": batch,
    }
    np.savez(given / "data_batch_1.npz", md5="0", **packed)
    with pytest.raises(UserError, match="is damaged"):
        gpu.prepare_cifar10(tmp_path / "given", tmp_path / "elsewhere")
    with pytest.raises(UserError, match="say with --data where CIFAR-10 is"):
        gpu.prepare_cifar10(tmp_path / "data" / "nothing", tmp_path / "elsewhere")


@pytest.mark.slow
def test_all_of_it_in_miniature(tmp_path):
    """The floor in float32, ours in bfloat16 and one network; what else is measured in the same way is there already."""
    names = [part.name for part in gpu.parts()]
    network = next(name for name in names if name.startswith("network"))
    wanted = {"machine", "tests", "prices", network, gpu.PROTOCOL, *first_ways()}
    for name in set(names) - wanted:
        (tmp_path / f"{name}.json").write_text(json.dumps({"error": "not on this machine"}))
    done = command(tmp_path, "--minutes", "9")
    assert done.returncode == 0, done.stderr
    found = {name: gpu.read(tmp_path / f"{name}.json") for name in wanted}
    assert all(gpu.finished(one) and "error" not in one for one in found.values())
    assert found[gpu.PROTOCOL]["cycles"].keys()
    assert "NextLabel, all parameters" in done.stdout


def first_ways():
    """Parts of the floor and of ours."""
    return [gpu._file(precision, way) for precision, way in zip(gpu.PRECISIONS, (norms.FLOOR, norms.OURS), strict=True)]
