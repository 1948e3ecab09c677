"""Plain training: it learns, repeats under a seed, and says when it cannot."""

import numpy as np
import pytest
import torch

from core import metrics
from core.gradnorm import sample_loss
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.models.forward import maps, predict
from core.selectors import Settings, fitting, vanilla
from core.selectors.fitting import ProgressCallback
from data.errors import UserError

SETTINGS = Settings(epochs=6, lr=0.1, batch_size=16, schedule="one-cycle")


@pytest.fixture
def stripes():
    """64 images: horizontal or vertical stripes, which a flip and a shift leave alone."""
    labels = np.arange(64) % 2
    base = np.tile(np.array([0, 255], dtype=np.uint8).repeat(2), 4)
    images = np.stack([np.tile(base, (16, 1)) if y else np.tile(base, (16, 1)).T for y in labels])[..., None]
    noise = np.random.default_rng(0).integers(0, 40, images.shape)
    images = np.clip(images.astype(int) + noise - 20, 0, 255).astype(np.uint8)
    return Images(images, *channel_statistics(images), torch.device("cpu")), labels


def fit(stripes, seed=0, settings=SETTINGS):
    images, labels = stripes
    model, shares = architectures.build("small-cnn", 1, 2, 4, seed=0), []
    loss = vanilla.fit(
        model, images, np.arange(64), labels, settings, seed=seed, callbacks=[ProgressCallback(shares.append)]
    )
    return model, loss, shares


