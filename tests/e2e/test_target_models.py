"""Archives of multi-model endpoints from a real S3 API: the newest version, unpacked once, within a bound of bytes; and
their files in an instance's folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from eyrie.adapters.model_rooms import SlotRooms
from eyrie.adapters.slots import Slot, SlotRecord
from eyrie.adapters.target_models import TargetCache
from eyrie.domain.names import Scope
from eyrie.ports import ArtifactError, ArtifactMissing, NoAnswer

from .objects_world import OTHER, ROOT, World, serving
from .test_objects_artifacts import Uploader, archive

HOME = Scope(ROOT, "us-east-1")
URL = "s3://models/many/"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("targets"), unix=True) as made:
        yield made


@pytest.fixture(scope="module")
def s3(world: World) -> Uploader:
    return Uploader(world)


def cache(world: World, data: Path, bytes_max: int = 1 << 30) -> TargetCache:
    return TargetCache(data, world.data / "run" / "objects.sock", world.data / "credentials.json", bytes_max)


def test_an_archive_is_fetched_once_and_again_when_it_was_overwritten(
    world: World, s3: Uploader, tmp_path: Path
) -> None:
    models = cache(world, tmp_path)
    s3.put("models", "many/a.tar.gz", archive(("model.json", b"first")))
    with models.hold(HOME, URL + "a.tar.gz") as held:
        assert (held.path / "model.json").read_bytes() == b"first"
        assert held.fetched_us > 0
        assert os.stat(held.path).st_mode & 0o005 == 0o005, "instances have users of their own"
    with models.hold(HOME, URL + "a.tar.gz") as held:
        assert held.fetched_us == 0
    s3.put("models", "many/a.tar.gz", archive(("model.json", b"second!")))
    with models.hold(HOME, URL + "a.tar.gz") as held:
        assert (held.path / "model.json").read_bytes() == b"second!"
        assert held.fetched_us > 0
    assert models.size == 7


def test_missing_foreign_and_broken_archives_are_told_apart(world: World, s3: Uploader, tmp_path: Path) -> None:
    models = cache(world, tmp_path)
    with pytest.raises(ArtifactMissing), models.hold(HOME, URL + "nope"):
        pass
    with pytest.raises(ArtifactMissing), models.hold(HOME, "s3://no-such-bucket/x"):
        pass
    s3.put("models", "many/b.tar.gz", archive(("f", b"x")))
    with pytest.raises(ArtifactError, match="does not belong"), models.hold(Scope(OTHER), URL + "b.tar.gz"):
        pass
    s3.put("models", "many/c.tar.gz", b"this is no archive")
    with pytest.raises(ArtifactError, match="not a readable"), models.hold(HOME, URL + "c.tar.gz"):
        pass
    assert list((tmp_path / "targets").iterdir()) == []


def test_the_least_recently_used_go_when_there_are_too_many_bytes(world: World, s3: Uploader, tmp_path: Path) -> None:
    models = cache(world, tmp_path, bytes_max=2_500)
    for name in ("d", "e", "f"):
        s3.put("models", f"many/{name}.tar.gz", archive(("f", name.encode() * 1_000)))
    for name in ("d", "e", "d", "f"):
        with models.hold(HOME, f"{URL}{name}.tar.gz"):
            pass
    assert models.size == 2_000
    with models.hold(HOME, URL + "d.tar.gz") as held:
        assert held.fetched_us == 0
    with models.hold(HOME, URL + "e.tar.gz") as held:
        assert held.fetched_us > 0
    s3.put("models", "many/g.tar.gz", archive(("f", b"g" * 3_000)))
    with pytest.raises(ArtifactError, match="unpacks to more than 2500 bytes"), models.hold(HOME, URL + "g.tar.gz"):
        pass


def test_an_archive_that_is_held_stays(world: World, s3: Uploader, tmp_path: Path) -> None:
    models = cache(world, tmp_path, bytes_max=1_500)
    for name in ("h", "i"):
        s3.put("models", f"many/{name}.tar.gz", archive(("f", name.encode() * 1_000)))

    def another() -> None:
        with models.hold(HOME, URL + "i.tar.gz"):
            pass

    with models.hold(HOME, URL + "h.tar.gz") as held:
        thread = threading.Thread(target=another)
        thread.start()
        thread.join(10)
        assert (held.path / "f").read_bytes() == b"h" * 1_000


def test_a_new_start_finds_nothing_of_before(world: World, s3: Uploader, tmp_path: Path) -> None:
    s3.put("models", "many/j.tar.gz", archive(("f", b"x")))
    with cache(world, tmp_path).hold(HOME, URL + "j.tar.gz"):
        pass
    assert cache(world, tmp_path).size == 0
    assert list((tmp_path / "targets").iterdir()) == []


def test_models_are_placed_in_an_instance_and_taken_away(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "slots" / "one")
    (slot.path / "box").mkdir(parents=True)
    record = SlotRecord("f", "process", None, (), 1)
    (slot.path / "slot.json").write_bytes(msgspec.json.encode(record))
    source = tmp_path / "unpacked"
    source.mkdir()
    (source / "model.json").write_text("1")
    rooms, socket, key = SlotRooms(), str(slot.socket), "0" * 32
    assert rooms.placed(socket) == set()
    rooms.place(socket, key, source)
    (source / "model.json").write_text("2")
    rooms.place(socket, key, source)
    placed = slot.path / "ml" / "models" / key / "model" / "model.json"
    assert placed.read_text() == "2"
    assert rooms.placed(socket) == {key}
    rooms.remove(socket, key)
    rooms.remove(socket, key)
    assert rooms.placed(socket) == set()
    assert sorted(p.name for p in slot.path.iterdir()) == ["box", "ml", "slot.json"]
    for name in ("s", "s.1", "s.12", "log", "s.x"):
        (slot.path / "box" / name).touch()
    assert rooms.workers(socket) == [0, 1, 12]
    with pytest.raises(NoAnswer, match="is not a socket"):
        rooms.ask(socket, 1, "GET", "/models")
