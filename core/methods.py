"""All that describes itself, in one place for pages, figures, files and the command line: listed without torch."""

from collections.abc import Mapping

import data
from core import label_scores, models, selectors, strategies
from core.described import Method, Score

__all__ = ["described", "drawn", "label_scores", "models", "refused", "scores", "selectors", "strategies"]

# What a run of active learning measures beside its strategy, with `evidence`
EVIDENCE = {
    score.name: score
    for score in (
        Score(
            name="sum-gradnorm",
            title="Gradient norm, summed",
            formula="Σ_t ‖∇_t L‖",
            higher="would change the model most",
            values="the strategy's loss, the L2 norms of the parameter tensors t added; ≥ 0",
            reference="Wang et al. 2022, public code",
        ),
        Score(
            name="l2-gradnorm",
            title="Gradient norm, global",
            formula="‖∇θ L‖₂",
            higher="would change the model most",
            values="the strategy's loss, one L2 norm over all parameters; ≥ 0",
            reference="Wang et al. 2022, text",
        ),
        Score(
            name="head-gradnorm",
            title="Head gradient norm",
            formula="‖∇_head L‖",
            higher="would change the last linear layer most",
            values="the strategy's loss; ≥ 0",
            reference="Wang et al. 2022, last layer",
        ),
        Score(
            name="label-gradnorm",
            title="True-label gradient norm",
            formula="‖∇θ CE(y, p)‖",
            higher="its reference label y would change the model most",
            values="≥ 0. No strategy sees y: this is what the unlabelled losses stand in for",
            reference="Wang et al. 2022, Table 1",
        ),
        Score(
            name="influence",
            title="Influence",
            formula="(1/n) Σ_j ∇L(x_j)ᵀ H⁻¹ ∇L(x)",
            higher="without the image the loss on held-out images would be higher, so that it helps; below 0 it harms",
            values="signed, with the reference label, of the candidates of the cycle before; x_j: half of the test images, H: "
            "the damped Gauss–Newton matrix of the n labels. No strategy sees it",
            unit="nats",
            reference="Wang et al. 2022, Eq. 2; Koh & Liang 2017",
        ),
        Score(
            name="bound",
            title="Bound of the influence",
            formula="(1/n) ‖∇L(x)‖ · ‖Σ_j H⁻¹ ∇L(x_j)‖",
            higher="the image could change the loss on held-out images most, for better or worse",
            values="≥ |influence|; all but a constant factor is the true-label gradient norm. No strategy sees it",
            unit="nats",
            reference="Wang et al. 2022, Eq. 4",
        ),
        Score(
            name="earlier-bound",
            title="Bound before labelling",
            formula="(1/n) ‖∇L(T^c(x))‖ · ‖Σ_j H⁻¹ ∇L(x_j)‖",
            higher="the same by the model that ranked the image, which had not learnt it",
            values="≥ 0; nothing guarantees that it is a bound. No strategy sees it",
            unit="nats",
            reference="Wang et al. 2022, Eq. 5",
        ),
    )
}

# What is measured of each image against its reference, where labels are masks
MEASURED = {
    score.name: score
    for score in (
        Score(
            name="iou",
            title="IoU",
            formula="mean over classes of TP / (TP + FP + FN)",
            higher="the predicted mask agrees with the reference",
            values="over the classes that either has; from 0 to 1. No strategy sees it",
            reference="Everingham et al. 2010",
        ),
        Score(
            name="pixel-accuracy",
            title="Pixel accuracy",
            formula="share of pixels whose class is right",
            higher="the predicted mask agrees with the reference",
            values="from 0 to 1. No strategy sees it",
        ),
    )
}


def scores() -> Mapping[str, Score]:
    """Every column of a ranking that is a score, in the order in which lists show them."""
    return {name: described(name) for name in (*label_scores.CATALOGUE, *strategies.CATALOGUE, *EVIDENCE, *MEASURED)}


def described(name: str) -> Score:
    """What is said of a score column; of one whose plug-in is not installed here, its name alone."""
    for known in (label_scores.CATALOGUE, strategies.CATALOGUE, EVIDENCE, MEASURED):
        if name in known:
            return known[name]
    return Score(name="unknown", title=name, formula="not installed here", higher="taken first")


def drawn(name: str) -> Method:
    """How figures draw a strategy, a score of labels or a selector; grey for anything else."""
    for known in (strategies.CATALOGUE, label_scores.CATALOGUE, selectors.CATALOGUE):
        if name in known:
            return known[name]
    return described(name)


def refused() -> list[str]:
    """One sentence for each plug-in that was left out, and why."""
    catalogues = (strategies, selectors, label_scores, models, data)
    return list(dict.fromkeys(sentence for one in catalogues for sentence in one.CATALOGUE.refused))
