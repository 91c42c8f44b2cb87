"""The loads of an assessment, by `eyrie.load`: users that wait, stairs, a rate that is held, a step; and what they tell
of performance and scalability.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyrie.adapters.instance_types import InstanceTypesError, load_instance_types
from eyrie.cli import load
from eyrie.cli.assess_budget import COUNT_S, Budget
from eyrie.cli.assess_copy import Subject, scaled
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.decide import assessment as decide
from eyrie.decide.load import Saturation, Stair, hopeless, quantile, saturation
from eyrie.decide.scalability import Point, fit
from eyrie.domain.assessment import Performance, Scalability, Scale, Steady
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.domain.load import Second, Stage, stages
from eyrie.domain.load import stairs as steps_of
from eyrie.domain.metrics import merged
from eyrie.load.gathering import Gathering
from eyrie.load.result import Described, Result, stairs

USERS = 32
STAIRS = (0.5, 1.75, 0.125)  # of what the users had: from, to, by
CLIMBS_MAX = 3
FURTHER = (0.3, 2.0)  # of the lowest and of the highest stair: how far the next climb goes down, or up
FURTHER_STAIRS = 7
STEP = (0.3, 0.8)  # of the saturation point
UTILISATION = 0.8
TIMEOUT_S = 20.0
AFTER_S = 0.5
LOOK_S = 0.25
TOLD_WITHIN_S = 1.5  # of the end of a second, the processes of a load have told of it
SETTLE_S = 1  # of a load's first seconds, not counted


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds of each load."""

    users_s: float
    stair_s: float
    held_s: float
    calm_s: int  # before a step in load


@dataclass(frozen=True, slots=True)
class Sender:
    """Loads one endpoint."""

    public: Public
    endpoint: str
    bodies: Sequence[bytes]
    kind: str
    models: Sequence[str]
    progress: Progress
    budget: Budget = field(default_factory=lambda: Budget(math.inf))

    def begin(self, shape: load.Shape, connections: int | None = None) -> Gathering:
        """Start a load; the caller stops it."""
        asked = load.Asked(
            endpoint=self.endpoint, timeout_s=TIMEOUT_S, target_models=self.models, connections=connections
        )
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

    def climbed(self, begin: float, end: float, by: float, seconds: float) -> list[Stair]:
        """Stairs, until it is plain that the next ones tell nothing more."""
        steps = steps_of(begin, end, by, seconds)
        drawn = stages(Stage(seconds, step.rps, step.rps) for step in steps)
        shape = load.Shape("", drawn, steps, 0, steps[-1].end_s)
        described = Described(self.endpoint, "", "", True, shape.seconds, 1, 0, self.kind, 0, 1, "")
        gathering = self.begin(shape)
        self.progress.now(f"stairs from {begin:,.0f} to {end:,.0f} requests/s, at most {shape.seconds:.0f} s")
        stopped = False
        try:
            while not stopped and not gathering.until_over(LOOK_S, gathering.begin_s + shape.seconds + AFTER_S):
                stopped = hopeless(stairs(Result(described, _told(gathering), drawn, steps, {}, None, stopped=True)))
        finally:
            gathering.stop()
        return stairs(Result(described, _whole(gathering, stopped), drawn, steps, {}, None, stopped))


def performance(
    sender: Sender, subject: Subject, data: Path, lengths: Lengths, objective_ms: float | None
) -> Performance:
    """Throughput of users that wait, the saturation point by stairs, and latency at 80 % of it."""
    users = sender.users(USERS, lengths.users_s, f"{USERS} users")
    sender.progress.step(f"{USERS} users: {users.achieved_rps:,.0f} requests/s, p99 {users.p99_ms} ms")
    climbed, verdict = _saturated(sender, users.achieved_rps, lengths.stair_s, objective_ms)
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
        stairs=tuple(_of_stair(stair) for stair in climbed),
    )


