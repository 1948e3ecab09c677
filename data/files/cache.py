"""Where data sets lie, and decoded arrays kept on disk: written once, memory-mapped afterwards."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np


def home() -> Path:
    """The folder of the data sets: $NEXTLABEL_DATA, else ~/.cache/nextlabel."""
    return Path(os.environ.get("NEXTLABEL_DATA") or Path.home() / ".cache" / "nextlabel")


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to `file`, then put it in place: nobody ever sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{uuid4().hex}{file.suffix}")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def cached(
    folder: Path, name: str, version: str, parts: tuple[str, ...], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays `parts`, from `folder` when this version of them lies there whole, else from `make`.

    name: the source and how it is decoded; version: a digest of what it is decoded from, so that a change of the source
    makes new arrays and removes the old. Read arrays are memory maps. A folder that cannot be written costs the cache,
    not the data: the arrays then stay in memory.
    """
    files = {part: folder / f"{name}-{version}-{part}.npy" for part in parts}
    with suppress(OSError, ValueError, EOFError):  # absent, or cut short: numpy compares the header with the length
        return {part: np.load(file, mmap_mode="r", allow_pickle=False) for part, file in files.items()}
    arrays = make()
    try:
        for part, file in files.items():
            write_atomically(file, lambda path, part=part: np.save(path, arrays[part], allow_pickle=False))  # type: ignore[misc]
        for old in folder.glob(f"{name}-*.npy"):
            if not old.name.startswith(f"{name}-{version}-"):
                old.unlink(missing_ok=True)
    except OSError:
        return arrays
    return {part: np.load(file, mmap_mode="r", allow_pickle=False) for part, file in files.items()}


def cached_images(
    name: str,
    root: Path,
    files: list[str],
    size: int | None,
    make: Callable[[], dict[str, np.ndarray]],
    parts: tuple[str, ...] = ("images", "reasons"),
    decoding: str = "",
) -> dict[str, np.ndarray]:
    """The `parts` that `make` decodes from these files under `root`, kept in $NEXTLABEL_DATA/decoded.

    A change of length or time of any file, another size, or another way of decoding, which `decoding` names, has them made again.
    """
    stats = [(root / file).stat() for file in files]
    source = hashlib.blake2b(f"{root} {size}".encode(), digest_size=8).hexdigest()
    content = decoding + repr([(file, stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)])
    version = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    return cached(home() / "decoded", f"{name}-{source}", version, parts, make)
