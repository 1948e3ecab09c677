"""python -m benchmarks gpu --minutes 9 --out DIR: all that wants a GPU, in one command from a bare checkout.

Ways to compute gradient norms at batch 512 in float32 and bfloat16, the prices of the layer rules, the engine's tests, real
networks, and the protocol `paper-cifar10` as far as the minutes reach. Each part is a process of its own with a limit of
time, and leaves its result as DIR/PART.json; the next call passes over what is finished and goes on with the rest. Without
a GPU, or with --miniature, everything runs in small, on the CPU too.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROTOCOL = "paper-cifar10"
CLOSING = 20  # seconds in which a run writes down where it is


@dataclass(frozen=True)
class Setting:
    """What all parts are told."""

    out: Path
    device: str
    miniature: bool
    data: Path | None


@dataclass(frozen=True)
class Part:
    """A measurement of its own; `seconds` it may take, and what it needs to be worth a start."""

    name: str
    seconds: int
    work: Callable[[Setting, float], dict[str, Any]]
    least: int = 10
    again: bool = False  # after an error; a way that cannot do this model would fail again


def parts() -> list[Part]:
    """In the order of what is wanted most."""
    from benchmarks import gradient_norms as norms

    def way(name: str, bfloat16: bool) -> Callable[[Setting, float], dict[str, Any]]:
        return lambda setting, _: norms.prepare(norms.WAYS[name], case_of(setting, bfloat16))()

    def network(name: str) -> Callable[[Setting, float], dict[str, Any]]:
        def work(setting: Setting, _: float) -> dict[str, Any]:
            case = norms.Case(name, 64 if setting.miniature else 224, 2 if setting.miniature else 64, setting.device)
            return {
                each: _without_norms(norms.prepare(norms.WAYS[each], case)())
                for each in (norms.FLOOR, norms.OURS, norms.LOOP)
            }

        return work

    first = [norms.FLOOR, norms.OURS, norms.LOOP]
    ways = [*first, *(name for name in norms.WAYS if name not in (*first, norms.HEAD))]
    return [
        Part("machine", 60, machine),
        Part("tests", 120, tests, again=True),
        *(Part(_file(precision, name), 60, way(name, precision == "bfloat16")) for precision in PRECISIONS for name in ways),
        Part("prices", 30, prices),
        *(Part(_file("network", name), 60, network(name)) for name in norms.REAL),
        Part(PROTOCOL, 10**6, paper, least=60, again=True),
    ]  # fmt: skip


PRECISIONS = ("float32", "bfloat16")


def _file(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower())


def case_of(setting: Setting, bfloat16: bool) -> Any:
    """ResNet-18 as the protocol trains it, on a batch of 512."""
    from benchmarks.gradient_norms import Case

    width, batch = (4, 8) if setting.miniature else (64, 512)
    return Case(f"ResNet-18, width {width}", 32, batch, setting.device, bfloat16)


def machine(setting: Setting, _: float) -> dict[str, Any]:
    """On what all this was measured."""
    import torch

    from core.engine import provenance

    return {"describe": provenance.describe(), "cuda": torch.version.cuda, "device": setting.device}


def tests(setting: Setting, seconds: float) -> dict[str, Any]:
    """Those of the engine on the device; on a CPU they are skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/gradnorm/test_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    lines = (done.stdout + done.stderr).strip().splitlines()
    found = {"exit": done.returncode, "last": lines[-1] if lines else "", "output": "\n".join(lines[-60:])}
    return found if done.returncode in (0, 5) else {**found, "error": found["last"], "unfinished": True}


def prices(setting: Setting, _: float) -> dict[str, Any]:
    """Of the rules, to be compared with `core.gradnorm.rules.costs`."""
    import torch

    from benchmarks.prices import calibrate

    return calibrate(torch.device(setting.device), 2 if setting.miniature else 512)


def paper(setting: Setting, seconds: float) -> dict[str, Any]:
    """The protocol with two strategies and one seed, interrupted when the time is up; its runs are in DIR/runs."""
    folder = setting.out / "data"
    os.environ |= {"NEXTLABEL_HOME": str(setting.out / "runs"), "NEXTLABEL_DATA": str(folder)}
    options: list[str] = []
    if setting.miniature:
        options = ["--dataset", "fashion", "--limit", "200", "--initial", "20", "--budget", "10", "--subset", "100"]
        options += ["--cycles", "2", "--epochs", "1", "--width", "4"]
    else:
        prepare_cifar10(setting.data, folder)

    from core.runs import study

    known = sorted(path.name for path in (setting.out / "runs" / "studies").glob("*"))
    new = ["run", "--protocol", PROTOCOL, "--strategy", "entropy-gradnorm", "random", "--seed", "0", *options]
    command = ["resume", known[-1]] if known else new
    process = subprocess.Popen([sys.executable, "-m", "core", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=max(1, seconds - CLOSING))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=CLOSING)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
    studies = sorted(path.name for path in (setting.out / "runs" / "studies").glob("*"))
    runs = study.find(studies[-1]).runs if studies else []
    found = {
        "study": studies[-1] if studies else None,
        "cycles": {run.id: len(run.cycles()) for run in runs},
        "said": said.splitlines()[-20:],
    }
    return found if process.returncode == 0 else {**found, "unfinished": True}


