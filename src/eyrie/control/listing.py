"""Lists: filters, sorting and paging, the same for every noun.

A token is opaque, names the row that the next page starts after (so rows created or deleted meanwhile neither repeat
nor hide others) and holds a digest of the filters: used with others it is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eyrie.control.context import Params
from eyrie.wire.errors import ApiError, validation

PAGE_DEFAULT = 10
PAGE_MAX = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One resource on its way into a list."""

    name: str
    created_ms: int
    modified_ms: int
    summary: dict[str, Any]
    status: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is sorted where the call does not say."""

    by: str = "CreationTime"  # CreationTime | LastModifiedTime | Name | Status
    descending: bool = True


NEWEST_FIRST = Order()

_NOT_FILTERS = frozenset({"MaxResults", "NextToken"})
_MOMENTS: dict[str, tuple[Callable[[Row], int], bool]] = {
    "CreationTimeAfter": (lambda row: row.created_ms, True),
    "CreationTimeBefore": (lambda row: row.created_ms, False),
    "CreatedAfter": (lambda row: row.created_ms, True),
    "CreatedBefore": (lambda row: row.created_ms, False),
    "LastModifiedTimeAfter": (lambda row: row.modified_ms, True),
    "LastModifiedTimeBefore": (lambda row: row.modified_ms, False),
    "ModifiedTimeAfter": (lambda row: row.modified_ms, True),
    "ModifiedTimeBefore": (lambda row: row.modified_ms, False),
}


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one page, and the token of the next one."""

    rows: Sequence[Row]
    next_token: str | None

    def reply(self, member: str) -> dict[str, Any]:
        """The reply of a List operation: the summaries under `member`, and NextToken where there is more."""
        found: dict[str, Any] = {member: [row.summary for row in self.rows]}
        if self.next_token is not None:
            found["NextToken"] = self.next_token
        return found


def page(operation: str, params: Params, rows: Sequence[Row], default: Order = NEWEST_FIRST) -> Page:
    """The page that `params` ask for. Raises ValidationException for a token that is not this list's."""
    sort_key = _sort_key(params.get("SortBy", default.by))
    descending = params["SortOrder"] == "Descending" if "SortOrder" in params else default.descending
    after = _after(operation, params, text=isinstance(sort_key(Row("", 0, 0, {}))[0], str))
    found = sorted((row for row in rows if _matches(row, params)), key=sort_key, reverse=descending)
    if after is not None:
        found = [row for row in found if (sort_key(row) < after if descending else sort_key(row) > after)]
    size = min(int(params.get("MaxResults", PAGE_DEFAULT)), PAGE_MAX)
    more = len(found) > size
    return Page(found[:size], _token(operation, params, sort_key(found[size - 1])) if more else None)


def milliseconds(moment: datetime | float) -> int:
    """A timestamp parameter, as milliseconds since the epoch."""
    return round((moment.timestamp() if isinstance(moment, datetime) else float(moment)) * 1000)


def _matches(row: Row, params: Params) -> bool:
    if params.get("NameContains", "").lower() not in row.name.lower():
        return False
    if "StatusEquals" in params and params["StatusEquals"] != row.status:
        return False
    for name, (moment, from_it_on) in _MOMENTS.items():
        if name in params and (moment(row) >= milliseconds(params[name])) is not from_it_on:
            return False
    return True


def offset_of(params: Params) -> int:
    """How many rows came before the page that `params` ask for, in a list that only grows at its end or not at all.
    Raises InvalidNextToken.
    """
    if not params.get("NextToken"):
        return 0
    try:
        (offset,) = json.loads(base64.b64decode(params["NextToken"].encode("ascii"), b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        offset = None
    if type(offset) is not int or offset < 0:
        raise ApiError("InvalidNextToken", "The parameter NextToken is not one that this list gave.")
    return offset


def offset_token(offset: int) -> str:
    """The token of the page before which so many rows came."""
    return base64.urlsafe_b64encode(json.dumps([offset]).encode()).decode()


def _sort_key(by: str) -> Callable[[Row], tuple[str | int, str]]:
    match by:
        case "Name":
            return lambda row: (row.name, row.name)
        case "Status":
            return lambda row: (row.status, row.name)
        case "LastModifiedTime":
            return lambda row: (row.modified_ms, row.name)
        case "CreationTime":
            return lambda row: (row.created_ms, row.name)
    raise validation(f"Sorting by {by} is not supported here.")


def _after(operation: str, params: Params, text: bool) -> tuple[str | int, str] | None:
    """The sort key that the page starts after, read from the token; `text` says whether this list sorts by text."""
    if not params.get("NextToken"):
        return None
    try:
        digest, value, name = json.loads(base64.b64decode(params["NextToken"].encode("ascii"), b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise bad_token() from None
    if digest != _digest(operation, params) or not isinstance(name, str) or type(value) is not (str if text else int):
        raise bad_token()
    return value, name


def bad_token() -> ApiError:
    """The refusal of a token that the list did not give."""
    return validation("Invalid NextToken: it does not belong to this list with these filters.")


def _token(operation: str, params: Params, last: tuple[str | int, str]) -> str:
    text = json.dumps([_digest(operation, params), *last], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def _digest(operation: str, params: Params) -> str:
    filters = {name: value for name, value in params.items() if name not in _NOT_FILTERS}
    text = json.dumps([operation, filters], sort_keys=True, default=_show)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _show(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
