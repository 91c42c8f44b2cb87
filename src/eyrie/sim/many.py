"""Very many endpoints at once: each a load, a count and a start-up time, decided by the same decide/scaling.

A minute of all endpoints is a few operations on arrays (numpy); only endpoints whose metric may ask for something are
handed to `decide`, one by one. Which those are is found by asking `decide` itself, not by restating it.
Fast policies look at every second of every endpoint; there nothing can be left out but the drawing of the load.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eyrie.decide.fast_scaling import Demand
from eyrie.decide.scaling import Observation, decide
from eyrie.domain.scaling import MINUTE_MS, Bounds, FastTracking, ScalingMemory, TargetTracking

DAY_MINUTES = 1440
BLOCK_S = 600  # seconds of load drawn at once
_HELD = "the endpoint is Updating"
_MANY = 10**6  # instances


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many endpoints, and what they are like: day curves of different heights and hours, with noise."""

    endpoints: int
    rate: float = 40.0  # requests a second that an instance can do
    bounds: Bounds = field(default_factory=lambda: Bounds(1, 20))
    startup_s: int = 20
    noise: float = 0.05
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all of them."""

    endpoints: int
    steps: int  # minutes or seconds
    decided: int  # calls of decide
    actions: int
    instance_hours: float
    overloaded_hours: float  # endpoint-hours in which more arrived than the instances could do
    wall_s: float

    def __add__(self, other: Outcome) -> Outcome:
        """Both crowds together, simulated beside each other."""
        return Outcome(
            self.endpoints + other.endpoints,
            self.steps,
            self.decided + other.decided,
            self.actions + other.actions,
            self.instance_hours + other.instance_hours,
            self.overloaded_hours + other.overloaded_hours,
            max(self.wall_s, other.wall_s),
        )


def minutes(crowd: Crowd, policy: TargetTracking, count: int = DAY_MINUTES) -> Outcome:
    """So many simulated minutes under a policy on InvocationsPerInstance. Needs numpy."""
    import numpy

    began_s = time.perf_counter()
    load = _Load(crowd, numpy)
    low, high = quiet_band(policy)
    wanted, ready = load.first.copy(), load.first.copy()
    due = numpy.zeros(crowd.endpoints, dtype=numpy.int64)  # when a change on its way is over, milliseconds
    lows, highs = numpy.zeros(crowd.endpoints, dtype=numpy.int32), numpy.zeros(crowd.endpoints, dtype=numpy.int32)
    memory = [ScalingMemory(bounds=(crowd.bounds.lowest, crowd.bounds.highest))] * crowd.endpoints
    columns: list[Any] = []
    decided = actions = 0
    hours = overloaded = 0.0
    for minute in range(count):
        now_ms = (minute + 1) * MINUTE_MS
        rates = load.minute(minute)
        ready = numpy.where(due <= now_ms - MINUTE_MS, wanted, ready)
        columns = [*columns, rates * 60 / ready][-policy.low_points :]
        newest = columns[-1]
        lows, highs = numpy.where(newest < low, lows + 1, 0), numpy.where(newest > high, highs + 1, 0)
        speaks = (highs >= policy.high_points) | ((lows >= policy.low_points) & (wanted > crowd.bounds.lowest))
        chosen = numpy.flatnonzero(speaks)
        decided += len(chosen)
        hours += float(numpy.maximum(ready, wanted).sum()) / 60
        overloaded += int((rates > ready * crowd.rate).sum()) / 60
        points = numpy.stack([column[chosen] for column in columns], axis=1).tolist()
        for index, known in zip(chosen.tolist(), points, strict=True):
            held = _HELD if due[index] > now_ms else None
            seen = Observation(int(wanted[index]), {policy.name: known}, held)
            made = decide(crowd.bounds, (policy,), seen, memory[index], now_ms)
            if made.memory is not None:
                memory[index] = made.memory
            if made.capacity is not None:
                wanted[index], due[index] = made.capacity, now_ms + 1000 * crowd.startup_s
                actions += 1
    return Outcome(crowd.endpoints, count, decided, actions, hours, overloaded, time.perf_counter() - began_s)


def seconds(crowd: Crowd, policy: FastTracking, count: int = DAY_MINUTES * 60) -> Outcome:
    """So many simulated seconds under a fast policy on the request rate. Needs numpy."""
    import numpy

    began_s = time.perf_counter()
    load = _Load(crowd, numpy)
    policies = (policy,)
    decided = actions = 0
    hours = overloaded = 0.0
    states = [_Fast(policy, int(first), crowd) for first in load.first]
    for begin in range(0, count, BLOCK_S):
        size = min(BLOCK_S, count - begin)
        block = load.seconds(begin, size)
        for state, rates in zip(states, block.tolist(), strict=True):
            actions += state.run(policies, begin, rates)
        decided += size * crowd.endpoints
    for state in states:
        hours += state.instance_seconds / 3600
        overloaded += state.overloaded / 3600
    return Outcome(crowd.endpoints, count, decided, actions, hours, overloaded, time.perf_counter() - began_s)


class _Fast:
    """One endpoint under a fast policy."""

    __slots__ = ("_bounds", "_demand", "_due_ms", "_memory", "_name", "_ready", "_room", "_startup_ms", "_wanted",
                 "instance_seconds", "overloaded")  # fmt: skip

    def __init__(self, policy: FastTracking, first: int, crowd: Crowd) -> None:
        self._name = policy.name
        self._bounds, self._room, self._startup_ms = crowd.bounds, crowd.rate, 1000 * crowd.startup_s
        self._demand = Demand(policy.stable_s, policy.panic_s)
        self._memory = ScalingMemory(bounds=(crowd.bounds.lowest, crowd.bounds.highest))
        self._wanted = self._ready = first
        self._due_ms = 0
        self.instance_seconds = self.overloaded = 0

    def run(self, policies: tuple[FastTracking], begin_s: int, rates: list[float]) -> int:
        """A block of seconds; the actions that were taken."""
        actions, demand = 0, self._demand
        signals = {self._name: demand}
        seen = self._seen(signals)
        now_ms = begin_s * 1000
        for rate in rates:
            now_ms += 1000
            if self._due_ms and self._due_ms <= now_ms:
                self._ready, self._due_ms = self._wanted, 0
                seen = self._seen(signals)
            self.instance_seconds += max(self._ready, self._wanted)
            self.overloaded += rate > self._ready * self._room
            demand.add(rate, rate)
            made = decide(self._bounds, policies, seen, self._memory, now_ms)
            if made.memory is not None:
                self._memory = made.memory
            if made.capacity is not None:
                self._wanted, self._due_ms = made.capacity, now_ms + self._startup_ms
                seen = self._seen(signals)
                actions += 1
        return actions

    def _seen(self, signals: dict[str, Demand]) -> Observation:
        return Observation(self._wanted, signals, _HELD if self._due_ms else None)


def quiet_band(policy: TargetTracking) -> tuple[float, float]:
    """Between these two values of the metric the policy never asks for anything, whatever came before: found by asking
    decide/scaling about a very large fleet, so that nobody has to know its thresholds.
    """
    longest = max(policy.high_points, policy.low_points)
    bounds, memory = Bounds(1, 10**9), ScalingMemory(bounds=(1, 10**9))

    def asks(value: float) -> int:
        seen = Observation(_MANY, {policy.name: [value] * longest})
        return decide(bounds, (policy,), seen, memory, 10**15).capacity or _MANY

    low = _edge(lambda value: asks(value) >= _MANY, 0.0, policy.target)
    high = _edge(lambda value: asks(value) > _MANY, policy.target / 2, 2 * policy.target)
    return low, math.nextafter(high, 0.0)


def _edge(true: Callable[[float], bool], low: float, high: float) -> float:
    """The least value between the two from which on something is true."""
    while math.nextafter(low, high) < high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if true(middle) else (middle, high)
    return high


class _Load:
    """The rates of a crowd, by the minute or by the second."""

    def __init__(self, crowd: Crowd, numpy: Any) -> None:
        self._numpy, self._noise = numpy, crowd.noise
        self._chance = numpy.random.default_rng(crowd.seed)
        self._middle = self._chance.lognormal(math.log(3 * crowd.rate), 0.8, crowd.endpoints)
        self._swing = self._middle * self._chance.uniform(0.2, 0.95, crowd.endpoints)
        self._phase = self._chance.uniform(0, 2 * math.pi, crowd.endpoints)
        start = self._at(0.0) / (0.7 * crowd.rate)
        self.first = numpy.clip(numpy.ceil(start), crowd.bounds.lowest, crowd.bounds.highest).astype(numpy.int64)

    def _at(self, day: Any) -> Any:
        return self._middle + self._swing * self._numpy.sin(2 * math.pi * day + self._phase)

    def minute(self, minute: int) -> Any:
        """The rate of each endpoint in a minute."""
        rates = self._at(minute / DAY_MINUTES)
        return rates * self._chance.normal(1.0, self._noise, len(rates)).clip(0.0)

    def seconds(self, begin: int, size: int) -> Any:
        """The requests of each endpoint in each of so many seconds: a row an endpoint."""
        days = (begin + self._numpy.arange(size)[None, :]) / 86_400
        swing = self._swing[:, None] * self._numpy.sin(2 * math.pi * days + self._phase[:, None])
        return self._chance.poisson((self._middle[:, None] + swing).clip(0.0)).astype(float)
