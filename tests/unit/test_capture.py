"""Data capture: what is kept, how it is written, where it goes, and what becomes of it when something goes wrong."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import random
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway_world import Call, World, until, world

from eyrie.adapters.capture_buckets import CaptureBuckets, NotDelivered
from eyrie.adapters.capture_keys import CaptureKeys, Unsealable, is_sealed
from eyrie.adapters.capture_spool import Spool, SpoolWriter, Write
from eyrie.cli.capture import cat
from eyrie.cli.errors import CommandError
from eyrie.control.captures import DELIVERED, DROPPED, RECORDS, Captures
from eyrie.decide import capture as decide
from eyrie.domain.capture import CaptureFile, CaptureRoute, Encoding
from eyrie.domain.metrics import Measured
from eyrie.domain.routing import ContainerMode
from eyrie.gateway import capture as module
from eyrie.gateway.capture import CaptureTap
from eyrie.gateway.taps import Exchange
from eyrie.ports import Commit, Event
from eyrie.settings import Settings

SM = "X-Amzn-SageMaker-"
ALL = CaptureRoute(100, "s3://b/p", True, True)
FILE = CaptureFile("123456789012.us-east-1.e", "v", "s3://b/some/where", "", 1_790_000_000_123, "n-1")
CONFIG = {
    "InitialSamplingPercentage": 20,
    "DestinationS3Uri": "s3://b/p/",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}

# ---- decisions ----


def test_what_a_config_asks_for() -> None:
    assert decide.route_of(None) is None
    assert decide.route_of({**CONFIG, "EnableCapture": False}) is None
    assert decide.route_of(CONFIG) == CaptureRoute(20, "s3://b/p", True, False)
    both = decide.route_of({**CONFIG, "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}]})
    assert both == replace(ALL, percentage=20)
    assert decide.route_of({**CONFIG, "CaptureOptions": [{"CaptureMode": "InputAndOutput"}]}) == both


def test_a_sample_is_as_large_as_it_was_asked_for() -> None:
    draws = random.Random(7)
    kept = sum(decide.sampled(20, draws.random()) for _ in range(20_000))
    assert abs(kept - 4_000) < 4 * (20_000 * 0.2 * 0.8) ** 0.5
    assert not decide.sampled(0, 0.0)
    assert decide.sampled(100, 0.999_999)


@pytest.mark.parametrize(
    ("kind", "text", "encoding"),
    [
        ("text/csv", True, "CSV"),
        ("Text/CSV; charset=utf-8", True, "CSV"),
        ("application/x-rows", True, "CSV"),
        ("application/json", True, "JSON"),
        ("application/x-doc; v=1", True, "JSON"),
        ("text/html; charset=utf-8", True, "TEXT"),
        ("text/html; charset=utf-8", False, "BASE64"),
        ("application/jsonlines", True, "TEXT"),
        ("application/vnd.api+json", True, "TEXT"),
        ("application/x-npy", True, "BASE64"),
        ("", True, "BASE64"),
    ],
)
def test_how_a_content_type_is_written(kind: str, text: bool, encoding: str) -> None:
    route = replace(ALL, csv_types=("application/x-rows",), json_types=("application/x-doc",))
    assert decide.encoding_of(kind, route, text) == encoding


def test_a_file_is_done_by_age_by_size_and_with_its_hour() -> None:
    began = 3_600_000 * 500_000
    assert not decide.is_done(began + 59_999, began, 999, 60_000, 1_000)
    assert decide.is_done(began + 60_000, began, 1, 60_000, 1_000)
    assert decide.is_done(began + 1, began, 1_000, 60_000, 1_000)
    assert decide.is_done(began, began - 1, 1, 60_000, 1_000)


def test_the_name_of_an_object() -> None:
    bucket, key = decide.object_of(FILE, "2026/11/21/19", "04-05-006")
    assert (bucket, key) == ("b", "some/where/e/v/2026/11/21/19/04-05-006-n-1.jsonl")
    assert decide.object_of(replace(FILE, destination="s3://b"), "d", "c")[1] == "e/v/d/c-n-1.jsonl"


def test_a_destination_is_left_alone_for_longer_each_time() -> None:
    waits = [decide.retry_in_ms(n) for n in range(1, 40)]
    assert waits[:3] == [1_000, 2_000, 4_000]
    assert waits == sorted(waits)
    assert waits[-1] == 60_000


# ---- a gateway worker ----


def run(test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world(**{"capture_disk_percent_max": 100, **settings}) as made:
            await test(made)

    asyncio.run(main())


def files(w: World, suffix: str = "sealed") -> list[Path]:
    return sorted((w.data / "capture").glob(f"*/*.{suffix}"))


def records(w: World, suffix: str = "sealed") -> list[dict[str, Any]]:
    """Every record on disk, those heads left out."""
    return [json.loads(line) for path in files(w, suffix) for line in path.read_text().splitlines()[1:]]


def test_a_record_is_what_sagemaker_writes() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await call.answer(b"0.5\n", lines="content-type: text/csv; charset=utf-8\r\n")

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])}, capture=ALL)
        reply = await w.invoke('1,"ä"'.encode(), **{f"{SM}Inference-Id": "id-7", f"{SM}Custom-Attributes": "a=b"})
        await w.invoke(b"2,2")
        w.gateway.capture.close()
        first, second = records(w)
        stamp = first["eventMetadata"].pop("inferenceTime")
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp)
        assert first == {
            "captureData": {
                "endpointInput": {
                    "observedContentType": "text/csv", "mode": "INPUT", "data": '1,"ä"', "encoding": "CSV",
                },
                "endpointOutput": {
                    "observedContentType": "text/csv; charset=utf-8", "mode": "OUTPUT", "data": "0.5\n",
                    "encoding": "CSV",
                },
            },
            "eventMetadata": {
                "eventId": reply.headers["x-amzn-requestid"], "inferenceId": "id-7", "customAttributes": ["a=b"],
            },
            "eventVersion": "0",
        }  # fmt: skip
        assert sorted(second["eventMetadata"]) == ["eventId", "inferenceTime"]
        (path,) = files(w)
        head = json.loads(path.read_text().splitlines()[0])
        assert (head["slug"], head["variant"], head["destination"]) == (FILE.slug, "v", "s3://b/p")
        assert path.stat().st_mode & 0o777 == 0o600

    run(test)


def test_input_or_output_alone_and_only_of_requests_that_were_answered_well() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await call.answer(b"out", 500 if call.body == b"bad" else 200)

        one = await w.instance("i-1", behave)
        for n, route in enumerate((replace(ALL, outputs=False), replace(ALL, inputs=False))):
            w.publish({"v": (1.0, [one])}, capture=replace(route, destination=f"s3://b/{n}"))
            await w.invoke(b"in")
            assert (await w.invoke(b"bad")).status == 424
        w.gateway.capture.close()
        assert sorted(next(iter(r["captureData"])) for r in records(w)) == ["endpointInput", "endpointOutput"]
        assert [len(r["captureData"]) for r in records(w)] == [1, 1]

    run(test)


def test_bytes_are_base64_also_where_the_type_says_otherwise_and_long_bodies_are_whole() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            await call.answer(call.body, lines=f"content-type: {call.headers['content-type']}\r\n")

        w.publish({"v": (1.0, [await w.instance("i-1", behave)])}, capture=ALL)
        long = ('ä"\\\n' * 200_000).encode()
        bodies = {
            "text/csv": b"1,\xff", "application/octet-stream": bytes(range(256)) * 2_000, "text/plain": long,
        }  # fmt: skip
        for kind, body in bodies.items():
            await w.invoke(body, **{"Content-Type": kind})
        w.gateway.capture.close()
        for (kind, body), found in zip(bodies.items(), records(w), strict=True):
            for side in found["captureData"].values():
                assert side["observedContentType"] == kind
                data = side["data"]
                if kind == "text/plain":
                    assert (side["encoding"], data) == ("TEXT", body.decode())
                else:
                    assert (side["encoding"], base64.b64decode(data)) == ("BASE64", body)

    run(test)


def test_a_stream_and_a_body_that_is_too_long_are_left_out_and_counted() -> None:
    async def test(w: World) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])}, capture=ALL)
        await w.invoke(b"1,2", action="invocations-response-stream")
        await w.invoke(b"x" * (module.BODY_BYTES_MAX + 1))
        w.gateway.capture.close()
        assert [sorted(r["captureData"]) for r in records(w)] == [["endpointInput"], ["endpointOutput"]]
        assert w.counter("capture_bodies_left_out") == 2

    run(test)


def test_a_session_and_a_target_model_are_captured_as_any_other() -> None:
    async def test(w: World) -> None:
        async def behave(call: Call) -> None:
            more = f"{SM}New-Session-Id: s-1\r\n" if f"{SM}Session-Id".lower() in call.headers else ""
            await call.answer(b"out", lines="content-type: text/csv\r\n" + more)

        one = await w.instance("i-1", behave)
        w.publish({"v": (1.0, [one])}, capture=ALL)
        assert (await w.invoke(b"first", **{f"{SM}Session-Id": "NEW_SESSION"})).status == 200
        w.publish({"v": (1.0, [one])}, capture=ALL, mode=ContainerMode.MULTI_MODEL)
        assert (await w.invoke(b"second", **{f"{SM}Target-Model": "m.tar.gz"})).status == 200
        w.gateway.capture.close()
        found = records(w)
        sides = [[side["data"] for side in record["captureData"].values()] for record in found]
        assert sides == [["first", "out"], ["second", "out"]]
        assert [record["eventMetadata"].get("targetModel") for record in found] == [None, "m.tar.gz"]

    run(test)


def test_what_v2_asks_and_gets_is_captured_as_its_client_saw_it() -> None:
    async def test(w: World) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1", lambda call: call.answer(b"0.5\n"))])}, capture=ALL)
        asked = {"id": "r-1", "inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}]}
        body = json.dumps(asked).encode()
        head = b"POST /v2/models/e/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        reply = await w.send(head + body)
        w.gateway.capture.close()
        (record,) = records(w)
        sides = record["captureData"]
        assert [side["encoding"] for side in sides.values()] == ["JSON", "JSON"]
        assert json.loads(sides["endpointInput"]["data"]) == asked
        assert json.loads(sides["endpointOutput"]["data"]) == reply.json()
        assert record["eventMetadata"]["inferenceId"] == "r-1"

    run(test, auth=False)


def test_a_share_of_the_requests_by_the_draw() -> None:
    async def test(w: World) -> None:
        draws = iter([0.1, 0.9, 0.19, 0.2])
        w.gateway.capture.draw = lambda: next(draws)
        w.publish({"v": (1.0, [await w.instance("i-1")])}, capture=replace(ALL, percentage=20))
        for n in range(4):
            await w.invoke(b"%d" % n)
        w.gateway.capture.close()
        assert [r["captureData"]["endpointInput"]["data"] for r in records(w)] == ["0", "2"]

    run(test)


def test_what_is_answered_is_on_disk_within_moments_and_seals_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(w: World) -> None:
        monkeypatch.setattr(w.gateway.feed, "tell_meter", lambda: None)
        w.publish({"v": (1.0, [await w.instance("i-1")])}, capture=ALL)
        await w.invoke(b"1,2")
        await until(lambda: len(records(w, "open") or records(w)) == 1, 30.0)
        await until(lambda: len(records(w)) == 1, 30.0)
        assert files(w, "open") == []
        told = w.gateway.meter.take(0)
        assert told is not None
        assert told["capture"] == {FILE.slug: {"v": {"records": 1}}}

    run(test, capture_flush_ms=500)


def test_a_file_is_whole_with_its_size_and_with_its_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 2_000)

    async def test(w: World) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])}, capture=ALL)
        await w.invoke(b"x" * 3_000)
        await until(lambda: len(files(w)) == 1, 30.0)
        tap = next(iter(w.gateway.book.endpoints.values())).variants["v", 0].tap
        heard: list[Exchange] = []
        monkeypatch.setattr(w.gateway.capture, "put", lambda tap, exchange: heard.append(exchange))
        await w.invoke(b"1")
        assert isinstance(tap, CaptureTap)
        hour = 3_600_000
        for at_ms in (hour * 500_000 - 1, hour * 500_000, hour * 500_001 - 1, hour * 500_001):
            assert tap.add_short(heard[0]._replace(at_ms=at_ms, fields=None))
        w.gateway.capture.close()
        counts = {}
        for path in files(w)[1:]:
            head, *lines = map(json.loads, path.read_text().splitlines())
            counts[head["began_ms"]] = [line["eventMetadata"]["inferenceTime"] for line in lines]
        assert counts == {
            hour * 500_000 - 1: ["2027-01-15T07:59:59Z"],
            hour * 500_000: ["2027-01-15T08:00:00Z", "2027-01-15T08:59:59Z"],
            hour * 500_001: ["2027-01-15T09:00:00Z"],
        }

    run(test)


def test_a_table_that_changes_keeps_the_file_and_another_capture_begins_another() -> None:
    async def test(w: World) -> None:
        one = await w.instance("i-1")
        w.publish({"v": (1.0, [one])}, capture=ALL)
        await w.invoke(b"1")
        w.publish({"v": (1.0, [one])}, capture=ALL)
        await w.invoke(b"2")
        w.publish({"v": (1.0, [one])}, capture=replace(ALL, destination="s3://other"))
        await w.invoke(b"3")
        w.publish({"v": (1.0, [one])})
        await w.invoke(b"4")
        w.gateway.capture.close()
        assert sorted(len(path.read_text().splitlines()) - 1 for path in files(w)) == [1, 2]

    run(test)


def test_what_finds_no_room_is_dropped_and_counted_and_no_reply_is_harmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES_MAX", 3_000)

    async def test(w: World) -> None:
        w.gateway.sweep.remove(w.gateway._turn)  # nothing is written meanwhile
        w.publish({"v": (1.0, [await w.instance("i-1")])}, capture=ALL)
        for _ in range(5):
            assert (await w.invoke(b"1")).status == 200
        told = w.gateway.meter.take(0)
        assert told is not None
        assert told["capture"] == {FILE.slug: {"v": {"memory": 3}}}
        assert told["counters"]["capture_dropped"] == 3
        w.gateway.sweep.add(w.gateway._turn)
        w.gateway.capture.close()
        assert len(records(w)) == 2

    run(test)


def test_a_full_disk_and_a_bucket_that_does_not_keep_up_pause_it(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {"disk": 91.0}
    monkeypatch.setattr(SpoolWriter, "disk_percent", lambda self: used["disk"])
    monkeypatch.setattr(module, "_LOOK_S", 0.0)

    async def test(w: World) -> None:
        disk = w.gateway.capture._disk
        w.publish({"v": (1.0, [await w.instance("i-1")])}, capture=ALL)
        await w.invoke(b"1")
        await until(lambda: disk.full == {FILE.slug: "disk"})
        await w.invoke(b"2")
        await until(lambda: len(files(w)) == 1 and not w.gateway.capture.busy)  # nothing is left to be written
        used["disk"] = 10.0
        await until(lambda: disk.full == {})
        await w.invoke(b"x" * 6_000)
        await until(lambda: disk.full == {FILE.slug: "waiting"})
        await w.invoke(b"4")
        for path in files(w, "sealed") + files(w, "open"):
            path.unlink()
        await until(lambda: disk.full == {})
        assert w.counter("capture_dropped") == 2

    run(test, capture_bytes_max=5_000, capture_flush_ms=100, capture_disk_percent_max=90)


def test_a_write_that_fails_loses_its_own_records_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real, failing = os.write, [False]

    def write(descriptor: int, data: Any) -> int:
        if failing[0] and len(data) > 20:
            real(descriptor, bytes(data[:10]))
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)

    async def test(w: World) -> None:
        w.publish({"v": (1.0, [await w.instance("i-1")])}, capture=ALL)
        await w.invoke(b"1")
        await until(lambda: len(records(w, "open")) == 1)
        failing[0] = True
        await w.invoke(b"2")
        await until(lambda: w.counter("capture_dropped") == 1)
        failing[0] = False
        await w.invoke(b"3")
        w.gateway.capture.close()
        assert [r["captureData"]["endpointInput"]["data"] for r in records(w)] == ["1", "3"]

    run(test)


# ---- files that a killed worker left ----


def read(spool: Spool, path: Path) -> tuple[CaptureFile, bytes]:
    return spool.head(path), spool.records(path)


def test_control_takes_whole_files_and_those_of_the_dead_but_none_of_the_living(tmp_path: Path) -> None:
    writer, spool = SpoolWriter(tmp_path), Spool(tmp_path)
    files = [replace(FILE, name=name, began_ms=n) for n, name in enumerate(("whole", "torn", "open"))]
    lines = b'{"a":1}\n{"b":2}\n'
    assert writer.write([Write(files[0], lines, 2, True), Write(files[2], lines, 2, False)]) == []
    dead = SpoolWriter(tmp_path)
    dead.write([Write(files[1], lines + b'{"c":', 2, False)])
    found = spool.waiting()
    assert [read(spool, path) for path in found] == [(files[0], lines)]
    dead.close()  # as the end of its process does
    found = spool.waiting()
    assert [read(spool, path) for path in found] == [(files[0], lines), (files[1], lines)]
    for path in found:
        spool.remove(path)
    assert spool.waiting() == []
    writer.write([Write(files[2], b"", 0, True)])
    assert [read(spool, path) for path in spool.waiting()] == [(files[2], lines)]
    writer.close()


def test_a_file_that_never_got_its_name_goes_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "capture" / FILE.slug
    folder.mkdir(parents=True)
    for name in ("1-a.new", "1-b.new", "1-c.new"):
        (folder / name).write_bytes(b"")
    for name in ("1-a.new", "1-b.new"):
        os.utime(folder / name, (1, 1))
    with open(folder / "1-b.new") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Spool(tmp_path).waiting() == []
        assert sorted(path.name for path in folder.iterdir()) == ["1-b.new", "1-c.new"]


# ---- control ----


class Bucket(CaptureBuckets):
    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.refuse: dict[str, str] = {}  # by destination

    def put(self, file: CaptureFile, records: bytes) -> str:
        if file.destination in self.refuse:
            raise NotDelivered(self.refuse[file.destination])
        self.stored[file.name] = records
        return f"{file.destination}/{file.name}"


class Book:
    """The store and the metrics, as far as captures use them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.counts: dict[str, float] = {}

    def commit(self, commit: Commit) -> None:
        self.events += commit.events

    def record(self, measured: list[Measured]) -> None:
        for one in measured:
            self.counts[one.metric.name] = self.counts.get(one.metric.name, 0) + one.summary.total

    def now_ms(self) -> int:
        return 5


