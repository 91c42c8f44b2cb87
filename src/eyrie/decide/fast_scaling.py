"""`eyrie:Fast`: target tracking each second, on the demand of the whole variant.

Windows of seconds, from a short one (panic) to a long one (stable). Growth follows the shortest in which the demand is
surely more than the instances are meant for, more than chance alone would make of it: a step of load is answered
within the short window, and sized by its newest second where it surely began there; a slow rise by a longer window. A
reduction follows the highest demand of the short window during the whole long one, with a tenth to spare, and comes a
long window after the last growth at the earliest: so the same load never asks back what it just gave up. Seconds that
nobody watched are unknown, not empty: after them nothing shrinks until a long window is known.

The demand is the variant's, not an instance's: it stays the same while instances come and go, so that those on their
way are never asked for twice.
"""

from __future__ import annotations

from collections import deque
from math import ceil, sqrt

from eyrie.decide.wish import Wish
from eyrie.domain.scaling import FastTracking, ScalingMemory

SPARE = 0.9  # of the target: what is left after a reduction may be used so far
PANIC_SIGMAS = 3.0  # how far beyond chance a short window must be
STABLE_SIGMAS = 2.0
STEP_SIGMAS = 4.0  # beyond the second before: the load has made a step
GROWTH_MAX = 10  # times the capacity, in one decision
REDUCTION_MAX = 2  # times fewer, in one decision


class Demand:
    """The seconds of a variant that a fast policy remembers: requests a second or requests in flight, all instances
    together. Grows by `add`; alone with Summary among the values of floor 0 and 1 it is not frozen, since a new one a
    second would cost more than the decision.
    """

    __slots__ = ("_panic_s", "_peaks", "_stable_s", "_sums", "panic", "seconds", "windows")

    def __init__(self, stable_s: int = 60, panic_s: int = 2) -> None:
        self._stable_s, self._panic_s = stable_s, panic_s
        doubled = [panic_s << n for n in range(stable_s.bit_length())]
        self.windows = (*(length for length in doubled if length < stable_s), stable_s)  # seconds, rising
        self.forget()

    def forget(self) -> None:
        """A second was not watched: what was known before it is no longer enough."""
        self.seconds = 0  # that are known, in a row
        self.panic = 0.0  # total of the short window
        # Of demand and samples, up to the end of each second; the first is from before there was any.
        self._sums: deque[tuple[float, float]] = deque(((0.0, 0.0),), maxlen=self._stable_s + 1)
        self._peaks: deque[tuple[int, float]] = deque()  # falling totals of the short window, by second

    def add(self, demand: float, samples: float) -> None:
        """One more second: its demand, and how many requests say so."""
        self.seconds = now = self.seconds + 1
        sums = self._sums
        total, count = sums[-1]
        total += demand
        sums.append((total, count + samples))
        panic_s = self._panic_s
        self.panic = panic = total - sums[-1 - panic_s][0] if now >= panic_s else total
        peaks = self._peaks
        while peaks and peaks[-1][1] <= panic:
            peaks.pop()
        peaks.append((now, panic))
        if peaks[0][0] <= now - self._stable_s:
            peaks.popleft()

    def over(self, length: int) -> tuple[float, float]:
        """Totals of demand and samples over the last seconds, so many of which must be known."""
        total, count = self._sums[-1]
        before, counted = self._sums[-1 - length]
        return total - before, count - counted

    @property
    def newest(self) -> float:
        """The demand of the newest second."""
        return self.over(1)[0] if self.seconds else 0.0

    @property
    def stepped(self) -> bool:
        """Whether the newest second is surely above what was there before the short window: a step began in it."""
        known = min(self.seconds, self._stable_s)
        earlier_s = known - self._panic_s
        if earlier_s < 1:
            return False
        newest, samples = self.over(1)
        earlier = (self.over(known)[0] - self.panic) / earlier_s
        return 0 < earlier < newest and _surely(newest, samples, earlier, STEP_SIGMAS)

    @property
    def known(self) -> bool:
        """Whether a whole long window is known."""
        return self.seconds >= self._stable_s

    @property
    def peak(self) -> float:
        """The highest mean of the short window within the long one."""
        return self._peaks[0][1] / min(self.seconds, self._panic_s) if self._peaks else 0.0


def fast_wish(policy: FastTracking, demand: Demand, capacity: int, memory: ScalingMemory, now_ms: int) -> Wish | None:
    """What the policy asks for; None: it is content, or waits."""
    room = policy.target * capacity
    seconds = demand.seconds
    panic_s = policy.panic_s
    if seconds >= panic_s and demand.panic > room * panic_s:
        return _growth(policy, demand, room, capacity, memory, now_ms)
    if seconds >= policy.stable_s and policy.scale_in and capacity > 1:
        return _reduction(policy, demand, capacity, memory, now_ms)
    return None


def _overload(demand: Demand, room: float) -> tuple[float, int]:
    """The mean of the shortest window in which the demand is surely above `room`, and its seconds; 0: there is none."""
    windows, known = demand.windows, demand.seconds
    for length in windows:
        if length > known:
            break
        total, samples = demand.over(length)
        sigmas = STABLE_SIGMAS if length == windows[-1] else PANIC_SIGMAS
        if total > room * length and _surely(total, samples, room * length, sigmas):
            return total / length, length
    return 0.0, 0


def _surely(total: float, samples: float, meant: float, sigmas: float) -> bool:
    """Whether a demand that so many requests say is more than chance makes of `meant`: their number varies by its
    square root.
    """
    expected = samples * meant / total
    return samples - expected > sigmas * sqrt(expected)


def _growth(
    policy: FastTracking, demand: Demand, room: float, capacity: int, memory: ScalingMemory, now_ms: int
) -> Wish | None:
    if now_ms - memory.out_ms < policy.out_cooldown_ms:
        return None
    mean, window_s = _overload(demand, room)
    if not window_s:
        return None
    if window_s == policy.panic_s and demand.stepped:
        mean, window_s = demand.newest, 1
    wanted = min(ceil(mean / policy.target - 1e-9), max(capacity, 1) * GROWTH_MAX)
    if wanted <= capacity:
        return None

    def why() -> str:
        return (
            f"{policy.measure} {mean:.4g} over {window_s} s is more than {capacity} x {policy.target:g}: "
            f"{mean:.4g} / {policy.target:g} asks for {wanted}"
        )

    return Wish(policy.name, wanted, capacity, "", why)


def _reduction(policy: FastTracking, demand: Demand, capacity: int, memory: ScalingMemory, now_ms: int) -> Wish | None:
    usable = policy.target * SPARE
    peak = demand.peak
    if peak > usable * (capacity - 1):
        return None
    if now_ms - memory.in_ms < policy.in_cooldown_ms or now_ms - memory.out_ms < policy.stable_s * 1000:
        return None
    wanted = max(ceil(peak / usable - 1e-9), ceil(capacity / REDUCTION_MAX), 1)
    if wanted >= capacity:
        return None

    def why() -> str:
        return (
            f"{policy.measure} was at most {peak:.4g} during {policy.stable_s} s: at 90 % of {policy.target:g} "
            f"{wanted} instances do"
        )

    return Wish(policy.name, wanted, capacity, "", why)
