"""What a chart shows, as ECharts options. Pure.

No axis is cut: a value axis begins at zero (or below it where values are), a time axis spans what was asked for, also
where nothing was measured. A gap in the data is a gap in the line. Series of a stack have a row for each moment of any
of them, since ECharts stacks the first row upon the first row, whatever their times are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyrie.console import shown

Points = Sequence[tuple[float, float]]
Rows = list[list[float | None]]
COLOURS = ("#0f8a7e", "#3b7dd8", "#c98500", "#cc5577", "#7d66c9", "#6b7f8f")
BAD = "#c8453b"
OTHERS = "#8b949c"  # what is drawn together because there is too much of it
_BAR_PX_MAX = 9
_GAP_PERIODS = 2.5  # without a point for so long, the line ends


@dataclass(frozen=True, slots=True)
class Scheme:
    """The colours of everything that is not data."""

    ink: str
    muted: str
    line: str
    surface: str


LIGHT = Scheme("#1d2125", "#5a626a", "#e4e6e3", "#ffffff")
DARK = Scheme("#e7e9ea", "#a4adb5", "#30363b", "#1d2226")


@dataclass(frozen=True, slots=True)
class Series:
    """One line (or bars, or an area) of a chart: points in milliseconds since 1970."""

    name: str
    points: Points
    kind: str = "line"  # line | bar | area | step | level (a constant, drawn from end to end)
    colour: str = ""
    stack: str = ""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that something happened at, as a line across the chart."""

    at_ms: float
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a chart shows, and how far apart its points are."""

    start_ms: float
    end_ms: float
    period_ms: float


def chart(
    what: str,
    unit: str,
    series: Sequence[Series],
    span: Span,
    scheme: Scheme = LIGHT,
    marks: Iterable[Mark] = (),
    top: float | None = None,
) -> dict[str, Any]:
    """The options of a chart over time. `top`: the axis reaches at least so high (a CPU's 100 %, a target)."""
    highest = max((value for one in series for _, value in one.points), default=0.0)
    lowest = min((value for one in series for _, value in one.points), default=0.0)
    rows = rows_of(series, span.period_ms)
    return {
        "animation": False,
        "aria": {"enabled": True, "label": {"enabled": True, "description": described(what, unit, series)}},
        "color": list(COLOURS),
        "grid": {"left": 6, "right": 14, "top": 34 if len(series) > 1 else 14, "bottom": 4, "containLabel": True},
        "legend": _legend(series, scheme),
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": scheme.surface,
            "borderColor": scheme.line,
            "textStyle": {"color": scheme.ink, "fontSize": 12},
        },
        "xAxis": {
            "type": "time",
            "min": span.start_ms,
            "max": span.end_ms,
            "axisLine": {"lineStyle": {"color": scheme.line}},
            "axisTick": {"show": False},
            "splitNumber": 4,
            "axisLabel": {"color": scheme.muted, "fontSize": 11, "hideOverlap": True},
        },
        "yAxis": {
            "type": "value",
            "min": 0 if lowest >= 0 else None,
            **({"max": top, "interval": top / 4} if top is not None and highest <= top else {}),
            "splitNumber": 3,
            **({"minInterval": 1} if whole(series) else {}),
            "axisLabel": {"color": scheme.muted, "fontSize": 11},
            "splitLine": {"lineStyle": {"color": scheme.line}},
        },
        "series": [_series(one, rows[at], at, span, marks if at == 0 else (), scheme) for at, one in enumerate(series)],
    }  # fmt: skip


def whole(series: Sequence[Series]) -> bool:
    """Whether all values are whole numbers: then no part of one stands on the axis."""
    return all(float(value).is_integer() for one in series for _, value in one.points)


def _legend(series: Sequence[Series], scheme: Scheme) -> dict[str, Any]:
    return {
        "show": len(series) > 1,
        "type": "scroll",
        "top": 0,
        "left": 0,
        "itemWidth": 14,
        "itemHeight": 8,
        "icon": "roundRect",
        "textStyle": {"color": scheme.muted, "fontSize": 11},
    }


