"""Plain training: it learns, repeats under a seed, and says when it cannot."""

import numpy as np
import pytest
import torch

from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.models.forward import predict
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
