"""Builders: axis titles with units, seeds in the legend, one colour a method, names that cannot inject markup."""

import numpy as np
import pandas as pd
import pytest

from core import methods, strategies
from core.plots import curves, learn, maps, style
from core.plots.curves import policy_curves
from core.runs import spec

POINTS = pd.DataFrame(
    {
        "sample_id": ["a", "b", "c"],
        "given": ["cat", "<b>", "x & y"],
        "suggested": ["dog", "dog", "cat"],
        "entropy": [0.1, 0.5, 0.9],
        "cross-entropy": [3.0, 1.0, 0.2],
        "kind": ["clear noise", "difficult", "correct"],
    }
)


def curve(measure, seeds, slope=0.0):
    return pd.concat([pd.DataFrame({"run": f"r{s}", "method": "margin", "seed": s, "cycle": [0, 1], "n_labels": [10, 20],
                                    measure: [0.5, 0.6 + slope * s]}) for s in seeds])  # fmt: skip


def test_learning_curves_are_means_in_percent_with_a_band_over_seeds():
    figure = curves.learning_curves(curve("accuracy", [0, 2], slope=0.1), 1, "note")
    band, line = figure.data
    np.testing.assert_allclose(line.y, [50, 70])
    np.testing.assert_allclose(max(band.y), 70 + 100 * np.std([0.6, 0.8], ddof=1))
    assert line.name == "margin · n = 2, seed 0, 2"
    assert figure.layout.yaxis.title.text == "Test accuracy (%)"
    assert figure.layout.showlegend


def test_one_seed_has_no_band():
    figure = curves.learning_curves(curve("accuracy", [0]), None, "")
    assert len(figure.data) == 1
    assert not figure.layout.annotations


def bins(values, kept=None):
    """Each value in an interval of its own."""
    low = np.array(values, dtype=float)
    return pd.DataFrame({"low": low - 0.05, "high": low + 0.05, "everything": 1, "kept": 1 if kept is None else kept})


def test_a_method_has_one_colour_everywhere():
    learning = curves.learning_curves(curve("accuracy", [0]), None, "")
    histogram = maps.distribution(bins([0.1, 0.2]), "margin", 0.15, "")
    assert learning.data[0].line.color == histogram.data[0].marker.color == methods.drawn("margin").colour


def test_cleaning_curves_draw_bounds_and_areas():
    bounds = pd.DataFrame(
        {
            "policy": ["oracle"] * 2 + ["random"] * 2,
            "n_labels": [0, 1] * 2,
            "mean": [0.5, 0.7, 0.5, 0.6],
            "sd": [0.0, 0.1] * 2,
        }
    )
    figure = curves.cleaning_curves(curve("correctness", [0]), bounds, 10, "note")
    names = [trace.name for trace in figure.data if trace.name]
    assert names == [
        "oracle · AUC 0.600, 5 draws of annotations",
        "random · AUC 0.550, 5 draws of annotations",
        "margin (run) · AUC 0.550, n = 1, seed 0",
    ]
    assert len({trace.line.dash for trace in figure.data if trace.name}) == 3  # told apart without colour


def test_the_map_puts_noisiness_over_ambiguity_and_escapes_names():
    figure = maps.noise_map(POINTS, "")
    assert figure.layout.xaxis.title.text == "Ambiguity H(p) (nats)"
    texts = [text for trace in figure.data for text in trace.text]
    assert "b: &lt;b> → dog" in texts
    assert "c: x &amp; y → cat" in texts
    assert [int(row) for trace in figure.data for row in trace.customdata] == [2, 1, 0]
    assert len({trace.marker.symbol for trace in figure.data}) == 3


def test_selected_images_stand_out_on_the_map():
    figure = maps.noise_map(POINTS, "", selected={1})
    assert [list(trace.selectedpoints) for trace in figure.data] == [[], [0], []]  # kind by kind: rows 2, 1, 0
    assert all(trace.selectedpoints is None for trace in maps.noise_map(POINTS, "").data)


