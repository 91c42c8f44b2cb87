"""What has accrued since it was last recorded: pure arithmetic over lives of instances, requests and time.

Costs are recorded in steps, a minute each. The newest step that is on record is the cursor: amount and cursor are one
and the same record, so whatever dies in between, nothing is counted twice and what was not recorded is counted later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from eyrie.domain.costs import Life, Payer, Served, ServerlessPrice
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope

NAMESPACE = "Eyrie/Costs"
COST = "Cost"
RATE = "CostPerHour"
PER_REQUEST = "CostPerRequest"
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
FINE_MS = 2 * HOUR_MS  # steps of a minute for so long back, of an hour before that
AWAY_MAX_MS = 14 * 24 * HOUR_MS  # what is further back than this is not counted any more
JOB_AWAY_MAX_MS = 10 * MINUTE_MS  # of a time without control that a job is charged for: it may have stood still

Step = tuple[int, int]  # from when to before when: milliseconds since the epoch


def steps(cursor_ms: int, now_ms: int) -> Iterator[Step]:
    """The steps from the cursor to now that are over, oldest first; the newest ones are always minutes."""
    at_ms = max(cursor_ms, now_ms - AWAY_MAX_MS)
    at_ms -= at_ms % MINUTE_MS
    while at_ms + MINUTE_MS <= now_ms:
        size_ms = HOUR_MS if at_ms % HOUR_MS == 0 and at_ms + HOUR_MS <= now_ms - FINE_MS else MINUTE_MS
        yield at_ms, at_ms + size_ms
        at_ms += size_ms


def by_the_hour(lives: Iterable[Life], step: Step) -> dict[Payer, float]:
    """USD of what was there during a step."""
    found: dict[Payer, float] = {}
    for life in lives:
        lived_ms = min(life.until_ms, step[1]) - max(life.from_ms, step[0])
        if lived_ms > 0:
            found[life.payer] = found.get(life.payer, 0.0) + life.usd_per_hour * lived_ms / HOUR_MS
    return found


def by_the_second(busy_us: float, memory_mb: int, price: ServerlessPrice) -> float:
    """USD of a serverless variant's requests, by how long its model worked on them."""
    return busy_us / 1_000_000 * memory_mb / 1024 * price.usd_per_gb_second


def provisioned_per_hour(provisioned: int, memory_mb: int, price: ServerlessPrice) -> float:
    """USD an hour of what a serverless variant keeps ready."""
    return provisioned * memory_mb / 1024 * price.usd_per_provisioned_gb_second * 3_600


def measurements(
    costs: Mapping[Payer, float], served: Mapping[Payer, Served], step: Step, own: Scope
) -> Iterator[Measured]:
    """What a step is recorded as. That of the account as a whole comes last, and for `own` always: it is the cursor."""
    found: dict[Metric, float] = {Metric(own, NAMESPACE, COST): 0.0}
    for payer, usd in costs.items():
        for dimensions in payer.dimensions:
            metric = Metric(payer.scope, NAMESPACE, COST, dimensions)
            found[metric] = found.get(metric, 0.0) + usd
    cursor = found.pop(Metric(own, NAMESPACE, COST))
    for payer, usd in costs.items():
        requests = served.get(payer, Served()).requests
        if requests and usd:
            metric = Metric(payer.scope, NAMESPACE, PER_REQUEST, payer.dimensions[-1])
            yield _value(metric, usd / requests, step[0], requests)
    for metric, usd in (*found.items(), (Metric(own, NAMESPACE, COST), cursor)):
        per_hour = Metric(metric.scope, NAMESPACE, RATE, metric.dimensions)
        yield _value(per_hour, usd * HOUR_MS / (step[1] - step[0]), step[0])
        yield _value(metric, usd, step[0])


def _value(metric: Metric, value: float, at_ms: int, times: float = 1.0) -> Measured:
    summary = Summary()
    summary.add(value, times)
    return Measured(metric, at_ms, summary)
