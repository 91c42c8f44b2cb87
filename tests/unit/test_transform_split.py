"""Cutting an input into payloads: the same wherever the stream is cut, and from any payload's end on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.decide.transform_split import (
    RECORD_IO_MAGIC,
    Payload,
    SplitError,
    Splitter,
    blank,
    splitter,
)
from eyrie.domain.transform import Split

few = settings(max_examples=30, deadline=None)
texts = st.lists(st.sampled_from([b"1,2", b"", b"\r", b'"a\nb",3', b"longer,line,here", b"x" * 40]), max_size=12)


def fed(cut: Splitter, data: bytes, sizes: list[int]) -> Iterator[Payload]:
    at = 0
    for size in [*sizes, len(data)]:
        yield from cut.feed(data[at : at + size])
        at += size
    yield from cut.finish()


def upper(record: bytes, line: int) -> bytes:
    return record.upper() + b"!"


def framed(records: list[bytes]) -> bytes:
    return b"".join(struct.pack("<II", RECORD_IO_MAGIC, len(r)) + r + b"\0" * (-len(r) % 4) for r in records)


def tf(records: list[bytes]) -> bytes:
    return b"".join(struct.pack("<QI", len(r), 0) + r + b"\0\0\0\0" for r in records)


@few
@given(
    lines=texts,
    last=st.booleans(),
    limit=st.integers(40, 90),
    sizes=st.lists(st.integers(0, 30), max_size=12),
    single=st.booleans(),
    sent=st.sampled_from([None, upper]),
    looked_at=st.booleans(),
)
def test_lines_are_cut_the_same_wherever_the_stream_is_cut_and_from_every_payload_on(
    lines: list[bytes],
    last: bool,
    limit: int,
    sizes: list[int],
    single: bool,
    sent: Callable[[bytes, int], bytes] | None,
    looked_at: bool,
) -> None:
    data = b"\n".join(lines) + (b"\n" if last else b"")
    limit += 1  # the filter adds a byte

    def cut(offset: int = 0, line: int = 0) -> Splitter:
        return splitter(Split.LINE, limit, single, sent=sent, looked_at=looked_at, offset=offset, line=line)

    whole = list(cut().feed(data))
    whole = list(fed(cut(), data, []))
    assert list(fed(cut(), data, sizes)) == whole
    assert all(len(payload.body) <= limit for payload in whole)
    records = [line for line in data.split(b"\n") if not blank(line)]
    assert [record for payload in whole for _, record, _ in payload.pieces()] == records
    numbers = [n for n, line in enumerate(data.split(b"\n"), 1) if not blank(line)]
    assert [number for payload in whole for number, _, _ in payload.pieces()] == numbers
    assert sum(payload.count for payload in whole) == len(records)
    if single:
        assert [payload.count for payload in whole] == [1] * len(records)
    for done, payload in enumerate(whole):
        rest = cut(payload.end, payload.first_line + payload.lines - 1)
        assert list(fed(rest, data[payload.end :], sizes)) == whole[done + 1 :]


@few
@given(
    records=st.lists(st.binary(max_size=20), max_size=10),
    sizes=st.lists(st.integers(0, 30), max_size=12),
    single=st.booleans(),
    kind=st.sampled_from([(Split.RECORD_IO, framed), (Split.TF_RECORD, tf)]),
)
def test_framed_records_go_out_whole(
    records: list[bytes], sizes: list[int], single: bool, kind: tuple[Split, Callable[[list[bytes]], bytes]]
) -> None:
    data = kind[1](records)
    found = list(fed(splitter(kind[0], 64, single), data, sizes))
    assert b"".join(payload.body for payload in found) == data
    assert [record for p in found for record in p.records or ()] == [kind[1]([record]) for record in records]
    for done, payload in enumerate(found):
        rest = splitter(kind[0], 64, single, offset=payload.end, line=payload.first_line + payload.lines - 1)
        assert list(fed(rest, data[payload.end :], [])) == found[done + 1 :]


def test_a_record_in_parts_is_one_record() -> None:
    parts = struct.pack("<II", RECORD_IO_MAGIC, (1 << 29) | 4) + b"abcd"
    parts += struct.pack("<II", RECORD_IO_MAGIC, (3 << 29) | 2) + b"ef\0\0"
    (payload,) = fed(splitter(Split.RECORD_IO, 100, single=True), parts, [3, 9])
    assert payload.body == parts


@pytest.mark.parametrize(
    ("split", "data", "line", "why"),
    [
        (Split.LINE, b"ok\n" + b"y" * 30 + b"\n", 2, "longer than MaxPayloadInMB"),
        (Split.RECORD_IO, b"no magic number", 1, "magic"),
        (Split.RECORD_IO, framed([b"abcd"])[:-1], 1, "ends within"),
        (Split.TF_RECORD, tf([b"a"]) + b"\xff" * 16, 2, "no TFRecord"),
        (Split.NONE, b"z" * 30, 1, "longer than MaxPayloadInMB"),
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_what_cannot_be_cut_is_told_with_its_record(
    split: Split, data: bytes, line: int, why: str, single: bool
) -> None:
    with pytest.raises(SplitError, match=why) as found:
        list(fed(splitter(split, 20, single), data, [7]))
    assert found.value.line == line


def test_a_line_as_long_as_a_payload_fits_and_quotes_hold_no_newline_together() -> None:
    data = b"x" * 20 + b"\n" + b'"a\nb"'
    assert [p.body for p in fed(splitter(Split.LINE, 20, single=False), data, [])] == [b"x" * 20, b'"a\nb"']
    assert [p.body for p in fed(splitter(Split.LINE, 20, single=True), data, [])] == [b"x" * 20, b'"a', b'b"']


def test_without_a_split_the_object_is_one_request() -> None:
    (payload,) = fed(splitter(Split.NONE, 50, single=False), b"a\nb\n", [1, 1])
    assert (payload.body, payload.count, payload.end) == (b"a\nb\n", 1, 4)
