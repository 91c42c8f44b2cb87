"""Time and chance for decisions: the Clock and Identity ports on the system's own."""

from __future__ import annotations

import secrets
import time

ANCHOR_MS = 1_767_225_600_000  # 2026-01-01: from here on a scaled clock runs ahead, the same in every process


class SystemClock:
    """The wall clock, sped up by `scale`. It never goes back within one process, even when the host's clock does."""

    def __init__(self, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError(f"a clock cannot run at {scale} times the speed of time")
        self._scale = scale
        self._latest_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC; with a scale, `scale` of them pass in a real one."""
        real_ms = time.time_ns() / 1e6
        now_ms = int(real_ms if self._scale == 1.0 else ANCHOR_MS + (real_ms - ANCHOR_MS) * self._scale)
        self._latest_ms = max(self._latest_ms, now_ms)
        return self._latest_ms


class RandomIdentity:
    """Chance from the operating system."""

    def token(self, digits: int) -> str:
        """Random lower-case hex digits."""
        return secrets.token_hex((digits + 1) // 2)[:digits]
