"""Predictions and labels read from files: in order or by id, and one sentence for each that cannot be."""

import numpy as np
import pandas as pd
import pytest

from data.errors import UserError
from data.files import predictions

IDS = ["a.png", "b.png", "c.png"]
CLASSES = ["cat", "dog"]
PROBS = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])


def saved(path, content):
    """A file of the form that its ending says."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".csv":
        content.to_csv(path, index=False)
    else:
        content.to_parquet(path, index=False)
    return path


def table(**columns):
    return pd.DataFrame({"sample_id": IDS, **{name: PROBS[:, k] for k, name in enumerate(CLASSES)}} | columns)


def read(path, ids=IDS, classes=CLASSES):
    return predictions.probabilities(predictions.read(path), ids, classes, "labels.csv")


def test_rows_without_ids_are_in_the_order_of_the_samples(tmp_path):
    np.testing.assert_array_equal(read(saved(tmp_path / "p.npy", PROBS)), PROBS)


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("key", predictions.KEYS)
def test_rows_with_ids_and_named_columns_may_come_in_any_order(tmp_path, form, key):
    shuffled = table().iloc[[2, 0, 1]][["dog", "sample_id", "cat"]].rename(columns={"sample_id": key})
    np.testing.assert_array_equal(read(saved(tmp_path / f"p.{form}", shuffled)), PROBS)


def test_columns_may_be_called_by_the_numbers_of_the_classes(tmp_path):
    named = table().rename(columns={"cat": "0", "dog": "1"})
    np.testing.assert_array_equal(read(saved(tmp_path / "p.csv", named)), PROBS)


def test_ids_that_look_like_numbers_stay_what_they_are(tmp_path):
    path = saved(tmp_path / "p.csv", table(sample_id=["007", "07", "7"]))
    assert predictions.read(path).ids == ["007", "07", "7"]


def test_rows_of_other_samples_are_left_out_and_counted(tmp_path):
    found = predictions.read(saved(tmp_path / "p.csv", table()))
    np.testing.assert_array_equal(predictions.probabilities(found, ["c.png"], CLASSES, "labels.csv"), PROBS[[2]])
    assert predictions.spare(found, ["c.png"]) == 2


def test_embeddings_have_columns_of_any_name(tmp_path):
    wide = pd.DataFrame({"file_name": IDS[::-1], "e0": [1.0, 2.0, 3.0], "e1": [4, 5, 6]})
    found = predictions.embeddings(predictions.read(saved(tmp_path / "e.parquet", wide)), IDS, "labels.csv")
    np.testing.assert_array_equal(found, np.array([[3, 6], [2, 5], [1, 4]], dtype=np.float32))


def with_row(row):
    return np.vstack([PROBS[:2], [row]])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.npy", with_row([0.5, 0.6]), r"p.npy holds a row that sums to 1.1 instead of 1, that of 'c.png'.*softmax"),
        ("p.npy", with_row([0.5, np.nan]), r"missing or not finite, in the row of 'c.png'"),
        ("p.npy", with_row([4.2, -3.2]), r"below 0 or above 1, in the row of 'c.png'.*instead of logits"),
        ("p.npy", np.full((3, 3), 1 / 3), r"has 3 columns of numbers, and there are 2 classes.*cat, dog"),
        ("p.npy", PROBS[:2], r"has 2 rows, and there are 3 samples.*in the order of labels.csv.*sample_id"),
        ("p.npy", np.array([0, 1, 1]), r"holds int64 \[3\]; it needs floats \[samples, columns\]"),
        ("p.npy", np.array([[0.5, "x"]] * 3, dtype=object), r"cut short, or holds pickled objects.*numpy.save"),
        ("p.csv", table(sample_id=["a.png", "b.png", "b.png"]), r"names 'b.png' more than once"),
        ("p.csv", table(sample_id=["a.png", "b.png", "d.png"]), r"has no row for 1 sample, the first 'c.png'.*'a.png'"),
        ("p.csv", table().drop(columns="sample_id"), r"has no column sample_id or file_name"),
        ("p.csv", table().rename(columns={"dog": "elk"}), r"has a column 'elk', and the classes are cat, dog"),
        ("p.csv", table(cow=[0.0] * 3), r"has 3 columns of numbers, and there are 2 classes"),
        ("p.csv", table(dog=["a", "b", "c"]), r"holds no numbers in the column 'dog'"),
        ("p.csv", table(dog=[0.1, None, 0.5]), r"missing or not finite, in the row of 'b.png'"),
        ("p.csv", table()[["sample_id"]], r"has no column besides sample_id"),
        ("p.csv", table().head(0), r"has no row"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, name, content, says):
    with pytest.raises(UserError, match=says):
        read(saved(tmp_path / name, content))


@pytest.mark.parametrize(("name", "content"), [("p.npy", PROBS), ("p.parquet", table())])
def test_a_truncated_file_is_said(tmp_path, name, content):
    path = saved(tmp_path / name, content)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cut short|cannot be read as a table"):
        read(path)


def test_a_pickle_is_never_opened(tmp_path):
    import pickle

    (tmp_path / "p.npy").write_bytes(pickle.dumps(PROBS))
    with pytest.raises(UserError, match="pickled objects, which are not opened"):
        read(tmp_path / "p.npy")


def test_a_file_that_is_not_there_or_of_another_kind_is_said(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*p.csv; give a file .npy, .csv or .parquet"):
        read(tmp_path / "p.csv")
    (tmp_path / "p.txt").write_text("0.5 0.5")
    with pytest.raises(UserError, match=r"p.txt is no file .npy, .csv or .parquet"):
        read(tmp_path / "p.txt")


def labels(path, n_classes=2, classes=None):
    return predictions.read_labels(path, n_classes, classes)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_label_is_one_annotation_and_a_blank_none(tmp_path, form):
    found = labels(saved(tmp_path / f"l.{form}", pd.DataFrame({"file_name": IDS, "label": ["dog", "cat", ""]})))
    assert (found.ids, found.class_names) == (IDS, CLASSES)
    np.testing.assert_array_equal(found.counts, [[0, 1], [1, 0], [0, 0]])


def test_labels_may_be_numbers_with_gaps(tmp_path):
    found = labels(saved(tmp_path / "l.csv", pd.DataFrame({"sample_id": IDS, "label": [2, None, 0]})), n_classes=3)
    assert found.class_names == ["0", "1", "2"]
    np.testing.assert_array_equal(found.counts, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])


def test_annotations_of_several_people_are_counted(tmp_path):
    wide = pd.DataFrame({"sample_id": IDS, "ann": ["cat", "cat", None], "ben": ["cat", "dog", None]})
    found = labels(saved(tmp_path / "l.csv", wide))
    np.testing.assert_array_equal(found.counts, [[2, 0], [1, 1], [0, 0]])
    long = wide.melt("sample_id", var_name="annotator", value_name="label")
    again = labels(saved(tmp_path / "long.csv", long))
    np.testing.assert_array_equal(again.counts, found.counts)


def test_an_array_of_labels_names_its_samples_by_their_rows(tmp_path):
    found = labels(saved(tmp_path / "l.npy", np.array([1, -1, 0])), classes=CLASSES)
    assert (found.ids, found.class_names) == (["0", "1", "2"], CLASSES)
    np.testing.assert_array_equal(found.counts, [[0, 1], [0, 0], [1, 0]])


@pytest.mark.parametrize(
    ("name", "content", "classes", "says"),
    [
        ("l.npy", np.array([0.0, 1.0, 1.0]), None, r"holds float64 \[3\]; labels are whole numbers"),
        ("l.npy", np.array([0, 1, 2]), None, r"holds the labels 0 to 2, and there are 2 classes"),
        ("l.csv", pd.DataFrame({"sample_id": IDS, "label": [0.5, 1, 0]}), CLASSES, r"holds the label '0.5'.*none of the classes"),
        ("l.csv", pd.DataFrame({"sample_id": IDS, "label": ["cat", "dog", "elk"]}), CLASSES, r"holds the label 'elk'"),
        ("l.csv", pd.DataFrame({"sample_id": IDS, "label": ["cat", "dog", "elk"]}), None, r"holds 3 labels .*--classes"),
        ("l.csv", pd.DataFrame({"sample_id": ["a", "a", "b"], "label": [0, 1, 0]}), None, r"names 'a' more than once"),
        ("l.csv", pd.DataFrame({"name": IDS, "label": [0, 1, 0]}), None, r"no column sample_id or file_name.*name, label"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_said_in_one_sentence(tmp_path, name, content, classes, says):
    with pytest.raises(UserError, match=says):
        labels(saved(tmp_path / name, content), classes=classes)