def _series(one: Series, rows: Rows, at: int, span: Span, marks: Iterable[Mark], scheme: Scheme) -> dict[str, Any]:
    colour = one.colour or COLOURS[at % len(COLOURS)]
    drawn: dict[str, Any] = {
        "name": one.name,
        "type": "bar" if one.kind == "bar" else "line",
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
        "data": rows,
    }
    if one.stack:
        drawn["stack"] = one.stack
    if one.kind == "bar":
        drawn["barWidth"], drawn["barMaxWidth"] = "80%", _BAR_PX_MAX  # of the room between points; alone, no wall
    else:
        level = one.kind == "level"
        drawn["symbol"] = "none" if level else "circle"
        drawn["symbolSize"] = 3
        drawn["showSymbol"] = not level and alone(rows)
        drawn["lineStyle"] = {"width": 1.6, "color": colour, "type": "dashed" if one.dashed else "solid"}
        drawn["connectNulls"] = False
    if one.kind == "area":
        drawn["areaStyle"] = {"color": colour, "opacity": 0.18}
    if one.kind == "step":
        drawn["step"] = "end"
    lines = [{"xAxis": mark.at_ms, "name": mark.name} for mark in marks if span.start_ms <= mark.at_ms <= span.end_ms]
    if lines:
        drawn["markLine"] = {
            "symbol": "none",
            "animation": False,
            "lineStyle": {"color": scheme.muted, "type": "dotted", "width": 1},
            "label": {
                "formatter": "{b}",
                "color": scheme.muted,
                "fontSize": 10,
                "position": "insideEndTop",
                "distance": 2,
            },
            "data": lines,
        }
    return drawn


def rows_of(series: Sequence[Series], period_ms: float) -> list[Rows]:
    """The rows of each series as they are drawn: time and value, None where there is none."""
    beside = [[other for other in series if one.stack and other.stack == one.stack] for one in series]
    return [_rows(one, stack, period_ms) for one, stack in zip(series, beside, strict=True)]


def _rows(one: Series, stack: Sequence[Series], period_ms: float) -> Rows:
    if one.kind in ("bar", "level") and len(stack) < 2:
        return [[ms, value] for ms, value in one.points]
    values = dict(one.points)
    times = sorted({ms for other in stack for ms, _ in other.points} or values)
    rows = with_gaps([(ms, 0.0) for ms in times], period_ms)
    return [[ms, values.get(ms)] if value is not None and ms is not None else [ms, None] for ms, value in rows]


def with_gaps(points: Points, period_ms: float) -> Rows:
    """The points, with a hole wherever nothing was measured for longer than points are apart."""
    drawn: Rows = []
    before: float | None = None
    for ms, value in points:
        if before is not None and ms - before > _GAP_PERIODS * period_ms:
            drawn.append([before + period_ms, None])
        drawn.append([ms, value])
        before = ms
    return drawn


def alone(rows: Rows) -> bool:
    """Whether a point has no neighbour to draw a line to, so that it must be drawn itself."""
    values = [None, *(value for _, value in rows), None]
    return any(
        value is not None and before is None and after is None
        for before, value, after in zip(values, values[1:], values[2:], strict=False)
    )


def described(what: str, unit: str, series: Sequence[Series]) -> str:
    """The chart in words, for those who do not see it."""
    told = [f"{one.name or what}: {_range(one.points)} {unit}".strip() for one in series]
    return f"{what}. {'; '.join(told)}." if told else f"{what}. Nothing was measured."


def _range(points: Points) -> str:
    if not points:
        return "nothing measured"
    values = [value for _, value in points]
    return f"last {shown.number(values[-1])}, lowest {shown.number(min(values))}, highest {shown.number(max(values))}"


def level(name: str, value: float, span: Span, colour: str = BAD) -> Series:
    """A constant, such as a target or a threshold, over the whole span."""
    return Series(name, ((span.start_ms, value), (span.end_ms, value)), colour=colour, dashed=True, kind="level")


def changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the options that moves: what a drawn chart has to be told when time went on."""
    return {name: options[name] for name in ("aria", "legend", "grid", "xAxis", "yAxis", "series")}