def made(tmp_path: Path) -> tuple[Captures, Bucket, Book, list[float]]:
    bucket, book, now = Bucket(), Book(), [0.0]
    captures = Captures(Spool(tmp_path), bucket, book, book, book, lambda: now[0])  # type: ignore[arg-type]
    return captures, bucket, book, now


def put(tmp_path: Path, **change: Any) -> CaptureFile:
    file = replace(FILE, **change)
    writer = SpoolWriter(tmp_path)
    writer.write([Write(file, b"{}\n", 1, True)])
    return file


def test_files_go_to_their_buckets_once(tmp_path: Path) -> None:
    captures, bucket, book, _ = made(tmp_path)
    put(tmp_path)
    put(tmp_path, name="n-2")
    captures.look()
    assert bucket.stored == {"n-1": b"{}\n", "n-2": b"{}\n"}
    assert list((tmp_path / "capture").glob("*/*")) == []
    assert book.counts == {DELIVERED: 2}
    assert book.events == []


def test_a_bucket_that_refuses_delays_its_own_files_and_the_story_says_why(tmp_path: Path) -> None:
    captures, bucket, book, now = made(tmp_path)
    bucket.refuse["s3://bad"] = "NoSuchBucket"
    put(tmp_path, destination="s3://bad")
    put(tmp_path, name="n-2")
    for second in (0.0, 0.5, 1.5, 1.6):
        now[0] = second
        captures.look()
    assert bucket.stored == {"n-2": b"{}\n"}
    assert captures._troubles[FILE.slug, "s3://bad"].failures == 2
    assert [(e.what, e.why) for e in book.events] == [("captured data waits for its bucket", "NoSuchBucket")]
    bucket.refuse.clear()
    now[0] = 10.0
    captures.look()
    assert sorted(bucket.stored) == ["n-1", "n-2"]
    assert [e.what for e in book.events[1:]] == ["captured data goes to its bucket again"]
    assert {(e.kind, e.name) for e in book.events} == {("Endpoint", "e")}


