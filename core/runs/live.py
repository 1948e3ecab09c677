"""What a worker is doing, or how the last one ended: one typed record per run or study. Needs no torch.

The worker keeps it in `live.json`. A file instead of a table of the run's SQLite: a reader needs no lock and no room to write, a
killed worker leaves its last word, and on a full disk the old file is overwritten where it lies. Two files beside it are
written by others: `pause`, which asks the worker to stop, and `crash.txt`, in which Python notes a fatal signal.
"""

import dataclasses
import faulthandler
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from core.store.atomic import write_atomically, writing
from core.store.log import Log
from data.errors import UserError

PHASES = ("label", "train", "score")  # of a cycle
EXPLAIN = "explain"  # what a worker does that explains one sample, in a folder of its own
FILE, LOCK, PAUSE, CRASH = "live.json", "worker.lock", "pause", "crash.txt"
EARLIER = ("progress.json", "worker.pid")  # files that said parts of it in earlier versions
FACTS = ("error", "waiting", "starting", "deaths")  # and facts of the run that did
START_SECONDS = 30  # a worker that has not taken the lock by then died on its way, unless its process is there
REPORT_SECONDS = 0.25  # between two reports of progress
SIGNALS = {  # as faulthandler names them; SIGKILL, by which the system ends what takes its memory, leaves no word
    "segmentation fault": signal.SIGSEGV,
    "aborted": signal.SIGABRT,
    "bus error": signal.SIGBUS,
    "floating-point exception": signal.SIGFPE,
    "illegal instruction": signal.SIGILL,
}
ORDINALS = {2: "second", 3: "third"}


@dataclass(frozen=True)
class Death:
    """How the system ended a worker. signal: such as "signal 11 (segmentation fault)", empty where unknown."""

    cycle: int
    phase: str
    signal: str


@dataclass(frozen=True)
class Live:
    """The live state of a run or study.

    phase: that the worker is in, empty before the first and after the last · share: of it that is done, in [0, 1] ·
    seconds_left: of it, None where unknown · waiting: which labels people have to give first · error: what ended the last worker,
    one sentence · starting: when a worker was asked for that has not begun yet, in seconds since the epoch, else 0 · began: when
    it did · pid, pid_start: the worker's process, and when the system started it, since numbers are used again · deaths: of
    all workers that the system ended · sample: that is explained, "" where none is · running, asked_to_pause: as found at this
    moment, not kept in the file.
    """

    phase: str = ""
    cycle: int = 0
    share: float = 0.0
    seconds_left: float | None = None
    waiting: str = ""
    error: str = ""
    starting: float = 0.0
    began: float = 0.0
    pid: int | None = None
    pid_start: str = ""
    deaths: tuple[Death, ...] = ()
    sample: str = ""
    running: bool = False
    asked_to_pause: bool = False

    @property
    def is_starting(self) -> bool:
        """Whether a worker was asked for a moment ago, or its process is on its way, and it has not begun."""
        if self.running or not self.starting:
            return False
        if time.time() - self.starting < START_SECONDS:
            return True
        return self.pid is not None and started(self.pid) == self.pid_start != ""  # on a cold disk it takes a minute

    @property
    def death(self) -> str:
        """How the system ended the last worker, as one sentence; empty where it did not, or a worker is running.

        However else a worker ends, by an error or Ctrl-C, it takes its phase back.
        """
        if self.running or not self.phase:
            return ""
        last = self.deaths[-1]
        again = sum((one.cycle, one.phase) == (last.cycle, last.phase) for one in self.deaths)
        unknown = "was killed, most likely for lack of memory, or the computer went down"
        how = f"was killed by {last.signal}" if last.signal else unknown
        often = f", for the {ORDINALS.get(again) or f'{again}th'} time in the same phase" if again > 1 else ""
        advice = "; give it less to hold at once, such as smaller batches or a smaller model" if again > 1 else ""
        return f"Its worker {how}, in cycle {last.cycle}, phase {last.phase}{often}{advice}."


