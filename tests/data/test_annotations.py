"""Tables of votes: what is read, and what is said of tables that are wrong."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import annotations
from data.annotations import Agreement, Annotations
from data.errors import UserError

IDS, CLASSES = ["a/1.png", "b 2", "c,3"], ["cat", "dog"]
LONG = 'sample_id,annotator,label\na/1.png,ann,cat\n"c,3",ann,dog\na/1.png,bob,dog\n'
WIDE = 'sample_id,ann,bob\na/1.png,cat,dog\nb 2,,-1\n"c,3",dog,nan\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "votes.csv"
    path.write_text(text, encoding="utf-8")
    return path


def triples(found: Annotations) -> list[tuple[int, int, str]]:
    assert found.rows.dtype == found.labels.dtype == np.int64
    return list(zip(found.rows.tolist(), found.labels.tolist(), found.annotators, strict=True))


def test_the_long_form_is_read_in_its_order(tmp_path: Path) -> None:
    expected = [(0, 0, "ann"), (2, 1, "ann"), (0, 1, "bob")]
    assert triples(annotations.read(written(tmp_path, LONG), IDS, CLASSES)) == expected
    assert triples(annotations.read(written(tmp_path, "\ufeff" + LONG), IDS, CLASSES)) == expected  # as Excel writes it
    assert triples(annotations.read(written(tmp_path, LONG), IDS, [*CLASSES, "owl"])) == expected  # nobody saw an owl


def test_the_wide_form_has_a_column_an_annotator_and_gaps(tmp_path: Path) -> None:
    expected = [(0, 0, "ann"), (0, 1, "bob"), (2, 1, "ann")]
    assert triples(annotations.read(written(tmp_path, WIDE), IDS, CLASSES)) == expected


def test_classes_may_be_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame({"sample_id": IDS, "ann": [1.0, np.nan, 0.0], "bob": [-1, 0, 1]})
    expected = [(0, 1, "ann"), (1, 0, "bob"), (2, 0, "ann"), (2, 1, "bob")]
    table.to_csv(tmp_path / "votes.csv", index=False)  # which writes 1.0 and blanks
    assert triples(annotations.read(tmp_path / "votes.csv", IDS, CLASSES)) == expected
    table.to_parquet(tmp_path / "votes.parquet")
    assert triples(annotations.read(tmp_path / "votes.parquet", IDS, CLASSES)) == expected
    table.set_index("sample_id").to_parquet(tmp_path / "votes.parquet")
    assert triples(annotations.read(tmp_path / "votes.parquet", IDS, CLASSES)) == expected


def test_numbers_that_are_names_are_no_codes(tmp_path: Path) -> None:
    text = "sample_id,annotator,label\nb 2,ann,2\n"
    assert triples(annotations.read(written(tmp_path, text), IDS, ["2", "1", "0"])) == [(1, 0, "ann")]
    with pytest.raises(UserError, match="the first '0'; the classes are 1, 2"):
        annotations.read(written(tmp_path, text.replace(",2", ",0")), IDS, ["1", "2"])


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    text = "sample_id,annotator,label\nb 2,ann,None\n"
    assert triples(annotations.read(written(tmp_path, text), IDS, ["None", "some"])) == [(1, 0, "ann")]


def test_votes_on_images_that_are_set_aside_are_left_out(tmp_path: Path) -> None:
    text = LONG + "test/9.png,ann,cat\n"
    assert len(annotations.read(written(tmp_path, text), IDS, CLASSES, ignore=["test/9.png"]).rows) == 3
    only = "sample_id,annotator,label\ntest/9.png,ann,cat\n"
    assert triples(annotations.read(written(tmp_path, only), IDS, CLASSES, ignore=["test/9.png"])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LONG + "nobody,ann,cat\nnobody,bob,cat\n", "names 1 sample that the data do not hold, the first 'nobody'"),
        (LONG + "x,ann,cat\ny,ann,cat\n", "names 2 samples that the data do not hold, the first 'x'"),
        (LONG + "b 2,ann,cow\n", "names 1 class that the data do not have, the first 'cow'; the classes are cat, dog"),
        (LONG + "b 2,ann,2\n", "the first '2'"),
        (LONG + "a/1.png,bob,cat\n", "1 duplicate annotation, the first by 'bob' on 'a/1.png'"),
        (WIDE + "a/1.png,,cat\n", "1 duplicate annotation, the first by 'bob' on 'a/1.png'"),
        (WIDE.replace("bob", "ann"), "two columns 'ann'; give each annotator one column"),
        (LONG + "b 2,,cat\n", "holds 1 annotation without annotator"),
        (LONG + ",ann,cat\n", "holds 1 annotation without sample_id"),
        (LONG + "b 2,ann,cat,dog\n", "cannot be read as a table"),
        ("annotator,label\nann,cat\n", "no column sample_id; its columns are annotator, label"),
        (
            "sample_id,label\na/1.png,cat\n",
            "needs the columns sample_id, annotator, label, or sample_id and one column",
        ),
        ("sample_id\na/1.png\n", "needs the columns"),
        ("sample_id,annotator,label\n", "holds no annotation"),
        ("", r"votes\.csv is empty"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        annotations.read(written(tmp_path, text), IDS, CLASSES)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        annotations.read(tmp_path / "none.csv", IDS, CLASSES)
    (tmp_path / "latin.csv").write_bytes("sample_id,annotator,label\nb 2,Zoë,cat".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.csv cannot be read as a table"):
        annotations.read(tmp_path / "latin.csv", IDS, CLASSES)
    cut = tmp_path / "cut.parquet"
    pd.DataFrame({"sample_id": IDS, "ann": ["cat"] * 3}).to_parquet(cut)
    for length in (100, 0):
        cut.write_bytes(cut.read_bytes()[:length])
        with pytest.raises(UserError, match=r"cut\.parquet cannot be read as a table"):
            annotations.read(cut, IDS, CLASSES)


def test_classes_come_from_the_votes_in_their_order(tmp_path: Path) -> None:
    assert annotations.class_names(annotations.table(written(tmp_path, LONG))) == ["cat", "dog"]
    numbers = "sample_id,annotator,label\na,ann,10\nb,ann,9.0\n"
    assert annotations.class_names(annotations.table(written(tmp_path, numbers))) == ["9", "10"]


def test_counts_add_the_votes_of_a_sample() -> None:
    given = Annotations(np.array([0, 0, 2]), np.array([1, 1, 0]), ["a", "b", "a"])
    assert annotations.counts(given, 3, 2).tolist() == [[0, 2], [0, 0], [1, 0]]


def test_agreement_is_with_the_majority_of_the_others() -> None:
    votes = {"ann": [0, 0, 1, 1], "bob": [0, 1, 1, -1], "eve": [0, 1, 0, -1], "ned": [-1, 1, -1, -1]}
    table = np.array(list(votes.values())).T
    rows, people = np.nonzero(table >= 0)
    found = annotations.agreement(Annotations(rows, table[rows, people], [list(votes)[i] for i in people]), 2)
    assert found == [
        Agreement("ann", votes=4, shared=3, compared=2, share=1 / 2),  # on the third sample bob and eve tie
        Agreement("bob", votes=3, shared=3, compared=2, share=1.0),  # there ann and eve tie
        Agreement("eve", votes=3, shared=3, compared=3, share=2 / 3),
        Agreement("ned", votes=1, shared=1, compared=1, share=1.0),
    ]


def test_a_single_annotator_agrees_with_nobody() -> None:
    alone = Annotations(np.array([0, 1]), np.array([0, 1]), ["ann", "ann"])
    assert annotations.agreement(alone, 2) == [Agreement("ann", votes=2, shared=0, compared=0, share=None)]
    assert annotations.agreement(Annotations(np.zeros(0, np.int64), np.zeros(0, np.int64), []), 2) == []
