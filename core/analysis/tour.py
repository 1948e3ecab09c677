"""What the page Learn shows: the steps of both papers, computed on runs that are there. Needs no torch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core import scores
from core.analysis import bounds, curves, figures, measures, samples
from core.plots import learn, style
from core.relabel import Floats
from core.runs.run import Run
from data.dataset import ImageDataset

CASES = {  # of the plane of noisiness and ambiguity
    "clear noise": "The model is sure of another label: most likely a wrong label.",
    "ambiguous": "The model is unsure: another label may be as wrong.",
    "agreed": "The model is sure of the same label: nothing to check.",
}

SIMPLEX = "every point is a set of predicted probabilities of 3 classes; marked: where the norm is 0; computed from the formula"


def three(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """The images of lowest, middle and highest score among those that may be chosen: rows of `core.analysis.samples.table`.

    at_logits: norm of `entropy_gradient` of each · length: of `expected_length`.
    """
    table, probs = samples.table(run, dataset, cycle), run.posterior(cycle)
    ranked = table[table["rank"].notna()].sort_values("rank", ascending=False)
    found = ranked.iloc[[0, len(ranked) // 2, len(ranked) - 1]]
    own = [np.asarray(probs[row], dtype=np.float64) for row in found.index]
    norms, lengths = [np.linalg.norm(entropy_gradient(p)) for p in own], [expected_length(p) for p in own]
    return found.assign(at_logits=norms, length=lengths)


def entropy_gradient(probs: Floats) -> Floats:
    """Derivative of the entropy H(p) by the logits, [..., K] → [..., K]: −p (ln p + H).

    It vanishes where the model is sure, where it is quite unsure (p uniform), and where classes tie and share all of p.
    """
    log = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
    entropy = -(probs * log).sum(axis=-1, keepdims=True)
    return np.asarray(-probs * (log + entropy))


@dataclass(frozen=True)
class Surface:
    """‖∂H/∂z‖, z the logits, over the simplex of three classes, drawn as a triangle of side 1.

    across float64 [n], up float64 [m]: coordinates · norms: float64 [m, n], NaN outside of the triangle · zeros: where it
    vanishes: name, x, y, norm.
    """

    across: Floats
    up: Floats
    norms: Floats
    zeros: pd.DataFrame


def surface() -> Surface:
    """Corners, edges' midpoints and the centre are points of its grid."""
    across, up = np.linspace(0, 1, 241), np.linspace(0, np.sqrt(3) / 2, 211)
    x, y = np.meshgrid(across, up)
    third = y / up[-1]
    second = x - third / 2
    probs = np.stack([1 - second - third, second, third], axis=-1)
    inside = (probs > -1e-9).all(axis=-1)
    norms = np.where(inside, np.linalg.norm(entropy_gradient(np.maximum(probs, 0)), axis=-1), np.nan)
    one = np.eye(3)
    where = {"one class": one, "tie of two": (1 - one) / 2, "all alike": np.full((1, 3), 1 / 3)}
    at = np.concatenate(list(where.values()))
    zeros = pd.DataFrame(
        {
            "name": np.repeat(list(where), [len(points) for points in where.values()]),
            "x": at[:, 1] + at[:, 2] / 2,
            "y": at[:, 2] * up[-1],
            "norm": np.linalg.norm(entropy_gradient(at), axis=-1),
        }
    )
    return Surface(across, up, norms, zeros)


@dataclass(frozen=True)
class AtLogits:
    """How large the entropy's gradient by the logits is, by how sure the model is.

    surface: for three classes, over all that they can be predicted with · profile: beside the entropy, for more classes whose
    rest is flat · peak: the largest probability at which the norm is largest there.
    """

    surface: go.Figure
    profile: go.Figure
    peak: float


def at_logits(n_classes: int) -> AtLogits:
    """‖∂H/∂z‖ over the simplex of three classes, and of n_classes against the largest probability, the others being equal."""
    found = surface()
    triangle = learn.simplex(found.across, found.up, found.norms, found.zeros, SIMPLEX)
    highest = np.linspace(1 / n_classes, 1, 401)
    rest = np.repeat((1 - highest[:, None]) / (n_classes - 1), n_classes - 1, axis=1)
    probs = np.concatenate([highest[:, None], rest], axis=1)
    norms, entropies = np.linalg.norm(entropy_gradient(probs), axis=-1), scores.entropy(probs)
    parts = [
        pd.DataFrame(
            {"name": f"{name}, at most {of.max():.2f}", "highest": highest, "value": of, "share": of / of.max()}
        )
        for name, of in (("‖∂H/∂z‖", norms), ("entropy H in nats", entropies))
    ]
    note = f"computed from the formula, {n_classes} classes, all but one equally likely"
    return AtLogits(triangle, learn.profile(pd.concat(parts, ignore_index=True), note), float(highest[norms.argmax()]))


