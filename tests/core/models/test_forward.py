"""Posteriors of pixels, a batch at a time."""

import numpy as np
import pytest
import torch

from core import masks
from core.models import architectures, forward
from core.models.batches import Images, channel_statistics


@pytest.fixture(scope="module")
def images():
    array = np.random.default_rng(0).integers(0, 256, (7, 10, 12, 3), dtype=np.uint8)
    return Images(array, *channel_statistics(array), torch.device("cpu"))


def unet(dropout=0.0):
    return architectures.build("small-unet", 3, 4, 4, seed=0, dropout=dropout).eval()


def test_maps_are_the_models_posteriors_of_the_rows_asked_for(images):
    model, rows, shares = unet(), np.array([5, 0, 3]), []
    found = list(forward.maps(model, images, rows, batch_size=2, progress=shares.append))
    assert [at.tolist() for at, _ in found] == [[5, 0], [3]]
    assert shares == [2 / 3, 1]
    together = np.concatenate([p for _, p in found])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, model(images[rows]).softmax(dim=1).detach().numpy(), atol=1e-6)


def test_all_images_where_no_rows_are_named(images):
    assert sum(len(at) for at, _ in forward.maps(unet(), images)) == 7


def test_whoever_takes_maps_is_not_left_in_inference_mode(images):
    for _ in forward.maps(unet(), images, batch_size=3):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_passes_differ_by_dropout_and_repeat_by_the_seed(images):
    rows = np.arange(7)

    def passes(dropout, seed):
        return [np.stack(list(each)) for _, each in forward.stochastic_maps(unet(dropout), images, rows, 3, seed, 4)]

    one, two, other, plain = passes(0.5, 1), passes(0.5, 1), passes(0.5, 2), passes(0.0, 1)
    assert [p.shape for p in one] == [(3, 4, 4, 10, 12), (3, 3, 4, 10, 12)]
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[0][0], one[0][1])
    exact = np.concatenate([p for _, p in forward.maps(unet(), images)])
    for p in np.concatenate(plain, axis=1):
        np.testing.assert_allclose(p, exact, atol=1e-6)


def test_dropout_leaves_the_expected_logits_alone(images):
    """Many passes: the mean of the logits is the plain one, for the head is linear."""
    model = unet(0.25)
    (_, each), *_ = forward.stochastic_maps(model, images, np.arange(1), 2_000, 0)
    log_p = np.mean([np.log(p[0]) - np.log(p[0]).mean(axis=0) for p in each], axis=0)
    logits = model(images[np.arange(1)])[0].detach().numpy()
    np.testing.assert_allclose(log_p, logits - logits.mean(axis=0), atol=0.05)


def test_bald_of_the_passes_of_a_batch(images):
    found = np.concatenate(
        [masks.bald(each) for _, each in forward.stochastic_maps(unet(0.5), images, np.arange(7), 5, 0, 4)]
    )
    assert found.shape == (7,)
    assert (found > 0).all()


@pytest.mark.parametrize(("height", "width", "most"), [(96, 128, 21), (8, 8, 256), (1024, 2048, 1)])
def test_few_images_of_many_pixels_at_once(height, width, most):
    array = np.broadcast_to(np.zeros((), dtype=np.uint8), (300, height, width, 3))
    images = Images(array, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), torch.device("cpu"))
    assert forward.at_once(unet(), images, 256) == most
