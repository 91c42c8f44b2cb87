"""`application/vnd.amazon.eventstream`: the frames in which InvokeEndpointWithResponseStream answers.

A frame is: total length and header length (u32, big-endian), the CRC-32 of these eight bytes, the headers, the payload,
the CRC-32 of all before. A header is: length of its name (u8), name, type (7, a string), length (u16), value. Light:
this runs for every piece of a streamed reply (`gateway/stream`).
"""

from __future__ import annotations

from json import dumps
from struct import Struct
from zlib import crc32

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
PART_BYTES_MAX = 1_048_576  # of one PayloadPart; clients take up to 16 MiB, but hold each whole

_STRING = 7
_PRELUDE = Struct(">II")
_CRC = Struct(">I")
_FRAMING = 16  # bytes of a frame beside its headers and payload


def _headers(**values: str) -> bytes:
    """The headers of a frame; _ in a name stands for -, and each name begins with a colon."""
    block = b""
    for key, text in values.items():
        name, value = b":" + key.replace("_", "-").encode(), text.encode()
        block += b"%c%b%c%b%b" % (len(name), name, _STRING, len(value).to_bytes(2, "big"), value)
    return block


_PART_HEADERS = _headers(event_type="PayloadPart", content_type="application/octet-stream", message_type="event")


def _frame(headers: bytes, payload: bytes) -> bytes:
    prelude = _PRELUDE.pack(_FRAMING + len(headers) + len(payload), len(headers))
    checked = b"%b%b%b" % (prelude, _CRC.pack(crc32(prelude)), headers)
    return b"%b%b%b" % (checked, payload, _CRC.pack(crc32(payload, crc32(checked))))


def parts(piece: bytes) -> bytes:
    """A piece of a reply as PayloadPart events: one, unless it is longer than PART_BYTES_MAX."""
    if len(piece) <= PART_BYTES_MAX:
        return _frame(_PART_HEADERS, piece)
    cuts = range(0, len(piece), PART_BYTES_MAX)
    return b"".join([_frame(_PART_HEADERS, piece[cut : cut + PART_BYTES_MAX]) for cut in cuts])


def model_stream_error(code: str, message: str) -> bytes:
    """The model broke off: ModelStreamError, `code` ModelInvocationTimeExceeded or StreamBroken."""
    return _exception("ModelStreamError", {"Message": message, "ErrorCode": code})


def internal_stream_failure(message: str) -> bytes:
    """Eyrie broke off: InternalStreamFailure."""
    return _exception("InternalStreamFailure", {"Message": message})


def _exception(kind: str, body: dict[str, str]) -> bytes:
    headers = _headers(exception_type=kind, content_type="application/json", message_type="exception")
    return _frame(headers, dumps(body).encode())
