"""The HTML page of an assessment: one file, nothing fetched, readable in light and dark, drawn as load tests are."""

from __future__ import annotations

import html
from collections.abc import Sequence

from eyrie.decide.scalability import Law
from eyrie.domain.assessment import Assessment, Availability, Change, FaultRun, Performance, Scalability, Steady
from eyrie.load import drawing
from eyrie.load.drawing import Line
from eyrie.load.report import STYLE, document_of, wide

_MORE = """.grade{display:inline-block;min-width:1.6em;padding:0 .3em;text-align:center;font-weight:700;
border-radius:.3em;color:#fff;background:var(--own)}.A,.B{--own:#1a7f37}.C,.D{--own:#9a6700}.E,.F{--own:#b3261e}.none{--own:#59636e}
.whole{font-size:2.4em;line-height:1.5}td.left,th.left{text-align:left}.small{font-size:.85em;color:var(--dim)}
.stripe{display:block;height:.5em;background:var(--b);min-width:1px}.stripe.a{background:var(--a)}
h2 .grade{margin-right:.5em}h2{border-top:1px solid var(--edge);padding-top:1em}
figure{margin:1.5em 0}figcaption{font-weight:600;margin-bottom:.3em}.legend{margin:.2em 0}
ul.marks{list-style:none;padding:0;display:grid;gap:.9em}
.marks li{display:grid;grid-template-columns:2.2em 1fr;gap:0 .8em;align-items:start}
.marks .small{margin-top:.1em}.wide td,.wide th{white-space:nowrap}.wide td.left{white-space:normal;min-width:14em}
.figures{gap:1em 2.2em}"""
_NAMES = {
    "kill-instance": "an instance is killed",
    "hang": "an instance hangs",
    "slow": "an instance is slow",
    "memory": "an instance has no memory left",
    "crash-loop": "an instance crashes again and again",
    "fill-box": "an instance fills its disk",
    "zone": "a zone is out",
    "kill-gateway": "a gateway worker is killed",
    "kill-control": "control is killed",
    "stop-control": "control stands still",
    "lock-store": "the store is locked",
    "full-disk": "the disk is full",
}


def name_of(run: FaultRun) -> str:
    """A fault in words."""
    return _NAMES.get(run.fault, run.fault)


def page(found: Assessment, changes: Sequence[Change]) -> str:
    """The whole page."""
    title = html.escape(f"Assessment of {found.endpoint}")
    runs = [run for run in found.faults if not run.skipped]
    what = "the endpoint itself" if found.assessed == found.endpoint else f"a copy, {found.assessed}"
    parts = [
        f"<p>{html.escape(what)}, config {html.escape(found.config)}, {found.instances} instances of "
        f"{html.escape(', '.join(found.instance_types))}; {html.escape(found.content_type)}, {found.body_bytes:,} "
        f"bytes a request; {html.escape(found.host)}; {html.escape(found.at)}, {found.took_s:.0f} s; "
        f"eyrie {found.version}",
        f'<p class="whole">{badge(found.grade)} <span class="small">{worst_of(found)}</span>',
        "".join(f'<p class="warn">Objective missed: {html.escape(text)}' for text in found.missed),
        _grades(found),
        _performance(found),
        _availability(found, runs),
        _scalability(found),
        _resiliency(found, runs),
        _tolerance(found, runs),
        _changes(changes),
        _facts(found),
    ]
    return document_of(title, STYLE + _MORE, parts)


def badge(letter: str) -> str:
    """A letter on its colour; the letter alone says it too."""
    return f'<span class="grade {"none" if letter == "-" else letter}">{letter}</span>'


