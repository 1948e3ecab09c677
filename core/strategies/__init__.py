"""Acquisition strategies: which samples to label next.

One a file, named as its strategy, each with a function `score(pool) -> float64 [n]`, high first, over the n unlabelled
samples, and its `STRATEGY`, which says what it needs from training. The engine takes the K best. A strategy that
chooses a set, one sample in view of those before, scores by the place in its choice.
"""

from importlib import import_module

from core.strategies.pool import Strategy

STRATEGIES = (
    "random",
    "mc-dropout",
    "core-set",
    "vaal",
    "ll4al",
    "sraal",
    "expected-gradnorm",
    "entropy-gradnorm",
    "egl",
    "badge",
    "margin",
)


def load(name: str) -> Strategy:
    """The strategy of this name. Imported when asked for: some need torch, which most commands and all pages do without."""
    strategy: Strategy = import_module(f"core.strategies.{name.replace('-', '_')}").STRATEGY
    return strategy
