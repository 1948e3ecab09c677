"""The user's own images with masks in COCO's format: the annotations of an image draw one mask, a class a pixel.

    ROOT/annotations.json  or  ROOT/annotations/instances_train2017.json  or  ROOT/_annotations.coco.json

Files lie as `data.sources.coco` has it. Classes are the categories, in the order of their ids. Where annotations overlap, the
one that comes later in the file is on top. Polygons and RLE are taken, the pixels of a crowd (iscrowd 1, an RLE) are unknown, as
are those of a category called void, unlabelled, unknown or ignore.

Pixels without any annotation are "background", a class of its own and the first, as is usual with COCO's objects; where a
category is marked as stuff (isthing 0), every pixel is meant to be annotated, and these are unknown. An image without annotations
has no label. One whose annotations cannot be drawn, or of another size than the file says, is left out, and said to be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.dataset import ImageDataset
from data.errors import UserError
from data.files import cocofile
from data.files.classtable import VOID_NAMES
from data.files.cocofile import BACKGROUND, Drawing, Drawings
from data.files.encoded import Links
from data.files.maskfile import Key, Legend
from data.lazy import Fit
from data.masks import VOID
from data.sources import Source, coco, own, pairs
from data.sources.folder import left_out_before
from data.sources.own import Found, Progress
from data.sources.pairs import Pair

UNANNOTATED = (BACKGROUND, "void")
"""What pixels without annotation can be."""


def load(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
    unannotated: str | None = None,
) -> ImageDataset:
    """The images that COCO annotations at `root` name, with masks; ids are their paths below the folder.

    class_names: the categories, and "background" where there is one, in another order · unannotated: what pixels without
    annotation are, one of `UNANNOTATED`; by default void where a category is marked as stuff, else background. Other options, and
    errors, as of `data.sources.masks.load`.
    """
    return pairs.assemble(find(root, size, fit, class_names, test_share, unannotated))


def find(
    root: Path,
    size: int | None = None,
    fit: Fit | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float | None = None,
    unannotated: str | None = None,
    progress: Progress | None = None,
) -> Found:
    """Read the annotations and look at their images; parameters and errors as of `load`."""
    own.check_options(size, fit, test_share)
    if unannotated is not None and unannotated not in UNANNOTATED:
        raise UserError(f"pixels without annotation cannot be {unannotated!r}; choose from {', '.join(UNANNOTATED)}")
    files = coco.annotation_files(root.resolve(), root)
    folder = coco.folder_of(root, files)
    contents = {file: cocofile.read(file) for file, _ in files}
    annotated = any(content["annotations"] for content in contents.values())
    names, base = _classes(list(contents.values()), class_names, unannotated)
    codes = {name: code for code, name in enumerate(names)}
    skipped: list[tuple[str, str]] = []
    listed: list[Pair] = []
    drawings: dict[str, Drawing] = {}
    seen: set[str] = set()
    links = Links(folder)
    for file, test in files:
        starts = coco.places(folder, file)
        for name, drawing in cocofile.drawings(contents.pop(file), file.name, codes, base):
            path, why = coco.located(name, starts, folder, links)
            if path in seen:
                raise UserError(f"{file.name} names {path} a second time; keep one entry per image")
            if why or isinstance(drawing, str):
                skipped.append((path, why or str(drawing)))
                continue
            seen.add(path)
            if drawing is not None:
                drawings[path] = drawing
            listed.append(Pair(path, None, test, image=path, mask="" if drawing is None else path))
    if not listed:
        first = f"; the first one: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UserError(f"no image that {files[0][0].name} names can be used{first}")
    classes: dict[Key, int] = {**{k: k for k in range(len(names))}, VOID: VOID}
    legend = Legend(classes, len(names), files[0][0].name, resize=f"correct its height and width in {files[0][0].name}")
    found = pairs.found(
        "coco-masks",
        folder,
        own.pool_then_test(listed, test_share),
        legend,
        names,
        size=size,
        fit=fit,
        skipped=skipped,
        masked=annotated,
        progress=progress,
        drawn=lambda paths: Drawings(paths, [drawings[path] for path in paths]),
    )
    return replace(found, skipped=[*found.skipped, *left_out_before(folder)])


def fits(root: Path) -> bool:
    """Whether a folder holds COCO annotations that draw polygons or RLE, and no table of labels of its own."""
    return coco.says(root, coco.SHAPES)


def _classes(
    contents: Sequence[Mapping[str, Any]], given: Sequence[str] | None, unannotated: str | None
) -> tuple[list[str], int]:
    """The names of the classes, and the class of pixels without annotation."""
    if unannotated is None:
        unannotated = "void" if any(cocofile.has_stuff(content) for content in contents) else BACKGROUND
    listed = [name for content in contents for name in cocofile.categories(content).values()]
    names = [name for name in dict.fromkeys(listed) if name.lower() not in VOID_NAMES]
    if unannotated == BACKGROUND and BACKGROUND not in names:
        names.insert(0, BACKGROUND)
    if given is not None:
        if sorted(given) != sorted(names):
            raise UserError(
                f"--classes names {', '.join(given)}, and the file has the classes {', '.join(names)}; name these, in any order"
            )
        names = list(given)
    if not 2 <= len(names) <= VOID:
        raise UserError(
            f"the file names {len(names)} class{'es' * (len(names) != 1)}, and masks have 2 to {VOID}; add or merge some"
        )
    return names, names.index(BACKGROUND) if unannotated == BACKGROUND else VOID


SOURCE = Source(
    name="coco-masks",
    title="Your own images with masks: COCO annotations, polygons and RLE",
    reference="Lin et al. 2014",
    load=load,
    find=find,
    fits=fits,
    options=(*own.OPTIONS, "unannotated"),
    needs_root=True,
    answer="mask",
    place=15,
)
