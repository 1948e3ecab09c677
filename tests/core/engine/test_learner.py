"""Folds and ensembles: whose posterior a sample gets, and that a model is never asked about what it has learnt."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import data
from core import graph, selectors
from core.engine import loop
from core.engine.learner import Learner, weights
from core.runs import run, same, settle
from core.runs.spec import Config
from core.scores import cleaning_score
from data.errors import UserError

TINY = {"dataset": "fashion", "limit": 200, "model": "small-cnn", "width": 4, "epochs": 2, "batch_size": 32, "lr": 0.05}


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=200)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path / "runs"))
    return tmp_path / "runs"


def config(**changes) -> Config:
    return Config(**{"task": "label-cleaning", "method": "cleaning", "budget": 30, "cycles": 2, **TINY, **changes})


def finished(pool, **changes) -> run.Run:
    one = run.create(settle.prepare(config(**changes), pool), settle.about(pool))
    loop.work(one, pool)
    return one


def test_every_training_leaves_a_log_of_its_epochs_beside_its_weights(home, pool):
    one = finished(pool, folds=2, cycles=1, epochs=3)
    for file in (weights(one.cycle_path(0), part) for part in ((0, 0), (1, 0))):
        epochs = pd.read_json(file.with_suffix(".jsonl"), lines=True)
        assert epochs["epoch"].tolist() == [1, 2, 3]
        assert epochs["loss"].between(0, 10).all()


def test_out_of_fold_posteriors_are_of_models_that_have_not_seen_the_sample(home, pool, monkeypatch):
    seen = []
    fit = Learner._train_part

    def remember(self, folder, cycle, part, rows, labels, *rest):
        seen.append((part, set(rows.tolist())))
        return fit(self, folder, cycle, part, rows, labels, *rest)

    monkeypatch.setattr(Learner, "_train_part", remember)
    one = finished(pool, folds=4, cycles=1)
    learner = Learner(one.config, pool, home)
    assert [part for part, _ in seen] == [(k, 0) for k in range(4)]
    for (fold, _), rows in seen:
        assert rows == set(np.flatnonzero(learner.fold_of != fold).tolist())
    scorers = learner.scorers(one.cycle_path(0), 0)
    posterior = one.posterior(0)
    for row in range(0, 200, 17):
        own = scorers[int(learner.fold_of[row]), 0].probs()[row]
        np.testing.assert_allclose(posterior[row], own, atol=1e-6)


def test_folds_are_of_equal_size_and_stay_for_the_whole_run(home, pool):
    learner = Learner(config(folds=3), pool, home)
    assert sorted(np.bincount(learner.fold_of)) == [66, 67, 67]
    np.testing.assert_array_equal(learner.fold_of, Learner(config(folds=3), pool, home).fold_of)


def test_an_ensemble_averages_members_of_different_seeds(home, pool):
    one = finished(pool, ensemble=3, cycles=1)
    scorers = Learner(one.config, pool, home).scorers(one.cycle_path(0), 0)
    members = np.stack([scorer.probs() for scorer in scorers.values()]).astype(np.float64)
    assert len({member.tobytes() for member in members}) == 3
    np.testing.assert_allclose(one.posterior(0), members.mean(axis=0), atol=1e-6)
    assert weights(one.cycle_path(0), (0, 2)).is_file()


def test_a_static_run_ranks_all_cycles_by_its_first_model(home, pool):
    one = finished(pool, static=True, cycles=3)
    np.testing.assert_array_equal(one.posterior(0), one.posterior(2))
    assert not weights(one.cycle_path(2)).exists()
    assert one.cycles()["n_labels"].tolist() == [0, 30, 60]


def test_relabel_seeds_change_the_votes_and_neither_first_labels_nor_model(home, pool):
    first, second = (finished(pool, relabel_seed=seed) for seed in (1, 2))
    logs = [one.log.labels() for one in (first, second)]
    start = [log[log["cycle"] == 0][["sample_id", "label"]].to_numpy().tolist() for log in logs]
    assert start[0] == start[1]
    assert same.differing(first, second, same.EXPERIMENT) == []
    assert weights(first.cycle_path(0)).read_bytes() == weights(second.cycle_path(0)).read_bytes()
    later = [log[log["cycle"] == 1]["label"].tolist() for log in logs]
    assert later[0] != later[1]


def test_bald_and_graph_are_columns_where_they_are_asked_for(home, pool):
    bald = finished(pool, method="bald", cycles=1).ranking(0)["bald"]
    assert (bald >= -1e-9).all()
    assert bald.max() > 0
    both = finished(pool, evidence=True, cycles=1).ranking(0)
    assert np.isfinite(both[["bald", "graph", "cleaning"]]).all(axis=None)


@pytest.mark.parametrize(("folds", "ensemble", "gamma"), [(1, 1, 0.0), (3, 1, 0.3), (2, 2, 0.0)])
def test_the_graph_asks_of_each_image_the_models_that_have_not_seen_it(home, pool, folds, ensemble, gamma):
    """Each model's embedding is a graph of its own; the ambiguity that γ lets pass is that of the diffused labels."""
    one = finished(pool, method="graph", folds=folds, ensemble=ensemble, gamma=gamma, cycles=1)
    learner, histogram = Learner(one.config, pool, home), one.state(pool.ids, 0)[0].histogram
    scorers = learner.scorers(one.cycle_path(0), 0)
    found = np.empty(200)
    for fold in range(folds):
        own = [scorers[fold, member].embeddings(np.arange(200)).cpu().numpy() for member in range(ensemble)]
        mean = np.mean([graph.diffuse(embedding, histogram) for embedding in own], axis=0)
        mine = learner.fold_of == fold
        found[mine] = cleaning_score(histogram, mean, gamma)[mine]
    np.testing.assert_array_equal(one.ranking(0)["graph"], found)


