"""Masks that come from files as annotations of a run: folders and zip files of PNGs, and COCO annotations.

A mask belongs to the image of its name. It is as large as the run sees the images, or as the image's own file; then it comes to
that size as the image does. Needs no torch.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from core.files.maskexport import places
from core.store.maskfiles import Codes
from data import ImageDataset
from data.errors import UserError
from data.files import classtable, cocofile, imagefile, maskfile
from data.files.archive import Archive, Unsafe
from data.files.maskfile import Legend
from data.lazy import LazyImages
from data.masks import VOID

MOST_BYTES, MOST_FILES = 16 << 30, 500_000  # of a zip file
BACKGROUND = cocofile.BACKGROUND


class Names:
    """Which image of a pool a file's name means: its id, the name that exports give it, or its last part where that is enough."""

    def __init__(self, sample_ids: list[str]) -> None:
        self.by_id = {sample_id: row for row, sample_id in enumerate(sample_ids)}
        self.by_place = {place: row for row, place in enumerate(places(sample_ids))}
        last = [PurePosixPath(place).name for place in self.by_place]
        number = Counter(last)
        self.by_last = {name: row for row, name in enumerate(last) if number[name] == 1}

    def row(self, name: str, file: str) -> int:
        """The row in the pool. file: where the name stands. Raises `UserError` for a name of no image."""
        if name in self.by_id:
            return self.by_id[name]
        path = PurePosixPath(name)
        place = path.with_suffix("").as_posix() if path.name else name
        for known, wanted in ((self.by_place, place), (self.by_place, name), (self.by_last, place.rpartition("/")[2])):
            if wanted in known:
                return known[wanted]
        raise UserError(
            f"{file} has a mask of {name[:100]!r}, which is no image of this run: rename it, or take it out. Images that are "
            "held out to test are none of its pool."
        )


def at_size(codes: Codes, dataset: ImageDataset, row: int, what: str) -> Codes:
    """A mask as large as the run sees its image. what: is meant, for a message. Raises `UserError` for one of another size."""
    height, width = dataset.images.shape[1:3]
    if codes.shape == (height, width):
        return codes
    check_size(codes.shape, dataset, row, what)
    assert isinstance(dataset.images, LazyImages)
    return maskfile.sized(codes, height, width, dataset.images.fit)


def check_size(shape: tuple[int, ...], dataset: ImageDataset, row: int, what: str) -> None:
    """Raise `UserError` where a mask [H, W] is neither as large as the run sees its image nor as the image's file."""
    sides, images = dataset.images.shape[1:3], dataset.images
    native = images.file_shape(row) if isinstance(images, LazyImages) else None
    if shape not in (sides, native):
        own = "" if native in (None, sides) else f", and the image's file {native[1]} × {native[0]}"
        raise UserError(
            f"{what} has {shape[1]} × {shape[0]} pixels, the run sees the image at {sides[1]} × {sides[0]}{own}: save the mask "
            "at that size."
        )


def read_pngs(path: Path, dataset: ImageDataset) -> Iterator[tuple[int, Codes]]:
    """The masks in a folder or zip file of PNGs, and the row of each in the pool.

    They lie in folders called `masks`, or where there is none anywhere but in `images`. What their pixels mean is said by a table
    of classes (`data.files.classtable`) at the top; without one 0 is the run's first class, 1 the second, and 255 unknown. Where
    no folder is called `masks` and one file is JSON, that is read as `read_coco` does. Raises `UserError` for a mask that cannot
    be taken, two for one image, and classes that the run does not have.
    """
    with _folder(path) as folder:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() == ".png" and file.is_file())
        parts_of = {file: file.relative_to(folder).parts for file in files}
        files = [file for file in files if not _hidden(parts_of[file])]
        drawn = sorted(file for file in folder.rglob("*.json") if not _hidden(file.relative_to(folder).parts))
        if len(drawn) == 1 and not any("masks" in parts for parts in parts_of.values()):
            yield from read_coco(drawn[0], dataset)
            return
        files = [file for file in files if "masks" in parts_of[file]] or [
            file for file in files if "images" not in parts_of[file]
        ]
        if not files:
            raise UserError(f"There is no mask in {path.name}: give PNG files, each with the name of its image.")
        legend, names = _legend(folder, dataset.class_names), Names(dataset.ids)
        taken: dict[int, str] = {}
        for file in files:
            name = "/".join(part for part in parts_of[file] if part != "masks")
            row = names.row(name, path.name)
            if row in taken:
                raise UserError(
                    f"{path.name} has two masks of {dataset.ids[row]!r}, {taken[row]} and {name}: keep one of them."
                )
            taken[row] = name
            yield row, _mask(file, name, legend, dataset, row)