def prepare_cifar10(given: Path | None, folder: Path) -> None:
    """Bring the official batches into `folder`: from a folder that has them, or has them packed as data_batch_*.npz (images
    as strips of lossless WebP, what else a batch holds byte for byte, and its md5)."""
    import hashlib
    import io
    import itertools

    import numpy as np
    from PIL import Image

    from data.errors import UserError
    from data.files.cache import home

    target = folder / "cifar-10-batches-py"
    if (target / "test_batch").is_file():
        return
    given = given or home()
    found = next((path.parent for path in sorted(given.rglob("data_batch_1*")) if path.suffix in ("", ".npz")), None)
    if found is None:
        raise UserError(
            f"There is no data_batch_1 or data_batch_1.npz below {given}: say with --data where CIFAR-10 is."
        )
    target.mkdir(parents=True, exist_ok=True)
    if (found / "data_batch_1").is_file():
        for file in sorted(found.iterdir()):
            (target / file.name).write_bytes(file.read_bytes())
        return
    (target / "batches.meta").write_bytes((found / "batches.meta").read_bytes())
    for source in sorted(found.glob("*_batch*.npz")):
        with np.load(source, allow_pickle=False) as packed:
            cuts, raw = packed["offsets"], packed["webp"].tobytes()
            strips = [np.asarray(Image.open(io.BytesIO(raw[a:b])).convert("RGB")) for a, b in itertools.pairwise(cuts)]
            pixels = np.concatenate([strip.reshape(-1, 32, 32, 3) for strip in strips]).transpose(0, 3, 1, 2)
            batch = packed["header"].tobytes() + pixels.tobytes() + packed["tail"].tobytes()
            if hashlib.md5(batch, usedforsecurity=False).hexdigest() != str(packed["md5"]):
                raise UserError(f"{source} is damaged: its md5 is not the one it names.")
        (target / source.stem).write_bytes(batch)


def _without_norms(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "norms"}


def do(name: str, setting: Setting, seconds: float) -> None:
    """One part, in this process."""
    from benchmarks.gradient_norms import reason

    part = next(part for part in parts() if part.name == name)
    began = time.perf_counter()
    try:
        found = part.work(setting, seconds)
    except Exception as error:  # it is in the result file, and the other parts are measured all the same
        found = {"error": reason(error), "unfinished": part.again}
    _write(setting.out / f"{name}.json", {**found, "took": round(time.perf_counter() - began, 1)})


def _write(file: Path, content: dict[str, Any]) -> None:
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(file)


def read(file: Path) -> dict[str, Any]:
    """What a part left; {} where it did not come that far."""
    return json.loads(file.read_text()) if file.is_file() else {}


def finished(found: dict[str, Any]) -> bool:
    """Whether the next call may pass over it."""
    return bool(found) and not found.get("unfinished")


def all_parts(setting: Setting, minutes: float) -> None:
    """What is not finished, in turn, until the time is up."""
    end = time.monotonic() + 60 * minutes
    setting.out.mkdir(parents=True, exist_ok=True)
    for part in parts():
        if finished(read(setting.out / f"{part.name}.json")):
            continue
        left = end - time.monotonic()
        if left < part.least:
            print(f"{part.name}: no time left; the same command goes on from here")
            continue
        seconds = min(part.seconds, left)
        command = [sys.executable, "-m", "benchmarks", "gpu", "--part", part.name, "--seconds", str(seconds)]
        command += ["--out", str(setting.out), "--device", setting.device]
        command += ["--miniature"] * setting.miniature + (["--data", str(setting.data)] if setting.data else [])
        try:
            subprocess.run(command, cwd=ROOT, timeout=seconds + CLOSING / 2, check=False)
        except subprocess.TimeoutExpired:
            last = seconds >= part.seconds
            _write(setting.out / f"{part.name}.json", {"error": f"not done in {seconds:.0f} s", "unfinished": not last})
        found = read(setting.out / f"{part.name}.json")
        print(
            f"{part.name}: {found.get('error') or found.get('last') or ('goes on' if found.get('unfinished') else 'done')}",
            flush=True,
        )
    report(setting)


def report(setting: Setting) -> None:
    """What is there, as tables."""
    from benchmarks import gradient_norms as norms
    from benchmarks import prices as of_rules

    print(f"\n{read(setting.out / 'machine.json').get('describe', '')}")
    for precision in PRECISIONS:
        found = {name: read(setting.out / f"{_file(precision, name)}.json") for name in norms.WAYS}
        found = {name: one for name, one in found.items() if one}
        if "seconds" in found.get(norms.FLOOR, {}):
            norms.show(case_of(setting, precision == "bfloat16"), found)
    if "product" in (measured := read(setting.out / "prices.json")):
        of_rules.show(measured, setting.device)
    for name in norms.REAL:
        found = read(setting.out / f"{_file('network', name)}.json")
        if norms.FLOOR in found:
            plain = found[norms.FLOOR]
            ratios = [f"{found[way]['seconds'] / plain['seconds']:.2f}" for way in (norms.OURS, norms.LOOP)]
            memory = found[norms.OURS]["bytes"] / max(1, plain["bytes"])
            print(
                f"  {name:20} floor {1000 * plain['seconds']:8.1f} ms · ours {ratios[0]} · loop {ratios[1]} · memory {memory:.2f}"
            )
    print(f"  {PROTOCOL}: {read(setting.out / f'{PROTOCOL}.json').get('cycles', 'not begun')}")


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9, help="stop after so many (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results are and go")
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds CIFAR-10 (default: $NEXTLABEL_DATA)")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: the GPU where there is one")
    parser.add_argument("--miniature", action="store_true", help="small networks and batches (default on a CPU)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.device is None:
        from core.models.batches import pick_device

        given.device = pick_device().type
    setting = Setting(given.out.resolve(), given.device, given.miniature or given.device == "cpu", given.data)
    if given.part:
        do(given.part, setting, given.seconds)
    else:
        all_parts(setting, given.minutes)