def read(folder: Path, log: Log | None = None) -> Live:
    """The live state of the run or study in this folder. log: of a run, which keeps what earlier versions noted."""
    if log is not None and log.frozen:
        return _kept(folder, log)
    running, found = is_held(folder / LOCK), _kept(folder, log)
    running = running or is_held(folder / LOCK)  # it may have begun in between
    if not running:
        found = _with_death(folder, found)
    return dataclasses.replace(found, running=running, asked_to_pause=(folder / PAUSE).exists())


def write(folder: Path, live: Live) -> None:
    """Keep a live state. Raises `UserError` where that cannot be done, not even over the last one."""
    kept = {
        name: value for name, value in dataclasses.asdict(live).items() if name not in ("running", "asked_to_pause")
    }
    content = json.dumps(kept).encode()
    try:
        write_atomically(folder / FILE, content)
    except UserError:
        if not _written_over(folder / FILE, content):
            raise


class Worker:
    """The worker's own hand on its live state."""

    def __init__(self, folder: Path, deaths: tuple[Death, ...]) -> None:
        self.folder = folder
        self.live = Live(deaths=deaths, began=time.time(), pid=os.getpid(), pid_start=started(os.getpid()))
        self.began, self.reported = time.monotonic(), 0.0

    @property
    def asked_to_pause(self) -> bool:
        """Whether somebody wants it to stop."""
        return (self.folder / PAUSE).exists()

    def begin(self, cycle: int, phase: str, sample: str = "") -> None:
        """Say that a phase begins."""
        self.began = time.monotonic()
        self.live = dataclasses.replace(self.live, cycle=cycle, phase=phase, sample=sample)
        self._report(0.0)

    def seconds(self) -> float:
        """Since the phase began."""
        return time.monotonic() - self.began

    def progress(self, share: float) -> None:
        """Say how much of the phase is done; to be called as often as you like."""
        if time.monotonic() - self.reported >= REPORT_SECONDS:
            self._report(share)

    def end(self, *, error: str = "", waiting: str = "") -> None:
        """Say what it ends by, before `working` does."""
        self.live = dataclasses.replace(self.live, error=error, waiting=waiting)

    def _report(self, share: float) -> None:
        self.reported = time.monotonic()
        left = self.seconds() * (1 - share) / share if share > 0 else None
        self.live = dataclasses.replace(self.live, share=share, seconds_left=left)
        with suppress(UserError):  # what matters is written elsewhere, and fails there
            write(self.folder, self.live)


@contextmanager
def working(folder: Path, log: Log | None = None) -> Iterator[Worker]:
    """Be the worker of the run or study in this folder, whose lock is held: note how the last one died, say how this one ends.

    Raises `UserError` where the folder cannot be written.
    """
    before = _with_death(folder, _kept(folder, log))
    worker = Worker(folder, before.deaths)
    write(folder, worker.live)
    for name in EARLIER:
        (folder / name).unlink(missing_ok=True)
    pause = folder / PAUSE
    asked = before.starting if before.is_starting else time.time() - START_SECONDS
    if pause.exists() and pause.stat().st_mtime < asked:
        pause.unlink()  # meant for a worker that died; a newer one was asked for while this one was starting
    try:
        yield worker
    finally:
        with suppress(UserError):
            write(folder, dataclasses.replace(worker.live, phase="", share=0.0, seconds_left=None))
        pause.unlink(missing_ok=True)


@contextmanager
def noting_error(folder: Path, log: Log) -> Iterator[None]:
    """Keep what keeps a worker from beginning: a `UserError`, which is raised all the same."""
    try:
        yield
    except UserError as error:
        if not log.frozen and not is_held(folder / LOCK):
            with suppress(UserError):
                write(folder, dataclasses.replace(_kept(folder, log), error=str(error), starting=0.0))
        raise


