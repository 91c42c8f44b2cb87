"""What others would decide, for comparison: Kubernetes' HorizontalPodAutoscaler and Knative's KPA, by their published
formulas and defaults. Never used in production.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from eyrie.sim.meter import Meter, mean
from eyrie.sim.policy import Sight, Wish


@dataclass(frozen=True, slots=True)
class HpaSettings:
    """The defaults of autoscaling/v2 and of the controller's flags."""

    target: float = 0.7  # of what an instance can do: CPU utilisation over its request
    sync_s: int = 15
    window_s: int = 30  # over which metrics-server averages CPU
    tolerance: float = 0.1
    down_window_s: int = 300  # stabilization: the highest recommendation of it
    up_percent: float = 100.0  # the larger of both within `up_period_s`
    up_pods: int = 4
    up_period_s: int = 15


class Hpa:
    """Kubernetes' formula: ceil(ready * utilisation / target), within a tolerance, steadied on the way down."""

    def __init__(self, settings: HpaSettings | None = None) -> None:
        self.settings = settings or HpaSettings()
        self.name = "HPA"
        self.waits = False
        self._recommended: deque[tuple[int, int]] = deque()
        self._grown: deque[tuple[int, int]] = deque()
        self._next_ms = 0

    def look(self, now_ms: int, sight: Sight) -> Wish | None:
        """What it wants now; None between two looks, or where there is nothing to go by."""
        if now_ms < self._next_ms:
            return None
        self._next_ms = now_ms + 1000 * self.settings.sync_s
        raw = self._recommendation(now_ms, sight)
        if raw is None:
            return None
        steady = self._steadied(now_ms, raw[0], sight.desired)
        allowed = min(steady, self._most(now_ms, sight.desired))
        count = min(max(allowed, sight.minimum), sight.maximum)
        if count > sight.desired:
            self._grown.append((now_ms, count - sight.desired))
        return Wish(count, raw[1])

    def _recommendation(self, now_ms: int, sight: Sight) -> tuple[int, str] | None:
        use = utilisation(sight.meter, self.settings.window_s, now_ms)
        if use is None or sight.ready == 0:
            return None
        ratio = use / self.settings.target
        told = f"utilisation {use:.0%} against {self.settings.target:.0%}"
        if abs(ratio - 1) <= self.settings.tolerance:
            return sight.desired, told + ", within tolerance"
        unready = max(0, sight.desired - sight.ready)
        if ratio > 1 and unready:  # those that come count as idle; what flips the direction changes nothing
            ratio = ratio * sight.ready / (sight.ready + unready)
            if ratio < 1 or abs(ratio - 1) <= self.settings.tolerance:
                return sight.desired, told + f", {unready} are coming"
            return math.ceil(ratio * (sight.ready + unready)), told
        return math.ceil(ratio * sight.ready - 1e-9), told

    def _steadied(self, now_ms: int, raw: int, current: int) -> int:
        self._recommended.append((now_ms, raw))
        while self._recommended[0][0] < now_ms - 1000 * self.settings.down_window_s:
            self._recommended.popleft()
        return raw if raw >= current else min(current, max(count for _, count in self._recommended))

    def _most(self, now_ms: int, current: int) -> int:
        while self._grown and self._grown[0][0] <= now_ms - 1000 * self.settings.up_period_s:
            self._grown.popleft()
        began = current - sum(count for _, count in self._grown)
        return max(began + self.settings.up_pods, math.ceil(began * (1 + self.settings.up_percent / 100)))


@dataclass(frozen=True, slots=True)
class KpaSettings:
    """The defaults of Knative's config-autoscaler."""

    target: float = 0.7  # of the requests that an instance takes at once
    tick_s: int = 2
    stable_s: int = 60
    panic_s: int = 6
    panic_threshold: float = 2.0
    up_rate: float = 1000.0
    down_rate: float = 2.0


class Kpa:
    """Knative's: average concurrency over a stable and a panic window, over the target."""

    def __init__(self, slots: int, settings: KpaSettings | None = None) -> None:
        self.settings = settings or KpaSettings()
        self.name = "KPA"
        self.waits = False
        self._target = slots * self.settings.target
        self._next_ms = 0
        self._panic_ms: int | None = None
        self._panic_count = 0

    def look(self, now_ms: int, sight: Sight) -> Wish | None:
        """What it wants now; None between two looks, or where there is nothing to go by."""
        if now_ms < self._next_ms:
            return None
        self._next_ms = now_ms + 1000 * self.settings.tick_s
        stable = mean(s.in_flight for s in sight.meter.last(self.settings.stable_s, now_ms))
        panic = mean(s.in_flight for s in sight.meter.last(self.settings.panic_s, now_ms))
        if stable is None or panic is None:
            return None
        ready = max(1, sight.ready)
        most = math.ceil(self.settings.up_rate * ready)
        least = math.floor(ready / self.settings.down_rate)
        steady = min(max(math.ceil(stable / self._target), least), most)
        hasty = min(max(math.ceil(panic / self._target), least), most)
        over = math.ceil(panic / self._target) / ready >= self.settings.panic_threshold
        count, told = self._mode(now_ms, steady, hasty, over, ready)
        wanted = min(max(count, sight.minimum), sight.maximum)
        return Wish(wanted, f"{told}: concurrency {stable:.1f} stable, {panic:.1f} panic, target {self._target:.1f}")

    def _mode(self, now_ms: int, steady: int, hasty: int, over: bool, ready: int) -> tuple[int, str]:
        if over:
            if self._panic_ms is None:
                self._panic_count = ready
            self._panic_ms = now_ms
        elif self._panic_ms is not None and now_ms - self._panic_ms > 1000 * self.settings.stable_s:
            self._panic_ms, self._panic_count = None, 0
        if self._panic_ms is None:
            return steady, "stable"
        self._panic_count = max(self._panic_count, hasty, steady)
        return self._panic_count, "panic"


def utilisation(meter: Meter, window_s: int, now_ms: int) -> float | None:
    """The share of all slots that were busy; None where nothing was measured."""
    seconds = [s for s in meter.last(window_s, now_ms) if s.slots]
    return sum(s.busy for s in seconds) / sum(s.slots for s in seconds) if seconds else None
