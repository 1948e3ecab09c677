"""The user's own images with masks: for every image a PNG of the same name, and a table that says what its pixels mean.

    ROOT/images/a.jpg        ROOT/masks/a.png           a fifth is held out as the test set
    ROOT/train/images/a.jpg  ROOT/train/masks/a.png     ROOT/test/images, ROOT/test/masks (`val` serves where there is no `test`)
    ROOT/classes.csv         or classes.txt, with or without a header, one class a line:

    name                     masks hold 0 for the first class, 1 for the second, …
    value,name               masks hold these values (0 … 255)
    name,r,g,b               masks show these colours

Image and mask belong together by their path below `images` and `masks`, without the suffix. By value, a mask is a grey or an
indexed PNG, whose palette is of no account; by colour, an RGB or an indexed one. A class called void, unlabelled, unknown or
ignore is none: such pixels are unknown (-1), as is the value 255 unless the table names it. An image without a mask has no label,
nor has one whose mask shows no class. Either file is set upright by its own EXIF orientation, and then both must have one size.

Images come to one size as in a folder of images (`data.sources.folder`), and masks with them, by the nearest pixel; what "pad"
adds is unknown. Images that all have one shape keep it, scaled to at most 224 pixels a side, unless a size is given.
"""

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.dataset import ImageDataset
from data.errors import UserError
from data.files.encoded import Links
from data.files.maskfile import Key, Legend
from data.lazy import Fit
from data.masks import VOID
from data.sources import Source, folder, own, pairs
from data.sources.own import Found, Progress
from data.sources.pairs import VOID_NAMES, Pair

TABLES = ("classes.csv", "classes.txt")
COLOURS = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
NAMES, VALUES = {"name", "class", "label"}, {"value", "id", "index"}
EXPECTED = "expected the lines name, or value,name, or name,r,g,b"
GONE = "there is no image of its name; add it, or delete the mask"
SAME_NAME = "another image has the same name but for its suffix, and one mask cannot serve both; rename one"
APART = "it lies neither in train nor in test"


def load(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
) -> ImageDataset:
    """The images under `root` and their masks; ids are the images' paths relative to it.

    class_names: of the values 0, 1, … of the masks, instead of a table of classes. Other options as of
    `data.sources.folder.load`; a test set is drawn from all images with a mask. Raises UserError when nothing can be learnt, or
    the table of classes is wrong; what is wrong with one image or mask is listed in `skipped`.
    """
    return pairs.assemble(find(root, size, fit, class_names, test_share))


