"""A study: arms × seeds as one piece of work, on the same data, first labels and first models, as a paper compares.

An arm is what is compared: a strategy of active learning, or a selector and a score of label cleaning.

It is a folder `studies/ID` below the home of the runs with a plan of its runs; the runs themselves are ordinary ones.
Needs no torch, so that a page can read studies.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from core.runs import live, settle, spec
from core.runs.live import Live, Worker
from core.runs.run import Run, home, new_folder, write_start
from core.runs.spec import Config
from core.store.atomic import write_atomically
from data.errors import UserError

PROTOCOLS = Path(__file__).parent / "protocols"
KEYS = ("title", "seeds", "run")
TEXTS = ("reproduces", "takes")  # what a protocol may say of itself
ARMS = ("strategies", "arms")  # two ways to say them


@dataclass(frozen=True)
class Protocol:
    """How a study is made: a TOML file with `title`, `seeds`, a table `run` of options (`core.runs.spec`), and its arms.

    Arms are `strategies`, a list of names, or `[[arms]]`, tables of the options in which they differ. It may say what it
    `reproduces` and how long one arm and seed `takes`.
    """

    name: str
    title: str
    arms: list[dict[str, Any]]
    seeds: list[int]
    run: dict[str, Any]
    reproduces: str = ""
    takes: str = ""

    @property
    def names(self) -> list[str]:
        """Names of its arms (`Config.arm`)."""
        return [Config(**{"budget": 0, "cycles": 1, **self.run, **arm}).arm for arm in self.arms]


@dataclass(frozen=True)
class Study:
    """A study's folder. Reading takes no lock; one worker at a time goes through its runs."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def title(self) -> str:
        """Of its protocol."""
        return str(self._plan()["title"])

    @property
    def command(self) -> str:
        """What the user typed for it; empty where it was started in the browser."""
        return str(self._plan().get("command", ""))

    @property
    def runs(self) -> list[Run]:
        """Its runs that are there, in the order of work: all arms of a seed, then the next seed."""
        paths = [home() / name for name in self._plan()["runs"]]
        return [Run(path) for path in paths if (path / "config.json").is_file()]

    @property
    def lock(self) -> filelock.FileLock:
        """Held by the worker that goes through the runs."""
        return filelock.FileLock(self.path / live.LOCK, timeout=3, is_singleton=False)

    def _plan(self) -> dict[str, Any]:
        try:
            content = json.loads((self.path / "study.json").read_text())
            if not {"title", "about", "runs"} <= set(content) or not isinstance(content["runs"], dict):
                raise ValueError
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged() from error
        return dict(content)

    def _damaged(self, reason: str = "") -> UserError:
        why = f" ({reason})" if reason else ""
        return UserError(
            f"Study {self.id} cannot be read, its study.json is damaged{why}: restore it or delete {self.path}; its runs "
            "are kept."
        )

    def complete(self) -> list[Run]:
        """All its runs; those that are missing are made again, as after a crash in the middle of `create`."""
        plan = self._plan()
        for name, config in plan["runs"].items():
            path = home() / name
            if not (path / "config.json").is_file():
                try:
                    found = spec.of_file({"version": plan.get("version", 1), "config": config})
                except (UserError, TypeError, KeyError) as error:
                    raise self._damaged(str(error).rstrip(".")) from error
                write_start(path, found, plan["about"])
        return self.runs

    def status(self) -> tuple[str, str]:
        """("running" | "pausing" | "finished" | "failed" | "stopped", one sentence)."""
        done, all_cycles = self.progress()
        states = [run.status() for run in self.runs]
        text = f"{done} of {all_cycles} cycles in {len(states)} runs done."
        now = self.live()
        if now.running:
            return ("pausing", "Stops after the present step.") if now.asked_to_pause else ("running", text)
        if now.is_starting:
            return "running", "Starting the worker…"
        failed = [sentence for state, sentence in states if state == "failed"]
        if failed:
            return "failed", f"{text} {len(failed)} failed, the first: {failed[0]}"
        if done >= all_cycles:
            return "finished", text
        return "stopped", f"{text} Resume to go on; nothing finished is lost."

    def progress(self) -> tuple[int, int]:
        """(finished cycles, cycles in all) over its runs."""
        runs = self.runs
        return sum(min(len(run.cycles()), run.target()) for run in runs), sum(run.target() for run in runs)

    def live(self) -> Live:
        """Whether its worker is running, and which process that is; what it is doing is said by its runs."""
        return live.read(self.path)

    def is_running(self) -> bool:
        """Whether a worker holds the study."""
        return self.live().running

    @contextmanager
    def working(self) -> Iterator[Worker]:
        """Hold the study; raises `UserError` where another worker does."""
        try:
            with self.lock, live.working(self.path) as worker:
                yield worker
        except filelock.Timeout as error:
            raise UserError(
                f"Study {self.id} is being worked on by another process: wait for it, or cancel it first."
            ) from error


def protocols() -> dict[str, str]:
    """Names and titles of the protocols that come with NextLabel."""
    return {path.stem: read(path.stem).title for path in sorted(PROTOCOLS.glob("*.toml"))}


