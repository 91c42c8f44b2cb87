"""The Open Inference Protocol through a worker on real sockets: keys, paths, tensors there and back, errors."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_world import ACCOUNT, REGION, Call, Reply, World, hanging, until, world
from malformed_v2 import INPUT, MALFORMED
from test_gateway_models import many

from eyrie import __version__
from eyrie.wire.api_keys import ApiKey, digest, keys_text

SM = "X-Amzn-SageMaker-"
KEY = "eyrie_aaaaaaaaaa_" + "k" * 43
ONE = "eyrie_bbbbbbbbbb_" + "k" * 43
OLD = "eyrie_cccccccccc_" + "k" * 43


def write_keys(data: Path) -> None:
    keys = [
        ApiKey(KEY.split("_")[1], digest(KEY.encode()), ACCOUNT, REGION),
        ApiKey(ONE.split("_")[1], digest(ONE.encode()), ACCOUNT, REGION, ("one",)),
        ApiKey(OLD.split("_")[1], digest(OLD.encode()), ACCOUNT, REGION, (), 0, 1),
    ]
    (data / "keys.new").write_text(keys_text(keys))
    os.replace(data / "keys.new", data / "keys.json")


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**settings) as made:
            write_keys(made.data)
            made.gateway.inference.keys.refresh()
            await test(made)

    asyncio.run(main())


async def ask(
    w: World, path: str, body: Any = None, key: str | None = KEY, method: str | None = None, **headers: str
) -> Reply:
    """A request below /v2; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "h", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if key:
        lines["Authorization"] = f"Bearer {key}"
    if data or method == "POST":
        lines["Content-Length"] = str(len(data))
    head = f"{method or ('POST' if data else 'GET')} {path} HTTP/1.1\r\n"
    return await w.send((head + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n").encode() + data)


async def double(call: Call) -> None:
    """A model that doubles an .npy array, as our model server reads and writes one."""
    if call.path == "/eyrie/metadata":
        first = {"inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}], "outputs": [{"name": "between"}]}
        last = {"inputs": [], "outputs": [{"name": "y", "dtype": "object", "shape": None}]}
        await call.answer(json.dumps({"execution": "Serial", "containers": [first, last], "more": 1}).encode())
        return
    assert call.headers["content-type"] == call.headers["accept"] == "application/x-npy"
    stream = io.BytesIO()
    np.save(stream, np.load(io.BytesIO(call.body)) * 2)
    await call.answer(stream.getvalue(), lines=f"content-type: application/x-npy\r\n{SM}Custom-Attributes: out\r\n")


async def deployed(w: World, behave: Callable[[Call], Awaitable[None]] = double) -> Any:
    one = await w.instance("i-1", behave)
    w.publish({"v": (1.0, [one])})
    return one


def test_tensors_go_to_the_model_and_come_back() -> None:
    async def test(w: World) -> None:
        one = await deployed(w)
        got = await ask(w, "/v2/models/e/infer", {"id": "7", "inputs": [INPUT]}, **{f"{SM}Custom-Attributes": "in"})
        assert got.status == 200
        assert got.json() == {
            "id": "7",
            "model_name": "e",
            "model_version": "v",
            "outputs": [{"name": "output", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}],
        }
        assert got.headers["content-type"] == "application/json"
        assert got.headers["x-amzn-invoked-production-variant"] == "v"
        assert got.headers["x-amzn-sagemaker-custom-attributes"] == "out"
        (call,) = one.calls
        assert call.headers["x-amzn-sagemaker-custom-attributes"] == "in"
        assert call.headers["x-amzn-sagemaker-inference-id"] == "7"
        assert (w.gateway.invoker.active, w.gateway.invoker.reserved_bytes) == (set(), 0)
        target = next(iter(w.gateway.book.endpoints.values())).target("i-1")
        assert target is not None
        assert (target.rollup.requests, target.invocations) == (1, set())

    run(test)


def test_the_binary_extension_both_ways() -> None:
    async def test(w: World) -> None:
        await deployed(w)
        array = np.arange(6, dtype=np.int16).reshape(2, 3)
        head = {"name": "x", "datatype": "INT16", "shape": [2, 3], "parameters": {"binary_data_size": 12}}
        wanted = [{"name": "y", "parameters": {"binary_data": True}}]
        text = json.dumps({"inputs": [head], "outputs": wanted}).encode()
        length = {"Inference-Header-Content-Length": str(len(text))}
        got = await ask(w, "/v2/models/e/infer", text + array.tobytes(), **length)
        assert (got.status, got.headers["content-type"]) == (200, "application/octet-stream")
        cut = int(got.headers["inference-header-content-length"])
        (output,) = json.loads(got.body[:cut])["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", "INT16", [2, 3])
        assert np.array_equal(np.frombuffer(got.body[cut:], np.int16).reshape(2, 3), array * 2)

    run(test)


def test_a_version_is_a_variant() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1", double), await w.instance("i-2", double)
        w.publish({"v": (1.0, [one]), "zero": (0.0, [two])})
        got = await ask(w, "/v2/models/e/versions/zero/infer", {"inputs": [INPUT]})
        assert (got.json()["model_version"], len(two.calls)) == ("zero", 1)
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]}, **{f"{SM}Target-Variant": "zero"})
        assert (got.json()["model_version"], len(two.calls)) == ("zero", 2)
        got = await ask(w, "/v2/models/e/versions/v/infer", {"inputs": [INPUT]}, **{f"{SM}Target-Variant": "zero"})
        assert got.status == 400
        for action in ("/infer", "/ready", ""):
            got = await ask(w, f"/v2/models/e/versions/1{action}", {"inputs": [INPUT]} if action == "/infer" else None)
            assert (got.status, got.json()) == (404, {"error": "model 'e' has no version '1': v, zero"})

    run(test)


