"""The load test's arithmetic and its wire: schedules, omission, saturation, signatures, replies."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.cli.load import Asked, Shape, processes_for, shape_of
from eyrie.decide.load import Stair, arrivals, corrected, even_gaps, hopeless, quantile, saturation
from eyrie.domain.load import LoadError, Second, Stage, second_of, stages, stairs
from eyrie.domain.metrics import Summary
from eyrie.load import drawing
from eyrie.load.loops import ClosedLoop, OpenLoop
from eyrie.load.plan import Plan, Target, decoded, encoded
from eyrie.load.recorder import Recorder
from eyrie.load.report import page
from eyrie.load.result import Described, Result, document
from eyrie.load.result import stairs as climbed
from eyrie.wire.signing import Signer


def summary(*values: float) -> Summary:
    made = Summary()
    for value in values:
        made.add(value)
    return made


# ---- schedule


def test_an_even_load_is_evenly_spaced_and_shared_without_a_gap() -> None:
    stage = [Stage(2.0, 10.0, 10.0)]
    whole = list(arrivals(stage, even_gaps(0, 1)))
    assert whole == pytest.approx([(n + 0.5) / 10 for n in range(20)])
    parts = [list(arrivals(stage, even_gaps(share, 3))) for share in range(3)]
    assert sorted(itertools.chain(*parts)) == pytest.approx(whole)


def test_a_ramp_has_as_many_requests_in_each_second_as_its_rate_says() -> None:
    found = list(arrivals([Stage(10.0, 0.0, 100.0)], even_gaps(0, 1)))
    assert len(found) == 500
    by_second = Counter(int(at) for at in found)
    assert [by_second[n] for n in range(10)] == pytest.approx([5 + 10 * n for n in range(10)], abs=1)
    down = list(arrivals([Stage(10.0, 100.0, 0.0)], even_gaps(0, 1)))
    assert sorted(10 - at for at in down) == pytest.approx(found, abs=0.05)


def test_stages_follow_each_other_and_silence_has_no_requests() -> None:
    found = list(arrivals([Stage(1.0, 4.0, 4.0), Stage(5.0, 0.0, 0.0), Stage(1.0, 4.0, 4.0)], even_gaps(0, 1)))
    assert found == pytest.approx([0.125, 0.375, 0.625, 0.875, 6.125, 6.375, 6.625, 6.875])


@pytest.mark.parametrize("wrong", [[], [Stage(0, 1, 1)], [Stage(1, -1, 1)], [Stage(1, 0.1, 0.1)], [Stage(1e9, 1, 1)]])
def test_loads_that_make_no_sense_are_refused(wrong: list[Stage]) -> None:
    with pytest.raises(LoadError):
        stages(wrong)


def test_stairs_end_where_they_are_told_to() -> None:
    assert [step.rps for step in stairs(100, 300, 100, 5)] == [100, 200, 300]
    assert [step.rps for step in stairs(0.1, 0.3, 0.1, 5)] == pytest.approx([0.1, 0.2, 0.3])
    for wrong in ((0, 1, 1, 1), (2, 1, 1, 1), (1, 2, 0, 1), (1, 2, 1, 0.5), (1, 1e9, 1, 1)):
        with pytest.raises(LoadError):
            stairs(*wrong)


# ---- omission


def test_a_long_wait_of_a_closed_loop_stands_for_those_that_were_not_sent() -> None:
    served = summary(*[1_000.0] * 99, 10_000.0)
    whole = corrected(served, 1_000.0)
    assert whole.count == 99 + 1 + 9  # 10, 9, 8 ... 1 ms
    assert quantile(served, 0.95) == pytest.approx(1_000, rel=0.01)
    assert quantile(whole, 0.95) == pytest.approx(5_000, rel=0.03)
    assert corrected(summary(1.0, 1.0), 1.0).count == 2  # nobody waited
    with pytest.raises(ValueError, match="interval"):
        corrected(served, 0.0)


def test_quantiles_are_within_a_percent() -> None:
    spread = summary(*(float(n) for n in range(1, 10_001)))
    for share in (0.01, 0.5, 0.99, 0.999):
        assert quantile(spread, share) == pytest.approx(share * 10_000, rel=0.011)
    assert quantile(Summary(), 0.5) is None


# ---- saturation


def climb(*seen: tuple[float, float, float, float]) -> list[Stair]:
    return [Stair(rps, achieved, errors, p99 / 2, p99) for rps, achieved, errors, p99 in seen]


def test_saturation_is_the_first_stair_that_was_not_kept_up_with() -> None:
    good = [(100.0, 100.0, 0.0, 4_000.0), (200.0, 199.0, 0.0, 5_000.0)]
    for broken, word in (
        ((300.0, 250.0, 0.0, 6_000.0), "only 250/s"),
        ((300.0, 300.0, 0.0, 90_000.0), "times the quiet"),
        ((300.0, 295.0, 0.02, 5_000.0), "failed"),
    ):
        verdict = saturation(climb(*good, broken))
        assert (verdict.sustained_rps, verdict.saturated_at_rps) == (200.0, 300.0)
        assert word in verdict.reason
    whole = saturation(climb(*good))
    assert (whole.sustained_rps, whole.saturated_at_rps) == (200.0, None)
    accident = saturation(climb((100.0, 100.0, 0.5, 4_000.0), (200.0, 199.0, 0.0, 5_000.0)))
    assert (accident.sustained_rps, accident.saturated_at_rps) == (200.0, None)
    assert "once it did not" in accident.reason
    none = saturation(climb((100.0, 50.0, 0.0, 1_000.0)))
    assert (none.sustained_rps, none.saturated_at_rps, none.best_rps) == (None, 100.0, 50.0)


def test_an_objective_bounds_p99_and_a_late_load_proves_nothing() -> None:
    stairs = climb((100.0, 100.0, 0.0, 4_000.0), (200.0, 200.0, 0.0, 9_000.0))
    assert saturation(stairs, 8_000.0).saturated_at_rps == 200.0
    late = [stairs[0], replace(stairs[1], lateness_us=50_000.0)]
    verdict = saturation(late)
    assert (verdict.sustained_rps, verdict.saturated_at_rps) == (100.0, None)
    assert "more processes" in verdict.reason
    with pytest.raises(ValueError, match="no stairs"):
        saturation([])


# ---- what a process tells


def test_two_stairs_that_were_clearly_missed_end_a_climb() -> None:
    kept, missed = Stair(100, 99, 0, 1e3, 2e3), Stair(200, 150, 0, 1e3, 2e3)
    late = Stair(300, 299, 0, 1e3, 2e3, lateness_us=50_000.0)
    assert not hopeless([])
    assert not hopeless([missed])
    assert not hopeless([missed, kept])
    assert not hopeless([kept, missed])
    assert hopeless([kept, missed, missed])
    assert hopeless([kept, missed, late])


def test_a_second_survives_the_way_between_processes() -> None:
    second = Second(5, 4, 3, Counter({"timeout": 1}), summary(10, 20), summary(15, 30), summary())
    told = json.loads(json.dumps(second.document()))
    assert second_of(told) == second
    merged = Second()
    merged.merge(second)
    merged.merge(second)
    assert (merged.intended, merged.errors["timeout"], merged.service.count) == (10, 2, 4)


def test_latencies_count_from_the_intended_beginning() -> None:
    recorder = Recorder(100.0)
    recorder.meant(100.2)
    recorder.sent(100.2, 101.2, free=False)
    recorder.answered(100.2, 101.2, 101.3)
    told = json.loads(recorder.line())["seconds"]
    assert second_of(told["0"]).service.total == pytest.approx(100_000, rel=1e-3)
    assert second_of(told["0"]).response.total == pytest.approx(1_100_000, rel=1e-3)
    assert (told["0"]["i"], told["0"]["a"], told["1"]["a"]) == (1, 0, 1)
    assert json.loads(recorder.line())["seconds"] == {}


# ---- signatures


@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize("path", ["/endpoints/iris/invocations", "/endpoints/a%20b/invocations"])
def test_a_signature_is_the_one_that_botocore_makes(token: str | None, path: str) -> None:
    headers = [("Content-Type", "text/csv"), ("X-Amzn-SageMaker-Target-Model", "a  50%.tar.gz")]
    signer = Signer("AKID", "secret", token, ("us-east-1", "sagemaker"), "127.0.0.1:7777", path, headers)
    body = b"1,2,3"
    head = signer.head(hashlib.sha256(body).hexdigest(), len(body), 1_800_000_000).decode()
    sent = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
    request = AWSRequest("POST", f"http://127.0.0.1:7777{path}", headers=dict(headers), data=body)
    theirs = SigV4Auth(Credentials("AKID", "secret", token), "sagemaker", "us-east-1")
    request.context["timestamp"] = sent["x-amz-date"]
    request.headers["X-Amz-Date"] = sent["x-amz-date"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical = theirs.canonical_request(request)
    signature = theirs.signature(theirs.string_to_sign(request, canonical), request)
    assert sent["authorization"].endswith(f"Signature={signature}")
    assert sent["content-length"] == "5"


# ---- the wire, against a server that answers what it is told


def plan(port: int, **changed: object) -> Plan:
    target = Target(
        "127.0.0.1", port, False, "/endpoints/e/invocations", [("Content-Type", "text/csv")], "A", "s", None, "r"
    )
    usual = {
        "target": target,
        "bodies": [b"1,2"],
        "models": [],
        "share": 0,
        "shares": 1,
        "stages": [Stage(0.1, 100.0, 100.0)],
        "poisson": False,
        "seed": 1,
        "users": 0,
        "think_s": 0.0,
        "seconds": 0.1,
        "connections": 4,
        "waiting_max": 100,
        "timeout_s": 0.15,
        "begin_s": 0.0,
    }
    return Plan(**{**usual, **changed})  # type: ignore[arg-type]


REPLIES = {
    "good": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"],
    "torn": [b"HTTP/1.1 200 OK\r\nConte", b"nt-Length: 5\r\n\r\nhe", b"llo"],
    "chunked": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", b"0\r\n\r\n"],
    "refused": [b"HTTP/1.1 429 No\r\nx-amzn-ErrorType: Throttled:http://x\r\ncontent-length: 2\r\n\r\n{}"],
    "closing": [b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n"],
    "garbage": [b"SSH-2.0-OpenSSH\r\n\r\n"],
    "silent": [],
}


class Answering(asyncio.Protocol):
    """The server's side of a connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.open.append(self)
        if self._server.closed:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._read.endswith(b"\r\n\r\n1,2"):
            self._read = b""
            loop = asyncio.get_running_loop()
            for number, piece in enumerate(self._server.reply):
                loop.call_later(self._server.after_s + number / 1000, self.transport.write, piece)


