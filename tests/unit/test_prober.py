"""Pings over real Unix sockets, and what is counted of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from toyworld import KEY, ToyClock

from eyrie.control.prober import Probed, Prober, ping
from eyrie.decide.health import Effort, after_ejection, after_ping
from eyrie.domain.observation import Health
from eyrie.settings import Settings

QUICK = Settings(ping_period_ms=20, ping_timeout_ms=60)


@asynccontextmanager
async def instance(path: Path, answer: bytes | None) -> AsyncIterator[list[bytes]]:
    """A server that gives one answer to everything, or none; yields the requests it got."""
    got: list[bytes] = []
    tasks: list[asyncio.Task[None]] = []

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            got.append(await reader.read(1000))
            if answer is not None:
                writer.write(answer)
            await reader.read()
        writer.transport.abort()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.get_running_loop().create_task(answers(reader, writer)))

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield got
    finally:
        server.close()
        await asyncio.gather(*tasks)
        await server.wait_closed()
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


def test_a_ping_tells_what_happened(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "s"
        assert "FileNotFoundError" in (await ping(str(path), 0.1) or "")
        async with instance(path, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as got:
            assert await ping(str(path), 1.0) is None
            assert got[0].startswith(b"GET /ping HTTP/1.1\r\n")
        for answer, told in (
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
            (b"SSH-2.0\r\n", "not an HTTP answer"),
            (b"HTTP/1.1\r\n", "not an HTTP answer"),
            (b"x" * 200_000, "LimitOverrunError"),
            (None, "no answer in 50 ms"),
        ):
            async with instance(path, answer):
                assert told in (await ping(str(path), 0.05 if answer is None else 30.0) or "")

    asyncio.run(scenario())


def test_our_own_instance_that_starts_may_wait_for_a_200_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        prober = Prober(QUICK, ToyClock(), lambda key: None)
        for foreign, starting, waits in ((False, True, True), (False, False, False), (True, True, False)):
            async with instance(tmp_path / "s", b"HTTP/1.1 503 Loading\r\n\r\n") as got:
                prober.watch(KEY, {"i-1": Probed(KEY, str(tmp_path / "s"), foreign, starting)})
                await until(lambda got=got: len(got) > 0)  # type: ignore[misc]
                prober.watch(KEY, {})
            assert (b"x-eyrie-wait-ms: 30\r\n" in got[0]) is waits
            assert got[0].endswith(b"\r\n\r\n")
        await prober.close()

    asyncio.run(scenario())


def test_misses_are_counted_and_one_answer_clears_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        changes: list[object] = []
        prober = Prober(QUICK, ToyClock(), changes.append)
        path = str(tmp_path / "s")
        prober.watch(KEY, {"i-1": Probed(KEY, path, foreign=False, starting=False)})
        await until(lambda: prober.health().get("i-1", Health()).misses >= 2)
        assert changes
        async with instance(tmp_path / "s", b"HTTP/1.1 200 OK\r\n\r\n"):
            await until(lambda: prober.health()["i-1"].answers)
            assert prober.health()["i-1"].misses == 0
            prober.watch(KEY, {})
            assert prober.health() == {}
        await prober.close()

    asyncio.run(scenario())


def test_an_ejection_is_one_miss_and_a_ping_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        slow = Settings(ping_period_ms=60_000, ping_timeout_ms=60)
        prober = Prober(slow, ToyClock(), lambda key: None)
        prober.ejected("i-9", "nobody knows it")
        async with instance(tmp_path / "s", b"HTTP/1.1 200 OK\r\n\r\n") as got:
            prober.watch(KEY, {"i-1": Probed(KEY, str(tmp_path / "s"), foreign=False, starting=False)})
            await until(lambda: prober.health().get("i-1", Health()).answers)
            prober.ejected("i-1", "no byte in 1000 ms")
            assert prober.health()["i-1"].misses == 1
            await until(lambda: prober.health()["i-1"].misses == 0)  # it answers: that settles it
            assert len(got) == 2
        await prober.close()

    asyncio.run(scenario())


def test_one_that_was_told_to_start_is_pinged_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        slow = Settings(ping_period_ms=60_000, ping_timeout_ms=1_000)
        prober = Prober(slow, ToyClock(), lambda key: None)
        prober.hurry("i-9")  # nobody that is pinged
        async with instance(tmp_path / "s", b"HTTP/1.1 503 Waiting\r\n\r\n") as got:
            prober.watch(KEY, {"i-1": Probed(KEY, str(tmp_path / "s"), foreign=False, starting=False)})
            await until(lambda: len(got) == 1)
            prober.hurry("i-1")
            await until(lambda: len(got) == 2)
        await prober.close()

    asyncio.run(scenario())


def test_foreign_containers_have_their_own_patience(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = Settings(foreign_ping_period_ms=60_000, foreign_ping_timeout_ms=10, ping_period_ms=1)
        prober = Prober(settings, ToyClock(), lambda key: None)
        path = str(tmp_path / "none")
        prober.watch(KEY, {"i-1": Probed(KEY, path, True, False), "i-2": Probed(KEY, path, False, False)})
        await until(lambda: prober.health().get("i-2", Health()).misses > 5)
        assert prober.health()["i-1"].misses == 1
        await prober.close()

    asyncio.run(scenario())


def test_one_that_is_silent_and_works_misses_nothing_and_one_that_rests_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        used = {"i-busy": 0, "i-idle": 0, "i-stopped": None}

        def cpu_us(instance_id: str) -> int | None:
            if instance_id == "i-busy":
                used["i-busy"] = (used["i-busy"] or 0) + 1_000_000
            return used[instance_id]

        settings = Settings(ping_period_ms=20, ping_timeout_ms=60, busy_limit_ms=10**9)
        prober = Prober(settings, ToyClock(), lambda key: None, cpu_us)
        async with instance(tmp_path / "s", None):
            prober.watch(KEY, {name: Probed(KEY, str(tmp_path / "s"), False, False) for name in used})
            await until(lambda: all(prober.health().get(n, Health()).misses > 2 for n in ("i-idle", "i-stopped")))
            assert prober.health()["i-busy"].misses == 0
            assert prober.health()["i-busy"].detail == "no answer in 60 ms, but it works"
            prober.ejected("i-busy", "no byte in 1000 ms")
            assert prober.health()["i-busy"].misses == 0
        await until(lambda: prober.health()["i-busy"].misses > 1)  # nobody listens: no effort excuses that
        await prober.close()

    asyncio.run(scenario())


def test_an_unexpected_error_costs_its_own_turn_and_ends_no_probing(tmp_path: Path) -> None:
    async def scenario() -> None:
        told: list[object] = []

        def cpu_us(instance_id: str) -> int | None:
            told.append(instance_id)
            if len(told) < 3:
                raise RuntimeError("the host tells nonsense")
            return None

        def changed(key: object) -> None:
            told.append(key)
            if told.count(key) == 1:
                raise RuntimeError("whoever is told stumbles")

        prober = Prober(QUICK, ToyClock(), changed, cpu_us)
        async with instance(tmp_path / "s", None):
            prober.watch(KEY, {"i-1": Probed(KEY, str(tmp_path / "s"), foreign=False, starting=False)})
            await until(lambda: prober.health().get("i-1", Health()).misses >= 2)
        (tmp_path / "s").unlink(missing_ok=True)
        async with instance(tmp_path / "s", b"HTTP/1.1 200 OK\r\n\r\n"):
            await until(lambda: prober.health()["i-1"].answers)
        await prober.close()

    asyncio.run(scenario())


def test_busy_is_not_hung_until_the_limit() -> None:
    works, rests = Effort(10_000, 250_000), Effort(9_999, 250_000)
    assert (works.working, rests.working, Effort(5, 0).working) == (True, False, False)
    busy = after_ping(Health(answers=True), "no answer", 1_000, works, 500)
    assert busy == Health(0, False, 1_000, "no answer, but it works", 1_000)
    busy = after_ping(busy, "no answer", 1_499, works, 500)
    assert (busy.misses, busy.busy_since_ms) == (0, 1_000)
    late = after_ping(busy, "no answer", 1_500, works, 500)
    assert (late.misses, late.detail) == (1, "no answer, at work for 500 ms")
    assert after_ping(late, "no answer", 1_600, works, 500).misses == 2
    assert after_ping(busy, "no answer", 1_500, rests, 500) == Health(1, False, 1_500, "no answer")
    assert after_ping(busy, None, 1_500) == Health(0, True, 1_500)
    missed = after_ping(Health(), "no answer", 5)
    assert after_ping(missed, "no answer", 6, works).misses == 1, "what was missed stays missed"
    assert after_ejection(busy, "silent", 1_500) == busy


def test_counting_is_pure() -> None:
    once = after_ping(Health(), "no answer", 5)
    assert (once.misses, once.answers, once.at_ms, once.detail) == (1, False, 5, "no answer")
    assert after_ping(once, None, 6) == Health(0, True, 6)
    assert after_ejection(after_ejection(Health(answers=True), "x", 7), "y", 8).misses == 1
    assert after_ejection(Health(misses=3), "x", 7).misses == 3
