"""Which of the four ways to infer fits a workload: real-time, serverless, asynchronous or batch. Pure.

The limits decide what is possible, in the order of the public guide: a whole data set at once is batch; nobody
waiting, or more than a real-time request may carry or take, is asynchronous; of the two that answer a waiting client,
serverless is for traffic with long pauses whose client can bear a cold start now and then, real-time for the rest.
Costs are rough, from the price of an instance hour and the hours that it is needed, and only tell the options apart.
Where traffic is known minute by minute, instances are counted for each of them, as a scaling policy would follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000
HOURS_A_MONTH = 730.0
DAYS_A_MONTH = HOURS_A_MONTH / 24

REAL_TIME_BYTES, REAL_TIME_MS = 25 * MB, 60 * SECOND_MS
SERVERLESS_BYTES, SERVERLESS_MS, SERVERLESS_MB = 4 * MB, 60 * SECOND_MS, 6_144
SERVERLESS_AT_ONCE = 200
ASYNC_BYTES, ASYNC_MS = GB, HOUR_MS
BATCH_RECORD_BYTES = 100 * MB
COLD_MS = 1_000  # a client that needs its answer sooner cannot bear a cold start
IDLE_LAG_S = 300.0  # an idle instance is kept for so long before it goes
USD_A_GB_SECOND = 0.000_02  # of serverless, approximate, us-east-1; only while a request is worked on
AIM = 0.8  # of what an instance bears: what instances are counted for, and what a policy is to hold
BACKLOG_S = 300.0  # of work that may wait for one instance of an asynchronous endpoint before another is started
PAUSE_SHARE = 0.5  # of the day without requests: from here on scaling to zero is worth a thought


class Way(StrEnum):
    """The four ways."""

    REAL_TIME = "real-time"
    SERVERLESS = "serverless"
    ASYNCHRONOUS = "asynchronous"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be inferred, as far as it is known."""

    payload_bytes: int
    processing_ms: int  # of one request
    requests_per_day: float
    active_hours: float = 24.0  # of a day, in which requests come at all
    latency_ms: int | None = None  # by when a client needs its answer; None: it does not matter
    waits: bool = True  # a client waits for the answer
    whole_set: bool = False  # all inputs are there at once
    memory_mb: int = 2_048  # that the model needs
    accelerator: bool = False
    minutes: tuple[float, ...] = ()  # requests a second, on average, of each minute; empty: spread over active hours

    @property
    def peak_rps(self) -> float:
        """Requests a second in the busiest minute."""
        if self.minutes:
            return max(self.minutes)
        return self.requests_per_day / (self.active_hours * 3600) if self.active_hours else 0.0

    @property
    def busy_hours(self) -> float:
        """Hours of work a day, were one request done after the other."""
        return self.requests_per_day * self.processing_ms / HOUR_MS

    @property
    def at_once(self) -> float:
        """Requests at once, on average while there are any."""
        return self.busy_hours / self.active_hours if self.active_hours else 0.0

    @property
    def idle_share(self) -> float:
        """Part of the day in which no request comes."""
        return 1.0 - min(self.active_hours, 24.0) / 24.0


@dataclass(frozen=True, slots=True)
class Price:
    """An instance type: at how many requests at once it works well, and what its hour costs."""

    instance_type: str
    at_once: int
    usd_per_hour: float | None
    rps: float | None = None  # requests a second that one was measured to bear; None: worked out

    def bears(self, work: Workload) -> float:
        """Requests a second that one instance bears."""
        if self.rps:
            return self.rps
        return self.at_once * SECOND_MS / max(work.processing_ms, 1)


@dataclass(frozen=True, slots=True)
class Option:
    """One way: whether it can be, why or why not, how it would be set up, and what a month costs."""

    way: Way
    possible: bool
    reasons: tuple[str, ...]
    setup: str = ""
    usd_per_month: float | None = None
    instance_type: str = ""
    instances: tuple[int, int] = (0, 0)  # fewest and most
    scaling: str = ""  # the policy


@dataclass(frozen=True, slots=True)
class Advice:
    """The way that fits best, why, and all four."""

    way: Way
    reasons: tuple[str, ...]
    options: tuple[Option, ...]


def advise(work: Workload, price: Price) -> Advice:
    """What fits a workload. Raises ValueError for numbers that no workload has."""
    _check(work)
    options = (_real_time(work, price), _serverless(work), _asynchronous(work, price), _batch(work, price))
    possible = {option.way: option for option in options if option.possible}
    way, reasons = _chosen(work, possible)
    return Advice(way, reasons, options)


