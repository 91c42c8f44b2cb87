"""The clock and the chance of decisions."""

from __future__ import annotations

import time

import pytest

from eyrie.adapters import clock
from eyrie.adapters.clock import ANCHOR_MS, RandomIdentity, SystemClock


def test_an_unscaled_clock_is_the_wall_clock() -> None:
    before = time.time_ns() // 1_000_000
    now = SystemClock().now_ms()
    assert before <= now <= time.time_ns() // 1_000_000


def test_a_scaled_clock_runs_ahead_and_agrees_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    real_ms = [ANCHOR_MS + 1_000]
    monkeypatch.setattr(clock.time, "time_ns", lambda: real_ms[0] * 1_000_000)
    one, other = SystemClock(60), SystemClock(60)
    assert one.now_ms() == other.now_ms() == ANCHOR_MS + 60_000
    real_ms[0] += 1_000
    assert one.now_ms() == ANCHOR_MS + 120_000


def test_it_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real_ms = [5_000]
    monkeypatch.setattr(clock.time, "time_ns", lambda: real_ms[0] * 1_000_000)
    one = SystemClock()
    assert one.now_ms() == 5_000
    real_ms[0] = 4_000
    assert one.now_ms() == 5_000
    with pytest.raises(ValueError, match="0 times"):
        SystemClock(0)


def test_tokens_are_hex_of_the_length_asked_for() -> None:
    identity = RandomIdentity()
    for digits in (1, 12, 17):
        token = identity.token(digits)
        assert len(token) == digits
        assert int(token, 16) >= 0
    assert identity.token(17) != identity.token(17)
