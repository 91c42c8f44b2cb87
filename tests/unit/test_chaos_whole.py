"""When all is whole again: by the route table and by control, at the moment it became so and not when it was seen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyrie.cli import chaos, chaos_faults, chaos_place
from eyrie.cli import data as datadir
from eyrie.cli.chaos_faults import Fault
from eyrie.cli.chaos_place import Place
from eyrie.cli.client import ControlClient, ControlUnreachable
from eyrie.cli.errors import CommandError
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, Target, VariantRoute


class World:
    """A data directory with a route table, and a control that answers as it is told, and counts."""

    def __init__(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (data / "credentials.json").write_text(
            json.dumps([{"access_key_id": "a", "secret_access_key": "b", "account": "1"}])
        )
        (data / "routes").mkdir()
        self.data, self.asked, self.answers = data, 0, True
        self.serving: Sequence[str] = ()
        self.desired = 2
        monkeypatch.setattr(ControlClient, "status", lambda _: self.status())
        self.place = Place(data, "us-east-1", "e")

    def status(self) -> dict[str, Any]:
        """What control says."""
        self.asked += 1
        if not self.answers:
            raise ControlUnreachable("away")
        instances = [{"id": i, "zone": "a", "pid": 9, "state": "READY", "routed": True} for i in self.serving]
        row = {"name": "e", "region": "us-east-1", "variants": [{"desired": self.desired}], "instances": instances}
        return {"endpoints": [row]}

    def route(self, *instances: str, ago_s: float = 0.0) -> None:
        """Write the table, so many seconds ago."""
        targets = tuple(Target(one, f"/{one}", "a") for one in instances)
        variant = VariantRoute("v", 1.0, RoutingStrategy.RANDOM, "c", targets)
        table = EndpointRoute(EndpointKey("1", "us-east-1", "e"), 1, (variant,))
        path = self.data / "routes" / "1.us-east-1.e.json"
        path.with_suffix(".new").write_bytes(msgspec.json.encode(table))
        at = time.time() - ago_s
        os.utime(path.with_suffix(".new"), (at, at))
        path.with_suffix(".new").rename(path)

    def fault(self, victim: str) -> Fault:
        """As the kill of an instance is."""
        return Fault(
            "a kill",
            lambda: chaos_faults.whole(self.place, {victim}),
            noticed=lambda: self.place.noticed({victim}),
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_nobody_is_asked_while_the_table_has_the_victim(world: World) -> None:
    world.route("x", "y")
    world.serving = ["x", "y"]
    assert not chaos_faults.whole(world.place, {"x"})
    assert world.asked == 0
    assert chaos_faults.whole(world.place)
    assert world.asked == 1


def test_what_is_lacking_is_not_asked_for_again_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos_place, "WANTED_FOR_S", 600.0)
    world.route("x", "y")
    world.serving = ["x", "y"]
    assert world.place.wanted() == 2
    world.route("y")
    world.asked = 0
    assert not chaos_faults.whole(world.place, {"x"})
    assert world.asked == 0


def test_it_takes_the_table_and_control_to_be_whole(world: World) -> None:
    world.route("y")
    world.serving = ["y", "z"]
    assert not chaos_faults.whole(world.place)  # control has decided, and the gateways know nothing of it
    world.route("y", "z")
    world.serving = ["y"]
    assert not chaos_faults.whole(world.place)
    world.answers = False
    assert not chaos_faults.whole(world.place)


def test_the_moment_is_the_tables_own_where_a_look_takes_long(world: World) -> None:
    world.route("y", "z", ago_s=300.0)
    world.serving = ["y", "z"]
    noticed_s, whole_s = chaos.until_whole(world.place, world.fault("x"), 1000.0, time.monotonic() - 500.0)
    assert noticed_s == pytest.approx(200.0, abs=60.0)
    assert whole_s == pytest.approx(200.0, abs=60.0)


def test_a_table_of_before_the_fault_tells_no_moment(world: World) -> None:
    world.route("y", "z", ago_s=600.0)
    world.serving = ["y", "z"]
    _, whole_s = chaos.until_whole(world.place, world.fault("x"), 1000.0, time.monotonic() - 500.0)
    assert whole_s is not None
    assert whole_s >= 500.0


def test_what_never_becomes_whole_is_told_so(world: World) -> None:
    world.route("y")
    world.serving = ["y"]
    noticed_s, whole_s = chaos.until_whole(world.place, world.fault("x"), 0.05, time.monotonic())
    assert noticed_s is not None
    assert whole_s is None


def test_a_control_that_answers_late_costs_no_fault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.serving = ["x"]
    world.answers = False
    monkeypatch.setattr(time, "sleep", lambda _: setattr(world, "answers", True))
    assert chaos_faults.victim_of(world.place).id == "x"


def test_an_endpoint_that_is_not_there_is_told_before_its_request_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said that it does not tell what a request looks like."""
    datadir.write_env(tmp_path, {"endpoint": "http://127.0.0.1:7", "region": "us-east-1"})
    datadir.ensure_credentials(tmp_path, "123456789012")
    monkeypatch.setattr(chaos_place.Place, "standing", lambda place: chaos_place.Standing())
    asked = chaos.Asked(
        endpoint="nope", faults=["kill-instance"], zone=None, seconds=1.0, share=0.8, rps=1.0, data=None, runs=1,
        within_s=1.0, as_json=False,
    )  # fmt: skip
    with pytest.raises(CommandError, match="there is no endpoint 'nope'"):
        chaos.run(tmp_path, asked)
