"""Attributes of queues and messages as SQS has them: names, bounds and defaults, digests, receipt handles. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from eyrie.dispatch.queue_table import Counts, Message, Queue
from eyrie.wire.errors import ApiError

MESSAGE_BYTES_MAX = 1_048_576
_NUMBERS = {  # name: lowest, highest, default
    "DelaySeconds": (0, 900, 0),
    "MaximumMessageSize": (1_024, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX),
    "MessageRetentionPeriod": (60, 1_209_600, 345_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20, 0),
    "VisibilityTimeout": (0, 43_200, 30),
}
_KEPT = frozenset({"Policy", "RedriveAllowPolicy", "SqsManagedSseEnabled"})  # and change nothing
_ATTRIBUTES_MAX = 10  # of a message
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


def check_name(name: str) -> None:
    """Raises ApiError for what is no name of a standard queue."""
    if name.endswith(".fifo"):
        raise ApiError("InvalidParameterValue", "FIFO queues are not supported by this Eyrie.")
    if not _NAME.fullmatch(name):
        said = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
        raise ApiError("InvalidParameterValue", said)


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """The attributes that may be set. Raises ApiError (InvalidAttributeName, InvalidAttributeValue)."""
    for name, value in given.items():
        if name in _NUMBERS:
            lowest, highest, _ = _NUMBERS[name]
            if not value.isdecimal() or not lowest <= int(value) <= highest:
                raise _bad_value(name, f"{value!r} is not a number from {lowest} to {highest}")
        elif name == "RedrivePolicy":
            _redrive(value)
        elif name not in _KEPT:
            raise ApiError("InvalidAttributeName", f"Unknown Attribute {name}, or not supported by this Eyrie.")
    return dict(given)


def _bad_value(name: str, why: str) -> ApiError:
    return ApiError("InvalidAttributeValue", f"Invalid value for the parameter {name}. Reason: {why}.")


def check_same(queue: Queue, given: Mapping[str, str]) -> None:
    """CreateQueue of a name that is taken must ask for what is there. Raises ApiError (QueueNameExists)."""
    for name, value in given.items():
        now = queue.attributes.get(name, str(_NUMBERS[name][2]) if name in _NUMBERS else "")
        if now != value:
            said = f"A queue already exists with the same name and a different value for attribute {name}"
            raise ApiError("QueueNameExists", said)


def number(queue: Queue, name: str) -> int:
    """The value of a numeric attribute."""
    return int(queue.attributes.get(name, _NUMBERS[name][2]))


def bounded(name: str, given: int | None, queue: Queue, told_as: str = "") -> int:
    """What a request says, within the attribute's bounds, else what the queue says. Raises ApiError."""
    if given is None:
        return number(queue, name)
    lowest, highest, _ = _NUMBERS[name]
    if not lowest <= given <= highest:
        said = (
            f"Value {given} for parameter {told_as or name} is invalid. Reason: Must be between {lowest} and {highest}."
        )
        raise ApiError("InvalidParameterValue", said)
    return given


def redrive(queue: Queue) -> tuple[str, int] | None:
    """ARN of the dead-letter queue, and how often a message may be received."""
    text = queue.attributes.get("RedrivePolicy", "")
    return _redrive(text) if text else None


