"""The line to control: hello, acknowledgements, idle, ejections, rollups; and a worker that goes on without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_world import World, until, world

from eyrie.http1.unix import listen_unix

SLUG = "123456789012.us-east-1.e"


class Control:
    """The other end of the feed."""

    def __init__(self, w: World) -> None:
        self.path = str(w.data / "run" / "feed.sock")
        self.lines: list[dict[str, Any]] = []
        self.writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._talk, sock=listen_unix(self.path))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while line := await reader.readline():
            self.lines.append(json.loads(line))
        writer.close()

    async def hint(self, *slugs: str) -> None:
        assert self.writer is not None
        self.writer.write(json.dumps({"routes": slugs}).encode() + b"\n")
        await self.writer.drain()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None
        await asyncio.sleep(0)

    def said(self, key: str) -> list[Any]:
        return [line[key] for line in self.lines if key in line]


def run(test: Callable[[World, Control], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world() as made:
            control = Control(made)
            feeding = asyncio.ensure_future(made.gateway.feed.run())
            try:
                await test(made, control)
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
                await control.stop()

    asyncio.run(main())


def test_tables_are_read_at_the_connection_and_at_hints_and_acknowledged() -> None:
    async def test(w: World, control: Control) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])}, read=False)
        await control.start()
        await until(lambda: {SLUG: 1} in control.said("ack"))
        assert control.lines[0] == {"hello": "gateway-0", "pid": control.lines[0]["pid"]}
        w.publish({"v": (1.0, [one])}, read=False)
        await control.hint(SLUG)
        await until(lambda: {SLUG: 2} in control.said("ack"))
        w.publish({"v": (1.0, [])}, read=False)
        await control.hint(SLUG)
        await until(lambda: ["i-1"] in control.said("idle"))
        (w.data / "routes" / f"{SLUG}.json").unlink()
        await control.hint(SLUG)
        await until(lambda: [SLUG] in control.said("gone"))
        assert (await w.invoke()).status == 400

    run(test)


def test_a_worker_alone_looks_at_the_folder_and_serves_on() -> None:
    async def test(w: World, control: Control) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"v": (1.0, [one])}, read=False)
        await until(lambda: len(w.gateway.book.endpoints) == 1)
        assert (await w.invoke()).body == b"i-1"
        w.publish({"v": (1.0, [two])}, read=False)
        await until(lambda: next(iter(w.gateway.book.endpoints.values())).generation == 2)
        assert (await w.invoke()).body == b"i-2"
        await control.start()  # what became idle while control was away is told when it is back
        await until(lambda: ["i-1"] in control.said("idle"))

    run(test)


def test_ejections_and_rollups_are_told() -> None:
    async def test(w: World, control: Control) -> None:
        await control.start()
        one, two = await w.instance("i-1"), await w.instance("i-2")
        w.publish({"v": (1.0, [one, two])})
        await until(lambda: w.gateway.feed.connected)
        for _ in range(6):
            await w.invoke()
        await one.kill()
        asked = 6
        while not w.counter("ejections"):  # the draw between two idle instances decides when the dead one is asked
            assert (await w.invoke()).status == 200
            asked += 1
        await until(lambda: bool(control.said("eject")))
        eject = control.said("eject")[0]
        assert (eject["instance"], eject["endpoint"]) == ("i-1", SLUG)
        assert eject["why"]
        await until(lambda: sum(_requests(m) for m in control.said("meter")) == asked)

    run(test)


def _requests(meter: dict[str, Any]) -> int:
    return sum(i["n"] for e in meter["endpoints"].values() for v in e.values() for i in v.values())


def test_control_may_come_and_go() -> None:
    async def test(w: World, control: Control) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])}, read=False)
        for _ in range(3):
            await control.start()
            await until(lambda: w.gateway.feed.connected and bool(control.said("hello")))
            await control.stop()
            control.lines.clear()
            await until(lambda: not w.gateway.feed.connected)
            assert (await w.invoke()).status == 200

    run(test)


def test_nonsense_on_the_line_and_in_the_folder_is_survived() -> None:
    async def test(w: World, control: Control) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])}, read=False)
        (w.data / "routes" / "not-a-slug.json").write_text("{}")
        (w.data / "routes" / "123456789012.us-east-1.broken.json").write_text('{"generation": "x"')
        await control.start()
        await until(lambda: bool(control.said("ack")))
        await control.hint("not-a-slug", "123456789012.us-east-1.broken", "../../etc/passwd")
        assert control.writer is not None
        control.writer.write(b"[]\n{}\nnot json\n")
        await until(lambda: len(control.said("hello")) == 2)  # it hung up and came back
        assert (await w.invoke()).status == 200

    run(test)
