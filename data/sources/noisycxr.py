"""NoisyCXR (Bernhardt et al. 2022): chest X-rays with labels found by text mining, and better ones by radiologists.

The images of the RSNA pneumonia detection challenge are NIH chest X-rays. A label to start from follows from the finding
strings that the NIH mined from reports: pneumonia is positive, no finding or another disease is negative; consolidation
and infiltration without pneumonia, which may be either, take the radiologists' label. The clean label is that of the
challenge (`Target`). In the paper, 26,684 images and about 12.7% of noise.

    ROOT/stage_2_train_labels.csv                       patientId, x, y, width, height, Target; one row a box
    ROOT/pneumonia-challenge-dataset-mappings_2018.json a list of objects with img_id (NIH) and subset_img_id (RSNA)
    ROOT/Data_Entry_2017.csv                            Image Index (NIH), Finding Labels ("Mass|Nodule"), …
    ROOT/images/00000013_003.png                        the NIH's images; where one is not there, the challenge's:
    ROOT/stage_2_train_images/0004cfab-….dcm            through pydicom, which has to be installed for it
"""

import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from data.dataset import ImageDataset, stratified
from data.errors import UserError
from data.files.cache import cached_images
from data.files.decode import decode
from data.files.imagefile import reason
from data.sources import Source

RSNA = "kaggle.com/c/rsna-pneumonia-detection-challenge"
NIH = "nihcc.app.box.com/v/ChestXray-NIHCC"
MAPPINGS = "rsna.org, AI challenges, Pneumonia Detection Challenge 2018"
LABELS, MAPPING, FINDINGS = (
    "stage_2_train_labels.csv",
    "pneumonia-challenge-dataset-mappings_2018.json",
    "Data_Entry_2017.csv",
)
SOURCES = {LABELS: RSNA, MAPPING: MAPPINGS, FINDINGS: f"{NIH}, there called Data_Entry_2017_v2020.csv"}
IMAGES, DICOMS = "images", "stage_2_train_images"
CLASS_NAMES = ["no pneumonia", "pneumonia"]
PNEUMONIA, UNCLEAR = "pneumonia", {"consolidation", "infiltration"}
HELD_OUT = 0.2


def missing(root: Path) -> str:
    """What the user must do before this set can be loaded from `root`; empty when nothing. Looks at names only."""
    absent = [f"{name} (from {source})" for name, source in SOURCES.items() if not (root / name).is_file()]
    if not any((root / name).is_dir() for name in (IMAGES, DICOMS)):
        absent.append(f"the folder {IMAGES} (PNG files, from {NIH}) or {DICOMS} (DICOM files, from {RSNA})")
    return f"put {', '.join(absent)} into {root}" if absent else ""


def load(root: Path, size: int = 64) -> ImageDataset:
    """Pool: four fifths of the images, grey, size x size, ids from RSNA; `noisy_labels` next to the clean `labels`.

    The test set is a fifth, drawn by clean class with a fixed seed, with its clean labels. size: height and width to stretch
    every image to. Images that are absent or cannot be read are listed in `skipped`. Raises UserError when a table is
    absent, damaged or does not fit the others, and for DICOM files without pydicom.
    """
    if size < 1:
        raise UserError(f"the image size must be at least 1 pixel, got {size}")
    if absent := missing(root):
        raise UserError(f"NoisyCXR is not complete: {absent}")
    root = root.resolve()
    clean = _clean(root)
    nih_names = _nih_names(root, list(clean))
    noisy = _noisy(root, clean, nih_names)

    # The split is that of all images, whichever of them are there; pool first, so that both parts stay memory maps.
    held_out = np.zeros(len(clean), bool)
    held_out[stratified(np.array(list(clean.values())), round(HELD_OUT * len(clean)), seed=0)] = True
    test = {id for id, held in zip(clean, held_out, strict=True) if held}
    files, skipped = {}, []
    for id in sorted(clean, key=lambda id: id in test):
        choices = (f"{IMAGES}/{nih_names[id]}", f"{DICOMS}/{id}.dcm")
        if found := next((file for file in choices if (root / file).is_file()), None):
            files[id] = found
        else:
            skipped.append((id, f"neither {' nor '.join(choices)} is there"))
    names = list(files.values())
    parts = cached_images("noisycxr", root, names, size, lambda: _decode_all(root, names, size))
    reasons = dict(zip(files, parts["reasons"].tolist(), strict=True))
    skipped += [(id, why) for id, why in reasons.items() if why]
    ids = [id for id, why in reasons.items() if not why]
    n_pool = sum(id not in test for id in ids)
    if n_pool == 0:
        raise UserError(f"no image in {root} can be read; the first one: {skipped[0][0]}: {skipped[0][1]}")
    labels = np.array([clean[id] for id in ids], np.int64)
    return ImageDataset(
        name="noisycxr",
        ids=ids[:n_pool],
        images=parts["images"][:n_pool],
        labels=labels[:n_pool],
        label_counts=None,
        class_names=CLASS_NAMES,
        test_images=parts["images"][n_pool:],
        test_labels=labels[n_pool:],
        annotators="none",
        annotators_source="NoisyCXR: labels mined from NIH reports, and clean ones by the radiologists of the RSNA challenge.",
        skipped=skipped,
        noisy_labels=np.array([noisy[id] for id in ids[:n_pool]], np.int64),
    )


