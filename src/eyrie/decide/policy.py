"""The numbers that decisions about endpoints are made with: limits, patience, back-off. Values, not state."""

from __future__ import annotations

from dataclasses import dataclass

from eyrie.domain.fleet import VariantSpec


@dataclass(frozen=True, slots=True)
class Policy:
    """One Eyrie's patience. Times in milliseconds."""

    zones: tuple[str, ...] = ("a", "b", "c")
    ping_misses: int = 2  # in a row, and an instance of ours is UNKNOWN
    foreign_ping_misses: int = 3
    unknown_grace_ms: int = 30_000
    drain_ms: int = 30_000  # patience with requests in flight, and from SIGTERM to SIGKILL
    ack_limit_ms: int = 60_000  # patience with a gateway worker that lives and does not acknowledge
    kill_again_ms: int = 5_000
    crashes_max: int = 3  # at start, and a creation or change has failed
    stable_ms: int = 5_000  # READY for this long is no crash at start
    backoff_first_ms: int = 1_000
    backoff_max_ms: int = 300_000
    invoke_timeout_ms: int = 60_000
    body_bytes_max: int = 26_214_400
    serverless_idle_ms: int = 300_000  # without need of an instance, and it goes
    serverless_hold_ms: int = 60_000  # how long a request waits for an instance to start
    serverless_wait_ms: int = 1_000  # how long a request beyond MaxConcurrency waits for another to end

    def misses_allowed(self, spec: VariantSpec) -> int:
        """How many pings in a row an instance may miss before it counts as silent."""
        return self.foreign_ping_misses if spec.foreign else self.ping_misses

    def backoff_ms(self, crashes: int) -> int:
        """Wait before the next start after this many crashes in a row: none, then 1, 2, 4 s ... at most 5 minutes."""
        if crashes <= 1:
            return 0
        return min(self.backoff_max_ms, self.backoff_first_ms << min(crashes - 2, 20))
