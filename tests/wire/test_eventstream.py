"""Event-stream frames, read back by botocore's own parser."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.wire import eventstream


def read(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The frames as botocore reads them; checksums are verified by it."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(dict(event.headers), event.payload) for event in buffer]


@given(st.lists(st.binary(max_size=300), max_size=5))
@settings(deadline=None)
def test_pieces_come_back_as_payload_parts(pieces: list[bytes]) -> None:
    data = b"".join(eventstream.parts(piece) for piece in pieces)
    headers = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    assert read(data) == [(headers, piece) for piece in pieces]


def test_a_long_piece_is_cut_into_bounded_parts() -> None:
    piece = bytes(range(256)) * 10_000
    found = [payload for _, payload in read(eventstream.parts(piece))]
    assert [len(part) for part in found] == [1_048_576, 1_048_576, len(piece) - 2_097_152]
    assert b"".join(found) == piece


@pytest.mark.parametrize(
    ("frame", "kind", "body"),
    [
        (
            eventstream.model_stream_error("StreamBroken", 'said "no"\n'),
            "ModelStreamError",
            b'{"Message": "said \\"no\\"\\n", "ErrorCode": "StreamBroken"}',
        ),
        (eventstream.internal_stream_failure("gone"), "InternalStreamFailure", b'{"Message": "gone"}'),
    ],
)
def test_a_failure_is_an_exception_event(frame: bytes, kind: str, body: bytes) -> None:
    ((headers, payload),) = read(frame)
    assert headers == {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    assert payload == body


def test_the_checksums_are_those_of_the_format() -> None:
    frame = eventstream.parts(b"abc")
    assert int.from_bytes(frame[:4], "big") == len(frame)
    assert int.from_bytes(frame[8:12], "big") == zlib.crc32(frame[:8])
    assert int.from_bytes(frame[-4:], "big") == zlib.crc32(frame[:-4])
