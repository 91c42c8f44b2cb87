"""The pool's decisions on a clock of the test's own: when it starts slots, how it backs off, what it counts."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from toyworld import ToyClock

from eyrie.adapters import warm_pool
from eyrie.adapters.launch import LaunchFailed
from eyrie.adapters.slots import Slot, SlotRecord
from eyrie.adapters.warm_pool import BACKOFF_MAX_S, START_TIMEOUT_S, WarmPool
from eyrie.decide.warmth import How, Need, Use
from eyrie.domain.kinds import PLAIN


class Maker:
    """Slots without a process: a slot lives while its lock's descriptor is open here."""

    fingerprint = "f"

    def __init__(self, data: Path) -> None:
        self.data, self.locks, self.failing, self.tries = data, {}, False, 0  # type: ignore[var-annotated]
        self.made: list[str] = []
        self.clock = ToyClock()

    def make(self, kind: str = PLAIN) -> Slot:
        self.tries += 1
        self.made.append(kind)
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
    assert pool.take(Need(PLAIN)) == (first, True)
    assert pool.take(Need(PLAIN)) == (second, False)
    assert pool.take(Need(PLAIN)) is None
    counters = pool.counters
    assert (counters.claims_warm, counters.claims_early, counters.claims_cold) == (1, 1, 1)


def test_one_that_died_or_does_not_answer_is_not_given_away(maker: Any) -> None:
    pool = WarmPool(maker, 3)
    ready(pool, maker, 1.0)
    dead, silent, good = list(maker.locks)
    maker.die(dead)
    maker.phases[silent] = None
    assert pool.take(Need(PLAIN)) == (good, True)
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
    assert pool.take(Need(PLAIN)) == (slot, True)
    assert maker.tries == 1


def test_it_learns_what_is_deployed_and_retires_what_is_too_much(maker: Any) -> None:
    uses: dict[str, Use] = {}
    pool = WarmPool(maker, 2, "sklearn+xgboost", lambda: uses)
    ready(pool, maker, 1.0)
    assert maker.made == ["sklearn+xgboost"] * 2
    uses["torch"] = Use(2, 0)
    ready(pool, maker, 2.0)
    pool.tend(3.0)
    assert maker.made[2:] == ["torch"]
    rows = {row["kind"]: (row["wanted"], row["waiting"]) for row in pool.kinds()}
    assert rows == {"torch": (1, 1), "sklearn+xgboost": (1, 1)}
    assert pool.counters.slots_retired == 1


def test_claims_are_counted_by_kind_and_by_how_they_found_their_slot(maker: Any) -> None:
    pool = WarmPool(maker, 1, "xgboost")
    ready(pool, maker, 1.0)
    taken = pool.take(Need("xgboost"))
    assert taken is not None
    pool.claimed(taken[0])
    assert pool.take(Need("torch")) is None
    cold = maker.make("torch")
    pool.claims(cold, "torch", How.MISSED)
    pool.claimed(cold)
    pool.claimed(maker.make())  # adopted: nobody measured it
    lost = maker.make()
    pool.claims(lost, "torch", How.MISSED)
    pool.gone(lost)
    pool.claimed(lost)
    rows = {row["kind"]: row for row in pool.kinds()}
    assert (rows["xgboost"]["warm"], rows["xgboost"]["missed"]) == (1, 0)
    assert (rows["torch"]["warm"], rows["torch"]["missed"]) == (0, 1)
    assert int(rows["torch"]["missed_worst_ms"]) >= int(rows["torch"]["missed_last_ms"]) >= 0


def test_a_slot_of_a_kind_that_is_wanted_no_more_is_not_adopted(maker: Any) -> None:
    slot = maker.make("torch")
    maker.start(slot)
    assert not WarmPool(maker, 1, "sklearn").adopt(slot, SlotRecord("f", "process", None, (), 0, "torch"))
