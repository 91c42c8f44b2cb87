"""What a run came to, for people: rows of a comparison, actions with their reasons, a picture, a page.

The PNG needs matplotlib (the extra `sim`); the HTML page is one file with its drawings inside.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyrie.load.report import document_of
from eyrie.sim.run import MINUTE_S, Run

POINTS_MAX = 1200  # of a line in a drawing
ACTIONS_MAX = 500  # in a page
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 220, 56, 24
_DEMAND, _CAPACITY, _LATENCY, _LIMIT = "#8a8f98", "#1f6feb", "#8250df", "#cf222e"


class NoPicture(RuntimeError):
    """A picture cannot be drawn here; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Row:
    """One policy of a comparison."""

    policy: str
    instance_hours: float
    cost_usd: float
    outside_minutes: float
    late: int
    failed: int
    requests: int
    worst_ms: float
    actions: int
    most: int
    frontier: bool


def rows(runs: Sequence[Run]) -> list[Row]:
    """A row a run, in their order."""
    return [
        Row(
            run.policy,
            run.instance_hours,
            run.cost_usd,
            run.outside_minutes,
            round(run.late),
            round(run.failed),
            round(run.requests),
            run.worst_ms,
            len(run.actions),
            max(run.serving, default=0),
            on_frontier(run, runs),
        )
        for run in runs
    ]


def on_frontier(run: Run, runs: Sequence[Run]) -> bool:
    """Whether no other run costs no more and is outside the objective no longer, and is better in one of them."""
    mine = (round(run.instance_hours, 2), round(run.outside_minutes, 2))
    others = [(round(r.instance_hours, 2), round(r.outside_minutes, 2)) for r in runs if r is not run]
    return not any(o != mine and o[0] <= mine[0] and o[1] <= mine[1] for o in others)


def clock(at_s: int) -> str:
    """Seconds from the beginning: 1:02:03."""
    return f"{at_s // 3600}:{at_s // 60 % 60:02d}:{at_s % 60:02d}"


def demand(run: Run) -> list[float]:
    """Instances that the arriving requests would keep wholly busy, a figure a second."""
    rate = run.experiment.profile.rate
    return [arrived / rate for arrived in run.arrived]


