"""Charts: round ticks, honest marks, and SVG that a parser accepts."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from components.report import charts, search_charts

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def marks(svg: str, tag: str, css: str) -> list[ElementTree.Element]:
    return [e for e in parse(svg).iter(tag) if css in str(e.get("class")).split()]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 7.9), (0.913, 0.917), (1e-6, 4e-6), (0.0, 48_000.0)])
def test_ticks_are_round_ordered_and_inside(low: float, high: float) -> None:
    """Two to eight ticks, rising, within the axis."""
    ticks = charts.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert all(low - 1e-12 <= t <= high + 1e-12 for t in ticks)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-1), (12.0, 80.0), (3.0, 3.5)])
def test_log_ticks_lie_on_the_axis(low: float, high: float) -> None:
    """A log axis always has something to read it by."""
    ticks = charts.log_ticks(low, high)
    assert ticks
    assert all(low * 0.99 <= t <= high * 1.01 for t in ticks)


def test_axis_maps_ends_to_zero_and_one() -> None:
    """Linear and log axes put their ends at 0 and 1, a geometric mean in the middle of a log axis."""
    linear, log = charts.Axis("x", 2.0, 4.0), charts.Axis("x", 0.01, 1.0, log=True)
    assert (linear.at(2.0), linear.at(3.0), linear.at(4.0)) == (0.0, 0.5, 1.0)
    assert log.at(0.1) == pytest.approx(0.5)


def test_axis_over_equal_values_has_width() -> None:
    """A single value, zero or none at all still give an axis."""
    for values in ([5.0], [0.0, 0.0], [], [math.nan]):
        axis = charts.Axis.over("x", values)
        assert axis.high > axis.low


def test_line_is_interrupted_where_a_value_is_not_finite() -> None:
    """NaN in the middle of a curve gives two strokes, not a bridge."""
    svg = charts.curves("c", [charts.Curve("a", [(1, 0.1), (2, 0.2), (3, math.nan), (4, 0.4), (5, 0.5)])], x="epoch", y="loss")
    (line,) = marks(svg, "path", "line")
    assert str(line.get("d")).count("M") == 2
    assert "nan" not in svg


def test_history_marks_the_best_and_crosses_what_has_no_value() -> None:
    """One hot dot at the best trial, one cross per trial without a value, a staircase that never falls."""
    values = [0.5, None, 0.9, 0.7]
    trials = [search_charts.TrialMark(i, v, f"trial {i}") for i, v in enumerate(values)]
    svg = search_charts.history("h", trials, y="accuracy", maximize=True, best=2)
    assert [e.findtext("title") for e in marks(svg, "circle", "hot")] == ["trial 2"]
    assert [e.findtext("title") for e in marks(svg, "path", "bad")] == ["trial 1"]
    assert len(marks(svg, "circle", "c1")) == 2


def test_one_hopeless_trial_does_not_flatten_the_rest() -> None:
    """A loss of 1e6 beside losses near 0.1 stays on the chart, and the others keep most of its height."""
    values = [0.10, 0.12, 0.11, 0.13, 1e6]
    trials = [search_charts.TrialMark(i, v, "") for i, v in enumerate(values)]
    dots = marks(search_charts.history("h", trials, y="loss", maximize=False, best=0), "circle", "dot")
    heights = [float(str(dot.get("cy"))) for dot in dots]
    assert max(heights) - min(heights) > 100
    assert abs(heights[3] - heights[0]) > 60


def test_confusion_shows_every_count() -> None:
    """Counts of the matrix are readable in their cells, and tooltips name both classes."""
    counts = [[30, 2], [1, 17]]
    svg = charts.confusion("m", counts, ["cat", "dog"])
    assert sorted(int(e.text or 0) for e in marks(svg, "text", "count")) == [1, 2, 17, 30]
    assert "true cat, predicted dog: 2 of 32" in [e.findtext("title") for e in marks(svg, "rect", "bad")]


def test_confusion_of_many_classes_stays_small() -> None:
    """A hundred classes: no text in cells, empty cells not drawn."""
    svg = charts.confusion("m", np.eye(100, dtype=int).tolist(), [f"class number {i}" for i in range(100)])
    assert len(marks(svg, "rect", "fill")) == 100
    assert not marks(svg, "text", "count")
    assert len(svg) < 40_000


def test_names_from_data_are_escaped() -> None:
    """A class or column name is text, never markup."""
    evil = '<script>alert(1)</script>" onload="x'
    for svg in (
        charts.confusion(evil, [[1, 2], [3, 4]], [evil, "b"]),
        charts.histogram(evil, [0.0, 1.0, 2.0], [1, 2], x=evil),
        search_charts.parallel(evil, [search_charts.Dimension(evil, {0: 0.5}, ((0.5, evil),))] * 2, [0], {0: evil}, {}),
    ):
        assert "<script" not in svg
        assert parse(svg).tag == "svg"


def test_reliability_of_a_perfect_model_lies_on_its_corner() -> None:
    """Sure and always right: one dot at (1, 1), its interval below it."""
    svg = charts.reliability("r", [charts.Bin(0.9, 1.0, 50, 1.0, 1.0)])
    (dot,) = marks(svg, "circle", "dot")
    diagonal = next(e for e in marks(svg, "path", "faint"))
    assert str(diagonal.get("d")).endswith(f"{float(str(dot.get('cx'))):.1f} {float(str(dot.get('cy'))):.1f}")


def test_wilson_interval_agrees_with_a_reference() -> None:
    """9 of 10 right: 0.596 to 0.982 (Wilson 1927, as tabulated by statsmodels)."""
    low, high = charts._wilson(0.9, 10)
    assert (low, high) == (pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))


def test_frontier_names_every_offer_and_draws_the_tolerance() -> None:
    """Names, intervals and the tolerance line are there; the chosen one is hot."""
    offers = [charts.Offer("a", 10.0, 0.9, 0.88, 0.92, "", False), charts.Offer("b", 40.0, 0.91, 0.89, 0.93, "", True)]
    svg = charts.frontier("f", offers, x="size", y="accuracy", allowed=0.905)
    assert {e.text for e in marks(svg, "text", "note")} == {"a", "b"}
    assert len(marks(svg, "circle", "hot")) == 1
    assert len(marks(svg, "path", "dashed")) == 1


def test_best_so_far_counts_only_what_was_trained_to_the_end() -> None:
    """A pruned trial and one that misses a constraint never raise the staircase, however good they look."""
    states = [("complete", 0.5), ("pruned", 0.9), ("infeasible", 0.95), ("complete", 0.7), ("complete", 0.6)]
    trials = [search_charts.TrialMark(i, value, "", state) for i, (state, value) in enumerate(states)]
    assert search_charts.best_so_far(trials, maximize=True) == [(0.0, 0.5), (3.0, 0.7)]


def test_front_shows_who_leads_where_the_limit_is_and_who_misses_it() -> None:
    """One hot dot a trial on the front, a hollow one for what misses a constraint, a dashed line at the limit."""
    trials = [
        search_charts.FrontMark(1.0, 0.90, "a", "complete", True, False),
        search_charts.FrontMark(2.0, 0.95, "b", "complete", True, True),
        search_charts.FrontMark(2.5, 0.91, "c", "complete", False, False),
        search_charts.FrontMark(3.0, 0.97, "d", "infeasible", False, False),
    ]
    size, accuracy = search_charts.Objective("size", False, 2.8), search_charts.Objective("accuracy", True)
    svg = search_charts.front("f", trials, size, accuracy, stairs=True)
    assert [e.findtext("title") for e in marks(svg, "circle", "hot")] == ["a", "b"]
    assert [e.findtext("title") for e in marks(svg, "circle", "bad")] == ["d"]
    assert [e.findtext("title") for e in marks(svg, "path", "dashed")] == ["size: the constraint is 2.8"]


@pytest.mark.parametrize("maximize_x", [True, False])
@pytest.mark.parametrize("maximize_y", [True, False])
def test_no_trial_lies_beyond_the_staircase(maximize_x: bool, maximize_y: bool) -> None:
    """In every pair of directions the staircase runs through the front's trials and leaves all others on its worse side."""
    draw = np.random.default_rng(3)
    angle, radius = draw.uniform(0, 2 * np.pi, 40), draw.uniform(0.4, 0.5, 40)
    values = 0.5 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)  # a ring has a front on every side
    cost = values * np.where([maximize_x, maximize_y], -1, 1)
    leads = [not any((other <= own).all() and (other < own).any() for other in cost) for own in cost]
    trials = [search_charts.FrontMark(float(x), float(y), "", "complete", on, False) for (x, y), on in zip(values, leads)]
    svg = search_charts.front("f", trials, search_charts.Objective("x", maximize_x), search_charts.Objective("y", maximize_y), stairs=True)
    (stairs,) = marks(svg, "path", "faint")
    corners = {tuple(float(v) for v in corner.split()) for corner in str(stairs.get("d"))[1:].split("L")}
    hot = {(float(str(e.get("cx"))), float(str(e.get("cy")))) for e in marks(svg, "circle", "hot")}
    assert len(hot) == sum(leads) > 2
    assert hot <= corners


def test_learning_curves_end_where_the_trial_was_stopped() -> None:
    """One line a trial over the rungs it reached, a dot at each."""
    climbs = [search_charts.Climb([(1, 0.2)], "faint", "a"), search_charts.Climb([(1, 0.3), (3, 0.6), (9, 0.8)], "hot thick", "b")]
    svg = search_charts.rungs("r", climbs, y="accuracy", maximize=True)
    assert len(marks(svg, "circle", "faint")) == 1
    assert len(marks(svg, "circle", "hot")) == 3
    assert {"1", "3", "9"} <= {e.text for e in marks(svg, "text", "tick")}
