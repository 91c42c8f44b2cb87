"""InvokeEndpoint through a worker on real sockets: what reaches the instance, what comes back, who is chosen."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import botocore.session
import pytest
from gateway_world import ACCOUNT, Call, World, answering, hanging, leave, read_reply, until, world

from eyrie.domain.routing import RoutingStrategy
from eyrie.gateway.headers import BOUNDS, TARGET_CONTAINER
from eyrie.http1.limits import Limits

SM = "X-Amzn-SageMaker-"


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            await test(made)

    asyncio.run(main())


def test_a_signed_request_reaches_the_model_and_its_reply_comes_back() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await call.answer(b"0.5", lines=f"content-type: text/csv\r\n{SM}Custom-Attributes: out\r\nx-secret: no\r\n")

        one = await w.instance("i-1", behave)
        w.publish({"AllTraffic": (1.0, [one])})
        got = await w.invoke(b"1,2,3", **{"Accept": "text/csv", f"{SM}Custom-Attributes": "in", "X-Other": "no"})
        assert (got.status, got.body) == (200, b"0.5")
        assert got.headers["content-type"] == "text/csv"
        assert got.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
        assert got.headers["x-amzn-sagemaker-custom-attributes"] == "out"
        assert len(got.headers["x-amzn-requestid"]) == 36
        assert w.gateway.invoker.reserved_bytes == 0
        assert "x-secret" not in got.headers
        call = one.calls[0]
        assert (call.method, call.path, call.body) == ("POST", "/invocations", b"1,2,3")
        assert call.headers == {
            "host": "primary",
            "content-type": "text/csv",
            "accept": "text/csv",
            "x-amzn-sagemaker-custom-attributes": "in",
            "content-length": "5",
        }

    run(test)


def test_a_request_is_counted_by_the_table_that_sent_it_whenever_it_is_answered() -> None:
    async def test(w: World) -> None:
        release = asyncio.Event()

        async def behave(call: Call) -> None:
            await release.wait()
            await call.answer()

        w.gateway.feed.tell_meter = lambda: None  # type: ignore[method-assign]  # the test takes what was counted
        one = await w.instance("i-1", behave)
        w.publish({"A": (1.0, [one])}, generation=7)
        asked = asyncio.create_task(w.invoke())
        await until(lambda: bool(one.calls))
        w.publish({"A": (1.0, [one])}, generation=8)
        release.set()
        assert (await asked).status == (await w.invoke()).status == 200
        told = w.gateway.meter.take(1)["endpoints"][f"{ACCOUNT}.us-east-1.e"]["A"]["i-1"]  # type: ignore[index]
        assert (told["n"], told["generation"], told["generations"]) == (2, 7, {8: 1})

    run(test)


def test_a_wrong_signature_is_refused_and_nothing_sent() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])})
        got = await w.send(w.sign(b"1", {}, "/endpoints/e/invocations", secret="another"))
        assert got.status == 403
        assert got.headers["x-amzn-errortype"] == "InvalidSignatureException"
        tampered = w.sign(b"1", {}, "/endpoints/e/invocations")[:-1] + b"2"
        assert (await w.send(tampered)).status == 403
        assert one.calls == []

    run(test)


def test_every_request_of_a_connection_is_proven_also_when_its_head_is_known() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])})
        reader, writer = await w.connect()

        async def ask(data: bytes) -> int:
            writer.write(data)
            return (await read_reply(reader)).status

        def signed(body: bytes, secret: str = "a-secret", **headers: str) -> bytes:
            named = {"amz-sdk-invocation-id": f"{len(body)}-a", **headers}
            return w.sign(body, named, "/endpoints/e/invocations", secret=secret)

        shapes = w.server.shapes
        assert [await ask(signed(b"1" * n)) for n in range(1, 5)] == [200] * 4
        assert len(shapes) == 1
        assert await ask(signed(b"5", secret="another")) == 403
        assert await ask(signed(b"5")[:-1] + b"6") == 403
        old = re.sub(rb"(?<=X-Amz-Date: )\d{8}", b"20200101", signed(b"7"))
        assert await ask(old) == 403
        assert await ask(signed(b"8", **{SM + "Target-Variant": "none"})) == 400
        assert await ask(signed(b"9").replace(b"/endpoints/e/", b"/endpoints/f/")) == 403
        assert await ask(signed(b"9")) == 200
        assert [call.body for call in one.calls] == [b"1", b"11", b"111", b"1111", b"9"]
        assert w.gateway.invoker.reserved_bytes == 0
        assert len(shapes) == 1
        writer.close()

    run(test)


def test_an_unknown_endpoint_is_a_validation_error_with_the_text_clients_know() -> None:
    async def test(w: World) -> None:
        got = await w.invoke(name="missing")
        assert got.status == 400
        assert got.headers["x-amzn-errortype"] == "ValidationError"
        assert got.json() == {"Message": f"Endpoint missing of account {ACCOUNT} not found."}

    run(test)


def test_weights_are_kept_exactly_and_a_variant_of_weight_0_can_be_targeted() -> None:
    async def test(w: World) -> None:
        a, b, c = [await w.instance(f"i-{n}") for n in "abc"]
        w.publish({"A": (0.75, [a]), "B": (0.25, [b]), "C": (0.0, [c])})
        seen: Counter[str] = Counter()
        for _ in range(40):
            seen[(await w.invoke()).headers["x-amzn-invoked-production-variant"]] += 1
        assert seen == {"A": 30, "B": 10}
        got = await w.invoke(**{f"{SM}Target-Variant": "C"})
        assert got.headers["x-amzn-invoked-production-variant"] == "C"
        got = await w.invoke(**{f"{SM}Target-Variant": "Nobody"})
        assert got.status == 400
        assert "Variant Nobody" in got.json()["Message"]

    run(test)


@pytest.mark.parametrize("strategy", list(RoutingStrategy))
def test_load_goes_where_least_is_outstanding_unless_random_is_asked_for(strategy: RoutingStrategy) -> None:
    async def test(w: World) -> None:
        instances = [await w.instance(f"i-{n}", hanging) for n in range(3)]
        w.publish({"v": (1.0, instances)}, strategy=strategy)
        waiting = [asyncio.ensure_future(w.invoke()) for _ in range(9)]
        await until(lambda: sum(len(i.calls) for i in instances) == 9)
        spread = sorted(len(i.calls) for i in instances)
        assert sum(spread) == 9
        if strategy is RoutingStrategy.LEAST_OUTSTANDING_REQUESTS:
            assert spread == [3, 3, 3]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(test, silence_ms=60_000)


@pytest.mark.parametrize(("status", "who", "code"), [(400, "client", "CLIENT"), (503, "server", "SERVER")])
def test_an_error_of_the_model_becomes_a_model_error(status: int, who: str, code: str) -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await call.answer(b'bad "row"', status)

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])})
        got = await w.invoke()
        assert got.status == 424
        assert got.headers["x-amzn-errortype"] == "ModelError"
        group = "/aws/sagemaker/Endpoints/e"
        assert got.json() == {
            "ErrorCode": f"{code}_ERROR_FROM_MODEL",
            "LogStreamArn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}",
            "Message": f'Received {who} error ({status}) from primary with message "bad "row"". See '
            "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#logEventViewer:group="
            f"{group} in account {ACCOUNT} for more information.",
            "OriginalMessage": 'bad "row"',
            "OriginalStatusCode": status,
        }

    run(test)


def test_a_model_that_does_not_answer_in_time_is_a_model_error_with_status_0() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1", hanging)
        w.publish({"v": (1.0, [one])}, timeout_ms=300)
        got = await w.invoke()
        assert (got.status, got.json()["OriginalStatusCode"]) == (424, 0)
        assert got.json()["OriginalMessage"].startswith("Your invocation timed out while waiting for a response from")
        await until(lambda: one.left == 1)  # and its work was cancelled

    run(test, silence_ms=60_000)


def test_a_body_over_the_limit_is_413_whether_announced_or_chunked() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])}, body_bytes_max=1_000)
        got = await w.invoke(b"x" * 1_001)
        assert (got.status, got.headers["x-amzn-errortype"]) == (413, "ValidationError")
        assert "1000 bytes" in got.json()["Message"]
        head = w.sign(b"", {}, "/endpoints/e/invocations").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        got = await w.send(head + b"".join(b"64\r\n" + b"x" * 100 + b"\r\n" for _ in range(11)) + b"0\r\n\r\n")
        assert got.status == 413
        assert one.calls == []
        assert w.gateway.invoker.reserved_bytes == 0

    run(test)


def test_bodies_in_flight_have_a_budget() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1", hanging)
        w.publish({"v": (1.0, [one])})
        first = asyncio.ensure_future(w.invoke(b"x" * 800))
        await until(lambda: len(one.calls) == 1)
        got = await w.invoke(b"x" * 300)
        assert (got.status, got.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
        assert w.counter("bodies_in_flight_limit") == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await until(lambda: w.gateway.invoker.reserved_bytes == 0)

    run(test, silence_ms=60_000, bodies_in_flight_bytes_max=1_000)


def test_a_body_that_drips_is_not_waited_for_for_ever() -> None:
    async def test(w: World) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])})
        reader, writer = await w.connect()
        request = w.sign(b"x" * 1_000, {}, "/endpoints/e/invocations")
        writer.write(request[:-1_000])

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        assert (await read_reply(reader)).status == 408
        assert w.gateway.invoker.reserved_bytes == 0
        dripping.cancel()
        writer.transport.abort()
        await asyncio.gather(dripping, return_exceptions=True)

    run(test, limits=Limits(collect_ms=400))


def test_a_chunked_request_body_is_gathered_for_the_model() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])})
        head = w.sign(b"abcdef", {}, "/endpoints/e/invocations")[:-6]
        head = head.replace(b"Content-Length: 6", b"Transfer-Encoding: chunked")
        assert (await w.send(head + b"4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n")).status == 200
        assert one.calls[0].body == b"abcdef"

    run(test)


def test_a_client_that_leaves_cancels_its_request_at_the_instance() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1", hanging)
        w.publish({"v": (1.0, [one])})
        _, writer = await w.connect()
        writer.write(w.sign(b"1", {}, "/endpoints/e/invocations"))
        await until(lambda: len(one.calls) == 1)
        leave(writer)
        await until(lambda: one.left == 1)
        assert not w.gateway.invoker.active
        assert w.gateway.invoker.reserved_bytes == 0

    run(test, silence_ms=60_000)


def test_a_client_that_ends_its_sending_after_its_request_gets_its_answer() -> None:
    async def test(w: World) -> None:
        go = asyncio.Event()

        async def later(call: Call) -> None:
            await go.wait()
            await answering(call)

        one = await w.instance("i-1", later)
        w.publish({"v": (1.0, [one])})
        reader, writer = await w.connect()
        writer.write(w.sign(b"1", {}, "/endpoints/e/invocations"))
        writer.write_eof()
        await until(lambda: any(connection._ended for connection in w.server.connections))
        go.set()
        assert (await read_reply(reader)).status == 200
        assert await reader.read() == b""
        assert w.counter("clients_gone") == 0
        writer.close()
        await writer.wait_closed()

    run(test, silence_ms=60_000)


def test_a_long_reply_streams_with_back_pressure() -> None:
    async def test(w: World) -> None:
        sent = 0

        async def behave(call: Call) -> None:
            nonlocal sent
            call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: x/y\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(400):
                call.writer.write(b"10000\r\n" + b"z" * 65_536 + b"\r\n")
                await call.writer.drain()
                sent += 1
            call.writer.write(b"0\r\n\r\n")

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])})
        reader, writer = await w.connect()
        writer.write(w.sign(b"1", {}, "/endpoints/e/invocations"))
        await until(lambda: sent > 10)
        seen = -1
        while seen != sent:  # the model stands still because the client does not read
            seen = sent
            await asyncio.sleep(0.1)
        assert sent < 300
        got = await read_reply(reader)
        assert len(got.body) == 400 * 65_536
        writer.close()
        await writer.wait_closed()

    run(test)


def test_replies_with_a_head_that_repeats_are_whole_however_they_come() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            body = call.body * 1_000
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/csv\r\ncontent-length: %d\r\n\r\n" % len(body)
            cut = {b"a": len(head + body), b"b": len(head) + 10, b"c": len(head), b"d": 5}[call.body]
            call.writer.write((head + body)[:cut])
            await call.writer.drain()
            await asyncio.sleep(0.01)
            call.writer.write((head + body)[cut:])

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])})
        for body in (b"a", b"a", b"b", b"a", b"c", b"d", b"a"):
            got = await w.invoke(body)
            assert got.body == body * 1_000
            assert got.headers["content-type"] == "text/csv"

    run(test)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await call.answer(call.body)

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])})
        reader, writer = await w.connect()
        writer.write(b"".join(w.sign(b"%d" % n, {}, "/endpoints/e/invocations") for n in range(20)))
        assert [(await read_reply(reader)).body for _ in range(20)] == [b"%d" % n for n in range(20)]
        writer.close()
        await writer.wait_closed()

    run(test)


@pytest.mark.parametrize("header", ["Inference-Component"])
def test_what_is_not_built_is_refused_in_words(header: str) -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])})
        got = await w.invoke(**{SM + header: "x"})
        assert (got.status, got.headers["x-amzn-errortype"]) == (400, "ValidationError")
        assert "not built yet" in got.json()["Message"]
        got = await w.invoke(action="invocations-bidirectional-stream")
        assert (got.status, got.headers["x-amzn-errortype"]) == (400, "ValidationError")
        assert one.calls == []

    run(test)


def test_a_second_is_rolled_up_by_endpoint_variant_and_instance() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await (answering(call) if call.body == b"good" else call.answer(b"", 500))

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])})
        w.gateway.feed.tell_meter = lambda: None  # type: ignore[method-assign]  # else the worker's own second may end
        w.gateway.meter.take(0)
        await w.invoke(b"good")
        await w.invoke(b"bad")
        taken = w.gateway.meter.take(7)
        assert taken is not None
        assert taken["at_s"] == 7
        rollup = taken["endpoints"][f"{ACCOUNT}.us-east-1.e"]["v"]["i-1"]
        assert (rollup["n"], rollup["e4"], rollup["e5"]) == (2, 0, 1)  # as the container answered
        assert sum(rollup["model"].values()) == sum(rollup["overhead"].values()) == 2
        assert w.gateway.meter.take(8) is None
        json.dumps(taken)

    run(test)


@pytest.mark.parametrize(("header", "longest"), [(name, longest) for name, (_, longest) in BOUNDS.items()])
def test_a_header_is_as_long_as_the_api_says_at_most(header: bytes, longest: int) -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1")
        w.publish({"AllTraffic": (1.0, [one])})
        name, member = header.decode().title(), BOUNDS[header][0]
        for _ in range(2):
            got = await w.invoke(**{name: "a" * (longest + 1)})
            assert (got.status, got.headers["x-amzn-errortype"]) == (400, "ValidationError")
            message = got.json()["Message"]
            assert message.startswith("1 validation error detected: Value 'aaa")
            assert f"at '{member}' failed to satisfy constraint: Member must have length less than" in message
        assert one.calls == []
        if header != TARGET_CONTAINER:  # this endpoint has one container
            assert (await w.invoke(**{name: "a" * longest})).status == 200

    run(test)


def test_the_bounds_of_headers_are_those_of_the_api() -> None:
    service = botocore.session.get_session().get_service_model("sagemaker-runtime")
    of_location = {}
    for operation in ("InvokeEndpoint", "InvokeEndpointWithResponseStream"):
        for name, member in service.operation_model(operation).input_shape.members.items():
            if member.serialization.get("location") == "header" and "max" in member.metadata:
                of_location[member.serialization["name"].lower().encode()] = (name, member.metadata["max"])
    for header, (member_, longest) in BOUNDS.items():
        name, said = of_location[header]
        assert (name[0].lower() + name[1:], said) == (member_, longest)
