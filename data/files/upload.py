"""Images that somebody uploads as a zip file: checked entry by entry, and unpacked below $NEXTLABEL_DATA/uploads.

An archive can be made to harm: names that lead out of the folder, links, a few kilobytes that unpack to terabytes. Only images
and tables of labels or votes are taken, each measured while it is written; nothing in them is run. What is an image is judged
as in a folder, by its content; what else the archive holds is left out, and its names are kept for who asks what is missing.
"""

import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from data.errors import UserError
from data.files.cache import home, write_atomically
from data.files.imagefile import CLUTTER, PREFIX, left_out
from data.files.skipped import LEFT_OUT

MOST_BYTES, MOST_FILES = 16 << 30, 500_000
PACKED_TIGHT, SMALL = 200, 64 << 20  # larger than that many bytes in all, and packed tighter than that: a bomb
LONGEST = 255  # bytes of a name that file systems take
TABLES = {".csv", ".parquet"}
# Others unpack gigabytes where the first few bytes are asked for
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
BLOCK = 1 << 20
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def unpack(file: BinaryIO) -> Path:
    """The folder of an uploaded archive's images; the same content is unpacked once.

    A single folder that holds everything is left out of the paths. Raises `UserError` for what is no zip file of images,
    and nothing stays behind then.
    """
    found = hashlib.sha256()
    file.seek(0)
    while block := file.read(BLOCK):
        found.update(block)
    size = file.tell()
    target = home() / "uploads" / found.hexdigest()[:16]
    if target.is_dir():
        return target
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            chosen, others = _entries(archive, size)
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
    except BROKEN as error:
        raise UserError(
            f"this zip file cannot be read ({error}); pack the images anew, as zip, without a password"
        ) from error
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
    path = home() / "uploads" / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    try:
        write_atomically(path, lambda part: part.write_bytes(content))
    except OSError as error:
        raise UserError(f"the table cannot be kept in {path.parent} ({error}); free some space") from error
    return path


def _entries(
    archive: zipfile.ZipFile, size: int
) -> tuple[list[tuple[zipfile.ZipInfo, PurePosixPath]], list[tuple[str, str]]]:
    """What is to be unpacked of an archive of `size` bytes, and where; and the names of the rest, each with the reason."""
    listed = archive.infolist()
    if len(listed) > MOST_FILES:
        raise UserError(
            f"this zip file holds {len(listed):,} entries; at most {MOST_FILES:,} are taken: give a folder instead"
        )
    found: list[tuple[zipfile.ZipInfo, PurePosixPath]] = []
    others: list[tuple[str, str]] = []
    for entry in listed:
        path = _path(entry)
        if (
            entry.is_dir()
            or path.name.lower() in CLUTTER
            or any(part.startswith((".", "__MACOSX")) for part in path.parts)
        ):
            continue
        if path.suffix.lower() not in TABLES and (why := left_out(path, partial(_first, archive, entry))):
            others.append((str(path), why))
        else:
            found.append((entry, path))
    if all(path.suffix.lower() in TABLES for _, path in found):
        raise UserError(
            "this zip file holds no image; pack a folder of images: class folders, or images and a metadata.csv"
        )
    total = sum(entry.file_size for entry, _ in found)
    if total > max(SMALL, PACKED_TIGHT * size):
        raise UserError(
            f"this zip file unpacks to more than {PACKED_TIGHT} times its size, as no images do; save them as PNG or JPEG first"
        )
    if total > MOST_BYTES:
        raise UserError(
            f"this zip file unpacks to more than {MOST_BYTES >> 30} GB; copy the images to the server instead"
        )
    tops = {path.parts[0] for _, path in found}
    if len(tops) == 1 and all(len(path.parts) > 1 for _, path in found):
        found = [(entry, PurePosixPath(*path.parts[1:])) for entry, path in found]
    names = {str(path).casefold() for _, path in found}
    folders = {str(above).casefold() for _, path in found for above in path.parents}
    if len(names) < len(found) or names & folders:
        raise UserError(
            "this zip file holds two files of one name, or a file and a folder; rename one, and pack it anew"
        )
    return found, others


def _first(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as packed:
        return packed.read(PREFIX)


def _path(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Where an entry wants to be. Raises `UserError` for one that leads elsewhere, or is no plain file."""
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename or not path.parts:
        raise UserError(
            f"this zip file holds {_name(entry)}, a name that leads out of its folder; pack the images anew"
        )
    if any(len(part.encode()) > LONGEST for part in path.parts):
        raise UserError(f"{_name(entry)} in this zip file is too long a name; shorten it, and pack the images anew")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(f"{_name(entry)} in this zip file is a link, or no plain file; pack the images themselves")
    if entry.flag_bits & 1:
        raise UserError(f"{_name(entry)} in this zip file has a password; pack the images without one")
    if entry.compress_type not in METHODS:
        raise UserError(
            f"{_name(entry)} in this zip file is packed in an unusual way; pack the images anew, with “Deflate”"
        )
    return path


def _name(entry: zipfile.ZipInfo) -> str:
    return repr(entry.filename[:100])


def _write(archive: zipfile.ZipFile, chosen: list[tuple[zipfile.ZipInfo, PurePosixPath]], target: Path) -> None:
    for entry, path in chosen:
        out = target / path
        out.parent.mkdir(parents=True, exist_ok=True)
        left = entry.file_size  # as it says; what it holds is counted
        with archive.open(entry) as packed, out.open("xb") as written:
            while block := packed.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise UserError(f"{_name(entry)} in this zip file holds more than it says; pack the images anew")
                written.write(block)
