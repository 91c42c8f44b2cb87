"""The metrics graphs of the experiment on one HTML page: nothing is fetched, every axis begins at zero."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from eyrie.load.drawing import Line, linear, lines

COLOURS = "abcd"
STYLE = """:root{color-scheme:light dark;--ink:#1f2328;--dim:#59636e;--edge:#d1d9e0;--paper:#fff;
--a:#0b6bcb;--b:#c4480a;--c:#7a3fc4;--d:#1a7f37}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9aa4af;--edge:#3d444d;--paper:#0d1117;
--a:#58a6ff;--b:#ff9d5c;--c:#c297ff;--d:#56d364}}
body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;
color:var(--ink);background:var(--paper)}
svg{width:100%;height:auto}text{font:12px system-ui;fill:var(--dim)}.grid{stroke:var(--edge)}.tick{stroke:var(--dim)}
.line{fill:none;stroke-width:1.8;stroke:var(--own)}
.a{--own:var(--a)}.b{--own:var(--b)}.c{--own:var(--c)}.d{--own:var(--d)}
.key{margin-right:1.5em}.key::before{content:"";display:inline-block;width:1.4em;height:.25em;margin-right:.5em;
vertical-align:middle;background:var(--own)}pre{overflow:auto}"""


@dataclass(frozen=True, slots=True)
class Graph:
    """Series over the minutes of the experiment; `lost` is the minute in which an instance was lost."""

    title: str
    unit: str
    series: dict[str, Sequence[tuple[float, float]]]
    lost: float | None = None


def page(title: str, said: str, graphs: Sequence[Graph]) -> str:
    """All of them, below what was found."""
    parts = [
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<pre>{html.escape(said)}</pre>",
    ]
    for graph in graphs:
        parts += [f"<h2>{html.escape(graph.title)}</h2>", drawn(graph)]
    return "\n".join(parts)


def drawn(graph: Graph) -> str:
    """One graph as inline SVG."""
    points = [point for series in graph.series.values() for point in series]
    highest = max((value for _, value in points), default=1.0)
    shown = [Line(name, COLOURS[at % 4], list(series)) for at, (name, series) in enumerate(graph.series.items())]
    if graph.lost is not None:
        shown.append(Line("an instance is lost", "b", [(graph.lost, 0.0), (graph.lost, highest)], dashed=True))
    across = linear(max((minute for minute, _ in points), default=1.0), "minutes")
    return lines(graph.title, across, linear(highest, graph.unit), shown)
