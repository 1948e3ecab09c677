"""Runs on predictions of a model of one's own: cycles, new predictions, branches, bundles, and what is refused."""

import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest

import data
from core import relabel, scores
from core.__main__ import main
from core.engine import evaluation, explain, loop
from core.files import bundle
from core.runs import branch, imported, reference, run, settle
from core.runs.spec import Config
from data.errors import UserError

N, C = 200, 10
CLEANING = {"task": "label-cleaning", "dataset": "fashion", "limit": N, "method": "cleaning", "cycles": 2, "noise": 0.2}
LEARNING = {"task": "active-learning", "dataset": "fashion", "limit": N, "method": "margin", "cycles": 3, "budget": 20}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=N)


def made(pool, seed=0):
    """Posteriors of a fair model, and embeddings in which classes stand apart."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, C)) + 3 * np.eye(C)[pool.labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probs, rng.normal(size=(N, 12)) + 3 * np.eye(12)[pool.labels]


@pytest.fixture
def files(tmp_path, pool):
    """Two sets of predictions, in order and by id, and embeddings; the pool's ids are sorted."""
    assert pool.ids == sorted(pool.ids)
    for k in range(2):
        probs, embeddings = made(pool, k)
        np.save(tmp_path / f"probs-{k}.npy", probs)
        np.save(tmp_path / f"emb-{k}.npy", embeddings)
        table = pd.DataFrame(probs, columns=pool.class_names).assign(sample_id=pool.ids)
        table.sample(frac=1, random_state=0).to_csv(tmp_path / f"probs-{k}.csv", index=False)
    return tmp_path


def start(pool, files, task=CLEANING, predictions="probs-0.npy", embeddings=None, **changes):
    given = {**task, "predictions": str(files / predictions), **changes}
    if embeddings is not None:
        given["embeddings"] = str(files / embeddings)
    config, dataset = settle.settle(given, lambda config: pool)
    return run.create(config, settle.about(dataset))


def worked(pool, files, *what, **changes):
    one = start(pool, files, *what, **changes)
    loop.work(one, pool)
    return one


def test_its_curve_is_the_one_that_is_computed_by_hand(pool, files, home):
    from core.analysis import curves

    one = worked(pool, files)
    probs, _ = made(pool)
    initial, counts = reference.initial_labels(one.config, pool), reference.reference_counts(one.config, pool)
    by_hand = scores.cleaning_score(np.eye(C, dtype=int)[initial], probs)
    np.testing.assert_array_equal(one.ranking(0)["cleaning"], by_hand)
    budget = int(one.cycles()["n_labels"].iloc[-1])
    simulated = relabel.simulate(counts, initial, by_hand, budget=budget, seeds=one.config.seed)
    assert curves.summary(one, pool)["auc"] == simulated.auc


def test_predictions_by_id_give_the_same_run(pool, files, home):
    first, second = worked(pool, files), worked(pool, files, predictions="probs-0.csv")
    drop = {"columns": "time"}
    pd.testing.assert_frame_equal(first.log.labels().drop(**drop), second.log.labels().drop(**drop))
    pd.testing.assert_series_equal(first.ranking(1)["rank"], second.ranking(1)["rank"])


@pytest.mark.parametrize("method", ["random", "margin", "entropy", "core-set", "badge"])
def test_active_learning_by_every_strategy_that_needs_no_model(pool, files, home, method):
    one = worked(pool, files, LEARNING, embeddings="emb-0.npy", method=method)
    assert one.cycles()["n_labels"].tolist() == [20, 40, 60]
    assert one.status()[0] == "finished"


def test_the_graph_compares_the_embeddings_that_were_imported(pool, files, home):
    one = worked(pool, files, embeddings="emb-0.npy", method="graph")
    state, _, _ = one.state(pool.ids, 0)
    from core import graph

    probs = graph.diffuse(made(pool)[1].astype(np.float32), state.histogram)
    np.testing.assert_allclose(one.ranking(0)["graph"], scores.cleaning_score(state.histogram, probs))


def test_a_run_goes_on_without_the_files_it_was_started_with(pool, files, home):
    one = start(pool, files, cycles=2)
    loop.work(one, pool, until=1)
    (files / "probs-0.npy").unlink()
    loop.work(one, pool)
    assert len(one.cycles()) == 2