def test_the_map_of_images_draws_each_where_it_stands():
    figure = maps.picture_map(
        POINTS.assign(n=[1, 20, 3]), maps.NOISE, ["data:a", "data:b", "data:c"], (0.5, 1.0), "note"
    )
    assert [one.source for one in figure.layout.images] == ["data:a", "data:b", "data:c"]
    assert [(one.x, one.y) for one in figure.layout.images] == list(
        zip(POINTS["entropy"], POINTS["cross-entropy"], strict=True)
    )
    (points,) = figure.data
    assert list(points.customdata) == POINTS.index.tolist()
    assert "b: &lt;b> → dog<br>20 like it here" in points.text
    assert figure.layout.xaxis.title.text == "Ambiguity H(p) (nats)"
    assert figure.layout.annotations[-1].text == "note"


PLACED = POINTS.assign(**{"map-x": [0.5, -1.0, 1.0], "map-y": [0.0, 1.0, -1.0], "rank": [2, 1, None]})


def test_the_embedding_map_is_coloured_by_a_column_and_says_who_has_no_value():
    figure = maps.embedding_map(PLACED, "rank", "Rank", "note", selected=[PLACED.index[1]])
    without, points = figure.data
    assert without.name == "no value (1)"
    assert list(without.customdata) == [PLACED.index[2]]
    assert list(points.marker.color) == [2, 1]
    assert (list(points.x), list(points.y)) == ([0.5, -1.0], [0.0, 1.0])
    assert points.marker.colorbar.title.text == "Rank"
    assert list(points.selectedpoints) == [1]
    assert points.text[1] == "b: &lt;b> → dog"
    assert not figure.layout.xaxis.showticklabels  # they have no meaning


def test_the_embedding_map_can_be_drawn_in_images():
    figure = maps.picture_map(PLACED.assign(n=1), maps.EMBEDDING, ["data:a"] * 3, (0.1, 0.1), "note")
    assert [(one.x, one.y) for one in figure.layout.images] == [(0.5, 0.0), (-1.0, 1.0), (1.0, -1.0)]
    assert figure.layout.xaxis.title.text == "t-SNE 1 (no unit)"


@pytest.mark.parametrize(("n", "kind"), [(10_000, "scatter"), (10_001, "scattergl")])
def test_the_map_of_many_images_is_drawn_by_webgl(n, kind):
    table = pd.concat([POINTS.iloc[:1]] * n, ignore_index=True)
    assert maps.noise_map(table, "").data[0].type == kind
    many = pd.concat([PLACED.iloc[:1]] * n, ignore_index=True)
    assert maps.embedding_map(many, "rank", "Rank", "").data[0].type == kind


def test_posterior_beside_votes_with_the_given_label_in_bold():
    figure = learn.posterior_bars(["a", "<i>"], np.array([0.25, 0.75]), np.array([1, 3]), given=1)
    model, votes = figure.data
    assert model.y == ("a", "<b>&lt;i></b>")
    np.testing.assert_allclose(votes.x, [25, 75])
    assert votes.name == "annotations (n = 4)"
    assert len(learn.posterior_bars(["a", "b"], np.ones(2) / 2, np.zeros(2), given=-1).data) == 1


def test_long_curves_are_thinned_to_their_ends():
    table = pd.DataFrame({"n_labels": np.arange(5000), "mean": 0.5, "sd": 0.0})
    thin = style.thin(table)
    assert len(thin) <= 800
    assert thin["n_labels"].iloc[[0, -1]].tolist() == [0, 4999]


def test_the_small_print_is_wrapped_and_escaped():
    note = maps.distribution(bins([1.0, 2.0]), "margin", None, "a <b> " * 30).layout.annotations[0].text
    assert "&lt;b>" in note
    assert max(len(line.replace("&lt;", "<")) for line in note.split("<br>")) <= style.NOTE_WIDTH


