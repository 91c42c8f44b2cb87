"""One suite over every adapter of the Blobs port: a local directory, and s3:// (served by our own S3 API)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import boto3
import pytest

from eyrie.adapters.blobs import BlobsFailed, BlobsUnusable, ObstoreBlobs, open_blobs
from eyrie.objects.app import objects_server
from eyrie.ports import Blobs
from eyrie.settings import Settings

MB = 1 << 20
NAMES = [hashlib.md5(str(n).encode()).hexdigest() for n in range(1200)]


@contextlib.contextmanager
def s3_server(data: Path) -> Iterator[int]:
    """Our own S3 API without authentication, in a thread; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with objects_server(Settings(data=data, auth=False), listener):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert ready.wait(30)
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
        listener.close()


@pytest.fixture(params=["file", "s3", "s3 with a prefix"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    if request.param == "file":
        yield open_blobs(f"file://{tmp_path}/blobs%20here")
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "123456789012")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unchecked")
    with s3_server(tmp_path) as port:
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="below")
        client.close()
        path = "/some/where" if request.param.endswith("prefix") else ""
        yield open_blobs(f"s3://below{path}?endpoint=http://127.0.0.1:{port}&region=us-east-1")


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for one in data:
        yield one


async def breaking(data: bytes, error: BaseException) -> AsyncIterator[bytes]:
    yield data
    raise error


async def read(blobs: Blobs, name: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in blobs.read(name, start, end)])


async def names(blobs: Blobs) -> list[str]:
    return sorted([name async for page in blobs.list() for name in page])


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, MB, MB + 1, 20 * MB + 7])
def test_what_was_put_is_read(blobs: Blobs, size: int) -> None:
    data = bytes(range(253)) * (size // 253 + 1)
    data = data[:size]

    async def scenario() -> None:
        pieces = [data[at : at + 65_537] for at in range(0, size, 65_537)]
        assert await blobs.put(NAMES[0], chunks(*pieces)) == size
        assert await read(blobs, NAMES[0], 0, size) == data
        for start, end in ((0, 1), (size - 1, size), (size // 3, size // 2), (0, 0)):
            assert await read(blobs, NAMES[0], start, end) == data[start:end]

    run(scenario)


@pytest.mark.parametrize("size", [10, 12 * MB])
@pytest.mark.parametrize("error", [ConnectionError("the client left"), ValueError("a wrong digest")])
def test_a_broken_stream_stores_nothing(blobs: Blobs, size: int, error: Exception) -> None:
    async def scenario() -> None:
        with pytest.raises(type(error), match=str(error)):
            await blobs.put(NAMES[0], breaking(b"x" * size, error))
        assert await names(blobs) == []

    run(scenario)


def test_a_cancelled_put_stores_nothing(blobs: Blobs) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b"x" * MB

    async def scenario() -> None:
        task = asyncio.create_task(blobs.put(NAMES[0], endless()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await names(blobs) == []

    run(scenario)


def test_deleting_and_listing(blobs: Blobs) -> None:
    async def scenario() -> None:
        for name in NAMES[:30]:
            await blobs.put(name, chunks(b"x"))
        assert await names(blobs) == sorted(NAMES[:30])
        await blobs.delete([*NAMES[:10], NAMES[900]])
        assert await names(blobs) == sorted(NAMES[10:30])

    run(scenario)


def test_reading_what_is_not_there_or_too_short_fails(blobs: Blobs) -> None:
    async def scenario() -> None:
        with pytest.raises(BlobsFailed):
            await read(blobs, NAMES[1], 0, 1)
        await blobs.put(NAMES[0], chunks(b"short"))
        with pytest.raises(BlobsFailed):
            await read(blobs, NAMES[0], 0, 6)

    run(scenario)


def test_names_are_opaque_hex_only(blobs: Blobs) -> None:
    async def scenario() -> None:
        for name in ("../" + NAMES[0][3:], "a/b", NAMES[0].upper(), ""):
            with pytest.raises(ValueError, match="not a blob name"):
                await blobs.put(name, chunks(b"x"))

    run(scenario)


def test_local_listing_of_many_and_what_a_killed_put_left(tmp_path: Path) -> None:
    blobs: ObstoreBlobs = open_blobs(f"file://{tmp_path}")

    async def scenario() -> None:
        for name in NAMES:
            (tmp_path / name[-2:] / name).write_bytes(b"x")
        ours, theirs = [tmp_path / "ab" / (digit * 30 + "ab#1") for digit in "01"]
        for staged in (ours, theirs):
            staged.write_bytes(b"half")
        assert await names(blobs) == sorted(NAMES)
        assert await blobs.tidy("0000") == 1
        assert (ours.exists(), theirs.exists()) == (False, True)
        assert await names(blobs) == sorted(NAMES)

    run(scenario)


def test_a_local_put_is_synced_before_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    blobs = open_blobs(f"file://{tmp_path}")
    monkeypatch.setattr("os.fsync", fsync)
    for body in (b"small", b"x" * (3 * MB)):
        synced.clear()
        run(lambda body=body: _put(blobs, body))  # type: ignore[misc]
        folder = tmp_path / NAMES[0][-2:]
        assert synced == [str(folder / NAMES[0]), str(folder)]


async def _put(blobs: Blobs, body: bytes) -> None:
    await blobs.put(NAMES[0], chunks(body))


@pytest.mark.parametrize("url", ["ftp://x", "s3://", "nonsense", "file:///proc/version/blobs"])
def test_unusable_urls_are_named(url: str) -> None:
    with pytest.raises(BlobsUnusable, match="EYRIE_BLOBS"):
        open_blobs(url)
