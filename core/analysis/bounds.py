"""What a run measured of influence: the ladder of bounds that gradient norms rest on, and Table 2. Needs no torch.

Wang et al. 2022, Eqs. 2 to 5. All is of the candidates that a cycle ranked, measured once the next one had learnt the chosen.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.analysis import measures, published
from core.plots import curves
from core.runs.run import Run

TERMS = {
    "target": "Target (Eq. 2), signed",
    "approx-1": "Approx-1 (Eq. 3)",
    "approx-2": "Approx-2 (Eq. 4)",
    "approx-3": "Approx-3 (Eq. 5)",
}
MEASURES = {  # of `Run.cycles`, where they begin with influence_
    "k": "k",
    "n": "candidates",
    "eq3_eq5": "eq3_eq5",
    "eq2_eq5": "eq2_eq5",
    "eq2_eq3": "eq2_eq3",
    "step_3_4": "step_3_4",
    "step_4_5": "step_4_5",
    "positive": "positive",
    "residual": "residual",
    "iterations": "iterations",
    "failed": "failed",
}
COLUMNS = ["cycle", "n_labels", *MEASURES.values(), "chance"]
QUARTILES = (0.25, 0.5, 0.75)
NOTE = (
    "median and quartiles over the candidates, true labels; loss: summed over a half of the test images; inverse of the "
    "Gauss–Newton matrix, damping {damping:g} and the weight decay; what is not above 0 is not drawn"
)
DEFINITION = (
    "Of the K candidates of highest Eq. 5 (the bound by the model that ranked them, true labels), how many are among the K of "
    "highest Eq. 3 (the absolute influence on the loss of half of the test images, by the model that has learnt the K chosen), "
    "in % of K. The controls: a random choice would hit K / candidates of them; and signed Eq. 2, whose K highest are those that "
    "help most, for Eq. 3 counts what harms like what helps."
)


def measured(cycles: pd.DataFrame) -> bool:
    """Whether a run measured influence, whatever came of it; cycles: of `Run.cycles`."""
    return "influence_n" in cycles and bool(cycles["influence_n"].notna().any())


def table(cycles: pd.DataFrame) -> pd.DataFrame:
    """Table 2 with its controls, a row for each cycle that ranked candidates whose influence was measured; `COLUMNS`.

    cycle, n_labels: of the model that ranked them · k, candidates · eq3_eq5, eq2_eq5, eq2_eq3: of the k highest by one term, how
    many are among the k highest by the other · chance: k² / candidates · step_3_4, step_4_5: medians of Eq. 3 / Eq. 4 and
    Eq. 4 / Eq. 5 · positive: share of Eq. 2 above 0 · residual, iterations: of the conjugate gradients · failed: why something
    is missing, "" where nothing is. NaN where a value is not known. cycles: of `Run.cycles`.
    """
    if not measured(cycles):
        return pd.DataFrame(columns=COLUMNS)
    found = pd.DataFrame({"cycle": cycles["cycle"] - 1, "n_labels": cycles["n_labels"].shift()})
    for name, column in MEASURES.items():
        known = cycles.get(f"influence_{name}", pd.Series(np.nan, index=cycles.index))
        found[column] = known.astype(object).where(known.notna(), "") if column == "failed" else known.astype(float)
    found = found[cycles["influence_n"].notna()].reset_index(drop=True)
    found["chance"] = found["k"] ** 2 / found["candidates"].where(found["candidates"] > 0)
    return found.astype({"cycle": int, "n_labels": int, "k": int, "candidates": int})


def shares(found: pd.DataFrame) -> pd.DataFrame:
    """`table` with its overlaps as shares of k, in the order in which people read it."""
    overlaps = ["eq3_eq5", "eq2_eq5", "chance", "eq2_eq3"]
    found = found.assign(**{name: found[name] / found["k"] for name in overlaps})
    steps = ["step_3_4", "step_4_5", "positive", "residual", "iterations"]
    return found[["cycle", "n_labels", "k", "candidates", *overlaps, *steps]]


def terms(ranking: pd.DataFrame) -> pd.DataFrame:
    """Those of `TERMS` that a ranking has, of each image in nats; NaN where it was no candidate."""
    found = pd.DataFrame(index=ranking.index)
    if "influence" in ranking:
        found["target"], found["approx-1"] = ranking["influence"], ranking["influence"].abs()
    for term, column in (("approx-2", "bound"), ("approx-3", "earlier-bound")):
        if column in ranking:
            found[term] = ranking[column]
    return found


def ladder(run: Run) -> pd.DataFrame:
    """Quartiles of the four terms over the candidates of each cycle: cycle, n_labels (as of `table`), term, low, median, high, n.

    term: of `TERMS`. Of Eq. 2 they may lie below 0. Empty where nothing was measured. Raises as `Run.ranking`.
    """
    rows = []
    for row in table(run.cycles()).itertuples():
        for term, values in terms(run.ranking(row.cycle + 1)).items():
            low, median, high = (float(q) for q in values.quantile(list(QUARTILES)))
            rows.append([row.cycle, row.n_labels, term, low, median, high, int(values.notna().sum())])
    return pd.DataFrame(rows, columns=["cycle", "n_labels", "term", "low", "median", "high", "n"])


def figure(run: Run, found: pd.DataFrame) -> go.Figure:
    """The ladder of a run as pages show it; found: of `ladder`, not empty."""
    small = measures.note(run, f"{NOTE.format(damping=run.config.damping)}; n = {found['n'].max():,}")
    return curves.ladder(found.assign(title=found["term"].map(TERMS)), small)


def paper() -> str:
    """What the paper reports in Table 2, in a sentence."""
    theirs = published.table("influence")["published"]
    found = f"{theirs.min():.1f} to {theirs.max():.1f} % of K"
    return f"Table 2 of Wang et al. 2022 reports {found} (CIFAR-10; {published.PROTOCOL})."
