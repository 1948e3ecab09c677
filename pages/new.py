"""New run: choose images, look at what they are, and start."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.uploaded_file_manager import UploadedFile

import data
from core import methods
from core.runs import imported, settle
from core.runs.spec import OPTIONS
from data import check
from data.dataset import Answer
from data.errors import UserError
from data.files import overlay, roots, upload
from data.files.preview import png, small
from data.lazy import LazyMasks
from data.masks import VOID, narrowed
from data.sources import folder
from data.sources.own import Found, assemble
from data.words import count
from pages.ui import frame, layers, start, widgets

WAYS = {"ready": "A data set that is ready", "folder": "A folder on the server", "zip": "A zip file"}


@dataclass(frozen=True)
class Layout:
    """Of images of one's own. example: of a place · expected: there · classes: what naming them does, empty where files do ·
    place: what it is."""

    example: str
    expected: str
    classes: str = "Of images without labels: the names for people to choose from, with commas between them."
    place: str = "File or folder"


KINDS = {
    "folder": Layout(
        "images",
        "One sub-folder per class, or images and a metadata.csv with the columns file_name and label.",
        place="Folder",
    ),
    "csv": Layout(
        "labels.csv", "A CSV file with the columns path and label, and split where images are to be tested on."
    ),
    "coco": Layout(
        "coco", "A folder with annotations in COCO's JSON, in it or in its folder annotations; or such a file."
    ),
    "parquet": Layout(
        "parquet", "A Parquet file as Hugging Face writes it, with the columns image and label; or a folder of them."
    ),
    "webdataset": Layout("shards", "A folder of WebDataset's tar files; or such a file."),
    "masks": Layout(
        "scenes",
        "Images in the folder images, their masks as PNG of the same names in masks, and a classes.csv with one class per line: "
        "name, or value,name, or name,r,g,b. Or images and masks in train and test. Where nothing is labelled yet: no masks.",
        "Instead of classes.csv: the classes of the values 0, 1, … of the masks, with commas between them.",
        "Folder",
    ),
    "coco-masks": Layout(
        "coco",
        "A folder with annotations in COCO's JSON, polygons or RLE, in it or in its folder annotations; or such a file.",
        "",
    ),
}
ZIPPED = [name for name in KINDS if name == "folder" or data.CATALOGUE[name].fits is not None]
SECTIONS: dict[Answer, str] = {"class": "", "mask": "Segmentation: "}  # kinds of labels, in the order of the list
MARKS = {"stop": ":material/block:", "look": ":material/warning:", "fine": ":material/check:"}
PREDICTED = {
    "out-of-sample": "on other images than those it predicts (cross-validation, or another data set)",
    "in-sample": "on the images and labels that it predicts",
}
SEEN_BY = ("size", "fit", "test_share", "unannotated")  # options of a run that change what a look at its images finds
CLASSES, EACH, SIDE = 12, 8, 72  # of the preview: classes, images of each, pixels
OF_PIXELS = "Share of the pixels whose class is known"
SCENES, NAMED = 12, 40  # of the preview of masks: images, classes in the legend

frame.setup("New run")
frame.sidebar()
st.title("New run")


def ready() -> start.Images | None:
    """One of the data sets that NextLabel knows."""
    there = [one for one in data.available() if not data.CATALOGUE[one.name].needs_root]
    sources = {one.name: one for answer in SECTIONS for one in there if data.CATALOGUE[one.name].answer == answer}

    def title(name: str) -> str:
        section = SECTIONS[data.CATALOGUE[name].answer]
        text = f"{name} — {section}{sources[name].title}"
        return text if sources[name].available else f"{text} (not here yet)"

    name = st.selectbox("Data set", list(sources), key="dataset", format_func=title)
    if not sources[name].available:
        st.info(sources[name].reason)
    return start.Images(name)


def own(way: str) -> start.Images | None:
    """Images of one's own, checked; None until they are."""
    kind, root = uploaded() if way == "zip" else on_server()
    table, classes, of_labels, of_votes = None, None, None, None
    if "labels" in data.CATALOGUE[kind].options:
        with st.expander("Labels or annotations from a table; images without labels"):
            table, classes = given_table(), named_classes(kind)
    elif KINDS[kind].classes:
        classes = named_classes(kind)
    if root is None:
        return None
    votes = table is not None and folder.is_votes(table)
    if table is not None:
        of_labels, of_votes = (None, str(table)) if votes else (str(table), None)
    tables = {name: path for name, path in (("labels", of_labels), ("votes", of_votes)) if path is not None}
    key = (kind, str(root), str(table), tuple(classes or ()))
    if st.session_state.get("checked", (None,))[0] != key:
        if not st.button("Check the images", type="primary", key="check"):
            st.caption("Nothing runs before you have seen what is there.")
            return None
        with bar() as progress:
            found = look(kind, root, class_names=classes, progress=progress, **tables)
        looked = check.check(found, classes, votes=votes)
        if looked.passed and found.masks is None:
            assemble(found, classes, of_votes)  # raises what only the whole data set shows
        st.session_state["checked"] = key, found, looked
        st.rerun()
    _, found, looked = st.session_state["checked"]
    if not looked.passed:
        report(found, looked, looked.n_pool, looked.n_test)
        return None
    return start.Images(
        kind,
        str(root),
        of_labels,
        of_votes,
        classes,
        pool=looked.n_pool,
        unlabelled=looked.n_unlabelled,
        side=max(found.images.shape[1:3]),
    )


