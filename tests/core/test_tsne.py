"""The embedding map: what is alike lies close, the same every time, and little moves where the model changes little."""

import numpy as np
import pytest

from core import tsne


@pytest.fixture(autouse=True)
def all_landmarks(monkeypatch):
    monkeypatch.setattr(tsne, "LANDMARKS", 2_000)


def groups(n, noise=0.1, seed=0):
    """Unit vectors [n, 8] around four directions, and the direction of each."""
    generator = np.random.default_rng(seed)
    of = generator.integers(0, 4, n)
    points = np.eye(8)[of] + noise * generator.normal(size=(n, 8))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16), of


def nearest_of_the_same_group(places, of):
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return (of[distance.argmin(axis=1)] == of).mean()


def test_images_of_a_group_lie_together():
    points, of = groups(200)
    places = tsne.plane(points)
    assert places.shape == (200, 2)
    assert places.dtype == np.float32
    assert np.abs(places).max() == pytest.approx(1)
    assert nearest_of_the_same_group(places, of) > 0.97


def test_images_that_are_no_landmarks_lie_with_their_group(monkeypatch):
    monkeypatch.setattr(tsne, "LANDMARKS", 80)
    points, of = groups(400)
    assert nearest_of_the_same_group(tsne.plane(points), of) > 0.97


def test_an_image_between_landmarks_is_where_the_definition_puts_it():
    """Weights 1 / distance², one image at a time in float64."""
    landmarks, places = groups(30)[0].astype(np.float32), np.random.default_rng(1).normal(size=(30, 2))
    for image, found in zip(
        groups(5, seed=2)[0].astype(np.float32),
        tsne._between(groups(5, seed=2)[0].astype(np.float32), landmarks, places),
        strict=True,
    ):
        distance = np.sqrt(((landmarks.astype(np.float64) - image) ** 2).sum(axis=1))
        near = distance.argsort()[: tsne.NEAREST]
        weight = distance[near] ** -2
        np.testing.assert_allclose(found, (weight[:, None] * places[near]).sum(axis=0) / weight.sum(), rtol=1e-4)


def test_the_same_embeddings_give_the_same_map():
    points, _ = groups(120)
    np.testing.assert_array_equal(tsne.plane(points), tsne.plane(points))


def test_a_map_starts_from_the_one_before():
    """After a small change of the model the images are much nearer to where they were than in a map made afresh."""
    points, _ = groups(150, noise=0.3)
    first = tsne.plane(points)
    moved = (points + 0.01 * np.random.default_rng(5).normal(size=points.shape)).astype(np.float16)
    mirrored = first * np.array([-1, 1], dtype=np.float32)
    assert np.linalg.norm(tsne.plane(moved, mirrored) - mirrored, axis=1).mean() < 0.25
    assert np.linalg.norm(tsne.plane(moved) - mirrored, axis=1).mean() > 0.25


@pytest.mark.parametrize("points", [
    np.zeros((0, 8), np.float16), np.ones((3, 8), np.float16), np.ones((50, 8), np.float16), np.full((50, 8), np.nan, np.float16),
])  # fmt: skip
def test_what_has_no_map_lies_in_the_middle(points):
    np.testing.assert_array_equal(tsne.plane(points), np.zeros((len(points), 2)))


def test_four_images_are_enough():
    assert np.isfinite(tsne.plane(groups(4)[0])).all()
