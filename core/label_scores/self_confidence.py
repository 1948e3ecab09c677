"""Self-confidence, as cleanlab has it: Northcutt, Jiang & Chuang, JAIR 2021."""

from core import scores
from core.described import PURPLE
from core.label_scores import Labelled, LabelScore
from core.scores import Array


def compute(it: Labelled) -> Array:
    """1 − p[label] in [0, 1], [N]."""
    return scores.self_confidence(it.labels, it.probs, it.histogram)


SCORE = LabelScore(
    name="self-confidence",
    title="Self-confidence (1 − p)",
    formula="1 − p[label]",
    higher="the label gets little probability",
    values="in [0, 1]. For a tie p is the mean over the classes that tie. cleanlab sorts p[label], low first",
    reference="Northcutt et al. 2021",
    compute=compute,
    colour=PURPLE,
    place=3,
)
