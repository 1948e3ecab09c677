"""uint8 images as normalised batches."""

import numpy as np
import pytest
import torch

from core.batches import Images, channel_statistics


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