def test_embeddings_that_were_there_before_the_labels_are_one_graph_for_all_folds(home, pool, monkeypatch):
    asked, diffuse = [], graph.diffuse
    monkeypatch.setattr(graph, "diffuse", lambda *arguments: asked.append(arguments) or diffuse(*arguments))
    finished(pool, selector="ssl", pretrain_epochs=1, folds=3, method="graph", cycles=1)
    assert len(asked) == 1


def test_the_clean_selector_learns_the_right_labels(home, pool):
    one = finished(pool, selector="clean", noise=0.3, epochs=15, width=8, cycles=1)
    noisy = finished(pool, noise=0.3, epochs=15, width=8, cycles=1)
    right = pool.label_counts.argmax(axis=1)
    assert (one.posterior(0).argmax(axis=1) == right).mean() > (noisy.posterior(0).argmax(axis=1) == right).mean()


@pytest.mark.parametrize("selector", ["co-teaching", "elr", "ssl"])
def test_every_selector_runs_through_the_loop(home, pool, selector):
    one = finished(pool, selector=selector, pretrain_epochs=1, cycles=2, finetune_epochs=1)
    assert len(one.cycles()) == 2
    assert one.config.arm == selector


def test_the_embedding_of_ssl_is_learnt_once_for_all_cycles_and_folds(home, pool, monkeypatch):
    calls, ssl = [], selectors.load("ssl")

    def count(*arguments, **options):
        calls.append(options["seed"])
        return ssl.prepare(*arguments, **options)

    monkeypatch.setattr(selectors, "load", lambda name: dataclasses.replace(ssl, prepare=count))
    finished(pool, selector="ssl", pretrain_epochs=1, folds=2, cycles=2)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget_rate": 1.0}, "--forget-rate is 1.0"),
        ({"folds": 0}, "--folds is 0"),
        ({"folds": 500}, "more than the 200 images"),
        ({"selector": "simclr"}, 'selector is "simclr": choose one of vanilla'),
        ({"noise_kind": "odd"}, '--noise-kind is "odd"'),
        ({"annotator": "person", "noise": 0.2}, "simulated annotators alone"),
        ({"annotator": "person", "method": "oracle"}, "oracle needs to know"),
        ({"annotator": "person", "selector": "clean"}, "needs to know the true labels"),
    ],
)
def test_what_cannot_be_run_is_said(pool, changes, message):
    with pytest.raises(UserError, match=message):
        settle.prepare(config(**changes), pool)


def test_selectors_belong_to_label_cleaning(pool):
    learning = config(task="active-learning", method="random", selector="elr")
    with pytest.raises(UserError, match="--selector belongs to label cleaning"):
        settle.prepare(learning, pool)
