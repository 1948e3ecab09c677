"""What goes to other tools and comes back."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.analysis import labelling
from core.engine import loop
from core.files import export, handout, label_studio
from core.relabel import Labels
from core.runs import run, settle
from data.errors import UserError

CLASSES = ['<b>"&', "Hund 🐕", "c"]
IDS = ["a/1.png", "=1+1", "x, y.png", "d"]


def ranking() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": IDS,
            "rank": pd.Series([2, 1, 3, pd.NA], dtype="Int64"),
            "label": [0, 1, 2, 0],
            "given": [CLASSES[c] for c in (0, 1, 2, 0)],
            "suggested": [CLASSES[c] for c in (1, 0, 2, 0)],
            "cleaning": [0.5, 2.0, -0.1, 0.0],
            "status": ["labelled", "labelled", "labelled", "cleaned"],
        }
    )


def tasks() -> list[dict]:
    table = ranking()
    return label_studio.label_studio_tasks(
        table[table["rank"].notna()].sort_values("rank"), CLASSES, run="run-1", image_of=label_studio.file_address
    )


def labelled(choices: dict[str, list], **task) -> list[dict]:
    """The tasks as Label Studio exports them, with annotations of the choices by sample: (annotator, class, time)."""
    exported = []
    for number, one in enumerate(tasks(), start=1):
        done = [
            {
                "id": 100 * number + k,
                "completed_by": who,
                "was_cancelled": chosen is None,
                "result": []
                if not chosen
                else [
                    {
                        "from_name": "label",
                        "to_name": "image",
                        "type": "choices",
                        "value": {"choices": [chosen]},
                        "origin": "manual",
                    }
                ],
                "created_at": when,
                "updated_at": when,
                "lead_time": 3.2,
            }
            for k, (who, chosen, when) in enumerate(choices.get(one["data"]["sample_id"], []))
        ]
        exported.append({"id": number, **one, "annotations": done, "drafts": [], "project": 7, **task})
    return exported


def saved(folder: Path, content) -> Path:
    path = folder / "export.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_issues_are_those_of_confident_learning():
    rng = np.random.default_rng(0)
    labels, probs = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    table = pd.DataFrame(
        {"sample_id": [str(i) for i in range(200)], "label": labels, "cleaning": 0.0, "rank": 1, "status": "labelled"}
    )
    found = labelling.issue_table(table, probs, list("abcd"))
    threshold = [np.mean([p[c] for p, label in zip(probs, labels, strict=True) if label == c]) for c in range(4)]
    for i in range(200):
        best = int(np.argmax(probs[i]))
        assert found["is_label_issue"][i] == (best != labels[i] and probs[i, best] >= threshold[best])
        assert found["label_score"][i] == probs[i, labels[i]]
        assert found["suggested_name"][i] == "abcd"[best]
    assert {"is_label_issue", "label_score", "given_label", "predicted_label"} <= set(found)


def test_cleaned_labels_stand_beside_the_first_ones():
    state = Labels(
        np.array([[1, 2, 0], [0, 1, 0]]), np.array([1, 1]), np.array([True, False]), np.array([False, False])
    )
    found = labelling.cleaned_labels(["p", "q"], np.array([0, 1]), state, CLASSES)
    assert found["changed"].tolist() == [True, False]
    assert found["name"].tolist() == [CLASSES[1]] * 2
    assert found["n_votes"].tolist() == [3, 1]
    assert found["status"].tolist() == ["cleaned", "labelled"]


def test_a_sample_without_a_label_has_no_name():
    state = Labels(
        np.array([[1, 0, 0], [0, 0, 0]]), np.array([0, -1]), np.array([False, False]), np.array([False, False])
    )
    found = labelling.cleaned_labels(["p", "q"], np.array([0, -1]), state, CLASSES)
    assert found["name"].tolist() == found["initial_name"].tolist() == [CLASSES[0], "—"]
    assert found["status"].tolist() == ["labelled", "unlabelled"]


def test_a_tie_is_an_issue_that_has_no_given_label():
    table = ranking().assign(label=[0, -1, 2, -1], status=["labelled", "tied", "labelled", "tied"])
    probs = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]])
    found = labelling.issue_table(table, probs, CLASSES)
    assert found["is_label_issue"].tolist() == [False, True, False, True]
    assert found["given_label"].tolist() == [0, -1, 2, -1]
    assert found["given_name"].tolist() == [CLASSES[0], "—", "c", "—"]
    assert found["label_score"].tolist() == [0.9, 0.0, 0.8, 0.0]
    assert found["status"].tolist() == table["status"].tolist()
    others = labelling.issue_table(table[::2], probs[::2], CLASSES)
    same = [name for name in found if name != "rank"]
    pd.testing.assert_frame_equal(found.loc[::2, same].reset_index(drop=True), others[same])


def test_a_tie_that_was_settled_is_a_label_that_changed():
    state = Labels(
        np.array([[1, 1, 0], [1, 2, 0]]), np.array([-1, 1]), np.array([False, True]), np.array([True, False])
    )
    found = labelling.cleaned_labels(["p", "q"], np.array([-1, -1]), state, CLASSES)
    assert found["label"].tolist() == [-1, 1]
    assert found["name"].tolist() == ["—", CLASSES[1]]
    assert found["status"].tolist() == ["tied", "cleaned"]
    assert found["changed"].tolist() == [False, True]


@pytest.mark.parametrize("table", [ranking().assign(label=[0, 1, 2, -1]), ranking().drop(columns="cleaning")])
def test_a_ranking_of_active_learning_has_no_issues(table):
    with pytest.raises(UserError, match="Only label cleaning"):
        labelling.issue_table(table, np.full((4, 3), 1 / 3), CLASSES)


def test_the_log_says_what_the_classes_are_called():
    events = pd.DataFrame(
        {"seq": [1], "cycle": [0], "sample_id": ["d"], "label": [2], "source": ["initial"], "time": ["2026-01-01"]}
    )
    found = labelling.log_table(events, CLASSES)
    assert list(found) == ["seq", "cycle", "sample_id", "label", "name", "source", "time"]
    assert found["name"].tolist() == ["c"]
    others = labelling.log_table(pd.concat([events.assign(label=label) for label in (-1, -2, -3)]), CLASSES)
    assert others["name"].tolist() == ["taken back", "skipped", "unsure"]


# Two ids may differ in a quote alone, and one may hold a quote of its own
TEXTS = ["=1+1", "'=1+1", "''@x", "+a", "-b", "@c", "\td", "a=1", "'quoted'", "x, y", 'say "no"', "Ü"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_votes_written_are_votes_read(tmp_path, suffix):
    votes = pd.DataFrame({"sample_id": TEXTS, "annotator": "=me", "label": "-b"})
    (tmp_path / f"votes.{suffix}").write_bytes(export.table_bytes(votes, suffix))
    found = label_studio.read_votes(tmp_path / f"votes.{suffix}", TEXTS, ["a", "-b"]).annotations
    assert found.rows.tolist() == list(range(len(TEXTS)))
    assert set(found.labels.tolist()) == {1}
    assert set(found.annotators) == {"=me"}


def test_the_last_vote_of_an_annotator_holds_and_is_read_back(tmp_path):
    events = pd.DataFrame({"sample_id": ["x", "y", "x", "x"], "label": [0, 1, 2, 1]})
    table = labelling.votes_table(events, ["ann", "ann", "bob", "ann"], CLASSES)
    assert table.to_dict("list") == {
        "sample_id": ["y", "x", "x"],
        "annotator": ["ann", "bob", "ann"],
        "label": [CLASSES[1], "c", CLASSES[1]],
    }
    (tmp_path / "votes.csv").write_bytes(export.table_bytes(table, "csv"))
    found = label_studio.read_votes(tmp_path / "votes.csv", ["x", "y"], CLASSES).annotations
    assert list(zip(found.rows.tolist(), found.annotators, found.labels.tolist(), strict=True)) == [
        (1, "ann", 1),
        (0, "bob", 2),
        (0, "ann", 1),
    ]


def test_tasks_come_in_the_order_in_which_label_studio_serves_them():
    scores = [one["predictions"][0]["score"] for one in tasks()]
    assert [one["data"]["sample_id"] for one in tasks()] == ["=1+1", "a/1.png", "x, y.png"]
    assert scores == sorted(scores)
    assert scores[0] == 0
    assert scores[-1] < 1
    assert tasks()[0]["predictions"][0]["result"][0]["value"] == {"choices": [CLASSES[0]]}


def test_the_set_up_is_xml_whatever_the_classes_are_called():
    root = ElementTree.fromstring(label_studio.label_studio_config(CLASSES))
    assert [choice.attrib["value"] for choice in root.iter("Choice")] == CLASSES
    assert next(root.iter("Choices")).attrib["name"] == "label"


def test_images_are_written_under_safe_names(tmp_path):
    images = [(label_studio.file_address(sample_id), bytes([i])) for i, sample_id in enumerate(IDS)]
    label_studio.write_label_studio(tmp_path / "out", tasks(), "<View/>", images)
    files = sorted((tmp_path / "out" / "images").iterdir())
    assert len(files) == 4
    written = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert all((tmp_path / "out" / one["data"]["image"]).is_file() for one in written)
    assert label_studio.file_address("../../etc/passwd").count("/") == 1
    assert label_studio.file_address("a.tif", ".jpg").endswith("a.tif.jpg")
    assert len(label_studio.file_address("\U00020000" * 200).encode()) < 255  # bytes, the longest file name


def test_images_are_handed_out_as_the_files_they_came_in(home, tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_DATA", str(tmp_path / "data"))
    root, random = tmp_path / "images", np.random.default_rng(0)
    for i, (label, suffix) in enumerate(
        (label, suffix) for label in ("cat", "dog") for suffix in ("jpg", "jpg", "tif")
    ):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (70, 90, 3), np.uint8)).save(root / label / f"{i}.{suffix}")
    given = {
        "task": "label-cleaning",
        "dataset": "folder",
        "root": str(root),
        "method": "cleaning",
        "annotator": "person",
    }
    given |= {"width": 4, "epochs": 1, "folds": 1, "image_size": 8, "model": "small-cnn"}
    config, pool = settle.settle(given, settle.loader())
    one = run.create(config, settle.about(pool))
    loop.work(one, pool)
    handout.label_studio(one, pool, 0, tmp_path / "out")
    tasks = {
        one["data"]["sample_id"]: one["data"]["image"] for one in json.loads((tmp_path / "out/tasks.json").read_text())
    }
    assert len(tasks) == 6
    for sample_id, address in tasks.items():
        file = tmp_path / unquote(address.partition("?d=")[2])
        if sample_id.endswith(".jpg"):
            assert file.suffix == ".jpg"
            assert file.read_bytes() == (root / sample_id).read_bytes()
        else:
            np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(root / sample_id)))


def test_what_people_chose_comes_back(tmp_path):
    choices = {
        "=1+1": [(1, CLASSES[0], "2026-01-02"), ({"id": 2, "email": "b@x.org"}, CLASSES[1], "2026-01-01")],
        "a/1.png": [(1, None, "2026-01-03")],
        "x, y.png": [(1, "", "2026-01-03")],
    }
    found = label_studio.read_label_studio(saved(tmp_path, labelled(choices)), IDS, CLASSES, run="run-1")
    assert found.annotations.rows.tolist() == [1, 1]  # in the order of time
    assert found.annotations.labels.tolist() == [1, 0]
    assert found.annotations.annotators == ["b@x.org", "1"]
    assert found.skipped == {"cancelled": 1, "nothing chosen": 1}


def test_every_vote_of_everybody_comes_back(tmp_path):
    given = {(sample_id, who): CLASSES[(row + who) % 3] for row, sample_id in enumerate(IDS[:3]) for who in (0, 1, 2)}
    choices = {
        sample_id: [(who, given[sample_id, who], f"2026-01-0{3 - who}") for who in (0, 1, 2)] for sample_id in IDS[:3]
    }
    found = label_studio.read_label_studio(saved(tmp_path, labelled(choices)), IDS, CLASSES, run="run-1").annotations
    votes = zip(found.rows, found.annotators, found.labels, strict=True)
    assert {(IDS[row], int(who)): CLASSES[label] for row, who, label in votes} == given
    assert found.annotators == ["2"] * 3 + ["1"] * 3 + ["0"] * 3  # in the order of time


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.500000Z"),
        ("2026-01-01T10:00:00+02:00", "2026-01-01T09:30:00Z"),
        ("", "2026-01-01T10:00:00Z"),
    ],
)
def test_times_are_compared_as_times(tmp_path, earlier, later):
    choices = {"a/1.png": [(1, "c", later), (1, CLASSES[0], earlier)]}
    found = label_studio.read_label_studio(saved(tmp_path, labelled(choices)), IDS, CLASSES)
    assert found.annotations.labels.tolist() == [2]


def test_the_latest_of_an_annotators_votes_on_an_image_holds(tmp_path):
    choices = {"a/1.png": [(1, CLASSES[2], "2026-01-05"), (1, CLASSES[0], "2026-01-01")]}
    found = label_studio.read_label_studio(saved(tmp_path, labelled(choices)), IDS, CLASSES)
    assert found.annotations.labels.tolist() == [2]


@pytest.mark.parametrize("label", ["c", {"choices": ["c"]}])
def test_json_min_is_read_too(tmp_path, label):
    flat = [{"image": "x", "sample_id": "d", "run": "run-1", "label": label, "annotator": 3, "annotation_id": 1}]
    found = label_studio.read_label_studio(saved(tmp_path, flat), IDS, CLASSES, run="run-1")
    assert (found.annotations.rows.tolist(), found.annotations.labels.tolist()) == ([3], [2])
    assert found.annotations.annotators == ["3"]


def test_a_task_that_nobody_opened_is_not_counted(tmp_path):
    flat = [{"image": "x", "sample_id": "d", "run": "run-1", "annotator": None, "annotation_id": None}]
    assert label_studio.read_label_studio(saved(tmp_path, flat), IDS, CLASSES).skipped == {}


def of_another_control() -> list[dict]:
    exported = labelled({"a/1.png": [(1, "c", "")]})
    exported[1]["annotations"][0]["result"][0]["from_name"] = "choice"
    return exported


def of_another_run() -> list[dict]:
    exported = labelled({})
    exported[0]["data"]["run"] = "other"
    return exported


def of_another_sample() -> list[dict]:
    exported = labelled({})
    exported[0]["data"]["sample_id"] = "unknown"
    return exported


def with_two_choices() -> list[dict]:
    exported = labelled({"d": [], "a/1.png": [(1, "c", "")]})
    exported[1]["annotations"][0]["result"][0]["value"]["choices"] = ["c", CLASSES[0]]
    return exported


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"data": {"text": "hello"}, "annotations": []}], "another project"),
        (of_another_run(), "the run 'other'"),
        (of_another_sample(), "sample 'unknown'"),
        (of_another_control(), "choices named 'choice'"),
        ([{"data": {"sample_id": "d"}, "annotations": []}], "of no run"),
        ([{"sample_id": "d", "run": "run-1", "label": 3}], "another form"),
        (labelled({"a/1.png": [(1, "cow", "")]}), "no class 'cow'"),
        (with_two_choices(), "2 choices in one annotation"),
        (
            [{"data": {"sample_id": "d", "run": "run-1"}, "annotations": [{"result": [{"type": "choices"}]}]}],
            "another form",
        ),
        ('[{"data": {"sample', "no whole JSON"),
        ("sample_id,label\n", "no whole JSON"),
        ({"a": 1}, "no list of tasks"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        label_studio.read_label_studio(saved(tmp_path, content), IDS, CLASSES, run="run-1")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        label_studio.read_label_studio(tmp_path / "none.json", IDS, CLASSES)
