"""`eyrie advise`: which of the four ways to infer fits a workload, why, and what each would cost."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from eyrie.adapters.instance_types import InstanceTypesError, load_instance_types
from eyrie.cli.errors import CommandError
from eyrie.cli.screen import show
from eyrie.decide.advice import Advice, Option, Price, Workload, advise
from eyrie.domain.instance_types import UnknownInstanceType

_SIZES = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_TIMES_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def run(
    data: Path,
    payload: str,
    processing: str,
    requests: float,
    active: str,
    latency: str | None,
    waits: bool,
    whole_set: bool,
    memory: str,
    instance_type: str,
    as_json: bool,
) -> None:
    """Print the advice. Raises CommandError for an amount that cannot be read."""
    price = _price(data, instance_type)
    work = Workload(
        payload_bytes=size("--payload", payload),
        processing_ms=duration_ms("--processing", processing),
        requests_per_day=requests,
        active_hours=duration_ms("--active", active) / 3_600_000,
        latency_ms=None if latency is None else duration_ms("--latency", latency),
        waits=waits,
        whole_set=whole_set,
        memory_mb=size("--memory", memory) >> 20,
        accelerator=_accelerated(data, instance_type),
    )
    try:
        found = advise(work, price)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print(json.dumps(asdict(found)))
        return
    show(Text.assemble((str(found.way), "bold green"), ": " + "; ".join(found.reasons) + "."))
    show(_table(found), whole=True)
    show(Text("USD a month: rough, at the prices of the table of instance types; here nothing is paid for."))


def _price(data: Path, instance_type: str) -> Price:
    try:
        row = load_instance_types(data).get(instance_type)
    except (UnknownInstanceType, InstanceTypesError) as error:
        raise CommandError(str(error)) from None
    return Price(row.name, max(1, row.vcpu), row.usd_per_hour)


def _accelerated(data: Path, instance_type: str) -> bool:
    return load_instance_types(data).get(instance_type).accelerators > 0


def _table(found: Advice) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "way", "USD a month", "set up", "because"):
        table.add_column(name, justify="right" if name == "USD a month" else "left", overflow="fold")
    for option in found.options:
        mark = "*" if option.way is found.way else "" if option.possible else "-"
        table.add_row(mark, str(option.way), _cost(option), option.setup, "; ".join(option.reasons))
    return table


def _cost(option: Option) -> str:
    if not option.possible:
        return ""
    return "?" if option.usd_per_month is None else f"{option.usd_per_month:,.2f}"


def size(name: str, text: str) -> int:
    """Bytes of "500MB", "4 KB", "100". Raises CommandError."""
    return int(_amount(name, text, _SIZES, "500MB"))


def duration_ms(name: str, text: str) -> int:
    """Milliseconds of "100ms", "3min", "2h", "1.5s". Raises CommandError."""
    return int(_amount(name, text, _TIMES_MS, "100ms, 3min or 2h"))


def _amount(name: str, text: str, units: dict[str, int], like: str) -> float:
    found = _AMOUNT.fullmatch(text)
    unit = units.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise CommandError(f"{name} {text!r} cannot be read: give it like {like}")
    return float(found[1]) * unit
