"""Zip files that may come from strangers: what is in one is known, named safely and measured before anything is unpacked.

An archive can be made to harm: names that lead out of the folder, links, a few kilobytes that unpack to terabytes. Every zip
file that NextLabel opens goes through `Archive`; those that it makes are made by `Writer`.
"""

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Self

TIGHT, SMALL = 200, 64 << 20  # larger than that many bytes in all, and compressed more than that many times: a bomb
LONGEST = 255  # bytes of a name that file systems take
# Others unpack gigabytes where the first few bytes are asked for
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
BLOCK = 1 << 20
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


class Unsafe(Exception):
    """What is wrong with an archive, as what follows "it", and what its maker is to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"this zip file {what}; {advice}")
        self.what = what


@dataclass(frozen=True)
class Entry:
    """A plain file of an archive, and where it wants to be, which is inside of any folder it is put into."""

    info: zipfile.ZipInfo
    path: PurePosixPath

    @property
    def size(self) -> int:
        """Bytes, as the archive says; `Archive.blocks` holds it to that."""
        return self.info.file_size


class Archive:
    """A zip file that is open for reading; `entries` are its files, folders left out.

    files: how many entries it may list · size: how many bytes it may unpack to. Raises `Unsafe` for what is no zip file, and
    for one that could do harm; `FileNotFoundError` where no file has this path.
    """

    def __init__(self, file: Path | IO[bytes], *, files: int, size: int) -> None:
        self.most = size
        try:
            self.zip = zipfile.ZipFile(file)
        except FileNotFoundError:
            raise
        except BROKEN as error:
            raise _broken(error) from error
        try:
            listed = self.zip.infolist()
            if len(listed) > files:
                raise Unsafe(
                    f"holds {len(listed):,} entries", f"at most {files:,} are taken: use a folder on the server instead"
                )
            self.entries = [Entry(info, path) for info in listed if (path := _path(info)) and not info.is_dir()]
        except BaseException:
            self.zip.close()
            raise
        self.packed = _length(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.zip.close()

    def check(self, chosen: Sequence[Entry]) -> None:
        """Raise `Unsafe` where these entries take more room than they may, or two of them one place, in any case of letters."""
        total = sum(entry.size for entry in chosen)
        if total > max(SMALL, TIGHT * self.packed):
            raise Unsafe(
                f"unpacks to {total >> 20:,} MB, more than {TIGHT} times its size",
                "save images as PNG or JPEG, then pack them again",
            )
        if total > self.most:
            raise Unsafe(f"unpacks to more than {self.most >> 30} GB", "copy its files to the server instead")
        names = {str(entry.path).casefold() for entry in chosen}
        folders = {str(above).casefold() for entry in chosen for above in entry.path.parents}
        if len(names) < len(chosen) or names & folders:
            raise Unsafe("holds two files of one name, or a file and a folder", "rename one, and pack it again")

    def start(self, entry: Entry, n: int) -> bytes:
        """The first n bytes of an entry. Raises `Unsafe` as `blocks`."""
        try:
            with self.zip.open(entry.info) as packed:
                return packed.read(n)
        except BROKEN as error:
            raise _broken(error) from error

    def blocks(self, entry: Entry) -> Iterator[bytes]:
        """The content of an entry, some at a time. Raises `Unsafe` where it is damaged, or more than the archive says."""
        left = entry.size
        try:
            with self.zip.open(entry.info) as packed:
                while block := packed.read(BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise Unsafe(f"holds more than it says, in {_name(entry.info)}", "pack the files again")
                    yield block
        except BROKEN as error:
            raise _broken(error) from error


def _broken(error: Exception) -> Unsafe:
    return Unsafe(f"cannot be read: {error}", "pack the files again, as zip, without a password")


def _length(file: Path | IO[bytes]) -> int:
    """Bytes of the zip file itself: what it says of its entries' compressed sizes may be made up."""
    if isinstance(file, Path):
        return file.stat().st_size
    return file.seek(0, 2)


def _path(info: zipfile.ZipInfo) -> PurePosixPath:
    """Where an entry wants to be. Raises `Unsafe` for one that leads elsewhere, or is neither a plain file nor a folder."""
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in info.filename or not path.parts:
        raise Unsafe(f"holds {_name(info)}, a name that leads out of its folder", "pack the files again")
    if any(len(part.encode()) > LONGEST for part in path.parts):
        raise Unsafe(f"holds {_name(info)}, too long a name", "shorten it, and pack the files again")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Unsafe(f"holds {_name(info)}, which is a link, or no plain file", "pack the files themselves")
    if info.flag_bits & 1:
        raise Unsafe(f"holds {_name(info)}, which has a password", "pack the files without one")
    if info.compress_type not in METHODS:
        raise Unsafe(f"holds {_name(info)}, packed in an unusual way", "pack the files again, with “Deflate”")
    return path


def _name(info: zipfile.ZipInfo) -> str:
    return repr(info.filename[:100])


class Writer:
    """Makes a zip file of which equal contents make equal bytes: no entry has a date. `files` has length and digest of each.

    compressed: whether the entries are, which images gain nothing by.
    """

    def __init__(self, file: Path | IO[bytes], *, compressed: bool = True) -> None:
        self.method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        self.zip = zipfile.ZipFile(file, "w", self.method)
        self.files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.zip.close()

    def add(self, name: str, content: bytes) -> None:
        """Add a file in whole."""
        with self.entry(name) as entry:
            entry.write(content)

    @contextmanager
    def entry(self, name: str) -> Iterator["_Counted"]:
        """Add a file by writing into it; one at a time."""
        info = zipfile.ZipInfo(name)
        info.compress_type = self.method
        info.external_attr = 0o644 << 16
        with self.zip.open(info, "w", force_zip64=True) as entry:
            counted = _Counted(entry)
            yield counted
        self.files[name] = {"bytes": counted.n, "sha256": counted.digest.hexdigest()}


class _Counted:
    """Passes on what is written, and knows its length and digest."""

    def __init__(self, entry: IO[bytes]) -> None:
        self.entry, self.n, self.digest = entry, 0, hashlib.sha256()

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.n += len(content)
        return self.entry.write(content)
