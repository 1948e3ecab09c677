"""The simulated draw of votes: which label does an annotator give when asked once more?

Every random number is a function of (seed, sample, which vote), never of the order of the calls: the k-th vote of a
sample is the same whichever policy asks for it, and a killed run resumes bit for bit.
"""

import numpy as np

from data.errors import UserError
from data.lazy import LazyImages

INITIAL = 2**32  # the "vote" that is the first, noisy label; relabels count 0, 1, 2, …
REPLACED = 2**32 + 1  # and the two numbers that symmetric noise takes: is it replaced, by which class
REPLACEMENT = 2**32 + 2
ORDER = 2**32 + 3  # a sample's place in a random order
FLIP_RATE = 2**32 + 4  # of instance-dependent noise: how easily a sample is mistaken
AUDIT = 2**32 + 5  # a sample's place in the random order in which labels are checked to estimate how many are right

NOISE_KINDS = {  # and what a wrong label is by each
    "symmetric": "any other class, each as likely",
    "asymmetric": "a similar class",
    "instance": "by what the image looks like",
}
CONFUSIONS = {  # of CIFAR-10's classes, as Patrini et al. 2017 choose them
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}
FLIP_SPREAD = 0.1  # standard deviation of the flip rates, as Xia et al. 2020
CHUNK = 1024  # images projected at a time

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the constants of SplitMix64 (Steele, Lea & Flood 2014)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: uint64 -> uint64, one to one, every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    return np.asarray(x ^ (x >> np.uint64(31)))


def uniforms(seed: int, sample: np.ndarray, draw: np.ndarray | int) -> np.ndarray:
    """Uniform numbers in [0, 1), one for each (sample, draw): float64 of the two broadcast together.

    seed: 0 <= seed < 2^64; sample, draw: non-negative integers. Each number is a hash of the three.
    """
    state = np.array([seed], np.uint64)
    for key in (sample, draw):
        key = np.atleast_1d(key).astype(np.uint64)  # never a scalar: numpy warns when one wraps round, as it must here
        state = _mix((state + GOLDEN) ^ _mix(key + GOLDEN))
    bits: np.ndarray = state.reshape(np.broadcast_shapes(np.shape(sample), np.shape(draw)))
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def random_order(n: int, seed: int) -> np.ndarray:
    """A random permutation of 0 … n - 1: int64 [n]; unlike numpy's generators, the same in every version of numpy."""
    return np.argsort(uniforms(seed, np.arange(n), ORDER), kind="stable")


