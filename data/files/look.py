"""What is found out of a pool of images before anything runs on it, without decoding a million of them.

Of up to `HEADERS` images, every header is read: one that has none is left out; sizes, kinds, and the depth of 16-bit images
follow. Of more, so many are looked at, evenly spaced. Where these images hold no more than `VERIFIED` pixels in all, each is
decoded once as well, so that damaged ones are left out at once and equal ones are known by their pixels; otherwise equal ones
are known by their bytes, and a damaged one is named when it is read (`data.files.ondemand`).
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data.files import cache, decode, imagefile
from data.files.encoded import Encoded
from data.files.ondemand import OnDemand
from data.lazy import Fit

HEADERS = 50_000
VERIFIED = 1 << 28  # pixels: some seconds
DEPTH_SAMPLE = 200  # 16-bit images that are decoded for the bits they use
ENDS = 1 << 16  # bytes at either end of a file, by which most files differ
SMALL, USUAL = 64, 224  # pixels a side: up to which images stay as they are, and what networks are trained at
BLOCK = 512
VERSION = "1 " + " ".join(imagefile.FORMATS)  # changes where the same files give another look
PARTS = ("codes", "texts", "shapes", "modes", "names", "clear", "digests", "depth")

Progress = Callable[[int, int], object]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Look:
    """What was found.

    images: the m of n that are not left out · read: bool [n], which these are · reasons: (row, why) of the others · shapes:
    int32 [m,2], height and width of the files, upright, 0 where the header was not read · modes: str [m], Pillow's, else empty
    · clear: bool [m], with transparent parts · digests: uint8 [m,16], alike where images are the same · depth: bits that
    16-bit images use · looked: how many headers were read · verified: whether every image was decoded.
    """

    images: OnDemand
    read: NDArray[np.bool_]
    reasons: list[tuple[int, str]]
    shapes: NDArray[np.int32]
    modes: NDArray[np.str_]
    clear: NDArray[np.bool_]
    digests: NDArray[np.uint8]
    depth: int
    looked: int
    verified: bool


def look(
    files: Encoded,
    source: str,
    root: Path,
    size: int | tuple[int, int] | None,
    fit: Fit,
    progress: Progress | None = None,
    *,
    whole: bool = False,
) -> Look:
    """Look at encoded images, or take what was found before from $NEXTLABEL_DATA/decoded.

    source, root: what they belong to · size: side of a square, or height and width, that they are to have, by default as `usual`
    says · progress: told how many of how many were looked at · whole: as of `usual`.
    """
    stamps = files.stamps()
    place = hashlib.blake2b(str(root).encode(), digest_size=8).hexdigest()
    version = hashlib.blake2b(VERSION.encode() + stamps.tobytes(), digest_size=8)
    for row in range(len(files)):
        version.update(files.name(row).encode() + b"\0")
    parts = cache.cached(
        cache.home() / "decoded",
        f"look-{source}-{place}",
        version.hexdigest(),
        PARTS,
        lambda: _look(files, stamps, progress),
    )
    codes, shapes = np.asarray(parts["codes"]), np.asarray(parts["shapes"])
    texts, names, depth = parts["texts"].tolist(), parts["names"], int(parts["depth"])
    read = codes == 0
    modes = names[parts["modes"]]
    known = shapes[:, 0] > 0
    grey = bool(np.isin(modes[known & read], list(decode.GREY)).all())
    if size is None:
        size = usual(shapes[known & read], whole)
    height, width = (size, size) if isinstance(size, int) else size
    kept = np.flatnonzero(read)
    images = OnDemand(
        files if len(kept) == len(files) else files.take(kept),
        (height, width, 1 if grey else 3),
        fit=fit,
        depth=depth,
        stamps=stamps[kept],
    )
    return Look(
        images,
        read,
        [(int(row), texts[codes[row]]) for row in np.flatnonzero(~read)],
        shapes[kept],
        modes[kept],
        np.asarray(parts["clear"])[kept],
        np.asarray(parts["digests"])[kept],
        depth,
        min(len(files), HEADERS),
        _few(shapes, len(files)),
    )


def usual(shapes: NDArray[np.int32], whole: bool = False) -> tuple[int, int]:
    """Height and width at which a model sees images of these heights and widths, int [n,2], unless somebody says otherwise.

    Their own where all agree and it is at most `SMALL`; else a square, of the median of all sides, at most `USUAL`. whole: images
    that all have one shape keep it, scaled to at most `USUAL` a side, as suits those whose every pixel has a class.
    """
    if len(shapes) == 0:
        return SMALL, SMALL
    if (shapes == shapes[0]).all() and (whole or shapes[0].max() <= SMALL):
        scale = min(1.0, USUAL / int(shapes[0].max()))
        return max(1, round(scale * int(shapes[0, 0]))), max(1, round(scale * int(shapes[0, 1])))
    side = max(1, min(USUAL, round(float(np.median(shapes)))))
    return side, side


def _few(shapes: NDArray[np.int32], n: int) -> bool:
    return n <= HEADERS and int(shapes.astype(np.int64).prod(axis=1).sum()) <= VERIFIED


def _look(files: Encoded, stamps: NDArray[np.int64], progress: Progress | None) -> dict[str, np.ndarray]:
    """The `PARTS`. codes, modes: places in texts and names; code 0 where nothing is wrong."""
    n = len(files)
    rows = np.arange(n) if n <= HEADERS else np.linspace(0, n - 1, HEADERS).astype(np.int64)
    codes, modes = np.zeros(n, np.int32), np.zeros(n, np.int16)
    shapes, clear = np.zeros((n, 2), np.int32), np.zeros(n, bool)
    texts, names = {"": 0}, {"": 0}
    told = progress or (lambda done, of: None)

    def fail(row: int, why: str) -> None:
        codes[row] = texts.setdefault(why, len(texts))

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK].tolist()
            for row, head in zip(block, threads.map(lambda row: _asked(files, row, decode.head), block), strict=True):
                if isinstance(head, str):
                    fail(row, head)
                else:
                    shapes[row], clear[row] = head[:2], head[3]
                    modes[row] = names.setdefault(head[2], len(names))
            told(start + len(block), len(rows))
        deep = np.flatnonzero(np.isin(modes, [code for name, code in names.items() if name in decode.DEEP]))
        deep = deep[:: max(1, len(deep) // DEPTH_SAMPLE)]
        brightest = threads.map(lambda row: _asked(files, row, decode.brightest), deep.tolist())
        depth = decode.bits(max((one for one in brightest if isinstance(one, int)), default=65535))
        good = rows[codes[rows] == 0]
        if _few(shapes, n):
            digests = np.zeros((n, 16), np.uint8)

            def digest(file: imagefile.File) -> bytes | str:
                return decode.digest(file, depth)

            for start in range(0, len(good), BLOCK):
                block = good[start : start + BLOCK].tolist()
                for row, found in zip(block, threads.map(lambda row: _asked(files, row, digest), block), strict=True):
                    if isinstance(found, str):
                        fail(row, found)
                        shapes[row] = 0
                    else:
                        digests[row] = np.frombuffer(found, np.uint8)
                told(start + len(block), len(good))
        else:
            digests = _by_bytes(files, stamps, good)
    return {
        "codes": codes,
        "texts": np.array(list(texts)),
        "shapes": shapes,
        "modes": modes,
        "names": np.array(list(names)),
        "clear": clear,
        "digests": digests,
        "depth": np.array(depth),
    }


def _asked(files: Encoded, row: int, ask: Callable[[imagefile.File], T]) -> T | str:
    try:
        return ask(files.file(row))
    except (OSError, ValueError) as error:
        return imagefile.reason(error)


def _by_bytes(files: Encoded, stamps: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Digests [N,16] that are alike where files have the same bytes; of a pool that is only sampled, each is its own."""
    digests = np.zeros((len(files), 16), np.uint8)
    digests[:, :8] = np.arange(1, len(files) + 1, dtype=np.int64).view(np.uint8).reshape(-1, 8)
    if len(files) > HEADERS:
        return digests
    alike = _repeated(stamps[rows, 0], rows)
    for most in (ENDS, None):  # most files differ early: few are read in whole

        def content(file: imagefile.File, most: int | None = most) -> bytes | str:
            found = hashlib.blake2b(digest_size=16)
            with imagefile.reader(file) as opened:
                found.update(opened.read() if most is None else opened.read(most))
            return found.digest()

        with ThreadPoolExecutor() as threads:
            for row, found in zip(
                alike, threads.map(lambda row: _asked(files, row, content), alike.tolist()), strict=True
            ):
                if isinstance(found, bytes):
                    digests[row] = np.frombuffer(found, np.uint8)
        alike = _repeated(digests[alike].view(np.int64)[:, 0], alike)
    return digests


def _repeated(keys: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those rows whose key another has as well."""
    _, where, number = np.unique(keys, return_inverse=True, return_counts=True)
    return rows[number[where] > 1]
