"""PASCAL VOC (Everingham et al. 2010): photographs with masks of twenty classes and background, from files that you have.

    ROOT/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
    ROOT/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png
    ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt, val.txt

That is how the archives unpack and where torchvision looks for them. Of several years, the last is taken. The class of a pixel
is its index in the palette; 255, the border of objects, is unknown. torchvision's own class is not used: it imports torch, to
read two lists of names.
"""

from pathlib import Path, PurePath

from data.dataset import ImageDataset
from data.errors import UserError
from data.files.maskfile import Key, Legend
from data.lazy import Fit
from data.masks import VOID
from data.sources import Source, own, pairs
from data.sources.pairs import Pair

CLASS_NAMES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "TV monitor"
]  # fmt: skip
URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
PLACES = ("VOCdevkit/VOC20*", "TrainVal/VOCdevkit/VOC20*")  # the second of 2011 alone
LISTS = "ImageSets/Segmentation"


def missing(root: Path) -> str:
    """What the user must do before this set can be loaded from `root`; empty when nothing. Looks at names only."""
    return "" if _folder(root) else f"unpack VOCtrainval_11-May-2012.tar (2 GB, from {URL}) in {root}"


def load(root: Path, size: int | None = None, fit: Fit | None = None) -> ImageDataset:
    """Pool: the images of train.txt, ids "2007_000032" …; test set: those of val.txt.

    size, fit: as of `data.sources.folder.load`. Images that are absent or cannot be read, or whose masks cannot, are listed in
    `skipped`. Raises UserError when the folders are absent, or a list is damaged.
    """
    own.check_options(size, fit, None)
    root = root.resolve()
    folder = _folder(root)
    if folder is None:
        raise UserError(f"PASCAL VOC is not there: {missing(root)}")
    top = folder.relative_to(root).as_posix()
    listed = []
    for part, test in (("train", False), ("val", True)):
        for name in _names(folder / LISTS / f"{part}.txt"):
            mask = f"{top}/SegmentationClass/{name}.png"
            there = (root / mask).is_file()
            listed.append(Pair(name, None, test, image=f"{top}/JPEGImages/{name}.jpg", mask=mask if there else ""))
    classes: dict[Key, int] = {**{k: k for k in range(len(CLASS_NAMES))}, VOID: VOID}
    legend = Legend(classes, len(CLASS_NAMES), "PASCAL VOC")
    return pairs.assemble(pairs.found("voc", root, listed, legend, CLASS_NAMES, size=size, fit=fit))


def _folder(root: Path) -> Path | None:
    """The folder of the last year that has lists of images with masks."""
    found = [folder for place in PLACES for folder in root.glob(place) if (folder / LISTS / "train.txt").is_file()]
    return max(found, key=lambda folder: folder.name, default=None)


def _names(file: Path) -> list[str]:
    try:
        names = file.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); unpack the archive again") from error
    outside = next((name for name in names if PurePath(name).name != name), None)
    if outside is not None or not names:
        said = "is empty" if outside is None else f"names {outside!r}, which is no image"
        raise UserError(f"{file} {said}; unpack the archive again")
    if len(set(names)) < len(names):
        raise UserError(f"{file} names an image twice; unpack the archive again")
    return names


SOURCE = Source(
    name="voc",
    title="PASCAL VOC: 1,464 photographs with masks of 20 classes and background",
    reference="Everingham et al. 2010",
    load=load,
    missing=missing,
    options=("size", "fit"),
    answer="mask",
    place=12,
)