def expected_length(probs: Floats) -> float:
    """Expected length of the gradient of the cross-entropy by the logits, Σ p_y ‖p − e_y‖ of [K]: EGL where it begins."""
    return float((probs * np.linalg.norm(probs - np.eye(len(probs)), axis=1)).sum())


@dataclass(frozen=True)
class Bound:
    """How well the gradient norm without the label stands in for that with it.

    correlation: Spearman's, over the ranked images · chosen: images that the budget takes · shared: those of them that are
    among the `chosen` of highest norm with the true label · chance: how many a random choice would share.
    """

    figure: go.Figure
    correlation: float
    chosen: int
    shared: int
    chance: float


def bound(run: Run, dataset: ImageDataset, cycle: int) -> Bound:
    """Of a run of active learning by gradient norm that measured its evidence."""
    table = samples.table(run, dataset, cycle)
    table = table[table["rank"].notna()]
    k = min(run.config.budget, len(table))
    table = table.assign(chosen=table["rank"] <= k)
    shared = int(table.nlargest(k, "label-gradnorm")["chosen"].sum())
    correlation = float(table["entropy-gradnorm"].rank().corr(table["label-gradnorm"].rank()))
    drawn = learn.norms(table, measures.note(run, f"cycle {cycle}; {len(table):,} images that may still be chosen"))
    return Bound(drawn, correlation, k, shared, k * k / len(table))


@dataclass(frozen=True)
class Derivation:
    """What came of each step from the influence of an image to its score: for one image, and over the candidates of a cycle.

    image: row of `core.analysis.samples.table`: of the k that were labelled next, the one of lowest Eq. 2 · values, medians:
    of each of `bounds.TERMS` in nats · places: of the image among the n candidates, 1 is the highest · measured: row of
    `bounds.table` · n_labels: of the model that has learnt the k · fell, fell_chosen: of the n and of the k, how many have an
    Eq. 4 no larger than their Eq. 5 · chosen: of the k, how many are among the k of highest Eq. 3.
    """

    image: pd.Series
    values: dict[str, float]
    medians: dict[str, float]
    places: dict[str, int]
    measured: pd.Series
    n_labels: int
    fell: int
    fell_chosen: int
    chosen: int


def derivation(run: Run, dataset: ImageDataset, cycle: int) -> Derivation | None:
    """Of a run of active learning; None where its candidates of that cycle have no influence or no Eq. 5."""
    cycles = run.cycles()
    table = bounds.table(cycles)
    row = table[(table["cycle"] == cycle) & table["eq3_eq5"].notna()]
    if row.empty:
        return None
    measured, k = row.iloc[0], int(row["k"].iloc[0])
    terms = bounds.terms(run.ranking(cycle + 1)).dropna()
    ranks = run.ranking(cycle)["rank"]
    labelled = terms.index[ranks[terms.index] <= k]
    one, fell = terms.loc[labelled, "target"].idxmin(), terms["approx-2"] <= terms["approx-3"]
    return Derivation(
        image=samples.table(run, dataset, cycle).loc[one],
        values=terms.loc[one].to_dict(),
        medians=terms.median().to_dict(),
        places={name: int((terms[name] > terms.loc[one, name]).sum()) + 1 for name in terms},
        measured=measured,
        n_labels=int(cycles.set_index("cycle").loc[cycle + 1, "n_labels"]),
        fell=int(fell.sum()),
        fell_chosen=int(fell[labelled].sum()),
        chosen=len(labelled.intersection(terms.nlargest(k, "approx-1").index)),
    )


def advantage(run: Run, other: Run) -> tuple[int, float]:
    """Points of test accuracy by which a run of active learning is ahead of another: (labels, points) at their end."""
    mine, theirs = (one.cycles().set_index("n_labels")["accuracy"] for one in (run, other))
    ahead = (100 * (mine - theirs)).dropna()
    return int(ahead.index[-1]), float(ahead.iloc[-1])


