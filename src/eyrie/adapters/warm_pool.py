"""Warm slots: sandboxes started ahead of need, frameworks imported, waiting for a model.

`take` gives one away in microseconds; `tend`, called by compute's own thread, notices which came up or died and
starts what is missing, with back-off while starts fail. The pool outlives control: waiting slots are found on disk
and adopted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field

from eyrie.adapters import processes
from eyrie.adapters.launch import LaunchFailed
from eyrie.adapters.slot_client import NoAnswer, ask
from eyrie.adapters.slot_maker import SlotMaker
from eyrie.adapters.slots import Slot, SlotRecord

log = logging.getLogger("eyrie.compute")

START_TIMEOUT_S = 240.0  # of a slot: imports on a busy, cold host; one that is killed for slowness only adds load
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
ANSWER_TIMEOUT_S = 0.5
REFILL_DELAY_S = 1.0


@dataclass(slots=True)
class PoolCounters:
    """What happened since control started."""

    claims_warm: int = 0
    claims_early: int = 0  # by a slot that was still importing
    claims_cold: int = 0  # misses: no slot at all
    slots_started: int = 0
    slots_died: int = 0
    starts_failed: int = 0
    slots_retired: int = 0  # of an older version, or of other settings


@dataclass(slots=True)
class WarmPool:
    """The slots that nobody claimed yet. Times are seconds of the monotonic clock."""

    maker: SlotMaker
    wanted: int
    counters: PoolCounters = field(default_factory=PoolCounters)
    _waiting: list[Slot] = field(default_factory=list)
    _starting: dict[Slot, float] = field(default_factory=dict)  # -> when it was started
    _failures: int = 0
    _not_before: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> tuple[Slot, bool] | None:
        """A slot for an instance, and whether it can answer by now; None: there is none, start cold."""
        while True:
            with self._lock:
                if self._waiting:
                    slot, ready = self._waiting.pop(0), True
                elif self._starting:
                    slot, ready = next(iter(self._starting)), False
                    del self._starting[slot]
                else:
                    self.counters.claims_cold += 1
                    return None
            if slot.alive() and (not ready or _phase(slot) == "waiting"):
                self._count_claim(ready)
                return slot, ready
            self._died(slot, "it did not answer when it was to be claimed")

    def adopt(self, slot: Slot, record: SlotRecord) -> bool:
        """Take in a slot found on disk; False (and it is ended) when it is dead or made by other rules than ours."""
        fresh = record.fingerprint == self.maker.fingerprint and not any((slot.path / "ml").glob("*"))
        with self._lock:
            room = len(self._waiting) + len(self._starting) < self.wanted
            if slot.alive() and fresh and room:
                self.maker.adopt(slot, record)
                self._starting[slot] = 0.0
                return True
        self.counters.slots_retired += 1
        self.maker.discard(slot)
        return False

    def tend(self, now_s: float) -> None:
        """Notice what came up or died, and start what is missing."""
        for slot, since in self._snapshot():
            self._look_at(slot, since, now_s)
        while now_s >= self._not_before and self._has_room():
            self._start(now_s)

    @property
    def busy(self) -> bool:
        """Whether something is about to change, so that it pays to look again soon."""
        return bool(self._starting)

    def stats(self) -> dict[str, int]:
        """Sizes now and counters since the start; memory is proportional, of the waiting ones."""
        with self._lock:
            waiting, starting = list(self._waiting), len(self._starting)
        found = {f"pool_{name}": int(getattr(self.counters, name)) for name in PoolCounters.__slots__}
        pids = [pid for slot in waiting if (pid := processes.server_pid(slot)) is not None]
        memory = sum(processes.pss_bytes(pid) for pid in pids)
        sizes = {"pool_wanted": self.wanted, "pool_waiting": len(waiting), "pool_starting": starting}
        return {**sizes, "pool_waiting_pss_bytes": memory, **found}

    def _snapshot(self) -> list[tuple[Slot, float | None]]:
        with self._lock:
            return [*((slot, None) for slot in self._waiting), *self._starting.items()]

    def _look_at(self, slot: Slot, since: float | None, now_s: float) -> None:
        """`since`: when it was started, 0 for an adopted one that has not been seen answering; None: it waits."""
        if not slot.alive():
            self._drop(slot, now_s, "it ended while it waited" if since is None else "it ended before it came up")
        elif since is None:
            return
        elif _phase(slot) == "waiting":
            with self._lock:
                if self._starting.pop(slot, None) is not None:
                    self._waiting.append(slot)
                    self._failures = 0
        elif since == 0.0:
            with self._lock:
                self._starting.update({slot: now_s} if slot in self._starting else {})
        elif now_s - since > START_TIMEOUT_S:
            self._drop(slot, now_s, f"it did not come up within {START_TIMEOUT_S:.0f} s")

    def _has_room(self) -> bool:
        with self._lock:
            at_once = max(1, os.cpu_count() or 1)
            return len(self._starting) < at_once and len(self._waiting) + len(self._starting) < self.wanted

    def _start(self, now_s: float) -> None:
        try:
            slot = self.maker.make()
        except LaunchFailed as fault:
            self._failed(now_s, str(fault))
            return
        try:
            self.maker.start(slot)
        except LaunchFailed as fault:
            self.maker.discard(slot)
            self._failed(now_s, str(fault))
            return
        self.counters.slots_started += 1
        with self._lock:
            self._starting[slot] = now_s

    def _drop(self, slot: Slot, now_s: float, why: str) -> None:
        with self._lock:
            mine = slot in self._waiting or slot in self._starting
            self._waiting = [other for other in self._waiting if other != slot]
            self._starting.pop(slot, None)
        if mine:  # else it was claimed meanwhile
            self._died(slot, why)
            self._failed(now_s, why)

    def _died(self, slot: Slot, why: str) -> None:
        self.counters.slots_died += 1
        log.warning("warm slot %s is replaced: %s; it said: %s", slot.slot_id, why, slot.tail(3))
        self.maker.discard(slot)

    def _failed(self, now_s: float, why: str) -> None:
        wait_s = min(BACKOFF_FIRST_S * 2**self._failures, BACKOFF_MAX_S)
        self._failures = min(self._failures + 1, 16)
        self._not_before = now_s + wait_s
        self.counters.starts_failed += 1
        log.warning("the next warm slot is started in %.1f s: %s", wait_s, why)

    def _count_claim(self, ready: bool) -> None:
        if ready:
            self.counters.claims_warm += 1
            if self._waiting:  # not empty: let the instance load its model before imports compete with it
                self._not_before = max(self._not_before, time.monotonic() + REFILL_DELAY_S)
        else:
            self.counters.claims_early += 1


def _phase(slot: Slot) -> str | None:
    """What the slot's server says it is doing, or None: it does not answer (yet)."""
    try:
        reply = ask(slot.socket, "GET", "/eyrie/state", timeout_s=ANSWER_TIMEOUT_S)
        told = json.loads(reply.body)
    except (NoAnswer, ValueError):
        return None
    return str(told.get("phase")) if isinstance(told, dict) else None
