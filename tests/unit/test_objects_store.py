"""Bytes and index together: what a crash, a cancelled client, a slow reader or a failing commit leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from eyrie.objects import catalogue
from eyrie.objects.index import Change
from eyrie.objects.records import Bucket, Details, Part, StoredObject, Upload
from eyrie.objects.store import UPLOAD_AGE_MS, ObjectStore
from eyrie.wire.errors import ApiError


class MemoryBlobs:
    """The Blobs port in a dictionary; `gate` holds reads and puts back."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail_deletes = False

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        data = b"".join([chunk async for chunk in chunks])
        await self.gate.wait()
        self.held[name] = data
        return len(data)

    async def read(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        for at in range(start, end, 2):
            await self.gate.wait()
            yield self.held[name][at : min(end, at + 2)]

    async def delete(self, names: Sequence[str]) -> None:
        if self.fail_deletes:
            raise OSError("away")
        for name in names:
            self.held.pop(name, None)

    async def list(self) -> AsyncIterator[Sequence[str]]:
        yield list(self.held)

    async def tidy(self, prefix: str) -> int:
        return 0


class World:
    def __init__(self, path: Path) -> None:
        numbers = count(1)
        self.now_ms = 1_000_000
        self.blobs = MemoryBlobs()
        self.store = ObjectStore(
            path, self.blobs, token=lambda digits: f"{next(numbers):0{digits}x}", now_ms=lambda: self.now_ms
        )

    async def put(self, key: bytes, data: bytes, fail: BaseException | None = None) -> StoredObject:
        incoming = await self.store.receive(chunks(data))
        made = StoredObject("b", key, self.store.token(32), incoming.size, "e", self.now_ms)

        def write(change: Change) -> StoredObject:
            catalogue.put_object(change, made, [incoming.segment()])
            if fail is not None:
                raise fail
            return made

        return await self.store.commit(incoming, write)

    def get(self, key: bytes) -> StoredObject | None:
        return catalogue.stored_object(self.store.index.db, "b", key)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def broken(error: BaseException) -> AsyncIterator[bytes]:
    yield b"half"
    raise error


Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on a fresh world and closes it."""

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            world = World(tmp_path / "objects.db")
            try:
                await scenario(world)
            finally:
                world.blobs.gate.set()
                await world.store.close()

        asyncio.run(main())

    return run


Play = Callable[[Scenario], None]


def test_a_body_that_breaks_off_leaves_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(ConnectionError):
            await world.store.receive(broken(ConnectionError()))
        assert world.blobs.held == {}
        assert world.get(b"k") is None

    play(scenario)


def test_an_overwrite_keeps_the_old_until_the_commit_and_drops_it_after(play: Play) -> None:
    async def scenario(world: World) -> None:
        old = await world.put(b"k", b"old")
        with pytest.raises(ApiError):
            await world.put(b"k", b"refused", fail=ApiError("PreconditionFailed", "no", 412))
        assert world.get(b"k") == old
        await world.settle()
        assert list(world.blobs.held.values()) == [b"old"]
        new = await world.put(b"k", b"new")
        await world.settle()
        assert world.get(b"k") == new
        assert list(world.blobs.held.values()) == [b"new"]

    play(scenario)


def test_a_reader_of_an_overwritten_object_finishes_its_read(play: Play) -> None:
    async def scenario(world: World) -> None:
        old = await world.put(b"k", b"old bytes")
        reading = world.store.read(old.version, 0, old.size)
        pieces = aiter(reading)
        first = await anext(pieces)
        await world.put(b"k", b"new")
        await world.settle()
        assert len(world.blobs.held) == 2
        assert first + b"".join([piece async for piece in pieces]) == b"old bytes"
        await reading.aclose()
        await world.settle()
        assert list(world.blobs.held.values()) == [b"new"]

    play(scenario)


def test_a_reading_that_was_never_begun_lets_go_when_it_is_dropped(play: Play) -> None:
    async def scenario(world: World) -> None:
        old = await world.put(b"k", b"old")
        reading = world.store.read(old.version, 0, old.size)
        await world.put(b"k", b"new")
        await world.settle()
        assert len(world.blobs.held) == 2
        del reading
        await world.settle()
        assert list(world.blobs.held.values()) == [b"new"]

    play(scenario)


def test_a_range_is_read_over_segments(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = [await world.store.receive(chunks(data)) for data in (b"abcde", b"fghij")]

        def write(change: Change) -> None:
            from eyrie.objects.records import Segment

            made = StoredObject("b", b"k", "v", 8, "e-2", 1)
            placed = [Segment(0, 4, first.name, 1, 1), Segment(4, 4, second.name, 0, 2)]
            catalogue.put_object(change, made, placed)

        await world.store.index.write(write)
        for start, end in ((0, 8), (1, 7), (3, 5), (4, 8), (7, 8)):
            assert await world.store.read("v", start, end).whole() == b"bcdefghi"[start:end]

    play(scenario)


def test_shared_blobs_live_as_long_as_one_object_names_them(play: Play) -> None:
    async def scenario(world: World) -> None:
        source = await world.put(b"k", b"shared")

        def copy(change: Change) -> None:
            made = StoredObject("b", b"copy", "copy-version", source.size, "e", 1)
            catalogue.put_segments(change, made.version, catalogue.segments(change.db, source.version, 0, 6))
            catalogue.put_object(change, made, ())

        await world.store.index.write(copy)
        await world.store.index.write(lambda change: catalogue.delete_object(change, "b", b"k"))
        await world.settle()
        assert await world.store.read("copy-version", 0, 6).whole() == b"shared"
        await world.store.index.write(lambda change: catalogue.delete_object(change, "b", b"copy"))
        await world.settle()
        assert world.blobs.held == {}

    play(scenario)


def test_a_client_that_leaves_during_the_commit_changes_nothing_about_it(play: Play) -> None:
    async def scenario(world: World) -> None:
        incoming = await world.store.receive(chunks(b"data"))
        made = StoredObject("b", b"k", "v", 4, "e", 1)
        write: Callable[[Change], None] = lambda change: catalogue.put_object(change, made, [incoming.segment()])  # noqa: E731
        task = asyncio.create_task(world.store.commit(incoming, write))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await world.store.index.write(lambda change: None)
        await world.settle()
        assert world.get(b"k") == made
        assert await world.store.read("v", 0, 4).whole() == b"data"

    play(scenario)


def test_the_sweep_removes_orphans_and_spares_what_is_being_written_or_read(play: Play) -> None:
    async def scenario(world: World) -> None:
        kept = await world.put(b"k", b"kept")
        world.blobs.held[world.store.index.store_id + "f" * 24] = b"left by a process that was killed"
        world.blobs.held["f" * 32] = b"another Eyrie's"
        incoming = await world.store.receive(chunks(b"being written"))
        read = await world.put(b"r", b"being read")
        reading = world.store.read(read.version, 0, read.size)
        await world.store.index.write(lambda change: catalogue.delete_object(change, "b", b"r"))
        assert await world.store.sweep() == 1
        await world.settle()
        assert sorted(world.blobs.held.values()) == [b"another Eyrie's", b"being read", b"being written", b"kept"]
        incoming.discard()
        await reading.aclose()
        await world.settle()
        assert await world.store.read(kept.version, 0, 4).whole() == b"kept"
        assert sorted(world.blobs.held.values()) == [b"another Eyrie's", b"kept"]

    play(scenario)


def test_a_delete_that_failed_is_made_good_by_the_next_sweep(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.put(b"k", b"old")
        world.blobs.fail_deletes = True
        await world.put(b"k", b"new")
        await world.settle()
        assert len(world.blobs.held) == 2
        world.blobs.fail_deletes = False
        assert await world.store.sweep() == 1
        await world.settle()
        assert list(world.blobs.held.values()) == [b"new"]

    play(scenario)


def test_old_uploads_are_aborted(play: Play) -> None:
    async def scenario(world: World) -> None:
        incoming = await world.store.receive(chunks(b"part"))

        def begin(change: Change) -> None:
            catalogue.put_bucket(change, Bucket("b", "1", "r", 1))
            catalogue.put_upload(change, Upload("u", "b", b"k", world.now_ms, "1", Details()))
            catalogue.put_part(change, "u", Part(1, "pv", 4, "e", 1), [incoming.segment()])

        await world.store.commit(incoming, begin)
        await world.store.sweep()
        assert catalogue.upload(world.store.index.db, "u") is not None
        world.now_ms += UPLOAD_AGE_MS + 1
        await world.store.sweep()
        await world.settle()
        assert catalogue.upload(world.store.index.db, "u") is None
        assert world.blobs.held == {}

    play(scenario)


def test_one_failing_write_of_a_batch_fails_alone(play: Play) -> None:
    async def scenario(world: World) -> None:
        async def one(number: int) -> Any:
            fail = ApiError("PreconditionFailed", "no", 412) if number % 3 == 0 else None
            return await world.put(b"%03d" % number, b"x", fail=fail)

        results = await asyncio.gather(*[one(number) for number in range(60)], return_exceptions=True)
        for number, result in enumerate(results):
            assert isinstance(result, ApiError if number % 3 == 0 else StoredObject)
            assert (world.get(b"%03d" % number) is None) == (number % 3 == 0)
        await world.settle()
        assert len(world.blobs.held) == 40

    play(scenario)


def test_bodies_at_once_are_bounded(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyrie.objects.store.WRITES_MAX", 3)

    async def scenario(world: World) -> None:
        world.blobs.gate.clear()
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(world.put(b"%d" % n, b"x")) for n in range(3)]
        await world.settle()
        with pytest.raises(ApiError) as error:
            await world.put(b"one too many", b"x")
        assert (error.value.code, error.value.status) == ("SlowDown", 503)
        world.blobs.gate.set()
        await asyncio.gather(*waiting)
        await world.put(b"again", b"x")

    play(scenario)


def test_empty_bodies_need_no_blob(play: Play) -> None:
    async def scenario(world: World) -> None:
        made = await world.put(b"k", b"")
        assert world.blobs.held == {}
        assert await world.store.read(made.version, 0, 0).whole() == b""

    play(scenario)
