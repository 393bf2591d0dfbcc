"""Charts as inline SVG: plain functions from numbers to marks.

Colours and fonts come from the page's style sheet by class, so that one chart serves light, dark
and print. Two kinds: *charts* with axes, scaled as a whole, and *strips*, one table row high, whose
positions are percentages so that they fit any width without distorting text or dots.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from markupsafe import Markup

from ml_assets.core.evaluation import Bin, CostReport, Decile, Estimate
from ml_assets.report.words import money, number, percent

Point = tuple[float, float]

# One size for all charts: as wide as a small phone, so that text is never scaled far down.
_WIDTH, _HEIGHT = 360, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 26, 44

# PSI beyond this says no more than "large": bars end there, with an arrow.
PSI_SHOWN = 0.5
PSI_STABLE, PSI_LARGE = 0.1, 0.25


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, with ticks and their texts; linear, or stretched towards `low`.

    Strips keep `inset` per cent free at both ends, so that dots there are whole; bars need none.
    """

    low: float
    high: float
    ticks: tuple[float, ...] = ()
    percent: bool = False
    label: str = ""
    inset: float = 2.0
    stretched: bool = False

    def part(self, value: float) -> float:
        """Where a value lies, 0 to 1; values beyond an end lie at that end."""
        if math.isnan(value):
            return 0.0
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return math.sqrt(share) if self.stretched else share

    def text(self, tick: float) -> str:
        """The text of a tick: as short as the ticks' step allows."""
        if self.percent:
            return f"{100 * tick:.10g}\N{NO-BREAK SPACE}%"
        return f"{tick:,.10g}".replace("-", "\N{MINUS SIGN}")


def scale_of(
    values: Iterable[float | None],
    *,
    low: float | None = None,
    high: float | None = None,
    ticks: int = 4,
    percent: bool = False,
    label: str = "",
    inset: float = 2.0,
) -> Scale:
    """An axis with about that many round ticks that holds all values that are defined."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    bottom = low if low is not None else min(known, default=0.0)
    top = high if high is not None else max(known, default=1.0)
    if top - bottom < 1e-9:
        bottom, top = (bottom if low is not None else bottom - 0.5), top + 0.5
    rough = (top - bottom) / ticks
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first = bottom if low is not None else math.floor(bottom / step + 1e-9) * step
    last = top if high is not None else math.ceil(top / step - 1e-9) * step
    start, end = math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9)
    found = tuple(round(index * step, 10) + 0.0 for index in range(start, end + 1))
    return Scale(first, last, found, percent, label, inset)


UNIT = Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), percent=True)
HALVES = Scale(0.0, 1.0, (0.0, 0.5, 1.0), percent=True)


# Charts


def roc(points: Sequence[Point]) -> Markup:
    """The ROC curve: positives found against false alarms, at every threshold."""
    plane = _Plane(_named(UNIT, "false alarms"), _named(UNIT, "found"))
    body = _area(points, plane) if points else Markup("")
    body += _line([(0, 0), (1, 1)], plane, "guide")
    body += _label(plane, 0.6, 0.5, "a coin toss", "remark")
    if points:
        body += _line(points, plane, "curve")
    return plane.drawn(
        "roc",
        "ROC curve",
        f"Share of positives found against share of false alarms, {len(points)} points.",
        body,
    )


def precision_recall(points: Sequence[Point], share: float) -> Markup:
    """Precision against recall at every threshold; a guess would stay at the positives' share."""
    plane = _Plane(_named(UNIT, "recall"), _named(UNIT, "precision"))
    body = _line([(0, share), (1, share)], plane, "guide")
    body += _label(plane, 0.02, share + 0.03, f"a guess: {percent(share)}", "remark")
    if points:
        body += _line(points, plane, "curve")
    return plane.drawn(
        "pr",
        "Precision and recall",
        f"Precision against recall, {len(points)} points.",
        body,
    )


