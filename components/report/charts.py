"""Charts as inline SVG: a small plot with axes, marks and tooltips, and the charts that the report is made of.

No plotting library: a page of charts takes milliseconds, needs no network and follows the reader's light or dark
theme, because marks carry classes (`c1` first series, `c2` second, `hot` the one to look at, `bad` what went wrong)
whose colours the page's style sheet decides. Every mark with something to say has a `<title>`.

Coordinates are pixels of the view box, x to the right and y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

Point = tuple[float, float]

CHARACTER = 6.9  # mean width of a tick label's character, px
GAP = 8.0  # between an axis and its labels, px
LABEL = 18  # characters of a class name that a confusion matrix shows


# ---- scales ---------------------------------------------------------------------------------------------------


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) that lie within low..high, about `wanted` of them.

    >>> nice_ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / max(wanted, 1)
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if rough <= m * power * 1.0001)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within low..high; between them 2 and 5 times each where there would be fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [10.0**p for p in powers if low * 0.999 <= 10.0**p <= high * 1.001]
    if len(within) >= 3:
        return within[:: math.ceil(len(within) / 6)]
    finer = [m * 10.0**p for p in powers for m in (1, 2, 5) if low * 0.999 <= m * 10.0**p <= high * 1.001]
    return finer or [low, high]


def tick_text(value: float) -> str:
    """A tick's label: no more digits than it needs.

    >>> [tick_text(v) for v in (0.0, 0.95, 20000, 1e-4)]
    ['0', '0.95', '20k', '1e-4']
    """
    size = abs(value)
    if size >= 10_000:
        power, unit = (1e6, "M") if size >= 1e6 else (1e3, "k")
        return f"{value / power:.4g}{unit}"
    if 0 < size < 0.001:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}"


@dataclass(frozen=True)
class Axis:
    """One direction of a plot: what it shows, from where to where."""

    label: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()
    text: Callable[[float], str] = tick_text

    @classmethod
    def over(cls, label: str, values: Iterable[float], *, log: bool = False, pad: float = 0.06, zero: bool = False) -> Axis:
        """An axis that holds all finite values with a little room; `zero` makes it start at zero."""
        kept = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [0.1 if log else 0.0, 1.0]
        low, high = min(kept), max(kept)
        if log:
            room = (high / low) ** pad if high > low else 2.0
            return cls(label, low / room, high * room, log=True)
        if high == low:
            low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
        room = (high - low) * pad
        return cls(label, 0.0 if zero else low - room, high + room)

    def at(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high end."""
        if self.log:
            return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def marks(self, wanted: int) -> list[float]:
        """The values to label."""
        if self.ticks:
            return list(self.ticks)
        return log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high, wanted)


# ---- a plot ---------------------------------------------------------------------------------------------------


