"""One run through the wind tunnel: traffic and faults on one variant under one policy, second by second.

A second: faults strike, requests arrive and are served, the meter measures, what is due in the fleet happens, the
policy looks, its wish goes to the fleet as production's would. The same seed gives the same run.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from eyrie.decide.statistics import statistic
from eyrie.domain.errors import EndpointBusy
from eyrie.domain.metrics import Summary
from eyrie.domain.names import EndpointKey
from eyrie.sim.faults import Fault, strike
from eyrie.sim.fleet import VARIANT, VirtualFleet
from eyrie.sim.meter import Meter, Second
from eyrie.sim.policy import Policy, Sight, Wish
from eyrie.sim.profile import InstanceProfile
from eyrie.sim.queue import Queue, Served, Shape, count_in, over
from eyrie.sim.traffic import Traffic, arrivals
from eyrie.sim.words import Objective

EPOCH_MS = 1_767_571_200_000  # 2026-01-05 00:00 UTC, a Monday
KEY = EndpointKey("123456789012", "us-east-1", "simulated")
MINUTE_S = 60


class ExperimentError(ValueError):
    """An experiment that makes no sense; the message names the field and its value."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Everything but the policy."""

    traffic: Traffic
    profile: InstanceProfile = field(default_factory=InstanceProfile)
    objective: Objective = field(default_factory=lambda: Objective(99, 500))
    minimum: int = 1
    maximum: int = 20
    initial: int | None = None  # None: the minimum
    seed: int = 1
    faults: tuple[Fault, ...] = ()
    begin_ms: int = EPOCH_MS

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum <= 10_000:
            raise ExperimentError(f"capacity must be 1 <= min <= max <= 10000, and is {self.minimum} to {self.maximum}")
        if self.initial is not None and not self.minimum <= self.initial <= self.maximum:
            raise ExperimentError(f"initial must lie in {self.minimum} to {self.maximum}, and is {self.initial}")

    @property
    def first_count(self) -> int:
        """Instances at the beginning."""
        return self.minimum if self.initial is None else self.initial


@dataclass(frozen=True, slots=True)
class ScalingAction:
    """A change of the desired count."""

    at_s: int
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute (the last may be shorter)."""

    at_s: int
    requests: float
    late: float  # answered beyond the objective's limit
    failed: float
    quantile_ms: float | None  # the objective's percentile of what was answered
    outside_s: int  # seconds of it in which more were late or failed than the objective allows


@dataclass(slots=True)
class Run:
    """What came of it."""

    policy: str
    experiment: Experiment
    arrived: array[float] = field(default_factory=lambda: array("d"))
    serving: array[int] = field(default_factory=lambda: array("i"))
    desired: array[int] = field(default_factory=lambda: array("i"))
    paid: array[int] = field(default_factory=lambda: array("i"))
    minutes: list[Minute] = field(default_factory=list)
    actions: list[ScalingAction] = field(default_factory=list)

    @property
    def instance_hours(self) -> float:
        """Of every process that existed, starting and stopping included."""
        return sum(self.paid) / 3600

    @property
    def cost_usd(self) -> float:
        """At the profile's price; 0 where it has none."""
        return self.instance_hours * self.experiment.profile.usd_per_hour

    @property
    def outside_minutes(self) -> float:
        """For how long the objective was not kept, each second judged by its own requests."""
        return sum(m.outside_s for m in self.minutes) / MINUTE_S

    @property
    def requests(self) -> float:
        """That arrived."""
        return sum(m.requests for m in self.minutes)

    @property
    def failed(self) -> float:
        """Without an answer."""
        return sum(m.failed for m in self.minutes)

    @property
    def late(self) -> float:
        """Answered, beyond the objective's limit."""
        return sum(m.late for m in self.minutes)

    @property
    def worst_ms(self) -> float:
        """The highest of the minutes' quantiles."""
        return max((m.quantile_ms for m in self.minutes if m.quantile_ms is not None), default=0.0)


