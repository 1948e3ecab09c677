"""What label cleaning hands to other tools, and what comes back: cleanlab's columns, Label Studio, tables of votes.

Pure functions on tables, and the files they make. Needs no torch.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd

from core.files.export import unguarded, write_by, write_file
from core.runs import answers
from data import annotations
from data.annotations import Annotations
from data.errors import UserError

T = TypeVar("T")
ANNOTATOR = "annotator"
"""In `meta` of a result that was handed out: who gave it."""
LARGEST = 500_000_000  # bytes of a file that is read in whole


@dataclass(frozen=True)
class Imported:
    """Votes that came back, in the order in which they were given, and how many were left out for which reason."""

    annotations: Annotations
    skipped: dict[str, int]


def label_studio_config(class_names: Sequence[str]) -> str:
    """The labelling configuration of a Label Studio project for these classes; the first nine have the digits as keys."""
    choices = "\n".join(
        f"    <Choice value={quoteattr(name)}" + (f' hotkey="{place}"' if place <= 9 else "") + "/>"
        for place, name in enumerate(class_names, start=1)
    )
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single-radio" showInline="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def label_studio_tasks(
    table: pd.DataFrame, class_names: Sequence[str], *, run: str, image_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """A ranking as Label Studio's import format, the suggested label of each image as its prediction.

    table: of `core.analysis.samples.table`, ranked rows alone · image_of: address of a sample's image. Label Studio serves
    the lowest prediction score first, so a prediction's score runs from 0 for rank 1 to just below 1 for the last.
    """
    return [
        {
            "data": {"image": image_of(row.sample_id), "sample_id": row.sample_id, "run": run, "given": row.given},
            "predictions": [
                {
                    "model_version": run,
                    "score": score,
                    "result": [
                        {
                            "from_name": "label",
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [row.suggested]},
                        }
                    ],
                }
            ],
        }
        for row, score in zip(table.itertuples(), prediction_scores(table), strict=True)
    ]


def prediction_scores(table: pd.DataFrame) -> list[float]:
    """The scores by which Label Studio serves rank 1 first: 0, and just below 1 for the last."""
    rank = table["rank"].to_numpy(np.float64)
    return ((rank - 1) / max(1.0, float(rank.max(initial=1)))).tolist()


def file_address(sample_id: str, suffix: str = ".png") -> str:
    """Where `write_label_studio` puts a sample's image, relative to the folder of the tasks."""
    safe = re.sub(r"[^\w.-]+", "_", sample_id, flags=re.ASCII).strip("._")[-80:]
    # Two ids may become one safe name: the digest keeps them apart
    return f"images/{blake2b(sample_id.encode(), digest_size=6).hexdigest()}-{safe}{suffix}"


