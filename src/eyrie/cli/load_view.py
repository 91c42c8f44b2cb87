"""What a person sees of a load test: a view that changes while it runs, and the tables at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eyrie.cli.screen import show
from eyrie.decide.load import quantile
from eyrie.domain.metrics import Summary, merged
from eyrie.load.report import told
from eyrie.load.result import PERCENTS, Result, offered, saturated, stairs, warnings

SPARKS = " ▁▂▃▄▅▆▇█"
SPARK_SECONDS = 60
RECENT_SECONDS = 5

Draw = Callable[[Result, float], None]


@contextlib.contextmanager
def view(quiet: bool) -> Iterator[Draw]:
    """A function that draws how it stands: the result so far, and the seconds that have passed."""
    if quiet:
        yield lambda result, passed_s: None
        return
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda result, passed_s: live.update(standing(result, passed_s), refresh=True)


def standing(result: Result, passed_s: float) -> RenderableType:
    """How a test stands: progress, the last seconds, and the whole so far."""
    described = result.described
    recent = [at for at in result.seconds if passed_s - RECENT_SECONDS - 1 <= at < passed_s - 1]
    rate = sum(result.seconds[at].answered for at in recent) / max(1, len(recent))
    near = merged(result.seconds[at].response for at in recent)
    head = Text(f"{described.endpoint}: {described.what}", style="bold")
    asked = f"{offered(result.stages, passed_s):,.0f}/s asked for, " if result.stages else ""
    line = f"{max(0.0, passed_s):5.0f} of {described.seconds:g} s   {asked}{rate:,.0f}/s answered"
    latest = f"last {RECENT_SECONDS} s: p50 {ms(quantile(near, 0.5))}   p99 {ms(quantile(near, 0.99))}"
    latest += f"   {sum(result.errors.values()):,} errors"
    bar = ProgressBar(total=described.seconds, completed=min(described.seconds, max(0.0, passed_s)), width=60)
    history = [result.seconds[at].answered for at in sorted(result.seconds) if at < passed_s - 1][-SPARK_SECONDS:]
    return Group(
        head,
        bar,
        Text(line),
        Text(latest),
        Text(sparks(history), style="cyan"),
        Text("Ctrl-C ends it and reports", style="dim"),
    )


def sparks(values: list[int]) -> str:
    """A line of bars from zero to the highest."""
    high = max(values, default=0)
    return "".join(SPARKS[round((len(SPARKS) - 1) * value / high)] for value in values) if high else ""


def show_result(result: Result, page: Path | None) -> None:
    """Print the figures."""
    described, errors = result.described, result.errors
    kind = "open" if described.open else "closed"
    show(Text(f"{described.endpoint}: {described.what} ({kind} loop, {result.senders})", style="bold"))
    failed = sum(errors.values())
    share = failed / max(1, result.intended)
    show(Text(f"{result.rate:,.1f} good replies/s; {result.intended:,} requests, {failed:,} errors ({share:.2%})"))
    show(_latencies(result), whole=True)
    for name, count in errors.most_common(10):
        show(Text(f"  {count:>9,}  {name}", style="red"))
    if result.steps:
        show(_stairs(result), whole=True)
        verdict = saturated(result)
        if verdict is not None:
            show(Text(told(verdict), style="bold"))
    for text in warnings(result):
        show(Text(f"note: {text}", style="yellow"))
    if page is not None:
        show(Text(f"report: {page}"))


def _latencies(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "mean", *(f"p{percent:g}" for percent in PERCENTS), "max"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, summary in (("response", result.response), ("service", result.service)):
        table.add_row(name, *_row(summary))
    return table


def _row(summary: Summary) -> list[str]:
    if not summary.count:
        return ["-"] * (len(PERCENTS) + 2)
    middle = [ms(quantile(summary, percent / 100)) for percent in PERCENTS]
    return [ms(summary.total / summary.count), *middle, ms(summary.highest)]


def _stairs(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("offered/s", "good replies/s", "errors", "p50", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    for stair in stairs(result):
        row = (f"{stair.offered_rps:,.0f}", f"{stair.achieved_rps:,.1f}", f"{stair.errors:.2%}")
        table.add_row(*row, ms(stair.p50_us), ms(stair.p99_us))
    return table


def ms(value_us: float | None) -> str:
    """Microseconds as milliseconds for people."""
    if value_us is None:
        return "-"
    value = value_us / 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"
