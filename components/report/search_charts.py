"""The charts of a search: trials in order, what they cost, the front of several objectives, learning curves, settings as
parallel coordinates, and strategies side by side. Drawn with `charts`; colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from components.report.charts import Axis, Plot, Point, cut, drawing, nice_ticks, tag, tick_text, written

STYLES = {"complete": "c1", "pruned": "c1 hollow", "infeasible": "bad hollow"}
MANY = 60  # trials; of more the dots are smaller


@dataclass(frozen=True)
class TrialMark:
    """One trial of a chart: its value (None where it has none), what its tooltip says, and its state (`infeasible` for
    one that misses a constraint)."""

    number: int
    value: float | None
    tip: str
    state: str = "complete"


# ---- trials in order and by cost ------------------------------------------------------------------------------


def history(
    label: str, trials: Sequence[TrialMark], *, y: str, maximize: bool, best: int | None, rounds: Sequence[tuple[int, str]] = ()
) -> Markup:
    """Each trial's value by number with the best so far as a staircase; a cross at the foot for one without value.

    `rounds` are the numbers at which a new round began, with its name.
    """
    values = _compared(trials)
    x_axis = Axis("trial", -0.6, max((t.number for t in trials), default=0) + 0.6, ticks=_whole([t.number for t in trials]))
    plot = Plot(label, x_axis, _without_outliers(y, values, maximize))
    for number, name in rounds:
        plot.line([(number - 0.5, plot.y.low), (number - 0.5, plot.y.high)], "faint", dashed=True)
        plot.words(number - 0.5, plot.y.high, name, dx=4, dy=11)
    plot.steps([(x, _clip(plot.y, value)) for x, value in best_so_far(trials, maximize)], "faint", x_axis.high)
    radius = 4.2 if len(trials) <= MANY else 2.8
    for trial in trials:
        if trial.value is None:
            plot.cross(trial.number, plot.y.low + (plot.y.high - plot.y.low) * 0.03, "bad", trial.tip)
        else:
            is_best = trial.number == best
            css = "hot" if is_best else STYLES.get(trial.state, "c1 hollow")
            plot.dot(trial.number, _clip(plot.y, trial.value), css, trial.tip, 6.0 if is_best else radius)
    return plot.svg()


def best_so_far(trials: Sequence[TrialMark], maximize: bool) -> list[Point]:
    """Where the best value of the complete, feasible trials improved."""
    stairs: list[Point] = []
    for trial in trials:
        if trial.state != "complete" or trial.value is None:
            continue
        if not stairs or (trial.value != stairs[-1][1] and (trial.value > stairs[-1][1]) == maximize):
            stairs.append((float(trial.number), trial.value))
    return stairs


def scatter(label: str, trials: Sequence[tuple[float, TrialMark]], *, x: str, y: str, maximize: bool, best: int | None) -> Markup:
    """Each trial's value against what it costs (log scale), the best one marked."""
    valued = [(cost, trial) for cost, trial in trials if trial.value is not None and cost > 0]
    up = _without_outliers(y, _compared([trial for _, trial in valued]), maximize)
    plot = Plot(label, Axis.over(f"{x} (log scale)", [cost for cost, _ in valued], log=True), up)
    for cost, trial in sorted(valued, key=lambda pair: pair[1].number == best):
        is_best = trial.number == best
        css = "hot" if is_best else STYLES.get(trial.state, "c1 hollow")
        plot.dot(cost, _clip(plot.y, trial.value or 0.0), css, trial.tip, 6.0 if is_best else 4.2)
    return plot.svg()


def _compared(trials: Sequence[TrialMark]) -> list[float]:
    """The values that an axis is made for: of the trials that can be compared, unless there are too few."""
    ended = [t.value for t in trials if t.value is not None and t.state == "complete"]
    return ended if len(ended) > 1 else [t.value for t in trials if t.value is not None]


def _whole(numbers: Sequence[int]) -> tuple[float, ...]:
    top = max(numbers, default=0)
    step = max(1, round(top / 8))
    return tuple(float(n) for n in range(0, top + 1, step))


def _clip(axis: Axis, value: float) -> float:
    return min(max(value, axis.low), axis.high)