def reliability(key: str, title: str, bins: Sequence[Bin], top: float, mark: str) -> Markup:
    """Promised against realised share, with intervals; on the diagonal, promises were kept.

    Args:
        key: Names the chart in the page.
        title: For readers who cannot see it.
        bins: Rows of similar probability.
        top: End of both axes, so that two charts compare.
        mark: Style of the marks: `before` or `after`.
    """
    # Most probabilities are small, and so is the threshold: a linear axis piles them up in a
    # corner.
    ticks = tuple(tick for tick in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0) if tick <= top)
    axis = Scale(0.0, top, ticks, percent=True, stretched=True)
    plane = _Plane(_named(axis, "promised"), _named(axis, "realised"))
    body = _line([(0, 0), (top, top)], plane, "guide")
    for one in bins:
        if one.realised.value is None:
            continue
        at = plane.x(one.promised)
        told = Markup("<title>{}</title>").format(
            f"{one.rows:,} rows: promised {percent(one.promised)}, "
            f"realised {percent(one.realised.value)}"
        )
        body += Markup('<g class="{}">{}').format(mark, told)
        if one.realised.low is not None and one.realised.high is not None:
            body += _rule(at, plane.y(one.realised.low), at, plane.y(one.realised.high), "whisker")
        body += _dot(at, plane.y(one.realised.value), 4.2) + Markup("</g>")
    spoken = "; ".join(
        f"promised {percent(one.promised)}, realised {percent(one.realised.value)}" for one in bins
    )
    return plane.drawn(key, title, spoken or "No rows.", body)


def lift(deciles: Sequence[Decile]) -> Markup:
    """How many times the average share of positives each tenth holds, riskiest first."""
    tops = [one.lift.high if one.lift.high is not None else one.lift.value for one in deciles]
    plane = _Plane(
        Scale(
            0.4, max([10, *(one.decile for one in deciles)]) + 0.6, label="tenth, riskiest first"
        ),
        scale_of([*tops, 1.2], low=0, label="times the average"),
    )
    body = Markup("")
    for one in deciles:
        if one.lift.value is None:
            continue
        left, right = plane.x(one.decile - 0.36), plane.x(one.decile + 0.36)
        top = plane.y(one.lift.value)
        body += Markup(
            '<g class="after"><title>{}</title><rect class="bar" x="{}" y="{}" width="{}" '
            'height="{}"/>'
        ).format(
            f"tenth {one.decile}: {one.positives:,} of {one.rows:,}, lift "
            f"{number(one.lift.value, 2)}",
            _n(left),
            _n(top),
            _n(right - left),
            _n(plane.y(0) - top),
        )
        if one.lift.low is not None and one.lift.high is not None:
            at = plane.x(one.decile)
            body += _rule(at, plane.y(one.lift.low), at, plane.y(one.lift.high), "whisker")
        body += Markup("</g>")
    ends = (plane.x.scale.low, plane.x.scale.high)
    body += _line([(ends[0], 1), (ends[1], 1)], plane, "guide")
    body += _label(plane, ends[1], 1, "average", "remark", anchor="end", dy=-5)
    for one in deciles:
        body += _text(
            plane.x(one.decile), _HEIGHT - _BOTTOM + 15, str(one.decile), "tick", "middle"
        )
    spoken = "; ".join(f"{one.decile}: {number(one.lift.value, 2)}" for one in deciles)
    return plane.drawn("lift", "Lift by tenth", spoken or "No rows.", body)


