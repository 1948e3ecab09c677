"""What all sources of images with masks share: pairs of an image and a mask, a look at both, and the data set that they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.dataset import ImageDataset
from data.errors import UserError
from data.files import look, masklook
from data.files.encoded import Encoded, Paths
from data.files.maskfile import Legend
from data.files.ondemand import OnDemandMasks
from data.lazy import Fit
from data.sources.own import Entry, Found, Progress

NO_MASK = "it is to be tested on, and has no mask; add one, or take the image out"


@dataclass(frozen=True, slots=True)
class Pair(Entry):
    """An image and its mask. image, mask: their files, from the folder of all; mask: empty where there is none · group: whatever
    it shares with others that are nearly the same, such as a film; empty where that is not known."""

    image: str = ""
    mask: str = ""
    group: str = ""

    @property
    def labelled(self) -> bool:
        return bool(self.mask)


def found(
    name: str,
    root: Path,
    pairs: Sequence[Pair],
    legend: Legend,
    class_names: Sequence[str],
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    masked: bool = False,
    progress: Progress | None = None,
    drawn: Callable[[Sequence[str]], Encoded] | None = None,
) -> Found:
    """What is known of images and masks after a look at their files; nothing is kept decoded.

    pairs: of the pool, then of the test set, at least one, below the resolved `root` · size: a square's side, or height and
    width · masked: whether there are masks besides those of the pairs, none of which can be taken · drawn: the masks of these
    names, where they are no files below `root` · others: as of `data.sources.own.found`. An image whose mask cannot be taken is
    left out; one that has none can belong to the pool alone. Raises UserError where no image is left, or no mask of those that
    there are.
    """
    left_out = [*skipped, *((pair.id, NO_MASK) for pair in pairs if pair.test and not pair.mask)]
    masked = masked or any(pair.mask for pair in pairs)
    pairs = [pair for pair in pairs if pair.mask or not pair.test]
    images = Paths(root, [pair.image for pair in pairs], [root])
    seen = look.look(images, name, root, size, fit or "resize", progress, whole=True)
    left_out += [(pairs[row].id, why) for row, why in seen.reasons]
    pairs = [pair for pair, whole in zip(pairs, seen.read.tolist(), strict=True) if whole]
    images = images.take(np.flatnonzero(seen.read))
    names = [pair.mask for pair in pairs if pair.mask]
    masks = Paths(root, names, [root]) if drawn is None else drawn(names)
    has = np.array([pair.mask != "" for pair in pairs], np.bool_)
    place = np.where(has, np.cumsum(has) - 1, -1)
    looked = masklook.look_at_masks(masks, place, seen.shapes, legend, name, root, progress)
    left_out += [(pair.id, why) for pair, why in zip(pairs, looked.reasons, strict=True) if why]
    kept = np.array([row for row, why in enumerate(looked.reasons) if not why], np.int64)
    if not len(kept) or (masked and not has[kept].any()):
        first = f"; the first one: {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"no image in {root} has a mask that can be used{first}")
    blank = ~has | looked.empty
    lazy = OnDemandMasks(masks, place, images, legend, seen.images.shape[1:3], fit=seen.images.fit, blank=blank).view(
        kept
    )
    return Found(
        root=root,
        table=None,
        entries=[pairs[row] for row in kept],
        columns=[],
        images=seen.images.view(kept),
        shapes=seen.shapes[kept],
        modes=seen.modes[kept],
        clear=seen.clear[kept],
        digests=seen.digests[kept],
        depth=seen.depth,
        skipped=left_out,
        name=name,
        looked=seen.looked if seen.looked < len(seen.read) else None,
        verified=seen.verified and looked.pixels is not None,
        class_names=tuple(class_names),
        masks=lazy,
        mask_look=looked.take(kept),
    )


def assemble(found: Found) -> ImageDataset:
    """The data set of images and masks that were found."""
    pairs = [entry for entry in found.entries if isinstance(entry, Pair)]
    n_pool = sum(not pair.test for pair in pairs)
    assert found.masks is not None
    return ImageDataset(
        name=found.name,
        ids=[pair.id for pair in pairs[:n_pool]],
        images=found.images[:n_pool],
        labels=found.masks[:n_pool],
        label_counts=None,
        class_names=list(found.class_names),
        test_images=found.images[n_pool:],
        test_labels=found.masks[n_pool:],
        annotators="none",
        annotators_source=f"Only the masks in {found.root}; no separate annotations.",
        skipped=found.skipped,
        groups=[pair.group for pair in pairs[:n_pool]] if any(pair.group for pair in pairs) else None,
    )
