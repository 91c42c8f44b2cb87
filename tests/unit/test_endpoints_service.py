"""Commands on endpoints from many threads, against each other and against the loop's own commits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toyworld import KEY, MemoryStore, Rig, SeededIdentity, ToyClock, World, serving, wish

from eyrie.adapters.store_sql import SqlStore
from eyrie.control.endpoints import Endpoints
from eyrie.decide.endpoint import Update
from eyrie.domain.endpoint import CapacityChange, EndpointStatus
from eyrie.domain.errors import EndpointBusy, EndpointExists
from eyrie.domain.names import EndpointKey, Scope
from eyrie.ports import Commit, Conflict, Document

TAGS = Document("Tags", KEY.scope, "endpoint/birds", 0, 1, 1, {"Tags": []})


def outcomes(count: int, command: Callable[[], object]) -> list[str]:
    """What so many threads at once make of a command, sorted."""
    together = threading.Barrier(count)

    def one(_: int) -> str:
        together.wait(30)
        try:
            command()
        except Exception as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(count) as pool:
        return sorted(pool.map(one, range(count)))


def test_of_many_equal_commands_one_is_heard(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'state.db'}")
    clock, woken = ToyClock(), list[EndpointKey]()
    world = World(clock)
    endpoints = Endpoints(store, clock, SeededIdentity(1), woken.append)
    created = outcomes(8, lambda: endpoints.create(KEY, wish(("A", 1))))
    assert created == [EndpointExists.__name__] * 7 + ["done"]
    rig = Rig(store, world, clock)
    rig.run_until(rig.in_status(EndpointStatus.IN_SERVICE))
    changed = outcomes(8, lambda: endpoints.update_weights(KEY, [CapacityChange("A", weight=2)]))
    assert changed == [EndpointBusy.__name__] * 7 + ["done"]
    assert woken == [KEY, KEY]
    store.close()


class Contested(MemoryStore):
    """A store in which someone else commits first, so many times."""

    losses = 0

    def commit(self, commit: Commit) -> None:
        if self.losses:
            self.losses -= 1
            raise Conflict("someone was first")
        super().commit(commit)


def test_a_command_that_loses_a_race_decides_again_and_gives_up_in_the_end() -> None:
    store = Contested()
    endpoints = Endpoints(store, ToyClock(), SeededIdentity(1), lambda key: None)
    store.losses = 3
    endpoints.create(KEY, wish(("A", 1)))
    store.losses = 1_000
    with pytest.raises(Conflict):
        endpoints.create(EndpointKey("123456789012", "us-east-1", "other"), wish(("A", 1)))


def test_a_look_that_loses_a_race_keeps_what_it_was_told() -> None:
    rig = serving(("A", 1))
    rig.endpoints.update(KEY, Update(wish(("A", 1), config="config-2")))
    rig.settle()
    before = rig.endpoint()
    document = rig.store.get("Endpoint", KEY.scope, KEY.name)
    assert document is not None
    rig.store.commit(Commit(puts=[document]))  # someone else was here
    assert rig.endpoint() == before
    rig.run_until(rig.in_status(EndpointStatus.IN_SERVICE))
    assert rig.endpoint().config_name == "config-2"


def test_what_belongs_together_is_stored_together() -> None:
    store = MemoryStore()
    endpoints = Endpoints(store, ToyClock(), SeededIdentity(1), lambda key: None)
    endpoints.create(KEY, wish(("A", 1)), also=[TAGS])
    assert store.get("Tags", KEY.scope, "endpoint/birds") is not None
    with pytest.raises(EndpointExists):
        endpoints.create(KEY, wish(("A", 1)))
    assert [e.key for e in endpoints.list(KEY.scope)] == [KEY]
    assert endpoints.list(Scope("210987654321", "us-east-1")) == []