def read_coco(path: Path, dataset: ImageDataset) -> Iterator[tuple[int, Codes]]:
    """The masks that COCO annotations draw, and the row of each in the pool; images without annotations are left out.

    Pixels without annotation are of the class "background" where the run has one and no category is marked as stuff
    (isthing 0), else unknown. Raises `UserError` for annotations that cannot be drawn, and classes that the run does not have.
    """
    content, names = cocofile.read(path), Names(dataset.ids)
    codes = {name: code for code, name in enumerate(dataset.class_names)}
    base = VOID if cocofile.has_stuff(content) else codes.get(BACKGROUND, VOID)
    taken: set[int] = set()
    for name, drawing in cocofile.drawings(content, path.name, codes, base):
        if drawing is None:
            continue
        row = names.row(name, path.name)
        if row in taken:
            raise UserError(f"{path.name} names {dataset.ids[row]!r} a second time: keep one entry per image.")
        taken.add(row)
        if isinstance(drawing, str):
            raise UserError(f"{path.name}, image {name!r}: {drawing}.")
        what = f"{path.name}: {name!r}"
        check_size((drawing.height, drawing.width), dataset, row, what)
        yield row, at_size(drawing.codes(), dataset, row, what)


def _mask(file: Path, name: str, legend: Legend, dataset: ImageDataset, row: int) -> Codes:
    try:
        with imagefile.opened(file) as image:
            shape = image.height, image.width
    except Exception as error:  # Pillow raises whatever a broken file leads to
        raise UserError(f"{name} cannot be read ({imagefile.reason(error)}): save it again as PNG.") from error
    check_size(shape, dataset, row, name)
    found = maskfile.read(file, legend, shape)
    if isinstance(found, str):
        raise UserError(f"{name}: {found}.")
    return at_size(found, dataset, row, name)


def _legend(folder: Path, class_names: list[str]) -> Legend:
    """What the pixels mean, as classes of the run."""
    if not any((folder / name).is_file() for name in classtable.TABLES):
        colours = "put a classes.csv with the columns name, r, g, b beside the masks"
        return Legend(
            {**{k: k for k in range(len(class_names))}, VOID: VOID}, len(class_names), "the run", colours=colours
        )
    given, source = classtable.read(folder)
    names, legend = classtable.legend(given, source)
    strange = [name for name in names if name not in class_names]
    if strange:
        raise UserError(
            f"{source} names the class {strange[0]!r}; this run has {', '.join(class_names[:20])}: rename it."
        )
    code_of = {**{code: class_names.index(name) for code, name in enumerate(names)}, VOID: VOID}
    return Legend({key: code_of[code] for key, code in legend.classes.items()}, len(class_names), source)


def _hidden(parts: Sequence[str]) -> bool:
    """Whether a path is what macOS puts into zip files beside each file, or hidden."""
    return any(part.startswith((".", "__MACOSX")) for part in parts)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A folder, or that into which a zip file is unpacked meanwhile. A single folder that holds everything is entered."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as unpacked:
        try:
            with Archive(path, files=MOST_FILES, size=MOST_BYTES) as archive:
                archive.check(archive.entries)
                for entry in archive.entries:
                    wanted = entry.path.suffix.lower() in (".png", ".json") or entry.path.name in classtable.TABLES
                    if not wanted or _hidden(entry.path.parts):
                        continue
                    target = Path(unpacked) / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        for block in archive.blocks(entry):
                            file.write(block)
        except Unsafe as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(
                f"{path.name} cannot be unpacked ({error}): give a zip file or a folder of masks."
            ) from error
        inside = list(Path(unpacked).iterdir())
        alone = len(inside) == 1 and inside[0].is_dir() and inside[0].name not in ("masks", "images")
        yield inside[0] if alone else Path(unpacked)
