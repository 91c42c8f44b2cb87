"""What things cost, in HTML: payers, what each cost and costs now. Pure functions of what the API told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyrie.console import shown
from eyrie.console.markup import Html, figures, join, link, table, tag

NAMESPACE = "Eyrie/Costs"
HOURS_A_MONTH = 730
NOTE = "US dollars by the prices of the table of instance types (docs/concepts/metrics.md); here nothing is paid for."
Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Payer:
    """A variant or a job, and what it cost. None: not known, or not counted."""

    dimensions: Dimensions
    usd: float
    usd_per_hour: float | None  # now; None: nothing runs for it
    requests: float

    @property
    def endpoint(self) -> str:
        """Its endpoint; empty of a job."""
        return dict(self.dimensions).get("EndpointName", "")

    @property
    def name(self) -> str:
        """Variant or job."""
        named = dict(self.dimensions)
        return named.get("VariantName") or named.get("TransformJobName", "")


def leaves(found: Sequence[Mapping[str, object]]) -> list[Dimensions]:
    """The payers of ListMetrics that are no sums of others: variants and jobs."""
    every = []
    for one in found:
        dimensions = one["Dimensions"]
        assert isinstance(dimensions, list)
        every.append(tuple((str(d["Name"]), str(d["Value"])) for d in dimensions))
    return [named for named in every if {"VariantName", "TransformJobName"} & dict(named).keys()]


def head(payers: Sequence[Payer], month_usd: float | None) -> Html:
    """The figures on top."""
    now = sum(payer.usd_per_hour or 0.0 for payer in payers)
    return figures(
        (
            ("An hour, now", shown.money(now), ""),
            ("A month, at this pace", shown.money(now * HOURS_A_MONTH), ""),
            ("In the time shown", shown.money(sum(payer.usd for payer in payers)), ""),
            ("In 30 days", shown.money(month_usd), ""),
        )
    )


def payers_table(payers: Sequence[Payer]) -> Html:
    """A row a variant or job, the dearest first."""
    rows = [
        (
            link(payer.endpoint, "endpoints", payer.endpoint)
            if payer.endpoint
            else link(payer.name, "jobs", "transform", payer.name),
            payer.name if payer.endpoint else "transform job",
            shown.money(payer.usd_per_hour),
            shown.money(payer.usd),
            shown.number(payer.requests) if payer.endpoint else shown.NOTHING,
            shown.money(1000 * payer.usd / payer.requests) if payer.requests else shown.NOTHING,
        )
        for payer in sorted(payers, key=lambda p: (-p.usd, p.endpoint, p.name))
        if payer.usd or payer.usd_per_hour
    ]
    columns = ("Endpoint or job", "Variant", "An hour, now", "In this time", "Requests", "1,000 requests")
    empty = "Nothing has cost anything in this time: costs are counted each minute, from an instance's first answer on."
    return join([table("Costs", columns, rows, (2, 3, 4, 5), empty), tag("p", NOTE, class_="hint")])
