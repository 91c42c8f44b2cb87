"""A multi-model container: the /models contract, room and who makes it, code of each model's own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosting_world
import pytest
from hosting_world import Recorder, ask, give, hosting, until, write

from eyrie.domain.target_models import key_of
from eyrie.http1.server import listen
from eyrie.http1.unix import listen_unix
from eyrie.modelserver import memory, opening, shelf
from eyrie.modelserver.app import ModelServer
from eyrie.modelserver.memory import Heap

GATE = threading.Event()
SCRIPT = """
    import os, pathlib
    from helper import NAME
    def model_fn(model_dir):
        return pathlib.Path(model_dir).parent.name
    def transform_fn(model, body, content_type, accept):
        if body == b"gate":
            from tests_gate import GATE
            assert GATE.wait(20)
        return f"{model} {NAME} {os.environ['SHARED']}", "text/plain"
"""


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: Any) -> Iterator[None]:
    import sys
    import types

    gate: Any = types.ModuleType("tests_gate")
    gate.GATE = GATE
    monkeypatch.setitem(sys.modules, "tests_gate", gate)
    GATE.clear()
    with hosting_world.unchanged():
        yield


def multi_model(**environment: str) -> list[dict[str, Any]]:
    return [{"hostname": "many", "mode": "MultiModel", "environment": {"SHARED": "s"} | environment}]


def put(ml: Path, *names: str, script: str = SCRIPT, extra_bytes: int = 0) -> None:
    for name in names:
        folder = write(ml, f"models/{name}", inference=script, helper=f"NAME = {name.upper()!r}")
        (folder / "weights.txt").write_bytes(b"x" * extra_bytes)


async def load(server: ModelServer, name: str) -> Recorder:
    told = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"}).encode()
    return await ask(server, "/models", told)


async def invoke(server: ModelServer, name: str, body: bytes = b"") -> Recorder:
    return await ask(server, f"/models/{name}/invoke", body, content_type="x/y")


async def counts(server: ModelServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await ask(server, "/eyrie/state", method="GET")).body)["models"]
    return found


def test_the_contract(tmp_path: Path) -> None:
    put(tmp_path, "a", "b")

    async def run() -> None:
        async with hosting(tmp_path, multi_model()) as server:
            assert (await ask(server, "/ping", method="GET")).status == 200
            assert (await invoke(server, "a")).status == 404
            assert [(await load(server, name)).status for name in ("a", "b", "a")] == [200, 200, 409]
            assert (await invoke(server, "a")).body == b"a A s"
            assert (await invoke(server, "b")).body == b"b B s"
            entry = {"modelName": "a", "modelUrl": "/opt/ml/models/a/model"}
            assert json.loads((await ask(server, "/models/a", method="GET")).body) == entry
            assert json.loads((await ask(server, "/models/a/metadata", method="GET")).body)["kind"] == "calls"
            assert [(await ask(server, "/models/a", method="DELETE")).status for _ in range(2)] == [200, 404]
            assert [(await ask(server, f"/models/a{p}", method="GET")).status for p in ("", "/metadata")] == [404, 404]
            assert (await invoke(server, "a")).status == 404
            assert (await ask(server, "/invocations", b"")).status == 400
            assert (await load(server, "c")).status == 404
            state = await counts(server)
            assert {key: state[key] for key in ("loaded", "loading", "hits", "misses", "loads", "evictions")} == {
                "loaded": 1, "loading": 0, "hits": 2, "misses": 2, "loads": 2, "evictions": 0
            }  # fmt: skip

    asyncio.run(run())


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (b"{", b"not JSON"),
        (b"[]", b"model_name"),
        (b'{"model_name": "a/b", "url": "/opt/ml/models/a/model"}', b"model_name"),
        (b'{"model_name": "a", "url": "/etc/model"}', b"not a path below /opt/ml"),
        (b'{"model_name": "a", "url": "/opt/ml/../../model"}', b"not a path below /opt/ml"),
        (b'{"model_name": "a", "url": "/opt/ml/models/a"}', b"does not end in /model"),
    ],
)
def test_a_request_to_load_that_is_refused_says_why(told: bytes, words: bytes, tmp_path: Path) -> None:
    async def run() -> None:
        async with hosting(tmp_path, multi_model()) as server:
            got = await ask(server, "/models", told)
            assert (got.status, words in got.body) == (400, True)
            for target, method in (("/models", "PUT"), ("/models/a", "POST"), ("/models/a/invoke", "GET")):
                assert (await ask(server, target, method=method)).status == 405

    asyncio.run(run())


def test_invocations_of_many_models_are_of_one_shape_and_each_is_answered_by_its_own(tmp_path: Path) -> None:
    keys = [key_of(name) for name in ("a", "b", "c")]
    put(tmp_path, *keys)

    async def run() -> None:
        async with hosting(tmp_path, multi_model()) as server:
            for key in keys:
                assert (await load(server, key)).status == 200
            http = await listen(server, listen_unix(str(tmp_path / "socket")), varying=shelf.VARYING)
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))

            async def invoke(key: str, body: bytes) -> tuple[int, bytes]:
                head = f"POST /models/{key}/invoke HTTP/1.1\r\nx-amzn-sagemaker-target-model: of {key}\r\nhost: a\r\n"
                head = head.replace("of ", "of/" * len(body))
                writer.write(f"{head}content-type: x/y\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                said = await reader.readuntil(b"\r\n\r\n")
                length = int(said.split(b"content-length: ")[1].split(b"\r\n")[0])
                return int(said.split(b" ")[1]), await reader.readexactly(length)

            for n, key in enumerate(keys * 4):
                assert await invoke(key, b"x" * n) == (200, f"{key} {key.upper()} s".encode())
            assert len(http.shapes) == 1
            assert (await invoke(key_of("d"), b"x"))[0] == 404
            assert (await counts(server))["hits"] == 12
            writer.close()
            await writer.wait_closed()
            await http.close(1_000)

    asyncio.run(run())


def test_the_list_comes_in_pages(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shelf, "PAGE", 2)
    names = ["a", "b", "c", "d", "e"]
    put(tmp_path, *names)

    async def run() -> None:
        async with hosting(tmp_path, multi_model()) as server:
            for name in reversed(names):
                await load(server, name)
            pages, token = [], ""
            while True:
                page = json.loads((await ask(server, f"/models?next_page_token={token}", method="GET")).body)
                pages.append([entry["modelName"] for entry in page["models"]])
                token = page.get("nextPageToken", "")
                if not token:
                    break
            assert pages == [["a", "b"], ["c", "d"], ["e"]]

    asyncio.run(run())


def test_one_load_serves_all_who_wait_and_nobody_else_waits_for_it(tmp_path: Path) -> None:
    put(tmp_path, "a")
    put(tmp_path, "slow", script="from tests_gate import GATE\nassert GATE.wait(20)\n" + SCRIPT.replace("\n    ", "\n"))

    async def run() -> None:
        async with hosting(tmp_path, multi_model()) as server:
            await load(server, "a")
            told = json.dumps({"model_name": "slow", "url": "/opt/ml/models/slow/model"}).encode()
            waiting = [give(server, Recorder("/models", told)) for _ in range(3)]
            assert (await counts(server))["loading"] == 1
            assert (await invoke(server, "a")).status == 200
            assert (await invoke(server, "slow")).status == 404
            GATE.set()
            await until(lambda: all(client.replies for client in waiting))
            assert [client.status for client in waiting] == [200, 409, 409]
            assert (await counts(server))["loads"] == 2
            assert (await invoke(server, "slow")).body == b"slow SLOW s"

    asyncio.run(run())


def test_a_model_that_cannot_be_loaded_harms_no_other(tmp_path: Path, caplog: Any) -> None:
    put(tmp_path, "a")
    put(tmp_path, "broken", script="raise RuntimeError('no such luck')")
    (tmp_path / "models" / "empty" / "model").mkdir(parents=True)

    async def run() -> None:
        async with hosting(tmp_path, multi_model()) as server:
            await load(server, "a")
            broken, empty = await load(server, "broken"), await load(server, "empty")
            assert (broken.status, broken.body) == (500, b"RuntimeError: no such luck")
            assert (empty.status, b"the model folder is empty" in empty.body) == (400, True)
            assert (await invoke(server, "a")).status == 200
            state = await counts(server)
            assert (state["failures"], state["loaded"], state["loading"]) == (2, 1, 0)

    asyncio.run(run())
    assert "no such luck" in caplog.text


def test_the_least_recently_used_goes_and_never_one_in_use(tmp_path: Path) -> None:
    put(tmp_path, "a", "b", "c", "d")

    async def run() -> None:
        async with hosting(tmp_path, multi_model(MULTI_MODEL_MODELS_MAX="2")) as server:
            await load(server, "a")
            await load(server, "b")
            await invoke(server, "a")
            assert (await load(server, "c")).status == 200
            assert [(await invoke(server, name)).status for name in "abc"] == [200, 404, 200]
            busy = [give(server, Recorder(f"/models/{name}/invoke", b"gate", content_type="x/y")) for name in "ac"]
            full = await load(server, "d")
            assert (full.status, b"in use" in full.body) == (507, True)
            GATE.set()
            await until(lambda: all(client.replies for client in busy))
            assert [client.body for client in busy] == [b"a A s", b"c C s"]
            assert (await load(server, "d")).status == 200
            assert [(await invoke(server, name)).status for name in "acd"] == [404, 200, 200]
            state = await counts(server)
            assert (state["evictions"], state["no_room"], state["loaded"]) == (2, 1, 2)

    asyncio.run(run())


def test_a_load_tells_whether_one_more_like_it_fits(tmp_path: Path) -> None:
    put(tmp_path, "a", "b", "c", extra_bytes=400_000)

    async def rooms(**bounds: str) -> list[bool]:
        async with hosting(tmp_path, multi_model(**bounds)) as server:
            return [json.loads((await load(server, name)).body)["room"] for name in "abc"]

    assert asyncio.run(rooms(MULTI_MODEL_MODELS_MAX="2")) == [True, False, False]
    assert asyncio.run(rooms(MULTI_MODEL_MEMORY_MB="1")) == [True, False, False]
    assert asyncio.run(rooms()) == [True, True, True]


def test_memory_is_the_measure(tmp_path: Path) -> None:
    put(tmp_path, "a", "b", "c", extra_bytes=400_000)
    put(tmp_path, "huge", extra_bytes=2_000_000)

    async def run() -> None:
        async with hosting(tmp_path, multi_model(MULTI_MODEL_MEMORY_MB="1")) as server:
            assert [(await load(server, name)).status for name in "abc"] == [200, 200, 200]
            assert [(await invoke(server, name)).status for name in "abc"] == [404, 200, 200]
            assert (await load(server, "huge")).status == 507
            state = await counts(server)
            assert (state["loaded"], state["evictions"], state["no_room"]) == (
                2,
                1,
                1,
            )  # nobody went for what cannot fit
            assert 800_000 < state["bytes"] <= state["bytes_max"] == 1_048_576
            for name in "bc":
                await ask(server, f"/models/{name}", method="DELETE")
            assert (await counts(server))["bytes"] == 0

    asyncio.run(run())


def test_a_model_that_turns_out_larger_than_its_files_makes_room_or_goes(tmp_path: Path) -> None:
    hungry = SCRIPT.replace("return pathlib.Path(model_dir).parent.name", "return bytearray(3 * 1048576)")
    put(tmp_path, "a", "b")
    put(tmp_path, "hungry", script=hungry)

    async def run() -> None:
        async with hosting(tmp_path, multi_model(MULTI_MODEL_MEMORY_MB="2")) as server:
            assert [(await load(server, name)).status for name in ("a", "b", "hungry")] == [200, 200, 507]
            assert [(await invoke(server, name)).status for name in ("a", "b", "hungry")] == [200, 200, 404]

    asyncio.run(run())


def test_many_boosters_share_threads_and_little_else(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    import numpy as np

    rows = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32)
    boosters = [
        xgboost.train({"nthread": 1, "seed": n}, xgboost.DMatrix(rows, rows[:, n % 4]), 5 + n % 3) for n in range(12)
    ]
    for number in range(48):
        target = tmp_path / "models" / f"m{number}" / "model"
        target.mkdir(parents=True)
        boosters[number % 12].save_model(target / "model.json")

    async def run() -> None:
        threads = threading.active_count()
        async with hosting(tmp_path, multi_model(), memory_mb=4096) as server:
            for number in range(48):
                assert (await load(server, f"m{number}")).status == 200
            body = ",".join(map(str, rows[0].tolist())).encode()
            for number in range(48):
                got = await ask(server, f"/models/m{number}/invoke", body, content_type="text/csv")
                assert float(got.body) == boosters[number % 12].inplace_predict(rows[:1]).item()
            # Two for loading; a busy host makes models look slow, and predicts in the others.
            assert threading.active_count() - threads <= opening.SHELF_THREADS_MIN + 2
            state = await counts(server)
            assert state["bytes"] < 48 * 200_000

    asyncio.run(run())


def test_what_a_budget_comes_to() -> None:
    assert memory.budget_bytes({}, 0, 1, 5) == 0
    assert memory.budget_bytes({}, 1000, 2, 1_048_576) == 399 * 1_048_576
    assert memory.budget_bytes({}, 100, 1, 1 << 40) == 1
    assert memory.budget_bytes({memory.MEMORY_MB: "10"}, 1000, 2, 5) == 5 * 1_048_576
    assert memory.number_of({"A": "x"}, "A", 3) == memory.number_of({"A": "0"}, "A", 3) == 3


def test_the_heap_is_measured_and_given_back() -> None:
    heap = Heap()
    before = heap.used_bytes()
    block = bytearray(8 * 1_048_576)
    assert 8_000_000 < heap.used_bytes() - before < 9_000_000
    del block
    heap.give_back()
    assert heap.used_bytes() - before < 1_000_000
    assert memory.resident_bytes() > 1_000_000
