"""Images that somebody uploads as a zip file: checked entry by entry, and unpacked below $NEXTLABEL_DATA/uploads.

Only images, tables of labels, votes or classes and COCO annotations are taken, each measured while it is written
(`data.files.archive`); nothing in them is run. What is an image is judged as in a folder, by its content; what else the archive
holds is left out, and its names are kept for who asks what is missing.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from data.errors import UserError
from data.files import predictions
from data.files.archive import Archive, Entry, Unsafe
from data.files.cache import home, write_atomically
from data.files.imagefile import CLUTTER, PREFIX, left_out
from data.files.skipped import LEFT_OUT

MOST_BYTES, MOST_FILES = 16 << 30, 500_000
TABLES = {".csv", ".parquet"}
BESIDE, CLASSES = TABLES | {".json"}, "classes.txt"  # what may lie beside images in an archive
TAKEN = b"2"  # changes where more of the same archive is taken
BLOCK = 1 << 20
UNUSUAL = re.compile(r"[^\w.-]")  # in a file's name


def unpack(file: BinaryIO) -> Path:
    """The folder of an uploaded archive's images; the same content is unpacked once.

    A single folder that holds everything is left out of the paths. Raises `UserError` for what is no zip file of images,
    and nothing stays behind then.
    """
    found = hashlib.sha256(TAKEN)
    file.seek(0)
    while block := file.read(BLOCK):
        found.update(block)
    target = home() / "uploads" / found.hexdigest()[:16]
    if target.is_dir():
        return target
    file.seek(0)
    try:
        with Archive(file, files=MOST_FILES, size=MOST_BYTES) as archive:
            chosen, others = _chosen(archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
            try:
                _write(archive, chosen, staging)
                if others:
                    (staging / LEFT_OUT).write_text(json.dumps(others), encoding="utf-8")
                os.replace(staging, target)
            except OSError:
                if not target.is_dir():  # else somebody else unpacked the same in the meantime
                    raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except Unsafe as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"the images cannot be unpacked in {target.parent} ({error}); free some space, or set NEXTLABEL_DATA elsewhere"
        ) from error
    return target


def keep_table(name: str, content: bytes) -> Path:
    """Keep an uploaded table of labels or votes; its path. Raises `UserError` for what is no .csv or .parquet."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in TABLES:
        raise UserError(f"{name[:100]!r} is no table; give a file .csv or .parquet")
    return _kept(home() / "uploads" / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}", content)


def keep_predictions(name: str, content: bytes) -> Path:
    """Keep uploaded predictions or embeddings, under their own name, which messages show; their path.

    Raises `UserError` for what is no .npy, .csv or .parquet.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in predictions.SUFFIXES:
        raise UserError(f"{name[:100]!r} holds no predictions; give a file {', '.join(predictions.SUFFIXES)}")
    stem = UNUSUAL.sub("_", PurePosixPath(name).stem)[:80]
    return _kept(
        home() / "uploads" / "predictions" / hashlib.sha256(content).hexdigest()[:16] / f"{stem}{suffix}", content
    )


def _kept(path: Path, content: bytes) -> Path:
    try:
        write_atomically(path, lambda part: part.write_bytes(content))
    except OSError as error:
        raise UserError(f"the table cannot be kept in {path.parent} ({error}); free some space") from error
    return path


def _chosen(archive: Archive) -> tuple[list[tuple[Entry, PurePosixPath]], list[tuple[str, str]]]:
    """What is to be unpacked of an archive, and where; and the names of the rest, each with the reason."""
    found: list[Entry] = []
    others: list[tuple[str, str]] = []
    for entry in archive.entries:
        path = entry.path
        if path.name.lower() in CLUTTER or any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        if not _beside(path) and (why := left_out(path, partial(archive.start, entry, PREFIX))):
            others.append((str(path), why))
        else:
            found.append(entry)
    if all(_beside(entry.path) for entry in found):
        raise UserError(
            "this zip file holds no image; pack a folder of images: class folders, images and a metadata.csv, or images with "
            "masks"
        )
    archive.check(found)
    tops = {entry.path.parts[0] for entry in found}
    above = int(len(tops) == 1 and all(len(entry.path.parts) > 1 for entry in found))
    return [(entry, PurePosixPath(*entry.path.parts[above:])) for entry in found], others


def _beside(path: PurePosixPath) -> bool:
    return path.suffix.lower() in BESIDE or path.name.lower() == CLASSES


def _write(archive: Archive, chosen: list[tuple[Entry, PurePosixPath]], target: Path) -> None:
    for entry, path in chosen:
        out = target / path
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("xb") as written:
            for block in archive.blocks(entry):
                written.write(block)