class Server:
    """Answers every request so, after a while."""

    def __init__(self, reply: list[bytes], after_s: float = 0.0) -> None:
        self.reply, self.after_s = reply, after_s
        self.open: list[Answering] = []
        self.closed = False

    async def __aenter__(self) -> int:
        self._server = await asyncio.get_running_loop().create_server(lambda: Answering(self), "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.closed = True
        for one in self.open:
            one.transport.abort()
        await asyncio.sleep(0.02)


def whole(recorder: Recorder) -> Second:
    found = Second()
    for told in json.loads(recorder.line())["seconds"].values():
        found.merge(second_of(told))
    return found


async def answered(reply: list[bytes], closed: bool) -> Second:
    """What a short load sees of a server that answers every request so."""
    async with Server(reply) as port:
        loop = asyncio.get_running_loop()
        begin = loop.time() + 0.02
        shape = {"stages": [], "users": 2} if closed else {}
        patience = {"timeout_s": 30.0} if reply else {}  # a full machine answers late
        asked = plan(port, begin_s=begin, **shape, **patience)
        recorder = Recorder(begin)
        work = ClosedLoop(asked, recorder) if closed else OpenLoop(asked, recorder)
        work.begin()
        while loop.time() < begin + 0.1 or (not work.over and loop.time() < begin + 10.0):
            await asyncio.sleep(0.01)
            work.sweep()
        work.close()
    return whole(recorder)


async def crowds(levels: list[tuple[float, int]]) -> list[int]:
    """How many users a closed loop has had, as they changed, until it has as many as at its end."""
    async with Server(REPLIES["good"]) as port:
        loop = asyncio.get_running_loop()
        begin = loop.time() + 0.02
        work = ClosedLoop(plan(port, begin_s=begin, levels=levels, stages=[], seconds=20.0), Recorder(begin))
        work.begin()
        seen = [0]
        while loop.time() < begin + 10.0 and not (len(seen) > len(levels) and seen[-1] == levels[-1][1]):
            if len(work.wires) != seen[-1] and not work.connecting:
                seen.append(len(work.wires))
            await asyncio.sleep(0.001)
        work.stop()
        work.close()
    return seen


def test_users_come_and_go_with_the_levels() -> None:
    seen = asyncio.run(crowds([(0.0, 3), (0.3, 1)]))
    assert (max(seen), seen[-1]) == (3, 1)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("good", ""),
        ("torn", ""),
        ("chunked", ""),
        ("closing", ""),
        ("refused", "429 Throttled"),
        ("silent", "timeout"),
        ("garbage", "no HTTP"),
    ],
)
def test_every_request_is_counted_once_whatever_the_server_says(reply: str, kind: str, closed: bool) -> None:
    seen = asyncio.run(answered(REPLIES[reply], closed))
    assert seen.intended >= (2 if closed else 10)
    assert seen.answered + sum(seen.errors.values()) == seen.intended
    if kind:
        assert set(seen.errors) == {kind}
    else:
        assert seen.answered == seen.intended == seen.service.count