def look(kind: str, root: Path, **options: Any) -> Found:
    """What lies at a place, as a run that is started now will read it."""
    find = data.CATALOGUE[kind].find
    assert find is not None
    return find(root, **({"on_demand": True} if kind == "folder" else {}), **options)


def on_server() -> tuple[str, Path | None]:
    """A layout, and a place on the server that has it; None until one is named."""
    kind = st.selectbox("Layout", list(KINDS), key="kind", format_func=lambda one: data.CATALOGUE[one].title)
    layout = KINDS[kind]
    typed = st.text_input(
        f"{layout.place} on the server",
        placeholder=f"{roots.roots()[0]}/{layout.example}",
        key="root",
        help="On the computer that runs NextLabel. The images stay where they are.",
    )
    st.caption(frame.plain(layout.expected))
    if not typed.strip():
        return kind, None
    root = roots.inside(typed)
    if kind == "folder" and root.is_dir() and (better := fitting(root)) != kind:
        st.warning(f"This looks like “{data.CATALOGUE[better].title}”: choose that layout above.")
    return kind, root


@st.cache_data(max_entries=64, ttl=60, show_spinner=False)  # seconds: somebody may change the folder
def fitting(root: Path) -> str:
    """The layout that a folder has."""
    with suppress(OSError):  # of what may not be read: the look at the images says so
        fits = [name for name in ZIPPED if (test := data.CATALOGUE[name].fits) is not None and test(root)]
        return [*fits, "folder"][0]
    return "folder"


def uploaded() -> tuple[str, Path | None]:
    """The layout of an uploaded zip file, and where it was unpacked; None until there is one."""
    file = st.file_uploader("Images, packed as a zip file", ["zip"], key="zip")
    st.caption(
        "A folder for each class, or images and a metadata.csv with the columns file_name and label; images with masks and "
        "a classes.csv; or COCO annotations and their images. Other files are left out, and listed. Where the zip file is too "
        "large, copy the images to the server and name the folder."
    )
    if file is None:
        return "folder", None
    root, recognised = unpacked(file)
    kind = st.selectbox(
        "Layout of the zip file",
        ZIPPED,
        ZIPPED.index(recognised),
        format_func=lambda one: data.CATALOGUE[one].title,
        key=f"zipped-{file.file_id}",
        help="Recognised by what lies in it: a folder images beside masks or a classes.csv; COCO's JSON, with or without "
        "polygons and RLE; anything else, or images with a metadata.csv, as class folders.",
    )
    st.caption(f"Recognised by its files; choose another if that is wrong. {frame.plain(KINDS[kind].expected)}")
    return kind, root


def unpacked(file: UploadedFile) -> tuple[Path, str]:
    """The folder of an uploaded zip file, unpacked at the first drawing only, and the layout that it has."""
    if st.session_state.get("unpacked", (None,))[0] != file.file_id:
        with st.spinner("Checking and unpacking…"):
            root = upload.unpack(file)
            st.session_state["unpacked"] = file.file_id, root, fitting(root)
    return st.session_state["unpacked"][1:]


def named_classes(kind: str) -> list[str] | None:
    """The names of the classes, where somebody types them."""
    text = st.text_input("Classes (optional)", placeholder="cat, dog", key="classes", help=KINDS[kind].classes)
    return list(dict.fromkeys(one.strip() for one in text.split(",") if one.strip())) or None