def bounds(sd=0.0):
    return pd.DataFrame({"policy": "random", "n_labels": [10, 20], "mean": [0.5, 0.6], "sd": sd})


@pytest.mark.parametrize(
    ("build", "x", "y"),
    [
        (lambda note: curves.learning_curves(curve("accuracy", [0]), 0, note), "Labelled images", "Test accuracy (%)"),
        (lambda note: curves.cleaning_curves(curve("correctness", [0]), bounds(), 10, note),
         "Collected labels", "Correct majority labels (%)"),
        (lambda note: maps.distribution(bins([1.0, 2.0]), "entropy", None, note),
         "Entropy: H(p) = −Σ p ln p (nats)", "Images"),
        (lambda note: maps.distribution(bins([0.1, 0.2]), "self-confidence", None, note),  # without a unit
         "Self-confidence (1 − p): 1 − p[label]", "Images"),
        (lambda note: maps.embedding_map(PLACED, "rank", "Rank", note), "t-SNE 1 (no unit)", "t-SNE 2 (no unit)"),
        (lambda note: maps.noise_map(POINTS, note), "Ambiguity H(p) (nats)", "Noisiness CE(l̂, p) (nats)"),
    ],
)  # fmt: skip
def test_axes_say_quantity_and_unit_and_the_note_stands_below(build, x, y):
    figure = build("four images\nrun x")
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == (x, y)
    assert figure.layout.annotations[-1].text == "four images<br>run x"


def test_posterior_bars_are_shares_in_percent():
    figure = learn.posterior_bars(["a", "b & c"], np.array([0.25, 0.75]), np.zeros(2), given=0)
    assert figure.layout.xaxis.title.text == "Share (%)"
    np.testing.assert_allclose(figure.data[0].x, [25, 75])
    assert figure.data[0].y == ("<b>a</b>", "b &amp; c")


def test_cleaning_curves_are_means_in_percent_with_a_band_over_seeds():
    one, several = (
        curves.cleaning_curves(curve("correctness", seeds, slope=0.1), bounds(), None, "") for seeds in ([0], [0, 2])
    )
    assert [trace.fill for trace in one.data] == [None, None]  # the bound has no spread here, the run has one seed
    assert [trace.fill for trace in several.data] == [None, "toself", None]
    np.testing.assert_allclose(several.data[2].y, [50, 70])
    np.testing.assert_allclose(sorted(several.data[1].y)[-1], 70 + 100 * np.std([0.6, 0.8], ddof=1))
    spread = curves.cleaning_curves(curve("correctness", [0]), bounds(sd=0.1), None, "")
    np.testing.assert_allclose(spread.data[0].y, [60, 70, 50, 40])  # there along the upper edge, back along the lower


def test_a_band_belongs_to_its_line_and_has_no_entry_of_its_own():
    band, line = curves.learning_curves(curve("accuracy", [0, 1], slope=0.1), None, "").data
    assert band.legendgroup == line.legendgroup
    assert band.showlegend is False
    assert band.fillcolor == line.line.color


@pytest.mark.parametrize("methods", [list(strategies.CATALOGUE), list(spec.scores())])
def test_methods_of_a_task_have_looks_of_their_own_the_same_in_every_figure(methods):
    """Colour and dashes together tell methods apart: there are fewer colours than strategies."""
    found = []
    for method in methods:
        learning = curves.learning_curves(curve("accuracy", [0]).assign(method=method), None, "").data[-1]
        cleaning = curves.cleaning_curves(curve("correctness", [0]).assign(method=method), bounds(), None, "").data[-1]
        together = curves.compared(compared([method]), "", "%", "").data[-1]
        histogram = maps.distribution(bins([0.1, 0.2]), method, None, "").data[0]
        assert learning.line.color == cleaning.line.color == together.line.color == histogram.marker.color, method
        assert learning.marker.symbol == together.marker.symbol
        found.append((learning.line.color, learning.line.dash))
    assert len(set(found)) == len(methods)


