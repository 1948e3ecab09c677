"""Annotations in COCO's format, of which each image has one class.

    ROOT/annotations.json  or  ROOT/annotations/instances_train2017.json  or  ROOT/_annotations.coco.json

`root` is such a folder or such a file. An image whose annotations are all of one category has that label; one that has none
is unlabelled; one that has several is left out, and said to be. Files are looked for where `file_name` says, from the JSON
file's folder, the one above, and the folders images and NAME of either (train2017 of instances_train2017.json). Of several JSON
files in a folder, those with a word that begins with "test", or else "val", are the test set.
"""

import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data import annotations
from data.dataset import ImageDataset
from data.errors import UserError
from data.files import cocofile
from data.files.encoded import Links, Paths
from data.lazy import Fit
from data.sources import Source, own
from data.sources.folder import left_out_before
from data.sources.own import Entry, Found, Progress, assemble

# Words of any file of annotations, and of one that draws shapes. It may be gigabytes, or damaged: it is searched, not parsed
ANNOTATIONS, SHAPES = re.compile(rb'"annotations"\s*:'), re.compile(rb'"segmentation"\s*:\s*(?:\[\s*[\[{\d]|\{)')
GONE = "there is no such file"
OUT = "its path leads out of the folder"
SEVERAL = "it has annotations of several classes, and one label an image is wanted"


def load(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
) -> ImageDataset:
    """The images that COCO annotations at `root` name; ids are their paths below the folder.

    class_names: by default the categories that images have, in the order of their ids. Other options, and errors, as of
    `data.sources.folder.load`.
    """
    return assemble(find(root, size, fit, class_names, test_share), class_names)


def find(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """Read the annotations and look at their files; parameters and errors as of `load`."""
    own.check_options(size, fit, test_share)
    files = annotation_files(root.resolve(), root)
    folder = folder_of(root, files)
    skipped: list[tuple[str, str]] = []
    entries: list[Entry] = []
    categories: dict[str, None] = {}
    seen: set[str] = set()
    links = Links(folder)
    for file, test in files:
        content = cocofile.read(file)
        name_of = cocofile.categories(content)
        categories |= dict.fromkeys(name_of.values())
        classes: dict[Any, set[str]] = {}
        for one in content["annotations"]:
            if one["category_id"] not in name_of:
                raise UserError(
                    f"{file.name} has an annotation of a category {one['category_id']!r} that it does not list; export it again"
                )
            classes.setdefault(one["image_id"], set()).add(name_of[one["category_id"]])
        starts = places(folder, file)
        for one in content["images"]:
            path, why = located(str(one["file_name"]), starts, folder, links)
            if path in seen:
                raise UserError(f"{file.name} names {path} a second time; keep one entry per image")
            found = classes.get(one["id"], set())
            if why or len(found) > 1:
                skipped.append((path, why or SEVERAL))
            else:
                seen.add(path)
                entries.append(Entry(path, min(found, default=None), test))
    if not entries:
        first = f"; the first one: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UserError(f"no image that {files[0][0].name} names can be used{first}")
    used = {entry.label for entry in entries}
    entries = own.pool_then_test(entries, test_share)
    return own.found(
        "coco",
        folder,
        entries,
        Paths(folder, [entry.id for entry in entries], [folder]),
        size=size,
        fit=fit,
        skipped=[*skipped, *left_out_before(folder)],
        class_names=[name for name in categories if name in used],
        table=files[0][0],
        progress=progress,
    )


def fits(root: Path) -> bool:
    """Whether a folder holds COCO annotations that draw nothing, and no table of labels of its own."""
    return says(root, ANNOTATIONS) and not says(root, SHAPES)


def says(root: Path, words: re.Pattern[bytes]) -> bool:
    """Whether one of a folder's files of annotations has such words, and no table of labels beside it tells the classes."""
    if annotations.beside(root) is not None:
        return False
    try:
        files = annotation_files(root.resolve(), root)
    except UserError:
        return False
    return any(_has(file, words) for file, _ in files)


def _has(file: Path, words: re.Pattern[bytes]) -> bool:
    with file.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            return False
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return words.search(content) is not None


def annotation_files(top: Path, given: Path) -> list[tuple[Path, bool]]:
    """The JSON files, and whether each is of test images."""
    if top.is_file() and top.suffix.lower() == ".json":
        return [(top, False)]
    links = Links(top)
    found = [path for part in ("", "annotations") for path in sorted((top / part).glob("*.json"))]
    found = [path for path in found if path.is_file() and path.name[0] != "."]
    found = [path for path in found if not links.leads_out(str(path.parent), path.name)]
    if not found:
        raise UserError(f"there are no annotations at {given}; give COCO's JSON file, or the folder it lies in")
    return own.divided([(path, tuple(re.split(r"[\W_]+", path.stem))) for path in found])


def folder_of(root: Path, files: Sequence[tuple[Path, bool]]) -> Path:
    """The folder that holds everything, of a place and what `annotation_files` found there."""
    folder = root.resolve() if root.is_dir() else files[0][0].parent
    return folder.parent if folder.name == "annotations" else folder


def places(folder: Path, file: Path) -> list[str]:
    """Where `file_name`s may start, from the folder of everything, POSIX with a slash behind."""
    beside = file.parent.relative_to(folder).as_posix()
    word = file.stem.rsplit("_", 1)[-1]
    starts = ["", *([] if beside == "." else [f"{beside}/"])]
    return [f"{start}{more}" for start in starts for more in ("", "images/", f"{word}/", f"images/{word}/")]


def located(name: str, starts: Sequence[str], folder: Path, links: Links) -> tuple[str, str]:
    """Where a file lies below the folder, and why it cannot be taken, else empty."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
        return name, OUT
    for place in starts:
        whole = os.path.join(folder, place + path.as_posix())
        try:
            if links.leads_out(*os.path.split(whole)):
                return name, OUT
            if os.path.isfile(whole):
                return place + path.as_posix(), ""
        except OSError:  # a name longer than the system allows
            break
    return name, GONE


SOURCE = Source(
    name="coco",
    title="Your own images: COCO annotations, one class an image",
    reference="Lin et al. 2014",
    load=load,
    find=find,
    fits=fits,
    options=own.OPTIONS,
    needs_root=True,
    place=6,
)