def _drawn(
    title: str,
    across: drawing.Axis,
    up: drawing.Axis,
    shown: Sequence[Line],
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """A drawing with its title above it."""
    made = drawing.lines(title, across, up, shown, marks)
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{made}</figure>"


def _head(found: Assessment, measure: str) -> str:
    letter = next((grade.letter for grade in found.grades if grade.measure == measure), "-")
    return f"<h2>{badge(letter)}{measure.capitalize()}</h2>"


def _grades(found: Assessment) -> str:
    items = "".join(
        f"<li>{badge(grade.letter)}<div><b>{grade.measure.capitalize()}</b>: {html.escape(grade.why)}"
        f'<div class="small">Rule: {html.escape(grade.rule)}</div></div>'
        for grade in found.grades
    )
    return f'<ul class="marks">{items}</ul>'


def _performance(found: Assessment) -> str:
    told = found.performance
    if told is None:
        return ""
    return _head(found, "performance") + _work(told) + _stairs(told)


def _work(told: Performance) -> str:
    steady = told.at_80
    shown = [
        (_rate(told.saturation_rps), "saturation point"),
        (_rate(told.users_rps), f"{told.users} users that wait"),
        ("-" if steady is None else _ms(steady.p50_ms), "p50 at 80 %"),
        ("-" if steady is None else _ms(steady.p99_ms), "p99 at 80 %"),
        (_number(told.rows_a_minute), "rows a minute at 80 %"),
        (_number(told.requests_an_hour), "requests an hour at 80 %"),
        ("-" if told.mb_a_second is None else f"{told.mb_a_second:.3g}", "MB a second at 80 %"),
        ("-" if told.usd_a_million is None else f"{told.usd_a_million:.3g} USD", "a million requests at 80 %"),
    ]
    return f"{_figures(shown)}<p>{html.escape(told.reason)}"


def _stairs(told: Performance) -> str:
    climbed = told.stairs
    if not climbed:
        return ""
    across = drawing.linear(max(s.offered_rps for s in climbed), "offered, requests a second")
    up = drawing.linear(max(max(s.offered_rps, s.achieved_rps) for s in climbed), "requests a second")
    drawn = [
        Line("offered", "d", [(0.0, 0.0), *((s.offered_rps, s.offered_rps) for s in climbed)], dashed=True),
        Line("good replies", "a", [(s.offered_rps, s.achieved_rps) for s in climbed], dots=True),
    ]
    high = Line("p99", "b", [(s.offered_rps, s.p99_ms) for s in climbed], dots=True)
    low = Line("p50", "a", [(s.offered_rps, s.p50_ms) for s in climbed], dots=True)
    return (
        _drawn("Good replies against offered load", across, up, drawn)
        + _drawn("Latency against offered load", across, _scale([*high.points, *low.points]), [low, high])
        + _stair_rows(climbed)
    )


def _stair_rows(climbed: Sequence[Steady]) -> str:
    body = "".join(
        f"<tr><td>{s.offered_rps:,.0f}<td>{s.achieved_rps:,.1f}<td>{s.errors:.2%}<td>{_ms(s.p50_ms)}<td>{_ms(s.p99_ms)}"
        for s in climbed
    )
    head = "<tr><th>offered/s<th>good replies/s<th>errors<th>p50<th>p99"
    return f"<details><summary>Stairs as numbers</summary><table>{head}{body}</table></details>"


def _availability(found: Assessment, runs: Sequence[FaultRun]) -> str:
    told = found.availability
    if told is None:
        return ""
    return f"{_head(found, 'availability')}{_budget(told, found.fault_rps)}{_window(found, runs)}"


def _budget(told: Availability, rps: float) -> str:
    shown = [
        (f"{told.of_requests:.4%}", f"good of {told.requests:,} requests"),
        (f"{told.of_seconds:.2%}", f"good of {told.seconds} seconds"),
        (f"{told.failed:,} of {told.allowed:,.1f}", "failed, of those allowed"),
        (f"{told.budget_used:.0%}", f"of the error budget of {100 * told.objective:.6g} %"),
        (f"{told.longest_bad_s} s", "longest bad stretch"),
    ]
    return (
        f"{_figures(shown)}<p class=note>Over the window in which things were broken, one after the other, at "
        f"{rps:,.0f} requests a second. A second is good where its requests keep the objective. Numbers: "
        "the faults, as numbered below."
    )


def _window(found: Assessment, runs: Sequence[FaultRun]) -> str:
    rows = found.timeline
    if not rows:
        return ""
    high = max((row["answered"] or 0.0) + (row["failed"] or 0.0) for row in rows)
    across = drawing.linear(float(len(rows)), "seconds")
    marks = [(run.at_s, str(number)) for number, run in enumerate(runs, 1)]
    drawn = [
        Line("good replies", "a", [((row["second"] or 0) + 0.5, row["answered"]) for row in rows]),
        Line("failed", "b", [((row["second"] or 0) + 0.5, row["failed"]) for row in rows]),
    ]
    late = [
        Line("p50", "a", [((row["second"] or 0) + 0.5, row["p50_ms"]) for row in rows]),
        Line("p99", "b", [((row["second"] or 0) + 0.5, row["p99_ms"]) for row in rows]),
    ]
    return _drawn(
        "Requests a second while things were broken", across, drawing.linear(high, "requests a second"), drawn, marks
    ) + _drawn(
        "Response time while things were broken", across, _scale([*late[0].points, *late[1].points]), late, marks
    )


def _scalability(found: Assessment) -> str:
    told = found.scalability
    if told is None:
        return ""
    return f"{_head(found, 'scalability')}{_law(told)}{_curve(told)}{_scales(told)}"


def _law(told: Scalability) -> str:
    shown = [
        (_rate(told.rate), "one instance, by the law"),
        ("-" if told.contention is None else f"{told.contention:.3g}", "contention"),
        ("-" if told.coherence is None else f"{told.coherence:.3g}", "coherence"),
        ("-" if told.kept is None else f"{told.kept:.0%}", f"kept of what {told.cores} cores allow"),
        (
            "not back" if told.restored_s is None else f"{told.restored_s:g} s",
            "from a step in load to restored latency",
        ),
    ]
    if told.step_to_rps is None:
        shown[-1] = ("-", "from a step in load to restored latency")
    return (
        f"{_figures(shown)}<p class=note>Universal Scalability Law: X(n) = rate n / (1 + contention (n - 1) "
        f"+ coherence n (n - 1)), least squares, relative error {'-' if told.fit_error is None else told.fit_error}. "
        f"All instances share the {told.cores} cores of this host, with the load."
    )


def _curve(told: Scalability) -> str:
    if not told.scales or told.rate is None:
        return ""
    law = Law(told.rate, told.contention or 0.0, told.coherence or 0.0, 0.0, len(told.scales))
    most = max(scale.instances for scale in told.scales) * 1.5
    points = [(1 + at * (most - 1) / 60, law.at(1 + at * (most - 1) / 60)) for at in range(61)]
    seen = [(float(scale.instances), scale.rps) for scale in told.scales]
    high = max(y for _, y in [*points, *seen])
    drawn = [Line("the law", "d", points, dashed=True), Line("measured", "a", seen, dots=True)]
    across = drawing.linear(most, "instances")
    return _drawn("Throughput against instances", across, drawing.linear(high, "requests a second"), drawn)


def _scales(told: Scalability) -> str:
    body = "".join(
        f"<tr><td>{s.instances}<td>{s.rps:,.1f}<td>{_ms(s.p99_ms)}<td>{_seconds(s.ready_s)}" for s in told.scales
    )
    step = ""
    if told.step_to_rps is not None and told.step_from_rps is not None:
        step = (
            f"<p>From {told.step_from_rps:,.0f} to {told.step_to_rps:,.0f} requests a second at once; restored where "
            f"p99 of three seconds in a row is within {_ms(told.restored_limit_ms)}."
        )
    head = "<tr><th>instances<th>good replies/s<th>p99<th>ready after"
    return wide("Throughput by instances", f"<table>{head}{body}</table>") + step


def _resiliency(found: Assessment, runs: Sequence[FaultRun]) -> str:
    if not found.faults:
        return ""
    longest = max((run.whole_s or 0.0 for run in runs), default=1.0) or 1.0
    body = "".join(
        f"<tr><td>{number}. {name_of(run)}<td>{_seconds(run.detect_s)}<td>{_seconds(run.lasted_s or None)}"
        f"<td>{_seconds(run.whole_s)}"
        f"<td>{'never' if run.recover_s is None else _seconds(run.recover_s)}"
        f'<td class="left" style="width:12em"><span class="stripe" '
        f'style="width:{100 * (run.whole_s or longest) / longest:.0f}%"></span>'
        f'<span class="small">{html.escape(run.what)}</span>'
        for number, run in enumerate(runs, 1)
    )
    skipped = "".join(
        f"<p class=note>Not injected: {html.escape(name_of(run))}: {html.escape(run.skipped)}"
        for run in found.faults
        if run.skipped
    )
    columns = "<tr><th>fault<th>noticed after<th>lasted<th>whole after<th>recovered after<th class=left>what was done"
    return (
        _head(found, "resiliency")
        + wide("Resiliency", f"<table>{columns}{body}</table>")
        + skipped
        + "<p class=note>Noticed: a gateway worker sends it nothing any more, or control does not count on it. Whole: "
        "as many instances serve, and processes run, as should. Recovered: whole, counted from the end of a fault that "
        "lasts."
    )


def _tolerance(found: Assessment, runs: Sequence[FaultRun]) -> str:
    if not runs:
        return ""
    body = "".join(
        f"<tr><td>{number}. {name_of(run)}<td>{run.failed:,} of {run.requests:,}<td>{_share(run.rate_kept)}"
        f"<td>{_ms(run.p99_before_ms)}<td>{_ms(run.p99_during_ms)}"
        f"<td>{f'{run.answers_same} of {run.answers}' if run.answers else '-'}"
        f'<td class="left small">{html.escape(", ".join(f"{kind} ({n})" for kind, n in run.errors.items()))}'
        for number, run in enumerate(runs, 1)
    )
    columns = (
        "<tr><th>without<th>requests lost<th>throughput kept<th>p99 before<th>p99 meanwhile<th>same answers"
        "<th class=left>errors"
    )
    return (
        _head(found, "fault tolerance")
        + wide("Fault tolerance", f"<table>{columns}{body}</table>")
        + "<p class=note>Requests are counted on the wire, without any client's retries. Answers: of one request that "
        "was repeated meanwhile by a client that tries twice."
    )


def _changes(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    body = "".join(
        f"<tr><td>{html.escape(c.name)}<td>{_plain(c.before, c.unit)}<td>{_plain(c.after, c.unit)}<td>{c.verdict}"
        for c in changes
    )
    table = f"<table><tr><th>figure<th>before<th>now<th>verdict{body}</table>"
    return "<h2>Against the earlier one</h2>" + wide("Against the earlier one", table)


def worst_of(found: Assessment) -> str:
    """What the whole grade is the worst of, in words."""
    known = sum(grade.letter != "-" for grade in found.grades)
    return "the worst of five" if known == len(found.grades) else f"the worst of {known}: the others have no grade"


def _facts(found: Assessment) -> str:
    missing = "".join(f"<li>{html.escape(text)}" for text in found.missing) or "<li>nothing"
    notes = "".join(
        f"<li>{html.escape(text)}"
        for text in (*(f"Left out, since the time (--time) was over: {one}" for one in found.left_out), *found.notes)
    )
    return f"<h2>What this host does not offer</h2><ul>{missing}</ul><h2>Notes</h2><ul>{notes}</ul>"


def _figures(shown: Sequence[tuple[str, str]]) -> str:
    return '<div class="figures">' + "".join(f"<div><b>{v}</b><span>{n}</span></div>" for v, n in shown) + "</div>"


def _scale(points: Sequence[tuple[float, float | None]]) -> drawing.Axis:
    """Milliseconds: from zero, or by decades where they span more than two."""
    known = [y for _, y in points if y]
    if not known:
        return drawing.linear(1.0, "milliseconds")
    low, high = min(known), max(known)
    return drawing.logarithmic(low, high, "milliseconds") if high > 50 * low else drawing.linear(high, "milliseconds")


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _plain(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.4g} {unit}".strip()