@dataclass
class Plot:
    """A frame with two axes that marks are added to. `label` is what a screen reader says of it."""

    label: str
    x: Axis
    y: Axis
    width: float = 460.0
    height: float = 280.0
    top: float = 12.0
    right: float = 14.0
    x_ticks: int = 6
    y_ticks: int = 5
    grid_x: bool = False
    _marks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        widest = max((len(self.y.text(v)) for v in self.y.marks(self.y_ticks)), default=1)
        self.left = GAP + widest * CHARACTER + (18 if self.y.label else 2)
        self.bottom = self.height - (40 if self.x.label else 24)

    def px(self, x: float) -> float:
        return self.left + self.x.at(x) * (self.width - self.right - self.left)

    def py(self, y: float) -> float:
        return self.bottom - self.y.at(y) * (self.bottom - self.top)

    def line(self, points: Sequence[Point], css: str, *, dashed: bool = False, tip: str = "") -> None:
        """A line through the points; a point that is not finite interrupts it."""
        path, pen = [], "M"
        for x, y in points:
            if not (math.isfinite(x) and math.isfinite(y)):
                pen = "M"
                continue
            path.append(f"{pen}{self.px(x):.1f} {self.py(y):.1f}")
            pen = "L"
        if path:
            self._marks.append(tag("path", f"line {css}{' dashed' if dashed else ''}", tip, d="".join(path)))

    def steps(self, points: Sequence[Point], css: str, until: float) -> None:
        """A staircase: each value holds until the next point, the last one until `until`."""
        stairs: list[Point] = []
        for x, y in points:
            if stairs:
                stairs.append((x, stairs[-1][1]))
            stairs.append((x, y))
        if stairs:
            stairs.append((until, stairs[-1][1]))
        self.line(stairs, css)

    def dot(self, x: float, y: float, css: str, tip: str = "", radius: float = 4.0) -> None:
        if math.isfinite(x) and math.isfinite(y):
            self._marks.append(tag("circle", f"dot {css}", tip, cx=self.px(x), cy=self.py(y), r=radius))

    def cross(self, x: float, y: float, css: str, tip: str = "", size: float = 3.6) -> None:
        """A small cross at a place of the plot, for what has no value."""
        cx, cy = self.px(x), self.py(y)
        path = f"M{cx - size:.1f} {cy - size:.1f}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} {2 * size}"
        self._marks.append(tag("path", f"line {css}", tip, d=path))

    def bar(self, x_low: float, x_high: float, y: float, css: str, tip: str = "") -> None:
        """A vertical bar from the low end of the y axis up to `y`."""
        left, right, top = self.px(x_low), self.px(x_high), self.py(y)
        gap = min(1.0, (right - left) / 6)
        shape = {"x": left + gap, "y": top, "width": max(right - left - 2 * gap, 0.5), "height": max(self.bottom - top, 0.0)}
        self._marks.append(tag("rect", f"fill {css}", tip, **shape, rx=1.5))

    def whisker(self, x: float, low: float, high: float, css: str) -> None:
        """A vertical interval with caps."""
        cx, top, bottom = self.px(x), self.py(high), self.py(low)
        path = f"M{cx:.1f} {bottom:.1f}V{top:.1f}M{cx - 4:.1f} {top:.1f}h8M{cx - 4:.1f} {bottom:.1f}h8"
        self._marks.append(tag("path", f"whisker {css}", "", d=path))

    def words(self, x: float, y: float, text: str, css: str = "", *, anchor: str = "start", dx: float = 0.0, dy: float = 0.0) -> None:
        """Text at a place of the plot, moved by dx and dy pixels."""
        self._marks.append(written(self.px(x) + dx, self.py(y) + dy, text, f"note {css}".strip(), anchor))

    def svg(self) -> Markup:
        """The whole chart."""
        return drawing(self.label, self.width, self.height, [*self._frame(), *self._marks])

    def _frame(self) -> list[str]:
        end = self.width - self.right
        parts = [f'<path class="axis" d="M{self.left:.1f} {self.bottom:.1f}H{end:.1f}"/>']
        for value in self.y.marks(self.y_ticks):
            at = self.py(value)
            parts.append(f'<path class="grid" d="M{self.left:.1f} {at:.1f}H{end:.1f}"/>')
            parts.append(written(self.left - GAP, at + 4, self.y.text(value), "tick", "end"))
        for value in self.x.marks(self.x_ticks):
            at = self.px(value)
            if self.grid_x:
                parts.append(f'<path class="grid" d="M{at:.1f} {self.top}V{self.bottom:.1f}"/>')
            parts.append(written(at, self.bottom + 16, self.x.text(value), "tick", "middle"))
        if self.x.label:
            parts.append(written((self.left + end) / 2, self.height - 5, self.x.label, "label", "middle"))
        if self.y.label:
            middle = (self.top + self.bottom) / 2
            turned = f'transform="rotate(-90 11 {middle:.1f})"'
            parts.append(written(11, middle, self.y.label, "label", "middle", turned))
        return parts


def drawing(label: str, width: float, height: float, parts: Iterable[str]) -> Markup:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return Markup(f'<svg class="chart" role="img" aria-label="{escape(label)}" {size}>{"".join(parts)}</svg>')


def tag(name: str, css: str, tip: str, **shape: str | float) -> str:
    places = " ".join(f'{key}="{value:.1f}"' if isinstance(value, float) else f'{key}="{value}"' for key, value in shape.items())
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<{name} class="{css}" {places}>{inside}</{name}>' if inside else f'<{name} class="{css}" {places}/>'