def traced(work: Workload, minutes: tuple[float, ...]) -> Workload:
    """A workload whose traffic is known: requests a second, on average, of each minute. Raises ValueError for none."""
    if not minutes or not any(minutes):
        raise ValueError("the traffic has no request")
    days = len(minutes) / 1_440
    active = sum(1 for rate in minutes if rate > 0)
    return replace(
        work,
        requests_per_day=sum(minutes) * 60 / days,
        active_hours=24 * active / len(minutes),
        minutes=minutes,
    )


def _check(work: Workload) -> None:
    if work.payload_bytes < 0 or work.processing_ms < 0 or work.requests_per_day < 0 or work.memory_mb < 0:
        raise ValueError("payload, processing time, requests and memory must not be negative")
    if not 0 < work.active_hours <= 24:
        raise ValueError(f"a day is active for more than 0 and at most 24 hours, and not for {work.active_hours:g}")
    if work.latency_ms is not None and work.latency_ms <= 0:
        raise ValueError(f"a latency is more than 0 ms, and not {work.latency_ms}")


def _chosen(work: Workload, possible: dict[Way, Option]) -> tuple[Way, tuple[str, ...]]:
    """The first way of the tree that is possible, and the turns that were taken to it."""
    if work.whole_set and Way.BATCH in possible:
        return Way.BATCH, ("the whole data set is there at once: no endpoint has to stand ready",)
    large = work.payload_bytes > REAL_TIME_BYTES or work.processing_ms > REAL_TIME_MS
    if large or not work.waits:
        why = [] if work.waits else ["no client waits for the answer: requests can queue, and instances follow them"]
        if large:
            size, took = size_told(work.payload_bytes), time_told(work.processing_ms)
            why.append(f"{size} or {took} a request is more than a real-time endpoint takes")
        if Way.ASYNCHRONOUS in possible:
            return Way.ASYNCHRONOUS, tuple(why)
        return Way.BATCH, (*why, "and more than an asynchronous one: prepare the inputs and transform them in batch")
    if Way.SERVERLESS in possible and work.idle_share >= PAUSE_SHARE and _cheaper(possible):
        return Way.SERVERLESS, (
            "a client waits for the answer",
            f"{work.idle_share:.0%} of the day brings no request: nothing runs then, and nothing is paid for",
            "the first request after a pause waits for a start, which this client can bear",
        )
    return Way.REAL_TIME, ("a client waits for the answer", _why_not_serverless(work, possible))


def _cheaper(possible: dict[Way, Option]) -> bool:
    serverless, standing = possible[Way.SERVERLESS].usd_per_month, None
    if Way.REAL_TIME in possible:
        standing = possible[Way.REAL_TIME].usd_per_month
    return serverless is None or standing is None or serverless < standing


def _why_not_serverless(work: Workload, possible: dict[Way, Option]) -> str:
    if work.latency_ms is not None and work.latency_ms < COLD_MS:
        return f"it needs it within {time_told(work.latency_ms)}: instances must stand ready"
    if Way.SERVERLESS not in possible:
        return "serverless cannot: see its reasons"
    if work.idle_share < PAUSE_SHARE:
        return f"requests come during {1 - work.idle_share:.0%} of the day: instances would seldom be at rest"
    return "at this load instances that stand ready are cheaper than serverless"


# --- the four -------------------------------------------------------------------------------------------------------


def _real_time(work: Workload, price: Price) -> Option:
    against = _over(work, REAL_TIME_BYTES, REAL_TIME_MS)
    bears = AIM * price.bears(work)
    most = _count(work.peak_rps, bears)
    by_minute = [_count(rate, bears) for rate in work.minutes] or [most]
    mean = sum(by_minute) / len(by_minute)
    if not work.minutes:  # at the peak while requests come at all, one instance otherwise
        mean = (most * work.active_hours + 24 - work.active_hours) / 24
    scaling = f"none: one instance bears {price.bears(work):.3g} requests/s, and {work.peak_rps:.3g} come"
    if most > 1:
        target = max(1, round(bears * 60))
        scaling = f"SageMakerVariantInvocationsPerInstance at {target} a minute, 1 to {most} instances"
    setup = f"{most} x {price.instance_type}" if most == 1 else f"1 to {most} x {price.instance_type}"
    usd, good = _hours(price, mean * HOURS_A_MONTH), "answers at once"
    return _option(Way.REAL_TIME, against, setup, usd, good, price.instance_type, (1, most), scaling)


