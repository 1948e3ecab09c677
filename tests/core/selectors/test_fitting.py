"""Callbacks of the training loop: progress, the log of epochs, early stopping, and going on where a killed training was."""

import json

import numpy as np
import pytest
import torch

from core.models.batches import Images, channel_statistics
from core.models.forward import predict
from core.selectors import Settings, Shape, co_teaching, elr, fitting, vanilla
from core.selectors.fitting import Callback, Checkpoint, EarlyStopping, Logger, ProgressCallback


class Killed(Exception):
    """The process dies."""


class KilledAfter(Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, training):
        if training.epoch == self.epochs:
            raise Killed


class Watch(Callback):
    """Remembers what it was told."""

    def __init__(self):
        self.told = []

    def on_train_begin(self, training):
        self.told.append(("train begins", training.epoch))

    def on_batch_end(self, training):
        self.told.append(("batch", training.step))

    def on_epoch_end(self, training):
        self.told.append(("epoch", training.epoch))

    def on_train_end(self, training):
        self.told.append(("train ends", training.epoch))


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    return Images(images, *channel_statistics(images), torch.device("cpu")), np.arange(24) % 3


def trained(pool, *callbacks, selector=vanilla, schedule="one-cycle", epochs=4, dropout=0.0):
    """Weights and loss of a training on 24 images in batches of 12."""
    images, labels = pool
    model = selector.SELECTOR.build(Shape("small-cnn", 4, 1, 3, seed=0, dropout=dropout))
    settings = Settings(epochs, 0.05, 12, schedule)
    loss = selector.SELECTOR.fit(model, images, np.arange(24), labels, settings, seed=1, noise=0.2, callbacks=callbacks)
    return {name: t.clone() for name, t in model.state_dict().items()}, loss


def assert_equal(one, other):
    assert one[1] == other[1]
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def test_a_callback_is_told_of_every_step_in_order(pool):
    watch, shares = Watch(), []
    trained(pool, watch, ProgressCallback(shares.append), epochs=2)
    epoch = [("batch", 1), ("batch", 2)]
    assert watch.told == [("train begins", 0), *epoch, ("epoch", 1), *epoch, ("epoch", 2), ("train ends", 2)]
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_watching_changes_nothing(pool, tmp_path):
    watched = trained(pool, Watch(), Logger(tmp_path / "log"), EarlyStopping(9), Checkpoint(tmp_path / "kept", "a"))
    assert_equal(trained(pool), watched)


def test_the_log_has_a_line_per_epoch(pool, tmp_path):
    (tmp_path / "epochs.jsonl").write_text("of an attempt that was interrupted")
    _, loss = trained(pool, Logger(tmp_path / "epochs.jsonl"), epochs=3)
    lines = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] == loss
    assert lines[0]["lr"] > lines[-1]["lr"] > 0
    assert lines[0]["seconds"] <= lines[-1]["seconds"]


def test_a_log_that_cannot_be_written_ends_no_training(pool, tmp_path):
    trained(pool, Logger(tmp_path / "no such folder" / "epochs.jsonl"), Checkpoint(tmp_path / "nor this" / "x", "a"))


@pytest.mark.parametrize(("scores", "epochs"), [
    ([3, 2, 1, 9], 3),  # two epochs without a better one
    ([1, 2, 2, 3, 3, 3], 6),  # an equal one is none
    ([1, 2, 3, 4, 5, 6, 7, 8], 8),
])  # fmt: skip
def test_a_training_that_gets_no_better_stops(pool, scores, epochs):
    watch = Watch()
    trained(pool, EarlyStopping(2, iter(map(float, scores)).__next__), watch, epochs=8)
    assert watch.told[-1] == ("train ends", epochs)


def test_by_its_own_loss_a_training_stops_where_it_learns_nothing(pool):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

    learns, stands = Watch(), Watch()
    trained(pool, EarlyStopping(2), learns, epochs=8)
    part, settings, images = Constant(), Settings(8, 1e-12, 12, "constant"), pool[0]
    watching = [EarlyStopping(2), stands]
    fitting.run([part], images, np.arange(24), settings, lambda *_: part.weight + 1, seed=0, callbacks=watching)
    assert learns.told[-1] == ("train ends", 8)
    assert stands.told[-1] == ("train ends", 3)


def test_a_score_on_held_out_images_leaves_the_training_as_it_was(pool):
    images, labels = pool
    model = vanilla.build(Shape("small-cnn", 4, 1, 3, seed=0))

    def accuracy():
        return float((predict(model, images).argmax(axis=1) == labels).mean())

    settings = Settings(4, 0.05, 12, "one-cycle")
    loss = vanilla.fit(model, images, np.arange(24), labels, settings, seed=1, callbacks=[EarlyStopping(9, accuracy)])
    assert_equal(trained(pool), (model.state_dict(), loss))


@pytest.mark.parametrize("selector", [vanilla, co_teaching, elr], ids=lambda module: module.__name__.rpartition(".")[2])
@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_killed_training_goes_on_from_its_last_epoch_bit_for_bit(pool, tmp_path, selector, schedule, dropout):
    how = {"selector": selector, "schedule": schedule, "dropout": dropout}
    whole, kept = trained(pool, **how), tmp_path / "training.pt"
    watch, log = Watch(), Logger(tmp_path / "epochs.jsonl")
    for after in (1, 3):
        with pytest.raises(Killed):
            trained(pool, Checkpoint(kept, "a"), log, KilledAfter(after), **how)
    assert_equal(trained(pool, Checkpoint(kept, "a"), log, watch, **how), whole)
    assert len((tmp_path / "epochs.jsonl").read_text().splitlines()) == 4
    assert [told for told in watch.told if told[0] == "epoch"] == [("epoch", 4)]
    assert not kept.exists()


@pytest.mark.parametrize("spoil", [
    lambda path: None,  # of another training
    lambda path: path.write_bytes(path.read_bytes()[:100]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("no checkpoint"),
    lambda path: torch.save([1], path),
])  # fmt: skip
def test_a_checkpoint_that_is_damaged_or_of_another_training_is_not_used(pool, tmp_path, spoil):
    kept, watch = tmp_path / "training.pt", Watch()
    with pytest.raises(Killed):
        trained(pool, Checkpoint(kept, "a"), KilledAfter(2))
    spoil(kept)
    assert_equal(trained(pool, Checkpoint(kept, "b"), watch), trained(pool))
    assert watch.told[0] == ("train begins", 0)


def test_a_checkpoint_is_kept_every_few_epochs(pool, tmp_path):
    kept, watch = tmp_path / "training.pt", Watch()
    with pytest.raises(Killed):
        trained(pool, Checkpoint(kept, "a", every=2), KilledAfter(3))
    trained(pool, Checkpoint(kept, "a", every=2), watch)
    assert watch.told[:2] == [("train begins", 2), ("batch", 1)]


def test_the_best_weights_are_kept_by_a_training_that_stops(pool):
    """The score falls from the second epoch on, so that the training ends with the weights of the first."""
    scores = iter([3.0, 2.0, 1.0])
    first = trained(pool, epochs=4, schedule="constant")[0]
    after_one = {}

    class Remember(Callback):
        def on_epoch_end(self, training):
            if training.epoch == 1:
                after_one.update({name: t.clone() for name, t in training.parts[0].state_dict().items()})

    stopped = trained(
        pool, Remember(), EarlyStopping(2, lambda: next(scores), restore=True), epochs=4, schedule="constant"
    )[0]
    assert all(torch.equal(t, after_one[name]) for name, t in stopped.items())
    assert not all(torch.equal(t, first[name]) for name, t in stopped.items())
