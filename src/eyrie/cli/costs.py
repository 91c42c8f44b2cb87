"""`eyrie costs`: what endpoints, variants and jobs have cost, from the metrics of `Eyrie/Costs` by the public API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public
from eyrie.cli.screen import show

NAMESPACE = "Eyrie/Costs"
QUERIES_MAX = 500  # of one GetMetricData
RECENT = timedelta(minutes=3)  # in which a rate is one of now
_SPAN = re.compile(r"(\d{1,4})\s*(min|h|d)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days"}
_DAYS_MAX = 455  # metrics are kept no longer

Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What one payer has cost. USD."""

    endpoint: str
    variant: str
    job: str
    usd: float
    usd_per_hour: float | None  # now; None: nothing is counted for it now
    requests: float | None  # None where they are not counted
    usd_per_request: float | None


@dataclass(frozen=True, slots=True)
class _Query:
    """One metric summed up over the whole span, or its newest value."""

    namespace: str
    name: str
    dimensions: Dimensions
    newest: bool = False

    def document(self, number: int, period_s: int) -> dict[str, Any]:
        """As GetMetricData has it."""
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions]
        metric = {"Namespace": self.namespace, "MetricName": self.name, "Dimensions": dimensions}
        stat = {"Metric": metric, "Period": 60 if self.newest else period_s, "Stat": "Sum"}
        return {"Id": f"q{number}", "MetricStat": stat}


def run(data: Path, over: str, endpoint: str | None, as_json: bool, now: datetime) -> None:
    """Print them. Raises CommandError for a span that cannot be read."""
    span = span_of(over)
    rows, total = gathered(Public.of(data), span, now, endpoint)
    if as_json:
        print_document({"over_s": span.total_seconds(), "rows": [asdict(r) for r in rows], "total": asdict(total)})
        return
    if not rows:
        show(Text("nothing has cost anything yet: costs are counted each minute, from what is in service on"))
        return
    show(_table(rows, total, over), whole=True)
    show(Text("USD by the prices of the table of instance types; here nothing is paid for."))


def span_of(text: str) -> timedelta:
    """Of "90min", "6h" or "30d". Raises CommandError."""
    found = _SPAN.fullmatch(text.strip())
    span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < span <= timedelta(days=_DAYS_MAX):
        raise CommandError(f"--over {text!r} cannot be read: give it like 90min, 6h or 30d (at most {_DAYS_MAX}d)", 2)
    return span


def gathered(public: Public, span: timedelta, now: datetime, endpoint: str | None) -> tuple[list[Row], Row]:
    """A row an endpoint's variant or a job, the dearest first, and the account as a whole."""
    payers = [p for p in _payers(public) if endpoint is None or dict(p).get("EndpointName") == endpoint]
    sums = [
        query
        for payer in payers
        for query in (_Query(NAMESPACE, "Cost", payer), _Query("AWS/SageMaker", "Invocations", payer))
    ]
    rates = [_Query(NAMESPACE, "CostPerHour", payer, newest=True) for payer in payers]
    found = {**_summed(public, sums, now - span, now), **_summed(public, rates, now - RECENT, now)}
    rows = [_row(payer, found) for payer in payers]
    total = _total([row for payer, row in zip(payers, rows, strict=True) if payer])
    kept = [r for p, r in zip(payers, rows, strict=True) if (r.job or r.variant) and (r.usd or r.usd_per_hour) and p]
    return sorted(kept, key=lambda r: (-r.usd, r.endpoint, r.variant, r.job)), total


def _total(rows: Sequence[Row]) -> Row:
    """Of variants and jobs together."""
    leaves = [row for row in rows if row.variant or row.job]
    rate = sum(row.usd_per_hour or 0.0 for row in leaves)
    return Row("", "", "", sum(row.usd for row in leaves), rate, None, None)


def _payers(public: Public) -> list[Dimensions]:
    listed = public.pages("cloudwatch", "list_metrics", "Metrics", Namespace=NAMESPACE, MetricName="Cost")
    return [tuple((d["Name"], d["Value"]) for d in one["Dimensions"]) for one in listed]


def _row(payer: Dimensions, found: dict[_Query, float]) -> Row:
    named = dict(payer)
    usd = found.get(_Query(NAMESPACE, "Cost", payer), 0.0)
    requests = found.get(_Query("AWS/SageMaker", "Invocations", payer))
    rate = found.get(_Query(NAMESPACE, "CostPerHour", payer, newest=True))
    each = usd / requests if requests else None
    names = (named.get("EndpointName", ""), named.get("VariantName", ""), named.get("TransformJobName", ""))
    return Row(*names, usd, rate, requests, each)


def _summed(public: Public, queries: Sequence[_Query], start: datetime, end: datetime) -> dict[_Query, float]:
    """Each query's sum, or its newest value; those without any value are left out."""
    period_s = 60 if end - start <= timedelta(hours=6) else 3_600
    start = datetime.fromtimestamp(start.timestamp() // period_s * period_s, UTC)
    found: dict[_Query, float] = {}
    for first in range(0, len(queries), QUERIES_MAX):
        some = queries[first : first + QUERIES_MAX]
        asked = [query.document(number, period_s) for number, query in enumerate(some)]
        for number, values in _values(public, asked, start, end):
            found[some[number]] = values[0] if some[number].newest else found.get(some[number], 0.0) + sum(values)
    return found


def _values(
    public: Public, asked: list[dict[str, Any]], start: datetime, end: datetime
) -> Iterator[tuple[int, list[float]]]:
    """The values of each query that has any, newest first."""
    how = {"StartTime": start, "EndTime": end, "ScanBy": "TimestampDescending"}
    for one in public.pages("cloudwatch", "get_metric_data", "MetricDataResults", MetricDataQueries=asked, **how):
        if one["Values"]:
            yield int(one["Id"][1:]), one["Values"]


def _table(rows: Sequence[Row], total: Row, over: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("endpoint or job", "variant", "USD an hour", f"USD over {over}", "requests", "USD per 1,000 requests")
    for name in names:
        table.add_column(name, justify="left" if name in names[:2] else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"job {row.job}" if row.job else row.endpoint,
            row.variant,
            "" if row.usd_per_hour is None else f"{row.usd_per_hour:.4f}",
            f"{row.usd:,.4f}",
            "" if row.requests is None else f"{row.requests:,.0f}",
            "" if row.usd_per_request is None else f"{1_000 * row.usd_per_request:.6f}",
        )
    table.add_row("all", "", f"{total.usd_per_hour or 0.0:.4f}", f"{total.usd:,.4f}", style="bold")
    return table