def cost(report: CostReport, row: str) -> Markup:
    """Cost per row at every threshold, with the chosen and the theoretical one."""
    values = [value for _, value in report.curve]
    plane = _Plane(_named(UNIT, "threshold"), scale_of(values, low=0, label=f"cost per {row}"))
    body = Markup("")
    if report.curve:
        body += _line(report.curve, plane, "curve")
    both = (report.threshold, report.theoretical_threshold)
    marks = (
        (report.theoretical_threshold, "theory", "guide", 28),
        (report.threshold, "chosen", "chosen", 12),
    )
    for threshold, name, style, drop in marks:
        at = plane.x(threshold)
        body += _rule(at, _TOP, at, _HEIGHT - _BOTTOM, style)
        beside, right = at, threshold < 0.6
        if max(both) - min(both) < 0.35:
            # Close lines share a side, so that neither runs through the other's text.
            right = max(both) < 0.6
            beside = plane.x(max(both) if right else min(both))
        body += _text(
            beside + (5 if right else -5),
            _TOP + drop,
            f"{name} {percent(threshold)}",
            f"remark {style}-text",
            "start" if right else "end",
        )
    if report.curve:
        nearest = min(report.curve, key=lambda point: abs(point[0] - report.threshold))
        body += Markup('<g class="after">{}</g>').format(
            _dot(plane.x(report.threshold), plane.y(nearest[1]), 4.6)
        )
    return plane.drawn(
        "cost",
        f"Cost per {row} by threshold",
        f"The chosen threshold is {percent(report.threshold)}, the theoretical one "
        f"{percent(report.theoretical_threshold)}. Costs run from "
        f"{money(min(values, default=None))} to {money(max(values, default=None))}.",
        body,
    )


# Strips


def axis_strip(scale: Scale) -> Markup:
    """The ticks' texts of a column of strips."""
    texts = Markup("").join(
        Markup('<text x="{}%" y="13" class="tick" text-anchor="{}">{}</text>').format(
            _at(scale, tick), _anchor(scale, tick), scale.text(tick)
        )
        for tick in scale.ticks
    )
    return _strip(texts, 18)


def interval_strip(
    scale: Scale,
    estimate: Estimate,
    *,
    other: Estimate | None = None,
    reference: float | None = None,
    radius: float = 4.5,
    style: str = "after",
) -> Markup:
    """A figure as a dot, its interval as a line; another figure hollow, on a line of its own.

    Args:
        scale: The axis, shared by the strips of a column.
        estimate: The figure.
        other: Another one to compare with, drawn below.
        reference: What to measure both against, as a tick.
        radius: Of the dot, in pixels.
        style: `after`, or `muted` for a figure that says little.
    """
    height = 34 if other else 24
    marks = _grid(scale, height)
    if reference is not None:
        marks += _strip_rule(
            _at(scale, reference), 3, _at(scale, reference), height - 3, "reference"
        )
    marks += _whisker(scale, estimate, 12, radius, style)
    if other:
        marks += _whisker(scale, other, 24, 3.6, "before")
    return _strip(marks, height)


def bar_strip(
    scale: Scale, value: float, *, lines: Sequence[float] = (), style: str = "after"
) -> Markup:
    """A bar from the axis' low end; one that is cut at the high end gets an arrow."""
    marks = Markup("").join(
        _strip_rule(_at(scale, line), 0, _at(scale, line), 22, "band") for line in lines
    )
    start, end = _at(scale, scale.low), _at(scale, value)
    marks += Markup(
        '<g class="{}"><rect class="bar" x="{}%" y="6" width="{}%" height="10"/>'
    ).format(style, start, _n(max(float(end) - float(start), 0.4)))
    if value > scale.high:
        marks += Markup('<text class="cut" x="99%" y="16" text-anchor="end">»</text>')
    return _strip(marks + Markup("</g>"), 22)


def days_strip(first: str, last: str, begin: str, end: str, style: str) -> Markup:
    """Where the days from `first` to `last` lie between `begin` and `end`; all inclusive."""
    start = date.fromisoformat(begin).toordinal()
    scale = Scale(start, date.fromisoformat(end).toordinal() + 1)
    left = float(_at(scale, date.fromisoformat(first).toordinal()))
    right = float(_at(scale, date.fromisoformat(last).toordinal() + 1))
    bar = Markup('<g class="{}"><rect class="bar" x="{}%" y="7" width="{}%" height="10"/></g>')
    return _strip(
        _strip_rule("2", 12, "98", 12, "grid")
        + bar.format(style, _n(left), _n(max(right - left - 0.3, 0.7))),
        24,
    )


def pair_strip(scale: Scale, before: float, after: float) -> Markup:
    """Two figures on one line: the first hollow, the second filled."""
    marks = _grid(scale, 20)
    marks += _strip_rule(_at(scale, before), 10, _at(scale, after), 10, "span")
    marks += Markup('<g class="before">{}</g>').format(_strip_dot(_at(scale, before), 10, 4))
    marks += Markup('<g class="after">{}</g>').format(_strip_dot(_at(scale, after), 10, 4.5))
    return _strip(marks, 20)


