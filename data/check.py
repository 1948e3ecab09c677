"""What to know of a folder of images before anything is run on it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from data.files import dicom, skipped
from data.files.decode import DEEP, GREY
from data.files.masklook import MaskLook
from data.lazy import Fit, LazyImages, odd_shapes
from data.sources.own import Found

Severity = Literal["stop", "look", "fine"]
BROUGHT: dict[Fit, str] = {"resize": "stretched", "crop": "scaled and cropped", "pad": "scaled and padded"}
UNEVEN = 10  # times as many images in the largest class as in the smallest: worth a look
MODES = {
    "L": "grey",
    "RGB": "colour",
    "RGBA": "colour, transparent",
    "P": "palette",
    "1": "black and white",
    "CMYK": "print",
    dicom.GREY: "DICOM, grey",
    dicom.COLOUR: "DICOM, colour",
}


@dataclass(frozen=True)
class Finding:
    """One sentence, and what to do about it. stop: nothing can run · look: it can · fine: as it should be."""

    severity: Severity
    text: str


@dataclass(frozen=True, eq=False)
class Check:
    """Tables of what is there, and what follows from them.

    classes: name, pool, test (images; of masks, those that show the class, and pixels, its share of the known ones; where not all
    masks were decoded, the names alone) · unreadable: file, reason, of all that is left out · duplicates: group, file, label,
    part ("pool", "test"), of images whose decoded pixels are equal · sizes: width, height, images, the most frequent first ·
    odd: file, width, height, of images whose size or shape is unusual here · modes: kind, images.
    """

    classes: pd.DataFrame
    unreadable: pd.DataFrame
    duplicates: pd.DataFrame
    sizes: pd.DataFrame
    odd: pd.DataFrame
    modes: pd.DataFrame
    n_pool: int
    n_test: int
    n_unlabelled: int
    findings: list[Finding]

    @property
    def passed(self) -> bool:
        """Whether a run can be started."""
        return all(finding.severity != "stop" for finding in self.findings)


def check(found: Found, class_names: list[str] | None = None, *, votes: bool = False) -> Check:
    """Look through what `data.sources.folder.find` found.

    class_names: where people are to choose from these · votes: whether a table of votes gives the labels.
    """
    images = pd.DataFrame(
        {
            "file": [entry.id for entry in found.entries],
            "label": [entry.label for entry in found.entries],
            "part": ["test" if entry.test else "pool" for entry in found.entries],
        }
    )
    if found.mask_look is not None and found.masks is not None:
        classes, unlabelled = _shown(found, found.mask_look), int(found.masks.blank.sum())
    else:
        names = sorted(set(images["label"].dropna()) | set(class_names or found.columns))
        counts = pd.crosstab(images["label"], images["part"]).reindex(
            index=names, columns=["pool", "test"], fill_value=0
        )
        classes = counts.rename_axis(index="name", columns=None).reset_index()
        unlabelled = int(images["label"].isna().sum())
    duplicates = _duplicates(images, found.digests)
    known = found.shapes[:, 0] > 0
    shapes, number = np.unique(found.shapes[known], axis=0, return_counts=True)
    sizes = pd.DataFrame({"width": shapes[:, 1], "height": shapes[:, 0], "images": number})
    rows = np.flatnonzero(odd_shapes(found.shapes))
    odd = pd.DataFrame(
        {"file": images["file"].iloc[rows], "width": found.shapes[rows, 1], "height": found.shapes[rows, 0]}
    )
    modes = pd.Series(found.modes[known]).map(lambda mode: MODES.get(mode, "16 bit grey" if mode in DEEP else mode))
    made = Check(
        classes,
        pd.DataFrame(found.skipped, columns=["file", "reason"]),
        duplicates,
        sizes.sort_values("images", ascending=False, kind="stable", ignore_index=True),
        odd.reset_index(drop=True),
        modes.value_counts().rename_axis("kind").rename("images").reset_index(),
        int((images["part"] == "pool").sum()),
        int((images["part"] == "test").sum()),
        unlabelled,
        [],
    )
    about = _labels(made, images, votes) if found.mask_look is None else _masks(made, images, found.mask_look)
    made.findings.extend([*about, *_held_out(made, found), *_files(made, found)])
    return made


def _shown(found: Found, looked: MaskLook) -> pd.DataFrame:
    classes = pd.DataFrame({"name": found.class_names})
    if looked.pixels is None:
        return classes
    known, test = looked.pixels[:, :-1], np.array([entry.test for entry in found.entries])
    classes["pool"], classes["test"] = (known[~test] > 0).sum(axis=0), (known[test] > 0).sum(axis=0)
    classes["pixels"] = known.sum(axis=0) / max(1, known.sum())
    return classes


def _duplicates(images: pd.DataFrame, digests: np.ndarray) -> pd.DataFrame:
    key = pd.Series([digest.tobytes() for digest in digests], index=images.index)
    twice = key.duplicated(keep=False)
    table = images[twice].assign(group=pd.factorize(key[twice])[0] + 1)
    return table.sort_values(["group", "file"])[["group", "file", "label", "part"]].reset_index(drop=True)


def _labels(made: Check, images: pd.DataFrame, votes: bool) -> list[Finding]:
    classes, found = made.classes, []
    total = classes["pool"] + classes["test"]
    if len(classes) < 2 and not votes:
        which = f"only one class, {classes['name'].iloc[0]}" if len(classes) else "no class"
        found.append(
            Finding("stop", f"There is {which}: give the images labels of at least two classes, or name the classes.")
        )
    if made.n_unlabelled:
        found.append(
            Finding("look", f"{_are(made.n_unlabelled)} without a label: people can give one, image by image.")
        )
    single = classes["name"][total == 1].tolist()
    if single:
        found.append(
            Finding(
                "look",
                f"{_list(single)} with only one image: nothing can be learnt from one; add images or merge classes.",
            )
        )
    empty = classes["name"][total == 0].tolist()
    if empty and made.n_unlabelled < len(images):
        found.append(Finding("look", f"{_list(empty)} without an image so far."))
    some = total[total > 1]
    if len(some) > 1 and some.max() >= UNEVEN * some.min():
        large, small = classes["name"][some.idxmax()], classes["name"][some.idxmin()]
        found.append(
            Finding(
                "look",
                f"The classes are uneven: {some.max():,} images of {large}, {some.min():,} of {small}. Accuracy will mostly "
                f"reflect {large}.",
            )
        )
    return found


def _masks(made: Check, images: pd.DataFrame, looked: MaskLook) -> list[Finding]:
    classes, found = made.classes, []
    empty = images["file"][looked.empty].tolist()
    if without := made.n_unlabelled - len(empty):
        found.append(Finding("look", f"{_are(without)} without a mask: people can give one, image by image."))
    if empty:
        are, whose = "are", "those"
        advice = "these images count as images without a label; draw their masks, or take them out"
        if len(empty) == 1:
            are, whose, advice = "is", "that", "it counts as an image without a label; draw its mask, or take it out"
        which = f"{whose} of {_few(empty)}"
        said = f"{_n(len(empty), 'mask')} {are} empty, without a pixel of any class, {which}: {advice}."
        found.append(Finding("look", said))
    if looked.pixels is None:
        return found
    drawn = looked.pixels.sum(axis=1) > 0
    if unknown := looked.pixels[drawn, -1].sum() / max(1, looked.pixels[drawn].sum()):
        said = f"{unknown:.1%} of the masks' pixels are unknown: they are neither trained on nor measured."
        found.append(Finding("fine", said))
    shown = classes["pixels"] > 0
    absent = classes["name"][~shown].tolist()
    if absent and shown.any():
        found.append(Finding("look", f"{_list(absent)} without a pixel so far."))
    if shown.sum() > 1:
        share = classes["pixels"][shown]
        large, small = share.idxmax(), share.idxmin()
        if share[large] >= UNEVEN * share[small]:
            found.append(
                Finding(
                    "look",
                    f"The classes are uneven: {share[large]:.1%} of the known pixels are {classes['name'][large]}, "
                    f"{share[small]:.1%} {classes['name'][small]}. Pixel accuracy will mostly reflect "
                    f"{classes['name'][large]}; mean IoU counts every class alike.",
                )
            )
    return found


def _held_out(made: Check, found: Found) -> list[Finding]:
    if made.n_test:
        said = f"{_are(made.n_test)} held out to test the model, and neither ranked nor checked."
        return [Finding("fine", said)]
    if made.n_pool:
        measure = "accuracy" if found.mask_look is None else "mean IoU"
        return [Finding("look", f"There is no test set, so no test {measure} will be shown.")]
    return []


def _files(made: Check, found: Found) -> list[Finding]:
    said, twice = [], made.duplicates
    if found.skipped:
        said.append(Finding("look", skipped.sentence(skipped.groups(found.skipped))))
    if len(twice):
        groups = twice.groupby("group")
        said.append(
            Finding(
                "look",
                f"{_are(len(twice))} the same as another, in {_n(groups.ngroups, 'group')}: each costs a label.",
            )
        )
        contradict = int((groups["label"].nunique() > 1).sum())
        if found.mask_look is not None and found.mask_look.digests is not None:
            masks = pd.Series([digest.tobytes() for digest in found.mask_look.digests], [e.id for e in found.entries])
            contradict = int((twice["file"].map(masks).groupby(twice["group"]).nunique() > 1).sum())
        if contradict:
            said.append(
                Finding("look", f"In {contradict:,} of these groups the labels contradict: at least one is wrong.")
            )
        leaking = int((groups["part"].nunique() > 1).sum())
        if leaking:
            said.append(
                Finding(
                    "look",
                    f"Pool and test set share images in {leaking:,} of these groups: the test accuracy will be too high.",
                )
            )
    height, width = found.images.shape[1:3]
    if len(made.sizes) > 1 or (made.sizes["width"].iloc[0], made.sizes["height"].iloc[0]) != (width, height):
        fit = found.images.fit if isinstance(found.images, LazyImages) else "resize"
        other = "; choose another image size or fit under Advanced" if isinstance(found.images, LazyImages) else ""
        said.append(Finding("fine", f"The model sees every image {BROUGHT[fit]} to {width} × {height} pixels{other}."))
    if len(made.odd):
        first = made.odd.iloc[0]
        said.append(
            Finding(
                "look",
                f"{_are(len(made.odd))} much larger, smaller or longer than is usual here, such as {first['file']} "
                f"({first['width']:,} × {first['height']:,}): check that each belongs here, and that the fit suits it.",
            )
        )
    if found.looked is not None:
        said.append(
            Finding(
                "fine",
                f"The headers of {found.looked:,} of {len(found.entries):,} images were read, evenly spaced. An image that "
                "cannot be read is named when the run comes to it, and left out then.",
            )
        )
    elif not found.verified:
        said.append(
            Finding(
                "fine",
                "Only the headers were read: a damaged image is named when the run comes to it, and left out then. Images count "
                "as the same where their files are.",
            )
        )
    grey = np.isin(found.modes[found.shapes[:, 0] > 0], list(GREY))
    if 0 < grey.sum() < len(grey):
        said.append(
            Finding("look", f"{_are(grey.sum())} grey and {(~grey).sum():,} not: all will be treated as colour.")
        )
    if np.isin(found.modes, list(DEEP)).any():
        said.append(Finding("fine", f"16-bit images use {found.depth} bits, which become 8."))
    if found.clear.any():
        said.append(Finding("fine", f"{_n(found.clear.sum())} with transparent parts: these become white."))
    return said


def _n(n: int, noun: str = "image") -> str:
    """1 image, 2,000 images."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _are(n: int) -> str:
    """1 image is, 2,000 images are."""
    return f"{_n(n)} {'is' if n == 1 else 'are'}"


def _list(names: list[str]) -> str:
    """Class "a", or classes "a", "b" and 3 more."""
    return f"Class{'es' * (len(names) > 1)} {_few(names)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
