"""uint8 images as normalised batches."""

import numpy as np
import pytest
import torch
from PIL import Image

from core.models.batches import Images, channel_statistics
from data.files.encoded import Paths
from data.files.ondemand import OnDemand


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_by_hand(channels):
    array = np.random.default_rng(0).integers(0, 256, (20, 6, 5, channels), dtype=np.uint8)
    mean, std = channel_statistics(array)
    images = Images(array, mean, std, torch.device("cpu"))
    scaled = array.astype(np.float64) / 255
    by_hand = (scaled - scaled.mean(axis=(0, 1, 2))) / scaled.std(axis=(0, 1, 2))
    np.testing.assert_allclose(
        images[np.array([3, 1])].numpy(), by_hand[[3, 1]].transpose(0, 3, 1, 2), rtol=1e-4, atol=1e-5
    )


def test_a_constant_channel_does_not_divide_by_zero():
    mean, std = channel_statistics(np.full((3, 2, 2, 1), 255, dtype=np.uint8))
    assert (mean.item(), round(std.item(), 6)) == (1.0, 0.001)


def test_batches_keep_the_order_and_reach_the_end():
    array = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    images = Images(array, torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.device("cpu"))
    seen = [
        (rows.tolist(), (255 * x).round().flatten().tolist()) for rows, x in images.batches(np.array([6, 2, 0, 5]), 3)
    ]
    assert seen == [([6, 2, 0], [6, 2, 0]), ([5], [5])]


def test_batches_are_channels_last_float32():
    array = np.zeros((4, 6, 5, 3), dtype=np.uint8)
    batch = Images(array, *channel_statistics(array), torch.device("cpu"))[np.array([2, 0])]
    assert batch.shape == (2, 3, 6, 5)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_statistics_by_hand_for_each_channel():
    """Channel 0 is half black, half white; channel 1 is grey throughout."""
    array = np.zeros((2, 1, 2, 2), dtype=np.uint8)
    array[:, :, 0, 0], array[..., 1] = 255, 51
    mean, std = channel_statistics(array)
    np.testing.assert_allclose(mean.flatten(), [0.5, 0.2])
    np.testing.assert_allclose(std.flatten(), [0.5, 1e-3])  # never 0, by which one could not divide


@pytest.mark.parametrize(("n", "every"), [(10_000, 1), (10_001, 2), (20_001, 3)])
def test_statistics_take_at_most_10_000_evenly_spaced_images(n, every):
    array = np.random.default_rng(0).integers(0, 256, (n, 1, 1, 1), dtype=np.uint8)
    sample = array[::every] / 255
    assert len(sample) <= 10_000
    mean, std = channel_statistics(array)
    np.testing.assert_allclose([mean.item(), std.item()], [sample.mean(), sample.std()], rtol=1e-6)


def test_an_empty_index_has_no_batch():
    array = np.zeros((3, 2, 2, 1), dtype=np.uint8)
    images = Images(array, *channel_statistics(array), torch.device("cpu"))
    assert list(images.batches(np.empty(0, dtype=np.int64), 2)) == []
    assert len(images) == 3


@pytest.mark.parametrize("size", [3, 50])
def test_images_that_are_decoded_ahead_come_in_order(tmp_path, size):
    random = np.random.default_rng(0)
    array = random.integers(0, 256, (10, 6, 5, 1), dtype=np.uint8)
    for row, pixels in enumerate(array):
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"{row}.png")
    lazy = OnDemand(Paths(tmp_path.resolve(), [f"{row}.png" for row in range(10)], [tmp_path.resolve()]), (6, 5, 1))
    both = [Images(images, *channel_statistics(images), torch.device("cpu")) for images in (array, lazy)]
    rows = random.permutation(10)
    for (at, x), (lazy_at, y) in zip(*(images.batches(rows, size) for images in both), strict=True):
        np.testing.assert_array_equal(at, lazy_at)
        assert torch.equal(x, y)
    next(both[1].batches(rows, 2))  # who stops early leaves nothing running
    assert list(both[1].batches(rows[:0], 3)) == []
