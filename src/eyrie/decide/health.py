"""What a ping's result makes of an instance's health: counting, nothing else. What to do about it is decide/fleet's."""

from __future__ import annotations

from eyrie.domain.observation import Health


def after_ping(before: Health, detail: str | None, at_ms: int) -> Health:
    """Health after a ping that was answered with 200 (`detail` None), or missed for the reason given."""
    if detail is None:
        return Health(misses=0, answers=True, at_ms=at_ms)
    return Health(misses=before.misses + 1, answers=False, at_ms=at_ms, detail=detail)


def after_ejection(before: Health, why: str, at_ms: int) -> Health:
    """Health after a gateway worker found the instance silent: as good as one missed ping, never more than one.

    However often workers say so, the prober's own pings decide the rest: no request alone makes an instance UNKNOWN
    where more than one miss is allowed.
    """
    return Health(misses=max(1, before.misses), answers=before.answers, at_ms=at_ms, detail=f"a gateway said: {why}")
