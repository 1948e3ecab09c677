"""What a cycle says pixel by pixel: of an image, of classes, of two cycles; and the table of samples of a run on masks."""

import dataclasses

import numpy as np
import pytest

import data
from core import metrics
from core.analysis import diff, layers, pool, samples
from core.runs import run
from core.runs.answers import PREDICTED, MaskAnswer
from data.errors import UserError
from data.masks import VOID


@pytest.fixture(scope="module")
def scenes():
    return data.load("garments", limit=24)


@pytest.fixture(autouse=True)
def _home(masked, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(masked))


@pytest.fixture
def runs(masked):
    """By strategy."""
    return {one.config.method: one for one in map(run.Run, (path.parent for path in masked.glob("*/config.json")))}


@pytest.fixture
def gradnorm(runs):
    return runs["entropy-gradnorm"]


def test_masks_stand_where_somebody_has_drawn_them(gradnorm, scenes):
    found = layers.of_cycle(gradnorm, scenes, 1)
    labelled = gradnorm.ranking(1)["label"].to_numpy() >= 0
    masks = found.label(np.arange(24))
    assert labelled.sum() == 10
    assert ((masks != VOID).any(axis=(1, 2)) == labelled).all()
    np.testing.assert_array_equal(masks[labelled], found.truth(np.flatnonzero(labelled)))


def test_reference_masks_are_looked_through_once_for_all_cycles(gradnorm, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTLABEL_HOME", str(tmp_path))  # nothing is kept there yet
    asked, mainly = [], MaskAnswer.mainly
    monkeypatch.setattr(MaskAnswer, "mainly", lambda self, labels: asked.append(len(labels)) or mainly(self, labels))
    first, second = (samples.table(gradnorm, scenes, cycle)["reference"] for cycle in (0, 1))
    assert asked == [24]
    assert first.tolist() == second.tolist()
    names = np.array(scenes.class_names)
    assert first.tolist() == names[mainly(gradnorm.answer, scenes.labels)].tolist()


def test_where_labels_are_checked_predictions_are_held_against_them(gradnorm, scenes):
    found = layers.of_cycle(gradnorm, scenes, 1)
    assert found.against == "reference"
    checked = dataclasses.replace(found, checks=True)
    assert checked.against == "label"
    np.testing.assert_array_equal(checked.target(np.arange(24)), found.label(np.arange(24)))


def test_the_classes_of_an_image_add_up_and_have_their_own_iou(gradnorm, scenes):
    found = layers.of_cycle(gradnorm, scenes, 1)
    table = found.classes(3)
    assert table["predicted"].sum() == pytest.approx(1)
    assert table["target"].sum() == pytest.approx((scenes.labels[3] >= 0).mean())
    expected = metrics.iou(metrics.confusion(scenes.labels[3:4], found.predicted[3:4].astype(np.int64), 11)[0])
    np.testing.assert_allclose(table["iou"], expected[table.index])
    assert table["iou"].mean() == pytest.approx(gradnorm.ranking(1)["iou"][3])


def test_the_classes_of_the_pool_are_counted_over_all_images(gradnorm, scenes):
    table = layers.of_cycle(gradnorm, scenes, 1).over_pool().set_index("class")
    predicted = np.load(gradnorm.cycle_path(1) / PREDICTED)
    assert table["images"]["background"] == 10
    assert table["share"].sum() == pytest.approx(1)
    assert table["predicted_share"].tolist() == pytest.approx(
        np.bincount(predicted.ravel(), minlength=11) / predicted.size
    )
    whole = metrics.confusion(scenes.labels, predicted.astype(np.int64), 11).sum(axis=0)
    np.testing.assert_allclose(table["iou"], metrics.iou(whole))


def test_two_cycles_are_compared_image_by_image(gradnorm, scenes):
    first, second = (layers.of_cycle(gradnorm, scenes, cycle) for cycle in (0, 1))
    table = layers.between(first, second, scenes.ids)
    assert table["same"].is_monotonic_increasing
    row = table.index[0]
    assert table["sample_id"][row] == scenes.ids[row]
    assert table["same"][row] == (first.predicted[row] == second.predicted[row]).mean()
    assert table["iou_second"][row] == pytest.approx(gradnorm.ranking(1)["iou"][row])
    assert (layers.between(first, first, scenes.ids)["same"] == 1).all()


def test_the_iou_of_each_class_is_drawn_cycle_by_cycle(gradnorm):
    drawn = layers.class_figure(gradnorm, 1)
    np.testing.assert_allclose(drawn.data[0].z, gradnorm.class_iou().T.to_numpy())
    assert list(drawn.layout.yaxis.ticktext)[:2] == ["background", "T-shirt"]


def test_missing_masks_are_one_sentence(gradnorm, scenes):
    with pytest.raises(UserError, match="no readable masks"):
        layers.of_cycle(gradnorm, scenes, 7)


def test_samples_are_called_after_their_largest_class(gradnorm, scenes):
    table = samples.table(gradnorm, scenes, 1)
    counts = np.stack([np.bincount(mask[mask >= 0], minlength=11) for mask in scenes.labels])
    counts[:, 0] = 0  # the background
    names = [scenes.class_names[code] for code in counts.argmax(axis=1)]
    assert table["reference"].tolist() == names
    labelled = table["label"] >= 0
    assert table["given"][labelled].tolist() == [name for name, there in zip(names, labelled, strict=True) if there]
    assert (table["given"][~labelled] == "—").all()
    assert table["labelled"].tolist() == pytest.approx(
        np.where(labelled, (np.asarray(scenes.labels) >= 0).mean(axis=(1, 2)), 0)
    )


def test_iou_sorts_and_narrows_the_samples(gradnorm, scenes):
    found = samples.of_cycle(gradnorm, scenes, 1)
    assert {"iou", "pixel-accuracy"} <= set(found.scores)
    best = found.page(samples.Filter(), "iou", False, 0, 5)
    assert best["iou"].is_monotonic_decreasing
    assert found.count(samples.Filter(ranges=(("iou", best["iou"].iloc[-1], 1.0),))) == 5
    assert (found.page(samples.Filter(), "labelled", False, 0, 10)["labelled"] > 0.9).all()


def test_a_sample_has_its_history_and_its_reason(gradnorm, scenes):
    table = samples.history(gradnorm, 3)
    assert table["cycle"].tolist() == [0, 1]
    assert table["iou"].notna().all()
    assert set(table["suggested"]) <= set(scenes.class_names)
    found = samples.of_cycle(gradnorm, scenes, 1)
    unlabelled = found.page(samples.Filter(status=("unlabelled",)), "rank", True, 0, 1).iloc[0]
    assert gradnorm.answer.reason(unlabelled).startswith("no mask yet; over all pixels the model is ")
    labelled = found.page(samples.Filter(), "labelled", False, 0, 1).iloc[0]
    assert gradnorm.answer.reason(labelled).startswith("100% of its pixels are labelled (1 annotation), ")


def test_the_pool_has_no_doubtful_classes_but_a_table_of_pixels(gradnorm, scenes):
    found = pool.of_cycle(gradnorm, scenes, 1)
    assert found.doubtful is None
    assert len(found.contradicting()) == 0
    assert found.classes["class"].tolist() == scenes.class_names


def test_two_runs_differ_in_measures_of_masks(runs, scenes):
    found = diff.diff(diff.Side(runs["random"], 1), diff.Side(runs["entropy-gradnorm"], 1))
    assert {"miou", "pixel_accuracy"} <= set(found.measures["measure"])
    assert set(diff.named(found.samples, scenes)["given_first"]) == {"mask", "—"}
