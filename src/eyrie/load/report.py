"""The HTML page of a load test: one file, nothing fetched, readable in light and dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

from eyrie.decide.load import Saturation, Stair, quantile
from eyrie.domain.metrics import GAMMA, Summary, middle_of
from eyrie.load import drawing
from eyrie.load.drawing import Axis, Line
from eyrie.load.result import PERCENTS, Result, offered, saturated, stairs, timeline, warnings

STYLE = """:root{color-scheme:light dark;--ink:#1f2328;--dim:#59636e;--edge:#d1d9e0;--paper:#fff;
--a:#0b6bcb;--b:#c4480a;--c:#7a3fc4;--d:#1a7f37}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9aa4af;--edge:#3d444d;--paper:#0d1117;
--a:#58a6ff;--b:#ff9d5c;--c:#c297ff;--d:#56d364}}
body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;
color:var(--ink);background:var(--paper)}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;margin:1em 0}
td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid var(--edge)}
td:first-child,th:first-child{text-align:left}
.figures{display:flex;flex-wrap:wrap;gap:1em 2.5em;margin:1em 0}.figures div{display:flex;flex-direction:column}
.figures b{font-size:1.5em}.figures span,.note{color:var(--dim)}svg{width:100%;height:auto}
text{font:12px system-ui;fill:var(--dim)}.grid{stroke:var(--edge)}.tick{stroke:var(--dim)}
.line{fill:none;stroke-width:1.8}.line,.grid,.tick{vector-effect:non-scaling-stroke}.narrow{display:none}.line.mark{stroke:var(--c);stroke-width:1}
@media(max-width:40em){text{font-size:21px}.name{display:none}.legend .narrow{display:inline}
body{margin:1em auto}td,th{padding:.25em .4em}}
.a{--own:var(--a)}.b{--own:var(--b)}.c{--own:var(--c)}.d{--own:var(--d)}.line{stroke:var(--own)}.bar{fill:var(--own)}
.key{margin-right:1.5em}.key::before{content:"";display:inline-block;width:1.4em;height:.25em;
margin-right:.5em;vertical-align:middle;background:var(--own)}
p{overflow-wrap:anywhere}.wide{overflow-x:auto}
.warn{border-left:4px solid var(--b);padding-left:.8em}"""


def page(result: Result) -> str:
    """The whole page."""
    described = result.described
    title = html.escape(f"Load test of {described.endpoint}")
    target = f", variant {described.variant}" if described.variant else ""
    parts = [
        f"<p>{html.escape(described.what)}{html.escape(target)}, {'open' if described.open else 'closed'} loop, "
        f"{result.senders}, {described.content_type}, {described.body_bytes:,} bytes a request; "
        f"{html.escape(described.at)}; {html.escape(described.url)}",
        "".join(f'<p class="warn">{html.escape(text)}' for text in warnings(result)),
        _figures(result),
        "<h2>Throughput over time</h2>",
        _throughput(result),
        "<h2>Response time over time</h2>",
        _latency(result),
        "<h2>Latency by percentile</h2>",
        _percentiles(result),
        "<h2>How response times are spread</h2>",
        _histogram(result.response),
        _stairs(stairs(result), saturated(result)),
        _errors(result),
        "<p class=note>Service time: from sent to answered. Response time: from when a request was meant to begin; "
        "what waits behind a slow one counts. Percentiles are within 1 %.",
    ]
    return document_of(title, STYLE, parts)


def document_of(title: str, style: str, parts: Sequence[str]) -> str:
    """A page of a title, which is HTML already, and of the parts that are not empty."""
    head = (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{title}</title><style>{style}</style><main><h1>{title}</h1>"
    )
    return "\n".join([head, *(part for part in parts if part), "</main>"])


def wide(name: str, table: str) -> str:
    """A table that scrolls by itself where the screen is narrow, by keyboard too."""
    return f'<div class=wide role=region tabindex=0 aria-label="{html.escape(name)}">{table}</div>'


def _figures(result: Result) -> str:
    errors = sum(result.errors.values())
    shown = [
        (f"{result.rate:,.1f}/s", "good replies"),
        (f"{result.intended:,}", "requests"),
        (f"{errors:,} ({errors / max(1, result.intended):.2%})", "errors"),
        (_ms(quantile(result.response, 0.5)), "p50 response"),
        (_ms(quantile(result.response, 0.99)), "p99 response"),
        (_ms(quantile(result.service, 0.99)), "p99 service"),
    ]
    return '<div class="figures">' + "".join(f"<div><b>{v}</b><span>{n}</span></div>" for v, n in shown) + "</div>"


def _throughput(result: Result) -> str:
    rows = [row for row in timeline(result.seconds) if row["second"] < max(1, result.lasted_s)]
    answered = Line("good replies", "a", [(row["second"] + 0.5, row["answered"]) for row in rows])
    failed = Line("errors", "b", [(row["second"] + 0.5, row["errors"]) for row in rows])
    drawn = [answered, failed]
    if result.stages:
        asked = [(at / 2, offered(result.stages, at / 2)) for at in range(int(result.lasted_s * 2))]
        drawn.insert(0, Line("offered", "d", asked, dashed=True))
    high = max((y or 0.0 for line in drawn for _, y in line.points), default=1.0)
    return drawing.lines(
        "Requests a second over time", _seconds(result), drawing.linear(high, "requests a second"), drawn
    )


def _latency(result: Result) -> str:
    rows = timeline(result.seconds)
    drawn = [
        Line("p50", "a", [(row["second"] + 0.5, row["p50_ms"]) for row in rows]),
        Line("p99", "b", [(row["second"] + 0.5, row["p99_ms"]) for row in rows]),
    ]
    return drawing.lines(
        "Response time over time", _seconds(result), _scale([y for line in drawn for _, y in line.points]), drawn
    )


def _percentiles(result: Result) -> str:
    nines = (
        5 if result.answered >= 100_000 else 4 if result.answered >= 10_000 else 3 if result.answered >= 1_000 else 2
    )
    shares = [n / 100 for n in range(0, 90)] + [1 - 0.1 * 10 ** (-n / 20) for n in range(20 * (nines - 1) + 1)]
    drawn = [
        Line(name, colour, [(share, _of(summary, share)) for share in shares])
        for name, colour, summary in (("response time", "b", result.response), ("service time", "a", result.service))
    ]
    plot = drawing.lines(
        "Latency by percentile",
        drawing.percentile_axis(nines),
        _scale([y for line in drawn for _, y in line.points]),
        drawn,
    )
    head = "".join(f"<th>p{percent:g}" for percent in PERCENTS)
    body = "".join(
        f"<tr><td>{name}" + "".join(f"<td>{_ms(quantile(summary, percent / 100))}" for percent in PERCENTS)
        for name, summary in (("response", result.response), ("service", result.service))
    )
    return plot + wide("Latencies", f"<table><tr><th>time{head}{body}</table>")


def _histogram(summary: Summary) -> str:
    if not summary.count:
        return "<p>There were no good replies.</p>"
    bounds = [(middle_of(b) / 1000, count) for b, count in sorted(summary.buckets.items()) if middle_of(b) > 0]
    if not bounds:
        return "<p>All took less than a microsecond.</p>"
    half = GAMMA**0.5
    drawn = [(middle / half, middle * half, count) for middle, count in bounds]
    across = drawing.logarithmic(drawn[0][0], drawn[-1][1], "milliseconds")
    up = drawing.linear(max(count for _, _, count in drawn), "requests")
    return drawing.bars("Response times by bucket", across, up, drawn)


def _stairs(climbed: Sequence[Stair], verdict: Saturation | None) -> str:
    if verdict is None:
        return ""
    across = drawing.linear(max(stair.offered_rps for stair in climbed), "offered, requests a second")
    drawn = [
        Line("offered", "d", [(0.0, 0.0), *((s.offered_rps, s.offered_rps) for s in climbed)], dashed=True),
        Line("good replies", "a", [(0.0, 0.0), *((s.offered_rps, s.achieved_rps) for s in climbed)]),
    ]
    up = drawing.linear(max(max(s.offered_rps, s.achieved_rps) for s in climbed), "requests a second")
    high = Line("p99", "b", [(s.offered_rps, None if s.p99_us is None else s.p99_us / 1000) for s in climbed])
    body = "".join(
        f"<tr><td>{s.offered_rps:,.0f}<td>{s.achieved_rps:,.1f}<td>{s.errors:.2%}<td>{_ms(s.p50_us)}<td>{_ms(s.p99_us)}"
        for s in climbed
    )
    return (
        f"<h2>Saturation</h2><p>{html.escape(told(verdict))}</p>"
        + drawing.lines("Good replies against offered load", across, up, drawn)
        + drawing.lines("p99 against offered load", across, _scale([y for _, y in high.points]), [high])
        + wide("Stairs", f"<table><tr><th>offered/s<th>good replies/s<th>errors<th>p50<th>p99{body}</table>")
    )


def told(verdict: Saturation) -> str:
    """The verdict in a sentence."""
    kept = "it kept up with no stair" if verdict.sustained_rps is None else f"sustained {verdict.sustained_rps:,.0f}/s"
    at = "" if verdict.saturated_at_rps is None else f", saturated at {verdict.saturated_at_rps:,.0f}/s"
    return f"{kept}{at}; at most {verdict.best_rps:,.0f} good replies a second ({verdict.reason})"


def _errors(result: Result) -> str:
    if not result.errors:
        return "<h2>Errors</h2><p>None.</p>"
    whole = max(1, result.intended)
    body = "".join(
        f"<tr><td>{html.escape(kind)}<td>{count:,}<td>{count / whole:.3%}"
        for kind, count in result.errors.most_common()
    )
    return "<h2>Errors</h2>" + wide("Errors", f"<table><tr><th>kind<th>requests<th>share{body}</table>")


def _seconds(result: Result) -> Axis:
    return drawing.linear(max(1.0, result.lasted_s), "seconds")


def _scale(values: Sequence[float | None]) -> Axis:
    """Milliseconds: from zero, or by decades where they span more than two."""
    known = [value for value in values if value]
    if not known:
        return drawing.linear(1.0, "milliseconds")
    low, high = min(known), max(known)
    return drawing.logarithmic(low, high, "milliseconds") if high > 50 * low else drawing.linear(high, "milliseconds")


def _of(summary: Summary, share: float) -> float | None:
    value = quantile(summary, share)
    return None if value is None else value / 1000


def _ms(value_us: float | None) -> str:
    if value_us is None:
        return "-"
    value = value_us / 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"
