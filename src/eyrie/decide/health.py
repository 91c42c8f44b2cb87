"""What a ping's result makes of an instance's health: counting, nothing else. What to do about it is decide/fleet's.

Busy is not hung: a model that holds its interpreter's lock answers no ping, but burns CPU. Its silence is no miss until
a longer limit has passed; that of a process that is stopped or waits is one at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from eyrie.domain.observation import Health

BUSY_SHARE = 0.04  # of one core: a clock tick in a quarter of a second, the least that can be told from nothing
BUSY_LIMIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Effort:
    """What an instance's processes did while a ping waited for its answer."""

    cpu_us: int  # CPU time that they used
    elapsed_us: int  # over so long

    @property
    def working(self) -> bool:
        """Whether they did anything that is worth mentioning."""
        return self.elapsed_us > 0 and self.cpu_us >= BUSY_SHARE * self.elapsed_us


def after_ping(
    before: Health, detail: str | None, at_ms: int, effort: Effort | None = None, busy_limit_ms: int = BUSY_LIMIT_MS
) -> Health:
    """Health after a ping that was answered with 200 (`detail` None), or missed for the reason given.

    `effort` is told of an instance that was silent: while it works, it misses nothing, for `busy_limit_ms` at most.
    """
    if detail is None:
        return Health(misses=0, answers=True, at_ms=at_ms)
    if effort is not None and effort.working:
        since_ms = before.busy_since_ms or at_ms
        if at_ms - since_ms < busy_limit_ms:
            return Health(before.misses, False, at_ms, f"{detail}, but it works", since_ms)
        detail = f"{detail}, at work for {at_ms - since_ms} ms"
        return Health(before.misses + 1, False, at_ms, detail, since_ms)
    return Health(misses=before.misses + 1, answers=False, at_ms=at_ms, detail=detail)


def after_ejection(before: Health, why: str, at_ms: int) -> Health:
    """Health after a gateway worker found the instance silent: as good as one missed ping, never more than one.

    However often workers say so, the prober's own pings decide the rest: no request alone makes an instance UNKNOWN
    where more than one miss is allowed. One that is known to be busy may be silent.
    """
    if before.busy_since_ms:
        return before
    return Health(misses=max(1, before.misses), answers=before.answers, at_ms=at_ms, detail=f"a gateway said: {why}")