def given_table() -> Path | None:
    """A table of labels or votes: its path on the server, or an uploaded one."""
    typed = st.text_input(
        "Table on the server (optional)",
        placeholder=f"{roots.roots()[0]}/labels.csv",
        key="table",
        help="Labels: the columns file_name and label. Votes of several people: sample_id, annotator, label; or sample_id and "
        "one column an annotator. CSV or Parquet; the names are paths inside of the folder.",
    )
    file = st.file_uploader("or upload it", ["csv", "parquet"], key="table-file")
    if file is not None:
        return upload.keep_table(file.name, file.getvalue())
    return roots.inside(typed) if typed.strip() else None


def with_predictions(images: start.Images) -> start.Images:
    """The images with predictions of a model of one's own, where some are given."""
    if not start.takes(images.name, methods.selectors.CATALOGUE[settle.IMPORTED]):
        return images
    with st.expander("Predictions of your own model"):
        st.caption(
            "Instead of training a model here, rank by those that your model predicts: a .npy array with a row for each "
            "image, in the order of the table of labels or else of the sorted names, and a column for each class; or a table "
            "with the column sample_id (or file_name) and one column for each class."
        )
        left, right = st.columns(2)
        predictions = prediction_file(left, "Predicted probabilities", "predictions")
        embeddings = prediction_file(right, "Embeddings (optional)", "embeddings")
        predicted = st.selectbox(
            "The model was trained",
            [None, *OPTIONS["predicted"].literals],
            format_func=lambda one: PREDICTED.get(one, "I do not know"),
            key="predicted",
        )
        if predictions is None:
            return images
        if warning := imported.warning(predicted):
            st.warning(warning.replace(" (--predicted)", ""))
    return replace(images, predictions=predictions, embeddings=embeddings, predicted=predicted)


def prediction_file(place: DeltaGenerator, title: str, key: str) -> str | None:
    """An uploaded file of predictions or embeddings, or one on the server."""
    file = place.file_uploader(title, ["npy", "csv", "parquet"], key=f"{key}-file")
    typed = place.text_input("or a file on the server", placeholder=f"{roots.roots()[0]}/{key}.npy", key=f"{key}-path")
    if file is not None:
        return str(upload.keep_predictions(file.name, file.getvalue()))
    return str(roots.inside(typed)) if typed.strip() else None


def fits(given: dict[str, Any], place: DeltaGenerator) -> None:
    """Say how the predictions are joined with the images; what is wrong with them is said before a run is started."""
    config, dataset = settle.settle(given, frame.dataset)
    place.caption(frame.plain(imported.joined(config, dataset)))


@contextmanager
def bar() -> Iterator[Callable[[int, int], None]]:
    """Progress with the time that is left; gone when the work has ended, or failed."""
    shown, began = st.empty(), time.monotonic()
    shown.progress(0.0, text="Looking for images…")

    def progress(done: int, of: int) -> None:
        left = (time.monotonic() - began) * (of - done) / max(1, done)
        shown.progress(done / of, text=f"{done:,} of {of:,} images read · about {left:.0f} s left")

    try:
        yield progress
    finally:
        shown.empty()


def as_run(images: start.Images, given: dict[str, Any] | None) -> None:
    """Report on a folder as a run with these options would take it: its test set, its image size, its limit."""
    key, found, looked = st.session_state["checked"]
    if given is None:
        return report(found, looked, looked.n_pool, looked.n_test)
    try:
        config, dataset = settle.settle(given, frame.dataset)
    except UserError:  # said where the run is started
        return report(found, looked, looked.n_pool, looked.n_test)
    options = {name: value for name, value in config.load_options.items() if name in SEEN_BY}
    if options:
        key = (*key, *options.items())
        if st.session_state.get("checked-as", (None,))[0] != key:
            tables = {name: value for name in ("labels", "votes") if (value := getattr(images, name))}
            with bar() as progress:
                found = look(
                    images.name,
                    Path(str(images.root)),
                    class_names=images.classes,
                    progress=progress,
                    **tables,
                    **options,
                )
            looked = check.check(found, images.classes, votes=images.votes is not None)
            st.session_state["checked-as"] = key, found, looked
        _, found, looked = st.session_state["checked-as"]
    report(found, looked, len(dataset), len(dataset.test_labels))