def _serverless(work: Workload) -> Option:
    against = _over(work, SERVERLESS_BYTES, SERVERLESS_MS)
    if work.memory_mb > SERVERLESS_MB:
        against.append(f"the model needs {work.memory_mb} MB; {SERVERLESS_MB} is the limit")
    if work.accelerator:
        against.append("there are no accelerators")
    if work.latency_ms is not None and work.latency_ms < COLD_MS:
        against.append(f"the first answer after a pause may take longer than {time_told(work.latency_ms)}")
    busiest = max(work.at_once, work.peak_rps * work.processing_ms / SECOND_MS)
    if busiest > SERVERLESS_AT_ONCE:
        against.append(f"{busiest:.0f} requests at once; {SERVERLESS_AT_ONCE} is the limit")
    memory_gb = max(1, ceil(work.memory_mb / 1024))
    busiest = work.peak_rps * work.processing_ms / SECOND_MS
    at_once = min(SERVERLESS_AT_ONCE, max(1, ceil(2 * busiest)))
    usd = work.busy_hours * DAYS_A_MONTH * 3600 * memory_gb * USD_A_GB_SECOND
    setup = f"MemorySizeInMB {memory_gb * 1024}, MaxConcurrency {at_once}"
    good, scaling = "costs nothing while no request comes", "by itself, from zero"
    return _option(Way.SERVERLESS, against, setup, usd, good, scaling=scaling)


def _asynchronous(work: Workload, price: Price) -> Option:
    against = _over(work, ASYNC_BYTES, ASYNC_MS)
    if work.waits and work.latency_ms is not None and work.latency_ms < MINUTE_MS:
        against.append(f"an answer within {time_told(work.latency_ms)} is not for a queue")
    bears = price.bears(work)
    most = _count(work.requests_per_day / (work.active_hours * 3600), AIM * bears)
    work_hours = work.requests_per_day / bears / 3600
    hours = min(24.0 * most, max(work_hours, _standing_hours(work)))
    setup = f"0 to {most} x {price.instance_type}, from 0 instances on the backlog"
    target = max(1, round(bears * BACKLOG_S))
    scaling = f"ApproximateBacklogSizePerInstance at {target}, HasBacklogWithoutCapacity from zero, 0 to {most}"
    usd, good = _hours(price, hours * DAYS_A_MONTH), "queues what comes, and scales to zero"
    return _option(Way.ASYNCHRONOUS, against, setup, usd, good, price.instance_type, (0, most), scaling)


def _standing_hours(work: Workload) -> float:
    """Hours a day in which an instance that goes when it has been idle for a while is there at all."""
    if work.minutes:
        lag, last, standing = round(IDLE_LAG_S / 60), -MINUTE_MS, 0  # long before the first
        for minute, rate in enumerate(work.minutes):
            last = minute if rate > 0 else last
            standing += minute - last <= lag
        return 24.0 * standing / len(work.minutes)
    each_s = work.processing_ms / SECOND_MS + IDLE_LAG_S  # of a request that comes when none is there
    return min(work.active_hours + IDLE_LAG_S / 3600, work.requests_per_day * each_s / 3600, 24.0)


def _batch(work: Workload, price: Price) -> Option:
    against = []
    if not work.whole_set:
        against.append("the inputs come one by one")
    if work.payload_bytes > BATCH_RECORD_BYTES:
        against.append(f"a record of {size_told(work.payload_bytes)}; {size_told(BATCH_RECORD_BYTES)} is the limit")
    hours = work.requests_per_day / price.bears(work) / 3600
    setup, usd = f"a transform job on {price.instance_type}", _hours(price, hours * DAYS_A_MONTH)
    return _option(Way.BATCH, against, setup, usd, "runs as long as there are inputs", price.instance_type, (1, 1))


def _option(
    way: Way,
    against: list[str],
    setup: str,
    usd: float | None,
    good: str,
    instance_type: str = "",
    instances: tuple[int, int] = (0, 0),
    scaling: str = "",
) -> Option:
    return Option(way, not against, tuple(against) or (good,), setup, usd, instance_type, instances, scaling)


def _count(rate: float, bears: float) -> int:
    """Instances for so many requests a second."""
    return max(1, ceil(rate / bears - 1e-9))


def _hours(price: Price, hours: float) -> float | None:
    return None if price.usd_per_hour is None else price.usd_per_hour * hours


def _over(work: Workload, bytes_max: int, ms_max: int) -> list[str]:
    found = []
    if work.payload_bytes > bytes_max:
        found.append(f"a payload of {size_told(work.payload_bytes)}; {size_told(bytes_max)} is the limit")
    if work.processing_ms > ms_max:
        found.append(f"{time_told(work.processing_ms)} a request; {time_told(ms_max)} is the limit")
    return found


def size_told(size: int) -> str:
    """A size for people."""
    for unit, name in ((GB, "GB"), (MB, "MB"), (KB, "KB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def time_told(ms: int) -> str:
    """A duration for people."""
    for unit, name in ((HOUR_MS, "h"), (MINUTE_MS, "min"), (SECOND_MS, "s")):
        if ms >= unit:
            return f"{ms / unit:.3g} {name}"
    return f"{ms} ms"
