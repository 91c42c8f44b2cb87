"""Queues: messages are kept, hidden while they are worked on, come again unless they are deleted, outlive a process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dispatch_world import SIGNER, World, world

from eyrie.dispatch import queue_attributes
from eyrie.dispatch.app import operations
from eyrie.wire.credentials import Identity
from eyrie.wire.errors import ApiError


class Client:
    """The operations, spelled as boto3 spells them."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.url = f"http://host/{SIGNER.account}/q"

    async def __call__(self, operation: str, signer: Identity = SIGNER, **params: Any) -> dict[str, Any]:
        if operation not in ("CreateQueue", "GetQueueUrl", "ListQueues"):
            params = {"QueueUrl": self.url, **params}
        return await operations(self.w.dispatch.queues)[operation](signer, "host", params)

    async def received(self, **params: Any) -> list[dict[str, Any]]:
        return list((await self("ReceiveMessage", **params)).get("Messages", []))


def run(tmp_path: Path, test: Callable[[Client], Coroutine[Any, Any, None]], **attributes: str) -> None:
    async def in_a_world() -> None:
        async with world(tmp_path) as w:
            client = Client(w)
            made = await client("CreateQueue", QueueName="q", Attributes=attributes)
            assert made == {"QueueUrl": client.url}
            await test(client)

    asyncio.run(in_a_world())