# Marks


@dataclass(frozen=True)
class _Pixels:
    """An axis on the page: from a value to a coordinate."""

    scale: Scale
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + self.scale.part(value) * (self.end - self.start)


class _Plane:
    """Two axes, and the chart around them."""

    def __init__(self, x: Scale, y: Scale) -> None:
        self.x = _Pixels(x, _LEFT, _WIDTH - _RIGHT)
        self.y = _Pixels(y, _HEIGHT - _BOTTOM, _TOP)

    def drawn(self, key: str, title: str, description: str, body: Markup) -> Markup:
        """The whole chart: grid, axes, ticks and the marks."""
        axes = Markup("")
        floor = _HEIGHT - _BOTTOM
        for tick in self.y.scale.ticks:
            at = self.y(tick)
            style = "axis" if tick == self.y.scale.low else "grid"
            axes += _rule(_LEFT, at, _WIDTH - _RIGHT, at, style)
            axes += _text(_LEFT - 6, at + 3.6, self.y.scale.text(tick), "tick", "end")
        axes += _rule(_LEFT, floor, _WIDTH - _RIGHT, floor, "axis")
        for tick in self.x.scale.ticks:
            axes += _rule(self.x(tick), floor, self.x(tick), floor + 3, "axis")
            axes += _text(
                self.x(tick),
                floor + 15,
                self.x.scale.text(tick),
                "tick",
                _anchor(self.x.scale, tick),
            )
        axes += _text(
            (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, self.x.scale.label, "name", "middle"
        )
        axes += _text(2, 9, self.y.scale.label, "name", "start")
        return Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
            '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>{}{}</svg>'
        ).format(_WIDTH, _HEIGHT, key, key, key, title, key, description, axes, body)


def _named(scale: Scale, label: str) -> Scale:
    return replace(scale, label=label)


