"""The contract that every selector keeps, on images of the embedded set."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import data
from core import selectors
from core.models import architectures
from core.models.batches import Images, channel_statistics
from core.models.forward import place, predict
from core.selectors import CATALOGUE, Selector, Settings, Shape, linear
from data.errors import UserError

TRAINED = [name for name in CATALOGUE if selectors.load(name).trains]
SHAPE = Shape("small-cnn", width=8, channels=1, n_classes=10, seed=0)
SETTINGS = Settings(epochs=6, lr=0.05, batch_size=32, schedule="one-cycle")


@pytest.fixture(scope="module")
def pool():
    return data.load("fashion", limit=300)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights for the pretrained network: the contract is about the head, not about ImageNet."""
    from data.torchvision_import import torchvision

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), path)
    return str(path)


@pytest.fixture(autouse=True)
def small_side(monkeypatch):
    """Images are not blown up for the pretrained network, which takes most of the time otherwise."""
    monkeypatch.setattr(architectures, "SIDE", 32)


def shape(weights: str, **changes) -> Shape:
    return Shape(**{**vars(SHAPE), "weights": weights, **changes})


def images(name: str, pool) -> Images:
    return Images(
        pool.images, *(selectors.load(name).statistics or channel_statistics)(pool.images), torch.device("cpu")
    )


def trained(name: str, pool, weights: str, seed: int = 0, dropout: float = 0.0) -> architectures.Model:
    """A selector trained as the engine does it."""
    selector, given, rows = selectors.load(name), images(name, pool), np.arange(len(pool))
    model = place(selector.build(shape(weights, seed=seed, dropout=dropout)), torch.device("cpu"))
    if selector.prepare is not None:
        selector.prepare(model, given, Settings(2, 0.05, 64, "one-cycle"), seed=seed)
    if selector.prepared:
        linear.fit(model, embeddings(model, given), pool.labels, seed=seed)
    else:
        selector.fit(model, given, rows, pool.labels, SETTINGS, seed=seed, noise=0.1)
    return model.eval()


def embeddings(model: architectures.Model, given: Images) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model.eval().embed(x) for _, x in given.batches(np.arange(len(given)), 100)])


@pytest.mark.parametrize("name", TRAINED)
def test_a_selector_learns_and_repeats_bit_for_bit(name, pool, weights):
    before = torch.random.get_rng_state()
    first, second = (trained(name, pool, weights) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    probs = predict(first, images(name, pool))
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert (probs.argmax(axis=1) == pool.labels).mean() > 0.35  # chance is 0.1


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "pretrained"])
def test_another_seed_gives_another_model(name, pool, weights):
    a, b = trained(name, pool, weights, seed=0), trained(name, pool, weights, seed=1)
    assert not np.array_equal(predict(a, images(name, pool)), predict(b, images(name, pool)))


@pytest.mark.parametrize("name", TRAINED)
def test_a_posterior_survives_its_file_and_comes_from_embed_and_classify(name, pool, weights):
    model, given = trained(name, pool, weights, dropout=0.25), images(name, pool)
    copy = selectors.load(name).build(shape(weights, seed=9, dropout=0.25))
    copy.load_state_dict(load(save({key: t.contiguous() for key, t in model.state_dict().items()})))
    place(copy, torch.device("cpu"))
    probs = predict(model, given)
    np.testing.assert_allclose(predict(copy, given), probs, atol=1e-6)
    with torch.no_grad():
        again = model.classify(embeddings(model, given)).softmax(dim=1).numpy()
    np.testing.assert_allclose(again, probs, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_dropout_acts_before_the_head_alone(name, pool, weights):
    model = selectors.load(name).build(shape(weights, dropout=0.5)).eval()
    x = images(name, pool)[np.arange(4)]
    with torch.no_grad():
        embedding = model.embed(x)
        assert torch.equal(model.classify(embedding), model.classify(embedding))
        model.dropout.train()
        assert torch.equal(model.embed(x), embedding)
        assert not torch.equal(model.classify(embedding), model.classify(embedding))


def test_a_selector_that_trains_says_how():
    with pytest.raises(ValueError, match="says how: build and fit"):
        Selector(name="mine", title="Mine")


def test_an_unknown_selector_is_named():
    with pytest.raises(UserError, match='no selector "simclr"'):
        selectors.load("simclr")


@pytest.mark.parametrize("name", TRAINED)
def test_a_loss_that_is_not_finite_and_nothing_to_learn_from_are_said(name, pool, weights):
    selector, given = selectors.load(name), images(name, pool)
    model, wild = selector.build(shape(weights)), Settings(2, 1e9, 32, "constant")
    with pytest.raises(UserError, match="diverged"):
        selector.fit(model, given, np.arange(100), pool.labels[:100], wild, seed=0, noise=0.1)
    with pytest.raises(UserError, match="no labelled sample"):
        selector.fit(model, given, np.arange(0), pool.labels[:0], SETTINGS, seed=0, noise=0.1)