def compared(methods, seeds=3, sd=1.0):
    return pd.concat([pd.DataFrame({"method": m, "cycle": [0, 1], "n_labels": [10, 20], "mean": [50.0, 60.0 + i],
                                    "sd": sd, "n_seeds": seeds}) for i, m in enumerate(methods)])  # fmt: skip


def test_strategies_side_by_side_in_their_own_unit_with_the_level_of_a_random_choice():
    level = pd.DataFrame({"n_labels": [10, 20], "random": [5.0, 6.0]})
    figure = curves.compared(compared(["random", "egl"]), "Share (%)", "%", "note", level)
    names = [trace.name for trace in figure.data if trace.name]
    assert names == ["a random choice", "random", "egl"]
    np.testing.assert_array_equal(figure.data[0].y, [5, 6])
    line, band = figure.data[-1], figure.data[-2]
    np.testing.assert_allclose(line.y, [50, 61])
    np.testing.assert_allclose(band.y, [51, 62, 60, 49])
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("Labelled images", "Share (%)")
    assert figure.layout.annotations[-1].text == "note"


def test_the_legend_counts_seeds_where_strategies_differ_in_them():
    table = pd.concat([compared(["random"]), compared(["egl"], seeds=1, sd=np.nan)])
    figure = curves.compared(table, "", "%", "")
    assert [trace.name for trace in figure.data if trace.name] == ["random (n = 3)", "egl (n = 1)"]
    assert [trace.fill for trace in figure.data] == ["toself", None, None]  # one seed has no band


def test_bands_of_many_strategies_are_lighter():
    few, many = (
        curves.compared(compared(methods), "", "%", "").data[0] for methods in (["egl"], list(strategies.CATALOGUE))
    )
    assert many.opacity < few.opacity


def test_differences_have_intervals_and_a_zero_line():
    table = pd.DataFrame(
        {
            "method": ["egl", "margin", "vaal"],
            "baseline": "random",
            "difference": [1.0, -2.0, np.nan],
            "low": [0.5, np.nan, np.nan],
            "high": [2.5, np.nan, np.nan],
            "n_seeds": [3, 1, 0],
            "said": ["better", "too few seeds", "too few seeds"],
        }
    )
    figure = curves.differences(table, "note")
    several, single = figure.data  # a strategy without a pair has no dot
    assert (several.error_x.array[0], several.error_x.arrayminus[0]) == (1.5, 0.5)
    assert several.y == ("egl (n = 3)",)
    assert several.error_x.visible
    assert not single.error_x.visible
    assert single.marker.symbol == "circle-open"
    assert [shape.x0 for shape in figure.layout.shapes] == [0]
    assert figure.layout.xaxis.title.text == "Accuracy above random (points)"
    assert figure.layout.annotations[-1].text == "note"


def test_the_mark_stands_where_the_cycle_stands():
    marked = curves.learning_curves(curve("accuracy", [0]), 1, "")
    assert [shape.x0 for shape in marked.layout.shapes] == [20]
    assert not curves.learning_curves(curve("accuracy", [0]), 7, "").layout.shapes  # no such cycle yet
    cut = maps.distribution(bins([0.1, 0.2]), "margin", 0.15, "")
    assert [shape.x0 for shape in cut.layout.shapes] == [0.15]
    assert not maps.distribution(bins([0.1, 0.2]), "margin", None, "").layout.shapes


def test_the_histogram_shows_what_filters_leave_out_in_grey():
    kept, hidden = maps.distribution(bins([0.1, 0.2], kept=[1, 0]), "margin", None, "").data
    assert (list(kept.y), list(hidden.y)) == ([1, 0], [0, 1])
    assert hidden.marker.color == style.GREY


