"""Loading a multi-model endpoint's models: control's service over instances and archives that a test makes up."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toyworld import MemoryStore, SeededIdentity, ToyClock, wish

from eyrie.control.endpoints import Endpoints
from eyrie.control.model_loads import InstanceGone, LoadRefused, ModelLoads, Wanted
from eyrie.decide import endpoint as decide
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import ContainerSpec, Instance, InstanceState
from eyrie.domain.names import EndpointKey, Scope
from eyrie.domain.plan import Decision
from eyrie.domain.routing import ContainerMode
from eyrie.domain.target_models import key_of, refusal, url_of
from eyrie.ports import ArtifactError, ArtifactMissing, NoAnswer, TargetArchive

KEY = EndpointKey("123456789012", "us-east-1", "many")
SOCKET = "/data/slots/one/box/s"
Answer = tuple[int, bytes]


class Archives:
    """TargetModels: every URL has a version; what was asked for is told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.missing: set[str] = set()
        self.broken: set[str] = set()
        self.version = 1

    @contextlib.contextmanager
    def hold(self, scope: Scope, url: str) -> Iterator[TargetArchive]:
        assert scope == KEY.scope
        self.asked.append(url)
        if url in self.missing:
            raise ArtifactMissing("no such archive")
        if url in self.broken:
            raise ArtifactError(f"The model data at {url} is not a readable tar.gz archive")
        yield TargetArchive(Path(f"/cache/v{self.version}/{url.rpartition('/')[2]}"), 1_500)