def test_nobody_there_is_an_error_of_each_request() -> None:
    async def alone() -> Second:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        loop = asyncio.get_running_loop()
        recorder = Recorder(loop.time())
        work = OpenLoop(plan(port, begin_s=loop.time()), recorder)
        work.begin()
        while not work.over:
            await asyncio.sleep(0.01)
        work.close()
        return whole(recorder)

    seen = asyncio.run(asyncio.wait_for(alone(), 30))
    assert dict(seen.errors) == {"connection refused": 10}


def test_what_waits_behind_a_slow_reply_waits_in_the_response_time_alone() -> None:
    async def slow() -> Second:
        async with Server(REPLIES["good"], after_s=0.03) as port:
            begin = asyncio.get_running_loop().time() + 0.02
            recorder = Recorder(begin)
            work = OpenLoop(plan(port, begin_s=begin, connections=1, timeout_s=5.0), recorder)
            work.begin()
            while not work.over:
                await asyncio.sleep(0.01)
            work.close()
        return whole(recorder)

    seen = asyncio.run(asyncio.wait_for(slow(), 30))
    assert seen.answered == 10
    assert seen.service.highest < 100_000
    assert seen.response.highest > 180_000  # ten at 30 ms each, asked for within 100 ms


def test_a_plan_is_one_line() -> None:
    made = plan(1)
    assert encoded(made).count(b"\n") == 1
    assert decoded(encoded(made)) == made


