"""The mask of one object, as COCO writes it: run lengths (RLE), compressed or not, and polygons.

RLE counts pixels column by column, in turn outside and inside of the mask, and is exact. Polygons are rasterised by COCO's own
tools (pycocotools), so that a file means here what it means elsewhere. https://cocodataset.org/#format-data
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Mask = NDArray[np.bool_]  # [H, W]
Shape = bytes | list[NDArray[np.float64]]
"""A mask that is not drawn yet: its compressed RLE, or the x, y, x, y, … of its polygons."""
FEWEST = 3  # points of a polygon
MARGIN = 1.0  # pixels by which tools that round may leave the image
CHARACTER, MORE, BITS = 48, 32, 5  # of compressed RLE: its lowest, the bit that says more follow, and how many below it
LONGEST = 7  # characters of a number: 35 bits


def read(segmentation: Any, height: int, width: int) -> Shape:
    """What `segmentation` of an annotation says of an image of this size. Raises ValueError for what is no mask of it."""
    if isinstance(segmentation, dict):
        return _runs(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("has no segmentation; a box alone is no mask")
    return [_polygon(one, height, width) for one in segmentation]


def drawn(shape: Shape, height: int, width: int) -> Mask:
    """The mask of a shape that `read` gave for this size; polygons together cover what any of them covers."""
    if isinstance(shape, bytes):
        runs = _decoded(shape)
    else:
        polygons = coco.frPyObjects([one.tolist() for one in shape], height, width)
        runs = _decoded(coco.merge(polygons)["counts"])
    assert runs is not None
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def compressed(mask: Mask) -> dict[str, Any]:
    """A mask as compressed RLE, {"size": [H, W], "counts": text}."""
    found = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def outline(region: Mask) -> list[float] | None:
    """The polygon [x, y, x, y, …] around a region of pixels that touch at their sides; None where it has holes.

    It runs along the sides of pixels, so that drawing it gives the region again, pixel for pixel.
    """
    inside = np.pad(region, 1)
    here = inside[1:-1, 1:-1]
    # From each corner the steps that have the region to their right
    sides: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for step, beyond, (down, right) in (
        ((1, 0), inside[:-2, 1:-1], (0, 0)),
        ((0, 1), inside[1:-1, 2:], (0, 1)),
        ((-1, 0), inside[2:, 1:-1], (1, 1)),
        ((0, -1), inside[1:-1, :-2], (1, 0)),
    ):
        rows, columns = np.nonzero(here & ~beyond)
        for y, x in zip((rows + down).tolist(), (columns + right).tolist(), strict=True):
            sides.setdefault((x, y), []).append(step)
    start = at = next(iter(sides))
    way: tuple[int, int] | None = None
    corners: list[float] = []
    while True:
        steps = sides[at]
        # Where two pixels touch at this corner alone, the way goes round the one that it came along
        step = steps[0] if way is None or len(steps) == 1 else (-way[1], way[0])
        steps.remove(step)
        if not steps:
            del sides[at]
        if step != way:
            corners += [float(at[0]), float(at[1])]
        way, at = step, (at[0] + step[0], at[1] + step[1])
        if at == start:
            return corners if not sides else None


def _polygon(points: Any, height: int, width: int) -> NDArray[np.float64]:
    if not isinstance(points, list) or any(isinstance(one, bool) or not isinstance(one, int | float) for one in points):
        raise ValueError("has a polygon that is no list of numbers; write x, y, x, y, …")
    if len(points) % 2:
        raise ValueError(f"has a polygon of {len(points)} numbers, an odd one; write x, y, x, y, …")
    if len(points) < 2 * FEWEST:
        raise ValueError(f"has a polygon of {len(points) // 2} points; it takes {FEWEST} at least")
    try:
        found = np.array(points, np.float64)
    except OverflowError:
        raise ValueError("has a polygon with a number that is too large; write x, y, x, y, …") from None
    outside = ~((found >= -MARGIN) & (found <= np.resize([width + MARGIN, height + MARGIN], len(found))))  # NaN too
    if outside.any():
        k = int(outside.argmax()) // 2
        raise ValueError(
            f"has a polygon with the point ({found[2 * k]:g}, {found[2 * k + 1]:g}), outside of the image of {width} × {height} "
            "pixels"
        )
    return found


def _runs(given: dict[str, Any], height: int, width: int) -> bytes:
    size, counts = given.get("size"), given.get("counts")
    if size != [height, width]:
        raise ValueError(
            f"has an RLE of the size {size!r:.40}, and the image has {height} × {width} pixels (height × width)"
        )
    numbers = _decoded(counts.encode("utf-8", "surrogatepass")) if isinstance(counts, str) else _listed(counts)
    if numbers is None or (numbers < 0).any():
        raise ValueError("has an RLE whose counts are no run lengths; export it again")
    total = int(numbers.sum())
    if total != height * width:
        raise ValueError(f"has an RLE of {total:,} pixels, and the image has {height * width:,}")
    if isinstance(counts, str):
        return counts.encode("ascii")
    return bytes(coco.frPyObjects({"size": [height, width], "counts": numbers.tolist()}, height, width)["counts"])


def _listed(counts: Any) -> NDArray[np.int64] | None:
    """Run lengths of an uncompressed RLE, None where they are none."""
    if not isinstance(counts, list) or any(isinstance(one, bool) or not isinstance(one, int) for one in counts):
        return None
    return np.array([min(one, 1 << 40) for one in counts], np.int64)


def _decoded(counts: bytes) -> NDArray[np.int64] | None:
    """Run lengths of a compressed RLE, None where they are none: pycocotools reads beyond the end of what is too short.

    Each number is written in characters of five bits, the lowest first, and from the third on as the difference from the last but
    one.
    """
    parts = np.frombuffer(counts, np.uint8).astype(np.int64) - CHARACTER
    if not len(parts) or (parts < 0).any() or (parts >= 2 * MORE).any() or parts[-1] & MORE:
        return None
    first = np.flatnonzero(np.concatenate([[True], (parts[:-1] & MORE) == 0]))  # characters that begin a number
    length = np.diff(np.append(first, len(parts)))
    if length.max() > LONGEST:
        return None
    place = np.arange(len(parts)) - np.repeat(first, length)
    numbers = np.add.reduceat((parts & (MORE - 1)) << (BITS * place), first)
    negative = (parts[first + length - 1] & (MORE >> 1)) != 0
    numbers -= negative * (np.int64(1) << (BITS * length))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def bounds(mask: Mask) -> tuple[tuple[slice, slice], Mask]:
    """The box around a mask that has a pixel, as rows and columns, and the mask in it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return box, mask[box]


def regions(mask: Mask) -> Sequence[tuple[tuple[slice, slice], Mask]]:
    """The regions of a mask whose pixels touch at their sides: of each what `bounds` says."""
    from scipy import ndimage  # a third of a second, which who reads a pool does without

    numbers, _ = ndimage.label(mask)
    return [(box, numbers[box] == k) for k, box in enumerate(ndimage.find_objects(numbers), start=1)]