def test_a_cell_of_the_confusion_says_its_classes_and_its_number():
    table = pd.DataFrame([[5, 1], [0, 7]], index=["<b>a", "b"], columns=["<b>a", "b"])
    heat, cells = maps.confusion(table, "note").data
    assert cells.text == ("5", "1", "", "7")
    assert cells.customdata[1] == ["<b>a", "b"]
    assert cells.hovertext[1] == "given &lt;b>a<br>suggested b<br>1 image"
    np.testing.assert_array_equal(heat.z, [[np.nan, 1], [0, np.nan]])  # the diagonal is agreement: no colour


def test_the_confusion_of_many_classes_is_its_most_frequent_pairs():
    """30 classes: the model takes each for the next one, the k-th k times; nobody has labelled 99 images."""
    names = [f"class {k:02}" for k in range(29)] + ["<b>a class with a long name"]
    counts = np.diag(np.full(30, 50)) + np.diag(np.arange(1, 30), k=1)
    table = pd.DataFrame(np.vstack([counts, np.full(30, 99)]), index=[*names, "—"], columns=names)
    drawn = maps.confusion(table, "note")
    (bars,) = drawn.data
    assert list(bars.x) == list(range(29, 9, -1))
    assert bars.customdata[1] == ["class 27", "class 28"]
    assert drawn.layout.yaxis.ticktext[:2] == ("class 28 → &lt;b>a class wi…", "class 27 → class 28")
    small = drawn.layout.annotations[-1].text.replace("<br>", " ")
    assert "given → suggested: the 20 most frequent of 29 pairs that differ, 390 of 435 images" in small


def test_many_classes_that_all_agree_are_an_empty_list():
    names = [f"class {k}" for k in range(40)]
    drawn = maps.confusion(pd.DataFrame(np.eye(40, dtype=int), index=names, columns=names), "note")
    assert len(drawn.data[0].x) == 0
    assert "all 0 pairs that differ, 0 of 0 images" in drawn.layout.annotations[-1].text.replace("<br>", " ")


def test_an_image_without_a_label_disagrees_with_nothing():
    heat, _ = maps.confusion(pd.DataFrame([[5, 1], [90, 70]], index=["a", "—"], columns=["a", "b"]), "note").data
    np.testing.assert_array_equal(heat.z, [[np.nan, 1], [np.nan, np.nan]])


def test_a_map_of_images_of_unknown_kind_counts_them():
    (points,) = maps.noise_map(POINTS.assign(kind=""), "").data
    assert points.name == "image (3)"


def test_places_show_every_image_once_in_per_cent():
    table = pd.DataFrame(
        {
            "sample_id": ["a", "b", "<i>c"],
            "place_first": [0.0, 0.5, 1.0],
            "place_second": [1.0, 0.5, 0.25],
            "kind": ["correct", "clear noise", "correct"],
        }
    )
    drawn = maps.places(table, "Φ", "BALD", "note")
    assert [trace.name for trace in drawn.data] == ["correct (2)", "clear noise (1)"]
    assert list(drawn.data[0].x) == [0, 100]
    assert list(drawn.data[0].y) == [100, 25]
    assert drawn.data[0].text[1] == "&lt;i>c"
    assert "BALD" in drawn.layout.yaxis.title.text


def test_policies_are_named_with_their_areas_and_keep_their_colours():
    x = [0, 1, 2]
    curves = pd.concat(
        pd.DataFrame({"policy": name, "n_labels": x, "mean": [0.7, 0.75, 0.8], "sd": 0.01, "low": 0.68, "high": 0.72})
        for name in ("oracle", "random", "elr")
    )
    areas = pd.DataFrame({"policy": ["oracle", "random", "elr"], "auc": [0.9, 0.8, 0.85]})
    for band in ("sd", "interval"):
        drawn = policy_curves(curves, areas, band, "note")
        lines = {trace.name: trace.line.color for trace in drawn.data if trace.name}
        assert lines["oracle (upper bound) · AUC 0.900"] == style.BLUE
        assert lines["elr · AUC 0.850"] == methods.drawn("elr").colour
