"""Multi-model endpoints in a gateway worker: affinity, loads that requests wait for, spreading, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from gateway_world import ACCOUNT, REGION, SECRET, Call, FakeInstance, Reply, World, read_reply, until, world

from eyrie.decide.routing import rendezvous
from eyrie.domain.routing import ContainerMode, Execution
from eyrie.domain.target_models import key_of
from eyrie.http1.unix import listen_unix

MULTI = {"mode": ContainerMode.MULTI_MODEL, "containers": ("primary",)}


@dataclass
class Holder:
    """What one instance does: it holds models and answers for them; the others are 404."""

    models: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None  # answers wait for it
    status: int = 200
    room: bool | None = None  # what it says when it has loaded one

    async def __call__(self, call: Call) -> None:
        key = call.path.split("/")[2]
        assert call.method == "POST"
        assert call.path == f"/models/{key}/invoke"
        if key not in self.models:
            await call.answer(b"not loaded", 404)
            return
        if self.gate is not None:
            await self.gate.wait()
        await call.answer(call.headers["x-amzn-sagemaker-target-model"].encode(), self.status)


@dataclass
class Control:
    """The other side of models.sock: loads into the holders, or says what a test wants."""

    holders: dict[str, Holder]
    asked: list[dict[str, Any]] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    says: Callable[[dict[str, Any]], tuple[int, dict[str, Any]] | None] = lambda wanted: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                    wanted = json.loads(await reader.readexactly(length))
                    status, told = await self.answer("unload" in head.split("\r\n")[0], wanted)
                    body = json.dumps(told).encode()
                    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        finally:
            writer.close()

    async def answer(self, unload: bool, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        worker = f".{wanted['worker']}" if wanted["worker"] else ""
        holder, key = self.holders[wanted["instance"] + worker], key_of(wanted["model"])
        if unload:
            self.unloaded.append(wanted["model"])
            holder.models.discard(key)
            return 200, {"key": key, "unload_us": 7}
        self.asked.append(wanted)
        if self.gate is not None:
            await self.gate.wait()
        said = self.says(wanted)
        if said is not None:
            return said
        holder.models.add(key)
        times = {"download_us": 50, "load_us": 900, "unload_us": [30], "models": len(holder.models)}
        return 200, {"key": key, "already": False, **times, "room": holder.room}


@dataclass
class Many:
    """A worker with a multi-model endpoint on some instances."""

    world: World
    control: Control
    instances: list[FakeInstance]
    server: asyncio.Server | None = None

    async def ask(self, model: str | None = "m", **headers: str) -> Reply:
        named = {"X_Amzn_SageMaker_Target_Model": model} if model is not None else {}
        return await self.world.invoke(**named, **headers)

    def holder_of(self, model: str) -> list[str]:
        return [name for name, holder in self.control.holders.items() if key_of(model) in holder.models]

    async def control_up(self) -> None:
        path = self.world.data / "run" / "models.sock"
        path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self.control.serve, sock=listen_unix(str(path)))

    async def control_down(self) -> None:
        assert self.server is not None
        self.server.close()
        (self.world.data / "run" / "models.sock").unlink()

    def stats(self) -> dict[str, Any]:
        return dict(self.world.gateway.invoker.models.stats())

    def counts(self) -> list[dict[str, Any]]:
        """The model counts of every instance since the last time."""
        taken = self.world.gateway.meter.take(1) or {"endpoints": {}}
        rollups = [r for e in taken["endpoints"].values() for v in e.values() for r in v.values()]
        return [r["models"] for r in rollups if "models" in r]


@contextlib.asynccontextmanager
async def many(
    count: int = 2, up: bool = True, route: dict[str, Any] | None = None, workers: int = 1, **settings: Any
) -> AsyncIterator[Many]:
    async with world(**settings) as made:
        holders = {f"i-{n}": Holder() for n in range(count)}
        instances = [await made.instance(name, holder) for name, holder in holders.items()]
        for name, worker in ((name, worker) for name in tuple(holders) for worker in range(1, workers)):
            holders[f"{name}.{worker}"] = Holder()
            await made.instance(name, holders[f"{name}.{worker}"], worker=worker)
        made.publish({"v": (1.0, instances)}, workers=workers, **{**MULTI, **(route or {})})
        found = Many(made, Control(holders), instances)
        if up:
            await found.control_up()
        try:
            yield found
        finally:
            if found.server is not None:
                found.server.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_a_model_is_loaded_on_first_use_and_its_requests_meet_the_instance_that_holds_it() -> None:
    async def work() -> None:
        async with many(3) as m:
            names = [f"m{n}.tar.gz" for n in range(30)]
            for _ in range(3):
                for name in names:
                    reply = await m.ask(name)
                    assert (reply.status, reply.body) == (200, name.encode())
            assert len(m.control.asked) == 30
            assert all(len(m.holder_of(name)) == 1 for name in names)
            assert len({m.holder_of(name)[0] for name in names}) == 3, "spread over the instances"
            first = m.control.asked[0]
            assert first == {
                "endpoint": f"{ACCOUNT}.{REGION}.e", "instance": first["instance"], "worker": 0, "model": "m0.tar.gz",
            }  # fmt: skip

    run(work)


def test_one_load_serves_all_who_wait() -> None:
    async def work() -> None:
        async with many(1) as m:
            m.control.gate = asyncio.Event()
            asking = [asyncio.create_task(m.ask()) for _ in range(20)]
            await until(lambda: m.stats() == {"loads": 1, "waiting": 20})
            m.control.gate.set()
            assert {(await each).status for each in asking} == {200}
            assert len(m.control.asked) == 1

    run(work)


def test_a_model_that_was_evicted_is_loaded_again() -> None:
    async def work() -> None:
        async with many(1) as m:
            await m.ask()
            m.control.holders["i-0"].models.clear()
            assert (await m.ask()).status == 200
            assert len(m.control.asked) == 2

    run(work)


def test_a_404_of_the_model_itself_comes_through() -> None:
    """Its code answers 404: one look whether it is loaded, then it is its own answer."""

    async def work() -> None:
        async with many(1) as m:
            await m.ask()
            m.control.holders["i-0"].status = 404
            reply = await m.ask()
            assert reply.status == 424
            assert reply.json()["OriginalStatusCode"] == 404
            assert len(m.control.asked) == 3

    run(work)


def test_a_hot_model_is_spread_over_several_instances_and_serves_meanwhile() -> None:
    async def work() -> None:
        async with many(3) as m:
            await m.ask("hot")
            (home,) = m.holder_of("hot")
            gate = asyncio.Event()
            for holder in m.control.holders.values():
                holder.gate = gate
            asking = [asyncio.create_task(m.ask("hot")) for _ in range(4)]
            await until(lambda: len(m.world.instances[home].calls) == 6)
            asking += [asyncio.create_task(m.ask("hot")) for _ in range(4)]
            await until(lambda: len(m.holder_of("hot")) >= 2)
            asking += [asyncio.create_task(m.ask("hot")) for _ in range(12)]
            await until(lambda: len(m.holder_of("hot")) == 3)
            gate.set()
            assert {(await each).status for each in asking} == {200}
            served = Counter(i.instance_id for i in m.instances for call in i.calls if "invoke" in call.path)
            assert len(served) >= 2
            assert m.stats()["loads"] == 0

    run(work)


def test_requests_wait_for_control_and_what_is_loaded_serves_without_it() -> None:
    async def work() -> None:
        async with many(1, up=False) as m:
            m.control.holders["i-0"].models.add(key_of("loaded"))
            assert (await m.ask("loaded")).status == 200
            waiting = asyncio.create_task(m.ask("cold"))
            await until(lambda: m.stats()["waiting"] == 1)
            assert (await m.ask("loaded")).status == 200
            await m.control_up()
            assert (await waiting).status == 200

    run(work)


def test_a_model_that_takes_longer_than_the_deadline_is_not_ready() -> None:
    async def work() -> None:
        async with many(1, route={"timeout_ms": 300}) as m:
            m.control.gate = asyncio.Event()
            reply = await m.ask()
            assert (reply.status, reply.headers["x-amzn-errortype"]) == (429, "ModelNotReadyException")
            assert "still being downloaded or loaded" in reply.json()["Message"]
            assert m.stats() == {"loads": 1, "waiting": 0}, "the load goes on"
            m.control.gate.set()
            await until(lambda: m.stats()["loads"] == 0)
            assert (await m.ask()).status == 200
            assert len(m.control.asked) == 1

    run(work)


def test_what_control_says_of_a_model_is_handed_on() -> None:
    async def work() -> None:
        async with many(1) as m:
            missing = {"code": "ValidationError", "message": "Failed to download model data(bucket: b, key: k)."}
            m.control.says = lambda wanted: (422, missing)
            reply = await m.ask()
            assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
            assert reply.json()["Message"] == missing["message"]
            m.control.says = lambda wanted: (422, {"code": "ModelError", "message": "KeyError: 'w'", "status": 500})
            reply = await m.ask()
            assert (reply.status, reply.json()["OriginalStatusCode"]) == (424, 500)
            assert 'Received server error (500) from primary with message "KeyError' in reply.json()["Message"]
            m.control.says = lambda wanted: None
            assert (await m.ask()).status == 200

    run(work)


def test_an_instance_that_dies_while_it_loads_is_replaced_by_another() -> None:
    async def work() -> None:
        async with many(2) as m:
            m.control.gate = asyncio.Event()
            asking = asyncio.create_task(m.ask())
            await until(lambda: len(m.control.asked) == 1)
            first = m.control.asked[0]["instance"]
            await m.world.instances[first].kill()
            m.control.says = lambda wanted: (410, {}) if wanted["instance"] == first else None
            m.control.gate.set()
            assert (await asking).status == 200
            assert [wanted["instance"] for wanted in m.control.asked][1:] != [first]

    run(work)


def test_a_model_that_ends_two_instances_is_loaded_nowhere_for_a_while() -> None:
    async def work() -> None:
        async with many(3) as m:
            m.control.says = lambda wanted: (410, {})
            reply = await m.ask("deadly")
            assert reply.status == 424
            assert "Two instances ended while they loaded this model" in reply.json()["Message"]
            asked = len(m.control.asked)
            assert asked == 2
            assert (await m.ask("deadly")).status == 424
            assert len(m.control.asked) == asked
            m.control.says = lambda wanted: None
            assert (await m.ask("harmless")).status == 200

    run(work)


NAMES = [f"m{n}" for n in range(8)]


def test_the_first_worker_of_an_instance_holds_every_model_that_it_has_room_for() -> None:
    async def work() -> None:
        async with many(1, workers=2) as m:
            first = m.control.holders["i-0"]
            for name in NAMES:
                assert (await m.ask(name)).body == name.encode()
            assert {wanted["worker"] for wanted in m.control.asked} == {0}
            first.room = False
            assert (await m.ask("last that fits")).status == 200
            others = [f"o{n}" for n in range(8)]
            for name in others:
                assert (await m.ask(name)).body == name.encode()
            placed = Counter(wanted["worker"] for wanted in m.control.asked[9:])
            assert len(placed) == 2, "each in its own worker from now on"
            for name in (*NAMES, *others):
                assert (await m.ask(name)).status == 200
            assert len(m.control.asked) == 17, "and none is loaded again"

    run(work)


def test_a_gateway_that_knows_nothing_finds_models_in_either_worker() -> None:
    async def work() -> None:
        async with many(1, workers=2) as m:
            m.world.gateway.feed.tell_meter = lambda: None  # the second does not end
            workers = list(m.control.holders)
            own = {name: workers[rendezvous(workers, key_of(name))[0]] for name in NAMES}
            assert set(own.values()) == {"i-0", "i-0.1"}
            for name in NAMES:
                m.control.holders[own[name]].models.add(key_of(name))
            for name in NAMES:
                assert (await m.ask(name)).body == name.encode()
            assert m.control.asked == []
            (counts,) = m.counts()
            assert (counts["hits"], counts["misses"]) == (len(NAMES), 0), "it was loaded, wherever"

    run(work)


def test_a_first_worker_that_is_not_quick_has_a_model_loaded_in_its_own_worker_and_serves_meanwhile() -> None:
    async def work() -> None:
        async with many(1, workers=2) as m:
            first, second = (m.control.holders[name] for name in ("i-0", "i-0.1"))
            for name in NAMES:
                await m.ask(name)
            assert second.models == set()
            first.gate, m.control.gate = asyncio.Event(), asyncio.Event()
            calls = m.instances[0].calls
            before = len(calls)
            stuck = [asyncio.create_task(m.ask(name)) for name in NAMES[:4]]
            await until(lambda: len(calls) == before + 4)
            asking = [asyncio.create_task(m.ask(name)) for name in NAMES]
            await until(lambda: len(calls) == before + 4 + len(NAMES))
            assert [wanted["worker"] for wanted in m.control.asked[len(NAMES) :]] == [1], "one at a time"
            m.control.gate.set()
            await until(lambda: len(second.models) == 1)
            first.gate.set()
            assert {(await each).status for each in (*stuck, *asking)} == {200}
            assert second.models < first.models

    run(work)


def test_when_the_first_worker_ends_the_next_one_takes_its_place() -> None:
    async def work() -> None:
        async with many(1, workers=2) as m:
            for name in NAMES:
                await m.ask(name)
            await m.instances[0].kill()
            for name in NAMES:
                assert (await m.ask(name)).body == name.encode()
            assert len(m.control.holders["i-0.1"].models) == len(NAMES)

    run(work)


def test_models_move_to_the_others_when_an_instance_ends() -> None:
    async def work() -> None:
        async with many(3) as m:
            names = [f"m{n}" for n in range(12)]
            for name in names:
                await m.ask(name)
            before = {name: m.holder_of(name)[0] for name in names}
            await m.world.instances["i-0"].kill()
            for name in names:
                assert (await m.ask(name)).status == 200
            moved = [name for name in names if before[name] == "i-0"]
            assert moved
            again = [wanted["model"] for wanted in m.control.asked[12:]]
            assert set(again) == set(moved), "the others stay where they are"

    run(work)


def test_a_variant_without_a_cache_unloads_a_model_after_its_answer() -> None:
    async def work() -> None:
        async with many(1, route={"model_cache": False}) as m:
            assert (await m.ask()).status == 200
            await until(lambda: m.control.unloaded == ["m"])
            assert (await m.ask()).status == 200
            assert len(m.control.asked) == 2

    run(work)


def test_hits_misses_and_times_are_counted() -> None:
    async def work() -> None:
        async with many(1) as m:
            m.world.gateway.feed.tell_meter = lambda: None  # the second does not end
            await m.ask("a")
            await m.ask("a")
            await m.ask("b")
            (counts,) = m.counts()
            assert (counts["hits"], counts["misses"], counts["loaded"]) == (1, 2, 2)
            assert [sum(counts[name].values()) for name in ("wait", "download", "load", "unload")] == [2, 2, 2, 2]
            instance = m.world.gateway.stats(m.world.server)["endpoints"][f"{ACCOUNT}.{REGION}.e"]["instances"]["i-0"]
            assert instance["models"] == 2
            assert m.world.counter("model_loads") == 2

    run(work)


FORGED = ["../../etc", "/m", "a//b", "x" * 1025, "a/"]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_target_model_is_refused_before_anything_is_asked(name: str) -> None:
    async def work() -> None:
        async with many(1) as m:
            reply = await m.ask(name)
            assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
            assert "is not valid" in reply.json()["Message"]
            assert m.control.asked == []
            assert m.instances[0].calls == []

    run(work)


def test_who_needs_a_target_model_and_who_does_not() -> None:
    async def work() -> None:
        async with many(1) as m:
            reply = await m.ask(None)
            assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
            assert "is missing a target model header" in reply.json()["Message"]
            plain = await m.world.instance("i-9")
            m.world.publish({"v": (1.0, [plain])}, name="single")
            reply = await m.world.invoke(name="single", X_Amzn_SageMaker_Target_Model="m")
            assert reply.status == 400
            assert reply.json()["Message"] == (
                "Endpoint single is not a multi-model endpoint and does not support target model header."
            )

    run(work)


def test_an_endpoint_that_becomes_multi_model_is_asked_for_one_on_known_connections() -> None:
    """The shape of a head is remembered: it must not outlive what the endpoint was."""

    async def work() -> None:
        async with many(1) as m:
            plain = await m.world.instance("i-9")
            m.world.publish({"v": (1.0, [plain])}, name="turns")
            for _ in range(3):
                assert (await m.world.invoke(name="turns")).status == 200
            m.world.publish({"v": (1.0, m.instances)}, name="turns", **MULTI)
            reply = await m.world.invoke(name="turns")
            assert reply.status == 400
            assert "target model header" in reply.json()["Message"]

    run(work)


def test_requests_of_one_connection_are_proven_and_looked_at_whatever_model_they_name() -> None:
    async def work() -> None:
        async with many(2) as m:
            reader, writer = await m.world.connect()

            async def ask(model: str, secret: str = SECRET, forged: str = "") -> Reply:
                named = {"X-Amzn-SageMaker-Target-Model": model, "amz-sdk-invocation-id": model.encode().hex()[:9]}
                data = m.world.sign(b"1", named, "/endpoints/e/invocations", secret=secret)
                line = b"Target-Model: %b\r\n"
                writer.write(data.replace(line % model.encode(), line % (forged or model).encode()))
                return await read_reply(reader)

            for name in ("a", "b", "c", "a", "folder/c.tar.gz", "a b", "b"):
                reply = await ask(name)
                assert (reply.status, reply.body) == (200, name.encode())
            assert len(m.world.server.shapes) == 1
            assert (await ask("a", secret="another")).status == 403
            assert (await ask("a", forged="b")).status == 403
            assert (await ask("../../etc")).json()["Message"].startswith('The TargetModel "../../etc" is not valid')
            plain = await m.world.instance("i-9")
            m.world.publish({"v": (1.0, [plain])})
            assert "is not a multi-model endpoint" in (await ask("a")).json()["Message"]
            assert plain.calls == []
            writer.close()
            await writer.wait_closed()

    run(work)


DIRECT = {"execution": Execution.DIRECT, "containers": ("one", "two")}


async def speaking(call: Call) -> None:
    named = call.headers.get("x-amzn-sagemaker-target-container-hostname", "")
    if call.body == b"fail":
        await call.answer(b"no", 400, "x-eyrie-container: two\r\n")
    else:
        await call.answer(named.encode())


def test_direct_invocation_names_one_of_the_containers() -> None:
    async def work() -> None:
        async with world() as w:
            instance = await w.instance("i-0", speaking)
            w.publish({"v": (1.0, [instance])}, **DIRECT)
            header = "X_Amzn_SageMaker_Target_Container_Hostname"
            assert (await w.invoke(**{header: "two"})).body == b"two"
            for named, text in (({}, "missing a target container hostname header"), ({header: "three"}, '"three"')):
                reply = await w.invoke(**named)
                assert (reply.status, reply.headers["x-amzn-errortype"]) == (400, "ValidationError")
                assert text in reply.json()["Message"]
            reply = await w.invoke(b"fail", **{header: "two"})
            assert 'from two with message "no"' in reply.json()["Message"]

    run(work)


def test_a_pipeline_takes_no_container_name_and_names_the_one_that_failed() -> None:
    async def work() -> None:
        async with world() as w:
            instance = await w.instance("i-0", speaking)
            w.publish({"v": (1.0, [instance])}, containers=("one", "two"))
            assert (await w.invoke()).status == 200
            reply = await w.invoke(X_Amzn_SageMaker_Target_Container_Hostname="two")
            assert reply.status == 400
            assert "not configured for direct invocation" in reply.json()["Message"]
            reply = await w.invoke(b"fail")
            assert 'from two with message "no"' in reply.json()["Message"]

    run(work)
