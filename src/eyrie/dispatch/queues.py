"""The SQS API's basic operations: standard queues, over the durable file of dispatch.

A message is durable before SendMessage is answered; one that was received is hidden until its visibility time-out, and
 comes again unless it is deleted by its newest receipt: at least once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from eyrie.adapters.group_commit import GroupCommit
from eyrie.dispatch import queue_attributes as attributes
from eyrie.dispatch import queue_table as table
from eyrie.dispatch.queue_table import Message, Queue
from eyrie.dispatch.tally import Tally
from eyrie.domain.names import Scope
from eyrie.ports import Clock, Identity
from eyrie.wire.credentials import Identity as Signer
from eyrie.wire.errors import ApiError

QUEUES_MAX = 10_000  # of an account and region
WAITERS_MAX = 1_000  # receives that wait for a message, a process
BATCH_MAX = 10
PAGE = 1_000
SWEEP_S = 1.0
SWEEP_MAX = 1_000  # old messages of a queue that one sweep forgets
_LOOK_S = 0.2  # while a receive waits: messages become visible by time alone
_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TEXT = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
Params = Mapping[str, Any]
T = TypeVar("T")


class Queues:
    """Answers the operations. `host` is where the client found us: queue URLs begin with it."""

    def __init__(
        self, file: GroupCommit, clock: Clock, identity: Identity, tally: Tally, room_left: Callable[[], int]
    ) -> None:
        self._file, self._clock, self._identity, self._tally = file, clock, identity, tally
        self._room_left = room_left
        self._arrivals: dict[int, asyncio.Event] = {}  # by queue, while somebody waits
        self._waiters = 0

    async def sweep(self) -> None:
        """Forget messages beyond their retention. Never returns."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now_ms = self._clock.now_ms()
            for queue in table.every(self._file.db):
                before_ms = now_ms - 1000 * attributes.number(queue, "MessageRetentionPeriod")
                with contextlib.suppress(Exception):  # the boundary of one queue: a full disk; it is swept again
                    await self._forget_old(queue, before_ms)

    async def _forget_old(self, queue: Queue, before_ms: int) -> int:
        return await self._file.write(lambda db: table.forget_old(db, queue, before_ms, SWEEP_MAX))

    # --- queues -----------------------------------------------------------------------------------------------------

    async def create_queue(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Make a queue; one of that name and with these attributes is given back."""
        scope, name = Scope(signer.account, signer.region), params["QueueName"]
        attributes.check_name(name)
        given = attributes.checked(params.get("Attributes", {}))
        now = table.find(self._file.db, scope, name)
        if now is None:
            if len(table.listed(self._file.db, scope, "", "", QUEUES_MAX)) >= QUEUES_MAX:
                raise ApiError("OverLimit", f"There are {QUEUES_MAX} queues already.", 403)
            now_ms = self._clock.now_ms()
            now = await self._durable(lambda db: table.create(db, scope, name, given, now_ms))
        attributes.check_same(now, given)
        return {"QueueUrl": _url(host, now)}

    async def get_queue_url(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Where a queue is."""
        owner = params.get("QueueOwnerAWSAccountId") or signer.account
        queue = table.find(self._file.db, Scope(owner, signer.region), params["QueueName"])
        if queue is None or owner != signer.account:
            raise _missing()
        return {"QueueUrl": _url(host, queue)}

    async def list_queues(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Queues by name, in pages where a page is asked for."""
        most = int(params.get("MaxResults") or PAGE)
        if not 1 <= most <= PAGE:
            raise ApiError("InvalidParameterValue", f"MaxResults must be from 1 to {PAGE}, and is {most}.")
        after = _name_of(params.get("NextToken", ""))
        prefix = params.get("QueueNamePrefix", "")
        found = table.listed(self._file.db, Scope(signer.account, signer.region), prefix, after, most + 1)
        reply: dict[str, Any] = {"QueueUrls": [_url(host, queue) for queue in found[:most]]}
        if len(found) > most and params.get("MaxResults"):
            reply["NextToken"] = base64.urlsafe_b64encode(found[most - 1].name.encode()).decode()
        return reply

    async def delete_queue(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Forget a queue and all that is in it."""
        queue = self._queue(signer, params)
        await self._durable(lambda db: table.delete(db, queue))
        return {}

    async def purge_queue(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Forget all that is in a queue."""
        queue = self._queue(signer, params)
        await self._durable(lambda db: table.purge(db, queue))
        return {}

    async def get_queue_attributes(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """What is known of a queue, of it what was asked for."""
        queue = self._queue(signer, params)
        counts = table.counts(self._file.db, queue, self._clock.now_ms())
        return {"Attributes": attributes.shown(queue, counts, params.get("AttributeNames", ()))}

    async def set_queue_attributes(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Change some of a queue's attributes."""
        queue = self._queue(signer, params)
        kept = {**queue.attributes, **attributes.checked(params["Attributes"])}
        now_ms = self._clock.now_ms()
        await self._durable(lambda db: table.change(db, queue, kept, now_ms))
        return {}

    # --- messages ---------------------------------------------------------------------------------------------------

    async def send_message(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Keep a message."""
        return await self._send(self._queue(signer, params), signer, params)

    async def send_message_batch(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Keep up to ten messages; each is kept or refused by itself."""
        queue = self._queue(signer, params)
        entries = _entries(params)
        size = sum(len(str(entry["MessageBody"]).encode()) for entry in entries)
        if size > attributes.MESSAGE_BYTES_MAX:
            most = attributes.MESSAGE_BYTES_MAX
            said = f"Batch requests cannot be longer than {most} bytes. You have sent {size} bytes."
            raise ApiError("BatchRequestTooLong", said)
        return await _each(entries, lambda entry: self._send(queue, signer, entry))

    async def _send(self, queue: Queue, signer: Signer, params: Params) -> dict[str, Any]:
        body, given = params["MessageBody"], params.get("MessageAttributes", {})
        size = len(body.encode()) + attributes.size_of(given)
        most = attributes.number(queue, "MaximumMessageSize")
        if not body or not _TEXT.fullmatch(body):
            raise ApiError("InvalidMessageContents", "The message is empty, or has characters that are not allowed.")
        if size > most:
            said = f"One or more parameters are invalid. Reason: Message must be shorter than {most} bytes."
            raise ApiError("InvalidParameterValue", said)
        if self._room_left() < size + 4_096:
            self._tally.count("queue_bytes_limit")
            raise ApiError("RequestThrottled", "The queue's file has reached EYRIE_QUEUE_BYTES_MAX.", 403)
        delay_s = attributes.bounded("DelaySeconds", params.get("DelaySeconds"), queue)
        token = self._identity.token(32)
        message_id = "-".join((token[:8], token[8:12], token[12:16], token[16:20], token[20:]))
        now_ms = self._clock.now_ms()
        kept = msgspec.json.encode(given).decode() if given else ""
        row = (message_id, body, kept, signer.access_key_id, now_ms, now_ms + 1000 * delay_s)
        await self._durable(lambda db: table.send(db, queue, *row))
        arrival = self._arrivals.pop(queue.number, None)
        if arrival is not None:
            arrival.set()
        reply = {"MessageId": message_id, "MD5OfMessageBody": attributes.md5(body.encode())}
        return {**reply, "MD5OfMessageAttributes": attributes.digest(given)} if given else reply

    async def receive_message(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Take up to ten messages; wait for the first where it is asked for."""
        queue = self._queue(signer, params)
        most = int(params.get("MaxNumberOfMessages") or 1)
        if not 1 <= most <= BATCH_MAX:
            raise ApiError(
                "InvalidParameterValue", f"MaxNumberOfMessages must be from 1 to {BATCH_MAX}, and is {most}."
            )
        hidden_s = attributes.bounded("VisibilityTimeout", params.get("VisibilityTimeout"), queue)
        wait_s = attributes.bounded(
            "ReceiveMessageWaitTimeSeconds", params.get("WaitTimeSeconds"), queue, "WaitTimeSeconds"
        )
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while not (found := await self._receive(queue, most, hidden_s)) and loop.time() < until_s:
            await self._arrival(queue, until_s - loop.time())
        return {"Messages": [attributes.received(message, params) for message in found]} if found else {}

    async def _receive(self, queue: Queue, most: int, hidden_s: int) -> list[Message]:
        now_ms = self._clock.now_ms()
        if not table.visible(self._file.db, queue, now_ms):
            return []
        dead = self._dead_letters(queue)
        if dead is not None:
            await self._durable(lambda db: table.redrive(db, queue, dead[0], dead[1], now_ms))
        receipts = [self._identity.token(32) for _ in range(most)]
        visible_ms = now_ms + 1000 * hidden_s
        return await self._durable(lambda db: table.receive(db, queue, most, receipts, now_ms, visible_ms))

    def _dead_letters(self, queue: Queue) -> tuple[Queue, int] | None:
        """The queue for what was received too often, and how often that is."""
        policy = attributes.redrive(queue)
        if policy is None:
            return None
        found = table.find(self._file.db, queue.scope, policy[0].rpartition(":")[2])
        return None if found is None else (found, policy[1])

    async def _arrival(self, queue: Queue, wait_s: float) -> None:
        """Wait for a message, or a moment: some become visible by time alone."""
        if self._waiters >= WAITERS_MAX:
            self._tally.count("waiters_limit")
            raise ApiError("RequestThrottled", f"{WAITERS_MAX} receives wait already.", 403)
        self._waiters += 1
        arrival = self._arrivals.setdefault(queue.number, asyncio.Event())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, _LOOK_S)):
                    await arrival.wait()
        finally:
            self._waiters -= 1

    async def delete_message(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Forget a message; an older receipt of it forgets nothing, and is no error."""
        queue = self._queue(signer, params)
        number, receipt = _receipt(params["ReceiptHandle"])
        await self._durable(lambda db: table.remove(db, queue, number, receipt))
        return {}

    async def delete_message_batch(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Forget up to ten."""
        entries = _entries(params)
        where = {"QueueUrl": params["QueueUrl"]}
        return await _each(entries, lambda entry: self.delete_message(signer, host, {**where, **entry}))

    async def change_message_visibility(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Hide a message for longer or for less long; 0: it is visible at once."""
        queue = self._queue(signer, params)
        number, receipt = _receipt(params["ReceiptHandle"])
        hidden_s = attributes.bounded("VisibilityTimeout", params["VisibilityTimeout"], queue)
        now_ms = self._clock.now_ms()
        until_ms = now_ms + 1000 * hidden_s
        if not await self._durable(lambda db: table.hide(db, queue, number, receipt, now_ms, until_ms)):
            raise ApiError("MessageNotInflight", "The message referred to is not in flight by this receipt.")
        return {}

    async def change_message_visibility_batch(self, signer: Signer, host: str, params: Params) -> dict[str, Any]:
        """Likewise of up to ten."""
        where = {"QueueUrl": params["QueueUrl"]}
        return await _each(
            _entries(params), lambda entry: self.change_message_visibility(signer, host, {**where, **entry})
        )

    # --- what they share --------------------------------------------------------------------------------------------

    async def _durable(self, write: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.shield(self._file.write(write))

    def _queue(self, signer: Signer, params: Params) -> Queue:
        """The queue of a QueueUrl. Raises ApiError (QueueDoesNotExist)."""
        account, _, name = params["QueueUrl"].rpartition("/")
        owner = account.rpartition("/")[2]
        found = table.find(self._file.db, Scope(owner, signer.region), name)
        if found is None or owner != signer.account:
            raise _missing()
        return found


def _missing() -> ApiError:
    return ApiError("QueueDoesNotExist", "The specified queue does not exist.")


def _url(host: str, queue: Queue) -> str:
    return f"http://{host}/{queue.scope.account}/{queue.name}"


def _name_of(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError):
        raise ApiError("InvalidParameterValue", "The NextToken is not one of ours.") from None


def _receipt(handle: str) -> tuple[int, str]:
    """Number and receipt of a message. Raises ApiError (ReceiptHandleIsInvalid)."""
    try:
        return attributes.read_handle(handle)
    except ValueError:
        raise ApiError("ReceiptHandleIsInvalid", f'The input receipt handle "{handle[:64]}" is not valid.') from None


def _entries(params: Params) -> list[dict[str, Any]]:
    """The entries of a batch. Raises ApiError."""
    entries: list[dict[str, Any]] = params["Entries"]
    if not entries:
        raise ApiError("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(entries) > BATCH_MAX:
        said = f"Maximum number of entries per request are {BATCH_MAX}. You have sent {len(entries)}."
        raise ApiError("TooManyEntriesInBatchRequest", said)
    if len({entry["Id"] for entry in entries}) < len(entries):
        raise ApiError("BatchEntryIdsNotDistinct", "Two or more entries have the same Id.")
    for entry in entries:
        if not _ENTRY_ID.fullmatch(entry["Id"]):
            said = "A batch entry id can only contain alphanumeric characters, hyphens and underscores, 80 at most."
            raise ApiError("InvalidBatchEntryId", said)
    return entries


async def _each(entries: list[dict[str, Any]], work: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """All of a batch together, so that they share a commit; which were done, and which not."""
    found = await asyncio.gather(*(work(entry) for entry in entries), return_exceptions=True)
    done, refused = [], []
    for entry, result in zip(entries, found, strict=True):
        if isinstance(result, ApiError):
            told = {"Code": result.code, "Message": result.message, "SenderFault": result.status < 500}
            refused.append({"Id": entry["Id"], **told})
        elif isinstance(result, BaseException):
            raise result
        else:
            done.append({"Id": entry["Id"], **result})
    return {"Successful": done, **({"Failed": refused} if refused else {})}