class Container:
    """One worker of an instance: the /models contract with room for `room` models."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.models: dict[str, None] = {}
        self.refuses: Answer | None = None

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        key = target.removeprefix("/models").removeprefix("/")
        if method == "POST":
            told = json.loads(body)
            key = told["model_name"]
            assert told["url"] == f"/opt/ml/models/{key}/model"
            if self.refuses is not None:
                return self.refuses
            if key in self.models:
                return 409, b""
            if len(self.models) >= self.room:
                return 507, b"no room"
            self.models[key] = None
            return 200, b""
        if method == "DELETE":
            return (200, b"") if self.models.pop(key, 1) is None else (404, b"")
        if key:
            return (200 if key in self.models else 404), b"{}"
        return 200, json.dumps({"models": [{"modelName": k, "modelUrl": "u"} for k in sorted(self.models)]}).encode()


class Rooms:
    """ModelRooms over containers by worker."""

    def __init__(self, workers: int = 1, room: int = 100) -> None:
        self.containers = [Container(room) for _ in range(workers)]
        self.files: dict[str, Path] = {}
        self.silent = False
        self.before: Callable[[str, str], None] = lambda method, target: None

    def placed(self, socket: str) -> set[str]:
        return set(self.files)

    def place(self, socket: str, key: str, source: Path) -> None:
        assert socket == SOCKET
        self.files[key] = source

    def remove(self, socket: str, key: str) -> None:
        self.files.pop(key, None)

    def workers(self, socket: str) -> list[int]:
        return list(range(len(self.containers)))

    def ask(
        self, socket: str, worker: int, method: str, target: str, body: bytes = b"", timeout_s: float = 5.0
    ) -> Answer:
        self.before(method, target)
        if self.silent:
            raise NoAnswer("nobody listens")
        return self.containers[worker].answer(method, target, body)


class World:
    def __init__(self, workers: int = 1, room: int = 100, mode: ContainerMode = ContainerMode.MULTI_MODEL) -> None:
        store, clock = MemoryStore(), ToyClock()
        self.endpoints = Endpoints(store, clock, SeededIdentity(1), lambda key: None)
        made = with_container(decide.create(KEY, "e-1", wish(("v", 1)), 1, None, None, None).endpoint, mode)
        self.endpoints.store(KEY, None, Decision(made), 1)
        self.archives = Archives()
        self.rooms = Rooms(workers, room)
        self.seconds = 0.0
        self.loads = ModelLoads(self.endpoints, self.archives, self.rooms, self.tick)

    def tick(self) -> float:
        self.seconds += 0.001
        return self.seconds

    def load(self, model: str, worker: int = 0, instance: str = "i-1") -> Any:
        return self.loads.load(Wanted(KEY, instance, worker, model))


def with_container(endpoint: Endpoint | None, mode: ContainerMode) -> Endpoint:
    assert endpoint is not None
    container = ContainerSpec("primary", "eyrie/xgboost", None, "s3://bucket/models", {}, mode)
    (variant,) = endpoint.fleet.variants
    spec = replace(variant.spec, model=replace(variant.spec.model, containers=(container,)))
    fleet = replace(endpoint.fleet, variants=(replace(variant, spec=spec),))
    ready = Instance("i-1", "v", fleet.generation, 1, "a", InstanceState.READY, "", 1, 1, socket=SOCKET)
    return replace(endpoint, fleet=fleet, instances=(ready,))


def test_a_model_is_fetched_below_the_prefix_placed_and_loaded() -> None:
    world = World()
    loaded = world.load("eu/north.tar.gz")
    key = key_of("eu/north.tar.gz")
    assert world.archives.asked == ["s3://bucket/models/eu/north.tar.gz"]
    assert world.rooms.files == {key: Path("/cache/v1/north.tar.gz")}
    assert list(world.rooms.containers[0].models) == [key]
    assert (loaded.key, loaded.already, loaded.download_us, loaded.models) == (key, False, 1_500, 1)
    assert loaded.load_us > 0


def test_a_loaded_model_stays_as_it_is_until_it_is_unloaded() -> None:
    world = World()
    world.load("m")
    world.archives.version = 2
    assert world.load("m").already
    assert world.archives.asked == ["s3://bucket/models/m"]
    assert world.rooms.files[key_of("m")] == Path("/cache/v1/m")
    world.loads.unload(Wanted(KEY, "i-1", 0, "m"))
    assert world.rooms.files == {}
    assert not world.load("m").already
    assert world.rooms.files[key_of("m")] == Path("/cache/v2/m")


def test_workers_of_one_instance_share_a_models_files_and_its_version() -> None:
    world = World(workers=2)
    world.load("m", worker=0)
    world.archives.version = 2
    assert world.load("m", worker=1).download_us == 0
    assert world.rooms.files[key_of("m")] == Path("/cache/v1/m")
    world.loads.unload(Wanted(KEY, "i-1", 0, "m"))
    assert world.rooms.files, "the other worker holds it still"
    assert world.loads.count(SOCKET) == 1


def test_a_container_without_room_unloads_what_it_loaded_first() -> None:
    world = World(room=3)
    for name in ("a", "b", "c"):
        world.load(name)
    loaded = world.load("d")
    assert set(world.rooms.containers[0].models) == {key_of(n) for n in ("b", "c", "d")}
    assert len(loaded.unload_us) == 1
    assert world.load("e").unload_us
    assert key_of("b") not in world.rooms.containers[0].models
    assert world.loads.count(SOCKET) == 3


@pytest.mark.parametrize(
    ("said", "room"),
    [(b'{"room": true}', True), (b'{"room": false}', False), (b"", None), (b"[1]", None), (b'{"room": 1}', None)],
)
def test_whether_a_worker_has_room_left_is_told_where_it_says_so(said: bytes, room: bool | None) -> None:
    w = World()
    w.rooms.containers[0].refuses = (200, said)
    assert w.load("m").room is room


def test_a_model_without_room_at_all_is_refused_in_the_containers_words() -> None:
    world = World(room=0)
    with pytest.raises(LoadRefused) as refused:
        world.load("m")
    assert (refused.value.code, refused.value.status, refused.value.message) == ("ModelError", 507, "no room")
    assert world.rooms.files == {}


def test_a_model_that_does_not_load_is_refused_and_leaves_no_files() -> None:
    world = World()
    world.rooms.containers[0].refuses = (500, b"KeyError: 'weights'")
    with pytest.raises(LoadRefused) as refused:
        world.load("m")
    assert (refused.value.code, refused.value.status) == ("ModelError", 500)
    assert refused.value.message == "KeyError: 'weights'"
    assert world.rooms.files == {}


def test_a_missing_archive_is_said_in_the_words_of_the_service() -> None:
    world = World()
    world.archives.missing.add("s3://bucket/models/nope.tar.gz")
    with pytest.raises(LoadRefused) as refused:
        world.load("nope.tar.gz")
    assert refused.value.code == "ValidationError"
    assert refused.value.message.startswith(
        "Failed to download model data(bucket: bucket, key: models/nope.tar.gz). Please ensure that there is an object"
    )
    world.archives.broken.add("s3://bucket/models/bad.tar.gz")
    with pytest.raises(LoadRefused, match=r"not a readable tar\.gz archive"):
        world.load("bad.tar.gz")


FORGED = ["", "/etc/passwd", "../up.tar.gz", "a/../../b", "a//b", "a/./b", "a/", "x" * 1025, "a\nb", "ü" * 600]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_name_reaches_neither_the_archives_nor_the_instance(name: str) -> None:
    world = World()
    with pytest.raises(LoadRefused, match="is not valid") as refused:
        world.load(name)
    assert refused.value.code == "ValidationError"
    assert world.archives.asked == []
    assert refusal(name) is not None


@pytest.mark.parametrize("name", ["m", "a/b/c.tar.gz", "..a", "a b", "größe.tar.gz", "x" * 1024])
def test_what_may_be_a_target_model(name: str) -> None:
    assert refusal(name) is None
    assert url_of("s3://b/p/", name) == url_of("s3://b/p", name) == f"s3://b/p/{name}"


def test_an_instance_that_is_not_there_or_silent_is_told_apart_from_a_refusal() -> None:
    world = World()
    with pytest.raises(InstanceGone):
        world.load("m", instance="i-2")
    world.rooms.silent = True
    with pytest.raises(InstanceGone):
        world.load("m")


def test_a_single_model_endpoint_has_no_use_for_a_target_model() -> None:
    world = World(mode=ContainerMode.SINGLE_MODEL)
    with pytest.raises(LoadRefused, match="Endpoint many is not a multi-model endpoint"):
        world.load("m")


def test_files_of_models_that_the_container_unloaded_by_itself_are_removed() -> None:
    world = World()
    for name in ("a", "b", "c"):
        world.load(name)
    world.rooms.containers[0].models.pop(key_of("a"))
    world.loads.survey()
    assert set(world.rooms.files) == {key_of("b"), key_of("c")}
    assert world.loads.count(SOCKET) == 2
    world.rooms.silent = True
    world.rooms.containers[0].models.clear()
    world.loads.survey()
    assert set(world.rooms.files) == {key_of("b"), key_of("c")}, "unknown is not unloaded"


def test_tidying_spares_a_model_that_is_just_being_loaded() -> None:
    """The list is asked for before the load is done: the model is not in it, and its files must stay."""
    world = World()
    world.load("a")
    asked = threading.Event()

    def meanwhile(method: str, target: str) -> None:
        if (method, target) == ("GET", "/models") and not asked.is_set():
            asked.set()
            world.load("b")
            world.rooms.containers[0].models.pop(key_of("b"))  # as if the list had been made before

    world.rooms.before = meanwhile
    world.loads.tidy(SOCKET)
    assert asked.is_set()
    assert key_of("b") in world.rooms.files
    world.rooms.before = lambda method, target: None
    world.loads.tidy(SOCKET)
    assert key_of("b") not in world.rooms.files


def test_two_workers_that_load_one_model_at_once_do_so_one_after_the_other() -> None:
    world = World(workers=2)
    inside = threading.Semaphore(1)
    overlaps: list[str] = []

    def meanwhile(method: str, target: str) -> None:
        if method == "POST":
            if not inside.acquire(blocking=False):
                overlaps.append(target)
                return
            threading.Event().wait(0.02)
            inside.release()

    world.rooms.before = meanwhile
    threads = [threading.Thread(target=world.load, args=("m", worker)) for worker in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert overlaps == []
    assert world.archives.asked == ["s3://bucket/models/m"]
    assert all(key_of("m") in c.models for c in world.rooms.containers)
