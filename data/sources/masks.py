"""The user's own images with masks: for every image a PNG of the same name, and a table that says what its pixels mean.

    ROOT/images/a.jpg        ROOT/masks/a.png           a fifth is held out as the test set
    ROOT/train/images/a.jpg  ROOT/train/masks/a.png     ROOT/test/images, ROOT/test/masks (`val` serves where there is no `test`)
    ROOT/classes.csv         or classes.txt, with or without a header, one class per line:

    name                     masks hold 0 for the first class, 1 for the second, …
    value,name               masks hold these values (0 … 255)
    name,r,g,b               masks show these colours

Image and mask belong together by their path below `images` and `masks`, without the suffix. By value, a mask is a grey or an
indexed PNG, whose palette is of no account; by colour, an RGB or an indexed one. A class called void, unlabelled, unknown or
ignore is none: such pixels are unknown (-1), as is the value 255 unless the table names it. An image without a mask has no label,
nor has one whose mask shows no class; where nothing is labelled yet, the folder masks may be absent. Either file is set upright
by its own EXIF orientation, and then both must have one size.

Images come to one size as in a folder of images (`data.sources.folder`), and masks with them, by the nearest pixel; what "pad"
adds is unknown. Images that all have one shape keep it, scaled to at most 224 pixels a side, unless a size is given.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data.dataset import ImageDataset
from data.errors import UserError
from data.files import classtable
from data.files.encoded import Links
from data.files.maskfile import Legend
from data.lazy import Fit
from data.sources import Source, folder, own, pairs
from data.sources.own import Found, Progress
from data.sources.pairs import Pair

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
    given = classtable.read(root) if class_names is None else (list(enumerate(class_names)), "--classes")
    names, legend = classtable.legend(*given)
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
        masked=any(why == GONE for _, why in skipped),
        progress=progress,
    )
    _check_binary(found, legend)
    return replace(found, skipped=[*found.skipped, *folder.left_out_before(root)])


def fits(root: Path) -> bool:
    """Whether a folder looks like one of images and masks: beside its images lie masks, or a table says what masks mean."""
    tabled = any((root / name).is_file() for name in classtable.TABLES)
    parts = (root, root / "train")
    return any((part / "images").is_dir() and (tabled or (part / "masks").is_dir()) for part in parts)


def _check_binary(found: Found, legend: Legend) -> None:
    """Raise UserError where 255, which was taken for unknown, seems to be a class: next to it the masks show the first alone."""
    looked = found.mask_look
    if looked is None or looked.pixels is None or not legend.assumed:
        return
    shown = looked.pixels.sum(axis=0) > 0
    if shown[0] and shown[-1] and not shown[1:-1].any():
        raise UserError(
            f"the masks in {found.root} hold no class but {found.class_names[0]!r}, and 255, which stands for unknown; if 255 is "
            f"a class, write the lines 0,{found.class_names[0]} and 255,{found.class_names[1]} into {classtable.TABLES[0]}"
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
    links, top = Links(root), root / prefix
    for part in ("images", "masks"):
        place = top / part
        if not place.is_dir():
            others = [one.name for one in _folders(top) if one.name != "images"]
            if part == "masks" and not others:
                continue  # nobody has drawn one yet
            there = f"; there is {', '.join(others[:3])}" if others else ""
            raise UserError(f"there is no folder {place}{there}; put images into images and their masks into masks")
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


def _folders(top: Path) -> list[Path]:
    """The folders at a place, hidden ones left out."""
    found = sorted(top.iterdir()) if top.is_dir() else []
    return [one for one in found if one.is_dir() and not one.name.startswith((".", "__MACOSX"))]


def _by_stem(files: Sequence[str], prefix: str) -> dict[str, list[str]]:
    """Files by their path without the prefix and the suffix."""
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(PurePosixPath(file[len(prefix) :]).with_suffix("").as_posix(), []).append(file)
    return found


SOURCE = Source(
    name="masks",
    title="Your own images with masks: folders images and masks, and classes.csv",
    load=load,
    find=find,
    fits=fits,
    options=own.OPTIONS,
    needs_root=True,
    answer="mask",
    place=14,
)