def test_a_file_that_changed_before_the_first_cycle_is_refused(pool, files, home):
    one = start(pool, files)
    shutil.copy(files / "probs-1.npy", files / "probs-0.npy")
    with pytest.raises(UserError, match=r"probs-0.npy is not what it was when run .* was started"):
        loop.work(one, pool)


def test_a_step_takes_new_predictions_or_the_last_ones(pool, files, home, capsys):
    one = worked(pool, files, cycles=1, budget=10)
    assert main(["step", one.id, "--predictions", str(files / "probs-1.npy")]) == 0
    np.testing.assert_array_equal(np.load(one.cycle_path(1) / imported.PROBS), made(pool, 1)[0])
    np.testing.assert_allclose(one.posterior(1), made(pool, 1)[0], atol=1e-6)
    assert main(["step", one.id]) == 0
    assert "no new predictions: the next cycle is ranked by the last ones" in capsys.readouterr().err
    np.testing.assert_array_equal(one.posterior(2), one.posterior(1))
    train = one.log.phases().query("phase == 'train'")["result"].tolist()
    assert [result.get("of") for result in train] == [None, "cycle-001", "cycle-001"]


def test_predictions_of_an_earlier_cycle_are_refused(pool, files, home, capsys):
    one = worked(pool, files, cycles=1, budget=10)
    assert main(["step", one.id, "--predictions", str(files / "probs-0.csv")]) == 2
    assert "probs-0.csv holds the predictions of cycle 0" in capsys.readouterr().err
    assert len(one.cycles()) == 1
    assert not (one.cycle_path(1) / imported.PROBS).exists()


def test_people_label_by_imported_predictions(pool, files, home):
    from core.runs import annotation

    one = worked(pool, files, annotator="person", noise=0.0, cycles=1)
    first = one.ranking(0).sort_values("rank")["sample_id"].iloc[0]
    annotation.record(one, [first], np.array([3]), ["ann"])
    one.log.set_fact("target", 2)
    loop.work(one, pool)
    assert len(one.cycles()) == 2
    assert "agreement" not in one.cycles()


def test_agreement_is_measured_where_predictions_are_out_of_sample(pool, files, home):
    one = worked(pool, files, annotator="person", noise=0.0, predicted="out-of-sample")
    assert 0 < one.cycles()["agreement"].iloc[0] < 1


def test_a_branch_takes_the_predictions_along_or_trains(pool, files, home):
    one = worked(pool, files, budget=10)
    by_entropy = branch.branch(one, pool, 1, method="cross-entropy", cycles=2)
    loop.work(by_entropy, pool)
    np.testing.assert_array_equal(by_entropy.posterior(1), one.posterior(1))
    trained = branch.branch(one, pool, 0, selector="vanilla", cycles=1)
    assert trained.config.trains
    with pytest.raises(UserError, match="selector imported takes predictions: give"):
        branch.branch(quick(trained, pool), pool, 0, selector="imported")


def quick(one, pool):
    """A run after a training as short as can be."""
    content = json.loads((one.path / "config.json").read_text())
    content["config"] |= {"width": 4, "epochs": 1, "model": "small-cnn"}
    (one.path / "config.json").write_text(json.dumps(content))
    loop.work(one, pool)
    return one


def test_a_bundle_holds_the_predictions_and_goes_on(pool, files, home):
    one = worked(pool, files, embeddings="emb-0.npy", budget=10)
    content = bundle.to_bytes(one, pool)
    shutil.rmtree(one.path)
    again = bundle.opened(io.BytesIO(content))
    assert (again.config.predictions, again.config.trains) == (None, False)
    again.log.set_fact("target", 3)
    loop.work(again, pool)
    assert len(again.cycles()) == 3
    np.testing.assert_array_equal(np.load(again.cycle_path(0) / imported.EMBEDDINGS), made(pool)[1].astype(np.float32))


