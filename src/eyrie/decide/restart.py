"""When a process that died is started again: at once the first time, then ever later while it keeps dying young."""

from __future__ import annotations

FIRST_DELAY_MS = 100
DELAY_MAX_MS = 10_000
STABLE_AFTER_MS = 10_000  # whoever lived this long starts with a clean sheet


def failures_after(failures: int, lived_ms: int) -> int:
    """How many deaths in a row this one makes, given those before it and how long the process lived."""
    return 1 if lived_ms >= STABLE_AFTER_MS else failures + 1


def delay_ms(failures: int) -> int:
    """How long to wait before the next start after this many deaths in a row: 0, 100, 200, 400 ... 10,000 ms."""
    if failures <= 1:
        return 0
    return min(DELAY_MAX_MS, FIRST_DELAY_MS << min(failures - 2, 16))
