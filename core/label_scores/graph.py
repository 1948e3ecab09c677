"""Labels diffused on a graph of neighbours: Zhou et al. 2004, Iscen et al. 2019.

The code of Bernhardt et al. 2022 has a graph by another formula, the paper none.
"""

from core import scores
from core.described import GREY
from core.label_scores import Labelled, LabelScore
from core.scores import Array


def compute(it: Labelled) -> Array:
    """CE(l̂, f) − max(H(f) − γ·ln C, 0) in nats, [N], with f what the neighbours say of each sample."""
    return scores.cleaning_score(it.histogram, it.model.neighbours(), it.gamma)


SCORE = LabelScore(
    name="graph",
    title="Graph",
    formula="CE(l̂, f) − H(f)",
    higher="the labels of the nearest neighbours agree with one another, and not with this one",
    values="nats. f: labels diffused on a graph of embeddings, each without its own; γ as for Φ",
    unit="nats",
    reference="Zhou et al. 2004; Iscen et al. 2019",
    options=("gamma",),
    compute=compute,
    needs="embeddings",
    colour=GREY,
    dash="dash",
    place=5,
)