def test_a_bundle_whose_predictions_are_none_is_refused(pool, files, home):
    one = worked(pool, files, budget=10)
    np.save(one.cycle_path(0) / imported.PROBS, np.full((N, C), 7.0))
    with pytest.raises(UserError, match="below 0 or above 1"):
        bundle.opened(io.BytesIO(bundle.to_bytes(one, pool)))


def test_gradients_are_refused_and_classifiers_are_trained_plainly(pool, files, home):
    one = worked(pool, files)
    with pytest.raises(UserError, match="imported predictions, which have no gradients"):
        explain.layer_norms(one, pool, 0, pool.ids[0])
    alone = evaluation._alone(one.config, 0)
    assert (alone.selector, alone.trains) == ("vanilla", True)


def test_near_duplicates_are_skipped_by_every_strategy(pool, files, home):
    embeddings = made(pool)[1]
    embeddings[1::2] = embeddings[::2]  # the pool in pairs
    np.save(files / "emb-0.npy", embeddings)
    for method in ("random", "margin"):
        one = worked(pool, files, LEARNING, embeddings="emb-0.npy", method=method, skip_duplicates=True)
        chosen = one.log.labels().query("cycle > 0")["sample_id"]
        pairs = pd.Series([pool.ids.index(name) // 2 for name in chosen])
        known = {pool.ids.index(name) // 2 for name in one.log.labels(0)["sample_id"]}
        assert pairs.is_unique
        assert not known & set(pairs)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"selector": "elr"}, "--selector elr trains a model, and --predictions replace it"),
        ({"folds": 5}, "--folds needs a model that is trained here"),
        ({"method": "bald"}, r"--score bald asks a model for more .*choose one of cleaning"),
        ({"method": "graph"}, "--score graph compares embeddings: give --embeddings too"),
        (
            {"task": LEARNING, "method": "entropy-gradnorm"},
            r"--strategy entropy-gradnorm asks a model for more",
        ),
        ({"task": LEARNING, "method": "core-set"}, "--strategy core-set compares embeddings"),
        ({"task": LEARNING, "evidence": True}, "--evidence needs a model that is trained here"),
    ],
)
def test_what_needs_a_model_is_refused_before_the_start(pool, files, home, changes, says):
    with pytest.raises(UserError, match=says):
        start(pool, files, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"selector": "imported"}, "--selector imported takes predictions: give --predictions"),
        ({"embeddings": "emb.npy"}, "--embeddings go with --predictions"),
        ({"predicted": "in-sample"}, "--predicted is said of --predictions"),
    ],
)
def test_what_belongs_to_predictions_is_refused_without_them(pool, changes, says):
    with pytest.raises(UserError, match=says):
        settle.settle({**CLEANING, **changes}, lambda config: pool)


def test_rows_follow_the_table_of_labels_and_columns_the_numbers_of_the_classes(tmp_path, home):
    """A table in no order of its names, twelve classes that are numbers, one image that cannot be read."""
    from PIL import Image

    rng, root = np.random.default_rng(0), tmp_path / "images"
    root.mkdir()
    names = [f"{i * 7 % 36:02d}.png" for i in range(36)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / name)
    (root / names[5]).write_bytes(b"")
    labels = np.arange(36) % 12
    pd.DataFrame({"file_name": names, "label": labels}).to_csv(tmp_path / "labels.csv", index=False)
    probs = np.full((36, 12), 0.01)
    probs[np.arange(36), labels] = 1 - 0.11
    probs[7] = np.eye(12)[(labels[7] + 1) % 12]
    np.save(tmp_path / "probs.npy", probs)
    command = ["run", "--task", "label-cleaning", "--dataset", "folder", "--root", str(root)]
    command += ["--labels", str(tmp_path / "labels.csv"), "--predictions", str(tmp_path / "probs.npy")]
    assert main(command) == 0
    (one,) = [found for found in run.all_runs() if not found.is_example]
    assert (one.config.selector, one.config.annotator, one.config.test_share) == ("imported", "person", 0.0)
    found = one.ranking(0).sort_values("rank")
    assert len(found) == 35
    assert found["sample_id"].iloc[0] == names[7]
    assert (found["confidence"] > 0.8).all()


def test_a_configuration_of_before_has_no_predictions():
    assert Config("label-cleaning", "fashion", "cleaning", 10, 2).trains
