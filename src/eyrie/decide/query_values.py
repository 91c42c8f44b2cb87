"""What a Logs Insights query works on: records with their fields, values and how they are shown, and the functions that
make values of values. Pure.

A value is a text, a number, a truth value or None, which is "not there". A text that reads as a number is one where a
number is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import ceil, floor, isfinite, log, sqrt
from typing import Any

DAY_MS = 86_400_000
JSON_CHARS_MAX = 1_048_576
_DECODER = json.JSONDecoder()
_BEGINS_NUMBER = frozenset("0123456789+-. ")


class Moment(int):
    """Milliseconds since the epoch, which are shown as a date and time."""


class Record:
    """One log event, or one row that a command made. Fields of a JSON message are found when one is asked for."""

    __slots__ = ("at_ms", "found", "ingested_ms", "log", "message", "ordinal", "shown_json", "stream")

    def __init__(
        self, at_ms: int = 0, message: str = "", stream: str = "", log: str = "", ingested_ms: int = 0, ordinal: int = 0
    ) -> None:
        self.at_ms = at_ms
        self.message = message
        self.stream = stream
        self.log = log
        self.ingested_ms = ingested_ms
        self.ordinal = ordinal
        self.found: dict[str, Any] = {}  # what commands made
        self.shown_json: Mapping[str, Any] | None = None

    def get(self, name: str) -> Any:
        """A field, made or discovered; None where there is none."""
        if name in self.found:
            return self.found[name]
        if name[:1] == "@":
            return self._system(name)
        document = self.shown_json
        if document is None:
            document = self.discovered()
        value = document.get(name)
        if value is None and "." in name:
            value = _at(document, name)
        return _plain(value) if type(value) in (dict, list) else value

    def _system(self, name: str) -> Any:
        match name:
            case "@timestamp":
                return Moment(self.at_ms) if self.log else None
            case "@message":
                return self.message if self.log else None
            case "@logStream":
                return self.stream or None
            case "@log":
                return self.log or None
            case "@ingestionTime":
                return Moment(self.ingested_ms) if self.log else None
        return None

    def discovered(self) -> Mapping[str, Any]:
        """The first JSON object in the message."""
        if self.shown_json is None:
            self.shown_json = _first_object(self.message)
        return self.shown_json


def _first_object(message: str) -> Mapping[str, Any]:
    at = message.find("{")
    if at < 0 or len(message) > JSON_CHARS_MAX:
        return {}
    try:
        found, _ = _DECODER.raw_decode(message, at)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _at(document: Any, path: str) -> Any:
    """What a path of names and positions leads to; a name may have dots of its own."""
    if isinstance(document, Mapping) and path in document:
        return document[path]
    head, dot, rest = path.partition(".")
    if not dot:
        return document[int(head)] if isinstance(document, list) and _position(head, document) else None
    if isinstance(document, Mapping) and head in document:
        return _at(document[head], rest)
    if isinstance(document, list) and _position(head, document):
        return _at(document[int(head)], rest)
    return None


def _position(text: str, items: list[Any]) -> bool:
    return text.isdigit() and len(text) < 9 and int(text) < len(items)


def _plain(value: Any) -> Any:
    """A discovered value: objects and lists as their text."""
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return value


# --- how values are shown and compared --------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value as results have it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, Moment):
        return moment_text(value)
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        return f"{value:.4f}".rstrip("0") if 1e-3 <= abs(value) < 1e15 else f"{value:.6g}"
    return str(value)


def moment_text(at_ms: int) -> str:
    """2026-11-21 08:40:02.123, UTC; the calendar is that of Gregory, also before it."""
    days, rest = divmod(int(at_ms), DAY_MS)
    shifted = days + 719_468  # days since 0000-03-01, from where leap days end years
    era, day_of_era = divmod(shifted, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_shifted + 2) // 5 + 1
    month = month_shifted + 3 if month_shifted < 10 else month_shifted - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    seconds, ms = divmod(rest, 1000)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"
    return f"{year:04d}-{month:02d}-{day:02d} {clock}"


def number(value: Any) -> float | None:
    """A value as a number, None where it is none."""
    kind = type(value)
    if kind is int or kind is float:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        if value[:1] not in _BEGINS_NUMBER:
            return None
        try:
            read = float(value)
        except ValueError:
            return None
        return read if isfinite(read) else None
    if isinstance(value, bool | int | float):
        return value if isinstance(value, float) else int(value)
    return None


def truth(value: Any) -> bool:
    """Whether a condition holds."""
    return value not in (None, False, 0, "", "false", "0")


def equal(left: Any, right: Any) -> bool:
    """Whether two values that are there are the same: as numbers where both read as such."""
    if type(left) is str and type(right) is str:
        if left == right:
            return True
    elif isinstance(left, bool) or isinstance(right, bool):
        return bool(_as_truth(left) == _as_truth(right))
    one, other = number(left), number(right)
    if one is not None and other is not None:
        return one == other
    return shown(left) == shown(right)


def _as_truth(value: Any) -> Any:
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.lower(), value)
    return value


def order(value: Any) -> tuple[int, float, str]:
    """A key to sort by: what is not there, then numbers, then texts."""
    if value is None:
        return 0, 0.0, ""
    known = number(value)
    return (1, known, "") if known is not None else (2, 0.0, shown(value))


# --- functions --------------------------------------------------------------------------------------------------------

Function = Callable[..., Any]


def floored(at_ms: Any, period_ms: Any) -> Moment | None:
    """The start of the period that a time is in."""
    at, period = number(at_ms), number(period_ms)
    if at is None or not period or period < 1:
        return None
    return Moment(int(at) - int(at) % int(period))


def ceiled(at_ms: Any, period_ms: Any) -> Moment | None:
    """The end of the period that a time is in."""
    below = floored(at_ms, period_ms)
    if below is None:
        return None
    return below if below == int(number(at_ms) or 0) else Moment(below + int(number(period_ms) or 0))


def _of_number(function: Callable[[float], float]) -> Function:
    def applied(value: Any) -> Any:
        known = number(value)
        try:
            return None if known is None else function(known)
        except (ValueError, OverflowError):
            return None

    return applied


def _of_text(function: Callable[[str], Any]) -> Function:
    return lambda value: None if value is None else function(shown(value))


def _extreme(choose: Callable[..., Any]) -> Function:
    def applied(*values: Any) -> Any:
        known = [n for value in values if (n := number(value)) is not None]
        return choose(known) if known else None

    return applied


def _substr(value: Any, start: Any, length: Any = None) -> Any:
    first = number(start)
    if value is None or first is None or first < 0:
        return None
    count = number(length) if length is not None else None
    text = shown(value)
    return text[int(first) :] if count is None else text[int(first) : int(first) + max(int(count), 0)]


def _replace(value: Any, old: Any, new: Any) -> Any:
    if value is None or old is None or new is None:
        return value
    text, size = shown(value), len(shown(new))
    made = text.replace(shown(old), shown(new)) if len(text) * max(size, 1) <= JSON_CHARS_MAX * 16 else text
    return made[:JSON_CHARS_MAX]


def _concat(*values: Any) -> str:
    return "".join(shown(value) for value in values if value is not None)[:JSON_CHARS_MAX]


# name -> (function, fewest and most arguments)
FUNCTIONS: Mapping[str, tuple[Function, int, int]] = {
    "abs": (_of_number(abs), 1, 1),
    "ceil": (_of_number(ceil), 1, 1),
    "floor": (_of_number(floor), 1, 1),
    "round": (_of_number(lambda value: floor(value + 0.5)), 1, 1),
    "log": (_of_number(log), 1, 1),
    "sqrt": (_of_number(sqrt), 1, 1),
    "greatest": (_extreme(max), 1, 100),
    "least": (_extreme(min), 1, 100),
    "datefloor": (floored, 2, 2),
    "dateceil": (ceiled, 2, 2),
    "frommillis": (lambda value: None if number(value) is None else Moment(int(number(value) or 0)), 1, 1),
    "tomillis": (lambda value: None if number(value) is None else int(number(value) or 0), 1, 1),
    "ispresent": (lambda value: value is not None, 1, 1),
    "coalesce": (lambda *values: next((value for value in values if value is not None), None), 1, 100),
    "isempty": (lambda value: value is None or shown(value) == "", 1, 1),
    "isblank": (lambda value: value is None or not shown(value).strip(), 1, 1),
    "concat": (_concat, 1, 100),
    "trim": (_of_text(str.strip), 1, 1),
    "ltrim": (_of_text(str.lstrip), 1, 1),
    "rtrim": (_of_text(str.rstrip), 1, 1),
    "strlen": (_of_text(len), 1, 1),
    "toupper": (_of_text(str.upper), 1, 1),
    "tolower": (_of_text(str.lower), 1, 1),
    "substr": (_substr, 2, 3),
    "replace": (_replace, 3, 3),
    "strcontains": (lambda value, part: value is not None and part is not None and shown(part) in shown(value), 2, 2),
}
