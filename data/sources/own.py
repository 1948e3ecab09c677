"""What all sources of a user's own images share: what was found, how it is divided, and the data set that it makes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from data import annotations
from data.dataset import UNKNOWN, ImageDataset, Pixels, stratified
from data.errors import UserError
from data.files import look
from data.files.encoded import Encoded, Links
from data.files.masklook import MaskLook
from data.lazy import FITS, Fit, LazyMasks

HELD_OUT = 0.2
UNLABELLED = {"", "-1", "nan"}
OPTIONS = ("size", "fit", "class_names", "test_share")
"""What every source of one's own images takes."""

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Entry:
    """One image before it is read. label: None for unknown; votes: class -> votes, None without votes; place: in its source."""

    id: str
    label: str | None
    test: bool = False
    votes: dict[str, int] | None = None
    place: int = 0

    @property
    def labelled(self) -> bool:
        """Whether it has a label."""
        return self.label is not None


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, eq=False)
class Found:
    """What lies in a source of images: n readable ones, those of the pool before those of the test set.

    name: of the source · images: uint8 [n,H,W,C] · shapes: int32 [n,2], height and width of the files, upright, 0 where
    the header was not read · modes: str [n], Pillow's, empty there · clear: bool [n], with transparent parts · digests: uint8
    [n,16], alike where images are the same · depth: bits that the 16-bit images use · table: of labels, None for class folders ·
    columns: its classes that have votes · looked: how many headers were read, None for all · verified: whether all images were
    decoded, so that none that is damaged is among them · class_names: in the order that the source gives them, where it does ·
    masks: of the n images, where masks are their labels, and mask_look: what was found of them.
    """

    root: Path
    table: Path | None
    entries: list[Entry]
    columns: list[str]
    images: Pixels
    shapes: np.ndarray
    modes: np.ndarray
    clear: np.ndarray
    digests: np.ndarray
    depth: int
    skipped: list[tuple[str, str]]
    name: str = "folder"
    looked: int | None = None
    verified: bool = True
    class_names: tuple[str, ...] = ()
    masks: LazyMasks | None = None
    mask_look: MaskLook | None = None


def check_options(size: int | None, fit: Fit | None, test_share: float | None) -> None:
    """Raise UserError for options that no source can do with."""
    if size is not None and size < 1:
        raise UserError(f"the image size must be at least 1 pixel, got {size}")
    if fit is not None and fit not in FITS:
        raise UserError(f"there is no fit {fit!r}; choose from {', '.join(FITS)}")
    if test_share is not None and not 0 <= test_share < 1:
        raise UserError(f"the test share is {test_share:g}; give one of at least 0 (no test set) and less than 1")


def found(
    name: str,
    root: Path,
    entries: Sequence[Entry],
    files: Encoded,
    *,
    size: int | None,
    fit: Fit | None,
    skipped: list[tuple[str, str]],
    columns: Sequence[str] = (),
    class_names: Sequence[str] = (),
    table: Path | None = None,
    progress: Progress | None = None,
) -> Found:
    """What is known of images after a look at their files; none is kept decoded.

    entries, files: of the pool, then of the test set · size, fit, skipped, progress: as of `data.sources.folder.find`. Raises
    UserError where no image can be read.
    """
    seen = look.look(files, name, root, size, fit or "resize", progress)
    if not seen.shapes.any():
        row, why = seen.reasons[0]
        raise UserError(f"no image in {root} can be read; the first one: {entries[row].id}: {why}")
    return Found(
        root=root,
        table=table,
        entries=[entry for entry, whole in zip(entries, seen.read.tolist(), strict=True) if whole],
        columns=list(columns),
        images=seen.images,
        shapes=seen.shapes,
        modes=seen.modes,
        clear=seen.clear,
        digests=seen.digests,
        depth=seen.depth,
        skipped=skipped + [(entries[row].id, why) for row, why in seen.reasons],
        name=name,
        looked=seen.looked if seen.looked < len(entries) else None,
        verified=seen.verified,
        class_names=tuple(class_names),
    )


def shards(root: Path, suffix: str, what: str) -> list[tuple[Path, bool]]:
    """The files of this suffix at a place, itself or in it, sorted; and whether each holds test images.

    These are such whose name, or whose folder's, begins with "test"; where there are none, with "val". Raises UserError where
    there is no such file. what: they are, for a message.
    """
    top = root.resolve()
    if top.is_file() and top.suffix.lower() == suffix:
        return [(top, False)]
    links = Links(top)
    within = sorted(top.rglob(f"*{suffix}")) if top.is_dir() else []
    files = [path for path in within if path.is_file() and not links.leads_out(str(path.parent), path.name)]
    if not files:
        raise UserError(f"there is no {what} at {root}; give a file {suffix}, or a folder of them")
    return divided([(path, path.relative_to(top).parts) for path in files])