# ---- the report


def result() -> Result:
    steps = stairs(10, 20, 10, 2)
    described = Described("e<>", "http://x", "stairs", True, 4.0, 1, 4, "text/csv", 3, 1, "2026-01-01T00:00:00+00:00")
    seconds = {
        at: Second(10 + 10 * (at // 2), 10, 10, Counter({"503 <b>": at}), summary(1_000, 2_000), summary(1_500, 90_000))
        for at in range(4)
    }
    return Result(described, seconds, stages(Stage(2, s.rps, s.rps) for s in steps), steps, {0: 0.99}, None)


def test_the_page_holds_everything_and_fetches_nothing() -> None:
    text = page(result())
    assert "http://" not in text.replace("http://x", "")
    assert "<script" not in text
    assert "e&lt;&gt;" in text
    assert "503 &lt;b&gt;" in text
    assert text.count("<svg") == 6
    assert "whole core" in text
    assert text.count("<main>") == text.count("</main>") == 1  # what a screen reader goes to
    assert "<tr><th><" not in text  # a head of a column says something
    assert text.count("<table") == text.count("role=region tabindex=0")  # it scrolls by itself, by keyboard too
    told = document(result())
    assert json.loads(json.dumps(told))["requests"] == 60
    assert told["saturation"]["saturated_at_rps"] == 10.0  # with a p99 of 90 ms and errors
    assert [stair.offered_rps for stair in climbed(result())] == [10, 20]


def test_a_page_of_nothing_is_a_page() -> None:
    empty = replace(result(), seconds={}, steps=(), stages=())
    assert "There were no good replies" in page(empty)


def test_axes_begin_at_zero_and_end_round() -> None:
    axis = drawing.linear(87.0, "x")
    assert [value for value, _ in axis.ticks] == [0, 20, 40, 60, 80, 100]
    assert axis.place(50) == 0.5
    assert drawing.logarithmic(0.5, 80, "x").ticks[0] == (0.1, "0.1")
    peak = [(float(n), 9.0 if n == 4_321 else 1.0) for n in range(10_000)]
    assert max(y for _, y in drawing.thinned(peak) if y) == 9.0


# ---- the command line


def asked(**changed: object) -> Asked:
    return Asked(endpoint="e", **changed)  # type: ignore[arg-type]


def test_one_shape_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert shape_of(tmp_path, asked(rps=10.0, duration="2m")).seconds == 120
    assert shape_of(tmp_path, asked(users=3)).users == 3
    assert shape_of(tmp_path, asked(ramp="1:10:20")).stages == (Stage(20, 1, 10),)
    assert len(shape_of(tmp_path, asked(stairs="10:30:10:5")).steps) == 3
    trace = tmp_path / "t.csv"
    trace.write_text("0,10\n2,20\n4,20\n")
    shape = shape_of(tmp_path, asked(trace=str(trace), scale=2.0))
    assert (shape.seconds, shape.stages[0].begin_rps, shape.stages[3].begin_rps) == (4.0, 20.0, 40.0)
    assert shape_of(tmp_path, asked(trace="constant:5", duration="10")).seconds == 10
    assert processes_for(Shape("", (Stage(1, 1, 10),), (), 0, 1.0)) == 1