def cases(run: Run, dataset: ImageDataset, cycle: int) -> pd.DataFrame:
    """An image of each of `CASES`, in their order: rows of `core.analysis.samples.table`."""
    table = samples.table(run, dataset, cycle)
    table = table[table["rank"].notna()]
    differ = table[table["given"] != table["suggested"]]
    found = [differ.nlargest(1, "cleaning"), differ.nlargest(1, "entropy"), table.nsmallest(1, "cross-entropy")]
    return pd.concat(found)


@dataclass(frozen=True)
class Plane:
    """The map of noisiness and ambiguity with the line above which the images of highest Φ lie.

    chosen: how many these are, as many as the budget has labels · shared: those of them that γ = 0 chooses too.
    """

    figure: go.Figure
    chosen: int
    shared: int


def plane(run: Run, dataset: ImageDataset, cycle: int, gamma: float) -> Plane:
    """Of a cleaning run: Φ = CE − max(H − γ ln C, 0), Eq. 2 of Bernhardt et al. for γ = 0; their code has γ = 0.30."""
    table = samples.table(run, dataset, cycle)
    table = table[table["rank"].notna()]
    k, free = min(run.config.budget, len(table)), gamma * np.log(len(dataset.class_names))
    phi = table["cross-entropy"] - (table["entropy"] - free).clip(lower=0)
    highest = phi.nlargest(k)
    ambiguity = np.array(sorted({0.0, min(free, table["entropy"].max()), table["entropy"].max()}))
    drawn = figures.figure(run, dataset, "map", cycle)
    drawn.add_scatter(
        x=ambiguity,
        y=highest.min() + np.maximum(ambiguity - free, 0),
        mode="lines",
        name=f"Φ = {round(highest.min(), 2) + 0.0:.2f}",  # no −0
        line={"color": style.GREY, "dash": "dash", "width": 2},
        hoverinfo="skip",
    )
    without = (table["cross-entropy"] - table["entropy"]).nlargest(k)
    return Plane(drawn, k, len(highest.index.intersection(without.index)))


@dataclass(frozen=True)
class Relabel:
    """Algorithm 1 on one image.

    row: in the pool · given: the label it came with · score: Φ when it was chosen · votes: the labels drawn, in order ·
    after: its label at the end · steps: step, name, votes (so many of the class so far) · agreed: after each label, whether
    one class has more than any other.
    """

    row: int
    given: str
    score: float
    votes: list[str]
    after: str
    steps: pd.DataFrame
    agreed: list[bool]


def relabel(run: Run, dataset: ImageDataset) -> Relabel:
    """The first relabel of a cleaning run that changed a label and took at least three votes, or else the longest."""
    table = samples.relabels(run, dataset)
    changed = table[table["formed"] & (table["before"] != table["after"])]
    long = changed[changed["n_votes"] >= 3]
    one = (long if len(long) else table.nlargest(1, "n_votes")).iloc[0]
    events, names = run.log.labels(), run.about["class_names"]
    labels = [names[label] for label in events.loc[events["sample_id"] == one["sample_id"], "label"]]
    labels = labels[: 1 + one["n_votes"]]
    rows, agreed = [], []
    for step in range(len(labels)):
        counts = pd.Series(labels[: step + 1]).value_counts()
        rows += [{"step": step, "name": name, "votes": int(counts.get(name, 0))} for name in dict.fromkeys(labels)]
        agreed.append(len(counts) == 1 or bool(counts.iloc[0] > counts.iloc[1]))
    return Relabel(
        row=dataset.ids.index(one["sample_id"]),
        given=labels[0],
        score=float(one["score"]),
        votes=labels[1:],
        after=str(one["after"]),
        steps=pd.DataFrame(rows),
        agreed=agreed,
    )


def areas(run: Run, dataset: ImageDataset) -> dict[str, float]:
    """Areas under the curves of a cleaning run: run, random, oracle, and normalised between these."""
    found, curve = curves.summary(run, dataset), curves.cleaning_curve(run, dataset)
    own, random, oracle = curves.CHECKS[dataset.answer].areas(run.config, dataset, curve)
    return {
        "run": own,
        "random": random,
        "oracle": oracle,
        "normalised": found["auc_normalised"],
    }
