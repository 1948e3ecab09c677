"""Signed bars: what helps and what harms, told apart without colour, and no more of them than can be read."""

import numpy as np
import pandas as pd
import pytest

from core.plots import bars, style


def table(values):
    names = [f"layer{i}" for i in range(len(values))]
    return pd.DataFrame({"name": names, "kind": "Conv2d", "parameters": 10, "influence": values})


def test_what_helps_and_what_harms_differ_in_side_colour_and_pattern():
    helps, harms = bars.layers(table([0.5, -0.25, 0.125]), "note").data
    assert (list(helps.x), list(helps.y)) == ([0.5, 0.125], ["layer0", "layer2"])
    assert (list(harms.x), list(harms.y)) == ([-0.25], ["layer1"])
    assert (helps.marker.color, harms.marker.color) == (style.BLUE, style.ORANGE)
    assert (helps.marker.pattern.shape, harms.marker.pattern.shape) == ("", "/")


def test_layers_stand_in_the_order_of_the_network():
    figure = bars.layers(table([0.5, -0.25, 0.125]), "note")
    assert list(figure.layout.yaxis.categoryarray) == ["layer0", "layer1", "layer2"]
    assert list(figure.layout.yaxis.ticktext) == ["layer0 Conv2d", "layer1 Conv2d", "layer2 Conv2d"]
    assert figure.layout.yaxis.autorange == "reversed"
    assert figure.layout.xaxis.title.text == "Influence (nats)"


def test_of_a_deep_network_the_least_are_one_bar_and_the_sum_stays():
    values = np.random.default_rng(0).normal(size=100)
    helps, harms = bars.layers(table(values), "note").data
    assert len(helps.x) + len(harms.x) == bars.MOST
    assert sum(helps.x) + sum(harms.x) == pytest.approx(values.sum())
    assert "61 others" in [*helps.y, *harms.y]


def test_names_cannot_inject_markup():
    named = table([1.0]).assign(name="<b>x</b>")
    assert list(bars.layers(named, "").data[0].y) == ["&lt;b>x&lt;/b>"]
