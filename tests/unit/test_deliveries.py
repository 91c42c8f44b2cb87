"""From an event to a web hook: rules over announcements, schedules, deliveries that are tried again, given up, or
survive a restart; and what endpoints announce.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from toyworld import MemoryStore, SeededIdentity, ToyClock

from eyrie.adapters.webhooks import WebhookFailed, send
from eyrie.control import deliveries, event_table
from eyrie.control.announcements import KIND, AnnouncingStore, announcement
from eyrie.control.deliveries import Deliveries, Failed, backoff_ms, delivery_document
from eyrie.control.events import Events
from eyrie.control.outgoing import Outgoing
from eyrie.control.topics import SUBSCRIPTION, TOPIC, subscription_document, subscription_of
from eyrie.domain.events import ApiDestination, Connection, Delivery, EventRule, Subscription, Target, Topic
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Document

SCOPE = Scope()


class NoMetrics:
    """Counts what is recorded."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def record(self, measured: Any) -> None:
        self.names += [one.metric.name for one in measured]


class Rig:
    """Events and deliveries over a store in memory."""

    def __init__(self, store: MemoryStore | None = None, failing: Callable[[Delivery], None] | None = None) -> None:
        self.store, self.clock, self.metrics = store or MemoryStore(), ToyClock(), NoMetrics()
        self.clock.ms = 1_795_273_200_000
        self.sent: list[Delivery] = []
        self.failing = failing or (lambda owed: None)
        metrics: Any = self.metrics
        self.deliveries = Deliveries(self.store, self.clock, metrics, self._send)
        self.events = Events(self.store, self.clock, SeededIdentity(3), metrics, self.deliveries.wake)

    def _send(self, owed: Delivery) -> None:
        self.failing(owed)
        self.sent.append(owed)

    def rule(self, name: str = "r", **more: Any) -> None:
        made = EventRule(SCOPE, name, targets=(Target("t", "https://hook.test/x"),), **more)
        self.store.commit(Commit(puts=[event_table.document_of(self.store, made, self.clock.ms)]))
        self.events.wake()

    def announce(self, source: str = "shop", **detail: Any) -> None:
        made = announcement(SCOPE, SeededIdentity(len(self.store.documents)), source, "Order", detail, self.clock.ms)
        self.store.commit(Commit(puts=[made]))
        self.events.wake()

    def owe(self, **more: Any) -> None:
        now_ms = self.clock.ms
        owed = Delivery(
            **{
                **{"scope": SCOPE, "delivery_id": "d1", "origin": "EventRule", "name": "r", "what": "event Order"},
                **{"to": "https://hook.test/x", "body": "{}", "created_ms": now_ms, "next_ms": now_ms},
                **more,
            }
        )
        self.store.commit(Commit(puts=[delivery_document(owed)]))
        self.deliveries.wake()


def driven(rig: Rig, script: Callable[[], Awaitable[None]]) -> None:
    async def both() -> None:
        tasks = [asyncio.create_task(work) for work in (rig.events.run(), rig.deliveries.run())]
        try:
            await asyncio.wait_for(script(), 20)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(both())


async def until(seen: Callable[[], Any]) -> None:
    while not seen():
        await asyncio.sleep(0.005)


def test_an_event_reaches_the_targets_of_the_rules_that_pick_it() -> None:
    rig = Rig()

    async def script() -> None:
        rig.rule("mine", pattern=json.dumps({"source": ["shop"]}))
        rig.rule("others", pattern=json.dumps({"source": ["else"]}))
        rig.rule("off", pattern=json.dumps({"source": ["shop"]}), enabled=False)
        rig.announce(total=5)
        await until(lambda: rig.deliveries.counts["done"] == 1)

    driven(rig, script)
    (sent,) = rig.sent
    assert (sent.name, sent.to, json.loads(sent.body)["detail"]) == ("mine", "https://hook.test/x", {"total": 5})
    assert rig.store.scan(KIND) == []
    assert rig.store.scan(deliveries.KIND) == []
    assert rig.metrics.names == ["TriggeredRules", "Invocations"]


def test_a_schedule_fires_when_it_is_due_and_once_where_it_was_missed() -> None:
    rig = Rig()

    async def script() -> None:
        rig.rule("tick", schedule="rate(5 minutes)", next_ms=rig.clock.ms + 300_000)
        await asyncio.sleep(0.1)
        assert rig.sent == []
        for count in (1, 2):
            rig.clock.ms += 3 * 300_000
            rig.events.wake()
            await until(reached(rig, count))

    driven(rig, script)
    event = json.loads(rig.sent[0].body)
    assert (event["source"], event["detail-type"]) == ("aws.events", "Scheduled Event")
    rule = event_table.find(rig.store, EventRule, SCOPE, "tick")
    assert rule is not None
    assert rule.next_ms > rig.clock.ms


def reached(rig: Rig, count: int) -> Callable[[], bool]:
    return lambda: len(rig.sent) >= count


