"""Small drawings as inline SVG: lines over an axis, bars, and the percentile plot.

Axes of amounts begin at zero, unless they are logarithmic and say so; numbers stand beside their ticks; every drawing
has a title for those who hear it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 290, 82, 24, 20, 54
INNER_W, INNER_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
POINTS_MAX = 900

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A named series; a value of None breaks it."""

    name: str
    colour: str  # a class of the style sheet: "a", "b", "c", "d"
    points: Sequence[Point]
    dashed: bool = False
    dots: bool = False  # a point where each value was measured


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to the drawing: 0 to 1, and the ticks."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]
    name: str


def linear(highest: float, name: str, lowest: float = 0.0) -> Axis:
    """An axis from zero (or `lowest`) to a round number above the highest value."""
    step = round_step((highest - lowest) / 5 or 1.0)
    top = lowest + step * max(1, math.ceil((highest - lowest) / step - 1e-9))
    count = round((top - lowest) / step)
    ticks = [(lowest + n * step, short(lowest + n * step)) for n in range(count + 1)]
    return Axis(lambda value: (value - lowest) / (top - lowest), ticks, name)


def logarithmic(lowest: float, highest: float, name: str) -> Axis:
    """A logarithmic axis over whole decades."""
    low = math.floor(math.log10(max(lowest, 1e-6)))
    high = max(low + 1, math.ceil(math.log10(max(highest, 1e-6)) - 1e-9))
    ticks = [(10.0**n, short(10.0**n)) for n in range(low, high + 1)]
    return Axis(lambda value: (math.log10(max(value, 10.0**low)) - low) / (high - low), ticks, f"{name}, log scale")


def percentile_axis(nines: int) -> Axis:
    """Percentiles by their distance from 100: 90, 99, 99.9 ... at equal steps."""
    shares = [0.0, 0.5, *(1 - 10.0**-n for n in range(1, nines + 1))]
    ticks = [(share, f"{share * 100:.{max(0, n - 3)}f} %") for n, share in enumerate(shares)]
    end = 10.0**-nines
    return Axis(lambda share: min(1.0, math.log10(max(1 - share, end)) / -nines), ticks, "percentile")


def lines(title: str, across: Axis, up: Axis, drawn: Sequence[Line], marks: Sequence[tuple[float, str]] = ()) -> str:
    """Lines over an axis, with a legend; marks are moments, each with a short name above it."""
    body = [_frame(across, up), *(_mark(across, at, name) for at, name in marks)]
    for line in drawn:
        for piece in _pieces(thinned(line.points)):
            path = " ".join(f"{_x(across, x):.1f},{_y(up, y):.1f}" for x, y in piece)
            dash = ' stroke-dasharray="5 4"' if line.dashed else ""
            body.append(f'<polyline class="line {line.colour}" points="{path}"{dash}/>')
            if line.dots:
                body += [
                    f'<circle class="bar {line.colour}" cx="{_x(across, x):.1f}" cy="{_y(up, y):.1f}" r="4"/>'
                    for x, y in piece
                ]
    return _svg(title, "".join(body)) + _legend(drawn, up.name)


def bars(title: str, across: Axis, up: Axis, drawn: Sequence[tuple[float, float, float]], colour: str = "a") -> str:
    """Bars from one value to another, so high."""
    body = [_frame(across, up)]
    for begin, end, high in drawn:
        x, width = _x(across, begin), max(0.8, _x(across, end) - _x(across, begin) - 0.3)
        y = _y(up, high)
        body.append(
            f'<rect class="bar {colour}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{TOP + INNER_H - y:.1f}"/>'
        )
    return _svg(title, "".join(body))


def thinned(points: Sequence[Point], most: int = POINTS_MAX) -> list[Point]:
    """At most so many points; of neighbours the highest stays, so that no peak is lost."""
    size = max(1, -(-len(points) // most))
    if size == 1:
        return list(points)
    parts = (points[n : n + size] for n in range(0, len(points), size))
    return [max(part, key=lambda point: -math.inf if point[1] is None else point[1]) for part in parts]


def round_step(wanted: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if wanted <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= wanted * (1 - 1e-9))


def short(value: float) -> str:
    """A tick's number: 0.05, 12, 3.5k."""
    if value == 0:
        return "0"
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if abs(value) >= 10_000 else f"{value:.6g}"


def _pieces(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [piece for piece in found if piece]


def _x(axis: Axis, value: float) -> float:
    return LEFT + INNER_W * min(1.0, max(0.0, axis.place(value)))


def _y(axis: Axis, value: float) -> float:
    return TOP + INNER_H * (1 - min(1.0, max(0.0, axis.place(value))))


def _frame(across: Axis, up: Axis) -> str:
    """Grid, ticks and the names of the axes."""
    parts = []
    for value, text in up.ticks:
        y = _y(up, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{html.escape(text)}</text>')
    for value, text in across.ticks:
        x = _x(across, value)
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + INNER_H}" y2="{TOP + INNER_H + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + INNER_H + 22}" text-anchor="middle">{html.escape(text)}</text>')
    parts.append(
        f'<text x="{LEFT + INNER_W / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(across.name)}</text>'
    )
    middle = TOP + INNER_H / 2
    turned = f'transform="rotate(-90 18 {middle})"'
    parts.append(f'<text x="18" y="{middle}" class="name" text-anchor="middle" {turned}>{html.escape(up.name)}</text>')
    return "".join(parts)


def _mark(across: Axis, at: float, name: str) -> str:
    """A moment."""
    x = _x(across, at)
    return (
        f'<line class="line mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + INNER_H}" stroke-dasharray="3 4"/>'
        f'<text x="{x:.1f}" y="{TOP - 5}" text-anchor="middle">{html.escape(name)}</text>'
    )


def _svg(title: str, body: str) -> str:
    named = html.escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{named}"><title>{named}</title>{body}</svg>'


def _legend(drawn: Sequence[Line], up: str) -> str:
    """What each line is; where a narrow screen hides the turned name of the axis, that too."""
    words = "".join(f'<span class="key {line.colour}">{html.escape(line.name)}</span>' for line in drawn)
    return f'<p class="legend">{words}<span class="narrow">({html.escape(up)})</span></p>'