def divided(files: Sequence[tuple[Path, tuple[str, ...]]]) -> list[tuple[Path, bool]]:
    """Files, each with words of which one may name its split, and whether it is of test images; others than these are left out.

    That is "test" at the beginning of a word, or where none has it "val"; where there are both, "val" is left out.
    """
    splits = [
        next((one for one in ("test", "val") if any(w.lower().startswith(one) for w in words)), "")
        for _, words in files
    ]
    if len(set(splits)) == 1:
        return [(path, False) for path, _ in files]
    test = "test" if "test" in splits else "val"
    return [(path, split == test) for (path, _), split in zip(files, splits, strict=True) if split in ("", test)]


def named(given: Sequence[object], class_names: Sequence[str] | None) -> list[str | None]:
    """Labels as names: texts as they are, numbers by their place in `class_names`, None where there is none.

    Raises UserError for what is no label, or a number that has no name.
    """
    names = list(class_names or ())
    found: list[str | None] = []
    for one in given:
        if one is None or (isinstance(one, str) and one.strip().lower() in UNLABELLED):
            found.append(None)
        elif isinstance(one, str):
            found.append(one.strip())
        elif isinstance(one, bool) or not isinstance(one, int | np.integer):
            raise UserError(f"there is a label {one!r}; labels are whole numbers or texts, one an image")
        elif one < 0:
            found.append(None)
        elif names and one >= len(names):
            raise UserError(
                f"there is a label {one}, but only {len(names)} classes have names: {', '.join(names)}; name them all"
            )
        else:
            found.append(names[int(one)] if names else str(one))
    return found


def assemble(found: Found, class_names: Sequence[str] | None = None, votes: str | Path | None = None) -> ImageDataset:
    """The data set of what was found; parameters and errors as of `data.sources.folder.load`."""
    entries, columns, skipped = found.entries, found.columns, found.skipped
    table = None if votes is None else annotations.table(Path(votes).expanduser())
    by_name = sorted({e.label for e in entries if e.label is not None})
    names = list(class_names or columns or found.class_names or by_name)
    if not names and table is not None:
        names = annotations.class_names(table)
    index = {name: k for k, name in enumerate(names)}
    outside = next((e for e in entries if e.label is not None and e.label not in index), None)
    if outside is not None:
        raise UserError(
            f"the label {outside.label!r} of {outside.id} is not one of the classes {', '.join(names)}; correct the label "
            "or add the class"
        )
    labels = np.array([UNKNOWN if e.label is None else index[e.label] for e in entries], np.int64)
    n_pool = sum(not e.test for e in entries)
    counts = None
    if columns:
        counts = np.array([[(e.votes or {}).get(name, 0) for name in names] for e in entries[:n_pool]], np.int64)
    ids, given = [e.id for e in entries], None
    if table is not None and votes is not None:
        ignore = [*ids[n_pool:], *(id for id, _ in skipped)]
        given = annotations.resolve(table, Path(votes).name, ids[:n_pool], names, ignore)
    return ImageDataset(
        name=found.name,
        ids=ids[:n_pool],
        images=found.images[:n_pool],
        labels=labels[:n_pool],
        label_counts=counts,
        class_names=names,
        test_images=found.images[n_pool:],
        test_labels=labels[n_pool:],
        annotators="none" if counts is None and given is None else "human",
        annotators_source=_source(found, counts is not None, given, votes),
        skipped=skipped,
        annotations=given,
    )


def _source(found: Found, counted: bool, given: annotations.Annotations | None, votes: str | Path | None) -> str:
    if given is not None and votes is not None:
        people = len(set(given.annotators))
        return f"{len(given.rows):,} annotations by {people} {'person' if people == 1 else 'people'} in {Path(votes).name}."
    if counted:
        return f"The annotations in {found.table}."
    return f"Only the labels in {found.table or found.root}; no separate annotations."


def pool_then_test(entries: list[E], share: float | None) -> list[E]:
    """The pool's entries before the test set's, each in the order given; holds a test set out where there is none.

    Where there is to be no test set the order stays that of the usual split, so that the decoded images serve both.
    """
    if not any(entry.test for entry in entries):
        entries = list(entries)
        labelled = [i for i, entry in enumerate(entries) if entry.labelled]
        if labelled:
            _, classes = np.unique([str(entries[i].label) for i in labelled], return_inverse=True)
            held_out = stratified(classes, max(1, round((share or HELD_OUT) * len(labelled))), seed=0)
            for i in held_out:
                entries[labelled[i]] = replace(entries[labelled[i]], test=True)
    if share and all(entry.test for entry in entries):
        raise UserError(f"a test share of {share:g} leaves no image in the pool; give a smaller one")
    ordered = [e for e in entries if not e.test] + [e for e in entries if e.test]
    return [replace(entry, test=False) for entry in ordered] if share == 0 else ordered