def test_the_worker_and_its_endpoints_tell_of_themselves() -> None:
    async def test(w: World) -> None:
        one = await deployed(w)
        w.publish({"v": (1.0, [])}, name="empty")
        assert (await ask(w, "/v2", key=None)).json()["version"] == __version__
        assert "binary_tensor_data" in (await ask(w, "/v2", key=None)).json()["extensions"]
        assert (await ask(w, "/v2/health/live", key=None)).json() == {"live": True}
        assert (await ask(w, "/v2/health/ready", key=None)).json() == {"ready": True}
        assert (await ask(w, "/v2/models/e/ready")).json() == {"name": "e", "ready": True}
        assert (await ask(w, "/v2/models/empty/ready")).status == 400
        assert (await ask(w, "/v2/models/e/versions/v/ready")).status == 200
        expected = {
            "name": "e",
            "versions": ["v"],
            "platform": "eyrie",
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
        }
        assert (await ask(w, "/v2/models/e")).json() == expected
        assert (await ask(w, "/v2/models/empty")).json()["inputs"] == []

        async def unknown(call: Call) -> None:
            await call.answer(b"what?", 404)

        for behave in (unknown, hanging, lambda call: call.answer(b"{"), lambda call: call.answer(b"[]")):
            one.behave = behave
            assert (await ask(w, "/v2/models/e/versions/v")).json() == {**expected, "inputs": [], "outputs": []}
        assert w.gateway.inference._questions == set()

    run(test)


def test_paths_and_methods_that_are_none() -> None:
    async def test(w: World) -> None:
        await deployed(w)
        for path in ("/v2/", "/v2"):
            assert (await ask(w, path)).status == 200
        for path in ("/v2/x", "/v2/models", "/v2/models/e/x", "/v2/models/e/infer/x", "/v2/models/e/versions//infer"):
            got = await ask(w, path)
            assert (got.status, list(got.json())) == (404, ["error"]), path
        for path, method in (("/v2", "POST"), ("/v2/models/e", "POST"), ("/v2/models/e/infer", "GET")):
            assert (await ask(w, path, method=method)).status == 405
        got = await ask(w, "/v2/models/missing/infer", {"inputs": [INPUT]})
        assert (got.status, "model 'missing' not found" in got.json()["error"]) == (404, True)

    run(test)


