"""`eyrie endpoints` and `eyrie top`: the endpoints in a table, once or live."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public
from eyrie.cli.screen import show
from eyrie.cli.watch import Row, Variant, Watch

WINDOW_S = 60
TOP_WINDOW_S = 10
COLOURS = {"InService": "green", "Failed": "bold red", "RollingBack": "yellow", "Updating": "cyan", "Creating": "cyan"}
HOT_PERCENT = 80.0


def run(data: Path, only: str | None, as_json: bool) -> None:
    """Print a row an endpoint. Raises CommandError."""
    rows = Watch(Public.of(data), WINDOW_S).rows(only)
    if as_json:
        print_document({"endpoints": [row.document() for row in rows], "window_s": WINDOW_S})
    elif not rows:
        show(Text("no endpoints: `eyrie deploy MODEL_FILE` makes one"))
    else:
        show(table(rows), whole=True)
        show(Text(f"requests and errors a second over the last {WINDOW_S} s; p50, p99: the model's, last minute"))


def top(data: Path, only: str | None, once: bool, every_s: float, as_json: bool) -> None:
    """The same with what instances use, again and again until Ctrl-C. Raises CommandError."""
    watch = Watch(Public.of(data), TOP_WINDOW_S, use=True)
    if once or as_json:
        rows = watch.rows(only)
        if as_json:
            print_document({"endpoints": [row.document() for row in rows], "window_s": TOP_WINDOW_S})
        else:
            show(live_view(rows, None), whole=True)
        return
    console = Console()
    if not console.is_terminal:
        raise CommandError("`eyrie top` draws on a terminal: add --once for a script", code=2)
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_looked(watch, only), refresh=True)
            time.sleep(every_s)


def _looked(watch: Watch, only: str | None) -> RenderableType:
    """One look; what went wrong stands in its place until the next."""
    try:
        return live_view(watch.rows(only), None)
    except CommandError as error:
        return live_view([], str(error))


def live_view(rows: Sequence[Row], trouble: str | None) -> RenderableType:
    """What `eyrie top` draws."""
    total = sum(row.rps for row in rows)
    wrong = sum(row.errors4_a_second + row.errors5_a_second for row in rows)
    instances = sum(variant.current for row in rows for variant in row.variants)
    head = Text(
        f"{datetime.now(UTC):%H:%M:%S} UTC   {len(rows)} endpoints   {instances} instances   "
        f"{total:.1f} requests/s   {wrong:.1f} errors/s   (last {TOP_WINDOW_S} s; Ctrl-C ends)"
    )
    shown: list[RenderableType] = [head, Text("")]
    if trouble:
        shown.append(Text(trouble, style="yellow"))
    if rows:
        shown.append(table(sorted(rows, key=lambda row: (-row.rps, row.name)), use=True))
    elif not trouble:
        shown.append(Text("no endpoints"))
    return Group(*shown)


def table(rows: Sequence[Row], use: bool = False) -> Table:
    """A row a variant; what is the endpoint's own stands in its first."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    left = ("endpoint", "status", "variant", "by zone", "scaling")
    names = (
        "endpoint",
        "status",
        "variant",
        "traffic",
        "instances",
        "by zone",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "4xx/s",
        "5xx/s",
    )
    for name in (*names, "scaling", *(("cpu %", "memory %") if use else ())):
        made.add_column(name, no_wrap=True, justify="left" if name in left else "right")
    for row in rows:
        for number, variant in enumerate(row.variants or [None]):
            made.add_row(*_cells(row, variant, number == 0, use))
        if row.failure:
            made.add_row("", Text(row.failure[:120], style="red"))
    return made


def _cells(row: Row, variant: Variant | None, first: bool, use: bool) -> list[Text | str]:
    status = Text(row.status, style=COLOURS.get(row.status, "")) if first else ""
    own: list[Text | str] = ["", "", "", "", "", ""]
    if first:
        zones = "?" if row.zones is None else " ".join(f"{zone}:{count}" for zone, count in row.zones.items())
        own = [
            zones,
            f"{row.rps:.1f}",
            _ms(row.p50_ms),
            _ms(row.p99_ms),
            *map(_errors, (row.errors4_a_second, row.errors5_a_second)),
        ]
    if variant is None:
        return [row.name, status, "", "", "", *own, ""]
    count: Text | str = f"{variant.current}/{variant.desired}"
    if variant.current < variant.desired:
        count = Text(str(count), style="yellow")
    name = f"{variant.name} ({variant.fleet})" if variant.fleet else variant.name
    traffic = f"{variant.traffic_percent:g} %"
    cells = [row.name if first else "", status, name, traffic, count, *own, variant.scaling]
    return [*cells, _percent(variant.cpu_percent), _percent(variant.memory_percent)] if use else cells


def _errors(rate: float) -> Text | str:
    return Text(f"{rate:.1f}", style="red") if rate > 0 else "0"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _percent(value: float | None) -> Text | str:
    if value is None:
        return "-"
    return Text(f"{value:.0f}", style="yellow" if value >= HOT_PERCENT else "")