def read(name: str) -> Protocol:
    """A protocol by its name, or from a TOML file. Raises `UserError` where it is missing or something in it is wrong."""
    path = PROTOCOLS / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    if not path.is_file() and (PROTOCOLS / path.name).is_file():
        path = PROTOCOLS / path.name
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in PROTOCOLS.glob("*.toml")))
        raise UserError(f'There is no protocol "{name}": give a TOML file, or one of {known}.') from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is no text: give a TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name} is no valid TOML ({error}): mend that line.") from error
    settings, arms = content.get("run", {}), content.get("arms", [])
    if not isinstance(settings, dict):
        raise UserError(f"{path.name}: run must be a table of options, below a line [run].")
    if not isinstance(arms, list) or not all(isinstance(arm, dict) for arm in arms):
        raise UserError(f"{path.name}: arms must be tables of options, each below a line [[arms]].")
    for key in content:
        if key not in (*KEYS, *TEXTS, *ARMS):
            raise UserError(f'{path.name}: there is no option "{key}"{spec.nearest(key, (*KEYS, *TEXTS, *ARMS))}')
    missing = [key for key in KEYS if not content.get(key)] + [
        f"run.{key}" for key in ("task", "dataset") if key not in settings
    ]
    if not any(content.get(key) for key in ARMS):
        missing.append("strategies (or arms)")
    if missing:
        raise UserError(f"{path.name} does not say {', '.join(missing)}: add it.")
    if "strategies" in content and not _is_list(content["strategies"], str):
        names = spec.strategies()
        raise UserError(f'{path.name}: strategies must be a list of names, such as ["{names[0]}", "{names[-1]}"].')
    if not _is_list(content["seeds"], int):
        raise UserError(f"{path.name}: seeds must be a list of whole numbers, such as [0, 1, 2].")
    _check_table(settings, settings, f"{path.name}, [run]")
    for arm in arms:
        _check_table({"method": "cleaning", **arm}, {**settings, **arm}, f"{path.name}, [[arms]]")
    for name in content.get("strategies", []):
        settle.check({**settings, "method": name}, path.name)
    for seed in content["seeds"]:
        spec.check({"seed": seed}, str, where=path.name)
    arms = [{"method": name} for name in content.get("strategies", [])] + [
        {"method": "cleaning", **arm} for arm in arms
    ]
    texts = {key: str(content.get(key, "")) for key in TEXTS}
    return Protocol(path.stem, str(content["title"]), arms, content["seeds"], settings, **texts)


def _check_table(table: dict[str, Any], settings: dict[str, Any], where: str) -> None:
    """Raise `UserError` for an option of a table that a protocol does not give, or a value that it cannot have.

    settings: all that hold where the table does.
    """
    names = [
        name for name, one in spec.OPTIONS.items() if one.option.level != "program" and name not in ("seed", "method")
    ]
    for name in table:
        if name == "seed" or (name == "method" and table is settings):
            raise UserError(
                f"{where}: {name} is given by {'seeds' if name == 'seed' else ' or '.join(ARMS)}: remove it."
            )
        if name not in (*names, "method"):
            raise UserError(f'{where}: there is no option "{name}"{spec.nearest(name, names)}')
    settle.check(settings, where)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def create(
    protocol: str | Protocol,
    *,
    arms: list[str] | None = None,
    seeds: list[int] | None = None,
    settings: dict[str, Any] | None = None,
    command: str = "",
) -> Study:
    """A new study by a protocol, with its arms, seeds and settings where none are given; nothing is trained yet.

    arms: of label cleaning those of the protocol with these names (`Config.arm`); of active learning any strategies ·
    command: what the user typed for it, kept beside the results. Raises `UserError` for what cannot run.
    """
    protocol = read(protocol) if isinstance(protocol, str) else protocol
    settings = {**protocol.run, **(settings or {})}
    known = dict(zip(protocol.names, protocol.arms, strict=True))
    if not spec.QUESTIONS[settings["task"]].checks:
        known = {name: {"method": name} for name in known if arms is None} | {
            name: {"method": name} for name in arms or []
        }
    absent = [name for name in arms or [] if name not in known]
    if absent:
        raise UserError(f'{protocol.name} has no arm "{absent[0]}": choose of {", ".join(known)}.')
    load, configs = settle.loader(), []
    for seed in dict.fromkeys(protocol.seeds if seeds is None else seeds):
        for name in known if arms is None else dict.fromkeys(arms):
            config, dataset = settle.settle({**settings, **known[name], "seed": seed}, load)
            configs.append(config)
    if not configs:
        raise UserError("A study needs at least one strategy or arm, and one seed: choose some.")
    study = Study(new_folder(home() / "studies", protocol.name))
    runs = {f"{study.id}-{c.arm.replace(', ', '-')}-s{c.seed}": dataclasses.replace(c, study=study.id) for c in configs}
    plan = {
        "title": protocol.title,
        "command": command,
        "about": settle.about(dataset),
        "version": spec.VERSION,
        "runs": {run_id: dataclasses.asdict(config) for run_id, config in runs.items()},
    }
    write_atomically(study.path / "study.json", json.dumps(plan, indent=1).encode())
    study.complete()
    return study


def exists(study_id: str) -> bool:
    """Whether there is a study of this id below `home()`."""
    path = home() / "studies" / study_id
    try:
        return path.parent == home() / "studies" and not study_id.startswith(".") and (path / "study.json").is_file()
    except (OSError, ValueError):  # a name longer than the system allows, or with a null byte
        return False


def find(study_id: str) -> Study:
    """The study of this id. Raises `UserError` where there is none."""
    if not exists(study_id):
        raise UserError(
            f'There is no study "{study_id[:100]}" under {home()}: `python -m core list` shows those there are.'
        )
    return Study(home() / "studies" / study_id)


def all_studies() -> list[Study]:
    """All studies below `home()`, the newest first."""
    return sorted(
        (Study(path.parent) for path in home().glob("studies/*/study.json")), key=lambda s: s.id, reverse=True
    )
