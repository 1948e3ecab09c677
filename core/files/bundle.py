"""A whole run as one zip file, which another installation opens, and which shows the same figures there. Needs no torch.

Inside: the configuration, the label log and the finished phases as tables, rankings, posteriors and embeddings of every
cycle, what the figures need of the data (labels and votes; the images if asked for), and a manifest with the digest of each
file. Paths of the machine that made it are left out.

Opening one is as safe as reading a picture: only known names are taken, each is measured and checked against the manifest,
nothing can run code, the tables are checked and rewritten, and the database is made here.
"""

import dataclasses
import hashlib
import io
import json
import platform
import re
import shutil
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
from safetensors import SafetensorError, safe_open

import data
from core import methods
from core.runs import answers, attribution, imported, removal, settle, spec
from core.runs.branch import CHANGES
from core.runs.live import PHASES
from core.runs.run import ABOUT, CLASS_IOU, LEFT_OUT, REGION, REGIONS, SKIPPED_COUNTS, TAKE, Run, examples, home
from core.runs.spec import LARGEST, Config
from core.store.atomic import write_array, write_atomically, write_table, writing
from core.store.log import MASKS, UNSURE
from core.store.maskfiles import MaskFiles
from data import ImageDataset
from data.errors import UserError
from data.files import archive, packed, predictions
from data.masks import VOID

FORMAT, VERSION = "nextlabel-run", 1
MANIFEST = "manifest.json"
EMBEDDED = ("fashion", "garments")  # data sets that every installation has
PASSING = ("starting", "waiting", "error", "deaths", "images")  # facts that are of the moment, or of the place
MEASURED = {  # what `core.engine.evaluation` keeps as facts, and what is in each
    "evaluation": {"classifier", "labels", "seed", "accuracy", "correctness", "n_labels", "relabelled", "seconds"},
    "model-selection": {"selector", "width", "epochs", "seed", "accuracy", "validation_noisy", "validation_cleaned"},
}
MOST_IMAGES = 1 << 30  # bytes of images in a bundle
MOST, MOST_FILES, MOST_TEXT = 4 << 30, 20_000, 64 << 20  # bytes in all, files, bytes of one JSON file
CYCLE = r"cycle-\d{3}"
MEMBER = re.compile(
    rf"config\.json|facts\.json|phases\.json|events\.parquet|data/dataset\.json|data/[a-z_]{{1,20}}\.npy|"
    rf"masks/[0-9a-f]{{2}}/[0-9a-f]{{32}}\.png|{CYCLE}/(ranking\.parquet|regions\.parquet|removal\.json|"
    rf"(posterior|embedding|imported|imported-embeddings|predicted|entropies)\.npy|"
    rf"weights(-\d+-\d+|-validation)?\.safetensors|influence-\d{{6,9}}\.json)"
)
EVENTS = ["seq", "cycle", "sample_id", "label", "source", "time"]
RANKING = {"sample_id", "rank", "label", "suggested", "confidence", "status", "n_votes"}
ODD = (  # what odd contents raise where they are read
    *(KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError, OSError),
    *(pyarrow.ArrowException, sqlite3.Error),
)
DIGEST = re.compile("[0-9a-f]{32}")
NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}")


class NotInstalledError(UserError):
    """A bundle that was made with a package or plug-in that is not here."""