def failing(times: int, final: bool = False) -> Callable[[Delivery], None]:
    left = iter(range(times))

    def fail(owed: Delivery) -> None:
        if next(left, None) is not None:
            raise Failed("it answered 503", final)

    return fail


def test_what_fails_is_tried_again_later_each_time() -> None:
    rig = Rig(failing=failing(3))
    waits: list[int] = []

    async def script() -> None:
        rig.owe()
        for count in (1, 2, 3):
            await until(lambda count=count: rig.deliveries.counts["failed"] >= count)  # type: ignore[misc]
            await until(lambda count=count: body()["attempts"] == count)  # type: ignore[misc]
            waits.append(body()["next_ms"] - rig.clock.ms)
            rig.clock.ms = body()["next_ms"]
        await until(lambda: rig.sent)

    def body() -> dict[str, Any]:
        return rig.store.documents["Delivery", SCOPE, "d1"].body

    driven(rig, script)
    assert waits == [1_000, 2_000, 4_000]
    assert backoff_ms(100) == deliveries.BACKOFF_MAX_MS
    assert rig.sent[0].attempts == 3


@pytest.mark.parametrize(("more", "final"), [({"attempts_max": 1}, False), ({"age_max_ms": 500}, False), ({}, True)])
def test_what_is_given_up_is_counted_and_told(more: dict[str, Any], final: bool) -> None:
    rig = Rig(failing=failing(9, final))

    async def script() -> None:
        rig.owe(**more)
        await until(lambda: rig.deliveries.counts["given_up"] == 1)  # counted when all of it is done

    driven(rig, script)
    assert rig.store.scan(deliveries.KIND) == []
    (told,) = rig.store.events("EventRule", SCOPE, "r")
    assert (told.what, told.why) == (
        "delivery given up",
        "event Order to https://hook.test/x: it answered 503, after 1 tries",
    )
    assert rig.metrics.names == ["FailedInvocations"]


def test_a_slow_address_holds_up_nobody_else() -> None:
    gate = threading.Event()

    def slow(owed: Delivery) -> None:
        if owed.to.endswith("/slow"):
            assert gate.wait(30)

    rig = Rig(failing=slow)

    async def script() -> None:
        for n in range(30):
            rig.owe(delivery_id=f"s{n:02d}", to="https://hook.test/slow")
        rig.owe(delivery_id="z", to="https://hook.test/quick")
        await until(lambda: rig.sent)
        assert [owed.delivery_id for owed in rig.sent] == ["z"]
        gate.set()
        await until(lambda: len(rig.sent) == 31)

    driven(rig, script)


def test_what_is_owed_survives_and_is_done_by_the_next() -> None:
    rig = Rig(failing=failing(10**6))

    async def script() -> None:
        rig.rule(pattern=json.dumps({"source": ["shop"]}))
        rig.announce()
        await until(lambda: rig.deliveries.counts["failed"])

    driven(rig, script)
    later = Rig(rig.store)
    later.clock.ms += 60_000

    async def again() -> None:
        await until(lambda: later.deliveries.counts["done"] == 1)

    driven(later, again)
    assert later.store.scan(deliveries.KIND) == []


# --- one request ----------------------------------------------------------------------------------------------------


