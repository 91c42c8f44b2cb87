"""What monitoring systems are told: sums of what workers told, in Prometheus's text and as OTLP, and who sees what."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eyrie.adapters import otlp, own_processes, prometheus_text
from eyrie.adapters.otlp import OtlpExport, Receiver, ReceiverUnusable, receiver
from eyrie.control import tally
from eyrie.control.exposition import Exposition, of_host, of_instances
from eyrie.control.tally import Tally, labels_of
from eyrie.control.vitals import LoopLag, TimedStore
from eyrie.domain.credits import Credits
from eyrie.domain.exposition import Distribution, Family, Sample, counter, gauge, histogram
from eyrie.domain.names import EndpointKey
from eyrie.domain.usage import HostUsage, InstanceUsage
from eyrie.gateway.meter import Meter
from eyrie.ports import Commit, Conflict
from eyrie.wire.api_keys import ApiKey, KeyRefused, KeyRing, digest, keys_text

KEY = EndpointKey("123456789012", "us-east-1", "churn")
OURS = {"account": "123456789012", "region": "us-east-1", "endpoint": "churn"}


class Clock:
    def __init__(self) -> None:
        self.at_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


def second(*answers: tuple[str, int, int]) -> dict[str, Any]:
    """A worker's second of answers: instance, status, microseconds of the model."""
    meter = Meter()
    for instance, status, model_us in answers:
        meter.rollup(KEY.slug, "v", instance).add(status, model_us, 100, 2)
    meter.count("retries")
    meter.gauges = {"connections": 7.0}
    told = meter.take(1_700_000_000)
    assert told is not None
    return {**json.loads(json.dumps(told)), "worker": "gateway-0"}


