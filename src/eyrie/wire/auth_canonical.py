"""The canonical forms that SigV4 signs: paths, queries and dates. Light; pure functions of bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/-_.~"
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def canonical_targets(path: bytes, query: bytes, s3: bool) -> tuple[bytes, ...]:
    """`PATH\\nQUERY` as a client may have signed it, most likely form first.

    Clients sign the bytes that they send, as botocore does, or the decoded text encoded anew, as the specification
    says. Either is a function of what was received that loses nothing, so a signature over either proves the request.
    S3 signs the path encoded once and as it is; the other services sign it without dot segments and encoded once
    more.
    """
    if not query and not path.translate(None, _PLAIN) and b"//" not in path and b"/." not in path:
        return ((path or b"/") + b"\n",)
    as_sent = _path(path, s3) + b"\n" + _query(query)
    anew = _path(_anew(path, b"/"), s3) + b"\n" + _query(query, anew=True)
    return (as_sent,) if anew == as_sent else (as_sent, anew)


def _path(path: bytes, s3: bool) -> bytes:
    if s3:
        return path or b"/"
    return quote_from_bytes(_without_dots(path), safe="/~").encode()


def _without_dots(path: bytes) -> bytes:
    """RFC 3986's 5.2.4, and repeated slashes are one."""
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment and segment != b".":
            kept.append(segment)
    tail = b"/" if kept and path.endswith(b"/") else b""
    return b"/" + b"/".join(kept) + tail


def _anew(text: bytes, safe: bytes = b"") -> bytes:
    return quote_from_bytes(unquote_to_bytes(text), safe=safe.decode()).encode()


def _query(query: bytes, anew: bool = False) -> bytes:
    if not query:
        return b""
    pairs = [pair.partition(b"=")[::2] for pair in query.split(b"&")]
    if anew:
        pairs = [(_anew(name), _anew(value)) for name, value in pairs if name or value]
    return b"&".join([name + b"=" + value for name, value in sorted(pairs) if name != b"X-Amz-Signature"])


def query_pairs(query: bytes) -> dict[bytes, bytes]:
    """The parameters of a query, decoded; of a repeated one the first."""
    pairs: dict[bytes, bytes] = {}
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        pairs.setdefault(unquote_to_bytes(name), unquote_to_bytes(value))
    return pairs


def parse_date(text: bytes) -> int | None:
    """Milliseconds since the epoch of `YYYYMMDDTHHMMSSZ` or of an HTTP date; None for anything else."""
    try:
        if len(text) == 16 and text[8:9] == b"T" and text[15:] == b"Z":
            digits = text[:8] + text[9:15]
            return _utc_ms(digits[:4], int(digits[4:6]), digits[6:8], digits[8:10], digits[10:12], digits[12:14])
        return _http_date(text)
    except (ValueError, IndexError):
        return None


def _http_date(text: bytes) -> int:
    """`Sat, 21 Nov 2026 08:53:31 GMT`, also with +0000 or -0000."""
    _, day, month, year, clock, zone = text.split()
    if zone not in (b"GMT", b"UTC", b"+0000", b"-0000"):
        raise ValueError(zone)
    hour, minute, second = clock.split(b":")
    return _utc_ms(year, _MONTHS.index(month) + 1, day, hour, minute, second)


def _utc_ms(year: bytes, month: int, day: bytes, hour: bytes, minute: bytes, second: bytes) -> int:
    if not (year + day + hour + minute + second).isdigit():
        raise ValueError(year)
    if int(year) < 1970:
        raise ValueError(year)
    at = datetime(int(year), month, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    return int(at.timestamp()) * 1000