@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
def test_learns(stripes, schedule):
    model, loss, shares = fit(stripes, settings=Settings(6, 0.1, 16, schedule))
    assert (predict(model, stripes[0]).argmax(axis=1) == stripes[1]).mean() == 1
    assert loss < 0.3
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_same_seed_gives_the_same_weights(stripes):
    one, two, other = (fit(stripes, seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_dropout_too_is_drawn_by_the_seed(stripes):
    images, labels = stripes
    found = []
    for before in (0, 1):
        torch.manual_seed(before)  # whatever was drawn before
        model = architectures.build("small-cnn", 1, 2, 4, seed=0, dropout=0.5)
        vanilla.fit(model, images, np.arange(64), labels, SETTINGS, seed=3)
        found.append((model.state_dict(), torch.rand(1)))
    (one, drawn), (two, other) = found
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert drawn != other  # and the training leaves the global generator alone


def test_augmentation_is_a_flip_and_a_shifted_crop():
    """Each result is a crop of the padded image or of its mirror, each row and column in order."""
    x = torch.arange(1.0, 1 + 64 * 8 * 8).reshape(64, 1, 8, 8)
    out = fitting.augment(x, torch.Generator().manual_seed(0))
    pad = 1  # 4 pixels for 32 × 32
    padded = torch.nn.functional.pad(x, (pad,) * 4)
    seen = set()
    for n in range(64):
        matches = [
            (flip, i, j)
            for flip in (False, True)
            for i in range(3)
            for j in range(3)
            if torch.equal(
                out[n], (padded[n, :, i : i + 8, j : j + 8].flip(2) if flip else padded[n, :, i : i + 8, j : j + 8])
            )
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 10


def test_augmentation_flips_crops_does_both_or_leaves_images_alone():
    x = torch.arange(1.0, 1 + 64 * 8 * 8).reshape(64, 1, 8, 8)
    found = {
        how: fitting.augment(x, torch.Generator().manual_seed(0), how) for how in ("flip-crop", "flip", "crop", "none")
    }
    assert torch.equal(found["none"], x)
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(found["flip"], x, strict=True)]
    assert all(flip or torch.equal(a, b) for flip, a, b in zip(flipped, found["flip"], x, strict=True))
    assert 10 < sum(flipped) < 54
    assert not torch.equal(found["crop"], found["flip-crop"])
    for image in found["crop"]:
        kept = image[image > 0]
        assert torch.equal(kept, kept.sort().values)  # nothing is mirrored


def test_one_image_left_over_in_a_batch_is_no_error(stripes):
    images, labels = stripes
    model, shares = architectures.build("resnet18", 1, 2, 2, seed=0), []
    vanilla.fit(
        model,
        images,
        np.arange(17),
        labels[:17],
        Settings(2, 0.01, 16, "step"),
        seed=0,
        callbacks=[ProgressCallback(shares.append)],
    )
    assert shares == [0.5, 1]


def test_divergence_and_emptiness_are_the_users_errors(stripes):
    with pytest.raises(UserError, match="lower learning rate"):
        fit(stripes, settings=Settings(6, 1e25, 16, "step"))
    with pytest.raises(UserError, match="no labelled sample"):
        vanilla.fit(
            architectures.build("small-cnn", 1, 2, 4, 0), stripes[0], np.arange(0), np.arange(0), SETTINGS, seed=0
        )


class Echo(torch.nn.Module):
    """A companion that asks the last stage to be small, and remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.scale, self.shares = torch.nn.Parameter(torch.ones(())), []

    def loss(self, stages, losses, share):
        assert losses.shape == (len(stages[-1]),)
        assert not losses.requires_grad
        self.shares.append(share)
        return self.scale.square() * stages[-1].square().mean()


def test_a_companion_is_trained_with_the_model_and_told_how_far_it_has_come(stripes):
    images, labels = stripes
    found = {}
    for companion in (None, Echo()):
        model = architectures.build("small-cnn", 1, 2, 4, seed=0)
        vanilla.fit(model, images, np.arange(64), labels, SETTINGS, seed=0, companion=companion)
        found[companion is not None] = model.state_dict()["body.0.0.weight"]
    assert not torch.equal(found[False], found[True])
    assert companion.scale.item() < 1
    assert companion.shares == [step / 24 for step in range(24)]


def test_a_frozen_model_is_left_as_it_is_while_its_companion_learns(stripes):
    images, labels = stripes
    model, companion = architectures.build("small-cnn", 1, 2, 4, seed=0), Echo()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    vanilla.fit(model, images, np.arange(64), labels, SETTINGS, seed=0, companion=companion, frozen=True)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert companion.scale.item() < 1
    assert set(companion.shares) == {1.0}


# Masks


@pytest.fixture(scope="module")
def discs():
    """24 images of 24 × 20 with a bright disc: class 1, a dim band above: class 2, a margin below: void, the rest: class 0."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:24, :20]
    masks = np.zeros((24, 24, 20), dtype=np.int64)
    for mask, (top, left) in zip(masks, rng.integers((9, 5), (20, 14), (24, 2)), strict=True):
        mask[(y - top) ** 2 + (x - left) ** 2 < 16] = 1
    masks[:, :5] = 2
    masks[:, -2:] = -1
    images = np.array([30, 220, 120, 30])[masks][..., None] + rng.integers(-20, 20, (*masks.shape, 1))
    images = images.astype(np.uint8)
    return Images(images, *channel_statistics(images), torch.device("cpu")), masks


def fit_masks(discs, seed=0, companion=None, **settings):
    images, masks = discs
    model, shares = architectures.build("small-unet", 1, 3, 4, seed=0), []
    settings = Settings(**{"epochs": 1, "lr": 0.1, "batch_size": 8, "schedule": "one-cycle", "steps": 40, **settings})
    loss = vanilla.fit(
        model,
        images,
        np.arange(24),
        masks,
        settings,
        seed=seed,
        companion=companion,
        callbacks=[ProgressCallback(shares.append)],
    )
    return model, loss, shares


@pytest.mark.parametrize("weights", ["none", "inverse-frequency", "median-frequency"])
def test_masks_are_learnt_in_so_many_steps(discs, weights):
    model, loss, shares = fit_masks(discs, class_weights=weights)
    found = np.concatenate([p.argmax(axis=1) for _, p in maps(model, discs[0])])
    each = metrics.iou(metrics.confusion(discs[1], found, 3).sum(axis=0))
    assert each.min() > 0.6, each
    assert len(shares) == 40
    assert shares[-1] == 1
    assert loss < 0.5


def test_masks_too_are_learnt_the_same_by_the_same_seed(discs):
    one, two, other = (fit_masks(discs, seed, steps=4)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_what_void_pixels_hold_in_the_mask_is_not_learnt_from(discs):
    """The loss of an image is the mean over its known pixels, whatever the others look like to the network."""
    logits, masks = torch.randn(3, 4, 5, 6), torch.randint(0, 4, (3, 5, 6))
    masks[0, 2:], masks[2] = -1, -1
    found = fitting.sample_losses(logits, masks)
    each = torch.nn.functional.cross_entropy(logits, masks.clamp_min(0), reduction="none")
    torch.testing.assert_close(found, torch.stack([each[0, :2].mean(), each[1].mean(), torch.zeros(())]))
    weights = torch.tensor([1.0, 2.0, 0.0, 5.0])
    weighted = fitting.sample_losses(logits, masks, weights)
    torch.testing.assert_close(weighted[1], (each[1] * weights[masks[1]]).mean())


def test_the_loss_is_that_whose_gradient_is_measured():
    logits, masks = torch.randn(3, 4, 5, 6), torch.randint(-1, 4, (3, 5, 6))
    torch.testing.assert_close(fitting.sample_losses(logits, masks), sample_loss(logits, "label", masks))


def test_class_weights_by_hand():
    """Class 0 has 6 of 9 known pixels, of 12 where it is; class 1 has 3 of 9, 1 image of 4 known pixels; class 2 none."""
    masks = np.array([[[0, 0, 0], [0, 0, -1]], [[1, 1, 1], [0, -1, -1]]])
    assert fitting.class_weights(masks, 3, "none") is None
    np.testing.assert_allclose(fitting.class_weights(masks, 3, "inverse-frequency"), [9 / 12, 9 / 6, 0])
    median = (6 / 9 + 3 / 4) / 2
    np.testing.assert_allclose(
        fitting.class_weights(masks, 3, "median-frequency"), [median / (6 / 9), median / (3 / 4), 0], rtol=1e-6
    )


def test_an_image_and_its_mask_move_together():
    """An image of its own coordinates, which interpolation leaves exact, tells from where each pixel of the mask must be."""
    height, width = 30, 40
    places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    x, masks = places.float().expand(64, -1, -1, -1), (places[0] * width + places[1]).expand(64, -1, -1)
    moved, found = fitting.augment_masks(x, masks, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    assert found.dtype == torch.int64
    row, column = found // width, found % width
    within = (
        (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    )  # beyond, pixels are mixed with the margin
    for of, part in ((moved[:, 0], row), (moved[:, 1], column)):
        assert ((of - part)[within].abs() < 0.501).all()
    void = (found < 0).flatten(1).float().mean(dim=1)
    assert 0.3 < (void > 0).float().mean() < 0.6  # those that were shrunk
    assert void.max() < 0.5
    assert (moved[:, 0][found < 0] == 0).float().mean() > 0.8  # but for half a pixel at the edge
    steps = moved[:, 1, 15, 20] - moved[:, 1, 15, 19]
    assert 10 < (steps < 0).sum() < 54  # mirrored
    assert steps.abs().min() > 0.66
    assert steps.abs().max() < 1.34


def test_images_and_masks_may_stay_as_they_are():
    x, masks = torch.randn(4, 1, 6, 6), torch.randint(-1, 3, (4, 6, 6))
    moved, found = fitting.augment_masks(x, masks, torch.Generator().manual_seed(0), "none")
    assert torch.equal(moved, x)
    assert torch.equal(found, masks)


def test_flips_alone_are_exact():
    x, masks = torch.randn(32, 2, 5, 6), torch.randint(-1, 3, (32, 5, 6))
    moved, found = fitting.augment_masks(x, masks, torch.Generator().manual_seed(1), "flip")
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(moved, x, strict=True)]
    assert 5 < sum(flipped) < 27
    for flip, image, mask, own, given in zip(flipped, moved, found, x, masks, strict=True):
        assert torch.equal(image, own.flip(2) if flip else own)
        assert torch.equal(mask, given.flip(1) if flip else given)


def test_a_companion_learns_from_the_stages_of_a_network_of_masks(discs):
    companion = Echo()
    fit_masks(discs, companion=companion, steps=5)
    assert companion.shares == [step / 5 for step in range(5)]
    assert companion.scale.item() < 1


def test_a_number_of_steps_may_end_within_an_epoch(stripes):
    """Of classes too: 4 batches an epoch, 10 steps."""
    shares, images, labels = [], *stripes
    model, settings = architectures.build("small-cnn", 1, 2, 4, seed=0), Settings(99, 0.1, 16, "one-cycle", steps=10)
    vanilla.fit(model, images, np.arange(64), labels, settings, seed=0, callbacks=[ProgressCallback(shares.append)])
    assert shares == [step / 10 for step in range(1, 11)]
