"""`eyrie advise`: which of the four ways to infer fits a workload, why, and what each would cost."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from eyrie.adapters.instance_types import InstanceTypesError, load_instance_types
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.recorded import RecordedEndpoint
from eyrie.cli.screen import show
from eyrie.decide.advice import Advice, Option, Price, Workload, advise, traced
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.sim.traffic import from_csv

_SIZES = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_TIMES_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command was told."""

    data: Path
    payload: str
    processing: str | None
    requests: float = 1_000.0
    active: str = "24h"
    latency: str | None = None
    waits: bool = True
    whole_set: bool = False
    memory: str = "2GB"
    instance_type: str = "ml.m5.large"
    traffic: str | None = None
    throughput: float | None = None
    endpoint: str | None = None
    as_json: bool = False


def run(asked: Asked) -> None:
    """Print the advice. Raises CommandError for an amount that cannot be read."""
    recorded = RecordedEndpoint(asked.data, asked.endpoint, None) if asked.endpoint else None
    measured = recorded.profile() if recorded else None
    kind = measured.instance_type if measured else asked.instance_type
    price = _price(asked.data, kind, asked.throughput or (measured.rate if measured else None))
    processing = asked.processing or (f"{max(1, round(measured.service_ms))}ms" if measured else None)
    if processing is None:
        raise CommandError("say how long a request takes: --processing, or --endpoint for one that was measured", 2)
    work = Workload(
        payload_bytes=size("--payload", asked.payload),
        processing_ms=duration_ms("--processing", processing),
        requests_per_day=asked.requests,
        active_hours=duration_ms("--active", asked.active) / 3_600_000,
        latency_ms=None if asked.latency is None else duration_ms("--latency", asked.latency),
        waits=asked.waits,
        whole_set=asked.whole_set,
        memory_mb=size("--memory", asked.memory) >> 20,
        accelerator=_accelerated(asked.data, kind),
    )
    try:
        if asked.traffic is not None:
            work = traced(work, _minutes(asked.traffic, recorded))
        found = advise(work, price)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from None
    if asked.as_json:
        print_document(asdict(found))
        return
    show(Text.assemble((str(found.way), "bold green"), ": " + "; ".join(found.reasons) + "."))
    show(_table(found), whole=True)
    chosen = next(option for option in found.options if option.way is found.way)
    if chosen.scaling:
        show(Text(f"scaling: {chosen.scaling}"))
    if work.minutes:
        show(
            Text(
                f"traffic: {sum(work.minutes) * 60:.0f} requests in {len(work.minutes)} minutes, taken for every day's"
            )
        )
    if measured is not None or asked.throughput:
        show(Text(f"reckoned with {price.bears(work):.4g} requests/s an instance, as measured"))
    show(Text("USD a month: rough, at the prices of the table of instance types; here nothing is paid for."))


def _minutes(given: str, recorded: RecordedEndpoint | None) -> tuple[float, ...]:
    """Requests a second, on average, of each minute of a trace. Raises ValueError, OSError or CommandError."""
    if given.startswith("recorded"):
        if recorded is None:
            raise CommandError("--traffic recorded is an endpoint's: name it by --endpoint", 2)
        made = recorded.recorded(duration_ms("--traffic recorded:", given.partition(":")[2] or "24h") / 3_600_000)
    else:
        made = from_csv(given, Path(given).read_text().splitlines())
    rates = made.rates
    return tuple(sum(rates[at : at + 60]) / len(rates[at : at + 60]) for at in range(0, len(rates), 60))


def _price(data: Path, instance_type: str, rps: float | None = None) -> Price:
    try:
        row = load_instance_types(data).get(instance_type)
    except (UnknownInstanceType, InstanceTypesError) as error:
        raise CommandError(str(error)) from None
    return Price(row.name, max(1, row.vcpu), row.usd_per_hour, rps)


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
