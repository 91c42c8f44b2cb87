"""What was found, beside what the public account of 2019 found on AWS, as a table of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from footprint import Footprint
from own_eyrie import VCPU
from questions import Points

SPENT_MINUTES = 0.5  # of all CPU of an instance: with less credits than that they are spent
SETTLED_MINUTES = 2.0  # after a change, before its effect is measured


@dataclass(slots=True)
class Run:
    """One play of the experiment. Minutes are those of the compressed clock, since the load began."""

    name: str
    factor: float
    cores: float  # of this host, an instance
    cost_s: float  # of CPU, a request
    plain_s: float  # the same of a request that is predicted once
    rate: float  # requests a second that the load comes to
    ramp_minutes: float
    minutes: float
    spent_minute: float | None = None  # the first instance was out of credits
    lost_minute: float | None = None
    lost_s: float | None = None  # real seconds from the loss until all was whole again
    requests: int = 0
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    p99_ms: float | None = None
    second: list[tuple[float, float, float]] = field(default_factory=list)  # minute, intended, answered: of each second
    cpu: Points = field(default_factory=list)
    credits: Points = field(default_factory=list)
    invocations: Points = field(default_factory=list)
    by_instance: dict[str, Points] = field(default_factory=dict)
    footprint: Footprint | None = None
    instances: list[int] = field(default_factory=list)  # in service, look by look

    def served(self, begin: float, end: float) -> float | None:
        """The share of the requests offered between two minutes that was answered well by then."""
        within = [(intended, good) for minute, intended, good in self.second if begin <= minute < end]
        offered = sum(intended for intended, _ in within)
        return min(1.0, sum(good for _, good in within) / offered) if offered else None

    def between(self, points: Points, begin: float, end: float) -> float | None:
        """The mean of a series between two minutes."""
        values = [value for minute, value in points if begin <= minute < end]
        return sum(values) / len(values) if values else None

    def spent_in(self, credits: Points) -> float | None:
        """The first minute in which the instance with least credits had spent them."""
        return next((minute for minute, left in credits if left < min(1.0, SPENT_MINUTES * self.cores)), None)

    @property
    def full_minutes(self) -> tuple[float, float]:
        """From the end of the ramp until the credits were spent or an instance was lost."""
        ends = [minute for minute in (self.spent_minute, self.lost_minute, self.minutes) if minute is not None]
        return self.ramp_minutes + SETTLED_MINUTES, min(ends)

    @property
    def an_instance(self) -> float | None:
        """Requests a second that an instance answered, at full load with all of its credits."""
        begin, end = self.full_minutes
        rates = [self.between(points, begin, end) for points in self.by_instance.values()]
        known = [rate for rate in rates if rate is not None]
        return sum(known) / len(known) * self.factor / 60 if known else None


def table(runs: Sequence[Run]) -> str:
    """The findings beside the published ones."""
    rows = [
        ("an instance", "2 vCPU", *(_cores(run) for run in runs)),
        ("CPU of a request", "13 to 20 ms of a vCPU", *(_cost(run) for run in runs)),
        ("requests/s an instance", "100 to 150", *(_rate(run) for run in runs)),
        ("total CPU after the ramp", "200 %", *(_cpu(run) for run in runs)),
        ("CPU credits spent", "yes, one instance's", *(_spent(run) for run in runs)),
        ("without credits", "answers no health check", *(_slow(run) for run in runs)),
        ("requests/s offered", "not told", *(f"{run.rate:,.0f}" for run in runs)),
        ("answered until then", "not told", *(_share(run.served(*run.full_minutes)) for run in runs)),
        ("an instance is lost", "by itself, at 13:24", *(_lost(run) for run in runs)),
        ("half capacity", "14 to 20 minutes", *(_whole(run) for run in runs)),
        ("requests that failed", "not told", *(_failed(run) for run in runs)),
        ("instances seen, at once", "3, two", *(_seen(run) for run in runs)),
        ("addresses of an instance", "1 of the subnet", *(_addresses(run) for run in runs)),
        ("in an instance", "a container of 5 workers", *(_processes(run) for run in runs)),
    ]
    heads = ("", "AWS, 2019", *(run.name for run in runs))
    widths = [max(len(str(row[at])) for row in (heads, *rows)) for at in range(len(heads))]
    shown = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]
    return "\n".join([shown[0], "-" * len(max(shown, key=len)), *shown[1:]])


def _rate(run: Run) -> str:
    return "?" if run.an_instance is None else f"{run.an_instance:,.0f}"


def _cores(run: Run) -> str:
    return f"{VCPU} vCPU, each {run.cores / VCPU:.2f} of a core"


def _cost(run: Run) -> str:
    vcpu_ms = 1000 * run.cost_s * VCPU / run.cores
    return f"{vcpu_ms:.0f} ms of a vCPU ({1000 * run.cost_s:.1f} ms of a core; plain, {1000 * run.plain_s:.1f} ms)"


def _cpu(run: Run) -> str:
    mean = run.between(run.cpu, *run.full_minutes)
    return "?" if mean is None else f"{mean / run.cores:.0f} %"


def _spent(run: Run) -> str:
    if run.spent_minute is not None:
        return f"after {run.spent_minute:.0f} min"
    least = min((value for _, value in run.credits), default=None)
    return "no" if least is None else f"no: {least:.1f} left at least"


def _slow(run: Run) -> str:
    if run.spent_minute is None:
        return "it does not come to that"
    lost = run.lost_minute
    end = lost if lost is not None and lost > run.spent_minute else run.minutes
    return f"slow: {_share(run.served(run.spent_minute + SETTLED_MINUTES, end))} answered"


def _lost(run: Run) -> str:
    return "no" if run.lost_minute is None else f"kill -9, after {run.lost_minute:.0f} min"


def _whole(run: Run) -> str:
    if run.lost_s is None:
        return "never whole again" if run.lost_minute is not None else "never"
    return f"{run.lost_s:.2f} s of this host's"


def _failed(run: Run) -> str:
    failed = sum(run.errors.values())
    return f"{failed:,} of {run.requests:,}"


def _seen(run: Run) -> str:
    return f"{len(run.by_instance)}, {max(run.instances, default=0)}"


def _addresses(run: Run) -> str:
    return "?" if run.footprint is None else f"{run.footprint.addresses}"


def _processes(run: Run) -> str:
    return "?" if run.footprint is None else _plural(run.footprint.processes, "process", "processes")


def _share(part: float | None) -> str:
    return "?" if part is None else f"{100 * part:.1f} %"


def _plural(count: int, noun: str, many: str) -> str:
    return f"{count} {noun if count == 1 else many}"
