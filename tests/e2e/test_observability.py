"""What monitoring systems get of a running Eyrie: scrapes of /metrics on its one port, and OTLP where it is told to."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo_models import Model

from .conftest import Deployed, RealEyrie, running, until

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Receiving(BaseHTTPRequestHandler):
    """A small OTLP receiver."""

    def do_POST(self) -> None:
        got: Any = self.server
        got.received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Receiving)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def eyrie(receiver: Any) -> Iterator[RealEyrie]:
    """One that sends to the receiver twice a second."""
    url = f"http://127.0.0.1:{receiver.server_port}"
    with running(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_METRIC_EXPORT_INTERVAL=500) as eyrie:
        yield eyrie


def scrape(eyrie: RealEyrie, key: str | None) -> str:
    """The text; raises HTTPError."""
    asked = urllib.request.Request(f"http://127.0.0.1:{eyrie.port}/metrics")
    if key is not None:
        asked.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(asked, timeout=60) as reply:
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        return str(reply.read().decode())


def numbers(text: str) -> Found:
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(found: Found, name: str, **labels: str) -> float:
    return sum(value for (n, having), value in found.items() if n == name and labels.items() <= set(having))


def test_a_scrape_and_what_is_sent_say_what_happened(
    eyrie: RealEyrie, receiver: Any, deployed: Deployed, trained: tuple[list[Model], list[str], list[int]]
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        scrape(eyrie, None)
    assert (caught.value.code, caught.value.headers["www-authenticate"]) == (401, "Bearer")
    assert b"eyrie key create" in caught.value.read()
    caught.value.close()
    made = eyrie.run("key", "create").stdout
    key = next(word for word in made.split() if word.startswith("eyrie_"))
    deployed.create("told", instances=2)
    for row in deployed.rows[:20]:
        deployed.ask("told", row)

    def seen() -> Found:
        return numbers(scrape(eyrie, key))

    until(lambda: total(seen(), "eyrie_invocations_total", endpoint="told") == 20)
    until(lambda: total(seen(), "eyrie_instance_cpu_seconds_total", endpoint="told") > 0)
    found = seen()
    assert total(found, "eyrie_model_latency_seconds_count", endpoint="told", variant="sklearn") == 20
    assert total(found, "eyrie_endpoint_instances", endpoint="told", state="READY") == 2
    assert total(found, "eyrie_store_commits_total", outcome="done") > 5
    assert ("eyrie_control_loop_lag_seconds", frozenset()) in found
    assert until(lambda: total(seen(), "eyrie_gateway_connections")) >= 1
    processes = {dict(having)["process"] for n, having in found if n == "eyrie_process_resident_memory_bytes"}
    assert {"control", "objects", "gateway-0"} <= processes

    def arrived() -> set[str]:
        metrics = [
            m for body in receiver.received for r in body["resourceMetrics"] for m in r["scopeMetrics"][0]["metrics"]
        ]
        return {metric["name"] for metric in metrics}

    until(lambda: {"eyrie_invocations", "eyrie_model_latency_seconds", "eyrie_process_open_fds"} <= arrived())
    deployed.delete("told")


def test_everybody_may_scrape_where_the_setting_says_so(eyrie: RealEyrie, monkeypatch: pytest.MonkeyPatch) -> None:
    eyrie.down()
    monkeypatch.setenv("EYRIE_METRICS_OPEN", "on")
    eyrie.up()
    assert "eyrie_process_threads" in scrape(eyrie, None)
