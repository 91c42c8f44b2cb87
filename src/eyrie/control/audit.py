"""Who changed what, as a log group: `/eyrie/audit`, a stream a service, a record in CloudTrail's fields a call.

Every call that changes something is there, those that were refused too, once its signature was proven; calls that only
read, and what is put as data (log events, metric data, events), are not. Kept for 90 days unless the group's retention
says otherwise. Records are written each second; a control process that is killed loses those of its last second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eyrie.control.group_writer import GroupWriter, Kind, Line
from eyrie.control.log_book import LogBook
from eyrie.domain.names import Scope
from eyrie.ports import Clock
from eyrie.wire.credentials import Identity as Signer

GROUP = "/eyrie/audit"
RETENTION_DAYS = 90
WAITING_MAX = 10_000  # records that wait to be written
PARAMS_CHARS_MAX = 4_000
OWN = "eyrie"  # the service of Eyrie's own paths
_READS = ("Describe", "List", "Get", "Search", "Filter", "Lookup", "Test", "Batch", "Render", "Query")
_DATA = frozenset({"PutLogEvents", "PutMetricData", "PutEvents", "Publish", "PublishBatch", "StartQuery", "StopQuery"})
_HIDDEN = frozenset({"environment", "secret", "password", "authorization", "token"})  # whose values are not told


@dataclass(frozen=True, slots=True)
class Deed:
    """One call that was answered."""

    service: str  # boto3's name, or OWN
    operation: str
    params: Mapping[str, Any]
    signer: Signer
    request_id: str
    agent: str = ""
    error: tuple[str, str] | None = None  # code and words, where it was refused


def changes(service: str, operation: str) -> bool:
    """Whether an operation changes something, by its name."""
    if service == OWN:
        return not operation.startswith("GET ")
    return operation not in _DATA and not operation.startswith(_READS)


class Audit(GroupWriter[tuple[int, Deed]]):
    """Hears what was answered, on the event loop and without waiting; writes it each second."""

    def __init__(self, book: LogBook, clock: Clock) -> None:
        super().__init__(Kind("audit records", _lines, RETENTION_DAYS, WAITING_MAX), book, clock)

    def take(self, deed: Deed) -> None:
        """One call."""
        if changes(deed.service, deed.operation):
            self.hear((self.clock.now_ms(), deed))


def _lines(heard: tuple[int, Deed]) -> Iterator[Line]:
    at_ms, deed = heard
    scope = Scope(deed.signer.account, deed.signer.region)
    yield Line(scope, GROUP, deed.service, (at_ms, record(at_ms, deed)))


def record(at_ms: int, deed: Deed) -> str:
    """A call in the fields of a CloudTrail record, as one line of JSON."""
    code, words = deed.error or (None, None)
    who = {"accountId": deed.signer.account, "accessKeyId": deed.signer.access_key_id}
    told = {
        "eventTime": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "eventSource": f"{deed.service}.amazonaws.com" if deed.service != OWN else OWN,
        "eventName": deed.operation,
        "awsRegion": deed.signer.region,
        "userIdentity": who,
        "userAgent": deed.agent[:256],
        "requestParameters": told_params(deed.params),
        "requestID": deed.request_id,
        **({"errorCode": code, "errorMessage": str(words)[:500]} if code else {}),
    }
    return json.dumps(told, default=str)


def told_params(params: Mapping[str, Any]) -> Any:
    """The parameters without what may be secret; of very long ones the names that are texts."""
    shown: Any = _told(params)
    if len(json.dumps(shown, default=str)) <= PARAMS_CHARS_MAX:
        return shown
    short = {name: value for name, value in shown.items() if isinstance(value, str) and len(value) <= 256}
    return {**dict(list(short.items())[:10]), "omitted": "the other parameters, which are too long to be kept"}


def _told(value: Any, name: str = "") -> Any:
    if name.lower() in _HIDDEN:
        return dict.fromkeys(value, "(hidden)") if isinstance(value, Mapping) else "(hidden)"
    if isinstance(value, Mapping):
        return {str(key): _told(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(inner) for inner in value]
    return f"({len(value)} bytes)" if isinstance(value, (bytes, bytearray)) else value


Hears = Callable[[Deed], None]
