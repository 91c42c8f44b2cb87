"""Control's watch over availability: what is heard and asked, what of it counts, and what a death leaves behind."""

from __future__ import annotations

import asyncio
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_scaler import MemoryMetrics
from toyworld import KEY, MemoryStore, ToyClock, fresh, wish

from eyrie.adapters.availability_file import AvailabilityFile
from eyrie.adapters.endpoint_probe import EndpointProbe
from eyrie.control import availability
from eyrie.control.availability import Availability
from eyrie.domain.availability import MINUTE_MS, Minute, Verdict
from eyrie.domain.endpoint import Endpoint, EndpointStatus
from eyrie.ports import Commit, Document
from eyrie.settings import Settings

PERIOD_MS = 10_000


class Door(EndpointProbe):
    """What a client at the door sees."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 1, None)
        self.trouble: str | None = None
        self.asked = 0

    def door(self, timeout_s: float) -> str | None:
        return self.trouble

    def invoke(self, key: Any, probe: Any, timeout_s: float) -> str | None:
        self.asked += 1
        if probe.body == b"cannot be sent":
            raise UnicodeEncodeError("latin-1", "", 0, 1, "of all things")
        return self.trouble


class World:
    """An endpoint in service, and control's watch over it, which may die."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rig = fresh()
        rig.endpoints.create(KEY, wish(("A", 2)))
        rig.run_until(lambda: rig.endpoint().status is EndpointStatus.IN_SERVICE)
        self.endpoint: Endpoint = rig.endpoint()
        self.clock, self.door, self.path = ToyClock(), Door(), tmp_path / "availability.db"
        self.clock.ms = self.clock.ms // MINUTE_MS * MINUTE_MS + MINUTE_MS
        self.store, self.metrics = MemoryStore(), MemoryMetrics()
        self.pong: str | None = None  # what instances answer: None for a 200
        self.gateways = True
        self.beside: list[Endpoint] = []  # other endpoints
        monkeypatch.setattr(availability, "ping", self._ping)
        self.start()

    async def _ping(self, socket: str, timeout_s: float) -> str | None:
        return self.pong

    def start(self) -> None:
        """Control begins."""
        self.file = AvailabilityFile(self.path)
        standing: Callable[[], Any] = lambda: [(one, frozenset()) for one in (self.endpoint, *self.beside)]  # noqa: E731
        self.watch = Availability(
            self.file,
            self.door,
            self.metrics,
            self.store,
            self.clock,
            Settings(probe_period_ms=PERIOD_MS),
            standing,
            lambda: self.gateways,
        )

    def rounds(self, count: int) -> None:
        """So many rounds, a period apart."""
        for _ in range(count):
            asyncio.run(self._once())
            self.clock.ms += PERIOD_MS

    async def _once(self) -> None:
        self.watch._attend()
        await self.watch._round()
        await self.watch._keep_over()

    def minutes(self) -> list[Minute]:
        return self.file.minutes(self.endpoint.uid, 0, self.clock.ms)

    def verdicts(self) -> list[Verdict]:
        return [minute.verdict for minute in self.minutes()]

    def tag(self, key: str, value: str, endpoint: str = KEY.name) -> None:
        body = {"Tags": [{"Key": key, "Value": value}]}
        self.store.commit(Commit(puts=[Document("Tags", KEY.scope, f"endpoint/{endpoint}", 0, 1, 1, body)]))

    def serve(self, n: int, e5: int = 0, **more: Any) -> None:
        self.watch.take({"endpoints": {KEY.slug: {"A": {"i-1": {"n": n, "e5": e5, **more}}}}})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.file.close()


def test_an_endpoint_that_answers_is_available_without_any_traffic(world: World) -> None:
    world.rounds(30)
    assert world.verdicts() == [Verdict.GOOD] * 4
    names = {metric.name for metric in world.metrics.found}
    assert {"Availability", "GoodMinutes", "BurnRate", "Burning", "ErrorBudgetRemaining"} <= names
    assert "GoodRequests" not in names


def test_an_outage_is_seen_told_and_over(world: World) -> None:
    world.rounds(12)
    world.pong = "FileNotFoundError: no socket"
    world.rounds(9)
    world.pong = None
    world.rounds(20)
    bad = sum(minute.bad_s for minute in world.minutes())
    assert bad == pytest.approx(90, abs=1)
    assert Verdict.BAD in world.verdicts()
    events = [e for e in world.store.events("Endpoint", KEY.scope, KEY.name) if "AVAILABLE" in e.what]
    assert [event.what for event in events] == ["UNAVAILABLE", "AVAILABLE"]
    assert "observed seconds were bad" in events[0].why


def test_a_death_of_control_leaves_unknown_minutes_and_no_bad_ones(world: World) -> None:
    world.rounds(15)
    world.file.close()
    world.clock.ms += 5 * MINUTE_MS
    world.start()
    world.rounds(20)
    assert set(world.verdicts()) == {Verdict.GOOD}
    first, last = world.minutes()[0].at_ms, world.minutes()[-1].at_ms
    assert (last - first) // MINUTE_MS + 1 - len(world.minutes()) >= 4


def test_a_minute_that_a_graceful_end_cut_in_two_is_one(world: World) -> None:
    world.rounds(9)
    world.watch.finish()
    world.file.close()
    world.start()
    world.rounds(20)
    assert set(world.verdicts()) == {Verdict.GOOD}
    assert world.minutes()[1].observed_s >= 50  # from a restart to its first probe nobody looks