def test_at_its_end_control_tries_all_at_once_again(tmp_path: Path) -> None:
    captures, bucket, _, now = made(tmp_path)
    bucket.refuse["s3://b/some/where"] = "down"
    put(tmp_path)
    captures.look()
    bucket.refuse.clear()
    now[0] = 0.1
    captures.look()
    assert bucket.stored == {}
    captures.finish()
    assert bucket.stored == {"n-1": b"{}\n"}


def test_what_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    captures, bucket, _, _ = made(tmp_path)
    folder = tmp_path / "capture" / FILE.slug
    folder.mkdir(parents=True)
    (folder / "1-x.sealed").write_bytes(b"nonsense\n{}\n")
    put(tmp_path)
    captures.look()
    assert list(bucket.stored) == ["n-1"]
    assert [path.name for path in folder.iterdir()] == ["1-x.unreadable"]


def test_drops_are_told_at_once_and_then_once_a_minute(tmp_path: Path) -> None:
    captures, _, book, now = made(tmp_path)
    for second, count in ((0, 3), (1, 2), (2, 0), (61, 4)):
        captures.take({"capture": {FILE.slug: {"v": {"records": 10, "memory": count}}}})
        now[0] = float(second)
        captures.look()
    assert [e.what for e in book.events] == ["3 captured records of v dropped", "6 captured records of v dropped"]
    assert "gateway worker" in book.events[0].why
    assert book.counts == {RECORDS: 40, DROPPED: 9}


