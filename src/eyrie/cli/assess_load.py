"""The loads of an assessment, by `eyrie.load`: users that wait, stairs, a rate that is held, a step; and what they tell
of performance and scalability.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters.instance_types import InstanceTypesError, load_instance_types
from eyrie.cli import load
from eyrie.cli.assess_copy import Subject, scaled
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.decide import assessment as decide
from eyrie.decide.load import Saturation, Stair, quantile
from eyrie.decide.scalability import Point, fit
from eyrie.domain.assessment import Performance, Scalability, Scale, Steady
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.domain.load import Second, Stage, stages
from eyrie.domain.load import stairs as steps_of
from eyrie.domain.metrics import merged
from eyrie.load.gathering import Gathering
from eyrie.load.result import Described, Result, saturated, stairs

USERS = 32
STAIRS = (0.5, 1.75, 0.125)  # of what the users had: from, to, by
CLIMBS_MAX = 3
STEP = (0.3, 0.8)  # of the saturation point
CALM_SHARE = 0.25  # of a step: before it
UTILISATION = 0.8
TIMEOUT_S = 20.0
AFTER_S = 0.5
LOOK_S = 0.25
SETTLE_S = 1  # of a load's first seconds, not counted


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of each load."""

    users_s: float
    stair_s: float
    held_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Sender:
    """Loads one endpoint."""

    public: Public
    endpoint: str
    bodies: Sequence[bytes]
    kind: str
    models: Sequence[str]
    progress: Progress

    def begin(self, shape: load.Shape, connections: int | None = None) -> Gathering:
        """Start a load; the caller stops it."""
        asked = load.Asked(self.endpoint, timeout_s=TIMEOUT_S, target_models=self.models, connections=connections)
        return Gathering(load.plans_of(self.public.where, asked, shape, list(self.bodies), self.kind))

    def seen(self, shape: load.Shape, what: str) -> dict[int, Second]:
        """Run a load to its end. Raises ProcessDied."""
        gathering = self.begin(shape)
        end = gathering.begin_s + shape.seconds + AFTER_S
        self.progress.now(f"{what}, {shape.seconds:.0f} s")
        try:
            while not gathering.until_over(LOOK_S, end):
                pass
        finally:
            gathering.stop()
        return gathering.look()

    def users(self, count: int, seconds: float, what: str) -> Steady:
        """A closed loop; its own latencies are of requests as they were sent."""
        found = self.seen(load.Shape("", (), (), count, seconds), what)
        return _steady(0.0, found, SETTLE_S, int(seconds), closed=True)

    def held(self, rps: float, seconds: float, what: str) -> Steady:
        """A rate, after its first second."""
        found = self.seen(load.Shape("", stages([Stage(seconds, rps, rps)]), (), 0, seconds), what)
        return _steady(rps, found, SETTLE_S, int(seconds))

    def climbed(self, begin: float, end: float, by: float, seconds: float, objective_us: float | None) -> Result:
        """Stairs."""
        steps = steps_of(begin, end, by, seconds)
        drawn = stages(Stage(seconds, step.rps, step.rps) for step in steps)
        shape = load.Shape("", drawn, steps, 0, steps[-1].end_s)
        found = self.seen(shape, f"stairs to {steps[-1].rps:,.0f} requests/s")
        described = Described(self.endpoint, "", "", True, shape.seconds, 1, 0, self.kind, 0, 1, "")
        return Result(described, found, drawn, steps, {}, objective_us)


def performance(
    sender: Sender, subject: Subject, data: Path, lengths: Lengths, objective_ms: float | None
) -> Performance:
    """Throughput of users that wait, the saturation point by stairs, and latency at 80 % of it."""
    users = sender.users(USERS, lengths.users_s, f"{USERS} users")
    sender.progress.step(f"{USERS} users: {users.achieved_rps:,.0f} requests/s, p99 {users.p99_ms} ms")
    result, verdict = _saturated(sender, users.achieved_rps, lengths.stair_s, objective_ms)
    point = None if verdict is None else verdict.sustained_rps
    steady = None
    if point:
        sender.progress.step(f"saturation point: {point:,.0f} requests/s ({verdict.reason if verdict else ''})")
        steady = sender.held(UTILISATION * point, lengths.held_s, f"80 % of it, {UTILISATION * point:,.0f} requests/s")
        sender.progress.step(f"at 80 %: p50 {steady.p50_ms} ms, p99 {steady.p99_ms} ms")
    rate = None if steady is None else steady.achieved_rps
    rows = rows_of(sender.bodies[0], sender.kind)
    size = sum(map(len, sender.bodies)) / len(sender.bodies)
    usd = price(subject, data)
    return Performance(
        users_rps=users.achieved_rps,
        users=USERS,
        users_p50_ms=users.p50_ms,
        users_p99_ms=users.p99_ms,
        saturation_rps=point,
        saturated_at_rps=None if verdict is None else verdict.saturated_at_rps,
        reason="" if verdict is None else verdict.reason,
        at_80=steady,
        rows_a_request=rows,
        rows_a_minute=None if rate is None else round(rate * rows * 60, 1),
        requests_an_hour=None if rate is None else round(rate * 3600, 1),
        mb_a_second=None if rate is None else round(rate * size / 1e6, 4),
        usd_an_hour=usd,
        usd_a_million=None if not rate or usd is None else round(usd / 3600 / rate * 1e6, 4),
        stairs=tuple(_of_stair(stair) for stair in stairs(result)),
    )