@contextmanager
def noting_crashes(folder: Path) -> Iterator[None]:
    """Let Python note in this folder by which fatal signal it dies; does nothing where it notes that elsewhere already."""
    report = folder / CRASH
    with writing(folder):
        file = report.open("w")
    with file:
        ours = not faulthandler.is_enabled()
        if ours:
            faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            if ours:
                faulthandler.disable()
            report.unlink(missing_ok=True)


def terminate(live: Live, what: str) -> None:
    """Ask the process of a worker to end, by SIGTERM. Raises `UserError` where it is not there, or not ours to stop.

    what: whose worker it is, for that sentence.
    """
    try:
        if live.pid is None or (live.pid_start and started(live.pid) != live.pid_start):
            raise ProcessLookupError("its process is not on this machine")
        os.kill(live.pid, signal.SIGTERM)
    except OSError as error:
        raise UserError(
            f"The worker of {what} cannot be stopped ({error}): it was probably started by another user or on another machine; "
            "stop it there with Ctrl-C."
        ) from error


def started(pid: int) -> str:
    """When a process of this machine was started, as the system says it; empty where there is none, or it does not say.

    There is none either where it has ended and nobody has asked how: a zombie.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]  # proc(5): starttime
    except OSError:
        pass
    try:
        command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        state, _, start = said.partition(" ")
        return "" if state.startswith("Z") else start.strip()
    except OSError:
        return ""


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file, also where that cannot be written to: then it is looked at without taking it."""
    try:
        with filelock.FileLock(lock, timeout=0, is_singleton=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        import fcntl  # not on Windows, where a lock file can be opened wherever it can be read

        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is none, or nobody may look
            return False
        return False


def _written_over(path: Path, content: bytes) -> bool:
    """Overwrite what a file holds; its block is there already, so that a full disk takes this too."""
    try:
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()
    except OSError:
        return False
    return True


def _kept(folder: Path, log: Log | None) -> Live:
    """What the worker wrote last; of earlier versions, put together from where they wrote it."""
    if not (folder / FILE).exists():
        return _of_earlier_versions(folder, log)
    return _parsed(_json(folder / FILE))


def _of_earlier_versions(folder: Path, log: Log | None) -> Live:
    facts = {} if log is None else log.facts("")
    found = _json(folder / "progress.json") | {name: facts[name] for name in FACTS if facts.get(name) is not None}
    found["deaths"] = [dict(zip(("cycle", "phase", "signal"), one, strict=True)) for one in found.get("deaths", [])]
    with suppress(OSError, ValueError):
        found["pid"] = int((folder / "worker.pid").read_text())
    return _parsed(found)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _parsed(found: dict[str, Any]) -> Live:
    """As `write` wrote it; where it is something else, as if there had never been a worker."""
    known = {field.name for field in dataclasses.fields(Live)}
    try:
        live = Live(**{name: value for name, value in found.items() if name in known})
        if live.phase not in ("", *PHASES, EXPLAIN):
            return Live()
        return dataclasses.replace(
            live,
            cycle=int(live.cycle),
            share=float(live.share),
            seconds_left=None if live.seconds_left is None else float(live.seconds_left),
            starting=float(live.starting),
            began=float(live.began),
            deaths=tuple(Death(**one) for one in found.get("deaths", [])),
        )
    except (TypeError, ValueError):
        return Live()


def _with_death(folder: Path, live: Live) -> Live:
    """Where a worker left its phase behind, its death with those before."""
    if not live.phase:
        return live
    try:
        report = (folder / CRASH).read_text(errors="replace").lower()
    except OSError:
        report = ""
    found = next((f"signal {int(one)} ({name})" for name, one in SIGNALS.items() if f"error: {name}" in report), "")
    return dataclasses.replace(live, deaths=(*live.deaths, Death(live.cycle, live.phase, found)))
