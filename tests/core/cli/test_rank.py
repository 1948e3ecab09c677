"""rank: the ranking of predictions without images, against the functions that it calls and against cleanlab."""

import json

import numpy as np
import pandas as pd
import pytest

from core import scores
from core.__main__ import main

N, CLASSES = 400, ["bird", "cat", "dog"]


@pytest.fixture(scope="module")
def noisy():
    """Posteriors of a fair model, labels of which a sixth are wrong, and which those are."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, N)
    logits = rng.normal(size=(N, 3)) + 2.5 * np.eye(3)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = rng.random(N) < 1 / 6
    return probs, np.where(wrong, (truth + rng.integers(1, 3, N)) % 3, truth), wrong


@pytest.fixture
def files(tmp_path, noisy):
    """Predictions and labels as files; the samples in no order of their names."""
    probs, labels, _ = noisy
    ids = [f"{i * 7 % N:03d}.png" for i in range(N)]
    np.save(tmp_path / "probs.npy", probs)
    pd.DataFrame({"file_name": ids, "label": [CLASSES[k] for k in labels]}).to_csv(tmp_path / "labels.csv", index=False)
    keyed = pd.DataFrame({"sample_id": ids, **{name: probs[:, k] for k, name in enumerate(CLASSES)}})
    keyed.sample(frac=1, random_state=0).to_parquet(tmp_path / "probs.parquet", index=False)
    return tmp_path


def ranked(folder, *words, predictions="probs.npy", labels="labels.csv", out="ranking.parquet"):
    """What `rank` wrote."""
    given = [] if labels is None else ["--labels", str(folder / labels)]
    command = ["rank", "--predictions", str(folder / predictions), *given, "--out", str(folder / out), *words]
    assert main(command) == 0
    return pd.read_parquet(folder / out) if out.endswith("parquet") else pd.read_csv(folder / out)


def in_order(found, folder):
    """A ranking in the order of the labels."""
    ids = pd.read_csv(folder / "labels.csv")["file_name"]
    return found.set_index("sample_id").loc[ids].reset_index()


def test_scores_are_those_of_core_scores_and_the_order_is_theirs(files, noisy):
    probs, labels, wrong = noisy
    found = ranked(files)
    counts = np.eye(3, dtype=int)[labels]
    here = in_order(found, files)
    np.testing.assert_array_equal(here["cleaning"], scores.cleaning_score(counts, probs))
    np.testing.assert_array_equal(here["cross-entropy"], scores.cross_entropy(counts, probs))
    np.testing.assert_array_equal(here["self-confidence"], scores.self_confidence(labels, probs))
    np.testing.assert_array_equal(here["entropy"], scores.entropy(probs))
    assert found["rank"].tolist() == list(range(1, N + 1))
    assert (np.diff(found["cleaning"]) <= 0).all()
    assert wrong[np.argsort(here["rank"])[:30]].mean() > 0.8
    assert here["given_name"].tolist() == [CLASSES[k] for k in labels]


def test_predictions_by_id_give_the_same_ranking_as_in_order(files):
    pd.testing.assert_frame_equal(ranked(files), ranked(files, predictions="probs.parquet"))


def test_a_csv_holds_what_the_parquet_file_holds(files):
    as_csv, as_parquet = ranked(files, out="ranking.csv"), ranked(files)
    pd.testing.assert_frame_equal(as_csv, as_parquet, check_dtype=False)


def test_cleanlabs_columns_are_cleanlabs(files, noisy):
    cleanlab_filter, cleanlab_rank = pytest.importorskip("cleanlab.filter"), pytest.importorskip("cleanlab.rank")
    probs, labels, _ = noisy
    here = in_order(ranked(files), files)
    issues = cleanlab_filter.find_label_issues(labels, probs, filter_by="confident_learning")
    assert 10 < issues.sum() < 150
    np.testing.assert_array_equal(here["is_label_issue"], issues)
    np.testing.assert_allclose(here["label_score"], cleanlab_rank.get_self_confidence_for_each_label(labels, probs))
    margin = cleanlab_rank.get_normalized_margin_for_each_label(labels, probs)
    np.testing.assert_allclose(here["normalized_margin"], margin)


def test_without_labels_it_ranks_what_to_label_next(files, noisy):
    probs, _, _ = noisy
    found = ranked(files, labels=None)
    order = np.argsort(-scores.margin(probs), kind="stable")
    assert found["sample_id"].tolist() == [str(row) for row in order]
    assert "given_name" not in found
    by_entropy = ranked(files, "--score", "entropy", labels=None, predictions="probs.parquet")
    assert (np.diff(by_entropy["entropy"]) <= 0).all()
    assert by_entropy["sample_id"].iloc[0].endswith(".png")


def test_ties_come_first_and_samples_without_a_label_are_not_ranked(tmp_path):
    np.save(tmp_path / "probs.npy", np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.5, 0.5]]))
    (tmp_path / "labels.csv").write_text("sample_id,ann,ben\na,0,0\nb,0,0\nc,0,1\nd,,\n")
    found = ranked(tmp_path).set_index("sample_id")
    assert found.index.tolist() == ["c", "b", "a", "d"]
    assert found["rank"].fillna(0).tolist() == [1, 2, 3, 0]
    assert found.loc["c", ["given_label", "label_score", "is_label_issue"]].tolist() == [-1, 0.0, True]
    assert np.isnan(found.loc["d", "cleaning"])
    assert found["n_votes"].tolist() == [2, 2, 2, 0]


def test_embeddings_add_near_duplicates_outliers_and_the_graph(files, noisy):
    rng = np.random.default_rng(1)
    embedded = rng.normal(size=(N, 6)) * 0.3 + 4 * np.eye(6)[noisy[1]]
    embedded[1] = embedded[0]
    embedded[2] = -10
    np.save(files / "emb.npy", embedded)
    here = in_order(ranked(files, "--embeddings", str(files / "emb.npy"), "--score", "graph"), files)
    assert here["near_duplicate_group"].tolist()[:3] == [1, 1, 0]
    assert here["outlier_score"].idxmax() == 2
    assert here["is_outlier"][2]
    assert here.sort_values("rank")["graph"].is_monotonic_decreasing


def test_json_says_what_was_joined_how_and_found(files, capsys):
    ranked(files, "--json", "--predicted", "out-of-sample")
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["samples"], found["ranked"], found["score"]) == (N, N, "cleaning")
    assert found["joined"] == "in the order of the rows of labels.csv"
    assert found["label_issues"] > 10
    assert len(found["top"]) == 10
    assert said.err == ""


@pytest.mark.parametrize(("words", "says"), [((), "not known whether"), (("--predicted", "in-sample"), "memorised")])
def test_predictions_that_may_be_in_sample_are_warned_of_with_the_reason(files, capsys, words, says):
    ranked(files, *words)
    assert says in capsys.readouterr().err


def test_a_name_that_a_spreadsheet_would_compute_is_guarded(tmp_path):
    np.save(tmp_path / "probs.npy", np.array([[0.9, 0.1], [0.1, 0.9]]))
    (tmp_path / "labels.csv").write_text("sample_id,label\n=1+1,0\nb,1\n")
    assert set(ranked(tmp_path, out="ranking.csv")["sample_id"]) == {"'=1+1", "b"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--score", "margin"], "margin ranks samples without labels: leave --labels out"),
        (["--score", "graph"], "graph compares each sample with its neighbours: give --embeddings"),
        (["--score", "bald"], '--score is "bald": choose one of cleaning'),
        (["--out", "ranking.xlsx"], '"xlsx" is no format of a ranking'),
    ],
)
def test_what_does_not_go_together_is_said(files, capsys, words, says):
    command = ["rank", "--predictions", str(files / "probs.npy"), "--labels", str(files / "labels.csv")]
    assert main([*command, "--out", str(files / "r.csv"), *words]) == 2
    assert says in capsys.readouterr().err


def test_nothing_of_torch_is_loaded(files):
    import subprocess
    import sys

    code = (
        "import sys; from core.__main__ import main; assert main(sys.argv[1:]) == 0; assert 'torch' not in sys.modules"
    )
    command = ["rank", "--predictions", str(files / "probs.npy"), "--labels", str(files / "labels.csv")]
    subprocess.run(
        [sys.executable, "-c", code, *command, "--out", str(files / "r.csv")], check=True, capture_output=True
    )
