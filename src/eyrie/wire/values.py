"""Single values on the wire: timestamps in their three formats, numbers with their ranges, blobs, and what to say
when they are wrong.

Used by every protocol of the codec, in both directions.
"""

from __future__ import annotations

import base64
import binascii
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from eyrie.wire.auth_canonical import parse_date

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER = (-(2**31), 2**31 - 1)
_LONG = (-(2**63), 2**63 - 1)
_FLOAT_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NUMBER_CHARS_MAX = 64


class Malformed(Exception):
    """A value that its shape cannot hold. Whoever unwinds adds the names on the way, outermost last."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []

    @property
    def text(self) -> str:
        """The problem and the place, as the client gets to read it."""
        return f"{self.problem} at '{'.'.join(reversed(self.path))}'" if self.path else self.problem


def json_kind(value: Any) -> str:
    """The token that a plain value is, in the words that AWS uses."""
    if value is None:
        return "NULL_VALUE"
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    if isinstance(value, int):
        return "NUMBER_VALUE"
    if isinstance(value, float):
        return "DECIMAL_VALUE"
    return "START_ARRAY" if isinstance(value, list) else "START_OBJECT" if isinstance(value, dict) else "BYTES_VALUE"


def wrong_type(value: Any, wanted: str) -> Malformed:
    """What to raise for a value of another type than its shape has."""
    return Malformed(f"{json_kind(value)} can not be converted to {wanted}")


def check_integer(value: int, kind: str) -> int:
    """The value, if it fits an integer (32 bits) or a long (64 bits)."""
    low, high = _INTEGER if kind == "integer" else _LONG
    if not low <= value <= high:
        raise Malformed(f"Number out of the range of {'an Integer' if kind == 'integer' else 'a Long'}")
    return value


def integer_of(value: Any, kind: str) -> int:
    """A plain number as an integer; one with a fraction is refused."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(value, "an Integer" if kind == "integer" else "a Long")
    return check_integer(value, kind)


def float_of(value: Any, kind: str) -> float:
    """A plain number as a float; NaN and the infinities are words."""
    if isinstance(value, str) and value in _FLOAT_WORDS:
        return _FLOAT_WORDS[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(value, f"a {kind.capitalize()}")
    try:
        return float(value)
    except OverflowError:
        raise Malformed(f"Number out of the range of a {kind.capitalize()}") from None


def integer_text(text: str, kind: str) -> int:
    """An integer that is written out, as in headers, queries and XML."""
    digits = text.strip()
    if not digits.isascii() or not digits.lstrip("+-").isdecimal():
        raise wrong_type(text, "an Integer" if kind == "integer" else "a Long")
    try:
        return check_integer(int(digits), kind)
    except ValueError:
        raise wrong_type(text, "an Integer" if kind == "integer" else "a Long") from None


def float_text(text: str, kind: str) -> float:
    """A float that is written out."""
    word = text.strip()
    if word in _FLOAT_WORDS:
        return _FLOAT_WORDS[word]
    try:
        value = float(word) if len(word) <= _NUMBER_CHARS_MAX and "_" not in word else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise wrong_type(text, f"a {kind.capitalize()}")
    return value


def boolean_text(text: str) -> bool:
    """A boolean that is written out."""
    word = text.strip().lower()
    if word not in ("true", "false"):
        raise wrong_type(text, "a Boolean")
    return word == "true"


def blob_text(text: str) -> bytes:
    """A blob in base64."""
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("Invalid base64 value") from None


def float_word(value: float) -> float | str:
    """A float for a format that has no NaN and no infinities: those become words."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def timestamp_of(value: Any, fmt: str) -> datetime:
    """A plain value (a number, or text in the format) as an aware datetime."""
    if isinstance(value, datetime):
        return value
    if fmt == "unixtimestamp":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(value, "milliseconds since epoch")
        return _from_epoch(value)
    if not isinstance(value, str):
        raise wrong_type(value, "a Timestamp")
    return timestamp_text(value, fmt)


def timestamp_text(text: str, fmt: str) -> datetime:
    """A timestamp that is written out in the given format: iso8601, rfc822 or unixtimestamp."""
    if fmt == "unixtimestamp":
        return _from_epoch(float_text(text, "double"))
    if fmt == "rfc822":
        at_ms = parse_date(text.strip().encode("utf-8", "replace"))
        if at_ms is None:
            raise wrong_type(text, "a Timestamp")
        return _from_epoch(at_ms / 1000)
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong_type(text, "a Timestamp") from None


def _from_epoch(seconds: float) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=round(seconds * 1_000_000))
    except (OverflowError, ValueError):
        raise Malformed("Timestamp out of range") from None


class Moment(float):
    """Seconds since the epoch, known to be a timestamp: what a reply's numbers become for CBOR, without a datetime."""

    __slots__ = ()


def epoch_seconds(value: datetime | float) -> float:
    """A timestamp as seconds since the epoch; an int where it has no fraction."""
    if not isinstance(value, datetime):
        return value
    micros = (_utc(value) - _EPOCH) // timedelta(microseconds=1)
    return micros // 1_000_000 if micros % 1_000_000 == 0 else micros / 1_000_000


def show_timestamp(value: datetime | float, fmt: str) -> str:
    """A timestamp written out in the given format."""
    if fmt == "unixtimestamp":
        return str(epoch_seconds(value))
    at = _utc(value) if isinstance(value, datetime) else _from_epoch(value)
    if fmt == "rfc822":
        return format_datetime(at, usegmt=True)
    text = at.strftime("%Y-%m-%dT%H:%M:%S") if at.year >= 1000 else at.isoformat()[:19]
    if at.microsecond == 0:
        return text + "Z"
    return f"{text}.{at.microsecond // 1000:03d}Z" if at.microsecond % 1000 == 0 else f"{text}.{at.microsecond:06d}Z"


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def show_scalar(kind: str, value: Any, timestamp_format: str) -> str:
    """Any scalar written out, for headers, queries and XML."""
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "timestamp":
        return show_timestamp(value, timestamp_format)
    if kind == "blob":
        return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
    if kind in ("float", "double"):
        return str(float_word(value))
    return str(value)


def read_scalar(kind: str, text: str, timestamp_format: str) -> Any:
    """Any scalar that is written out. Raises Malformed."""
    if kind == "string":
        return text
    if kind in ("integer", "long"):
        return integer_text(text, kind)
    if kind == "boolean":
        return boolean_text(text)
    if kind == "timestamp":
        return timestamp_text(text, timestamp_format)
    if kind == "blob":
        return blob_text(text)
    return float_text(text, kind)
