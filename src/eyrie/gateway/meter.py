"""What a worker counts: one-second rollups an instance, and plain counters. Nothing here may delay a reply.

A rollup goes to control over the feed once a second, what changed only:
`{"meter": {"at_s": 1763712000, "endpoints": {SLUG: {VARIANT: {INSTANCE: ROLLUP}}}, "counters": {NAME: N}}}` with ROLLUP
`{"n": requests, "e4": answered 4xx, "e5": answered 5xx, "peak": most at once, "model": {BUCKET: N}, "overhead":
{BUCKET: N}}`.
A bucket is that of `bucket(us)`: eight to an octave, so a value is known within 12.5 %.
"""

from __future__ import annotations

from typing import Any

Histogram = dict[int, int]


def bucket(us: int) -> int:
    """The log bucket of a duration in microseconds: eight buckets an octave, 0 to 7 exact."""
    if us < 8:
        return max(us, 0)
    bits = us.bit_length()
    return (bits - 3) * 8 + ((us >> (bits - 4)) & 7)


def bucket_floor(index: int) -> int:
    """The smallest duration in microseconds of a bucket."""
    if index < 8:
        return index
    octave, eighth = divmod(index, 8)
    return (8 + eighth) << (octave - 1)


_BUCKETS = tuple(bucket(us) for us in range(4_096))  # most durations are found here


class Rollup:
    """One instance's second."""

    __slots__ = ("client_errors", "model", "overhead", "peak", "requests", "server_errors", "taken")

    def __init__(self) -> None:
        self.taken = False  # its second has ended: count in another
        self.requests = 0
        self.client_errors = 0
        self.server_errors = 0
        self.peak = 0
        self.model: Histogram = {}
        self.overhead: Histogram = {}

    def add(self, status: int, model_us: int, overhead_us: int, outstanding: int) -> None:
        """An answered request: what the client's wire saw, and how long the model and the gateway took."""
        self.requests += 1
        if status >= 400:
            if status >= 500:
                self.server_errors += 1
            else:
                self.client_errors += 1
        if outstanding > self.peak:
            self.peak = outstanding
        index = _BUCKETS[model_us] if model_us < 4_096 else bucket(model_us)
        self.model[index] = self.model.get(index, 0) + 1
        index = _BUCKETS[overhead_us] if overhead_us < 4_096 else bucket(overhead_us)
        self.overhead[index] = self.overhead.get(index, 0) + 1

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "n": self.requests,
            "e4": self.client_errors,
            "e5": self.server_errors,
            "peak": self.peak,
            "model": self.model,
            "overhead": self.overhead,
        }


class Meter:
    """All counts of one worker."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._rollups: dict[tuple[str, str, str], Rollup] = {}

    def count(self, name: str) -> None:
        """Raise a counter of the worker: a retry, an ejection, a limit that was hit."""
        self.counters[name] = self.counters.get(name, 0) + 1

    def rollup(self, slug: str, variant: str, instance_id: str) -> Rollup:
        """The current second of an instance; "" as instance for requests that reached none."""
        key = (slug, variant, instance_id)
        found = self._rollups.get(key)
        if found is None:
            found = self._rollups[key] = Rollup()
        return found

    def take(self, at_s: int) -> dict[str, Any] | None:
        """The second that ends, to be sent; None where nothing changed. A new second begins."""
        changed = {name: n for name, n in self.counters.items() if self._told.get(name) != n}
        rollups, self._rollups = self._rollups, {}
        if not rollups and not changed:
            return None
        self._told.update(changed)
        endpoints: dict[str, dict[str, dict[str, Any]]] = {}
        for (slug, variant, instance_id), rollup in rollups.items():
            rollup.taken = True
            endpoints.setdefault(slug, {}).setdefault(variant, {})[instance_id] = rollup.as_json()
        return {"at_s": at_s, "endpoints": endpoints, "counters": changed}
