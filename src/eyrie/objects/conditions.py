"""Preconditions and byte ranges of a request, decided over one object's ETag, time and size. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from enum import Enum

from eyrie.objects.errors import precondition_failed, refuse

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,4000})\s*-\s*(\d{0,4000})\s*")  # int() takes 4,300 digits at most

Header = Callable[[str], "str | None"]


class Verdict(Enum):
    """What the preconditions of a read say."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"


def http_date(at_ms: int) -> str:
    """A time in milliseconds as `Sat, 21 Nov 2026 08:40:02 GMT`; whole seconds, cut."""
    return format_datetime(datetime.fromtimestamp(at_ms // 1000, UTC), usegmt=True)


def iso_date(at_ms: int) -> str:
    """A time in milliseconds as `2026-11-21T08:40:02.123Z`."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def etag_matches(header: str, etag: str) -> bool:
    """True when an If-Match or If-None-Match header (`*`, or a list of quoted or bare ETags) names this one."""
    for given in header.split(","):
        value = given.strip().removeprefix("W/").strip('"')
        if value in ("*", etag):
            return True
    return False


def seconds_of(header: str) -> int | None:
    """Seconds since the epoch of an HTTP date, None where it is none (and then the condition is ignored)."""
    try:
        moment = parsedate_to_datetime(header)
    except (TypeError, ValueError, IndexError):
        return None
    try:
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (OverflowError, ValueError):
        return None


def check_read(header: Header, etag: str, modified_ms: int) -> Verdict:
    """Preconditions of GET and HEAD, in RFC 9110's order. Raises ApiError (PreconditionFailed)."""
    if (match := header("if-match")) is not None:
        if not etag_matches(match, etag):
            raise precondition_failed("If-Match")
    elif _is_after(header("if-unmodified-since"), modified_ms) is True:
        raise precondition_failed("If-Unmodified-Since")
    if (none_match := header("if-none-match")) is not None:
        return Verdict.NOT_MODIFIED if etag_matches(none_match, etag) else Verdict.PROCEED
    return Verdict.NOT_MODIFIED if _is_after(header("if-modified-since"), modified_ms) is False else Verdict.PROCEED


def check_copy_source(header: Header, etag: str, modified_ms: int) -> None:
    """Preconditions on the source of a copy; all of them refuse. Raises ApiError (PreconditionFailed)."""
    prefix = "x-amz-copy-source-"
    if (match := header(prefix + "if-match")) is not None:
        if not etag_matches(match, etag):
            raise precondition_failed(prefix + "If-Match")
    elif _is_after(header(prefix + "if-unmodified-since"), modified_ms) is True:
        raise precondition_failed(prefix + "If-Unmodified-Since")
    if (none_match := header(prefix + "if-none-match")) is not None:
        if etag_matches(none_match, etag):
            raise precondition_failed(prefix + "If-None-Match")
    elif _is_after(header(prefix + "if-modified-since"), modified_ms) is False:
        raise precondition_failed(prefix + "If-Modified-Since")


def check_write(if_match: str | None, if_none_match: str | None, etag: str | None) -> None:
    """Preconditions of a write over what is there now (`etag` None: nothing).

    Raises ApiError (PreconditionFailed, NoSuchKey).
    """
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise refuse("NotImplemented", "If-None-Match of a write takes * only.", Header="If-None-Match")
        if etag is not None:
            raise precondition_failed("If-None-Match")
    if if_match is not None:
        if etag is None:
            raise refuse("NoSuchKey")
        if not etag_matches(if_match, etag):
            raise precondition_failed("If-Match")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range that a Range header asks of `size` bytes, None for the whole object.

    A header that is not one single byte range is ignored, as S3 does. Raises ApiError (InvalidRange).
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), size
        if match[2]:
            if int(match[2]) < start:
                return None
            end = min(size, int(match[2]) + 1)
    if start >= size or start >= end:
        raise refuse("InvalidRange", RangeRequested=str(header)[:256], ActualObjectSize=size)
    return start, end


def _is_after(header: str | None, modified_ms: int) -> bool | None:
    """Whether the object changed after the header's time; None without a readable header."""
    limit = seconds_of(header) if header is not None else None
    return None if limit is None else modified_ms // 1000 > limit
