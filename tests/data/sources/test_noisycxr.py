"""NoisyCXR from the files of its publishers: labels by the paper's rules, images of either kind, every gap named."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data
from data.errors import UserError

#          NIH's findings, Target of the challenge, the noisy label that follows
CASES = [
    ("No Finding", 0, 0),
    ("No Finding", 1, 0),
    ("Pneumonia", 1, 1),
    ("Infiltration|Pneumonia", 0, 1),
    ("Consolidation", 1, 1),
    ("Effusion|Infiltration", 0, 0),
    ("Mass|Pneumothorax", 1, 0),
    ("Cardiomegaly", 0, 0),
]
N = 5 * len(CASES)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty place for decoded arrays."""
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty patients, five of each case; the image of patient i is of grey i and lies in images/."""
    boxes, findings, mapping = [], [], []
    for i in range(N):
        finding, target, _ = CASES[i % len(CASES)]
        place = "264.0,152.0,213.0,379.0" if target else ",,,"
        boxes += [f"rsna-{i},{place},{target}"] * (1 + target)
        findings.append(f"{i:08d}_000.png,{finding},0,{i},058Y,M,PA,2682,2749,0.143,0.143,")
        mapping.append({"subset_img_id": f"rsna-{i}", "img_id": f"{i:08d}_000.png", "SOPInstanceUID": f"1.2.{i}"})
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("L", (100, 80), i).save(tmp_path / "images" / f"{i:08d}_000.png")
    mapping.append({"subset_img_id": "rsna-of-the-test-set", "img_id": "99999999_000.png", "SOPInstanceUID": "1.3"})
    write(tmp_path / "stage_2_train_labels.csv", ["patientId,x,y,width,height,Target", *boxes])
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    write(
        tmp_path / "Data_Entry_2017.csv",
        [f"{header},OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],", *findings],
    )
    (tmp_path / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))
    return tmp_path


def write(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_labels_follow_the_rules_of_the_paper(root: Path) -> None:
    pool = data.load("noisycxr", root)
    assert pool.class_names == ["no pneumonia", "pneumonia"]
    cases = [CASES[int(id.removeprefix("rsna-")) % len(CASES)] for id in pool.ids]
    assert pool.labels.tolist() == [clean for _, clean, _ in cases]
    assert pool.noisy_labels is not None
    assert pool.noisy_labels.tolist() == [noisy for _, _, noisy in cases]
    assert pool.annotators == "none"


def test_a_fifth_of_each_class_is_the_test_set(root: Path) -> None:
    pool = data.load("noisycxr", root)
    assert (len(pool), len(pool.test_labels)) == (32, 8)
    assert sorted(pool.test_labels.tolist()) == [0] * 4 + [1] * 4
    assert pool.ids == data.load("noisycxr", root).ids


def test_images_are_grey_and_of_one_size(root: Path) -> None:
    pool = data.load("noisycxr", root)
    assert pool.images.shape == (32, 64, 64, 1)
    assert [f"rsna-{image[5, 5, 0]}" for image in pool.images] == pool.ids
    assert data.load("noisycxr", root, size=16).test_images.shape == (8, 16, 16, 1)
    assert isinstance(data.load("noisycxr", root).images, np.memmap)  # decoded once


def test_absent_and_damaged_images_are_listed(root: Path) -> None:
    whole = data.load("noisycxr", root)
    absent, cut = whole.ids[0], whole.ids[1]
    (root / "images" / f"{int(absent[5:]):08d}_000.png").unlink()
    damaged = root / "images" / f"{int(cut[5:]):08d}_000.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    pool = data.load("noisycxr", root)
    assert pool.ids == whole.ids[2:]
    assert [id for id, _ in pool.skipped] == [absent, cut]
    assert "neither images/" in pool.skipped[0][1]
    np.testing.assert_array_equal(pool.test_images, whole.test_images)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("stage_2_train_labels.csv", "kaggle.com/c/rsna-pneumonia-detection-challenge"),
        ("Data_Entry_2017.csv", "nihcc.app.box.com"),
        ("pneumonia-challenge-dataset-mappings_2018.json", "rsna.org"),
    ],
)
def test_an_absent_table_is_named_with_its_source(root: Path, name: str, source: str) -> None:
    (root / name).unlink()
    rows = {row.name: row for row in data.available(root)}
    assert name in rows["noisycxr"].reason
    assert source in rows["noisycxr"].reason
    with pytest.raises(UserError, match="is not complete"):
        data.load("noisycxr", root)


def test_nothing_is_missing_when_all_is_there(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = {row.name: row for row in data.available(root)}
    assert rows["noisycxr"].available
    nothing = {row.name: row for row in data.available(tmp_path_factory.mktemp("empty"))}
    assert "the folder images (PNG files" in nothing["noisycxr"].reason


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "pneumonia-challenge-dataset-mappings_2018.json",
            '"rsna-3"',
            '"other"',
            "does not hold 1 of the 40.*'rsna-3'",
        ),
        ("pneumonia-challenge-dataset-mappings_2018.json", "}]", "", "not a whole list of objects"),
        ("pneumonia-challenge-dataset-mappings_2018.json", "img_id", "image", "not a whole list of objects"),
        (
            "pneumonia-challenge-dataset-mappings_2018.json",
            "00000007_000",
            "../7",
            r"'\.\./7\.png', which is no file name",
        ),
        (
            "Data_Entry_2017.csv",
            "00000003_000",
            "99990003_000",
            "no finding for 1 of the 40 images.*'00000003_000.png'",
        ),
        ("Data_Entry_2017.csv", "Finding Labels", "Findings", "Data_Entry_2017.csv cannot be read as a table"),
        ("stage_2_train_labels.csv", "rsna-0,,,,,0", "rsna-0,,", "gives the Target '' for 'rsna-0', not 0 or 1"),
        ("stage_2_train_labels.csv", "patientId", "patient", "cannot be read as a table with the columns patientId"),
    ],
)
def test_a_damaged_table_is_named(root: Path, file: str, old: str, new: str, message: str) -> None:
    edit(root / file, old, new)
    with pytest.raises(UserError, match=message):
        data.load("noisycxr", root)


def test_a_table_without_patients_is_named(root: Path) -> None:
    write(root / "stage_2_train_labels.csv", ["patientId,x,y,width,height,Target"])
    with pytest.raises(UserError, match="holds no patient"):
        data.load("noisycxr", root)


def test_dicom_files_ask_for_pydicom(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "images" / "00000000_000.png").unlink()
    (root / "stage_2_train_images").mkdir()
    (root / "stage_2_train_images" / "rsna-0.dcm").touch()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match="pip install pydicom, or put the NIH's images"):
        data.load("noisycxr", root)


def test_dicom_files_stand_in_for_the_images_of_the_nih(root: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    whole = data.load("noisycxr", root)
    (root / "stage_2_train_images").mkdir()
    for id, bits in ((whole.ids[0], 8), (whole.ids[1], 16)):
        save_dicom(pydicom, root / "stage_2_train_images" / f"{id}.dcm", bits)
    (root / "stage_2_train_images" / f"{whole.ids[2]}.dcm").write_bytes(b"no DICOM")
    for id in whole.ids[:3]:
        (root / "images" / f"{int(id[5:]):08d}_000.png").unlink()
    pool = data.load("noisycxr", root)
    assert pool.ids == [whole.ids[0], *whole.ids[3:]]
    assert (pool.images[0] == 77).all()
    assert [id for id, _ in pool.skipped] == whole.ids[1:3]
    assert "16 bits" in pool.skipped[0][1]


def save_dicom(pydicom: Any, path: Path, bits: int) -> None:
    """A picture of 100 x 80 pixels of grey 77."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    file.Rows, file.Columns, file.SamplesPerPixel, file.PixelRepresentation = 80, 100, 1, 0
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = bits
    file.HighBit = bits - 1
    file.PixelData = np.full((80, 100), 77, f"u{bits // 8}").tobytes()
    file["PixelData"].VR = "OB" if bits == 8 else "OW"
    file.save_as(path, enforce_file_format=True)