def _saturated(
    sender: Sender, users_rps: float, seconds: float, objective_ms: float | None
) -> tuple[Result, Saturation | None]:
    """Stairs around what the users had; further up, or further down, where the point does not lie among them."""
    objective_us = None if objective_ms is None else objective_ms * 1000
    around = max(1.0, users_rps)
    for _ in range(CLIMBS_MAX):
        begin, end, by = (share * around for share in STAIRS)
        result = sender.climbed(begin, end, by, seconds, objective_us)
        verdict = saturated(result)
        if verdict is None or (verdict.sustained_rps is not None and verdict.saturated_at_rps is not None):
            break
        around *= 2.0 if verdict.sustained_rps is not None else 0.4
    return result, verdict


def scalability(
    sender: Sender,
    subject: Subject,
    data: Path,
    counts: Sequence[int],
    lengths: Lengths,
    within_s: float,
    measured: Performance | None,
) -> Scalability:
    """Throughput of users against instances a variant, and the time from a step in load to restored latency."""
    sizes = len(subject.variants)
    step = _step(sender, lengths, measured)
    scales: list[Scale] = []
    now = set(subject.variants.values())
    for count in counts:
        ready_s = None
        if now != {count}:
            sender.progress.now(f"{count} instances a variant")
            ready_s = round(scaled(sender.public, subject, count, sender.progress, within_s), 3)
            now = {count}
        users = sender.users(USERS, lengths.users_s, f"{USERS} users on {count * sizes} instances")
        sender.progress.step(f"{count * sizes} instances: {users.achieved_rps:,.0f} requests/s")
        scales.append(Scale(count * sizes, users.achieved_rps, users.p99_ms, ready_s))
    points = [Point(scale.instances, scale.rps) for scale in scales if scale.rps > 0]
    law = fit(points) if points else None
    cores = len(os.sched_getaffinity(0))
    return Scalability(
        scales=tuple(scales),
        rate=None if law is None else round(law.rate, 3),
        contention=None if law is None else round(law.contention, 5),
        coherence=None if law is None else round(law.coherence, 6),
        fit_error=None if law is None else round(law.error, 5),
        best_instances=None if law is None or law.best is None else round(law.best, 2),
        kept=decide.kept_by_scale(scales, _vcpu(subject, data), cores),
        cores=cores,
        **step,
    )


def _step(sender: Sender, lengths: Lengths, measured: Performance | None) -> dict[str, float | None]:
    """From 30 to 80 % of the saturation point at once: when was latency back?"""
    point = None if measured is None else measured.saturation_rps
    steady = None if measured is None else measured.at_80
    limit = decide.restored_limit_ms(None if steady is None else steady.p99_ms)
    if point is None or limit is None:
        return dict.fromkeys(("step_from_rps", "step_to_rps", "restored_s", "restored_limit_ms"))
    low, high = (share * point for share in STEP)
    calm = max(1.0, float(round(CALM_SHARE * lengths.step_s)))
    drawn = stages([Stage(calm, low, low), Stage(lengths.step_s, high, high)])
    found = sender.seen(
        load.Shape("", drawn, (), 0, calm + lengths.step_s), f"a step from {low:,.0f} to {high:,.0f} requests/s"
    )
    back = decide.restored_s(found, int(calm), int(calm + lengths.step_s), limit)
    when = "never" if back is None else f"after {back:g} s"
    sender.progress.step(f"a step from {low:,.0f} to {high:,.0f} requests/s: latency was back {when}")
    return {
        "step_from_rps": round(low, 1),
        "step_to_rps": round(high, 1),
        "restored_s": back,
        "restored_limit_ms": round(limit, 3),
    }


def price(subject: Subject, data: Path) -> float | None:
    """US dollars an hour of the instances, by the table of instance types; None where one of them has no price."""
    try:
        table = load_instance_types(data)
        prices = [table.get(subject.types[name]).usd_per_hour for name in subject.variants]
    except (UnknownInstanceType, InstanceTypesError):
        return None
    if any(one is None for one in prices):
        return None
    return round(sum(count * (one or 0.0) for count, one in zip(subject.variants.values(), prices, strict=True)), 6)


def rows_of(body: bytes, kind: str) -> int:
    """Rows of a request whose form is lines; 1 of any other."""
    by_line = kind.partition(";")[0].strip() in ("text/csv", "text/libsvm", "application/jsonlines")
    return max(1, sum(1 for line in body.splitlines() if line.strip())) if by_line else 1


def _vcpu(subject: Subject, data: Path) -> int:
    """Of an instance, on average over the variants; 1 where the table does not know."""
    try:
        table = load_instance_types(data)
        found = [table.get(subject.types[name]).vcpu for name in subject.variants]
    except (UnknownInstanceType, InstanceTypesError):
        return 1
    return max(1, round(sum(found) / len(found)))


def _steady(offered: float, found: dict[int, Second], first: int, last: int, closed: bool = False) -> Steady:
    """What was seen from a second to before another."""
    within = [second for at, second in found.items() if first <= at < last]
    spread = merged(second.service if closed else second.response for second in within)
    failed = sum(sum(second.errors.values()) for second in within)
    good = sum(second.answered for second in within)
    return Steady(
        round(offered, 2),
        round(good / max(1, last - first), 2),
        round(failed / max(1, failed + good), 6),
        decide.milliseconds(quantile(spread, 0.5)),
        decide.milliseconds(quantile(spread, 0.99)),
    )


def _of_stair(stair: Stair) -> Steady:
    return Steady(
        round(stair.offered_rps, 2),
        round(stair.achieved_rps, 2),
        round(stair.errors, 6),
        decide.milliseconds(stair.p50_us),
        decide.milliseconds(stair.p99_us),
    )
