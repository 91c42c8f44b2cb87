"""A data directory with artifacts, and computes upon it whose slots run the stand-in server."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from eyrie.adapters import ending, sandbox
from eyrie.adapters.compute_docker import DockerEngine, engine_of
from eyrie.adapters.compute_process import ProcessCompute, end_all
from eyrie.adapters.launch import Server
from eyrie.adapters.slot_client import NoAnswer, ask
from eyrie.domain.fleet import ContainerSpec, InstanceSpec, ObservedInstance
from eyrie.domain.names import EndpointKey
from eyrie.settings import Settings

STANDIN = Path(__file__).with_name("slot_standin.py")
ARTIFACT = "a" * 64
DEADLINE_S = 60.0  # of a condition: a cold disk and a busy machine are no failure
T = TypeVar("T")


def standin(*flags: str) -> Server:
    """The stand-in's command, and that it must be able to see its own file."""
    return Server((sys.executable, "-I", "-S", "-B", str(STANDIN), *flags), (*sandbox.runtime_paths(), STANDIN))


def until(condition: Callable[[], T], what: str = "", deadline_s: float = DEADLINE_S) -> T:
    """Poll until the condition yields something true; it, or an AssertionError that says what was waited for."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"not within {deadline_s} s: {what or condition}")


class Clock:
    def now_ms(self) -> int:
        return int(time.time() * 1000)


class World:
    """One data directory; `compute()` is a control that starts on it, as often as a test likes."""

    def __init__(self, data: Path, wanted: str = "auto", image_digest: str | None = None, **settings: Any) -> None:
        """`image_digest`: instances run an image of the user's own."""
        self.data = data
        self.image_digest = image_digest
        self.settings = Settings(data=data, **{"warm_slots": 1, "sandbox": wanted, "drain_ms": 2000, **settings})
        self.deaths: list[str] = []
        self.computes: list[ProcessCompute] = []
        self.engines: list[DockerEngine] = []
        self.artifact()

    def path(self, digest: str) -> Path:
        return self.data / "artifacts" / digest

    def artifact(self, digest: str = ARTIFACT, **files: str) -> str:
        model = self.path(digest) / "model"
        model.mkdir(parents=True, exist_ok=True)
        for name, text in {"weights": "42", **files}.items():
            (model / name.replace("_json", ".json")).write_text(text)
        return digest

    def behave(self, **behaviour: Any) -> str:
        """An artifact whose model behaves so."""
        digest = f"{abs(hash(json.dumps(behaviour))):064x}"
        return self.artifact(digest, behaviour_json=json.dumps(behaviour))

    def compute(self, server: Server | None = None, **settings: Any) -> ProcessCompute:
        settings_now = self.settings.with_flags(**settings)
        died = self.deaths.append
        engine = engine_of(settings_now)
        made = ProcessCompute(
            settings_now, self, Clock(), lambda spec: died(spec.instance_id), server or standin(), engine
        )
        if isinstance(engine, DockerEngine):
            self.engines.append(engine)
        made.start()
        self.computes.append(made)
        return made

    def spec(self, number: int = 1, artifact: str = ARTIFACT, **fields: Any) -> InstanceSpec:
        container = ContainerSpec(
            "primary", "eyrie/sklearn", artifact, "s3://b/m.tar.gz", {"TOLD": "yes"}, image_digest=self.image_digest
        )
        given = {
            "instance_id": f"i-{number:017x}", "endpoint": EndpointKey("123456789012", "us-east-1", "ep"),
            "variant": "main", "zone": "a", "generation": 1, "instance_type": "ml.m5.large", "vcpu_milli": 2000,
            "memory_mb": 8192, "containers": (container,),
        }  # fmt: skip
        return InstanceSpec(**{**given, **fields})

    def close(self) -> None:
        for compute in self.computes:
            compute.close()
        ended = end_all(self.settings.with_flags(drain_ms=0))
        for engine in self.engines:
            for slot in ending.slots_of(self.data):
                engine.discard(slot)
            engine.close()
        assert ended.left == ()
        shutil.rmtree(self.data, ignore_errors=True)


def observed(compute: ProcessCompute, spec: InstanceSpec) -> ObservedInstance | None:
    return next((one for one in compute.inventory() if one.instance_id == spec.instance_id), None)


def ready(compute: ProcessCompute, spec: InstanceSpec) -> ObservedInstance:
    """Wait until the instance answers its ping."""
    return until(lambda: _pings(observed(compute, spec)), f"{spec.instance_id} ready")


def gone(compute: ProcessCompute, spec: InstanceSpec) -> ObservedInstance:
    """Wait until the instance's lock is free."""
    return until(lambda: (one := observed(compute, spec)) and not one.alive and one, f"{spec.instance_id} gone")


def warm(compute: ProcessCompute, count: int = 1) -> None:
    """Wait until so many slots wait, of the kinds that are wanted by now, and none is about to come or go."""

    def settled() -> bool:
        kinds = compute.warm_kinds()
        right = all(row["waiting"] == row["wanted"] and not row["starting"] for row in kinds)
        return right and compute.stats()["pool_waiting"] == count

    until(settled, f"{count} waiting slots")


def inside(instance: ObservedInstance, code: str) -> Any:
    """Run Python in the instance: the value of `result`, or the error as text."""
    return json.loads(ask(Path(instance.socket), "POST", "/invocations", code.encode(), DEADLINE_S).body)


def exists(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def living(data: Path) -> list[str]:
    """Ids of the slots whose lock is held."""
    return [slot.slot_id for slot in ending.slots_of(data) if slot.alive()]


def _pings(one: ObservedInstance | None) -> ObservedInstance | None:
    if one is None or not one.alive:
        return None
    try:
        return one if ask(Path(one.socket), "GET", "/ping").status == 200 else None
    except NoAnswer:
        return None


def as_root() -> bool:
    return os.getuid() == 0
