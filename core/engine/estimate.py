"""How long a run will take on this machine: a few steps and a few images are measured, the rest is counted."""

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.engine.learner import WHOLE, Learner
from core.engine.maps import LEARNERS
from core.models.forward import at_once, place
from core.runs import questions
from core.runs.spec import Config
from core.selectors.fitting import Callback, Training, steps_per_epoch
from data.dataset import ImageDataset

STEPS = 3  # measured, the first of which also allocates memory
BATCH = 32  # images of a measured step: a larger one takes in proportion
ASKED = 32  # images that the model is asked about
HEAD = 3.0  # seconds that a linear head takes at a few thousand labels


@dataclass(frozen=True)
class Estimate:
    """Seconds on this machine. first: of cycle 0 · total: of all cycles · step: of a measured gradient step of `batch` images,
    0 where there is none · image: of looking at one image, for its score too."""

    first: float
    total: float
    step: float
    batch: int
    image: float

    def __str__(self) -> str:
        measured = f"{1000 * self.image:.1f} ms an image to score"
        if self.step:
            measured += f", {1000 * self.step:.0f} ms a step of {self.batch} images to train"
        return (
            f"about {duration(self.total)}, of which {duration(self.first)} for the first cycle (measured: {measured})"
        )


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(config: Config, dataset: ImageDataset) -> Estimate:
    """What training and scoring would take; what a strategy or selector trains beside the model is not counted.

    Raises `UserError` as `Learner.build`.
    """
    with tempfile.TemporaryDirectory() as folder:
        learner = LEARNERS[dataset.answer](config, dataset, Path(folder))
        model = place(learner.build(0), learner.device).eval()
        rows = np.arange(min(len(dataset), ASKED))
        strategy = questions.of(config, dataset).strategy
        scorer = learner.scorer(model, None)

        def look() -> None:
            with torch.no_grad():
                for _, x in learner.pool.batches(rows, at_once(scorer.model, learner.pool, ASKED)):
                    scorer.model.embed(x)
            if strategy is not None and strategy.loss is not None and not learner.fixed:
                scorer.gradient_norms(rows[::-1] if looked else rows, strategy.loss, config.reduction)

        looked: list[float] = []
        for _ in range(2):  # the second time everything is in place
            began = time.perf_counter()
            look()
            looked.append(time.perf_counter() - began)
        image = looked[-1] / max(1, len(rows))
        step, batch = 0.0, min(config.batch_size, BATCH, len(dataset))
        if not learner.fixed:
            step = _step(learner, batch)
    pool, test = len(dataset), len(dataset.test_labels)
    parts = len(learner.parts)
    if learner.fixed:  # every image is seen once, by the network that all parts share
        first = image * (pool + test) + HEAD * parts
        return Estimate(first, first + HEAD * parts * (config.cycles - 1), step, batch, image)
    seconds = []
    for cycle in range(config.cycles):
        n = pool if config.question.checks else min(pool, config.initial + cycle * config.budget)
        settings = learner.settings(cycle, n)
        steps = settings.steps or settings.epochs * steps_per_epoch(n, config.batch_size)
        trained = 0.0 if config.static and cycle else step * config.batch_size / batch * steps
        seconds.append(parts * (trained + image * (pool + test)))
    return Estimate(seconds[0], sum(seconds), step, batch, image)


class _Clock(Callback):
    """When each batch was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_batch_end(self, training: Training) -> None:
        self.times.append(time.perf_counter())


def _step(learner: Learner, batch: int) -> float:
    """Seconds of a gradient step of so many images, the quickest of a few."""
    rows = np.arange(batch)
    model, clock = learner.build(0, WHOLE), _Clock()
    settings = dataclasses.replace(learner.settings(0, batch), epochs=STEPS, steps=None, batch_size=batch)
    labels = learner.example_labels(batch)
    began = time.perf_counter()
    learner.selector.fit(model, learner.pool, rows, labels, settings, seed=0, noise=0.0, callbacks=[clock])
    return float(np.diff([began, *clock.times])[1:].min())
