"""What a run measured of influence and the bound that gradient norms rest on: Table 2. Needs no torch.

Wang et al. 2022, Eqs. 2 to 5. All is of the candidates that a cycle ranked, measured once the next one had learnt the chosen.
"""

import numpy as np
import pandas as pd

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