class Server:
    """An HTTP server that answers as it is told."""

    def __init__(self) -> None:
        server = self
        self.status = 200
        self.heard: list[tuple[str, str, dict[str, str], bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.heard.append((self.command, self.path, dict(self.headers), body))
                self.send_response(server.status)
                self.send_header("Content-Length", "0")
                if server.status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            do_PUT = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def outgoing(store: MemoryStore) -> Outgoing:
    logs: Any = None
    queues: Any = None
    return Outgoing(store, ToyClock(), logs, queues)


def to(url: str, **more: Any) -> Delivery:
    return Delivery(
        SCOPE, "d", "EventRule", "r", "event", url, '{"a": 1}', {"Content-Type": "application/json"}, **more
    )


@pytest.mark.parametrize(("status", "final"), [(500, False), (503, False), (429, False), (404, True), (302, False)])
def test_answers_tell_whether_it_is_worth_another_try(server: Server, status: int, final: bool) -> None:
    server.status = status
    with pytest.raises(Failed) as caught:
        outgoing(MemoryStore()).send(to(f"{server.url}/x"))
    assert caught.value.final is final
    assert f"it answered {status}" in str(caught.value)


def test_an_address_where_nobody_is_or_that_is_none_fails() -> None:
    with pytest.raises(Failed, match="ConnectionRefusedError"):
        outgoing(MemoryStore()).send(to("http://127.0.0.1:1/"))
    for url in ("ftp://a.test/", "http:///x", "http://a.test:99999/"):
        with pytest.raises(WebhookFailed):
            send(url, "POST", {}, b"")
    with pytest.raises(Failed) as caught:
        outgoing(MemoryStore()).send(to("arn:aws:sns:us-east-1:123456789012:gone"))
    assert caught.value.final


def test_an_api_destination_gets_its_method_path_headers_and_credentials(server: Server) -> None:
    server.status = 200
    server.heard.clear()
    store = MemoryStore()
    connection = Connection(SCOPE, "pager", "c1", "BASIC", {"Username": "me", "Password": "pw"}, {"X-Team": "shop"})
    destination = ApiDestination(SCOPE, "call", "a1", connection.arn, f"{server.url}/people/*", "PUT")
    store.commit(Commit(puts=[event_table.document_of(store, one, 0) for one in (connection, destination)]))
    target = Target("t", destination.arn, path_values=("a b",), query={"q": "1"}, headers={"X-Own": "2"})
    outgoing(store).send(to(destination.arn, target=target))
    ((method, path, headers, body),) = server.heard
    assert (method, path, body) == ("PUT", "/people/a%20b?q=1", b'{"a": 1}')
    assert (headers["Authorization"], headers["X-Team"], headers["X-Own"]) == ("Basic bWU6cHc=", "shop", "2")
    store.commit(Commit(deletes=[store.documents["EventConnection", SCOPE, "pager"]]))
    with pytest.raises(Failed, match="there is no connection"):
        outgoing(store).send(to(destination.arn, target=target))


def test_the_answer_to_a_confirmation_confirms(server: Server) -> None:
    server.status = 200
    store = MemoryStore()
    topic = Topic(SCOPE, "people")
    one = Subscription(SCOPE, "people", "s1", "http", server.url, "token")
    document = Document(TOPIC, SCOPE, "people", 0, 0, 0, msgspec.to_builtins(topic))
    store.commit(Commit(puts=[document, subscription_document(store, one, 0)]))
    outgoing(store).send(to(server.url, confirms="people:s1"))
    assert subscription_of(store.documents[SUBSCRIPTION, SCOPE, "people:s1"]).confirmed


# --- what endpoints announce ----------------------------------------------------------------------------------------


def endpoint(status: str, phase: str | None = None) -> dict[str, Any]:
    variant = {"spec": {"name": "AllTraffic"}, "desired_count": 2, "desired_weight": 1.0}
    fleet = {"generation": 1, "config_name": "c1", "variants": [variant], "created_ms": 5}
    instance = {"fleet": 1, "variant": "AllTraffic", "state": "READY"}
    green = {**fleet, "generation": 2, "config_name": "c2"}
    return {
        "key": {"account": SCOPE.account, "region": SCOPE.region, "name": "shop"},
        "arn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/shop",
        "config_name": "c1",
        "status": status,
        "created_ms": 1,
        "modified_ms": 7,
        "fleet": fleet,
        "instances": [instance],
        "deployment": {"phase": phase, "green": green} if phase else None,
    }


def test_an_endpoints_changes_are_announced_in_the_commit_that_makes_them() -> None:
    memory = MemoryStore()
    store = AnnouncingStore(memory, SeededIdentity(1))
    document = Document("Endpoint", SCOPE, "shop", 0, 1, 7, endpoint("Creating"))
    told: list[tuple[str, str, str]] = []

    def commit(now: Document) -> Document:
        store.commit(Commit(puts=[now]))
        for made in memory.scan(KIND):
            event = made.body["event"]
            pending = event["detail"].get("PendingDeploymentSummary", {}).get("ProductionVariants", [{}])
            words = pending[0].get("VariantStatus", [{}])[0].get("Status", "")
            told.append((event["detail-type"].removeprefix("SageMaker "), event["detail"]["EndpointStatus"], words))
            memory.commit(Commit(deletes=[made]))
        return replace(now, version=now.version + 1)

    document = commit(document)
    document = commit(document)  # nothing new
    document = commit(replace(document, body=endpoint("InService")))
    document = commit(replace(document, body=endpoint("Updating", "PROVISIONING")))
    document = commit(replace(document, body=endpoint("Updating", "BAKING")))
    document = commit(replace(document, body=endpoint("InService")))
    assert told == [
        ("Endpoint State Change", "CREATING", ""),
        ("Endpoint State Change", "IN_SERVICE", ""),
        ("Endpoint State Change", "UPDATING", ""),
        ("Endpoint Deployment State Change", "UPDATING", "Creating"),
        ("Endpoint Deployment State Change", "UPDATING", "Baking"),
        ("Endpoint State Change", "IN_SERVICE", ""),
        ("Endpoint Deployment State Change", "IN_SERVICE", ""),
    ]
    store.commit(Commit(deletes=[document]))
    (gone,) = memory.scan(KIND)
    detail = gone.body["event"]["detail"]
    assert detail["EndpointStatus"] == "DELETED"
    assert detail["ProductionVariants"] == [
        {
            "VariantName": "AllTraffic",
            "CurrentWeight": 1.0,
            "DesiredWeight": 1.0,
            "CurrentInstanceCount": 1,
            "DesiredInstanceCount": 2,
        }
    ]
