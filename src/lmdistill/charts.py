"""Charts as SVG text for a page: no library, no network; colours come from the page's style (light and dark).

Every function escapes what it is given and returns one `<svg>`, with its legend below. Series are told apart by colour,
marker and the legend. A name stands in a picture where it has room there, on a phone too; else a number stands for it,
and the legend names it.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 36, 50
EM = 19
"""The type's size on a phone (see the page's style): what has room then has room on any page."""
LINE, LINES, GAP = 21, 3, 8
"""The height of a line, the lines that a name on an axis may take, and the space between two texts."""
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


class Tick(NamedTuple):
    """A value of an axis, its name in full, and the lines that stand under the axis."""

    value: float
    name: str
    lines: Sequence[str]


class Box(NamedTuple):
    """A part of a picture that something takes."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


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
    up = Axis(low, high, HEIGHT - BOTTOM, TOP)
    key = ""
    if names:
        across, ticks, key = _named(names)
    else:
        values = sorted({point.x for point in points})
        across = Axis(values[0], values[-1], LEFT + 16, WIDTH - RIGHT - 16, log)
        ticks = _numbers(values if len(values) <= 8 else across.ticks())
    deeper = LINE * (max(len(tick.lines) for tick in ticks) - 1)
    parts = _frame(across, up, ticks, x, y, deeper)
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
            told = f"{one.name}, {x} {_told(ticks, point.x)}: {point.y:.3f} ({point.low:.3f} to {point.high:.3f})"
            parts.append(_marker(spot, up.at(point.y), one.colour, told))
    return _svg(parts, f"{y} against {x}", deeper) + key + legend([(one.name, one.colour) for one in series])


def scatter(
    points: Sequence[tuple[str, Point, int]], *, x: str, y: str, best: Sequence[int] = (), log: bool = False
) -> str:
    """Named points, told apart by their titles; those in `best` are joined as the frontier and labelled
    (with numbers that the legend tells, where their titles have no room)."""
    xs = [point.x for _, point, _ in points]
    low, high = min(point.low for _, point, _ in points), max(point.high for _, point, _ in points)
    room = (high - low) * 0.1 or 0.05
    wide = (0.8, 1.25) if log else (1.0, 1.0)
    pad = 0.0 if log else (max(xs) - min(xs)) * 0.06
    across = Axis(min(xs) * wide[0] - pad, max(xs) * wide[1] + pad, LEFT + 4, WIDTH - RIGHT - 4, log)
    up = Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)
    parts = _frame(across, up, _numbers(across.ticks()), x, y)
    path = " ".join(f"{across.at(points[i][1].x):.1f},{up.at(points[i][1].y):.1f}" for i in best)
    if len(best) > 1:
        parts.append(f'<polyline class="frontier" points="{path}"/>')
    for name, point, colour in points:
        spot, level = across.at(point.x), up.at(point.y)
        parts.append(_whisker(spot, up, point, colour))
        parts.append(_marker(spot, level, colour, f"{name}: {point.y:.3f} at {_number(point.x)}"))
    spots = [(across.at(point.x), up.at(point.y)) for _, point, _ in points]
    marks = [Box(right - 7, down - 7, right + 7, down + 7) for right, down in spots]
    whiskers = [
        Box(right - 2, up.at(point.high), right + 2, up.at(point.low))
        for (right, _), (_, point, _) in zip(spots, points, strict=True)
    ]
    whole = [points[i][0] for i in best]
    numbers = [str(place + 1) for place in range(len(best))]
    for texts, taken in ((whole, marks + whiskers), (numbers, marks + whiskers), (numbers, marks), (numbers, [])):
        places = _places(texts, [spots[i] for i in best], taken)
        if None not in places:
            break
    for name, text, place in zip(whole, texts, places, strict=True):
        if place is not None:
            parts.append(_text(*place, text, name, "label"))
    key = [(f"{number}: {points[i][0]}", points[i][2]) for number, i in zip(numbers, best, strict=True)]
    return _svg(parts, f"{y} against {x}") + (legend(key) if texts != whole else "")


def reliability(bins: Sequence[tuple[float, float, int]]) -> str:
    """Calibration: the share right against the mean confidence of each bin, with how many items it holds."""
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    parts = _frame(across, up, _numbers([value / 5 for value in range(6)]), "confidence", "share right")
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


