"""Charts as SVG text for a page: no library, no network; colours come from the page's style (light and dark).

Every function escapes what it is given and returns one `<svg>`. Series are told apart by colour, marker and the legend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 36, 50
MARKERS = ("circle", "square", "diamond", "triangle")
COLOURS = 8
"""Colours of the page's style; with the markers they tell 32 series apart."""


class Point(NamedTuple):
    """A value with its interval; `x` is a number, or the place of a name on an axis of names."""

    x: float
    y: float
    low: float
    high: float


class Series(NamedTuple):
    """Points under one name, and the number of its colour."""

    name: str
    points: Sequence[Point]
    colour: int = 0


class Axis:
    """From values to pixels, with a tick every round step (or every power of ten)."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log = log
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-12:
            low, high = low - 0.5, high + 0.5
        self.low, self.high, self.start, self.end = low, high, start, end

    def at(self, value: float) -> float:
        plain = math.log10(value) if self.log else value
        return self.start + (plain - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        if self.log and self.high - self.low >= 1:
            return [10.0**power for power in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)]
        if self.log:
            return [10**self.low, 10**self.high]
        rough = (self.high - self.low) / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough - 1e-12)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def lines(
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    names: Sequence[str] = (),
    log: bool = False,
    rules: Sequence[tuple[str, float]] = (),
) -> str:
    """Curves with their intervals; `names` are the ticks of an axis of names, `rules` are level lines (a teacher)."""
    points = [point for one in series for point in one.points]
    low = min([point.low for point in points] + [value for _, value in rules])
    high = max([point.high for point in points] + [value for _, value in rules])
    room = (high - low) * 0.08 or 0.05
    low, high = (max(0.0, low - room), min(1.0, high + room)) if low >= 0 and high <= 1 else (low - room, high + room)
    right = max(point.x for point in points)
    across = Axis(min(point.x for point in points), right, LEFT + 16, WIDTH - RIGHT - 16, log)
    up = Axis(low, high, HEIGHT - BOTTOM, TOP)
    ticks = [(float(place), name) for place, name in enumerate(names)]
    if not names:
        values = sorted({point.x for point in points})
        ticks = [(value, _number(value)) for value in (values if len(values) <= 8 else across.ticks())]
    parts = _frame(across, up, ticks, x, y)
    for name, value in rules:
        level = up.at(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(
            f'<text class="label" x="{WIDTH - RIGHT}" y="{level - 5:.1f}" text-anchor="end">{escape(name)}</text>'
        )
    for place, one in enumerate(series):
        apart = min(5.0, 32 / max(len(series) - 1, 1))  # so that whiskers do not hide others, nor the axis
        shift = (place - (len(series) - 1) / 2) * apart
        spots = [(across.at(point.x) + shift, point) for point in sorted(one.points)]
        path = " ".join(f"{spot:.1f},{up.at(point.y):.1f}" for spot, point in spots)
        if len(spots) > 1:
            parts.append(f'<polyline class="line c{one.colour % COLOURS}" points="{path}"/>')
        for spot, point in spots:
            parts.append(_whisker(spot, up, point, one.colour))
            told = f"{one.name}, {x} {_tick(ticks, point.x)}: {point.y:.3f} ({point.low:.3f} to {point.high:.3f})"
            parts.append(_marker(spot, up.at(point.y), one.colour, told))
    return _svg(parts, f"{y} against {x}") + legend([(one.name, one.colour) for one in series])


def scatter(
    points: Sequence[tuple[str, Point, int]], *, x: str, y: str, best: Sequence[int] = (), log: bool = False
) -> str:
    """Named points, told apart by their titles; those in `best` are joined as the frontier and labelled."""
    xs = [point.x for _, point, _ in points]
    low, high = min(point.low for _, point, _ in points), max(point.high for _, point, _ in points)
    room = (high - low) * 0.1 or 0.05
    wide = (0.8, 1.25) if log else (1.0, 1.0)
    pad = 0.0 if log else (max(xs) - min(xs)) * 0.06
    across = Axis(min(xs) * wide[0] - pad, max(xs) * wide[1] + pad, LEFT + 4, WIDTH - RIGHT - 4, log)
    up = Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)
    parts = _frame(across, up, [(value, _number(value)) for value in across.ticks()], x, y)
    path = " ".join(f"{across.at(points[i][1].x):.1f},{up.at(points[i][1].y):.1f}" for i in best)
    if len(best) > 1:
        parts.append(f'<polyline class="frontier" points="{path}"/>')
    for name, point, colour in points:
        spot, level = across.at(point.x), up.at(point.y)
        parts.append(_whisker(spot, up, point, colour))
        parts.append(_marker(spot, level, colour, f"{name}: {point.y:.3f} at {_number(point.x)}"))
    for i in best:
        name, point, _ = points[i]
        spot = across.at(point.x)
        aside, anchor = (-9, "end") if spot > WIDTH / 2 else (9, "start")
        place = f'x="{spot + aside:.1f}" y="{up.at(point.y) + (-7 if aside < 0 else 20):.1f}" text-anchor="{anchor}"'
        parts.append(f'<text class="label" {place}>{escape(name)}</text>')
    return _svg(parts, f"{y} against {x}")


def reliability(bins: Sequence[tuple[float, float, int]]) -> str:
    """Calibration: the share right against the mean confidence of each bin, with how many items it holds."""
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    tens = [(value / 5, _number(value / 5)) for value in range(6)]
    parts = _frame(across, up, tens, "confidence", "share right")
    corner = f'x1="{across.at(0):.1f}" y1="{up.at(0):.1f}" x2="{across.at(1):.1f}" y2="{up.at(1):.1f}"'
    parts.append(f'<line class="rule" {corner}/>')
    most = max(count for _, _, count in bins)
    for confidence, right, count in bins:
        radius = 4 + 10 * math.sqrt(count / most)
        title = f"confidence {confidence:.2f}: {right:.2f} right, {count:,} items"
        place = f'cx="{across.at(confidence):.1f}" cy="{up.at(right):.1f}" r="{radius:.1f}"'
        parts.append(f'<circle class="bubble c0" {place}><title>{escape(title)}</title></circle>')
    return _svg(parts, "share right against confidence")


def legend(names: Sequence[tuple[str, int]]) -> str:
    """The names of the series under a chart; they wrap where a line of an SVG could not."""
    once = dict.fromkeys(names)
    shown = (
        f'<span><svg class="key" viewBox="-7 -7 14 14" aria-hidden="true">{_marker(0, 0, colour, "")}</svg>'
        f"{escape(name)}</span>"
        for name, colour in once
    )
    return f'<p class="legend">{"".join(shown)}</p>'


def _frame(across: Axis, up: Axis, ticks: Sequence[tuple[float, str]], x: str, y: str) -> list[str]:
    parts = []
    for value in up.ticks():
        level = up.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{level + 5:.1f}" text-anchor="end">{_number(value)}</text>')
    for value, name in ticks:
        spot = across.at(value)
        parts.append(f'<text x="{spot:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(name)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
    parts.append(f'<text class="axis" x="4" y="18">{escape(y)}</text>')
    return parts


def _whisker(spot: float, up: Axis, point: Point, colour: int) -> str:
    low, high = up.at(max(point.low, up.low)), up.at(min(point.high, up.high))
    return f'<line class="whisker c{colour % COLOURS}" x1="{spot:.1f}" x2="{spot:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'


def _marker(x: float, y: float, colour: int, title: str) -> str:
    kind = MARKERS[(colour + colour // COLOURS) % len(MARKERS)]  # another marker each time that a colour comes again
    own = f'class="mark c{colour % COLOURS}"'
    told = f"<title>{escape(title)}</title>" if title else ""
    if kind == "circle":
        return f'<circle {own} cx="{x:.1f}" cy="{y:.1f}" r="5">{told}</circle>'
    shapes = {
        "square": ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
        "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
        "triangle": ((0, -6), (5.5, 4.5), (-5.5, 4.5)),
    }
    corners = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in shapes[kind])
    return f'<polygon {own} points="{corners}">{told}</polygon>'


def _svg(parts: Sequence[str], title: str) -> str:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return head + "".join(parts) + "</svg>"


def _tick(ticks: Sequence[tuple[float, str]], value: float) -> str:
    return next((name for place, name in ticks if place == value), _number(value))


def _number(value: float) -> str:
    """
    >>> _number(0.125), _number(20000), _number(0.30000000000000004), _number(1e-6)
    ('0.125', '20,000', '0.3', '1e-06')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