def test_keys_open_what_they_are_for() -> None:
    async def test(w: World) -> None:
        one = await deployed(w)
        w.publish({"v": (1.0, [one])}, name="one")
        body = {"inputs": [INPUT]}
        assert (await ask(w, "/v2/models/e/infer", body)).status == 200
        assert (await ask(w, "/v2/models/one/infer", body, key=ONE)).status == 200
        for path in ("/v2/models/e/infer", "/v2/models/e", "/v2/models/e/ready"):
            sent = body if path.endswith("infer") else None
            assert (await ask(w, path, sent, key=ONE)).status == 403
            for wrong in (None, OLD, KEY[:-1] + "x", "x"):
                got = await ask(w, path, sent, key=wrong)
                assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
        assert len(one.calls) == 2
        (w.data / "keys.json").unlink()
        await until(lambda: not w.gateway.inference.keys._keys)  # by the sweep
        assert (await ask(w, "/v2/models/e/infer", body)).status == 401

    run(test)


def test_with_authentication_off_no_key_is_needed() -> None:
    async def test(w: World) -> None:
        await deployed(w)
        assert (await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]}, key=None)).status == 200

    run(test, auth=False)


def test_malformed_requests_are_refused_and_nothing_sent() -> None:
    async def test(w: World) -> None:
        one = await deployed(w)
        for name, body, length, said in MALFORMED:
            headers = {} if length is None else {"Inference-Header-Content-Length": length.decode()}
            got = await ask(w, "/v2/models/e/infer", body, method="POST", **headers)
            assert (got.status, list(got.json())) == (400, ["error"]), name
            assert said in got.json()["error"], name
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]}, Content_Encoding="gzip")
        assert (got.status, "compressed" in got.json()["error"]) == (400, True)
        assert one.calls == []
        assert (w.gateway.invoker.active, w.gateway.invoker.reserved_bytes) == (set(), 0)

    run(test)


def test_a_container_without_npy_is_asked_in_text_and_from_then_on_at_once() -> None:
    async def test(w: World) -> None:
        async def only_csv(call: Call) -> None:
            if call.headers["content-type"] != "text/csv":
                await call.answer(b"only csv", 415)
            else:
                await call.answer(b"0\n1\n")

        one = await deployed(w, only_csv)
        body = {"inputs": [{**INPUT, "shape": [2, 1]}]}
        got = await ask(w, "/v2/models/e/infer", body)
        assert got.json()["outputs"] == [{"name": "output", "datatype": "FP64", "shape": [2], "data": [0.0, 1.0]}]
        assert [call.headers["accept"] for call in one.calls] == ["application/x-npy", "text/csv"]
        assert one.calls[1].body == b"1.0\n2.0\n"
        assert (await ask(w, "/v2/models/e/infer", body)).status == 200
        assert len(one.calls) == 3
        assert (w.gateway.invoker.active, w.gateway.invoker.reserved_bytes) == (set(), 0)

        async def only_json_out(call: Call) -> None:
            await (
                call.answer(b"[1]", lines="content-type: application/json\r\n")
                if call.headers["accept"] == "application/json"
                else call.answer(b"", 406)
            )

        one.behave = only_json_out
        w.publish({"v": (1.0, [one])})  # another table: what was learnt of the one before does not count
        got = await ask(w, "/v2/models/e/infer", body)
        assert got.json()["outputs"][0]["data"] == [1]
        assert one.calls[-1].headers["content-type"] == "application/x-npy"
        one.behave = lambda call: call.answer(b"no", 415)
        w.publish({"v": (1.0, [one])})
        got = await ask(w, "/v2/models/e/infer", {"inputs": [{**INPUT, "shape": [1, 2, 1]}]})  # has no form as CSV
        assert (got.status, got.json()) == (415, {"error": "no"})
        got = await ask(w, "/v2/models/e/infer", {"parameters": {"content_type": "text/csv"}, **body})
        assert (got.status, one.calls[-1].body) == (415, b"1.0\n2.0\n")

    run(test)


@pytest.mark.parametrize(("status", "seen"), [(400, 400), (404, 404), (422, 422), (500, 500), (503, 500)])
def test_errors_of_the_model_have_the_protocols_form(status: int, seen: int) -> None:
    async def test(w: World) -> None:
        await deployed(w, lambda call: call.answer(b"its reason", status))
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]})
        assert (got.status, got.json()) == (seen, {"error": "its reason"})
        assert got.headers["x-amzn-invoked-production-variant"] == "v"

    run(test)


