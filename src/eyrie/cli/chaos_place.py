"""The Eyrie of a data directory and one endpoint of it, as the faults of `eyrie chaos` see them: who serves, by the
route table's file and by control; which of Eyrie's own processes live; what the gateway workers have taken out.

The file is what the gateways go by, costs next to nothing to look at, and has the time at which it was written. Control
is busy healing when it matters most, so a look asks it once, and only where the file leaves something to ask.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from eyrie.adapters import process_lock
from eyrie.cli.client import ControlClient, ControlUnreachable
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import living
from eyrie.domain.routing import EndpointRoute
from eyrie.http1.unix import connect_unix

WANTED_FOR_S = 0.25  # so long it is taken that as many instances are wanted as control said last
STATS_WITHIN_S = 0.5
STATS_BYTES_MAX = 16 * 1024 * 1024


@dataclass(slots=True)
class Instance:
    """An instance as control tells of it."""

    id: str
    zone: str
    pid: int
    serving: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """One answer of control about the endpoint; it is false where control knows none of the name."""

    instances: tuple[Instance, ...] = ()
    wanted: int = 0  # instances, of all variants together
    known: bool = False

    def __bool__(self) -> bool:
        return self.known


@dataclass(frozen=True, slots=True)
class Routed:
    """The route table's file: whom the gateways send to."""

    targets: frozenset[str] = frozenset()  # instance ids
    written: float = 0.0  # seconds since the epoch


class Place:
    """The Eyrie of a data directory, and one endpoint of it."""

    def __init__(self, data: Path, region: str, endpoint: str) -> None:
        """Raises CommandError for a directory of another user."""
        if data.stat().st_uid != os.geteuid():
            raise CommandError(f"{data} belongs to another user: faults are for one's own Eyrie", code=2)
        self.data, self.endpoint, self.region = data, endpoint, region
        self._control = ControlClient(data, region, timeout_s=2.0)
        self._wanted, self._wanted_until = 0, 0.0  # as control said last, and how long that is taken to be so

    def standing(self) -> Standing | None:
        """The endpoint as control tells of it; None while control does not answer."""
        try:
            endpoints = self._control.status()["endpoints"]
        except ControlUnreachable:
            return None
        found = [e for e in endpoints if e["name"] == self.endpoint and e["region"] == self.region]
        standing = _standing(found[0]) if found else Standing()
        self._wanted, self._wanted_until = standing.wanted, time.monotonic() + WANTED_FOR_S
        return standing

    def instances(self) -> list[Instance] | None:
        """Those of the endpoint; None while control does not answer."""
        standing = self.standing()
        return None if standing is None else list(standing.instances)

    def wanted(self) -> int:
        """How many instances the endpoint is to have. Raises CommandError where there is none of the name."""
        standing = self.standing()
        if not standing:
            raise CommandError(f"there is no endpoint {self.endpoint!r}, or control does not answer")
        return standing.wanted

    def routed(self) -> Routed:
        """Whom the gateways send to, and since when the table says so; nobody where there is no table."""
        for path in (self.data / "routes").glob(f"*.{self.region}.{self.endpoint}.json"):
            try:
                with path.open("rb") as file:
                    table = msgspec.json.decode(file.read(), type=EndpointRoute)
                    written = os.fstat(file.fileno()).st_mtime
            except (OSError, msgspec.MsgspecError):
                continue  # it was taken away meanwhile
            return Routed(frozenset(t.instance_id for v in table.everyone for t in v.targets), written)
        return Routed()

    def lacking(self, routed: Routed) -> bool:
        """Whether fewer are routed than control said a moment ago that are wanted: there is no need to ask again."""
        return len(routed.targets) < self._wanted and time.monotonic() < self._wanted_until

    def process(self, name: str) -> int | None:
        """The pid of one of Eyrie's own processes, by its lock."""
        return process_lock.holder(self.data / "run" / f"{name}.lock")

    def gateways(self) -> list[str]:
        """The names of the gateway workers that live."""
        found = []
        for part in living(self.data):
            found.append(part.name)
            part.close()
        return sorted(name for name in found if name.startswith("gateway-"))

    def kill(self, name: str) -> None:
        """SIGKILL one of Eyrie's own processes."""
        running = process_lock.pin(self.data / "run" / f"{name}.lock")
        if running is None:
            raise CommandError(f"{name} does not run")
        running.send(signal.SIGKILL)
        running.close()

    def ejected(self) -> set[str]:
        """Targets that a gateway worker has taken out of its route: instance ids, perhaps with a worker's number."""
        found: set[str] = set()
        for path in (self.data / "run").glob("gateway-*.sock"):
            for slug, told in _stats(path).get("endpoints", {}).items():
                if slug.endswith(f".{self.endpoint}"):
                    found |= {name for name, target in told["instances"].items() if target["ejected"]}
        return found

    def noticed(self, victims: set[str]) -> bool:
        """Whether Eyrie knows: the route table is without them, or a gateway worker sends them nothing any more."""
        if victims.isdisjoint(self.routed().targets):
            return True
        return any(name.startswith(tuple(victims)) for name in self.ejected())

    def started(self, name: str) -> int | None:
        """The pid of a process that the supervisor started last under this name."""
        try:
            return int(json.loads((self.data / "env.json").read_text())["processes"][name])
        except (OSError, ValueError, LookupError):
            return None

    def warm(self) -> int:
        """How many slots wait for an instance; 0 while control does not answer."""
        try:
            return int(self._control.status().get("slots", {}).get("warm", 0))
        except ControlUnreachable:
            return 0


def _standing(told: dict[str, Any]) -> Standing:
    instances = tuple(
        Instance(str(i["id"]), str(i["zone"]), int(i["pid"] or 0), i["state"] == "READY" and bool(i["routed"]))
        for i in told.get("instances", [])
    )
    return Standing(instances, sum(int(variant["desired"]) for variant in told.get("variants", [])), known=True)


def _stats(path: Path) -> dict[str, Any]:
    """What a gateway worker tells of itself; {} where it does not."""
    try:
        with connect_unix(str(path)) as door:
            door.settimeout(STATS_WITHIN_S)
            door.sendall(b"stats\n")
            told = b""
            while not told.endswith(b"\n") and len(told) < STATS_BYTES_MAX and (more := door.recv(1_048_576)):
                told += more
        found = json.loads(told)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