def find(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """List images and masks and look at them; parameters and errors as of `load`.

    progress: told how many are done, and of how many.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the path of a folder with images and masks")
    own.check_options(size, fit, test_share)
    root = root.resolve()
    names, legend = _legend(*(_classes(root) if class_names is None else (list(enumerate(class_names)), "--classes")))
    skipped: list[tuple[str, str]] = []
    listed: list[Pair] = []
    for prefix, test in _parts(root, skipped):
        listed += _listed(root, prefix, test, skipped)
    if not listed:
        first = f"; the first file: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UserError(f"there is no image in the folders images of {root} that can be used{first}")
    found = pairs.found(
        "masks",
        root,
        own.pool_then_test(listed, test_share),
        legend,
        names,
        size=size,
        fit=fit,
        skipped=skipped,
        progress=progress,
    )
    _check_binary(found, legend)
    return found


def _check_binary(found: Found, legend: Legend) -> None:
    """Raise UserError where 255, which was taken for unknown, seems to be a class: next to it the masks show the first alone."""
    looked = found.mask_look
    if looked is None or looked.pixels is None or not legend.assumed:
        return
    shown = looked.pixels.sum(axis=0) > 0
    if shown[0] and shown[-1] and not shown[1:-1].any():
        raise UserError(
            f"the masks in {found.root} hold no class but {found.class_names[0]!r}, and 255, which stands for unknown; if 255 is "
            f"a class, write the lines 0,{found.class_names[0]} and 255,{found.class_names[1]} into {TABLES[0]}"
        )


# --- which images and masks there are --------------------------------------------------------------------------------


def _parts(root: Path, skipped: list[tuple[str, str]]) -> list[tuple[str, bool]]:
    """The folders that hold images and masks, as a prefix, and whether to test with them."""
    if not (root / "train" / "images").is_dir():
        return [("", False)]
    tests = [name for name in ("test", "val") if (root / name / "images").is_dir()]
    for name in tests[1:]:
        skipped += [(id, APART) for id in folder.files(root, f"{name}/images/", skipped, None, True)]
    return [("train/", False), *((f"{name}/", True) for name in tests[:1])]


def _listed(root: Path, prefix: str, test: bool, skipped: list[tuple[str, str]]) -> list[Pair]:
    """The images of a part with their masks, in the order of their paths."""
    links = Links(root)
    for part in ("images", "masks"):
        place = root / prefix / part
        if not place.is_dir():
            raise UserError(
                f"there is no folder {place}; put images into images and their masks into masks, which may be empty"
            )
        if links.leads_out(str(place.parent), place.name):
            raise UserError(f"{place} is a link that leads out of the folder; put the files themselves there")
    images = _by_stem(folder.files(root, f"{prefix}images/", skipped, None, True), f"{prefix}images/")
    masks = _by_stem(folder.files(root, f"{prefix}masks/", skipped, None, True), f"{prefix}masks/")
    skipped += [(mask, GONE) for stem, files in masks.items() if stem not in images for mask in files]
    listed = []
    for stem, files in images.items():
        found = masks.get(stem, [])
        if len(files) > 1:
            skipped += [(image, SAME_NAME) for image in files]
        elif len(found) > 1:
            shown = " and ".join(PurePosixPath(mask).name for mask in found[:2])
            skipped.append((files[0], f"it has {len(found)} masks, {shown}; keep one"))
        else:
            listed.append(Pair(files[0], None, test, image=files[0], mask=found[0] if found else ""))
    return listed


def _by_stem(files: Sequence[str], prefix: str) -> dict[str, list[str]]:
    """Files by their path without the prefix and the suffix."""
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(PurePosixPath(file[len(prefix) :]).with_suffix("").as_posix(), []).append(file)
    return found


# --- what the masks mean ---------------------------------------------------------------------------------------------


def _classes(root: Path) -> tuple[list[tuple[Key, str]], str]:
    """Values or colours, and the names of their classes, from the table of a folder; and what it is called."""
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise UserError(f"there is no {' or '.join(TABLES)} in {root}; write one class a line: {EXPECTED[9:]}")
    if Links(root).leads_out(str(root), table.name):
        raise UserError(f"{table} is a link that leads out of the folder; put the table itself there")
    try:
        with table.open(encoding="utf-8-sig", newline="") as opened:
            rows = [[cell.strip() for cell in row] for row in csv.reader(opened, skipinitialspace=True)]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{table.name} cannot be read as a UTF-8 table ({error}); save it again as CSV, UTF-8"
        ) from error
    lines = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    if lines and _is_header(lines[0][1]):
        lines = _in_order(lines)
    found: list[tuple[Key, str]] = []
    for number, row in lines:
        where = f"line {number} of {table.name}"
        if len(row) == 1 and len(lines[0][1]) == 1:
            if row[0] in (name for _, name in found):
                raise UserError(f"{where} names {row[0]!r} a second time; name every class once")
            found.append((len(found), row[0]))
        elif len(row) == 2 and len(lines[0][1]) == 2:
            found.append((_byte(row[0], where), row[1]))
        elif len(row) == 4 and len(lines[0][1]) == 4:
            red, green, blue = (_byte(cell, where) for cell in row[1:])
            found.append(((red, green, blue), row[0]))
        else:
            raise UserError(f"{where} reads {','.join(row)[:60]!r}; {EXPECTED}, all of one kind")
    return found, table.name


def _is_header(row: Sequence[str]) -> bool:
    words = {cell.lower() for cell in row}
    return bool(words & NAMES) and words <= NAMES | VALUES | set().union(*COLOURS)


def _in_order(lines: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The lines below a header, their cells in the order that lines without one have."""
    header = [cell.lower() for cell in lines[0][1]]
    wanted = [NAMES, *COLOURS] if len(header) == 4 else [VALUES, NAMES] if len(header) == 2 else [NAMES]
    places = [next((k for k, word in enumerate(header) if word in words), None) for words in wanted]
    if None in places or len(places) != len(header):
        raise UserError(f"the columns of the table of classes are {', '.join(header)}; {EXPECTED}")
    return [
        (number, [row[k] for k in places] if len(row) == len(header) else row)  # type: ignore[index]
        for number, row in lines[1:]
    ]


def _byte(cell: str, where: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and int(cell) <= VOID):
        raise UserError(f"{where} holds {cell[:20]!r} where a whole number from 0 to {VOID} is wanted; {EXPECTED}")
    return int(cell)


def _legend(given: Sequence[tuple[Key, str]], source: str) -> tuple[list[str], Legend]:
    """The names of the classes, and what the values or colours that have them mean; several may have the same."""
    names: list[str] = []
    classes: dict[Key, int] = {}
    for key, name in given:
        if not name:
            raise UserError(f"{source} has a class without a name; name it, or call it void if its pixels are unknown")
        if key in classes:
            raise UserError(f"{source} names {key} a second time, {name!r}; give every value or colour one class")
        if name.lower() in VOID_NAMES:
            classes[key] = VOID
            continue
        if name not in names:
            names.append(name)
        classes[key] = names.index(name)
    if not 2 <= len(names) <= VOID:
        raise UserError(
            f"{source} names {len(names)} class{'es' * (len(names) != 1)}, void left out, and masks have 2 to {VOID}; name the "
            "background too, or merge some"
        )
    assumed = isinstance(given[0][0], int) and VOID not in classes
    if assumed:
        classes[VOID] = VOID
    return names, Legend(classes, len(names), source, assumed)


SOURCE = Source(
    name="masks",
    title="Your own images with masks: folders images and masks, and classes.csv",
    load=load,
    find=find,
    options=own.OPTIONS,
    needs_root=True,
    answer="mask",
    place=14,
)