def _redrive(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    try:
        told = json.loads(text)
        arn, most = str(told["deadLetterTargetArn"]), int(told["maxReceiveCount"])
    except (ValueError, KeyError, TypeError):
        raise _bad_value("RedrivePolicy", "it is no JSON with deadLetterTargetArn and maxReceiveCount") from None
    if not arn.startswith("arn:aws:sqs:") or not 1 <= most <= 1_000:
        raise _bad_value("RedrivePolicy", "deadLetterTargetArn must be a queue's, maxReceiveCount from 1 to 1000")
    return arn, most


def shown(queue: Queue, counts: Counts, names: Iterable[str]) -> dict[str, str]:
    """The attributes that were asked for."""
    every = {
        **{name: str(number(queue, name)) for name in _NUMBERS},
        **{name: value for name, value in queue.attributes.items() if value},
        "QueueArn": queue.arn,
        "CreatedTimestamp": str(queue.created_ms // 1000),
        "LastModifiedTimestamp": str(queue.modified_ms // 1000),
        "ApproximateNumberOfMessages": str(counts.visible),
        "ApproximateNumberOfMessagesNotVisible": str(counts.in_flight),
        "ApproximateNumberOfMessagesDelayed": str(counts.delayed),
    }
    wanted = set(names)
    return every if "All" in wanted else {name: value for name, value in every.items() if name in wanted}


# --- messages -------------------------------------------------------------------------------------------------------


def received(message: Message, params: Mapping[str, Any]) -> dict[str, Any]:
    """A message as ReceiveMessage shows it, with the attributes that were asked for."""
    found: dict[str, Any] = {
        "MessageId": message.message_id,
        "ReceiptHandle": write_handle(message.number, message.receipt),
        "MD5OfBody": md5(message.body.encode()),
        "Body": message.body,
    }
    asked = {*params.get("AttributeNames", ()), *params.get("MessageSystemAttributeNames", ())}
    own = {
        "SenderId": message.sender,
        "SentTimestamp": str(message.sent_ms),
        "ApproximateReceiveCount": str(message.receives),
        "ApproximateFirstReceiveTimestamp": str(message.first_ms),
    }
    own = {name: value for name, value in own.items() if name in asked or "All" in asked}
    if own:
        found["Attributes"] = own
    given = _wanted(message, params.get("MessageAttributeNames", ()))
    if given:
        found |= {"MessageAttributes": given, "MD5OfMessageAttributes": digest(given)}
    return found


def _wanted(message: Message, names: Iterable[str]) -> dict[str, Any]:
    if not message.attributes:
        return {}
    prefixes = [name.removesuffix("*").removesuffix(".") for name in names if name.endswith("*")]
    asked = set(names)
    every: dict[str, Any] = msgspec.json.decode(message.attributes)
    for value in every.values():
        if "BinaryValue" in value:
            value["BinaryValue"] = base64.b64decode(value["BinaryValue"])
    if asked & {"All", ".*"}:
        return every
    return {name: v for name, v in every.items() if name in asked or any(name.startswith(p) for p in prefixes)}


def size_of(given: Mapping[str, Any]) -> int:
    """Bytes of a message's attributes. Raises ApiError for what cannot be one."""
    if len(given) > _ATTRIBUTES_MAX:
        raise ApiError(
            "InvalidParameterValue", f"Number of message attributes [{len(given)}] exceeds {_ATTRIBUTES_MAX}."
        )
    size = 0
    for name, value in given.items():
        kind = value["DataType"]
        if kind.partition(".")[0] not in ("String", "Number", "Binary"):
            raise ApiError(
                "InvalidParameterValue", f"The type of message (user) attribute '{name}' is invalid: {kind!r}."
            )
        content = value.get("BinaryValue") if kind.startswith("Binary") else value.get("StringValue", "").encode()
        if not content:
            raise ApiError(
                "InvalidParameterValue", f"Message (user) attribute '{name}' must contain a non-empty value."
            )
        size += len(name) + len(kind) + len(content)
    return size


def md5(data: bytes) -> str:
    """MD5 as clients check it; no matter of security."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def digest(given: Mapping[str, Any]) -> str:
    """MD5OfMessageAttributes: names, types and values, sorted by name, each with its length before it."""
    parts: list[bytes] = []
    for name in sorted(given):
        value = given[name]
        binary = value["DataType"].startswith("Binary")
        content = value["BinaryValue"] if binary else value["StringValue"].encode()
        parts += [_counted(name.encode()), _counted(value["DataType"].encode())]
        parts += [b"\x02" if binary else b"\x01", _counted(bytes(content))]
    return md5(b"".join(parts))


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def write_handle(number: int, receipt: str) -> str:
    """A receipt handle."""
    return base64.urlsafe_b64encode(f"{number}.{receipt}".encode()).decode()


def read_handle(handle: str) -> tuple[int, str]:
    """The inverse. Raises ValueError."""
    text = base64.urlsafe_b64decode(handle.encode()).decode()
    number, dot, receipt = text.partition(".")
    if not dot or not number.isdecimal() or len(number) > 18:
        raise ValueError("not a receipt handle")
    return int(number), receipt