def write(
    run: Run, dataset: ImageDataset, file: Path | IO[bytes], *, images: bool = False, weights: bool = False
) -> None:
    """Write the bundle of a run to a path or an open file.

    images: those of the data set too, test images included, so that the run can go on elsewhere · weights: those of every
    cycle. Raises `UserError` where the run has no finished cycle, or the images are too large to take along.
    """
    n_cycles = len(run.cycles())
    if n_cycles == 0:
        raise UserError(f"Run {run.id} has no finished cycle yet: wait for one, then bundle it.")
    embedded = run.config.dataset in EMBEDDED
    size = dataset.images.nbytes + dataset.test_images.nbytes
    if images and not embedded and size > MOST_IMAGES:
        raise UserError(
            f"The images take {size >> 20:,} MB, more than the {MOST_IMAGES >> 20:,} MB that a bundle holds: make it without "
            "them, and hand the images over separately."
        )
    config = spec.without_paths(run.config)
    source = _without_paths(dataset.annotators_source, run.config)
    dataset = dataclasses.replace(dataset, annotators_source=source)
    facts = {key: value for key, value in run.log.facts("").items() if key not in PASSING}
    with archive.Writer(file) as out:
        start = {**spec.for_file(config), "about": {**run.about, "annotators_source": source}}
        out.add("config.json", _json(start))
        out.add("facts.json", _json(facts))
        out.add("phases.json", _json(run.log.phases().to_dict("records")))
        events = run.log.events()
        out.add("events.parquet", _parquet(events))
        for digest in sorted(set(events["digest"].dropna())) if "digest" in events else ():
            path = run.masks.path(digest)
            run.masks.read(digest)  # no bundle is made of what is damaged
            out.add(path.relative_to(run.path).as_posix(), path.read_bytes())
        if not embedded:
            out.add(f"data/{packed.MARK}", _json(packed.describe(dataset, images=images)))
            for name, array in packed.arrays(dataset, images=images).items():
                with out.entry(f"data/{name}.npy") as entry:
                    np.save(entry, np.asarray(array), allow_pickle=False)
        for cycle in range(n_cycles):
            here = run.cycle_path(cycle)
            kept = [
                "ranking.parquet",
                REGIONS,
                answers.POSTERIOR,
                answers.PREDICTED,
                answers.ENTROPIES,
                "embedding.npy",
                imported.PROBS,
                imported.EMBEDDINGS,
                removal.FILE,
            ]
            kept += [path.name for path in sorted(here.glob("weights*.safetensors"))] if weights else []
            for name in kept:
                if (here / name).is_file():  # a ranking that did not train has no embedding
                    out.add(f"{here.name}/{name}", (here / name).read_bytes())
            for row, one in attribution.kept(run, dataset, cycle).items():
                out.add(f"{here.name}/{attribution.file(run, cycle, row).name}", attribution.to_json(one))
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "run": run.id,
            "images": "embedded" if embedded else "included" if images else LEFT_OUT,
            "made with": {"python": platform.python_version()}
            | {name: version(name) for name in ("numpy", "pandas", "pyarrow", "plotly")},
            "files": out.files,
        }
        out.add(MANIFEST, _json(manifest))


def _without_paths(text: str, config: Config) -> str:
    """A text with the names of folders and tables instead of where they lie on this machine."""
    for path in (config.root, config.labels, config.votes):
        if path is not None:
            text = text.replace(str(Path(path).resolve()), Path(path).name).replace(path, Path(path).name)
    return text


