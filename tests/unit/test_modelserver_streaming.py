"""Answers in pieces from user code: as they come, as fast as the client reads, until it leaves or something breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosting_world
import pytest
from hosting_world import Recorder, ask, give, hosting, until, write

from eyrie.modelserver.streaming import AHEAD_BYTES, PIECE_BYTES_MAX

SCRIPT = """
    import asyncio
    from stream_lab import SEEN, GATE
    def model_fn(model_dir):
        return None
    def endless():
        try:
            while True:
                SEEN.append("piece")
                yield b"x" * 10_000
        finally:
            SEEN.append("closed")
    async def slowly():
        try:
            for word in ("a", "b", "c"):
                await asyncio.sleep(0)
                yield word
        finally:
            SEEN.append("closed")
    def transform_fn(model, body, content_type, accept, context):
        if body == b"endless":
            return endless()
        if body == b"async":
            return slowly(), "text/x-words"
        if body == b"large":
            return iter([b"y" * 200_000])
        if body == b"nothing":
            return iter(())
        if body == b"early":
            return (1 / 0 for _ in range(3))
        if body == b"late":
            return (b"ok" if n else n / 0 for n in (1, 1, 0))
        if body == b"object":
            return iter([b"a", {"b": 1}])
        context.set_response_header(0, "x-amzn-sagemaker-custom-attributes", "mine")
        def gated():
            yield "first"
            assert GATE.wait(20)
            yield b"second"
        return gated()
"""


@pytest.fixture(autouse=True)
def lab(monkeypatch: Any) -> Iterator[Any]:
    import sys
    import types

    module: Any = types.ModuleType("stream_lab")
    module.SEEN, module.GATE = [], threading.Event()
    monkeypatch.setitem(sys.modules, "stream_lab", module)
    with hosting_world.unchanged():
        yield module


def one(ml: Path) -> list[dict[str, Any]]:
    (ml / "model" / "code").mkdir(parents=True)
    from textwrap import dedent

    (ml / "model" / "code" / "inference.py").write_text(dedent(SCRIPT))
    return [{}]


def test_pieces_leave_as_they_come(tmp_path: Path, lab: Any) -> None:
    async def run() -> None:
        async with hosting(tmp_path, one(tmp_path)) as server:
            client = give(server, Recorder("/invocations", b"gated", content_type="x/y", accept="text/plain"))
            await until(lambda: client.pieces)
            assert (client.status, client.pieces, client.finished) == (200, [b"first"], False)
            assert b"content-type: text/plain\r\nx-amzn-sagemaker-custom-attributes: mine" in client.lines
            lab.GATE.set()
            await until(lambda: client.finished)
            assert client.pieces == [b"first", b"second"]

    asyncio.run(run())


def test_an_asynchronous_generator_a_large_piece_and_none(tmp_path: Path, lab: Any) -> None:
    async def run() -> None:
        async with hosting(tmp_path, one(tmp_path)) as server:
            words = await ask(server, "/invocations", b"async", content_type="x/y")
            await until(lambda: words.finished)
            assert (words.pieces, lab.SEEN) == ([b"a", b"b", b"c"], ["closed"])
            assert b"content-type: text/x-words" in words.lines
            large = await ask(server, "/invocations", b"large", content_type="x/y")
            await until(lambda: large.finished)
            assert b"".join(large.pieces) == b"y" * 200_000
            assert max(map(len, large.pieces)) == PIECE_BYTES_MAX
            nothing = await ask(server, "/invocations", b"nothing", content_type="x/y")
            assert (nothing.status, nothing.body, nothing.pieces) == (200, b"", [])

    asyncio.run(run())


def test_an_error_is_a_reply_before_the_first_piece_and_a_cut_after_it(tmp_path: Path, lab: Any, caplog: Any) -> None:
    async def run() -> None:
        async with hosting(tmp_path, one(tmp_path)) as server:
            early = await ask(server, "/invocations", b"early", content_type="x/y")
            assert (early.status, early.body) == (500, b"ZeroDivisionError: division by zero")
            late = await ask(server, "/invocations", b"late", content_type="x/y")
            await until(lambda: late.aborted)
            assert (late.status, late.pieces, late.finished) == (200, [b"ok", b"ok"], False)
            strange = await ask(server, "/invocations", b"object", content_type="x/y")
            await until(lambda: strange.aborted)
            assert strange.pieces == [b"a"]
            after = await ask(server, "/invocations", b"large", content_type="x/y")
            await until(lambda: after.finished)  # the worker thread lives

    asyncio.run(run())
    assert "an answer broke off\nTraceback" in caplog.text
    assert "yielded dict; its pieces must be bytes or str" in caplog.text


def test_a_slow_client_stops_the_generator_and_one_that_leaves_ends_it(tmp_path: Path, lab: Any) -> None:
    async def run() -> None:
        async with hosting(tmp_path, one(tmp_path)) as server:
            client = Recorder("/invocations", b"endless", content_type="x/y")
            client.writing_paused = True  # it reads nothing at all
            give(server, client)
            held = AHEAD_BYTES // 10_000 + 1
            await until(lambda: len(client.pieces) == held)
            for _ in range(20):  # turns of the loop in which a generator that is not held would go on
                await asyncio.sleep(0.001)
            assert ["piece"] * held == lab.SEEN
            client.writing_paused = False
            client.listener.resumed(client)
            await until(lambda: len(client.pieces) > 3 * held)
            client.alive = False
            client.listener.gone(client)
            await until(lambda: lab.SEEN[-1] == "closed")
            after = await ask(server, "/invocations", b"large", content_type="x/y")
            await until(lambda: after.finished)

    asyncio.run(run())


def test_a_pipeline_streams_its_last_answer_and_gathers_the_others(tmp_path: Path, lab: Any) -> None:
    words = """
        def model_fn(model_dir):
            return None
        def transform_fn(model, body, content_type, accept):
            return (body + mark for mark in (b"1", b"2")), "x/y"
    """
    write(tmp_path, "containers/0", inference=words)
    write(tmp_path, "containers/1", inference=words)
    given = [{"hostname": f"c-{n}", "folder": f"containers/{n}"} for n in range(2)]

    async def run() -> None:
        async with hosting(tmp_path, given) as server:
            client = await ask(server, "/invocations", b"a", content_type="x/y")
            await until(lambda: client.finished)
            assert client.pieces == [b"a1a21", b"a1a22"]

    asyncio.run(run())
