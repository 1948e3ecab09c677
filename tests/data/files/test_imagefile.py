"""Which files are images, and that decoding them takes no more memory than there is to be."""

import io
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image, ImageFile

from data.files import decode, imagefile
from data.files.imagefile import Budget


def never() -> bytes:
    raise AssertionError("the usual names are not looked into")


def first(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()[: imagefile.PREFIX]


def test_the_usual_names_are_not_looked_into() -> None:
    for name in ("a.png", "b/c.JPG", "d.tiff"):
        assert imagefile.left_out(PurePath(name), never) == ""


@pytest.mark.parametrize("kind", [*imagefile.FORMATS, "EPS", "PDF", "ICO"])
def test_formats_are_told_by_the_first_bytes(kind: str) -> None:
    """And EPS, which would start another program, is none of them."""
    said = imagefile.left_out(PurePath("x"), lambda: first(format=kind))
    assert said == ("" if kind in imagefile.FORMATS else imagefile.NO_IMAGE)


@pytest.mark.parametrize("content", [b"", b"P", b"hello", b"<svg/>", b"%PDF-1.7", b"\x80\x04.", b"PK\x03\x04"])
def test_what_is_no_image(content: bytes) -> None:
    assert imagefile.left_out(PurePath("x.dat"), lambda: content) == imagefile.NO_IMAGE


def test_a_file_that_may_not_be_read_says_so() -> None:
    def refused() -> bytes:
        raise PermissionError(13, "Permission denied")

    assert imagefile.left_out(PurePath("x.dat"), refused) == "Permission denied"


# --- the budget ------------------------------------------------------------------------------------------------------


def test_no_more_than_the_budget_is_taken_at_the_same_time() -> None:
    budget, seen = Budget(100), []
    gate = threading.Barrier(8)

    def work(amount: int) -> None:
        gate.wait()
        for _ in range(50):
            with budget.take(amount):
                seen.append(budget.taken)

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (10, 30, 40, 60, 60, 99, 100, 5000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 400
    assert max(seen) == 100  # of what wants more than there is, too
    assert budget.taken == 0


def test_a_failure_gives_back_what_it_took() -> None:
    budget = Budget(10)
    with pytest.raises(ValueError, match="broken"), budget.take(10):
        raise ValueError("broken")
    assert budget.taken == 0


def noted_late(path: Path) -> None:
    """Put the notes of a camera that was turned behind the pixels of a PNG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    content = path.read_bytes()
    path.write_bytes(
        content[:-12] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + content[-12:]
    )


def some(root: Path) -> list[str]:
    """Images of every kind that is decoded in a way of its own."""
    rgb = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    grey = Image.fromarray(rgb[..., 0])
    Image.fromarray(rgb).save(root / "a.png")
    Image.fromarray(rgb).save(root / "late.png")
    noted_late(root / "late.png")
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:1000])
    Image.fromarray(rgb).convert("RGBA").save(root / "clear.webp")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 16).save(root / "deep.png")
    grey.save(root / "l.jpg", exif=b"")
    grey.save(root / "h.heic")
    return sorted(path.name for path in root.iterdir())


def test_nothing_is_decoded_outside_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, taken, load = some(tmp_path), [], ImageFile.ImageFile.load

    def watched(image: ImageFile.ImageFile) -> object:
        if image.tile or image.format == "HEIF":
            taken.append(imagefile.budget.taken)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    heads = {name: decode.head(tmp_path / name) for name in names}
    assert heads["late.png"] == (30, 40, "RGB", False)  # upright
    assert decode.brightest(tmp_path / "deep.png") > 255
    assert [name for name in names if isinstance(decode.read(tmp_path / name, 8, 8, False, 12), str)] == ["cut.png"]
    assert len(taken) > len(names)
    assert min(taken) > 0
    assert imagefile.budget.taken == 0


def test_the_header_of_a_png_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow decodes it in search of notes behind the pixels, which twice the time was spent on."""
    Image.new("L", (8, 8)).save(tmp_path / "a.png")

    def never(_: ImageFile.ImageFile) -> object:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    assert decode.head(tmp_path / "a.png") == (8, 8, "L", False)


@pytest.mark.parametrize(
    ("name", "bytes_a_pixel"), [("a.png", 4), ("l.jpg", 1), ("deep.png", 2), ("clear.webp", 16), ("h.heic", 9)]
)
def test_what_an_image_costs(tmp_path: Path, name: str, bytes_a_pixel: int) -> None:
    some(tmp_path)
    with imagefile.opened(tmp_path / name) as image:
        if name == "h.heic":
            assert image.mode in ("L", "RGB")
            bytes_a_pixel = 9 if image.mode == "L" else 12
        assert imagefile.cost(image, turned=False, copied=False) == 1200 * bytes_a_pixel
        assert imagefile.cost(image, turned=True, copied=True) > imagefile.cost(image, turned=False, copied=False)


MEASURED = """
import resource, sys
from pathlib import Path
from data.files import imagefile
from data.sources import folder
imagefile.budget = imagefile.Budget(40 << 20)
root = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = folder._decode_all(root, sorted(path.name for path in root.iterdir()), None)
assert (parts["reasons"] == "").all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
def test_many_large_pictures_in_small_files_take_the_memory_of_one(tmp_path: Path) -> None:
    for i in range(8):
        Image.new("RGB", (3000, 3000), (i, 0, 0)).save(tmp_path / f"{i}.png")  # 34 MB each
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 400_000
    out = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(out.stdout) < 120


def test_what_is_too_large_is_not_opened(tmp_path: Path) -> None:
    def png(width: int, height: int) -> Path:
        kind = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        header = struct.pack(">I", 13) + kind + struct.pack(">I", zlib.crc32(kind))
        empty = b"IDAT" + zlib.compress(b"")
        rest = struct.pack(">I", len(empty) - 4) + empty + struct.pack(">I", zlib.crc32(empty))
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + rest)
        return tmp_path / "x.png"

    assert decode.head(png(60_000, 60_000)) == imagefile.TOO_LARGE
    assert decode.head(png(10_000, 10_000)) == imagefile.TOO_LARGE
    assert decode.head(png(2_000_000, 1)) == imagefile.TOO_LONG
    assert decode.head(png(9_400, 9_400)) != imagefile.TOO_LARGE


def test_a_cut_file_gives_one_reason_however_much_is_missing() -> None:
    said = {imagefile.reason(OSError(f"image file is truncated ({n} bytes not processed)")) for n in range(9)}
    assert said == {"image file is truncated"}


def test_strips_are_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagefile, "STRIP", 100)
    assert list(imagefile.strips(Image.new("L", (30, 7)))) == [(0, 0, 30, 3), (0, 3, 30, 6), (0, 6, 30, 7)]
    assert len(list(imagefile.strips(Image.new("L", (200, 2))))) == 2
