"""Scores of masks by hand, in chunks as at once, and of their regions."""

import numpy as np
import pytest

from core import masks, scores
from data.errors import UserError


def posterior(n=5, n_classes=4, height=6, width=7, seed=0, dtype=np.float32):
    return (
        np.random.default_rng(seed)
        .dirichlet(np.ones(n_classes), (n, height, width))
        .transpose(0, 3, 1, 2)
        .astype(dtype)
    )


def sure(mask, of, n_classes=3):
    """A posterior that gives the mask's class `of`, the rest evenly."""
    p = np.full((n_classes, *mask.shape), (1 - of) / (n_classes - 1))
    np.put_along_axis(p, mask[None], of, axis=0)
    return p


def test_entropy_and_margin_are_means_over_the_pixels():
    p = np.array([[1.0, 0.5], [0.0, 0.5]]).reshape(1, 2, 1, 2)  # one sure pixel, one that is not
    np.testing.assert_allclose(masks.entropy(p), [np.log(2) / 2])
    np.testing.assert_allclose(masks.margin(p), [0.5])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_few_images_at_a_time_give_the_same_as_all_at_once(dtype, monkeypatch, tmp_path):
    p, labels = posterior(dtype=dtype), np.random.default_rng(1).integers(-1, 4, (5, 6, 7))
    np.save(tmp_path / "p.npy", p)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    once = masks.entropy(p), masks.margin(p), masks.cleaning_score(labels, p, 0.3)
    monkeypatch.setattr(masks, "CHUNK_BYTES", 2 * 8 * 4 * 6 * 7)
    found = masks.entropy(mapped), masks.margin(mapped), masks.cleaning_score(labels, mapped, 0.3)
    for a, b in zip(once, found, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(once[0], scores.entropy(p))
    np.testing.assert_array_equal(once[1], scores.margin(p))


def test_bald_takes_passes_one_after_the_other():
    passes = np.stack([posterior(seed=seed, dtype=np.float64) for seed in range(4)])
    np.testing.assert_allclose(masks.bald(iter(passes)), scores.bald(passes))
    np.testing.assert_allclose(masks.bald([passes[0]] * 3), 0, atol=1e-12)  # what does not vary is no disagreement


def test_the_score_of_a_mask_is_that_of_its_labels_where_all_are_known():
    p, labels = posterior(), np.random.default_rng(1).integers(0, 4, (5, 6, 7))
    counts = (labels[:, None] == np.arange(4)[:, None, None]).astype(int)
    for gamma in (0.0, 0.3):
        np.testing.assert_allclose(masks.cleaning_score(labels, p, gamma), scores.cleaning_score(counts, p, gamma))


def test_void_pixels_do_not_count():
    p, labels = posterior(), np.random.default_rng(1).integers(0, 4, (5, 6, 7))
    labels[:, 3:] = -1
    np.testing.assert_allclose(masks.cleaning_score(labels, p), masks.cleaning_score(labels[:, :3], p[:, :, :3]))
    labels[2] = -1
    found = masks.cleaning_score(labels, p)
    assert np.isnan(found[2])
    assert np.isfinite(np.delete(found, 2)).all()


def test_regions_touch_at_sides_and_corners():
    mask = np.array([
        [0, 0, 1, -1],
        [1, 1, 0, 0],
        [2, 1, 2, 2],
    ])  # fmt: skip
    found = masks.regions(mask[None], sure(mask.clip(0), 0.5)[None])
    assert found.image.tolist() == [0] * 4
    assert found.label.tolist() == [0, 1, 2, 2]
    assert found.pixels.tolist() == [4, 4, 1, 2]
    assert found.box.tolist() == [[0, 0, 2, 4], [0, 0, 3, 3], [2, 0, 3, 1], [2, 2, 3, 4]]
    assert masks.number(mask).tolist() == [[1, 1, 2, 0], [2, 2, 1, 1], [3, 2, 4, 4]]
    # CE = ln 2, H = ln 2 / 2 + 2 · ln 4 / 4
    np.testing.assert_allclose(found.score(4), -np.log(2) / 2)
    np.testing.assert_allclose(found.score(4, gamma=1.0), np.log(2))
    assert found.number.tolist() == [1, 2, 3, 4]


def test_the_region_that_is_labelled_wrong_comes_first():
    """An object labelled as another class, before an image that the model is unsure of, before one that it agrees with."""
    truth = np.zeros((3, 6, 6), dtype=np.int64)
    truth[:, 1:3, 1:3] = 1
    given = truth.copy()
    given[0, 1:3, 1:3] = 2
    p = np.stack([sure(truth[0], 0.98), sure(truth[1], 0.4), sure(truth[2], 0.98)])
    found = masks.regions(given, p)
    score = found.score(p.shape[1])
    first = int(score.argmax())
    assert (found.image[first], found.label[first], found.pixels[first]) == (0, 2, 4)
    np.testing.assert_array_equal(found.box[first], [1, 1, 3, 3])
    of_images = masks.cleaning_score(given, p)
    assert of_images.argmax() == 0
    # an image is the mean of its regions, weighted by their pixels, as long as no term is cut at 0
    weighted = np.bincount(found.image, weights=score * found.pixels) / np.bincount(found.image, weights=found.pixels)
    np.testing.assert_allclose(weighted, of_images)


def test_an_image_without_labels_has_no_region():
    found = masks.regions(np.full((2, 3, 3), -1), posterior(2, 3, 3, 3))
    assert len(found) == len(found.image) == len(found.number) == 0
    assert found.box.shape == (0, 4)


def test_what_does_not_fit_is_the_users_error():
    p, labels = posterior(), np.zeros((5, 6, 7), dtype=np.int64)
    with pytest.raises(UserError, match="do not fit a posterior"):
        masks.cleaning_score(labels[:, :5], p)
    with pytest.raises(UserError, match="from 0 to 3, or −1 where unknown, and these hold 0 to 4"):
        masks.regions(labels + np.arange(5)[:, None, None], p)
    p[3, 1, 2, 2] = np.nan
    with pytest.raises(UserError, match="for 1 of 5 samples, first at row 3"):
        masks.entropy(p)