def thinned(values: Sequence[float], points: int = POINTS_MAX) -> list[tuple[float, float]]:
    """At most so many (second, mean) points of a line."""
    size = max(1, -(-len(values) // points))
    return [(n, sum(part) / len(part)) for n in range(0, len(values), size) if (part := values[n : n + size])]


def png(path: Path, runs: Sequence[Run]) -> None:
    """Draw capacity against demand, and the latency against the objective, a pair a run. Raises NoPicture."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise NoPicture("a PNG needs matplotlib: pip install 'eyrie[sim]'") from None
    figure, axes = pyplot.subplots(2 * len(runs), 1, figsize=(11, 4.6 * len(runs)), squeeze=False)
    for n, run in enumerate(runs):
        upper, lower = axes[2 * n][0], axes[2 * n + 1][0]
        upper.plot(*_hours(thinned(demand(run))), color=_DEMAND, label="demand")
        upper.step(*_hours(thinned(run.serving)), color=_CAPACITY, where="post", label="capacity")
        upper.set(title=f"{run.policy} on {run.experiment.traffic.name}", ylabel="instances")
        upper.legend(loc="upper left")
        known = [(m.at_s, m.quantile_ms) for m in run.minutes if m.quantile_ms]
        lower.plot(*_hours(known), color=_LATENCY, label=f"p{run.experiment.objective.percent:g}")
        lower.axhline(run.experiment.objective.limit_ms, color=_LIMIT, linestyle="--", label="objective")
        lower.set(ylabel="milliseconds", xlabel="hours", yscale="log")
        lower.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def page(runs: Sequence[Run]) -> str:
    """One HTML page with everything inside: the comparison, the drawings, every action with its reason."""
    title = html.escape(f"Wind tunnel: {runs[0].experiment.traffic.name}")
    parts = [
        f"<p>Objective: {html.escape(str(runs[0].experiment.objective))}.</p>",
        _table(runs),
    ]
    for run in runs:
        parts += [f"<h2>{html.escape(run.policy)}</h2>", _capacity_drawing(run), _latency_drawing(run), _actions(run)]
    return document_of(title, _STYLE, parts)


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:62em;color:#1f2328}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid #d1d9e0}
td:first-child,th:first-child,td.why{text-align:left}
svg{width:100%;height:auto}text{font:11px system-ui;fill:#59636e}"""


def _table(runs: Sequence[Run]) -> str:
    head = (
        "policy",
        "instance-hours",
        "USD",
        "minutes outside",
        "late",
        "failed",
        "worst",
        "actions",
        "most",
        "frontier",
    )
    body = "".join(
        f"<tr><td>{html.escape(r.policy)}<td>{r.instance_hours:.2f}<td>{r.cost_usd:.2f}<td>{r.outside_minutes:.2f}"
        f"<td>{r.late:,}<td>{r.failed:,}<td>{r.worst_ms:.0f} ms<td>{r.actions}<td>{r.most}"
        f"<td>{'yes' if r.frontier else ''}"
        for r in rows(runs)
    )
    return f"<table><tr>{''.join(f'<th>{h}' for h in head)}{body}</table>"


def _actions(run: Run) -> str:
    shown = run.actions[:ACTIONS_MAX]
    more = f"<p>and {len(run.actions) - len(shown)} more" if len(run.actions) > len(shown) else ""
    body = "".join(
        f"<tr><td>{clock(a.at_s)}<td>{a.before} to {a.after}<td class=why>{html.escape(a.reason)}" for a in shown
    )
    return f"<table><tr><th>when<th>instances<th>why{body}</table>{more}"


def _capacity_drawing(run: Run) -> str:
    wanted, there = thinned(demand(run)), thinned(run.serving)
    top = max([value for _, value in (*wanted, *there)] + [1.0]) * 1.1
    lines = [(wanted, _DEMAND, "demand"), (there, _CAPACITY, "capacity, instances")]
    return _drawing(len(run.arrived), top, lines)


def _latency_drawing(run: Run) -> str:
    limit = run.experiment.objective.limit_ms
    known = [(float(m.at_s + MINUTE_S / 2), min(m.quantile_ms, 4 * limit)) for m in run.minutes if m.quantile_ms]
    if not known:
        return ""
    name = f"p{run.experiment.objective.percent:g}, ms (cut off at four times the objective)"
    end = float(len(run.arrived))
    lines = [(known, _LATENCY, name), ([(0.0, limit), (end, limit)], _LIMIT, "objective")]
    return _drawing(len(run.arrived), max(max(v for _, v in known), limit) * 1.1, lines)


def _drawing(seconds: int, top: float, lines: Sequence[tuple[Sequence[tuple[float, float]], str, str]]) -> str:
    def x(at_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT) * at_s / max(seconds, 1)

    def y(value: float) -> float:
        return (_HEIGHT - _BOTTOM) * (1 - value / top)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img>']
    for n, (points, colour, name) in enumerate(lines):
        told = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f'<polyline points="{told}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{_LEFT + 8 + 220 * n}" y="12" style="fill:{colour}">{html.escape(name)}</text>')
    for step in range(5):
        parts.append(f'<text x="{_LEFT - 6}" y="{y(top * step / 5):.0f}" text-anchor="end">{top * step / 5:.3g}</text>')
        at_s = seconds * step // 5
        parts.append(f'<text x="{x(at_s):.0f}" y="{_HEIGHT - 6}">{clock(at_s)}</text>')
    return "".join(parts) + "</svg>"


def _hours(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [at / 3600 for at, _ in points], [value for _, value in points]
