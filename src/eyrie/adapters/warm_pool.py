"""Warm slots: sandboxes started ahead of need, the frameworks of their kind imported, waiting for a model.

`take` gives one away in microseconds; `tend`, called by compute's own thread, notices which came up or died and
starts what is missing, with back-off while starts fail; decide/warmth says of which kinds and how many. The pool
outlives control: waiting slots are found on disk and adopted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from eyrie.adapters import processes
from eyrie.adapters.launch import LaunchFailed
from eyrie.adapters.slot_client import NoAnswer, ask
from eyrie.adapters.slot_maker import SlotMaker
from eyrie.adapters.slots import Slot, SlotRecord
from eyrie.decide import warmth
from eyrie.decide.warmth import How, Need, Use
from eyrie.domain.kinds import PLAIN

log = logging.getLogger("eyrie.compute")

START_TIMEOUT_S = 240.0  # of a slot: imports on a busy, cold host; one that is killed for slowness only adds load
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
ANSWER_TIMEOUT_S = 0.5
REFILL_DELAY_S, REFILL_DELAY_LAST_S = 1.0, 0.2  # after a claim; the latter when it took the last one of its kind


@dataclass(slots=True)
class PoolCounters:
    """What happened since control started."""

    claims_warm: int = 0
    claims_early: int = 0  # by a slot that was still importing
    claims_part: int = 0  # by a slot that had not imported all that is needed
    claims_cold: int = 0  # misses: no slot at all
    slots_started: int = 0
    slots_died: int = 0
    starts_failed: int = 0
    slots_retired: int = 0  # of an older version, or of other settings


@dataclass(slots=True)
class Claims:
    """The claims of one kind that found their slot in one way, and how long each took to be told of it."""

    count: int = 0
    last_ms: int = 0
    worst_ms: int = 0


@dataclass(slots=True)
class WarmPool:
    """The slots that nobody claimed yet. Times are seconds of the monotonic clock."""

    maker: SlotMaker
    wanted: int  # slots in all, unless more kinds than that are in use; 0: none ever
    first: str = PLAIN  # the kind of the first slots, before it is known what is deployed
    uses: Callable[[], Mapping[str, Use]] = dict  # how much each kind is used
    counters: PoolCounters = field(default_factory=PoolCounters)
    _claims: dict[tuple[str, How], Claims] = field(default_factory=dict)  # by kind
    _claiming: dict[Slot, tuple[str, How, float]] = field(default_factory=dict)  # not told yet: kind, how, since when
    _kinds: dict[Slot, str] = field(default_factory=dict)  # of the two below
    _waiting: list[Slot] = field(default_factory=list)
    _starting: dict[Slot, float] = field(default_factory=dict)  # -> when it was started
    _failures: int = 0
    _not_before: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, need: Need) -> tuple[Slot, bool] | None:
        """A slot for an instance, and whether it can answer by now; None: there is none that fits, start cold."""
        while True:
            with self._lock:
                starting = list(self._starting)
                kinds = self._kinds
                chosen = warmth.choose(need, [kinds[s] for s in self._waiting], [kinds[s] for s in starting])
                if chosen is None:
                    self.counters.claims_cold += 1
                    return None
                place, how = chosen
                slot = starting[place] if how is How.EARLY else self._waiting.pop(place)
                self._starting.pop(slot, None)
                kind = kinds.pop(slot)
            if slot.alive() and (how is How.EARLY or _phase(slot) == "waiting"):
                self._count_claim(how, kind)
                self.claims(slot, need.kind, how)
                return slot, how is not How.EARLY
            self._died(slot, "it did not answer when it was to be claimed")

    def claims(self, slot: Slot, kind: str, how: How) -> None:
        """A slot is about to be claimed, for an instance that needs this kind."""
        with self._lock:
            self._claiming[slot] = (kind, how, time.monotonic())

    def claimed(self, slot: Slot) -> None:
        """A slot was told that it is claimed, and loads its model. Not counted of an instance that was adopted."""
        with self._lock:
            told = self._claiming.pop(slot, None)
            if told is not None:
                kind, how, since_s = told
                claims = self._claims.setdefault((kind, how), Claims())
                claims.count += 1
                claims.last_ms = round((time.monotonic() - since_s) * 1000)
                claims.worst_ms = max(claims.worst_ms, claims.last_ms)

    def gone(self, slot: Slot) -> None:
        """A slot that was to be claimed is no more."""
        with self._lock:
            self._claiming.pop(slot, None)

    def adopt(self, slot: Slot, record: SlotRecord) -> bool:
        """Take in a slot found on disk; False (and it is ended) when it is dead or made by other rules than ours."""
        fresh = record.fingerprint == self.maker.fingerprint and not any((slot.path / "ml").glob("*"))
        with self._lock:
            room = self._have()[record.kind] < self._wants().get(record.kind, 0)
            if slot.alive() and fresh and room:
                self.maker.adopt(slot, record)
                self._kinds[slot] = record.kind
                self._starting[slot] = 0.0
                return True
        self.counters.slots_retired += 1
        self.maker.discard(slot)
        return False

    def tend(self, now_s: float) -> None:
        """Notice what came up or died, and start what is missing."""
        for slot, since in self._snapshot():
            self._look_at(slot, since, now_s)
        while now_s >= self._not_before and (kind := self._lacking()) is not None:
            self._start(kind, now_s)
        self._retire()

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
        memory = sum(processes.pss_with_children(pid) for pid in pids)
        sizes = {"pool_wanted": self.wanted, "pool_waiting": len(waiting), "pool_starting": starting}
        return {**sizes, "pool_waiting_pss_bytes": memory, **found}

    def kinds(self) -> list[dict[str, int | str]]:
        """Each kind: how many are wanted, wait and start, and the claims since control started with their times."""
        with self._lock:
            waiting = Counter(self._kinds[slot] for slot in self._waiting)
            starting = Counter(self._kinds[slot] for slot in self._starting)
            claims = {key: Claims(c.count, c.last_ms, c.worst_ms) for key, c in self._claims.items()}
            wants = self._wants()
        found: list[dict[str, int | str]] = []
        for kind in dict.fromkeys((*wants, *waiting, *starting, *(kind for kind, _ in claims))):
            row: dict[str, int | str] = {"kind": kind, "wanted": wants.get(kind, 0)}
            row |= {"waiting": waiting[kind], "starting": starting[kind]}
            for how in How:
                one = claims.get((kind, how), Claims())
                row |= {how: one.count, f"{how}_last_ms": one.last_ms, f"{how}_worst_ms": one.worst_ms}
            found.append(row)
        return found

    def _wants(self) -> dict[str, int]:
        return warmth.wanted(self.uses(), self.first, self.wanted, self.maker.clock.now_ms())

    def _have(self) -> Counter[str]:
        return Counter(self._kinds.values())

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

    def _lacking(self) -> str | None:
        """The kind to start a slot of now."""
        with self._lock:
            if len(self._starting) >= max(1, os.cpu_count() or 1):
                return None
            return warmth.next_start(self._wants(), self._have())

    def _retire(self) -> None:
        """End one waiting slot of a kind of which there are too many."""
        with self._lock:
            kind = warmth.surplus(self._wants(), self._have())
            slot = next((s for s in self._waiting if self._kinds[s] == kind), None)
            if slot is None:
                return
            self._waiting.remove(slot)
            del self._kinds[slot]
        self.counters.slots_retired += 1
        self.maker.discard(slot)

    def _start(self, kind: str, now_s: float) -> None:
        try:
            slot = self.maker.make(kind)
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
            self._kinds[slot] = kind

    def _drop(self, slot: Slot, now_s: float, why: str) -> None:
        with self._lock:
            mine = slot in self._waiting or slot in self._starting
            self._waiting = [other for other in self._waiting if other != slot]
            self._starting.pop(slot, None)
            if mine:
                del self._kinds[slot]
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

    def _count_claim(self, how: How, kind: str) -> None:
        if how is How.WARM:  # let the instance load its model before imports compete with it
            self.counters.claims_warm += 1
            last = kind not in self._kinds.values()
            wait_s = REFILL_DELAY_LAST_S if last else REFILL_DELAY_S
            self._not_before = max(self._not_before, time.monotonic() + wait_s)
        elif how is How.PART:
            self.counters.claims_part += 1
        else:
            self.counters.claims_early += 1


def _phase(slot: Slot) -> str | None:
    """What the slot's server says it is doing, or None: it does not answer (yet)."""
    try:
        reply = ask(slot.socket, "GET", "/eyrie/phase", timeout_s=ANSWER_TIMEOUT_S)
        told = json.loads(reply.body)
    except (NoAnswer, ValueError):
        return None
    return str(told.get("phase")) if isinstance(told, dict) else None