def _saturated(
    sender: Sender, users_rps: float, seconds: float, objective_ms: float | None
) -> tuple[list[Stair], Saturation | None]:
    """Stairs around what the users had; more of them above, or below, where the point does not lie among them."""
    objective_us = None if objective_ms is None else objective_ms * 1000
    begin, end, by = (share * max(1.0, users_rps) for share in STAIRS)
    climbed: list[Stair] = []
    verdict = None
    for number in range(CLIMBS_MAX):
        if number and not sender.budget.climbs():
            sender.budget.left_out.append(f"further stairs from {begin:,.0f} to {end:,.0f} requests/s")
            break
        climbed += sender.climbed(begin, end, by, seconds)
        if not climbed:
            return [], None
        climbed.sort(key=lambda stair: stair.offered_rps)
        verdict = saturation(climbed, objective_us)
        low, high = climbed[0].offered_rps, climbed[-1].offered_rps
        if verdict.sustained_rps is None:
            begin, end = FURTHER[0] * low, 0.99 * low
        elif verdict.sustained_rps >= high:
            begin, end = high + by, FURTHER[1] * high
        else:
            break
        by = (end - begin) / FURTHER_STAIRS
    return climbed, verdict


def scalability(
    sender: Sender,
    subject: Subject,
    data: Path,
    counts: Sequence[int],
    lengths: Lengths,
    within_s: float,
    step: Step,
) -> Scalability:
    """Throughput of users against instances a variant; beside it what a step in load came to."""
    sizes = len(subject.variants)
    scales: list[Scale] = []
    now = set(subject.variants.values())
    for count in counts:
        if not sender.budget.fits(f"{count} instances a variant", COUNT_S):
            continue
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
        step_from_rps=step.from_rps,
        step_to_rps=step.to_rps,
        restored_s=step.restored_s,
        restored_limit_ms=step.limit_ms,
    )


@dataclass(frozen=True, slots=True)
class Step:
    """What a step in load came to; without anything where there is no saturation point."""

    from_rps: float | None = None
    to_rps: float | None = None
    limit_ms: float | None = None
    restored_s: float | None = None


def step(sender: Sender, lengths: Lengths, measured: Performance) -> Step:
    """From 30 to 80 % of the saturation point at once: when was latency back? It is held until that is so, or for as
    long as the rule has a letter for.
    """
    point, steady = measured.saturation_rps, measured.at_80
    limit = decide.restored_limit_ms(None if steady is None else steady.p99_ms)
    if point is None or limit is None:
        return Step()
    low, high = (share * point for share in STEP)
    calm, longest = lengths.calm_s, decide.RECOVER_S[-1] + decide.CALM_S
    drawn = stages([Stage(float(calm), low, low), Stage(longest, high, high)])
    gathering = sender.begin(load.Shape("", drawn, (), 0, calm + longest))
    sender.progress.now(f"a step from {low:,.0f} to {high:,.0f} requests/s")
    back = None
    try:
        while back is None and not gathering.until_over(LOOK_S, gathering.begin_s + calm + longest + AFTER_S):
            back = decide.restored_s(_told(gathering), calm, calm + int(longest), limit)
    finally:
        gathering.stop()
    when = f"not within {longest - decide.CALM_S:g} s" if back is None else f"after {back:g} s"
    sender.progress.step(f"a step from {low:,.0f} to {high:,.0f} requests/s: latency was back {when}")
    return Step(round(low, 1), round(high, 1), round(limit, 3), back)


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


def _told(gathering: Gathering) -> dict[int, Second]:
    """The seconds of a running load that every process has told of."""
    until = time.monotonic() - gathering.begin_s - TOLD_WITHIN_S
    return {at: second for at, second in gathering.look().items() if at + 1 <= until}


def _whole(gathering: Gathering, stopped: bool) -> dict[int, Second]:
    """The seconds of a load that is over; of one that was stopped without the last, which it did not finish."""
    found = gathering.look()
    last = max(found, default=0)
    return {at: second for at, second in found.items() if at < last} if stopped else found


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
