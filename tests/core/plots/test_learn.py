"""What Learn draws: the simplex of three classes with what is marked on it, and functions of the largest probability."""

import numpy as np
import pandas as pd
import pytest

from core.analysis import tour
from core.plots import learn


def test_the_simplex_is_coloured_from_zero_by_a_scale_for_the_colour_blind_and_marks_each_kind_by_a_symbol():
    found = tour.surface()
    heat, edge, *marks = learn.simplex(found.across, found.up, found.norms, found.zeros, "three classes").data
    assert heat.zmin == 0
    assert heat.colorscale[0][1] == "#00224e"  # of cividis
    np.testing.assert_allclose(heat.z, found.norms, rtol=1e-6)
    assert (edge.x, edge.y[2]) == ((0, 1, 0.5, 0), pytest.approx(np.sqrt(3) / 2))
    assert [(one.name, len(one.x)) for one in marks] == [("one class", 3), ("tie of two", 3), ("all alike", 1)]
    assert len({one.marker.symbol for one in marks}) == 3


def test_the_sides_of_the_simplex_are_equal_on_the_screen():
    found = tour.surface()
    drawn = learn.simplex(found.across, found.up, found.norms, found.zeros, "")
    assert drawn.layout.yaxis.scaleanchor == "x"
    assert {one.text for one in drawn.layout.annotations} >= {"p₁ = 1", "p₂ = 1", "p₃ = 1"}


def test_a_profile_is_in_percent_of_its_largest_value_which_is_marked():
    table = pd.DataFrame(
        {
            "name": ["norm"] * 3 + ["entropy"] * 3,
            "highest": [0.1, 0.5, 1.0] * 2,
            "value": [0, 0.4, 0, 2.0, 1.0, 0],
            "share": [0, 1, 0, 1, 0.5, 0],
        }
    )
    norm, top, entropy, _ = learn.profile(table, "ten classes").data
    assert (norm.y[1], entropy.y[1], entropy.customdata[1]) == (100, 50, 1.0)
    assert (top.x[0], top.text) == (0.5, "0.50")
    assert norm.line.dash != entropy.line.dash