def report(found: Found, looked: check.Check, pool: int, test: int) -> None:
    """What is there, what to look at, and some images of each class.

    pool, test: how many images a run works on, and tests on.
    """
    with st.container(border=True):
        st.subheader("What is there", anchor=False)
        numbers = {
            "Images to work on": pool,
            "Test images": test,
            "Classes": len(looked.classes),
            "Left out": len(looked.unreadable),
        }
        with st.container(horizontal=True):
            for name, number in numbers.items():
                st.metric(name, f"{number:,}", width=140)
        for finding in looked.findings:
            st.markdown(f"{MARKS[finding.severity]} {frame.plain(finding.text)}")
        if found.masks is None:
            preview(found)
        else:
            scenes(found, found.masks)
        tables = {
            "Images of each class": looked.classes,
            "Left out": looked.unreadable,
            "The same image": looked.duplicates,
            "Sizes": looked.sizes,
            "Odd sizes": looked.odd,
            "Kinds": looked.modes,
        }
        filled = {name: table for name, table in tables.items() if len(table)}
        with st.expander("Tables"):
            for tab, (name, table) in zip(st.tabs(list(filled)), filled.items(), strict=True):
                with tab:
                    st.dataframe(
                        table.dropna(axis=1, how="all"),
                        hide_index=True,
                        height="auto" if len(table) < 10 else 320,
                        column_config={"pixels": st.column_config.NumberColumn(format="percent", help=OF_PIXELS)},
                    )
                    widgets.table_export(partial(filled.__getitem__, name), len(table), name.lower().replace(" ", "-"))


def preview(found: Found) -> None:
    """The first images of each class, in the shape in which the model will see them."""
    labels = pd.Series([entry.label if entry.label is not None else "no label" for entry in found.entries])
    names, numbers = list(dict.fromkeys(labels)), labels.value_counts()
    first = labels.groupby(labels).head(EACH)
    first = first[first.isin(names[:CLASSES])]
    pixels = found.images[first.index.to_numpy()]  # at once: they are decoded by threads
    for name in names[:CLASSES]:
        st.caption(f"{frame.plain(name)} · {numbers[name]:,}")
        places = np.flatnonzero(first == name)
        st.image([png(small(pixels, (int(k),), 2 * SIDE)[0], SIDE) for k in places], width=SIDE)
    if len(names) > CLASSES:
        st.caption(f"and {len(names) - CLASSES:,} more classes")


def scenes(found: Found, masks: LazyMasks) -> None:
    """Some images evenly spaced, with their masks laid over them, in the shape in which the model will see them."""
    drawn = np.flatnonzero(~masks.blank)
    rows = drawn if len(drawn) else np.arange(len(masks))
    some = rows[np.unique(np.linspace(0, len(rows) - 1, SCENES).astype(np.int64))]
    images = small(found.images, tuple(some.tolist()), layers.SHARP * layers.SIDE)
    codes = overlay.resized(narrowed(masks.view(some)), *images.shape[1:3])
    over = overlay.overlay(images, codes, found.class_names, layers.Look().opacity)
    which = " with a mask" if len(drawn) else ", none of which has a mask yet"
    hatched = " Hatched: unknown." if len(drawn) and (codes == VOID).any() else ""
    st.caption(f"{len(some)} of {count(len(rows), 'image')}{which}.{hatched}")
    st.image([png(one, layers.SIDE) for one in over], width=layers.SIDE)
    names = found.class_names
    layers.classes(names[:NAMED], "classes-of-masks")
    if len(names) > NAMED:
        st.caption(f"and {len(names) - NAMED:,} more classes")


def choose() -> start.Images | None:
    """Where the images come from, and which they are."""
    way = st.segmented_control(
        "Images",
        list(WAYS),
        format_func=lambda one: WAYS[one],
        default="ready",
        required=True,
        key="way",
        label_visibility="collapsed",
    )
    if way == "ready":
        return ready()
    try:
        return own(way)
    except UserError as error:
        st.session_state.pop("checked", None)
        file = st.session_state.get("zip")
        if way == "zip" and file is not None and "unpacked" in st.session_state:
            # Where it was unpacked says nothing to who uploaded it
            raise UserError(str(error).replace(str(st.session_state["unpacked"][1]), file.name)) from error
        raise


with frame.errors():
    chosen = choose()
    if chosen is not None:
        chosen = with_predictions(chosen)
        place, box = st.container(), st.container(border=True)
        with box:
            given = start.form(chosen)
        if chosen.name in KINDS:
            with place:
                as_run(chosen, given)
        if given is not None and chosen.untrained:
            fits(given, box)
        if given is not None and box.button("Start run", type="primary", key="start"):
            start.begin(given)
for sentence in methods.refused():
    st.caption(f":material/warning: {frame.plain(sentence)}")