def written(x: float, y: float, text: str, css: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'


# ---- the charts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """One named line of a chart: points (x, y), its colour class, dashed or not."""

    name: str
    points: Sequence[Point]
    css: str = "c1"
    dashed: bool = False


def curves(label: str, lines: Sequence[Curve], *, x: str, y: str, log: bool = False) -> Markup:
    """Lines over a shared x axis, each point with its value as a tooltip."""
    drawn = [p for line in lines for p in line.points if math.isfinite(p[1])]
    x_axis = Axis.over(x, [p[0] for p in drawn], pad=0.02)
    plot = Plot(label, x_axis, Axis.over(y, [p[1] for p in drawn], log=log))
    for line in lines:
        plot.line(line.points, line.css, dashed=line.dashed)
        # Many points would hide the line: they show when the reader points at them.
        quiet = " quiet" if len(line.points) > 16 else ""
        for px, py in line.points[:: max(1, len(line.points) // 200)]:
            plot.dot(px, py, f"{line.css}{quiet}", f"{line.name}\n{x} {tick_text(px)}: {py:.4f}", radius=4.0 if quiet else 2.6)
    return plot.svg()


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def confusion(label: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """Rows the true class, columns the predicted one; right answers in the series' colour, mistakes in the alarm's.

    A cell is as strong as its share of its row; cells hold counts where they fit.
    """
    size = len(classes)
    cell = max(7.0, min(46.0, 400.0 / size))
    longest = max(len(name) for name in classes)
    named = size <= 30
    left = 26.0 + (min(longest, LABEL) * CHARACTER if named else 0)
    foot = (min(longest, LABEL) * CHARACTER * 0.72 + 14 if longest > 3 else 16) if named else 4
    parts = []
    for i, row in enumerate(counts):
        total = sum(row) or 1
        for j, value in enumerate(row):
            x, y = left + j * cell, 8 + i * cell
            parts += _confusion_cell(
                x, y, cell, value, value / total, i == j, f"true {classes[i]}, predicted {classes[j]}: {value} of {total}"
            )
        if named:
            parts.append(written(left - 6, 8 + (i + 0.5) * cell + 4, cut(classes[i], LABEL), "tick", "end"))
            parts.append(_under(left + (i + 0.5) * cell, 8 + size * cell + 14, cut(classes[i], LABEL), longest > 3))
    width, height = left + size * cell + 10, 8 + size * cell + foot + 22
    parts.append(written(left + size * cell / 2, height - 4, "predicted", "label", "middle"))
    middle = 8 + size * cell / 2
    parts.append(written(11, middle, "true", "label", "middle", f'transform="rotate(-90 11 {middle:.1f})"'))
    return drawing(label, width, height, parts)


def _confusion_cell(x: float, y: float, cell: float, value: int, share: float, right: bool, tip: str) -> list[str]:
    if not value:
        return [tag("rect", "blank", "", x=x + 0.75, y=y + 0.75, width=cell - 1.5, height=cell - 1.5, rx=2)] if cell >= 12 else []
    strength = 0.14 + 0.86 * share if right else min(1.0, 0.25 + 2.2 * share)
    shape = {"x": x + 0.75, "y": y + 0.75, "width": cell - 1.5, "height": cell - 1.5}
    parts = [tag("rect", f"fill {'c1' if right else 'bad'}", tip, **shape, rx=2, style=f"fill-opacity:{strength:.2f}")]
    if cell >= 18:
        shade = "count strong" if strength > 0.55 else "count"
        parts.append(written(x + cell / 2, y + cell / 2 + 4, f"{value}", shade, "middle"))
    return parts


def _under(x: float, y: float, text: str, slanted: bool) -> str:
    if not slanted:
        return written(x, y, text, "tick", "middle")
    return written(x + 4, y - 4, text, "tick", "end", f'transform="rotate(-45 {x + 4:.1f} {y - 4:.1f})"')


@dataclass(frozen=True)
class Bin:
    """Rows whose confidence lies in low..high: how many, their mean confidence and the share that was right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def reliability(label: str, bins: Sequence[Bin]) -> Markup:
    """Accuracy against confidence; the dashed line is perfect calibration, a dot's area its share of the rows."""
    low = min([b.low for b in bins if b.rows] + [0.5])
    axis = (math.floor(low * 5 + 1e-9) / 5, 1.0)
    plot = Plot(label, Axis("confidence", *axis), Axis("accuracy", 0.0, 1.04, ticks=(0.0, 0.25, 0.5, 0.75, 1.0)), right=18)
    plot.line([(axis[0], axis[0]), (1.0, 1.0)], "faint", dashed=True)
    filled = [b for b in bins if b.rows]
    total = sum(b.rows for b in filled) or 1
    plot.line([(b.confidence, b.accuracy) for b in filled], "c1")
    for b in filled:
        plot.whisker(b.confidence, *_wilson(b.accuracy, b.rows), "c1")
    for b in filled:
        tip = f"confidence {b.low:.2f} to {b.high:.2f}: {b.rows} rows\nmean confidence {b.confidence:.3f}, right {b.accuracy:.3f}"
        plot.dot(b.confidence, b.accuracy, "c1", tip, 3.0 + 9.0 * math.sqrt(b.rows / total))
    return plot.svg()


def _wilson(share: float, rows: int, z: float = 1.96) -> Point:
    """Wilson's 95 % interval of a share of `rows` rows."""
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    middle, scale = share + z * z / (2 * rows), 1 + z * z / rows
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def histogram(label: str, edges: Sequence[float], counts: Sequence[int], *, x: str, y: str = "rows", mark: float | None = None) -> Markup:
    """Bars over equal bins; `mark` draws an upright line, such as zero for residuals."""
    up = Axis.over(y, [0, *counts], zero=True)
    whole = tuple(t for t in nice_ticks(up.low, up.high) if t == int(t))
    plot = Plot(label, Axis(x, edges[0], edges[-1]), Axis(y, up.low, up.high, ticks=whole))
    for low, high, value in zip(edges, edges[1:], counts):
        plot.bar(low, high, value, "c1", f"{tick_text(low)} to {tick_text(high)}: {value} {y}")
    if mark is not None and edges[0] < mark < edges[-1]:
        plot.line([(mark, 0), (mark, plot.y.high)], "strong", dashed=True)
    return plot.svg()


def agreement(label: str, points: Sequence[Point], *, x: str, y: str) -> Markup:
    """True value against predicted value; on the dashed line both are equal."""
    both = [v for p in points for v in p]
    plot = Plot(label, Axis.over(x, both, pad=0.03), Axis.over(y, both, pad=0.03), grid_x=True)
    for px, py in points:
        plot.dot(px, py, "c1 cloud", radius=2.2)
    plot.line([(plot.x.low, plot.x.low), (plot.x.high, plot.x.high)], "strong", dashed=True)
    return plot.svg()


@dataclass(frozen=True)
class Offer:
    """One deployable on the frontier: what it costs, its metric with interval, its tooltip, whether it was chosen."""

    name: str
    cost: float
    value: float
    low: float
    high: float
    tip: str
    chosen: bool


def frontier(label: str, offers: Sequence[Offer], *, x: str, y: str, allowed: float | None = None) -> Markup:
    """Metric with its interval against cost (log scale); the dashed line is the least good that could be chosen."""
    bounds = [v for o in offers for v in (o.low, o.high)] + ([allowed] if allowed is not None else [])
    costs = Axis.over(f"{x} (log scale)", [o.cost for o in offers], log=True, pad=0.3)
    plot = Plot(label, costs, Axis.over(y, bounds, pad=0.16))
    if allowed is not None:
        plot.line([(costs.low, allowed), (costs.high, allowed)], "strong", dashed=True, tip=f"the tolerance ends at {allowed:.4g}")
    for i, offer in enumerate(sorted(offers, key=lambda o: o.cost)):
        css = "hot" if offer.chosen else "c1"
        plot.whisker(offer.cost, offer.low, offer.high, css)
        plot.dot(offer.cost, offer.value, css, offer.tip, 6.0 if offer.chosen else 4.6)
        # Neighbours on the cost axis take turns above and below, so that their names do not meet.
        above = i % 2 == 0
        plot.words(offer.cost, offer.high if above else offer.low, offer.name, anchor="middle", dy=-7 if above else 16)
    return plot.svg()