def test_the_door_that_closes_when_eyrie_ends_is_no_outage(world: World) -> None:
    world.rounds(9)
    world.door.trouble = "refused"
    world.rounds(2)
    world.watch.finish()
    assert set(world.verdicts()) == {Verdict.GOOD}


def test_a_door_that_stays_closed_is_one(world: World) -> None:
    world.rounds(6)
    world.door.trouble = "refused"
    world.rounds(20)
    assert Verdict.BAD in world.verdicts()


def test_nothing_is_asked_before_a_gateway_was_there(world: World) -> None:
    world.gateways, world.door.trouble = False, "refused"
    world.rounds(20)
    assert world.minutes() == []
    world.gateways, world.door.trouble = True, None
    world.rounds(20)
    assert set(world.verdicts()) == {Verdict.GOOD}


def test_failed_requests_make_a_minute_bad_and_copies_for_shadows_do_not(world: World) -> None:
    world.rounds(2)
    world.serve(100, 40)
    world.serve(500, 500, shadow=True)
    world.rounds(20)
    first = world.minutes()[0]
    assert (first.requests, first.failed, first.verdict) == (100, 40, Verdict.BAD)
    (good,) = [seconds for metric, seconds in world.metrics.found.items() if metric.name == "GoodRequests"]
    assert sum(s.count for s in good.values()) == 100
    assert sum(s.total for s in good.values()) == 60


def test_busy_instances_that_answer_requests_are_not_away(world: World) -> None:
    world.rounds(1)
    world.pong = "no answer in 1000 ms"
    for _ in range(20):
        world.serve(3)
        world.rounds(1)
    assert Verdict.BAD not in world.verdicts()
    world.rounds(30)  # and once they answer nothing any more
    assert Verdict.BAD in world.verdicts()


def test_planned_maintenance_does_not_count(world: World) -> None:
    world.tag("eyrie:maintenance", "2020-01-01T00:00Z/7d daily/00:00Z/23h")
    world.clock.ms = world.clock.ms // 86_400_000 * 86_400_000
    world.pong = "refused"
    world.rounds(20)
    assert set(world.verdicts()) == {Verdict.PLANNED}
    assert {metric.name for metric in world.metrics.found} >= {"Maintenance"}
    assert "Availability" not in {metric.name for metric in world.metrics.found}


def test_a_probe_of_its_own_is_asked_instead(world: World) -> None:
    world.tag("eyrie:probe", "text/csv NS4x")
    world.pong = "refused"
    world.rounds(20)
    assert world.door.asked == 20
    assert set(world.verdicts()) == {Verdict.GOOD}


def test_an_endpoint_whose_probe_fails_in_an_unknown_way_costs_the_others_nothing(world: World) -> None:
    other = replace(KEY, name="other")
    world.beside = [replace(world.endpoint, key=other, uid="other")]
    world.tag("eyrie:probe", f"text/csv {b64encode(b'cannot be sent').decode()}", "other")
    world.rounds(20)
    assert world.door.asked == 20
    assert set(world.verdicts()) == {Verdict.GOOD}
    assert world.file.minutes("other", 0, world.clock.ms) == []
    world.door.trouble = "refused"  # this much is known of it nonetheless
    world.rounds(20)
    assert {minute.verdict for minute in world.file.minutes("other", 0, world.clock.ms)} == {Verdict.BAD}


def rounds_on_a_full_disk(world: World, count: int) -> None:
    def full(seen: Any, now_ms: int) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.file, "keep", full)
        for _ in range(count):
            with suppress(sqlite3.OperationalError):
                world.rounds(1)
                continue
            world.clock.ms += PERIOD_MS


def test_minutes_are_kept_once_the_disk_takes_them(world: World) -> None:
    world.rounds(12)
    known = len(world.minutes())
    rounds_on_a_full_disk(world, 18)
    assert len(world.minutes()) == known
    world.rounds(12)
    at = [minute.at_ms for minute in world.minutes()]
    assert at == list(range(at[0], at[0] + len(at) * MINUTE_MS, MINUTE_MS)), "a minute is missing"
    assert all(minute.observed_s <= 60 for minute in world.minutes())


def test_minutes_that_no_disk_takes_are_not_gathered_for_ever(world: World) -> None:
    rounds_on_a_full_disk(world, 2 * availability.OPEN_MAX * MINUTE_MS // PERIOD_MS)
    world.rounds(1)
    assert availability.OPEN_MAX - 3 <= len(world.minutes()) <= availability.OPEN_MAX


def test_an_endpoint_that_was_never_in_service_owes_nothing(world: World) -> None:
    world.endpoint, world.pong = replace(world.endpoint, status=EndpointStatus.CREATING), "refused"
    world.rounds(20)
    assert world.minutes() == []


def test_an_endpoint_without_instances_in_its_route_is_away(world: World) -> None:
    assert world.endpoint.route is not None
    empty = replace(world.endpoint.route.variants[0], targets=())
    world.endpoint = replace(world.endpoint, route=replace(world.endpoint.route, variants=(empty,)))
    world.rounds(20)
    assert set(world.verdicts()) == {Verdict.BAD}
    assert world.watch.trouble(KEY) == "no instance is in the route"
