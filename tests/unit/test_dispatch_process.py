"""What becomes of an asynchronous request, whatever happens to its instance, its objects and the process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dispatch_world import KEY, ROUTE, Instance, World, echo, until, world

from eyrie.dispatch import requests
from eyrie.dispatch.storer import message_of
from eyrie.domain.async_inference import AsyncRoute, Ended, Outcome, Waiting
from eyrie.http1.handlers import Request, Response
from eyrie.wire.errors import ApiError


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for what is only a pause."""
    for name, seconds in (("SWEEP_S", 0.02), ("DOWN_S", 0.01), ("NOT_REACHED_S", 0.01)):
        monkeypatch.setattr(f"eyrie.dispatch.runner.{name}", seconds)
    monkeypatch.setattr("eyrie.dispatch.notifier._LOOK_S", 0.02)


def run(tmp_path: Path, test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def in_a_world() -> None:
        async with world(tmp_path) as w:
            await test(w)

    asyncio.run(in_a_world())


def test_small_and_large_results_keep_their_type(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        w.publish(await w.instance(echo))
        small, large = await w.ask(b"abc"), await w.ask(b"y" * 500_000)
        assert await w.object(small["OutputLocation"]) == ("text/echo", b"abc")
        assert await w.object(large["OutputLocation"]) == ("text/echo", b"y" * 500_000)
        await until(lambda: not w.dispatch.storer.waiting)
        assert list((w.data / "async").iterdir()) == []  # no file of a large result is left
        assert w.dispatch.runner.backlog(KEY.slug) == 0

    run(tmp_path, test)


def test_an_input_by_location_keeps_its_type_and_what_the_client_said_is_passed_on(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        heads: list[dict[bytes, bytes]] = []

        async def note(request: Request) -> Response:
            heads.append(dict(request.fields))
            return await echo(request)

        w.objects.kept["in/a b"] = ("text/own", b"there")
        w.publish(await w.instance(note))
        told = await w.ask(None, InputLocation="s3://b/in/a b", CustomAttributes="c=1", Accept="x/y", InferenceId="me")
        assert told["InferenceId"] == "me"
        assert (await w.object(told["OutputLocation"]))[1] == b"there"
        assert heads[0][b"content-type"] == b"text/own"
        assert heads[0][b"accept"] == b"x/y"
        assert heads[0][b"x-amzn-sagemaker-custom-attributes"] == b"c=1"
        assert heads[0][b"x-amzn-sagemaker-inference-id"] == b"me"

    run(tmp_path, test)


def test_what_a_model_refuses_and_an_input_that_is_not_there_are_failures(tmp_path: Path) -> None:
    async def refuse(request: Request) -> Response:
        return Response(400, [], b"no such bird")

    async def test(w: World) -> None:
        w.publish(await w.instance(refuse))
        told, gone = await w.ask(), await w.ask(None, InputLocation="s3://b/none")
        kind, said = await w.object(told["FailureLocation"])
        assert (kind, b'client error (400) from primary with message "no such bird"' in said) == ("text/plain", True)
        assert b"NoSuchKey" in (await w.object(gone["FailureLocation"]))[1]
        assert told["OutputLocation"].removeprefix("s3://b/") not in w.objects.kept

    run(tmp_path, test)


def test_requests_wait_for_an_instance_and_their_number_at_once_is_bounded(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        running = peak = 0

        async def count(request: Request) -> Response:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.02)
            running -= 1
            return await echo(request)

        told = [await w.ask(b"%d" % n) for n in range(12)]
        backlog = w.dispatch.told()["endpoints"][KEY.slug]
        assert (backlog["backlog"], backlog["instances"]) == (12, 0)
        w.publish(await w.instance(count), route=replace(ROUTE, concurrency=3))
        for n, one in enumerate(told):
            assert await w.object(one["OutputLocation"]) == ("text/echo", b"%d" % n)
        assert peak == 3

    run(tmp_path, test)


def test_what_was_accepted_outlives_the_process(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        told = [await w.ask(b"%d" % n) for n in range(5)]
        await w.stop()
        w.start()
        w.publish(await w.instance(echo))
        for n, one in enumerate(told):
            assert await w.object(one["OutputLocation"]) == ("text/echo", b"%d" % n)

    run(tmp_path, test)


def test_a_decided_outcome_is_what_appears_though_the_process_died_before(tmp_path: Path) -> None:
    """The instance answers differently each time; the first answer was decided, and no other is ever seen."""

    async def test(w: World) -> None:
        answers = iter(range(100))

        async def another(request: Request) -> Response:
            return Response(200, [], b"%d" % next(answers))

        one = await w.instance(another)
        w.publish(one)
        w.objects.away = True
        told = await w.ask()
        await until(lambda: w.dispatch.storer.waiting)
        await w.stop()
        w.objects.away = False
        w.start()
        assert (await w.object(told["OutputLocation"]))[1] == b"0"
        assert one.asked == 1

    run(tmp_path, test)


def dying(w: World, poison: bytes) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """An instance that ends when it gets the poison, and comes back."""

    async def answer(request: Request) -> Response:
        body = await request.read(1 << 20)
        if body == poison:
            await asyncio.sleep(0.03)  # its neighbours are there by now
            w.fall(*w.instances)
        await asyncio.sleep(0.05)
        return Response(200, [], body)

    return answer


def test_poison_is_given_up_after_two_instances_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        w.publish(await w.instance(dying(w, b"poison")))
        told = {body: await w.ask(body) for body in (b"a", b"poison", b"b", b"c")}
        _, said = await w.object(told[b"poison"]["FailureLocation"])
        assert b"2 instances ended while they had this request" in said
        for body in (b"a", b"b", b"c"):
            assert (await w.object(told[body]["OutputLocation"]))[1] == body
        assert len(w.objects.kept) == 4

    run(tmp_path, test)


def test_an_instance_that_was_retired_did_not_die_of_its_requests(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        asked = asyncio.Event()

        async def never(request: Request) -> Response:
            asked.set()
            await asyncio.sleep(60)
            return Response(200)

        old = await w.instance(never)
        w.publish(old)
        told = await w.ask(b"x")
        await asked.wait()
        w.publish(await w.instance(echo))
        assert w.dispatch.tables.busy == [old.name]
        await old.die()
        assert (await w.object(told["OutputLocation"]))[1] == b"x"
        await until(lambda: old.name in (w.dispatch.tables.take_idle(), w.dispatch.tables.idle)[1])

    run(tmp_path, test)


def test_an_instance_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        tries = 0

        async def busy(request: Request) -> Response:
            nonlocal tries
            tries += 1
            return Response(503, [], b"full") if tries < 3 else await echo(request)

        w.publish(await w.instance(busy))
        assert (await w.object((await w.ask())["OutputLocation"]))[1] == b"x"

    run(tmp_path, test)


def test_time_in_the_queue_and_in_an_invocation_end_in_failures(tmp_path: Path) -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(60)
        return Response(200)

    async def test(w: World) -> None:
        waiting = await w.ask(RequestTTLSeconds=0)
        assert b"waited longer than 0 seconds" in (await w.object(waiting["FailureLocation"]))[1]
        w.publish(await w.instance(slow))
        late = await w.ask(InvocationTimeoutSeconds=0)
        assert b"took longer than 0 seconds" in (await w.object(late["FailureLocation"]))[1]

    run(tmp_path, test)


def test_a_result_that_cannot_be_stored_is_a_failure(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        w.objects.refuses = "out/"
        w.publish(await w.instance(echo))
        for body in (b"small", b"l" * 300_000):
            told = await w.ask(body)
            assert b"could not be stored" in (await w.object(told["FailureLocation"]))[1]

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"body": None}, "One of InputLocation and Body"),
        ({"InputLocation": "s3://b/k"}, "mutually exclusive"),
        ({"body": None, "InputLocation": "https://b/k"}, "is not the s3:// address"),
        ({"body": None, "InputLocation": "s3://b"}, "is not the s3:// address"),
        ({"EndpointName": "other"}, "not found"),
    ],
)
def test_what_cannot_be_accepted_is_refused(tmp_path: Path, params: dict[str, Any], text: str) -> None:
    async def test(w: World) -> None:
        with pytest.raises(ApiError, match=text) as refused:
            await w.ask(**params)
        assert refused.value.code == "ValidationError"

    run(tmp_path, test)


def test_a_real_time_endpoint_and_a_full_queue_take_nothing(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        w.publish(route=None)
        with pytest.raises(ApiError, match="is not an asynchronous endpoint"):
            await w.ask()

    run(tmp_path, test)

    async def full(w: World) -> None:
        with pytest.raises(ApiError, match="EYRIE_QUEUE_BYTES_MAX"):
            await w.ask()
        assert w.dispatch.tally.counts["queue_bytes_limit"] == 1

    async def in_a_small_world() -> None:
        (tmp_path / "small").mkdir()
        async with world(tmp_path / "small") as w:
            await w.stop()
            w.settings = replace(w.settings, queue_bytes_max=1)
            w.start()
            await full(w)

    asyncio.run(in_a_small_world())


def test_what_waits_for_a_deleted_endpoint_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyrie.dispatch.runner.GONE_GRACE_S", 0.0)

    async def test(w: World) -> None:
        told = [await w.ask() for _ in range(3)]
        (w.data / "routes" / f"{KEY.slug}.json").unlink()
        w.dispatch.tables.read([KEY.slug])
        for one in told:
            assert b"The endpoint was deleted" in (await w.object(one["FailureLocation"]))[1]

    run(tmp_path, test)


def test_an_outcome_is_decided_once(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        await w.ask()
        first = Outcome(Ended.COMPLETED, "t", body=b"1", size=1)
        file = w.dispatch.file
        assert await file.write(lambda db: requests.decide(db, 1, first)) is True
        assert await file.write(lambda db: requests.decide(db, 1, replace(first, body=b"2"))) is False
        assert requests.outcome_of(file.db, 1) == first

    run(tmp_path, test)


def test_notifications_say_what_sagemaker_says() -> None:
    request = Waiting(
        1, KEY.slug, "me", 1_000, 9_000, 1, "text/csv", "", "", "s3://b/in", "s3://b/out/x", "s3://b/bad/x"
    )
    done = Outcome(Ended.COMPLETED, "text/csv", body=b"1,2", size=3)
    said = message_of(request, done, AsyncRoute(), 2_500, b"1,2")
    assert said == {
        "awsRegion": "us-east-1",
        "eventTime": "1970-01-01T00:00:02.500Z",
        "receivedTime": "1970-01-01T00:00:01.000Z",
        "invocationStatus": "Completed",
        "requestParameters": {"contentType": "text/csv", "endpointName": "birds", "inputLocation": "s3://b/in"},
        "responseParameters": {"contentType": "text/csv", "outputLocation": "s3://b/out/x"},
        "responseBody": {"content": "MSwy", "encoding": "BASE64"},
        "inferenceId": "me",
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    failed = message_of(request, Outcome(Ended.FAILED, "text/plain", "why"), AsyncRoute(), 2_500, None)
    assert (failed["invocationStatus"], failed["failureReason"]) == ("Failed", "why")
    assert failed["failureLocation"] == "s3://b/bad/x"
    assert "responseParameters" not in failed
    assert len(json.dumps(failed)) < 262_144


def test_a_topic_is_owed_a_message_until_control_takes_it(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        topic = "arn:aws:sns:us-east-1:123456789012:done"
        w.publish(await w.instance(echo), route=replace(ROUTE, success_topic=topic))
        told = await w.ask()
        await w.object(told["OutputLocation"])
        await until(lambda: requests.notifications(w.dispatch.file.db) == 1)
        bodies: list[bytes] = []

        async def answers(request: Request) -> Response:
            bodies.append(await request.read(1 << 20))
            return Response(200)

        control = Instance("control", w.data / "run" / "control.sock", answers)
        await control.open()
        try:
            await until(lambda: requests.notifications(w.dispatch.file.db) == 0)
            assert b"Action=Publish" in bodies[0]
        finally:
            await control.die()

    run(tmp_path, test)