def test_failures_on_the_way_have_the_protocols_form() -> None:
    async def test(w: World) -> None:
        one = await deployed(w, hanging)
        w.publish({"v": (1.0, [one])}, timeout_ms=300)
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]})
        assert (got.status, "timed out" in got.json()["error"]) == (504, True)

        async def cut(call: Call) -> None:
            call.writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/csv\r\ncontent-length: 100\r\n\r\n1,2")
            await call.writer.drain()
            call.writer.transport.abort()

        one.behave = cut
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]})
        assert (got.status, "could not load the entire response body" in got.json()["error"]) == (500, True)
        one.behave = lambda call: call.answer(b"{", lines="content-type: application/json\r\n")
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]})
        assert (got.status, "not application/json" in got.json()["error"]) == (500, True)
        one.behave = lambda call: call.answer(bytes(2_000))
        w.publish({"v": (1.0, [one])}, body_bytes_max=1_000)
        got = await ask(w, "/v2/models/e/infer", {"inputs": [{**INPUT, "shape": [500], "data": [1] * 500}]})
        assert (got.status, "limit of 1000" in got.json()["error"]) == (413, True)

        async def long(call: Call) -> None:
            call.writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 90000\r\n\r\n" + bytes(70_000))
            await asyncio.Event().wait()

        one.behave = long
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]})
        assert (got.status, "longer than the limit" in got.json()["error"]) == (500, True)
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT], "outputs": [{"name": "a"}, {"name": "b"}]})
        assert (w.gateway.invoker.active, w.gateway.invoker.reserved_bytes) == (set(), 0)

    run(test)


def test_a_lost_instance_costs_the_client_nothing() -> None:
    async def test(w: World) -> None:
        async def die(call: Call) -> None:
            call.writer.transport.abort()

        one, two = await w.instance("i-1", die), await w.instance("i-2", double)
        w.publish({"v": (1.0, [one, two])})
        for _ in range(40):  # chance says which of two idle ones is asked
            assert (await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]})).status == 200
        assert w.counter("retries") >= 1

    run(test)


def test_sessions_work_here_too() -> None:
    async def test(w: World) -> None:
        async def stateful(call: Call) -> None:
            said = call.headers.get("x-amzn-sagemaker-session-id")
            new = f"{SM}New-Session-Id: s; Expires=2033-05-18T03:33:20Z\r\n" if said == "NEW_SESSION" else ""
            await call.answer(call.instance.instance_id.encode(), lines="content-type: text/plain\r\n" + new)

        instances = [await w.instance(f"i-{n}", stateful) for n in range(3)]
        w.publish({"v": (1.0, instances)})
        got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]}, **{f"{SM}Session-Id": "NEW_SESSION"})
        token = got.headers["x-amzn-sagemaker-new-session-id"].partition(";")[0]
        holder = got.json()["outputs"][0]["data"]
        for _ in range(6):
            got = await ask(w, "/v2/models/e/infer", {"inputs": [INPUT]}, **{f"{SM}Session-Id": token})
            assert got.json()["outputs"][0]["data"] == holder

    run(test)


def test_one_model_of_many_is_named_by_its_header_and_loaded() -> None:
    async def work() -> None:
        async with asyncio.timeout(60), many(2) as m:
            write_keys(m.world.data)
            m.world.gateway.inference.keys.refresh()
            body = {"inputs": [INPUT], "outputs": [{"name": "said"}]}
            for path in ("/v2/models/e/infer", "/v2/models/e/versions/v/infer"):
                got = await ask(m.world, path, body, **{f"{SM}Target-Model": "m.tar.gz"})
                assert got.status == 200
                assert got.json()["outputs"][0] == {
                    "name": "said", "datatype": "BYTES", "shape": [1], "data": ["m.tar.gz"]
                }  # fmt: skip
            assert len(m.control.asked) == 1
            got = await ask(m.world, "/v2/models/e/infer", body)
            assert (got.status, "missing a target model" in got.json()["error"]) == (400, True)

    asyncio.run(work())
