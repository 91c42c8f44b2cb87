"""Containers that answer what they should not, through a gateway worker: the client gets a modelled error or the truth,
and never a byte of a reply that was meant for nobody or for another.
"""

from __future__ import annotations

import asyncio

from gateway_world import Call, World, until, world
from hostile_replies import OK, not_replies, replies_with_more


class Script:
    """An instance that answers a request with the bytes of the moment, then goes on as it should or hangs up."""

    def __init__(self) -> None:
        self.data = b""
        self.hang_up = True

    async def __call__(self, call: Call) -> None:
        if call.body != b"hostile":
            await call.answer(b"for " + call.body)
            return
        call.writer.write(self.data)
        await call.writer.drain()
        if self.hang_up:
            call.writer.close()


async def deploy(w: World, script: Script) -> None:
    w.publish({"v": (1.0, [await w.instance("i-1", script)])})


def test_nothing_that_is_no_reply_reaches_a_client_as_one() -> None:
    async def main() -> None:
        script = Script()
        async with world() as w:
            await deploy(w, script)
            wrong = []
            for name, data in not_replies():
                script.data = data
                try:
                    async with asyncio.timeout(30):
                        reply = await w.invoke(b"hostile")
                except (asyncio.IncompleteReadError, ConnectionError):
                    pass  # cut in the middle, so that the client sees it
                except TimeoutError:
                    wrong.append(f"{name}: neither answered nor cut")
                else:
                    if reply.status not in (424, 503):
                        wrong.append(f"{name}: {reply.status} {reply.body[:40]!r}")
                asked = b"a%d" % len(wrong)
                after = await w.invoke(asked)
                if after.body != b"for " + asked:
                    wrong.append(f"{name}: the next one got {after}")
            assert wrong == []
            await until(lambda: not w.gateway.invoker.active)
            assert w.gateway.invoker.reserved_bytes == 0

    asyncio.run(main())


def test_a_reply_with_more_behind_it_does_not_reach_the_next_client() -> None:
    async def main() -> None:
        script = Script()
        script.hang_up = False
        async with world() as w:
            await deploy(w, script)
            for name, data in replies_with_more():
                script.data = data
                reply = await w.invoke(b"hostile")
                assert (reply.status, reply.body) == (200, b"ok"), name
                for n in range(3):
                    after = await w.invoke(b"%d" % n)
                    assert (after.status, after.body) == (200, b"for %d" % n), (name, after)

    asyncio.run(main())


def test_headers_of_a_container_cannot_break_out_of_their_line() -> None:
    async def main() -> None:
        script = Script()
        async with world() as w:
            await deploy(w, script)
            for value in (b"a\r\n x-evil: b", b"a\r\n\tx-evil: b", b"\xff\xfe", b"a" * 5_000):
                script.data = OK + b"content-type: " + value + b"\r\ncontent-length: 2\r\n\r\nok"
                reply = await w.invoke(b"hostile")
                assert "x-evil" not in reply.headers
                assert not any("x-evil" in v and "\n" in v for v in reply.headers.values())
                assert reply.status in (200, 424)

    asyncio.run(main())
