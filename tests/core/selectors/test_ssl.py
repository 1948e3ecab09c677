"""Self-supervised pre-training: views, and the contrast between them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import data
from core.models.batches import Images, channel_statistics
from core.selectors import Settings, Shape, ssl, vanilla


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_two_variations_of_each_image_and_repeat(channels):
    array = np.random.default_rng(0).integers(0, 256, (6, 20, 24, channels)).astype(np.uint8)
    images = Images(array, torch.full((channels, 1, 1), 0.5), torch.full((channels, 1, 1), 0.2), torch.device("cpu"))
    x, views = images[np.arange(6)], ssl.Views(images)
    before = torch.random.get_rng_state()
    first, again = views(x, torch.Generator().manual_seed(1)), views(x, torch.Generator().manual_seed(1))
    assert first.shape == (12, channels, 16, 16)
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first[:6], first[6:])
    back = first * images.std + images.mean
    assert float(back.min()) >= -1e-5
    assert float(back.max()) <= 1 + 1e-5


@pytest.mark.parametrize(("side", "expected"), [(64, 32), (32, 16), (20, 16), (9, 9)])
def test_views_have_half_the_side_but_not_too_few_pixels(side, expected):
    images = Images(
        np.zeros((2, side, side, 1), np.uint8), torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.device("cpu")
    )
    views = ssl.Views(images)(images[np.arange(2)], torch.Generator())
    assert views.shape == (4, 1, expected, expected)


def test_the_contrast_is_nt_xent():
    from pytorch_metric_learning.losses import SelfSupervisedLoss, SupConLoss

    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    z = F.normalize(torch.cat([a, b]), dim=1)
    similarity = (z @ z.T / ssl.TEMPERATURE).fill_diagonal_(-torch.inf)
    plain = F.cross_entropy(similarity, (torch.arange(10) + 5) % 10)
    theirs = SelfSupervisedLoss(SupConLoss(temperature=ssl.TEMPERATURE))(a, b)
    torch.testing.assert_close(theirs, plain)


def test_preparing_brings_views_of_an_image_together_without_a_label():
    pool = data.load("fashion", limit=500)
    images = Images(pool.images, *channel_statistics(pool.images), torch.device("cpu"))
    model = vanilla.build(Shape("small-cnn", 8, 1, 10, seed=0))

    def found() -> float:
        """Share of views whose nearest other view is of the same image."""
        views = ssl.Views(images)(images[np.arange(500)], torch.Generator().manual_seed(9))
        with torch.no_grad():
            z = F.normalize(model.eval().embed(views), dim=1)
        nearest = (z @ z.T).fill_diagonal_(-torch.inf).argmax(dim=1)
        return float((nearest == (torch.arange(1000) + 500) % 1000).float().mean())

    before = found()
    ssl.prepare(model, images, Settings(12, 0.03, 64, "one-cycle"), seed=0)
    assert found() > 1.5 * before