def _invert(weights: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The class at the share u of the cumulated weights: int64 [A,D] from weights [A,C] and u [A,D] in [0, 1)."""
    cumulated = np.cumsum(weights, axis=1, dtype=np.float64)  # [A,C]
    target = u * cumulated[:, -1:]
    # Rounding may lift the target onto the total itself; the last class with any weight is the answer then.
    last = cumulated.shape[1] - 1 - np.argmax(weights[:, ::-1] > 0, axis=1)
    passed = np.zeros(u.shape, np.int64)
    for k in range(cumulated.shape[1]):
        passed += cumulated[:, k : k + 1] <= target
    return np.minimum(passed, last[:, None])


def draw_votes(label_counts: np.ndarray, seed: int, sample: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Votes from the true label distributions of some samples: int64 [A,D].

    label_counts: [A,C], the rows of the samples asked · sample: int [A], their positions in the whole pool · draw: int
    [D] or, different for each sample, [A,D]: which votes (0 is the first relabel).
    """
    return _invert(label_counts, uniforms(seed, np.asarray(sample)[:, None], np.atleast_2d(draw)))


def temper(label_counts: np.ndarray, temperature: float) -> np.ndarray:
    """Distributions proportional to counts^(1/T): float64 [N,C]; a class without votes keeps none.

    T = 1 gives the shares of the votes, a higher T flattens them: noise where people disagree, none where all agree.
    """
    if not temperature > 0:
        raise UserError(f"the temperature must be positive, got {temperature}")
    shares = label_counts / label_counts.max(axis=1, keepdims=True)  # at most 1, so that a low T cannot overflow
    weights = np.where(label_counts > 0, shares ** (1 / temperature), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def initial_labels(label_counts: np.ndarray, temperature: float, seed: int) -> np.ndarray:
    """One noisy label a sample, drawn from the tempered counts: int64 [N] from label_counts [N,C]."""
    weights = temper(label_counts, temperature)
    return _invert(weights, uniforms(seed, np.arange(len(weights)), INITIAL)[:, None])[:, 0]


def expected_noise(label_counts: np.ndarray, temperature: float) -> float:
    """The expected share of initial labels that differ from the true majority (the first, when two classes tie)."""
    majority = np.argmax(label_counts, axis=1)[:, None]
    return float(1 - np.take_along_axis(temper(label_counts, temperature), majority, axis=1).mean())


def temperature_for(label_counts: np.ndarray, noise: float) -> float:
    """The temperature whose expected noise is `noise`; it grows with the temperature, so halving finds it.

    Raises UserError when no temperature reaches it: a sample on which all agree never becomes noisy.
    """
    low, high = 1e-3, 1e6
    reachable = expected_noise(label_counts, low), expected_noise(label_counts, high)
    if not reachable[0] <= noise <= reachable[1]:
        raise UserError(
            f"a noise rate of {noise:g} cannot be drawn from these annotations; "
            f"choose between {reachable[0]:.3f} and {reachable[1]:.3f}"
        )
    for _ in range(60):
        middle = (low * high) ** 0.5  # on a logarithmic scale: the range spans nine decades
        low, high = (middle, high) if expected_noise(label_counts, middle) < noise else (low, middle)
    return high


def ambiguous(label_counts: np.ndarray, threshold: float = 0.30) -> np.ndarray:
    """Whether people really disagree: entropy of the votes, to base C, above the threshold. bool [N] from [N,C]."""
    p = temper(label_counts, 1.0)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1) / np.log(p.shape[1])
    return np.asarray(entropy > threshold)


def symmetric_noise(labels: np.ndarray, n_classes: int, noise: float, seed: int) -> np.ndarray:
    """Labels of which a share `noise` is replaced by another class, each as likely: int64 [N] from labels [N].

    Unknown labels (-1) stay unknown.
    """
    _check_rate(noise)
    labels, sample = np.asarray(labels, np.int64), np.arange(len(labels))
    step = 1 + (uniforms(seed, sample, REPLACEMENT) * (n_classes - 1)).astype(np.int64)  # 1 … n_classes - 1
    replaced = (uniforms(seed, sample, REPLACED) < noise) & (labels >= 0)
    return np.where(replaced, (labels + step) % n_classes, labels)


def asymmetric_noise(labels: np.ndarray, class_names: list[str], noise: float, seed: int) -> np.ndarray:
    """Labels of which a share `noise` is mistaken for a similar class: int64 [N] from labels [N]; unknown ones stay.

    CIFAR-10's classes are confused as in Patrini et al. 2017 (truck for automobile, bird for airplane, deer for horse, cat
    and dog for each other), others with the next class. `noise` is the share of all labels: where few classes can be
    confused, each of theirs is the likelier to be. Raises UserError for a share that these classes cannot reach.
    """
    labels = np.asarray(labels, np.int64)
    target = (np.arange(len(class_names)) + 1) % len(class_names)
    if set(CONFUSIONS) | set(CONFUSIONS.values()) <= set(class_names):
        target = np.array([class_names.index(CONFUSIONS.get(name, name)) for name in class_names])
    known = labels >= 0
    confused = known & (target[labels] != labels)
    most = confused.sum() / max(1, known.sum())
    if not 0 <= noise <= most:
        raise UserError(
            f"asymmetric noise of {noise:g} cannot be had: {most:.3f} of the labels are of a class that is mistaken for "
            f"another; choose between 0 and {most:.3f}"
        )
    replaced = confused & (uniforms(seed, np.arange(len(labels)), REPLACED) * most < noise)
    return np.where(replaced, target[labels], labels)


def instance_noise(
    images: np.ndarray | LazyImages, labels: np.ndarray, n_classes: int, noise: float, seed: int
) -> np.ndarray:
    """Labels of which a share `noise` is wrong in ways that depend on the image: int64 [N]; unknown ones stay.

    Xia et al., NeurIPS 2020, Algorithm 2: how easily a sample is mistaken, its flip rate, is drawn from a normal
    distribution around `noise` (s.d. 0.1, cut to [0, 1]); for which class, from the softmax of its pixels' projections on
    random directions, one a class, other ones for every true class. images: uint8 [N,H,W,C].

    Unlike there, the pixels of an image are standardised, or else its brightness would decide; and the flip rates are
    brought to `noise` by one factor, so that the share is met to within a sample. Raises UserError for a rate outside
    [0, 1].
    """
    from scipy.stats import truncnorm  # half a second, which most loads do without

    _check_rate(noise)
    labels, size = np.asarray(labels, np.int64), int(np.prod(images.shape[1:]))
    known = np.flatnonzero(labels >= 0)
    ends = (0 - noise) / FLIP_SPREAD, (1 - noise) / FLIP_SPREAD
    rate = truncnorm.ppf(uniforms(seed, known, FLIP_RATE), *ends, loc=noise, scale=FLIP_SPREAD)
    # Flipped are those of u < f · rate; the factor f that flips the right number is a quantile of u / rate.
    ease = uniforms(seed, known, REPLACED) / np.maximum(rate, 1e-12)
    flipped = known[np.argsort(ease, kind="stable")[: round(noise * len(known))]]

    noisy, rng = labels.copy(), np.random.default_rng(seed)
    for k in range(n_classes):
        directions = rng.standard_normal((size, n_classes), np.float32)
        mine = np.sort(flipped[labels[flipped] == k])
        for rows in np.split(mine, range(CHUNK, len(mine), CHUNK)):
            pixels = images[rows].reshape(len(rows), size).astype(np.float32)
            pixels -= pixels.mean(axis=1, keepdims=True)
            pixels /= np.maximum(pixels.std(axis=1, keepdims=True), 1.0)  # an image of one grey stays 0
            scores = (pixels @ directions).astype(np.float64)
            scores[:, k] = -np.inf
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            noisy[rows] = _invert(shares, uniforms(seed, rows, REPLACEMENT)[:, None])[:, 0]
    return noisy


def _check_rate(noise: float) -> None:
    if not 0 <= noise <= 1:
        raise UserError(f"the noise rate must lie between 0 and 1, got {noise:g}")


def inject(
    kind: str,
    images: np.ndarray | LazyImages,
    labels: np.ndarray,
    class_names: list[str],
    noise: float,
    seed: int,
) -> np.ndarray:
    """Wrong labels of one of `NOISE_KINDS` put among right ones, a share `noise` of all that are known: int64 [N].

    Arguments and errors are those of the function of that kind.
    """
    if kind == "symmetric":
        return symmetric_noise(labels, len(class_names), noise, seed)
    if kind == "asymmetric":
        return asymmetric_noise(labels, class_names, noise, seed)
    if kind == "instance":
        return instance_noise(images, labels, len(class_names), noise, seed)
    raise UserError(f"there is no noise {kind!r}; choose from {', '.join(NOISE_KINDS)}")