def _frame(across: Axis, up: Axis, ticks: Sequence[Tick], x: str, y: str, deeper: int = 0) -> list[str]:
    parts = []
    for value in up.ticks():
        level = up.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(_text(LEFT - 8, level + 5, "end", _number(value)))
    taken: list[Box] = []
    for tick in [*ticks[:1], *ticks[:0:-1]]:  # the ends first; what then has no room is left out
        half = max(map(_long, tick.lines)) / 2
        spot = min(max(across.at(tick.value), half + 2), WIDTH - half - 2)
        box = Box(spot - half - GAP / 2, 0, spot + half + GAP / 2, 1)
        if not any(box.meets(other) for other in taken):
            taken.append(box)
            for place, line in enumerate(tick.lines):
                parts.append(_text(spot, HEIGHT - BOTTOM + 20 + LINE * place, "middle", line, tick.name))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8 + deeper, "middle", x, x, "axis"))
    parts.append(_text(4, 18, "start", y, y, "axis"))
    return parts


def _named(names: Sequence[str]) -> tuple[Axis, list[Tick], str]:
    """An axis of names: in lines of whole words where each has room, else as numbers with the names in a legend."""
    numbers = [[str(place + 1)] for place in range(len(names))]
    for size in range(max(map(len, names)), 0, -1):
        lines = [textwrap.wrap(name, size, break_long_words=False) or [name] for name in names]
        across, room = _spaced(lines)
        if room >= 0 and max(map(len, lines)) <= LINES:
            return across, [Tick(*one) for one in zip(range(len(names)), names, lines, strict=True)], ""
    shown = "".join(f"<span>{place + 1}: {escape(name)}</span>" for place, name in enumerate(names))
    ticks = [Tick(*one) for one in zip(range(len(names)), names, numbers, strict=True)]
    return _spaced(numbers)[0], ticks, f'<p class="legend">{shown}</p>'


def _spaced(lines: Sequence[Sequence[str]]) -> tuple[Axis, float]:
    """The axis on which the outer names stay inside the picture, and the space that is left between two."""
    wide = max(_long(line) for one in lines for line in one)
    across = Axis(0, len(lines) - 1, max(LEFT + 16, wide / 2 + 2), min(WIDTH - RIGHT - 16, WIDTH - wide / 2 - 2))
    return across, (across.end - across.start) / max(len(lines) - 1, 1) - wide - GAP


def _numbers(values: Sequence[float]) -> list[Tick]:
    return [Tick(value, _number(value), [_number(value)]) for value in values]


def _places(
    texts: Sequence[str], spots: Sequence[tuple[float, float]], taken: Sequence[Box]
) -> list[tuple[float, float, str] | None]:
    """Where each text can stand near its point, on nothing that is taken and on no other; None where it cannot."""
    full = list(taken)
    found: list[tuple[float, float, str] | None] = []
    for text, (right, down) in zip(texts, spots, strict=True):
        found.append(None)
        for x, y, anchor in _around(right, down):
            left = x if anchor == "start" else x - _long(text)
            box = Box(left, y - 16, left + _long(text), y + 5)
            inside = (
                box.left >= LEFT and box.right <= WIDTH - 2 and box.top >= TOP - 12 and box.bottom <= HEIGHT - BOTTOM
            )
            if inside and not any(box.meets(other) for other in full):
                full.append(box)
                found[-1] = (x, y, anchor)
                break
    return found


def _around(right: float, down: float) -> Iterator[tuple[float, float, str]]:
    """Places for a point's label: towards the middle and near first, and off a line that rises (below right of it, or
    above left)."""
    sides = [(right + 9, "start", False), (right - 9, "end", True)]
    if right > WIDTH / 2:
        sides.reverse()
    for away in (0, LINE, 2 * LINE):
        for crossing in (False, True):
            for x, anchor, above in sides:
                yield x, down + (-7 - away if above != crossing else 20 + away), anchor


def _text(x: float, y: float, anchor: str, text: str, name: str = "", style: str = "") -> str:
    """A text; where it is not the whole name, that is its title."""
    own = f' class="{style}"' if style else ""
    told = f"<title>{escape(name)}</title>" if name and name != text else ""
    return f'<text{own} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}{told}</text>'


def _long(text: str) -> float:
    """About how long a text is on a phone."""
    return EM * sum(1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.6 for letter in text)


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


def _svg(parts: Sequence[str], title: str, deeper: int = 0) -> str:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT + deeper}" role="img" aria-label="{escape(title)}">'
    return head + "".join(parts) + "</svg>"


def _told(ticks: Sequence[Tick], value: float) -> str:
    return next((tick.name for tick in ticks if tick.value == value), _number(value))


def _number(value: float) -> str:
    """
    >>> _number(0.125), _number(20000), _number(0.30000000000000004), _number(1e-6)
    ('0.125', '20,000', '0.3', '1e-06')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
