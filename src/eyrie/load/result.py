"""What a load test came to: figures of the whole, of each stair, the saturation point, and all of it as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eyrie.decide.load import Saturation, Stair, corrected, quantile, saturation
from eyrie.domain.load import Second, Stage, Step
from eyrie.domain.metrics import Summary, merged

PERCENTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
SETTLE_SHARE = 0.2  # of a stair, at its beginning: what the step itself stirs up
CPU_FULL = 0.9
OWN_LATENESS_US = 5_000.0


@dataclass(frozen=True, slots=True)
class Described:
    """What was asked for."""

    endpoint: str
    url: str
    what: str  # "1,000 requests/s for 30 s"
    open: bool
    seconds: float
    processes: int
    connections: int
    content_type: str
    body_bytes: int
    bodies: int
    at: str  # ISO 8601
    variant: str = ""


@dataclass(slots=True)
class Result:
    """Everything that was seen."""

    described: Described
    seconds: dict[int, Second]
    stages: tuple[Stage, ...]
    steps: tuple[Step, ...]
    cpu: dict[int, float]  # the highest share of a core that each process used
    objective_us: float | None
    stopped: bool = False

    @property
    def senders(self) -> str:
        """How many processes sent, in words."""
        count = self.described.processes
        return "1 process" if count == 1 else f"{count} processes"

    @property
    def intended(self) -> int:
        """Requests that were meant to begin."""
        return sum(second.intended for second in self.seconds.values())

    @property
    def answered(self) -> int:
        """Good replies."""
        return sum(second.answered for second in self.seconds.values())

    @property
    def errors(self) -> Counter[str]:
        """Errors by kind."""
        found: Counter[str] = Counter()
        for second in self.seconds.values():
            found.update(second.errors)
        return found

    @property
    def service(self) -> Summary:
        """From sent to answered, microseconds."""
        return merged(second.service for second in self.seconds.values())

    @property
    def response(self) -> Summary:
        """From the intended beginning to answered, microseconds; of a closed loop with what it omitted put back."""
        if self.described.open:
            return merged(second.response for second in self.seconds.values())
        service = self.service
        usual = quantile(service, 0.5)
        return corrected(service, usual) if usual else service

    @property
    def lateness(self) -> Summary:
        """How late requests began though a connection was free: the load's own doing."""
        return merged(second.lateness for second in self.seconds.values())

    @property
    def lasted_s(self) -> float:
        """Seconds of load: the test's length, less where it was stopped."""
        if not self.stopped or not self.seconds:
            return self.described.seconds
        return min(self.described.seconds, float(max(self.seconds) + 1))

    @property
    def rate(self) -> float:
        """Good replies a second, of those that came while load was offered."""
        within = sum(second.answered for at, second in self.seconds.items() if at < self.lasted_s)
        return within / self.lasted_s


def stairs(result: Result) -> list[Stair]:
    """What was seen of each stair, without its first moments; those that were not reached are left out."""
    found = []
    for step in result.steps:
        first = step.begin_s + (
            0 if step.end_s - step.begin_s < 3 else max(1.0, SETTLE_SHARE * (step.end_s - step.begin_s))
        )
        within = [second for at, second in result.seconds.items() if first <= at and at + 1 <= step.end_s]
        if not within or step.end_s > result.lasted_s + 1e-9:
            continue
        response = merged(second.response for second in within)
        failed = sum(sum(second.errors.values()) for second in within)
        good = sum(second.answered for second in within)
        lateness = quantile(merged(second.lateness for second in within), 0.99)
        found.append(
            Stair(
                step.rps,
                good / len(within),
                failed / max(1, failed + good),
                quantile(response, 0.5),
                quantile(response, 0.99),
                lateness,
            )
        )
    return found


def saturated(result: Result) -> Saturation | None:
    """The verdict on the stairs; None where there were none."""
    climbed = stairs(result)
    return saturation(climbed, result.objective_us) if climbed else None


def warnings(result: Result) -> list[str]:
    """What a reader has to know before he trusts the figures."""
    found = []
    full = [number for number, share in result.cpu.items() if share > CPU_FULL]
    if full:
        found.append(f"{len(full)} of {len(result.cpu)} load processes used a whole core: use more --processes")
    late = quantile(result.lateness, 0.99)
    if late is not None and late > OWN_LATENESS_US:
        found.append(f"the load itself began 1 % of the requests {late / 1000:.1f} ms late or more")
    if result.stopped:
        found.append("stopped before its end")
    if result.described.open is False:
        found.append(
            "closed loop: users wait for replies, so slowness lowers the load; response times are corrected for that "
            "(waits that were omitted are put back at the median's distance)"
        )
    return found


def percentiles(summary: Summary) -> dict[str, float | None]:
    """Milliseconds by percentile."""
    found: dict[str, float | None] = {}
    for percent in PERCENTS:
        value = quantile(summary, percent / 100)
        found[f"p{percent:g}"] = None if value is None else round(value / 1000, 4)
    return found


def document(result: Result) -> dict[str, Any]:
    """All of it as plain values."""
    verdict = saturated(result)
    return {
        **asdict(result.described),
        "lasted_s": result.lasted_s,
        "requests": result.intended,
        "answered": result.answered,
        "rps": round(result.rate, 2),
        "errors": dict(result.errors),
        "service_ms": figures(result.service),
        "response_ms": figures(result.response),
        "own_lateness_ms": figures(result.lateness),
        "cpu": {str(number): round(share, 3) for number, share in result.cpu.items()},
        "stairs": [asdict(stair) for stair in stairs(result)],
        "saturation": None if verdict is None else asdict(verdict),
        "timeline": timeline(result.seconds),
        "warnings": warnings(result),
    }


def figures(summary: Summary) -> dict[str, float | None]:
    """Mean, extremes and percentiles in milliseconds."""
    if not summary.count:
        return {"mean": None, "min": None, "max": None, **percentiles(summary)}
    mean, low, high = summary.total / summary.count, summary.lowest, summary.highest
    return {
        "mean": round(mean / 1000, 4),
        "min": round(low / 1000, 4),
        "max": round(high / 1000, 4),
        **percentiles(summary),
    }


def timeline(seconds: Mapping[int, Second]) -> list[dict[str, Any]]:
    """A row a second."""
    return [
        {
            "second": at,
            "intended": second.intended,
            "answered": second.answered,
            "errors": sum(second.errors.values()),
            "p50_ms": _ms(quantile(second.response, 0.5)),
            "p99_ms": _ms(quantile(second.response, 0.99)),
        }
        for at, second in sorted(seconds.items())
    ]


def offered(stages: Sequence[Stage], at_s: float) -> float:
    """The rate that is asked for at a moment."""
    begun = 0.0
    for stage in stages:
        if at_s < begun + stage.seconds:
            return stage.begin_rps + (stage.end_rps - stage.begin_rps) * (at_s - begun) / stage.seconds
        begun += stage.seconds
    return 0.0


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value / 1000, 4)