class Tunnel:
    """A run on its way: `step` lets one second pass. sim/check looks at it between two."""

    def __init__(self, experiment: Experiment, policy: Policy) -> None:
        self.experiment = experiment
        self.policy = policy
        self.meter = Meter(KEY, VARIANT)
        self.fleet = VirtualFleet(KEY, experiment.profile, experiment.first_count, experiment.begin_ms, experiment.seed)
        self.run = Run(policy.name, experiment)
        self._queue = Queue(experiment.profile)
        self._chance = random.Random(f"world {experiment.seed}")
        self._arriving = random.Random(f"arrivals {experiment.seed}")
        self._faults = sorted(experiment.faults, key=lambda f: -f.at_s)
        self._carried = 0.0
        self._second = 0
        self._before = self.fleet.serving()
        self._minute = _MinuteSoFar(experiment.objective)

    @property
    def over(self) -> bool:
        """Whether the traffic has ended."""
        return self._second >= self.experiment.traffic.seconds

    def step(self) -> None:
        """One second."""
        t = self._second
        while self._faults and self._faults[-1].at_s <= t:
            strike(self._faults.pop(), self.fleet, self.meter, self._chance)
        rate = self.experiment.traffic.rates[t]
        arrived, self._carried = arrivals(self._arriving, rate, self.experiment.traffic.even, self._carried)
        self._serve(t, arrived, rate)
        self.fleet.advance(self.experiment.begin_ms + 1000 * (t + 1))
        self._decide(t)
        self._second += 1
        if self._second % MINUTE_S == 0 or self.over:
            self.run.minutes.append(self._minute.closed())

    def _serve(self, t: int, arrived: int, rate: float) -> None:
        fleet, run = self.fleet, self.run
        serving, routed = fleet.serving(), len(fleet.routed())
        served = self._queue.second(arrived, rate, serving)
        run.arrived.append(arrived)
        run.serving.append(serving)
        run.desired.append(fleet.desired)
        run.paid.append(fleet.existing())
        lost = max(0, self._before - serving) if serving < routed or serving < self._before else 0
        self._before = serving
        slots = serving * self.experiment.profile.slots
        self.meter.take(
            Second(
                self.experiment.begin_ms + 1000 * t, arrived, served.answered, served.failed, serving, routed, slots,
                served.busy, served.in_flight, served.shape,
            )
        )  # fmt: skip
        self._minute.count(t, arrived, served, lost * self.experiment.profile.slots if serving else 0)

    def _decide(self, t: int) -> None:
        fleet = self.fleet
        sight = Sight(
            self.meter,
            fleet.desired,
            fleet.ready(),
            self.experiment.minimum,
            self.experiment.maximum,
            fleet.busy_changing,
            fleet.growing,
        )
        wish = self.policy.look(fleet.now_ms, sight)
        if wish is not None and wish.count != fleet.desired:
            self._follow(t, wish)

    def _follow(self, t: int, wish: Wish) -> None:
        before = self.fleet.desired
        try:
            self.fleet.want(wish.count, overtake=not self.policy.waits)
        except EndpointBusy:
            return  # the policy saw `changing`, and asks again
        self.run.actions.append(ScalingAction(t + 1, before, wish.count, wish.reason))


class _MinuteSoFar:
    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._quantile = statistic(f"p{objective.percent:g}")
        self._at_s = 0
        self._requests = self._late = self._failed = 0.0
        self._outside_s = 0
        self._shapes: dict[int, tuple[Shape, float]] = {}  # by identity: those in balance are the same every second

    def count(self, t: int, arrived: float, served: Served, moved: float) -> None:
        """`moved`: slots whose requests were moved from an instance that fell silent, and so are late."""
        self._requests += arrived
        late = over(served.shape, self._objective.limit_ms) * served.answered
        late = min(served.answered, late + moved)
        self._late += late
        self._failed += served.failed
        if late + served.failed > (1 - self._objective.percent / 100) * (served.answered + served.failed) + 1e-6:
            self._outside_s += 1
        known = self._shapes.get(id(served.shape))
        self._shapes[id(served.shape)] = (served.shape, served.answered + (known[1] if known else 0.0))

    def closed(self) -> Minute:
        """The minute; the next one begins."""
        summary = Summary()
        for shape, answered in self._shapes.values():
            count_in(summary, shape, answered)
        quantile = self._quantile(summary) if summary.count else None
        minute = Minute(self._at_s, self._requests, self._late, self._failed, quantile, self._outside_s)
        self._at_s += MINUTE_S
        self._outside_s = 0
        self._requests = self._late = self._failed = 0.0
        self._shapes = {}
        return minute


def run(experiment: Experiment, policy: Policy) -> Run:
    """The whole run."""
    tunnel = Tunnel(experiment, policy)
    while not tunnel.over:
        tunnel.step()
    return tunnel.run


def runs(experiment: Experiment, policies: Sequence[Policy]) -> list[Run]:
    """Each policy on the same traffic, with the same chance."""
    return [run(experiment, policy) for policy in policies]
