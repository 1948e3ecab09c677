"""WebDataset's shards: tar files in which an image and its label have one name, up to the first dot.

    000001.jpg  000001.cls     the label: a text, or a number
    000002.png  000002.json    or JSON, an object with "label", "cls" or "class"

`root` is one tar file or a folder of them; those whose name or folder begins with "test" (or else "val") are the test set.
Ids are SHARD/KEY. Nothing is unpacked and no name is used as a path: images are read from where they lie in the file. Links,
devices and whatever else is no plain file are passed over; shards must not be compressed.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import ImageDataset
from data.errors import UserError
from data.files.encoded import Ranges
from data.files.imagefile import SUFFIXES
from data.lazy import Fit
from data.sources import Source, own
from data.sources.own import Entry, Found, Progress, assemble

IMAGES = {suffix[1:] for suffix in SUFFIXES} | {"avif", "heic", "heif", "jp2", "dcm"}
LABELS = ("label", "cls", "class")  # keys of JSON
LARGEST = 1 << 20  # bytes of a label
FAILED = "its label cannot be read"


def load(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
) -> ImageDataset:
    """The images in tar files at `root`; options and errors as of `data.sources.folder.load`.

    class_names: names for labels that are numbers, by their order.
    """
    return assemble(find(root, size, fit, class_names, test_share), class_names)


def find(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """Read the shards' directories and labels, and look at the images; parameters and errors as of `load`."""
    own.check_options(size, fit, test_share)
    shards = own.shards(root, ".tar", "tar file")
    top = root.resolve() if root.is_dir() else root.resolve().parent
    entries: list[Entry] = []
    skipped: list[tuple[str, str]] = []
    names: list[str] = []
    which: list[int] = []
    places: list[tuple[int, int]] = []
    for number, (file, test) in enumerate(shards):
        stem = file.relative_to(top).with_suffix("").as_posix()
        labels: dict[str, Any] = {}
        images: dict[str, tuple[str, int, int]] = {}
        for name, start, content in _members(file):
            key, kind = _split(name)
            if isinstance(content, bytes):
                labels[key] = _label(content, kind)
            elif kind in IMAGES and key in images:
                skipped.append((f"{stem}/{name}", "its key has another image"))
            elif kind in IMAGES:
                images[key] = name, start, content
        try:
            given = own.named([labels.get(key) for key in images], class_names)
        except UserError as error:
            raise UserError(f"{file.name}: {error}") from None
        for (key, (name, start, length)), label in zip(images.items(), given, strict=True):
            if label == FAILED:
                skipped.append((f"{stem}/{key}", FAILED))
                continue
            if label is None and (class_names is None or test):
                skipped.append((f"{stem}/{key}", "it has no label"))
                continue
            entries.append(Entry(f"{stem}/{key}", label, test, place=len(names)))
            names.append(name)
            which.append(number)
            places.append((start, length))
    if not entries:
        first = f", but {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UserError(
            f"there is no image with a label in {root}{first}; expected KEY.jpg and KEY.cls or KEY.json, or name the classes for "
            "people to choose from"
        )
    entries = own.pool_then_test(entries, test_share)
    start, length = np.array(places, np.int64).T
    changed = np.array([file.stat().st_mtime_ns for file, _ in shards], np.int64)
    files = Ranges([file for file, _ in shards], np.array(which, np.int32), start, length, names, changed)
    return own.found(
        "webdataset",
        root.resolve(),
        entries,
        files.take(np.array([entry.place for entry in entries], np.int64)),
        size=size,
        fit=fit,
        skipped=skipped,
        progress=progress,
    )


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a name: up to the first dot behind its folders, and from the last."""
    folder, slash, last = name.rpartition("/")
    key, _, rest = last.partition(".")
    return folder + slash + key, rest.rsplit(".", 1)[-1].lower()


def _members(file: Path) -> Iterator[tuple[str, int, int | bytes]]:
    """(name, start, length) of every plain file in a tar file, of a label its content instead of the length."""
    try:
        if file.stat().st_size % tarfile.BLOCKSIZE:
            raise EOFError("it ends in the middle of a block")
        with tarfile.open(file, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # of a million, they would keep a kilobyte each
                if not member.isreg() or member.issparse() or member.name.rsplit("/", 1)[-1].startswith("."):
                    continue
                label = member.name.lower().endswith((".cls", ".json", ".txt"))
                if not label:
                    yield member.name, member.offset_data, member.size
                elif member.size <= LARGEST and not member.name.lower().endswith(".txt"):
                    opened = archive.extractfile(member)
                    yield member.name, member.offset_data, b"" if opened is None else opened.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{file.name} cannot be read as an uncompressed tar file ({error}); download or write it again"
        ) from error


def _label(content: bytes, kind: str) -> Any:
    """What a label's file says: a text, a number, or None; `FAILED` where it is none of these."""
    try:
        text = content.decode("utf-8").strip()
        found = json.loads(text) if kind == "json" else text
        if isinstance(found, dict):
            found = next((found[name] for name in LABELS if name in found), None)
    except (ValueError, RecursionError):
        return FAILED
    if isinstance(found, str) and found.lstrip("-").isdigit() and found.isascii():
        return int(found)
    return found if found is None or isinstance(found, str | int) else FAILED


SOURCE = Source(
    name="webdataset",
    title="Your own images: WebDataset's tar files",
    load=load,
    find=find,
    options=own.OPTIONS,
    needs_root=True,
    place=8,
)
