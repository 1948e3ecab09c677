"""Fixtures that several rooms share."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as core.__main__ does: tests train beside servers and workers
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests' own processes fill the cores

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data" / "unpack.py"


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10, CIFAR-10H, CamVid and chest X-rays in public layouts: $NEXTLABEL_TEST_DATA, or unpacked beside the checkout."""
    if given := os.environ.get("NEXTLABEL_TEST_DATA"):
        return Path(given)
    if not SHARED.exists():
        pytest.skip(
            "needs the real data sets: NEXTLABEL_TEST_DATA names a folder with cifar-10-batches-py/ and cifar10h-counts.npy"
        )
    folder = tmp_path_factory.mktemp("real-data")
    subprocess.run(
        [sys.executable, str(SHARED), str(folder), "cifar10", "camvid", "chest_xray"], check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="session", autouse=True)
def _small_maps() -> Iterator[None]:
    """Few landmarks of the embedding map, whose t-SNE takes half of a tiny run; `tests/core/test_tsne.py` has them all."""
    from core import tsne

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsne, "LANDMARKS", 50)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """ImageNet weights in the cache of whoever runs the tests would change what is suggested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        yield


@pytest.fixture(autouse=True)
def _own_main() -> Iterator[None]:
    """AppTest leaves a page as the module that was started, which a spawned process of a later test would run."""
    script = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = script


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty NEXTLABEL_HOME, and no examples beside it."""
    from core.runs import run

    folder = tmp_path / "runs"
    monkeypatch.setattr(run, "EXAMPLES", tmp_path / "no-examples")
    monkeypatch.setenv("NEXTLABEL_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NEXTLABEL_HOME with two tiny runs on masks, of entropy-gradnorm and random: 24 scenes, two cycles, two steps each."""
    import data
    from core.engine import loop
    from core.runs import run, settle
    from core.runs.spec import Config

    home = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTLABEL_HOME", str(home))
        patch.setattr(run, "EXAMPLES", home / "no-examples")
        pool = data.load("garments", limit=24)
        for method in ("random", "entropy-gradnorm"):
            config = Config(
                task="active-learning",
                dataset="garments",
                limit=24,
                method=method,
                model="small-unet",
                width=4,
                steps=2,
                batch_size=4,
                budget=4,
                initial=6,
                cycles=2,
            )
            loop.work(run.create(settle.prepare(config, pool), settle.about(pool)), pool)
    return home