def samples(families: list[Family]) -> dict[str, float]:
    """Every sample of the text, by its name and labels, as Prometheus's own parser reads it."""
    text = prometheus_text.text(families).decode()
    return {
        f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_rollups_add_up_to_counters_and_histograms() -> None:
    tallied = Tally(Clock())
    tallied.take(second(("i-1", 200, 800), ("i-1", 500, 40_000)))
    tallied.take(second(("i-1", 200, 800), ("i-1", 424, 90_000_000), ("", 503, 0)))
    found = samples(tallied.families())
    ours = "account=123456789012,endpoint=churn,instance=i-1"
    rest = "region=us-east-1,variant=v"
    assert found[f"eyrie_invocations_total{{{ours},{rest}}}"] == 4
    assert found[f"eyrie_invocation_errors_total{{{ours},kind=5xx,{rest}}}"] == 2
    assert found[f"eyrie_invocation_errors_total{{{ours},kind=model,{rest}}}"] == 1
    buckets = [
        found[f"eyrie_model_latency_seconds_bucket{{{ours},le={le},{rest}}}"] for le in ("0.001", "60.0", "+Inf")
    ]
    assert buckets == [2, 3, 4]
    assert found[f"eyrie_model_latency_seconds_count{{{ours},{rest}}}"] == 4
    assert found[f"eyrie_model_latency_seconds_sum{{{ours},{rest}}}"] == pytest.approx(90.0416)
    assert found[f"eyrie_concurrent_requests{{{ours},{rest}}}"] == 2
    assert found["eyrie_gateway_events_total{event=retries,worker=gateway-0}"] == 1  # its running total, told twice
    assert found["eyrie_gateway_connections{worker=gateway-0}"] == 7


def test_what_was_not_heard_of_is_forgotten_and_instances_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    tallied = Tally(clock)
    tallied.take(second(("i-1", 200, 800)))
    clock.at_ms += tally.KEPT_MS + 1
    monkeypatch.setattr(tally, "SERIES_MAX", 1)
    tallied.take(second(("i-2", 200, 800), ("i-3", 200, 800)))
    instances = {s.labels["instance"] for f in tallied.families() if f.name == "eyrie_invocations" for s in f.samples}
    assert instances == {"i-2"}


def test_labels_are_escaped_and_empty_families_left_out() -> None:
    text = prometheus_text.text([gauge("a", 'about "it"\n', [Sample({"x": 'q"\\\n'}, 1.5)]), gauge("none", "", [])])
    assert b'a{x="q\\"\\\\\\n"} 1.5' in text
    assert b"none" not in text


# --- who sees what --------------------------------------------------------------------------------------------------

FAMILIES = [
    counter("eyrie_invocations", "", [
        Sample(labels_of(KEY.slug, "v", "i-1"), 1),
        Sample(labels_of("123456789012.us-east-1.other"), 2),
        Sample(labels_of("210987654321.us-east-1.churn"), 3),
        Sample(labels_of("123456789012.eu-west-1.churn"), 4),
    ]),
    gauge("eyrie_process_open_fds", "", [Sample({"process": "control"}, 9)]),
    histogram("eyrie_model_latency_seconds", "", [Distribution(labels_of(KEY.slug), (1.0,), (2.0, 1.0), 5.0)]),
]  # fmt: skip
SECRETS = {"all": b"eyrie_aaaaaaaaaa_" + b"A" * 43, "one": b"eyrie_bbbbbbbbbb_" + b"B" * 43}


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    path = tmp_path / "keys.json"
    given = [
        ApiKey("aaaaaaaaaa", digest(SECRETS["all"]), KEY.account, KEY.region),
        ApiKey("bbbbbbbbbb", digest(SECRETS["one"]), KEY.account, KEY.region, ("churn",)),
    ]
    path.write_text(keys_text(given))
    return KeyRing(path)


def seen(keys: KeyRing, authorization: bytes | None, everybody: bool = False) -> list[float]:
    exposition = Exposition([lambda: FAMILIES], keys, everybody=everybody)
    families = exposition.seen_by(authorization, 0)
    return sorted([s.value for f in families for s in f.samples] + [d.total for f in families for d in f.distributions])


def test_a_key_sees_its_account_and_region_or_its_endpoints(keys: KeyRing) -> None:
    assert seen(keys, b"Bearer " + SECRETS["all"]) == [1, 2, 5, 9]
    assert seen(keys, b"Bearer " + SECRETS["one"]) == [1, 5]
    assert seen(keys, None, everybody=True) == [1, 2, 3, 4, 5, 9]
    for wrong in (None, b"", b"Bearer x", b"Basic eA==", b"Bearer eyrie_aaaaaaaaaa_" + b"C" * 43):
        with pytest.raises(KeyRefused):
            seen(keys, wrong)


# --- sources --------------------------------------------------------------------------------------------------------


def test_instances_and_hosts_as_families() -> None:
    usage = InstanceUsage("i-1", KEY, "v", "ml.t2.medium", 2000, 1024, "/s", 0, 5_000_000, 77, 0.0)
    found = samples(of_instances({"i-1": (usage, {"CPUUtilization": 50.0})}, {"i-1": Credits(0, 0, 0, 3.0, 4.0)}))
    ours = "account=123456789012,endpoint=churn,instance=i-1,region=us-east-1,variant=v"
    assert found[f"eyrie_instance_cpu_percent{{{ours}}}"] == 50
    assert found[f"eyrie_instance_cpu_seconds_total{{{ours}}}"] == 5
    assert found[f"eyrie_instance_cpu_credits{{{ours}}}"] == 7
    first = HostUsage("box", 0, {"user": 1, "idle": 1}, disks={"vda": {"reads": 3, "iops_in_progress": 1}})
    later = HostUsage("box", 1, {"user": 2, "idle": 4}, disks={"vda": {"reads": 8, "iops_in_progress": 2}})
    found = samples(of_host(first, later))
    assert found["eyrie_host_cpu_usage_user{cpu=cpu-total,host=box}"] == 25
    assert found["eyrie_host_diskio_reads_total{device=vda,host=box}"] == 8
    assert found["eyrie_host_diskio_iops_in_progress{device=vda,host=box}"] == 2
    assert of_host(None, later) == []


class Contrary:
    """A Store whose commits fail as they are told."""

    def __init__(self) -> None:
        self.failure: Exception | None = None

    def commit(self, commit: Commit) -> None:
        if self.failure:
            raise self.failure


def test_commits_are_counted_by_their_outcome_and_timed() -> None:
    inner = Contrary()
    store = TimedStore(cast(Any, inner), iter([0.0, 0.004, 1.0, 1.2, 2.0, 2.0]).__next__)
    store.commit(Commit())
    for failure in (Conflict(), OSError()):
        inner.failure = failure
        with pytest.raises(type(failure)):
            store.commit(Commit())
    found = samples(store.families())
    assert [found[f"eyrie_store_commits_total{{outcome={o}}}"] for o in ("done", "conflict", "failed")] == [1, 1, 1]
    assert found["eyrie_store_commit_seconds_bucket{le=0.005}"] == 2
    assert found["eyrie_store_commit_seconds_sum{}"] == pytest.approx(0.204)


def test_a_loop_that_is_held_up_is_seen() -> None:
    lag = LoopLag()

    async def scenario() -> None:
        running = asyncio.create_task(lag.run())
        await asyncio.sleep(0.05)
        time.sleep(0.4)  # what must never happen on a loop
        await asyncio.sleep(0.05)
        running.cancel()

    asyncio.run(scenario())
    assert 0.1 < samples(lag.families())["eyrie_control_loop_lag_seconds{}"] < 5


def test_processes_are_known_by_their_locks(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("control", "objects"):  # nobody holds the second
        (tmp_path / "run" / f"{name}.lock").touch()
    found = samples(own_processes.families(tmp_path))
    assert found["eyrie_process_resident_memory_bytes{process=control}"] > 1e6
    assert found["eyrie_process_open_fds{process=control}"] > 0
    assert "eyrie_process_open_fds{process=objects}" not in found


# --- OTLP -----------------------------------------------------------------------------------------------------------


class Receiving(BaseHTTPRequestHandler):
    """A small receiver of OTLP over HTTP."""

    def do_POST(self) -> None:
        got: Any = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        got.received.append((self.path, dict(self.headers), json.loads(body)))
        self.send_response(got.status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listening() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Receiving)
    server.received, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_families_arrive_as_otlp(listening: Any, caplog: pytest.LogCaptureFixture) -> None:
    to = Receiver(f"http://127.0.0.1:{listening.server_port}/v1/metrics", {"x-key": "1"})
    export = OtlpExport(to, lambda: FAMILIES)
    assert export.send()
    ((path, headers, body),) = listening.received
    assert (path, headers["Content-Type"], headers["X-Key"]) == ("/v1/metrics", "application/json", "1")
    (resource,) = body["resourceMetrics"]
    assert {"key": "service.name", "value": {"stringValue": "eyrie"}} in resource["resource"]["attributes"]
    metrics = {m["name"]: m for m in resource["scopeMetrics"][0]["metrics"]}
    told = metrics["eyrie_invocations"]["sum"]
    assert (told["isMonotonic"], told["aggregationTemporality"], len(told["dataPoints"])) == (True, 2, 4)
    point = metrics["eyrie_model_latency_seconds"]["histogram"]["dataPoints"][0]
    assert (point["count"], point["sum"], point["bucketCounts"], point["explicitBounds"]) == ("3", 5, ["2", "1"], [1])
    assert metrics["eyrie_process_open_fds"]["gauge"]["dataPoints"][0]["asDouble"] == 9
    listening.status = 503
    assert not export.send()
    assert not export.send()
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1


def test_a_receiver_that_is_away_costs_one_export_and_holds_nothing_up() -> None:
    export = OtlpExport(Receiver("http://127.0.0.1:9/v1/metrics", every_ms=100), lambda: FAMILIES)

    async def scenario() -> int:
        running = asyncio.create_task(export.run())
        turns = 0
        for _ in range(30):
            await asyncio.sleep(0.01)
            turns += 1
        assert not running.done()
        running.cancel()
        return turns

    assert asyncio.run(scenario()) == 30


def test_a_port_that_speaks_no_http_costs_one_export(caplog: pytest.LogCaptureFixture) -> None:
    """As a receiver's port for gRPC, which answers with a frame of HTTP/2."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00@\x00\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        sent = OtlpExport(Receiver(f"http://127.0.0.1:{server.getsockname()[1]}/v1/metrics"), lambda: FAMILIES).send()
        thread.join(30)
    assert not sent
    assert "metrics cannot be sent" in caplog.text


def test_what_cannot_be_gathered_is_in_a_later_export(listening: Any, caplog: pytest.LogCaptureFixture) -> None:
    gathered: list[int] = []

    def families() -> list[Family]:
        gathered.append(1)
        if len(gathered) == 1:
            raise RuntimeError("the store is locked")
        return FAMILIES

    async def scenario() -> None:
        to = Receiver(f"http://127.0.0.1:{listening.server_port}/v1/metrics", every_ms=10)
        running = asyncio.create_task(OtlpExport(to, families).run())
        async with asyncio.timeout(30):
            while not listening.received and not running.done():
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    assert listening.received
    assert "the store is locked" in caplog.text


def test_where_to_send_is_read_from_the_setting_or_from_opentelemetrys_variables() -> None:
    assert receiver("", {}) is None
    env = {otlp.ENDPOINT: "http://h:4318/", otlp.HEADERS: "a=1, b=x%20y", otlp.INTERVAL: "500"}
    assert receiver("", env) == Receiver("http://h:4318/v1/metrics", {"a": "1", "b": "x y"}, 500)
    found = receiver("https://own", env)
    assert found is not None
    assert found.url == "https://own/v1/metrics"
    for address, more in (("ftp://x", {}), ("nonsense", {}), ("http://h", {otlp.INTERVAL: "soon"})):
        with pytest.raises(ReceiverUnusable):
            receiver(address, more)
