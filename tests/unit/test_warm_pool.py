"""The pool's decisions on a clock of the test's own: when it starts slots, how it backs off, what it counts."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from eyrie.adapters import warm_pool
from eyrie.adapters.launch import LaunchFailed
from eyrie.adapters.slots import Slot, SlotRecord
from eyrie.adapters.warm_pool import BACKOFF_MAX_S, START_TIMEOUT_S, WarmPool


class Maker:
    """Slots without a process: a slot lives while its lock's descriptor is open here."""

    fingerprint = "f"

    def __init__(self, data: Path) -> None:
        self.data, self.locks, self.failing, self.tries = data, {}, False, 0  # type: ignore[var-annotated]

    def make(self) -> Slot:
        self.tries += 1
        if self.failing:
            raise LaunchFailed("no room")
        slot = Slot(self.data / f"{self.tries}")
        (slot.path / "ml").mkdir(parents=True)
        return slot

    def start(self, slot: Slot) -> None:
        self.locks[slot] = slot.hold_lock()

    def adopt(self, slot: Slot, record: SlotRecord) -> None:
        self.locks.setdefault(slot, -1)

    def discard(self, slot: Slot) -> None:
        self.die(slot)
        slot.remove()

    def die(self, slot: Slot) -> None:
        if (fd := self.locks.pop(slot, -1)) >= 0:
            os.close(fd)


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Maker(tmp_path)
    made.phases = {}  # type: ignore[attr-defined]
    monkeypatch.setattr(warm_pool, "_phase", lambda slot: made.phases.get(slot))  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    yield made
    for slot in list(made.locks):
        made.die(slot)


def ready(pool: WarmPool, maker: Any, now_s: float) -> None:
    pool.tend(now_s)
    maker.phases.update(dict.fromkeys(maker.locks, "waiting"))
    pool.tend(now_s)


def test_it_fills_up_to_what_is_wanted(maker: Any) -> None:
    pool = WarmPool(maker, 3)
    pool.tend(1.0)
    assert (pool.stats()["pool_starting"], pool.stats()["pool_waiting"], pool.busy) == (3, 0, True)
    ready(pool, maker, 2.0)
    assert (pool.stats()["pool_starting"], pool.stats()["pool_waiting"], pool.busy) == (0, 3, False)


def test_no_more_start_at_once_than_there_are_cpus(maker: Any) -> None:
    pool = WarmPool(maker, 9)
    pool.tend(1.0)
    assert pool.stats()["pool_starting"] == 4


def test_failing_starts_back_off_and_success_ends_it(maker: Any) -> None:
    pool = WarmPool(maker, 1)
    maker.failing = True
    tried, now_s = [], 1.0
    while len(tried) < 9:
        before = maker.tries
        pool.tend(now_s)
        tried += [now_s] * (maker.tries - before)
        now_s += 0.25
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, BACKOFF_MAX_S, BACKOFF_MAX_S]
    maker.failing = False
    ready(pool, maker, now_s + 100)
    maker.die(next(iter(maker.locks)))
    pool.tend(now_s + 100)
    pool.tend(now_s + 100.5)
    assert pool.stats()["pool_starting"] == 1


def test_one_that_dies_is_counted_and_replaced(maker: Any) -> None:
    pool = WarmPool(maker, 1)
    ready(pool, maker, 1.0)
    maker.die(next(iter(maker.locks)))
    pool.tend(2.0)
    assert (pool.stats()["pool_waiting"], pool.counters.slots_died) == (0, 1)
    ready(pool, maker, 3.0)
    assert pool.stats()["pool_waiting"] == 1


def test_one_that_does_not_come_up_is_replaced(maker: Any) -> None:
    pool = WarmPool(maker, 1)
    pool.tend(1.0)
    (first,) = maker.locks
    pool.tend(START_TIMEOUT_S)
    assert first in maker.locks
    pool.tend(START_TIMEOUT_S + 1.5)
    assert first not in maker.locks


def test_a_claim_takes_a_waiting_one_then_a_starting_one_then_none(maker: Any) -> None:
    pool = WarmPool(maker, 2)
    pool.tend(1.0)
    first, second = maker.locks
    maker.phases[first] = "waiting"
    pool.tend(1.5)
    assert pool.take() == (first, True)
    assert pool.take() == (second, False)
    assert pool.take() is None
    counters = pool.counters
    assert (counters.claims_warm, counters.claims_early, counters.claims_cold) == (1, 1, 1)


def test_one_that_died_or_does_not_answer_is_not_given_away(maker: Any) -> None:
    pool = WarmPool(maker, 3)
    ready(pool, maker, 1.0)
    dead, silent, good = list(maker.locks)
    maker.die(dead)
    maker.phases[silent] = None
    assert pool.take() == (good, True)
    assert pool.counters.slots_died == 2


@pytest.mark.parametrize(("fingerprint", "model", "wanted"), [("old", False, 1), ("f", True, 1), ("f", False, 0)])
def test_what_is_stale_half_claimed_or_too_many_is_retired(
    maker: Any, fingerprint: str, model: bool, wanted: int
) -> None:
    slot = maker.make()
    maker.start(slot)
    if model:
        (slot.path / "ml" / "model").mkdir()
    pool = WarmPool(maker, wanted)
    assert not pool.adopt(slot, SlotRecord(fingerprint, "process", None, (), 0))
    assert (pool.counters.slots_retired, slot.path.exists()) == (1, False)


def test_a_fresh_one_is_adopted_and_waits_once_it_answers(maker: Any) -> None:
    slot = maker.make()
    maker.start(slot)
    pool = WarmPool(maker, 1)
    assert pool.adopt(slot, SlotRecord("f", "process", None, (), 0))
    maker.phases[slot] = "waiting"
    pool.tend(1.0)
    assert pool.take() == (slot, True)
    assert maker.tries == 1