# ---- encryption ----


def test_cat_prints_records_whether_they_are_encrypted_or_not(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    pytest.importorskip("cryptography")
    settings = Settings(data=tmp_path)
    plain, sealed, strange = (str(tmp_path / name) for name in ("plain", "sealed", "strange"))
    Path(plain).write_bytes(b'{"a":1}\n')
    Path(sealed).write_bytes(CaptureKeys(tmp_path).seal("1", "k", b'{"b":2}\n'))
    Path(strange).write_bytes(CaptureKeys(tmp_path).seal("1", "k", b"x")[:-1])
    cat(settings, [plain, sealed])
    assert capfdbinary.readouterr().out == b'{"a":1}\n{"b":2}\n'
    for source, why in ((strange, "cannot be decrypted"), (plain + "x", "No such file"), ("s3://b/x", "cannot be")):
        with pytest.raises(CommandError, match=why):
            cat(settings, [source])


def test_what_a_key_encrypts_only_that_key_opens(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    keys = CaptureKeys(tmp_path)
    sealed = keys.seal("123456789012", "alias/k", b"secret")
    again = CaptureKeys(tmp_path).seal("123456789012", "alias/k", b"secret")
    assert is_sealed(sealed)
    assert b"secret" not in sealed
    assert sealed != again
    assert CaptureKeys(tmp_path).unseal(sealed) == keys.unseal(again) == b"secret"
    assert (tmp_path / "capture-keys.json").stat().st_mode & 0o777 == 0o600
    head = sealed.index(b"\n", 20) + 1
    for place in (head - 20, head + 1, len(sealed) - 1):  # in the head, in the text, in its tag
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(Unsealable):
            keys.unseal(changed)
    with pytest.raises(Unsealable, match="no key 'alias/k'"):
        CaptureKeys(tmp_path / "elsewhere").unseal(sealed)
    other = tmp_path / "other"
    other.mkdir()
    CaptureKeys(other).seal("123456789012", "alias/k", b"x")
    with pytest.raises(Unsealable, match="another key"):
        CaptureKeys(other).unseal(sealed)
    shutil.rmtree(other)


def test_every_encoding_has_a_name() -> None:
    assert [str(encoding) for encoding in Encoding] == ["CSV", "JSON", "BASE64", "TEXT"]
