"""Zip files: what is safe comes out as it went in, what is not is refused before anything is written."""

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data.files import archive
from data.files.archive import Archive, Unsafe, Writer

ROOM = {"files": 100, "size": 1 << 30}


def packed(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in entries:
            made.writestr(name, content)
    return buffer


def entry(name: str, **fields: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def checked(file: io.BytesIO | Path) -> dict[str, bytes]:
    """All that an archive holds."""
    with Archive(file, **ROOM) as opened:
        opened.check(opened.entries)
        return {str(one.path): b"".join(opened.blocks(one)) for one in opened.entries}


@pytest.mark.parametrize("compressed", [True, False])
def test_what_the_writer_writes_is_read_again(tmp_path: Path, compressed: bool) -> None:
    with Writer(tmp_path / "a.zip", compressed=compressed) as made:
        made.add("a/b.txt", b"hello")
        with made.entry("c.bin") as part:
            part.write(b"12")
            part.write(b"34")
    assert made.files["c.bin"]["bytes"] == 4
    assert checked(tmp_path / "a.zip") == {"a/b.txt": b"hello", "c.bin": b"1234"}


def test_equal_contents_make_equal_files() -> None:
    made = [io.BytesIO(), io.BytesIO()]
    for file in made:
        with Writer(file) as writer:
            writer.add("a", b"hello")
    assert made[0].getvalue() == made[1].getvalue()


def test_folders_are_no_entries_and_a_start_is_read_alone() -> None:
    with Archive(packed(("a/", b""), ("a/b", b"0123456789")), **ROOM) as opened:
        (only,) = opened.entries
        assert (str(only.path), only.size) == ("a/b", 10)
        assert opened.start(only, 4) == b"0123"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../a", "leads out of its folder"),
        ("a/../../b", "leads out of its folder"),
        ("/etc/passwd", "leads out of its folder"),
        ("C:/a", "leads out of its folder"),
        ("x" * 300, "too long a name"),
        (entry("a", external_attr=(stat.S_IFLNK | 0o777) << 16), "is a link"),
        (entry("a", external_attr=(stat.S_IFIFO | 0o777) << 16), "no plain file"),
        (entry("a", compress_type=zipfile.ZIP_LZMA), "packed in an unusual way"),
    ],
)
def test_dangerous_entries(name: str | zipfile.ZipInfo, sentence: str) -> None:
    with pytest.raises(Unsafe, match=f"this zip file holds .*{sentence}.*; "):
        checked(packed(("good", b""), (name, b"x")))


def test_a_password() -> None:
    content = bytearray(packed(("a", b"x")).getvalue())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Unsafe, match="has a password"):
        checked(io.BytesIO(bytes(content)))


@pytest.mark.parametrize("names", [("a", "A"), ("a", "a/b")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_for_one_place(names: tuple[str, str]) -> None:
    with pytest.raises(Unsafe, match="two files of one name, or a file and a folder"):
        checked(packed(*((name, b"") for name in names)))


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsafe, match="holds 101 entries"):
        checked(packed(*((f"{i}", b"") for i in range(101))))
    with pytest.raises(Unsafe, match="unpacks to 66 MB, more than 200 times its size"):
        checked(packed(("a", bytes(70_000_000))))
    monkeypatch.setitem(ROOM, "size", 10)
    with pytest.raises(Unsafe, match="unpacks to more than"):
        checked(packed(("a", bytes(11))))


def test_the_ratio_is_that_of_the_file_whatever_its_directory_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that overlap share their bytes: sums of what the directory says are no measure."""
    monkeypatch.setattr(archive, "SMALL", 1000)
    content = packed(("a", bytes(1_000_000))).getvalue()
    told = content.rindex(b"PK\x01\x02") + 20  # the compressed size
    lying = content[:told] + (900_000).to_bytes(4, "little") + content[told + 4 :]
    with pytest.raises(Unsafe, match="more than 200 times its size"), Archive(io.BytesIO(lying), **ROOM) as opened:
        opened.check(opened.entries)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"no zip file at all",
        lambda content: content[:-30],
        lambda content: content.replace(b"hello", b"jello"),
    ],
    ids=["empty", "text", "cut", "changed"],
)
def test_damage(damage: Callable[[bytes], bytes]) -> None:
    content = packed(("a", b"hello"), method=zipfile.ZIP_STORED).getvalue()
    with pytest.raises(Unsafe, match=r"this zip file cannot be read: .*; pack the files again, as zip"):
        checked(io.BytesIO(damage(content)))


def test_a_path_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checked(tmp_path / "nowhere.zip")