def _n(value: float) -> str:
    """A coordinate: two decimals are more than a screen shows, and keep the page small."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _path(points: Iterable[Point], plane: _Plane) -> str:
    return " ".join(f"{_n(plane.x(x))},{_n(plane.y(y))}" for x, y in points)


def _line(points: Iterable[Point], plane: _Plane, style: str) -> Markup:
    return Markup('<polyline class="{}" points="{}"/>').format(style, _path(points, plane))


def _area(points: Sequence[Point], plane: _Plane) -> Markup:
    closed = [(points[0][0], 0.0), *points, (points[-1][0], 0.0)]
    return Markup('<polygon class="area" points="{}"/>').format(_path(closed, plane))


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        style, _n(x1), _n(y1), _n(x2), _n(y2)
    )


def _dot(x: float, y: float, radius: float) -> Markup:
    return Markup('<circle class="dot" cx="{}" cy="{}" r="{}"/>').format(_n(x), _n(y), _n(radius))


def _text(x: float, y: float, text: str, style: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, _n(x), _n(y), anchor, text
    )


def _label(
    plane: _Plane, x: float, y: float, text: str, style: str, anchor: str = "start", dy: float = 0
) -> Markup:
    return _text(plane.x(x), plane.y(y) + dy, text, style, anchor)


def _strip(marks: Markup, height: int) -> Markup:
    # The numbers stand beside each strip as text, so readers of text need not meet it.
    return Markup('<svg class="strip" width="100%" height="{}" aria-hidden="true">{}</svg>').format(
        height, marks
    )


def _at(scale: Scale, value: float) -> str:
    """Where a value lies on a strip, in per cent."""
    return _n(scale.inset + (100 - 2 * scale.inset) * scale.part(value))


def _anchor(scale: Scale, tick: float) -> str:
    part = scale.part(tick)
    return "start" if part < 0.03 else "end" if part > 0.97 else "middle"


def _grid(scale: Scale, height: int) -> Markup:
    return Markup("").join(
        _strip_rule(_at(scale, tick), 0, _at(scale, tick), height, "grid") for tick in scale.ticks
    )


def _strip_rule(x1: str, y1: float, x2: str, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{}%" y1="{}" x2="{}%" y2="{}"/>').format(
        style, x1, _n(y1), x2, _n(y2)
    )


def _strip_dot(x: str, y: float, radius: float) -> Markup:
    return Markup('<circle class="dot" cx="{}%" cy="{}" r="{}"/>').format(x, _n(y), _n(radius))


def _whisker(scale: Scale, estimate: Estimate, y: float, radius: float, style: str) -> Markup:
    if estimate.value is None or not math.isfinite(estimate.value):
        return Markup("")
    marks = Markup("")
    if estimate.low is not None and estimate.high is not None:
        marks += _strip_rule(_at(scale, estimate.low), y, _at(scale, estimate.high), y, "whisker")
    marks += _strip_dot(_at(scale, estimate.value), y, radius)
    return Markup('<g class="{}">{}</g>').format(style, marks)


# Days


@dataclass(frozen=True)
class Moment:
    """A figure of a day, YYYY-MM-DD, with its bounds if it has any."""

    day: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class _DayScale(Scale):
    def text(self, tick: float) -> str:
        """The day of a tick, such as `3 Jan`."""
        day = date.fromordinal(round(tick))
        return f"{day.day} {day:%b}"


def series(
    key: str,
    title: str,
    label: str,
    moments: Sequence[Moment],
    *,
    other: Sequence[Moment] = (),
    reference: tuple[float, str] | None = None,
    band: Sequence[Moment] = (),
    low: float | None = None,
    high: float | None = None,
    is_share: bool = False,
) -> Markup:
    """A figure day by day: dots with their intervals.

    Args:
        key: Names the chart in the page.
        title: For readers who cannot see it.
        label: Of the vertical axis.
        moments: The figure.
        other: Another one to compare with, hollow.
        reference: What to measure both against, and its text.
        band: What is normal, as a mark from low to high behind each day.
        low: Where the vertical axis starts; by default it follows the values.
        high: Where it ends; likewise.
        is_share: Whether the figure is a share.
    """
    everything = [*moments, *other, *band]
    values = [value for one in everything for value in (one.value, one.low, one.high)]
    days = [date.fromisoformat(one.day).toordinal() for one in everything] or [1]
    first, last = min(days), max(days)
    ticks = tuple(sorted({float(first), float((first + last) // 2), float(last)}))
    plane = _Plane(
        _DayScale(first - 0.7, last + 0.7, ticks),
        scale_of(
            [*values, *([reference[0]] if reference else [])],
            low=low,
            high=high,
            percent=is_share,
            label=label,
        ),
    )
    ends = (plane.x.scale.low, plane.x.scale.high)
    body = Markup("")
    for one in band:
        body += _upright(plane, one, "normal")
    if reference:
        body += _line([(ends[0], reference[0]), (ends[1], reference[0])], plane, "guide")
        body += _label(plane, ends[0], reference[0], reference[1], "remark", dy=-5)
    for style, radius, list_ in (("before", 3.2, other), ("after", 3.8, moments)):
        for one in list_:
            if one.value is None:
                continue
            told = f"{one.day}: {_spoken(one.value, is_share)}"
            body += Markup('<g class="{}"><title>{}</title>').format(style, told)
            body += _upright(plane, one, "whisker")
            at = date.fromisoformat(one.day).toordinal()
            body += _dot(plane.x(at), plane.y(one.value), radius) + Markup("</g>")
    known = [one for one in moments if one.value is not None]
    spoken = f"{len(known)} days"
    if known:
        spoken += f", last {known[-1].day}: {_spoken(known[-1].value, is_share)}"
    return plane.drawn(key, title, f"{spoken}.", body)


def _upright(plane: _Plane, one: Moment, style: str) -> Markup:
    if one.low is None or one.high is None:
        return Markup("")
    at = plane.x(date.fromisoformat(one.day).toordinal())
    return _rule(at, plane.y(one.low), at, plane.y(one.high), style)


def _spoken(value: float | None, is_share: bool) -> str:
    return percent(value) if is_share else number(value, 3)