def write_label_studio(
    folder: Path, tasks: Iterable[dict[str, Any]], config: str, images: Iterable[tuple[str, bytes]] | None
) -> list[Path]:
    """tasks.json, config.xml and, where images are given (address, content), these in a folder; one task at a time is held.

    Returns the first two and the folder of the images. Raises `UserError` where they cannot be written.
    """
    try:
        (folder if images is None else folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {folder} ({error.strerror}): name another one.") from error
    for address, content in images or ():
        write_file(folder / address, content)
    write_file(folder / "config.xml", config.encode())
    write_by(folder / "tasks.json", lambda path: _write_tasks(path, tasks))
    return [folder / "tasks.json", folder / "config.xml", *([] if images is None else [folder / "images"])]


def _write_tasks(path: Path, tasks: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, task in enumerate(tasks):
            file.write((",\n" if number else "\n") + json.dumps(task, ensure_ascii=False))
        file.write("\n]\n")


def read_votes(path: Path, sample_ids: Sequence[str], class_names: Sequence[str]) -> Imported:
    """A table of votes, CSV or Parquet, as `data.annotations.read` takes it. Raises `UserError` as that does."""
    votes = annotations.table(path)
    if path.suffix.lower() != ".parquet":
        for name in annotations.LONG:
            votes[name] = votes[name].map(unguarded)
    return Imported(annotations.resolve(votes, path.name, sample_ids, class_names), {})


def read_label_studio(
    path: Path, sample_ids: Sequence[str], class_names: Sequence[str], run: str | None = None
) -> Imported:
    """The votes in a Label Studio export (JSON or JSON-MIN) of tasks that `label_studio_tasks` made.

    Annotations that were cancelled, or chose nothing, are left out and counted; of several by one annotator on one image
    the latest holds. run: the run whose tasks they must be, None for any. Raises `UserError` for files that are no such
    export, of other tasks, or with classes that the run does not have.
    """
    found, skipped = latest(path, sample_ids, run, _choices, "nothing chosen")
    answer, labels = answers.of(class_names), []
    for row, _, choices in found:
        if len(choices) > 1:
            raise UserError(
                f"{path.name} has {len(choices)} choices in one annotation of {sample_ids[row]!r}: one label is wanted; set "
                'choice="single-radio" in the project, as config.xml does.'
            )
        labels.append(answer.read(choices[0], f"{path.name}, sample {sample_ids[row]!r}"))
    rows = np.array([row for row, _, _ in found], dtype=np.int64)
    return Imported(Annotations(rows, np.array(labels, dtype=np.int64), [who for _, who, _ in found]), skipped)


def latest(
    path: Path,
    sample_ids: Sequence[str],
    run: str | None,
    said: Callable[[dict[str, Any], str], list[T]],
    nothing: str,
) -> tuple[list[tuple[int, str, list[T]]], dict[str, int]]:
    """What each annotator said last of each image in a Label Studio export, in the order of time: row, annotator, and what.

    said: the parts of an annotation, of a file with this name; one without any is left out and counted, as `nothing` says. Others
    as of `read_label_studio`.
    """
    row_of = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    found: dict[
        tuple[int, str], tuple[float, int, list[T]]
    ] = {}  # by sample and annotator: time, place in the file, parts
    skipped: Counter[str] = Counter()
    place = 0
    for task in _tasks(path):
        data = task["data"] if isinstance(task.get("data"), dict) else task
        sample_id = data.get("sample_id")
        if not isinstance(sample_id, str):
            raise UserError(
                f"{path.name} is of another project: its tasks name no sample_id; make a project of this run's Label Studio "
                "file, and export that."
            )
        if run is not None and data.get("run") != run:
            named = f"the run {str(data['run'])[:100]!r}" if "run" in data else "no run"
            raise UserError(f"{path.name} holds tasks of {named}, not of {run}: import the export of this run's tasks.")
        if sample_id not in row_of:
            raise UserError(f"{path.name} names the sample {sample_id[:100]!r}, which this run's data do not hold.")
        for annotation in _annotations(task, path.name):
            place += 1
            if annotation.get("was_cancelled"):
                skipped["cancelled"] += 1
                continue
            parts = said(annotation, path.name)
            if not parts:
                skipped[nothing] += 1
                continue
            when = _seconds(annotation)
            key = (row_of[sample_id], _annotator(annotation))
            if key not in found or (when, place) > found[key][:2]:
                found[key] = (when, place, parts)
    in_time = sorted(found.items(), key=lambda item: item[1][:2])
    return [(row, who, parts) for (row, who), (_, _, parts) in in_time], dict(skipped)


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path.name} is larger than {LARGEST // 10**6} MB: export fewer tasks at a time.")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} cannot be read ({error}): give Label Studio's export as JSON.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path.name} is no whole JSON file ({error}): export it again from Label Studio, as JSON."
        ) from error
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        raise UserError(f"{path.name} is no list of tasks: export it from Label Studio as JSON or JSON-MIN.")
    return content


def _annotations(task: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The annotations of a task; JSON-MIN has one task an annotation, flat."""
    if "annotations" not in task:
        return [task] if "label" in task or task.get("annotation_id") is not None else []
    found = task["annotations"]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(f"{name} has a task whose annotations are no list: export it again from Label Studio, as JSON.")
    return found


def _choices(annotation: dict[str, Any], name: str) -> list[str]:
    """The classes that an annotation chose: none where the image was skipped."""
    try:
        if "result" in annotation:
            parts = [part for part in annotation["result"] or [] if part["type"] == "choices"]
            controls = {str(part.get("from_name", "label")) for part in parts}
            if controls and "label" not in controls:
                raise UserError(
                    f'{name} holds choices named {min(controls)[:100]!r}, not "label": set the project up with config.xml, or '
                    "rename them in the file."
                )
            chosen = [part["value"]["choices"] for part in parts if part.get("from_name", "label") == "label"]
        else:  # JSON-MIN: a class, several, or both as {"choices": …}
            label = annotation.get("label") or []
            label = label["choices"] if isinstance(label, dict) else label
            chosen = [[label] if isinstance(label, str) else label]
        if all(isinstance(some, list) for some in chosen):
            return [str(choice) for some in chosen for choice in some]
    except (AttributeError, KeyError, TypeError):
        pass
    raise UserError(f"{name} has a result of another form than Label Studio's choices: is it of another project?")


def _seconds(annotation: dict[str, Any]) -> float:
    """When it was given last; 0, before all others, where the export does not say."""
    try:
        when = datetime.fromisoformat(str(annotation.get("updated_at") or annotation.get("created_at")))
    except ValueError:
        return 0.0
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _annotator(annotation: dict[str, Any]) -> str:
    """Who did it: a number, an address, or what the export has of either; of what this run handed out, whom that names."""
    results = annotation.get("result") or []
    named = {
        part["meta"].get(ANNOTATOR) for part in results if isinstance(part, dict) and isinstance(part.get("meta"), dict)
    }
    if len(named) == 1 and all("meta" in part for part in results) and isinstance(found := named.pop(), str):
        return found
    who = annotation.get("completed_by", annotation.get("annotator"))
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return "unknown" if who is None else str(who)
