"""Figures that the two papers report, to compare ours with. Data alone, no arithmetic on runs.

Sources: Wang et al., *Boosting Active Learning via Improving Test Performance*, AAAI 2022, Tables 1 to 5, CIFAR-10;
Bernhardt et al., *Active label cleaning for improved dataset quality under resource constraints*, Nature Communications
2022, Table 1, CIFAR-10H.
"""

from typing import Any

import pandas as pd

Counts = dict[str, tuple[float, ...]]  # by strategy, one number a cycle

SOURCE = "Wang et al., Boosting Active Learning via Improving Test Performance, AAAI 2022"
DATASET = "cifar10"
PROTOCOL = "all 50,000 images, 5,000 labels at the start and K = 2,500 a cycle, ResNet-18, 200 epochs, 3 trials"
SELECTED = 2_500  # K: the counts below are out of so many
BUDGETS = (10, 15, 20, 25, 30, 35, 40)  # % of the pool that is labelled in cycles 0 … 6

# Of the K selected in cycles 0 … 6, how many are among the K of highest true-label gradient norm.
TABLE_1: Counts = {
    "core-set": (217, 230, 284, 339, 329, 289, 255),
    "vaal": (268, 259, 215, 231, 256, 240, 256),
    "ll4al": (391, 893, 1084, 1710, 1698, 2035, 1817),
    "sraal": (506, 819, 1120, 1765, 1842, 2133, 2196),
    "expected-gradnorm": (703, 980, 1216, 1942, 2318, 2427, 2448),
    "entropy-gradnorm": (677, 932, 1141, 1993, 2317, 2429, 2443),
}

# Of the K selected by Eq. 5 in cycles 0 … 6, how many Eq. 3 selects too.
TABLE_2 = (2290, 2377, 2396, 2432, 2449, 2438, 2482)

# Train minus test accuracy in points, cycles 1 … 6.
TABLE_3: Counts = {
    "mc-dropout": (16.14, 10.25, 9.47, 8.77, 8.24, 7.35),
    "core-set": (14.59, 12.73, 10.88, 9.95, 8.92, 8.31),
    "vaal": (15.01, 12.24, 11.08, 9.66, 8.57, 8.08),
    "ll4al": (13.83, 10.7, 8.89, 8.78, 7.64, 7.23),
    "sraal": (14.09, 11.55, 10.24, 8.62, 8.01, 6.94),
    "expected-gradnorm": (12.74, 10.04, 8.06, 7.05, 6.09, 5.66),
    "entropy-gradnorm": (13.05, 9.9, 7.76, 6.79, 6.29, 5.65),
}

# Tables 4 and 5: of the K selected after the previous cycle, how many have no higher gradient norm under the new model,
# cycles 1 … 6.
TABLES_4_AND_5: Counts = {
    "expected-gradnorm": (2488, 2481, 2466, 2439, 2386, 2255),
    "entropy-gradnorm": (2487, 2477, 2467, 2447, 2388, 2250),
}

# Bernhardt et al., Table 1: test accuracy in % before and after relabelling 32.7 % of 5,000 images at 30 % noise. The arm
# whose ranking cleaned the labels, and the classifier trained on them; "clean": on the right labels.
TABLE_1_CLEANING: list[dict[str, Any]] = [
    {"arm": "vanilla", "classifier": "vanilla", "before": 64.1, "after": 68.4},
    {"arm": "bald", "classifier": "vanilla", "before": 64.1, "after": 68.3},
    {"arm": "ssl", "classifier": "vanilla", "before": 64.1, "after": 70.9},
    {"arm": "ssl", "classifier": "ssl", "before": 78.7, "after": 80.3},
    {"arm": "vanilla", "classifier": "ssl", "before": 78.7, "after": 79.4},
    {"arm": "co-teaching", "classifier": "co-teaching", "before": 66.5, "after": 68.8},
    {"arm": "", "classifier": "elr", "before": 67.0, "after": None},
    {"arm": "clean", "classifier": "vanilla", "before": None, "after": 73.6},
    {"arm": "clean", "classifier": "ssl", "before": None, "after": 80.7},
]
RELABELLED = 0.327
NAMES = {  # of an arm: selector and scoring, where they are not the selector and Φ
    "bald": ("vanilla", "BALD"),
    "": ("–", "–"),
    "clean": ("clean training", "–"),
}

TABLES = {"high-gradient": "Table 1", "influence": "Table 2", "gap": "Table 3", "fell": "Tables 4 and 5"}


def table(name: str) -> pd.DataFrame:
    """A published table by the name that `comparison.tables` gives ours: method, cycle, published_budget, published.

    method: "" where the paper has one row for all. published_budget: % of the pool labelled. published: % of the K selected
    ("high-gradient", "influence", "fell") or points ("gap").
    Raises `KeyError` for a table that the paper does not have.
    """
    known: dict[str, tuple[Counts, int, float]] = {
        "high-gradient": (TABLE_1, 0, 100 / SELECTED),
        "influence": ({"": TABLE_2}, 0, 100 / SELECTED),
        "gap": (TABLE_3, 1, 1.0),
        "fell": (TABLES_4_AND_5, 1, 100 / SELECTED),
    }
    rows, first, scale = known[name]
    return pd.DataFrame(
        [
            {"method": method, "cycle": cycle, "published_budget": BUDGETS[cycle], "published": scale * value}
            for method, values in rows.items()
            for cycle, value in enumerate(values, start=first)
        ]
    )