def to_bytes(run: Run, dataset: ImageDataset, *, images: bool = False, weights: bool = False) -> bytes:
    """What `write` writes."""
    content = io.BytesIO()
    write(run, dataset, content, images=images, weights=weights)
    return content.getvalue()


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def opened(file: Path | IO[bytes]) -> Run:
    """The run of a bundle, put below `home()` under its own name; that of an example gets "-opened" behind it.

    Raises `UserError` for what is no bundle, is damaged or dangerous, or where a run of this name is there already.
    """
    with writing(home()):
        home().mkdir(parents=True, exist_ok=True)
        (home() / ".cache").mkdir(exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="opening-", dir=home() / ".cache"))
    try:
        raw = staging / "raw"
        manifest = _unpack(file, raw)
        made = staging / "run"
        try:
            _rebuild(raw, made, manifest)
        except ODD as error:
            raise _odd("its contents do not fit together") from error
        target = home() / _name(str(manifest["run"]))
        with writing(home()):
            if target.exists():
                raise UserError(
                    f"There is a run {target.name} already: rename or delete its folder, then open the bundle again."
                )
            made.rename(target)
        return Run(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _name(run_id: str) -> str:
    """What an opened run is called: as it was, unless an example has that name."""
    return f"{run_id}-opened" if run_id in {one.id for one in examples()} else run_id


def _odd(what: str) -> UserError:
    return UserError(
        f"This is no bundle that can be opened ({what}): ask for it once more, or make it with `python -m core bundle`."
    )


def _unpack(file: Path | IO[bytes], target: Path) -> dict[str, Any]:
    """Check every entry and write it below `target`; returns the manifest."""
    try:
        with archive.Archive(file, files=MOST_FILES, size=MOST) as opened:
            opened.check(opened.entries)
            entries = {str(entry.path): entry for entry in opened.entries}
            for name, entry in entries.items():
                if name != MANIFEST and not MEMBER.fullmatch(name):
                    raise _odd(f'"{name[:60]}" does not belong there')
                if name.endswith(".json") and entry.size > MOST_TEXT:
                    raise _odd(f"{name} is too large")
            if MANIFEST not in entries:
                raise _odd("it has no manifest")
            manifest = _manifest(b"".join(opened.blocks(entries[MANIFEST])))
            if set(manifest["files"]) | {MANIFEST} != set(entries):
                raise _odd("its files are not those of its manifest")
            for name, said in manifest["files"].items():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                digest, n = hashlib.sha256(), 0
                with path.open("wb") as copy:
                    for block in opened.blocks(entries[name]):
                        digest.update(block)
                        n += len(block)
                        with writing(target):
                            copy.write(block)
                if n != said.get("bytes") or digest.hexdigest() != said.get("sha256"):
                    raise _odd(f"{name} is not what the manifest says")
            return manifest
    except FileNotFoundError as error:
        raise UserError(f"There is no file {file}: give the path of a bundle.") from error
    except archive.Unsafe as error:
        raise _odd(f"it {error.what}") from error


def _manifest(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        whole = found["format"] == FORMAT and isinstance(found["files"], dict)
        whole = whole and all(isinstance(said, dict) for said in found["files"].values())
        whole = whole and bool(NAME.fullmatch(found["run"])) and found["images"] in ("embedded", "included", LEFT_OUT)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _odd("its manifest cannot be read") from error
    if not whole:
        raise _odd("its manifest is not one of NextLabel")
    if found["version"] != VERSION:
        raise UserError("This bundle was made by another version of NextLabel: update the older of the two.")
    return dict(found)


def _rebuild(raw: Path, target: Path, manifest: dict[str, Any]) -> None:
    """Make the run's folder at `target` from the unpacked files; may raise all that odd contents raise."""
    start = json.loads((raw / "config.json").read_text())
    config, about = _config(start), _about(start["about"])
    target.mkdir()
    if (raw / "data").is_dir():
        _data(raw / "data", target / "data", config)
    dataset = _dataset(target, config)
    ids = dataset.ids
    if len(ids) != about["n_samples"] or dataset.class_names != about["class_names"]:
        raise _odd("its images are not those that it was made on")
    if dataset.answer != about.get("answer", answers.ClassAnswer.kind):
        raise _odd("its labels are not of the kind that its data set has")
    _check_config(config, dataset)
    phases = [_phase(one) for one in json.loads((raw / "phases.json").read_text())]
    done = sorted(one["cycle"] for one in phases if one["phase"] == "score")
    if done != list(range(len(done))) or not done:
        raise _odd("it has no finished cycle")
    for cycle in done:
        name = f"cycle-{cycle:03d}"
        _cycle(raw / name, target / name, dataset)
        if (raw / name / removal.FILE).is_file():
            _removal(raw / name / removal.FILE, Run(target), cycle, set(ids))
    events = _events(raw / "events.parquet", set(ids), answers.of(dataset.class_names, dataset.answer).n_labels)
    _masks(MaskFiles(raw / "masks"), MaskFiles(target / "masks"), events, dataset)
    facts = _facts(json.loads((raw / "facts.json").read_text()))
    if manifest["images"] == LEFT_OUT and (target / "data").is_dir():
        facts["images"] = LEFT_OUT
    run = Run(target)
    run.log.create()
    run.log.restore(events, phases, facts)
    write_atomically(target / "config.json", json.dumps({**spec.for_file(config), "about": about}, indent=1).encode())


def _config(start: dict[str, Any]) -> Config:
    """What the specification allows; `_check_config` says whether it can run. Raises as `spec.of_file`."""
    try:
        config = spec.without_paths(spec.of_file(start))
        _check_installed(config)
        settle.check(dataclasses.asdict(config), where="")
    except NotInstalledError:
        raise
    except spec.LaterVersionError as error:
        raise UserError(f"This bundle cannot be opened: {error}.") from error
    except UserError as error:
        raise _cannot_run(error) from error
    for name in (config.study, config.parent):
        if name is not None and not NAME.fullmatch(name):
            raise _odd("its configuration names what cannot be")
    return config


def _check_installed(config: Config) -> None:
    """Raise `UserError` for a strategy, score, selector or data set that is not installed here."""
    ranked_by = methods.label_scores.CATALOGUE if config.question.checks else methods.strategies.CATALOGUE
    for name, known in (
        (config.method, ranked_by),
        (config.selector, methods.selectors.CATALOGUE),
        (config.dataset, data.CATALOGUE),
    ):
        if name not in known:
            raise NotInstalledError(
                f'The bundle needs the {known.word} "{name[:100]}", which is not installed here: install the package or plug-in '
                "that it was made with."
            )


def _check_config(config: Config, dataset: ImageDataset) -> None:
    """Raise `UserError` for settings that no new run could have, those of a branch's shared cycles among them."""
    settings: list[dict[str, Any]] = [{}]
    for past in config.earlier or []:
        if not {"until"} <= set(past) <= {"until", *CHANGES} or type(past["until"]) is not int or past["until"] < 1:
            raise _odd("its configuration cannot run")
        settings.append({name: value for name, value in past.items() if name != "until"})
    try:
        for changes in settings:
            settle.check({**dataclasses.asdict(config), **changes}, where="")
            settle.prepare(dataclasses.replace(config, **changes), dataset)
    except UserError as error:
        raise _cannot_run(error) from error


def _cannot_run(error: UserError) -> UserError:
    return _odd(f"its configuration cannot run: {str(error).rstrip('.')}")


def _about(found: dict[str, Any]) -> dict[str, Any]:
    names = found["class_names"]
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise _odd("its classes have no names")
    if type(found["n_samples"]) is not int or found["annotators"] not in ("human", "simulated", "none"):
        raise _odd("it does not say what its data are")
    skipped = [[str(name), str(reason)] for name, reason in found["skipped"]]
    whole = {**found, "annotators_source": str(found["annotators_source"]), "skipped": skipped}
    answer = {"answer": str(found["answer"])} if "answer" in found else {}
    counts = {str(reason): int(n) for reason, n in dict(found.get(SKIPPED_COUNTS, {})).items()}
    return {**{name: whole[name] for name in ABOUT}, **answer, SKIPPED_COUNTS: counts}


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    """Those that a run has, if they are what they should be."""
    kept: dict[str, Any] = {key: int(found[key]) for key in ("target", "goal") if key in found}
    if not all(1 <= value <= LARGEST for value in kept.values()):
        raise ValueError
    if "machine" in found:
        kept["machine"] = str(found["machine"])
    for key, value in found.items():
        prefix = key.split("/")[0]
        if re.fullmatch(rf"{TAKE}\d{{1,6}}", key) and type(value) is int and 0 < value <= LARGEST:
            kept[key] = value
        if prefix in MEASURED and MEASURED[prefix] <= set(value):
            kept[key] = {str(name): one for name, one in value.items() if isinstance(one, str) or _is_measure(one)}
    return kept


def _phase(found: dict[str, Any]) -> dict[str, Any]:
    result = found["result"]
    if found["phase"] not in PHASES or type(found["cycle"]) is not int or not isinstance(result, dict):
        raise ValueError
    scored = found["phase"] == "score"
    for key, value in result.items():
        worded = isinstance(value, str) and (not scored or key == "influence_failed")
        listed = key == CLASS_IOU and isinstance(value, list) and all(map(_is_measure, value))
        if not (_is_measure(value) or worded or listed) or not isinstance(key, str):
            raise ValueError
    if scored and not isinstance(result["n_labels"], int):
        raise ValueError
    if not 0 <= found["cycle"] <= LARGEST or not _is_measure(found["seconds"]):
        raise ValueError
    return {"cycle": found["cycle"], "phase": found["phase"], "seconds": float(found["seconds"]), "result": result}


def _is_measure(value: Any) -> bool:
    """Whether a value is a number that a table can hold, or none."""
    return value is None or (isinstance(value, int | float) and not abs(value) > LARGEST)


def _data(raw: Path, target: Path, config: Config) -> None:
    """The data of the bundle, unless those of the same name are here and it brings no images."""
    found = packed.load(raw)
    if not (raw / "images.npy").is_file() and config.dataset not in spec.OWN:
        try:
            here = data.load(config.dataset, None, **config.load_options)
        except UserError:
            here = None
        if here is not None and here.ids == found.ids and np.array_equal(here.labels, found.labels):
            return
    target.mkdir()
    images = (raw / "images.npy").is_file()
    write_atomically(target / packed.MARK, json.dumps(packed.describe(found, images=images)).encode())
    for name, array in packed.arrays(found, images=images).items():
        write_array(target / f"{name}.npy", np.asarray(array))


def _dataset(target: Path, config: Config) -> ImageDataset:
    root = str(target / "data") if (target / "data").is_dir() else None
    return data.load(config.dataset, root, **config.load_options)


def _cycle(raw: Path, target: Path, dataset: ImageDataset) -> None:
    ids, n_classes = dataset.ids, len(dataset.class_names)
    target.mkdir()
    ranking = _table(raw / "ranking.parquet", len(ids))
    columns = set(ranking.columns)
    numbers = ranking[sorted(columns - {"sample_id", "status"})]
    if not columns >= RANKING or not all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes):
        raise ValueError
    for name, least in (("label", -1), ("suggested", 0)):
        if not ranking[name].between(least, n_classes - 1).all() or not pd.api.types.is_integer_dtype(ranking[name]):
            raise ValueError
    if ranking["sample_id"].tolist() != ids or not ranking["status"].map(lambda one: isinstance(one, str)).all():
        raise ValueError
    write_table(target / "ranking.parquet", ranking)
    if (raw / REGIONS).is_file():
        write_table(target / REGIONS, _regions(raw / REGIONS, dataset))
    arrays = {"embedding.npy": None, imported.PROBS: n_classes, imported.EMBEDDINGS: None}
    there = [(name, width) for name, width in arrays.items() if (raw / name).is_file()]
    answer = answers.of(dataset.class_names, dataset.answer)
    for name, most in answer.images.items():
        array = np.load(raw / name, mmap_mode="r", allow_pickle=False)
        if array.shape != dataset.labels.shape or array.dtype != np.uint8 or array.max(initial=0) > most:
            raise ValueError
        write_array(target / name, np.asarray(array))
    for name, width in (*([] if answer.images else [(answers.POSTERIOR, n_classes)]), *there):
        array = np.load(raw / name, mmap_mode="r", allow_pickle=False)
        if array.ndim != 2 or array.shape != (len(ids), width or array.shape[1]) or array.dtype.kind != "f":
            raise ValueError
        if name == imported.PROBS:
            predictions.check(array, name, ids)
        write_array(target / name, np.asarray(array))
    for path in sorted(raw.glob(attribution.FILES)):
        found = attribution.of_json(path.read_bytes())
        classes = {found.label, *(one for each in (*found.helps, *found.harms) for one in (each.label, each.suggested))}
        if max(classes) >= n_classes or found.sample_id != ids[int(path.stem.removeprefix("influence-"))]:
            raise ValueError
        write_atomically(target / path.name, attribution.to_json(found))
    for path in sorted(raw.glob("weights*.safetensors")):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise ValueError from error
        shutil.copyfile(path, target / path.name)


def _regions(path: Path, dataset: ImageDataset) -> pd.DataFrame:
    found = _table(path, None)
    numbers = found.drop(columns=["sample_id", "status"])
    if not {*REGION, "rank"} <= set(numbers) or not all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes):
        raise ValueError
    if not found["label"].between(0, len(dataset.class_names) - 1).all() or not found["pixels"].ge(1).all():
        raise ValueError
    if not set(found["sample_id"]) <= set(dataset.ids) or not set(found["status"]) <= {"labelled", "cleaned"}:
        raise ValueError
    return found


