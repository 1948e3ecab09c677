"""Tables of votes: what is read, and what is said of tables that are wrong."""

import numpy as np
import pandas as pd
import pytest

from data import annotations
from data.errors import UserError

IDS, CLASSES = ["a/1.png", "b 2", "c,3"], ["cat", "dog"]
LONG = 'sample_id,annotator,label\na/1.png,ann,cat\n"c,3",ann,dog\na/1.png,bob,dog\n'


def written(folder, text, name="votes.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_the_long_form_is_read_in_its_order(tmp_path):
    found = annotations.read(written(tmp_path, LONG), IDS, CLASSES)
    assert found.rows.tolist() == [0, 2, 0]
    assert found.labels.tolist() == [0, 1, 1]
    assert found.annotators == ["ann", "ann", "bob"]


def test_the_wide_form_has_a_column_an_annotator_and_blanks(tmp_path):
    text = 'sample_id,ann,bob\na/1.png,cat,dog\nb 2,,-1\n"c,3",dog,\n'
    found = annotations.read(written(tmp_path, text), IDS, CLASSES)
    assert list(zip(found.rows.tolist(), found.labels.tolist(), found.annotators, strict=True)) == [
        (0, 0, "ann"),
        (0, 1, "bob"),
        (2, 1, "ann"),
    ]


def test_numbers_and_parquet_are_read_too(tmp_path):
    pd.DataFrame({"sample_id": IDS, "ann": [1.0, np.nan, 0.0]}).to_parquet(tmp_path / "votes.parquet")
    found = annotations.read(tmp_path / "votes.parquet", IDS, CLASSES)
    assert found.rows.tolist() == [0, 2]
    assert found.labels.tolist() == [1, 0]


def test_votes_on_images_that_are_set_aside_are_left_out(tmp_path):
    text = LONG + "test/9.png,ann,cat\n"
    assert len(annotations.read(written(tmp_path, text), IDS, CLASSES, ignore=["test/9.png"]).rows) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LONG + "nobody,ann,cat\n", "names 1 samples that the data do not hold, the first 'nobody'"),
        (LONG + "b 2,ann,cow\n", "names 1 classes that the data do not have, the first 'cow'"),
        (LONG + "a/1.png,bob,cat\n", "1 duplicate votes, the first by 'bob' on 'a/1.png'"),
        ("annotator,label\nann,cat\n", "no column sample_id"),
        ("sample_id,label\na/1.png,cat\n", "needs the columns"),
        ("sample_id\na/1.png\n", "needs the columns"),
        ("sample_id,annotator,label\n", "holds no vote"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        annotations.read(written(tmp_path, text), IDS, CLASSES)


def test_a_missing_an_empty_and_a_truncated_file_are_said(tmp_path):
    with pytest.raises(UserError, match="no file"):
        annotations.read(tmp_path / "none.csv", IDS, CLASSES)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        annotations.read(tmp_path / "empty.csv", IDS, CLASSES)
    pd.DataFrame({"sample_id": IDS, "ann": ["cat"] * 3}).to_parquet(tmp_path / "v.parquet")
    (tmp_path / "v.parquet").write_bytes((tmp_path / "v.parquet").read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        annotations.read(tmp_path / "v.parquet", IDS, CLASSES)


def test_counts_add_the_votes_of_a_sample():
    given = annotations.Annotations(np.array([0, 0, 2]), np.array([1, 1, 0]), ["a", "b", "a"])
    assert annotations.counts(given, 3, 2).tolist() == [[0, 2], [0, 0], [1, 0]]


def test_agreement_is_with_the_majority_of_the_others():
    #            sample 0: a b c agree but c; sample 1: a b disagree, no third; sample 2: a alone
    rows, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 0, 1, 1])
    found = {
        one.annotator: one for one in annotations.agreement(annotations.Annotations(rows, labels, list("abcaba")), 2)
    }
    assert (found["a"].votes, found["a"].compared, found["a"].share) == (
        3,
        1,
        0.0,
    )  # on 0 the others tie; on 1 b disagrees
    assert (found["c"].votes, found["c"].compared, found["c"].share) == (1, 1, 0.0)


def test_a_single_annotator_agrees_with_nobody():
    (only,) = annotations.agreement(annotations.Annotations(np.array([0, 1]), np.array([0, 1]), ["ann", "ann"]), 2)
    assert (only.votes, only.compared, only.share) == (2, 0, None)