def _without_outliers(label: str, values: Sequence[float], maximize: bool) -> Axis:
    """An axis whose bad end stops at three times the spread between the best value and the median, so that one
    trial that learned nothing does not flatten the rest (it is drawn on the edge, its tooltip tells its value)."""
    if len(values) < 4:
        return Axis.over(label, values)
    ordered = sorted(values, reverse=maximize)
    best, median = ordered[0], ordered[len(ordered) // 2]
    limit = median - 3 * (best - median)
    kept = [v for v in values if (v >= limit) == maximize or v == limit] if limit != best else list(values)
    return Axis.over(label, kept)


# ---- several objectives ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """One axis of a front: its name, which end is better, and the limit a constraint sets (None: there is none)."""

    name: str
    maximize: bool
    limit: float | None = None


@dataclass(frozen=True)
class FrontMark:
    """One trial by two of its objectives."""

    x: float
    y: float
    tip: str
    state: str
    on_front: bool
    is_best: bool


def front(label: str, trials: Sequence[FrontMark], x: Objective, y: Objective, *, stairs: bool) -> Markup:
    """Trials by two objectives, those that no other beats joined by a staircase; a dashed line where a constraint ends.

    `stairs` is false when there are further objectives: what lies behind the staircase may be ahead in them.
    """
    plot = Plot(label, _front_axis(x, [t.x for t in trials]), _front_axis(y, [t.y for t in trials]), grid_x=True)
    leading = sorted((t for t in trials if t.on_front), key=lambda t: -t.x if x.maximize else t.x)
    if stairs:
        ahead = [t for i, t in enumerate(leading) if all((t.y > o.y) == y.maximize and t.y != o.y for o in leading[:i])]
        plot.steps([(_clip(plot.x, t.x), _clip(plot.y, t.y)) for t in ahead], "faint", plot.x.low if x.maximize else plot.x.high)
    if x.limit is not None and plot.x.low < x.limit < plot.x.high:
        plot.line([(x.limit, plot.y.low), (x.limit, plot.y.high)], "strong", dashed=True, tip=f"{x.name}: the constraint is {x.limit:g}")
    if y.limit is not None and plot.y.low < y.limit < plot.y.high:
        plot.line([(plot.x.low, y.limit), (plot.x.high, y.limit)], "strong", dashed=True, tip=f"{y.name}: the constraint is {y.limit:g}")
    for mark in sorted(trials, key=lambda t: (t.on_front, t.is_best)):
        css = "hot" if mark.on_front and mark.state == "complete" else STYLES.get(mark.state, "c1 hollow")
        plot.dot(_clip(plot.x, mark.x), _clip(plot.y, mark.y), css, mark.tip, 6.5 if mark.is_best else 4.4)
    return plot.svg()


def _front_axis(objective: Objective, values: Sequence[float]) -> Axis:
    """A log scale for a cost that spreads over more than a power of ten; outliers at the bad end stay on the edge."""
    if not objective.maximize and min(values) > 0 and max(values) / min(values) > 12:
        return Axis.over(f"{objective.name} (log scale)", values, log=True)
    return _without_outliers(objective.name, values, objective.maximize)


# ---- learning curves ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Climb:
    """One trial's values at the rungs it reached: (epochs, value)."""

    points: Sequence[Point]
    css: str
    tip: str


def rungs(label: str, climbs: Sequence[Climb], *, y: str, maximize: bool) -> Markup:
    """Values by epochs (log scale), a line a trial and a dot where it was compared with others; the last lies on top."""
    epochs = sorted({x for climb in climbs for x, _ in climb.points})
    values = [value for climb in climbs for _, value in climb.points]
    base = Axis.over("epochs (log scale)", epochs, log=True)
    plot = Plot(label, Axis(base.label, base.low, base.high, log=True, ticks=tuple(epochs)), _without_outliers(y, values, maximize))
    for climb in climbs:
        points = [(x, _clip(plot.y, value)) for x, value in climb.points]
        plot.line(points, climb.css, tip=climb.tip)
        for x, value in points:
            plot.dot(x, value, climb.css.split()[0], climb.tip, 4.0 if "hot" in climb.css else 2.8)
    return plot.svg()


# ---- settings -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dimension:
    """One upright axis of a parallel coordinates chart: where each trial lies on it (None: it has no such setting).

    `places` are 0 (foot) to 1 (top), by trial number; `ticks` the places that carry a label.
    """

    name: str
    places: dict[int, float]
    ticks: tuple[tuple[float, str], ...]


def parallel(label: str, dimensions: Sequence[Dimension], numbers: Sequence[int], tips: dict[int, str], grades: dict[int, str]) -> Markup:
    """One line a trial across all settings; drawn in the order of `numbers`, so that the last lies on top."""
    step, left, top, bottom = 118.0, 56.0, 40.0, 250.0
    width = left * 2 + step * (len(dimensions) - 1)
    parts: list[str] = []
    for number in numbers:
        path, pen = "", "M"
        for i, dimension in enumerate(dimensions):
            if number not in dimension.places:
                pen = "M"
                continue
            path += f"{pen}{left + i * step:.1f} {bottom - dimension.places[number] * (bottom - top):.1f}"
            pen = "L"
        if path:
            parts.append(tag("path", f"line {grades.get(number, 'faint')}", tips.get(number, ""), d=path))
    for i, dimension in enumerate(dimensions):
        x = left + i * step
        parts.append(f'<path class="axis" d="M{x:.1f} {top}V{bottom}"/>')
        parts.append(written(x, 18, cut(dimension.name, 17), "label", "middle"))
        for place, text in dimension.ticks:
            y = bottom - place * (bottom - top)
            parts.append(f'<path class="axis" d="M{x - 3:.1f} {y:.1f}h6"/>')
            parts.append(written(x + 6, y - 4, cut(text, 14), "tick halo"))
    return drawing(label, width + 30, bottom + 14, parts)


# ---- strategies side by side ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Racer:
    """A strategy's best value so far against what was spent: the mean of its seeds."""

    name: str
    points: Sequence[Point]


def race(label: str, racers: Sequence[Racer], hot: str, beside: str, *, x: str, low: float, high: float) -> Markup:
    """One strategy (`hot`) before all others: faint lines, and dashed the one they are held against (`beside`).

    `low` and `high` bound the y axis, so that the charts of all strategies can be compared.
    """
    end = max(point[0] for racer in racers for point in racer.points)
    whole = tuple(mark for mark in nice_ticks(0.0, end, 4) if mark == int(mark))  # no trial is half a trial
    across = Axis(x, 0.0, end, ticks=whole if len(whole) > 1 else ())
    plot = Plot(label, across, Axis("", low, high), width=300.0, height=190.0, x_ticks=4, y_ticks=4)
    for racer in sorted(racers, key=lambda r: (r.name == hot, r.name == beside)):
        css = "hot thick" if racer.name == hot else "strong" if racer.name == beside else "faint thin"
        points = [(px, _clip(plot.y, py)) for px, py in racer.points]
        last = points[-1][1] if points else 0.0
        plot.line([*points, (end, last)], css, dashed=racer.name == beside != hot, tip=f"{racer.name}: {tick_text(round(last, 4))}")
    return plot.svg()
