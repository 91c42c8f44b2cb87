"""A simulated day of a hundred thousand endpoints under one-minute policies, and of a thousand under one-second ones.

    python bench/simulate_many.py [--endpoints 100000] [--fast 1000] [--part 0.25]

Every decision is decide/scaling's, as in production. The crowd is split over this machine's cores; time and memory are
those of the whole. `--part` is how much of the day is simulated: the time of the whole is told in proportion.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add

import frame
from eyrie.domain.scaling import FastTracking, TargetTracking
from eyrie.sim.many import DAY_MINUTES, Crowd, Outcome, minutes, seconds

GOAL_MINUTES = 15.0  # a simulated day of 100,000 endpoints, both cores
GOAL_FAST_MINUTES = 15.0
RATE = 40.0
SHARE = 0.7


def by_minute(crowd: Crowd, steps: int) -> tuple[Outcome, int, float]:
    return minutes(crowd, TargetTracking("aws", SHARE * RATE * 60), steps), peak_kib(), time.process_time()


def by_second(crowd: Crowd, steps: int) -> tuple[Outcome, int, float]:
    return seconds(crowd, FastTracking("fast", SHARE * RATE), steps), peak_kib(), time.process_time()


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True, slots=True)
class Whole:
    """All processes together."""

    outcome: Outcome
    wall_s: float
    cpu_s: float
    kib: int


def crowded(work: Callable[[Crowd, int], tuple[Outcome, int, float]], endpoints: int, steps: int) -> Whole:
    cores = len(os.sched_getaffinity(0))
    sizes = [endpoints // cores + (n < endpoints % cores) for n in range(cores)]
    crowds = [Crowd(size, rate=RATE, seed=n) for n, size in enumerate(sizes) if size]
    began = time.perf_counter()
    with ProcessPoolExecutor(cores) as pool:
        found = list(pool.map(work, crowds, [steps] * len(crowds)))
    wall_s = time.perf_counter() - began
    return Whole(
        reduce(add, (o for o, _, _ in found)), wall_s, sum(s for _, _, s in found), sum(k for _, k, _ in found)
    )


def told(name: str, whole: Whole) -> str:
    outcome = whole.outcome
    return (
        f"{name}: {outcome.endpoints:,} endpoints, {outcome.steps:,} steps, {outcome.endpoints * outcome.steps:,} "
        f"endpoint-steps, {outcome.decided:,} decisions, {outcome.actions:,} actions, "
        f"{outcome.instance_hours:,.0f} instance-hours, {outcome.overloaded_hours:,.1f} overloaded endpoint-hours; "
        f"{whole.wall_s:.1f} s, {whole.cpu_s:.1f} s of CPU, {whole.kib / 1024:.0f} MiB"
    )


def main() -> int:
    options = frame.arguments(__doc__)
    options.add_argument("--endpoints", type=int, default=100_000)
    options.add_argument("--fast", type=int, default=1_000)
    options.add_argument("--part", type=float, default=0.25, help="of the day that is simulated; 1 is the whole")
    chosen = options.parse_args()
    part = min(max(chosen.part, 0.01), 1.0)
    ratios = []
    for name, work, count, steps, goal in (
        ("one-minute policies", by_minute, chosen.endpoints, DAY_MINUTES, GOAL_MINUTES),
        ("one-second policies", by_second, chosen.fast, DAY_MINUTES * 60, GOAL_FAST_MINUTES),
    ):
        whole = crowded(work, count, round(steps * part))
        print(told(name, whole), flush=True)
        estimate = "" if part == 1.0 else f", in proportion from {part:.0%} of the day"
        cpu = f"{whole.cpu_s / part / 60:.1f} minutes of CPU, {whole.kib / 1024:.0f} MiB"
        title = f"minutes to simulate a day of {count:,} endpoints under {name}"
        ratios.append(frame.Ratio(title, whole.wall_s / part / 60, goal, at_most=True, detail=cpu + estimate))
    return frame.finish(ratios, chosen.report)


if __name__ == "__main__":
    sys.exit(main())