def test_a_message_is_hidden_while_it_is_worked_on_and_comes_again(tmp_path: Path) -> None:
    async def test(q: Client) -> None:
        sent = await q("SendMessage", MessageBody="hello")
        assert sent["MD5OfMessageBody"] == "5d41402abc4b2a76b9719d911017c592"
        (first,) = await q.received(AttributeNames=["All"])
        assert (first["Body"], first["Attributes"]["ApproximateReceiveCount"]) == ("hello", "1")
        assert await q.received() == []
        await q("ChangeMessageVisibility", ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
        (again,) = await q.received(AttributeNames=["All"])
        assert (again["MessageId"], again["Attributes"]["ApproximateReceiveCount"]) == (first["MessageId"], "2")
        await q("DeleteMessage", ReceiptHandle=first["ReceiptHandle"])  # an older receipt deletes nothing
        await q("ChangeMessageVisibility", ReceiptHandle=again["ReceiptHandle"], VisibilityTimeout=0)
        (last,) = await q.received()
        await q("DeleteMessage", ReceiptHandle=last["ReceiptHandle"])
        counts = (await q("GetQueueAttributes", AttributeNames=["All"]))["Attributes"]
        assert (counts["ApproximateNumberOfMessages"], counts["ApproximateNumberOfMessagesNotVisible"]) == ("0", "0")

    run(tmp_path, test)


def test_a_receive_waits_for_a_message(tmp_path: Path) -> None:
    async def test(q: Client) -> None:
        waiting = asyncio.create_task(q.received(WaitTimeSeconds=10))
        await asyncio.sleep(0.01)
        await q("SendMessage", MessageBody="late")
        async with asyncio.timeout(5):
            assert [m["Body"] for m in await waiting] == ["late"]

    run(tmp_path, test)


def test_messages_survive_the_process(tmp_path: Path) -> None:
    async def test(q: Client) -> None:
        await q("SendMessage", MessageBody="kept", MessageAttributes={"n": {"DataType": "Number", "StringValue": "1"}})
        await q.w.stop()
        q.w.start()
        (found,) = await q.received(MessageAttributeNames=["All"])
        assert (found["Body"], found["MessageAttributes"]["n"]["StringValue"]) == ("kept", "1")

    run(tmp_path, test)


def test_batches_tell_which_were_done(tmp_path: Path) -> None:
    async def test(q: Client) -> None:
        entries = [{"Id": "a", "MessageBody": "1"}, {"Id": "b", "MessageBody": ""}]
        told = await q("SendMessageBatch", Entries=entries)
        assert [one["Id"] for one in told["Successful"]] == ["a"]
        assert [(one["Id"], one["Code"]) for one in told["Failed"]] == [("b", "InvalidMessageContents")]
        for bad, code in (
            ([], "EmptyBatchRequest"),
            ([entries[0]] * 2, "BatchEntryIdsNotDistinct"),
            ([{"Id": str(n), "MessageBody": "x"} for n in range(11)], "TooManyEntriesInBatchRequest"),
            ([{"Id": "a b", "MessageBody": "x"}], "InvalidBatchEntryId"),
        ):
            with pytest.raises(ApiError) as refused:
                await q("SendMessageBatch", Entries=bad)
            assert refused.value.code == code
        (one,) = await q.received()
        done = await q("DeleteMessageBatch", Entries=[{"Id": "x", "ReceiptHandle": one["ReceiptHandle"]}])
        assert done == {"Successful": [{"Id": "x"}]}

    run(tmp_path, test)


def test_what_is_received_too_often_goes_to_the_dead_letter_queue(tmp_path: Path) -> None:
    async def test(q: Client) -> None:
        await q("CreateQueue", QueueName="dead")
        policy = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:dead", "maxReceiveCount": 2}
        await q("SetQueueAttributes", Attributes={"RedrivePolicy": json.dumps(policy)})
        await q("SendMessage", MessageBody="bad")
        for _ in range(2):
            assert len(await q.received(VisibilityTimeout=0)) == 1
        assert await q.received() == []
        dead = q.url.removesuffix("q") + "dead"
        assert [m["Body"] for m in await q.received(QueueUrl=dead)] == ["bad"]

    run(tmp_path, test)


def test_delays_purges_and_deletions(tmp_path: Path) -> None:
    async def test(q: Client) -> None:
        await q("SendMessage", MessageBody="later", DelaySeconds=900)
        assert await q.received() == []
        shown = (await q("GetQueueAttributes", AttributeNames=["ApproximateNumberOfMessagesDelayed"]))["Attributes"]
        assert shown == {"ApproximateNumberOfMessagesDelayed": "1"}
        await q("PurgeQueue")
        assert (await q("ListQueues", QueueNamePrefix="q"))["QueueUrls"] == [q.url]
        await q("DeleteQueue")
        assert (await q("ListQueues"))["QueueUrls"] == []

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("CreateQueue", {"QueueName": "x.fifo"}, "InvalidParameterValue"),
        ("CreateQueue", {"QueueName": "a b"}, "InvalidParameterValue"),
        ("CreateQueue", {"QueueName": "q", "Attributes": {"DelaySeconds": "9"}}, "QueueNameExists"),
        ("CreateQueue", {"QueueName": "y", "Attributes": {"DelaySeconds": "901"}}, "InvalidAttributeValue"),
        ("SetQueueAttributes", {"Attributes": {"FifoQueue": "true"}}, "InvalidAttributeName"),
        ("SetQueueAttributes", {"Attributes": {"RedrivePolicy": "{}"}}, "InvalidAttributeValue"),
        ("GetQueueUrl", {"QueueName": "nobody"}, "QueueDoesNotExist"),
        ("SendMessage", {"QueueUrl": "http://host/999999999999/q", "MessageBody": "x"}, "QueueDoesNotExist"),
        ("SendMessage", {"MessageBody": "\x00"}, "InvalidMessageContents"),
        ("SendMessage", {"MessageBody": "x" * 1_048_577}, "InvalidParameterValue"),
        ("ReceiveMessage", {"MaxNumberOfMessages": 11}, "InvalidParameterValue"),
        ("ReceiveMessage", {"WaitTimeSeconds": 21}, "InvalidParameterValue"),
        ("DeleteMessage", {"ReceiptHandle": "zz"}, "ReceiptHandleIsInvalid"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, operation: str, params: dict[str, Any], code: str) -> None:
    async def test(q: Client) -> None:
        with pytest.raises(ApiError) as refused:
            await q(operation, **params)
        assert refused.value.code == code

    run(tmp_path, test)


def test_another_account_sees_nothing(tmp_path: Path) -> None:
    async def test(q: Client) -> None:
        other = replace(SIGNER, account="999999999999")
        with pytest.raises(ApiError, match="does not exist"):
            await q("ReceiveMessage", signer=other)
        assert await q("ListQueues", signer=other) == {"QueueUrls": []}

    run(tmp_path, test)


def test_old_messages_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyrie.dispatch.queues.SWEEP_S", 0.01)
    monkeypatch.setitem(queue_attributes._NUMBERS, "MessageRetentionPeriod", (0, 10, 0))

    async def test(q: Client) -> None:
        await q("SendMessage", MessageBody="old", DelaySeconds=900)
        async with asyncio.timeout(5):
            while True:
                shown = await q("GetQueueAttributes", AttributeNames=["ApproximateNumberOfMessagesDelayed"])
                if shown["Attributes"]["ApproximateNumberOfMessagesDelayed"] == "0":
                    return
                await asyncio.sleep(0.01)

    run(tmp_path, test)


def test_the_digest_of_attributes_counts_names_types_and_values() -> None:
    text = {"DataType": "String", "StringValue": "x"}
    assert queue_attributes.digest({"a": text}) == queue_attributes.md5(
        b"\x00\x00\x00\x01a\x00\x00\x00\x06String\x01\x00\x00\x00\x01x"
    )
    binary = {"DataType": "Binary", "BinaryValue": b"\x00"}
    assert queue_attributes.digest({"b": binary, "a": text}) == queue_attributes.md5(
        b"\x00\x00\x00\x01a\x00\x00\x00\x06String\x01\x00\x00\x00\x01x"
        b"\x00\x00\x00\x01b\x00\x00\x00\x06Binary\x02\x00\x00\x00\x01\x00"
    )