def _masks(raw: MaskFiles, target: MaskFiles, events: pd.DataFrame, dataset: ImageDataset) -> None:
    """The masks that the events name, written anew."""
    if "digest" not in events:
        return
    for digest, pixels in events[["digest", "pixels"]].dropna().drop_duplicates().itertuples(index=False):
        try:
            codes = raw.read(str(digest), dataset.labels.shape[1:])
        except UserError as error:
            raise _odd("one of its masks cannot be read, or is of another size") from error
        if ((codes >= len(dataset.class_names)) & (codes != VOID)).any() or target.add(codes) != (digest, pixels):
            raise ValueError


def _removal(path: Path, run: Run, cycle: int, ids: set[str]) -> None:
    found = removal.parsed(path.read_bytes())
    if found.cycle != cycle or not set(found.sample_ids) <= ids:
        raise ValueError
    removal.write(run, found)


def _table(path: Path, rows: int | None) -> pd.DataFrame:
    """A Parquet file of so many rows, whose size is known before it is read."""
    about = pyarrow.parquet.read_metadata(path)
    size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    if about.num_columns > 200 or size > MOST or (rows is not None and about.num_rows != rows):
        raise ValueError
    return pd.read_parquet(path)


def _events(path: Path, ids: set[str], n_labels: int) -> pd.DataFrame:
    whole = _table(path, None)
    found = whole[[*EVENTS, *(name for name in MASKS if name in whole)]]
    if "digest" in found and not found["digest"].dropna().map(lambda one: bool(DIGEST.fullmatch(str(one)))).all():
        raise ValueError
    for name in ("seq", "cycle", "label"):
        if not pd.api.types.is_integer_dtype(found[name]):
            raise ValueError
    ordered = found["seq"].is_unique and found["seq"].is_monotonic_increasing
    if not found["label"].between(UNSURE, n_labels - 1).all() or not ordered:
        raise ValueError
    texts = found[["source", "time"]].map(lambda one: isinstance(one, str))
    if not set(found["sample_id"]) <= ids or not texts.all(axis=None):
        raise ValueError
    return found
