"""How a reply's first lines are written: status lines, framing, the date; shared by the server and whoever answers
early.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from json import dumps

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EXTRA = {424: "Failed Dependency", 530: "Internal Dependency Failed", 499: "Client Closed Request"}

STATUS_LINES: dict[int, bytes] = {
    **{status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus},
    **{status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _EXTRA.items()},
}


def status_line(status: int) -> bytes:
    """The status line, CRLF included; a status without a name gets one."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


def header_block(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Headers as lines. Raises ValueError where a name or a value would break out of its line."""
    lines = []
    for name, value in headers:
        if not name or b"\n" in value or b"\r" in value or b"\0" in value or name.translate(None, _TOKEN):
            raise ValueError(f"not a header that can be sent: {name!r}")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def date_line(epoch_s: float) -> bytes:
    """The Date header of a moment."""
    return f"date: {formatdate(epoch_s, usegmt=True)}\r\n".encode()


def has_body(method: bytes, status: int) -> bool:
    """Whether a reply to this method with this status may carry a body at all."""
    return method != b"HEAD" and status >= 200 and status not in (204, 304)


def refusal(status: int, message: str) -> tuple[bytes, bytes]:
    """Header lines and body of an error that the server answers by itself."""
    kind = {
        408: "RequestTimeout",
        413: "RequestEntityTooLarge",
        431: "RequestHeaderFieldsTooLarge",
        503: "ServiceUnavailable",
    }
    code = kind.get(status, "InternalFailure" if status == 500 else "BadRequest")
    lines = b"content-type: application/json\r\nx-amzn-errortype: %b\r\n" % code.encode()
    return lines, dumps({"__type": code, "message": message, "Message": message}).encode()
