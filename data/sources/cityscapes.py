"""Cityscapes (Cordts et al. 2016): street scenes of 2,048 x 1,024 pixels with masks of 19 classes, from files that you have.

    ROOT/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    ROOT/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png          and so for val

That is how the archives unpack and where torchvision looks for them. The 34 ids of the masks become the 19 classes of the
benchmark, its train ids; the others are unknown. `groups` says in which city a scene is. torchvision's own class is not used:
it imports torch, and unpacks archives that it finds.
"""

from pathlib import Path

from data.dataset import ImageDataset
from data.errors import UserError
from data.files.maskfile import Key, Legend
from data.lazy import Fit
from data.masks import VOID
from data.sources import Source, own, pairs
from data.sources.pairs import Pair

CLASSES = {  # name → id in the masks; the train id is its place
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19, "traffic sign": 20,
    "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31,
    "motorcycle": 32, "bicycle": 33
}  # fmt: skip
N_IDS = 34
IMAGES, MASKS = "leftImg8bit", "gtFine"
URL = "https://www.cityscapes-dataset.com/downloads/"


def missing(root: Path) -> str:
    """What the user must do before this set can be loaded from `root`; empty when nothing. Looks at names only."""
    if all((root / kind / part).is_dir() for kind in (IMAGES, MASKS) for part in ("train", "val")):
        return ""
    return f"unpack leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (from {URL}) in {root}"


def load(root: Path, size: int | None = None, fit: Fit | None = None) -> ImageDataset:
    """Pool: the scenes of train, ids "aachen_000000_000019" …, groups the cities; test set: those of val.

    size, fit: as of `data.sources.folder.load`; by default 112 x 224 pixels. Images that cannot be read, or whose masks
    cannot, are listed in `skipped`. Raises UserError when the folders are absent.
    """
    own.check_options(size, fit, None)
    root = root.resolve()
    if absent := missing(root):
        raise UserError(f"Cityscapes is not there: {absent}")
    listed = []
    for part, test in (("train", False), ("val", True)):
        for image in sorted((root / IMAGES / part).glob(f"*/*_{IMAGES}.png")):
            city, scene = image.parent.name, image.stem.removesuffix(f"_{IMAGES}")
            mask = f"{MASKS}/{part}/{city}/{scene}_{MASKS}_labelIds.png"
            there = (root / mask).is_file()
            listed.append(
                Pair(
                    scene,
                    None,
                    test,
                    image=image.relative_to(root).as_posix(),
                    mask=mask if there else "",
                    group=city,
                )
            )
    if all(pair.test for pair in listed):
        raise UserError(f"there is no scene in {root / IMAGES / 'train'}; unpack leftImg8bit_trainvaltest.zip again")
    ids: dict[Key, int] = {**dict.fromkeys(range(N_IDS), VOID), **{id: k for k, id in enumerate(CLASSES.values())}}
    legend = Legend(ids, len(CLASSES), "Cityscapes")
    return pairs.assemble(pairs.found("cityscapes", root, listed, legend, list(CLASSES), size=size, fit=fit))


SOURCE = Source(
    name="cityscapes",
    title="Cityscapes: 2,975 street scenes with masks of 19 classes, in 18 cities",
    reference="Cordts et al. 2016",
    load=load,
    missing=missing,
    options=("size", "fit"),
    answer="mask",
    place=13,
)