# --- the tables ------------------------------------------------------------------------------------------------------


def _clean(root: Path) -> dict[str, int]:
    """RSNA id -> 1 for pneumonia, else 0; in the order of the file."""
    table = _table(root / LABELS, ["patientId", "Target"])
    if table.empty:
        raise UserError(f"{LABELS} holds no patient; download it again from {RSNA}")
    wrong = ~table["Target"].isin(["0", "1"])
    if wrong.any():
        first = table[wrong].iloc[0]
        raise UserError(
            f"{LABELS} gives the Target {first['Target']!r} for {first['patientId']!r}, not 0 or 1; download it again from {RSNA}"
        )
    return dict(table["Target"].astype(int).groupby(table["patientId"], sort=False).max())


def _nih_names(root: Path, ids: list[str]) -> dict[str, str]:
    """RSNA id -> file name of the NIH."""
    try:
        entries = json.loads((root / MAPPING).read_text(encoding="utf-8-sig"))
        name_of = {str(entry["subset_img_id"]): str(entry["img_id"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{MAPPING} is not a whole list of objects with img_id and subset_img_id; download it again from {MAPPINGS}"
        ) from error
    absent = [id for id in ids if id not in name_of]
    if absent:
        raise UserError(
            f"{MAPPING} does not hold {len(absent):,} of the {len(ids):,} patients of {LABELS}, the first {absent[0]!r}; "
            "take both files from the same challenge"
        )
    found = {id: name_of[id] for id in ids}
    outside = next((name for pair in found.items() for name in pair if PurePath(name).name != name), None)
    if outside is not None:
        raise UserError(
            f"{MAPPING} names the image {outside!r}, which is no file name; download it again from {MAPPINGS}"
        )
    return found


def _noisy(root: Path, clean: dict[str, int], nih_names: dict[str, str]) -> dict[str, int]:
    """RSNA id -> the label that follows from the NIH's findings."""
    table = _table(root / FINDINGS, ["Image Index", "Finding Labels"])
    findings_of = dict(zip(table["Image Index"], table["Finding Labels"], strict=True))
    absent = [name for name in nih_names.values() if not findings_of.get(name)]
    if absent:
        raise UserError(
            f"{FINDINGS} has no finding for {len(absent):,} of the {len(nih_names):,} images, the first {absent[0]!r}; "
            f"download it again from {SOURCES[FINDINGS]}"
        )
    noisy = {}
    for id, name in nih_names.items():
        findings = {finding.strip().lower() for finding in findings_of[name].split("|")}
        noisy[id] = 1 if PNEUMONIA in findings else clean[id] if findings & UNCLEAR else 0
    return noisy


def _table(file: Path, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_csv(file, usecols=columns, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # as which all errors of pandas come
        raise UserError(
            f"{file.name} cannot be read as a table with the columns {' and '.join(columns)}; download it again from "
            f"{SOURCES[file.name]}"
        ) from error


# --- the images ------------------------------------------------------------------------------------------------------


def _decode_all(root: Path, files: list[str], size: int) -> dict[str, np.ndarray]:
    """images: uint8 [n,size,size,1], the readable ones · reasons: str [len(files)], why one is not, else empty."""
    pydicom = _pydicom() if any(file.endswith(".dcm") for file in files) else None

    def read(file: str) -> np.ndarray | str:
        if file.endswith(".dcm"):
            return _decode_dicom(pydicom, root / file, size)
        return decode(root / file, size, size, grey=True)

    images, reasons, n = np.empty((len(files), size, size, 1), np.uint8), [], 0
    with ThreadPoolExecutor() as threads:
        for pixels in threads.map(read, files):
            if isinstance(pixels, str):
                reasons.append(pixels)
            else:
                images[n] = pixels
                reasons.append("")
                n += 1
    return {"images": images[:n], "reasons": np.array(reasons)}


def _pydicom() -> Any:
    try:
        return importlib.import_module("pydicom")
    except ImportError as error:
        raise UserError(
            f"the images in {DICOMS} need pydicom: pip install pydicom, or put the NIH's images (from {NIH}) into {IMAGES}"
        ) from error


def _decode_dicom(pydicom: Any, path: Path, size: int) -> np.ndarray | str:
    """The pixels uint8 [size,size,1], or why the image cannot be read. All of the challenge have 8 bits, 0 for black."""
    try:
        file = pydicom.dcmread(path)
        if file.PhotometricInterpretation != "MONOCHROME2" or file.BitsStored != 8:
            return f"it has {file.BitsStored} bits in {file.PhotometricInterpretation}, not 8 in MONOCHROME2"
        image = Image.fromarray(file.pixel_array).resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(size, size, 1)
    except Exception as error:  # pydicom raises many kinds for broken files; one bad image must not stop the rest
        return reason(error)


SOURCE = Source(
    name="noisycxr",
    title="NoisyCXR: chest X-rays with labels mined from reports, and the radiologists' to check them by",
    reference="Bernhardt et al. 2022",
    load=load,
    missing=missing,
    options=("size",),
    place=3,
)
