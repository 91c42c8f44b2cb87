"""DataProcessing: what of a record the model gets, and what is written of record and prediction. Pure.

CSV rows are lists of cells, kept as they stand, quotes included; joined, a row is the input's cells and then the
prediction's. JSON objects get the prediction as `SageMakerOutput`; other JSON values become an object of
`SageMakerInput` and `SageMakerOutput`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eyrie.decide.transform_path import Path, PathError, parsed
from eyrie.decide.transform_split import SplitError, blank
from eyrie.domain.transform import Processing

CSV, JSON, JSONLINES = "text/csv", "application/json", "application/jsonlines"
INPUT, OUTPUT = "SageMakerInput", "SageMakerOutput"
SHOWN_MAX = 80


class JoinError(ValueError):
    """An answer that cannot be joined; the message is for people."""


class Form(Protocol):
    """How records of a content type are taken apart and put together."""

    def filtered(self, record: bytes, path: Path) -> bytes:
        """What a path names of a record, as a record. Raises PathError, ValueError."""
        ...

    def joined(self, record: bytes, answer: bytes, path: Path) -> bytes:
        """What a path names of a record joined with its answer. Raises PathError, ValueError."""
        ...


def cells(row: bytes) -> list[bytes]:
    """The cells of a CSV row as they stand; a comma within quotes is none between cells."""
    row = row.removesuffix(b"\r")
    if b'"' not in row:
        return row.split(b",")
    found: list[bytes] = []
    start, quoted = 0, False
    for at, byte in enumerate(row):
        if byte == 0x22:
            quoted = not quoted
        elif byte == 0x2C and not quoted:
            found.append(row[start:at])
            start = at + 1
    found.append(row[start:])
    return found


class CsvForm:
    """Rows of cells."""

    def filtered(self, record: bytes, path: Path) -> bytes:
        """The cells that a path names."""
        return b",".join(_cells_of(path, cells(record)))

    def joined(self, record: bytes, answer: bytes, path: Path) -> bytes:
        """The record's cells and then the answer's."""
        both = record.removesuffix(b"\r") + b"," + answer.removesuffix(b"\r")
        return both if path.whole else b",".join(_cells_of(path, cells(both)))


def _cells_of(path: Path, row: list[bytes]) -> Sequence[bytes]:
    if path.whole:
        return row
    found = path.of(row)
    return found if path.many else [found]


class JsonForm:
    """Values."""

    def filtered(self, record: bytes, path: Path) -> bytes:
        """The value, or the list of values, that a path names."""
        return record if path.whole else _written(path.of(_read(record, "the record")))

    def joined(self, record: bytes, answer: bytes, path: Path) -> bytes:
        """The record with its answer."""
        given, told = _read(record, "the record"), _read(answer, "the answer")
        both = {**given, OUTPUT: told} if isinstance(given, dict) else {INPUT: given, OUTPUT: told}
        return _written(path.of(both))


def _read(text: bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise JoinError(f"{what} is no JSON: {text[:SHOWN_MAX]!r}") from None


def _written(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def media_type(header: str) -> str:
    """The type of a Content-Type, in lower case and without its parameters."""
    return header.partition(";")[0].strip().lower()


def form_of(content_type: str) -> Form | None:
    """How records of a type are taken apart; None where that is not known."""
    kind = media_type(content_type)
    if kind == CSV:
        return CsvForm()
    return JsonForm() if kind in (JSON, JSONLINES) else None


@dataclass(frozen=True, slots=True)
class Sieve:
    """A job's DataProcessing, ready to be used."""

    form: Form
    input_path: Path
    output_path: Path
    join: bool

    def sent(self, record: bytes, line: int) -> bytes:
        """What the model gets of a record. Raises SplitError."""
        try:
            return self.form.filtered(record, self.input_path)
        except (PathError, JoinError) as error:
            raise SplitError(f"InputFilter: {error}", line) from None

    def written(self, record: bytes, answer: bytes) -> bytes:
        """What is written for a record. Raises JoinError."""
        try:
            if self.join:
                return self.form.joined(record, answer, self.output_path)
            return self.form.filtered(answer, self.output_path)
        except PathError as error:
            raise JoinError(f"OutputFilter: {error}") from None


def sieve(processing: Processing, content_type: str, accept: str) -> Sieve | None:
    """The DataProcessing of a job; None where it asks for nothing. Raises PathError for what cannot be done."""
    if not processing.filters_input and not processing.shapes_output:
        return None
    form = form_of(content_type)
    if form is None:
        raise PathError(
            f"DataProcessing needs a ContentType of {CSV}, {JSON} or {JSONLINES}: {content_type or 'none'!r} is none"
        )
    if accept and processing.shapes_output and type(form_of(accept)) is not type(form):
        raise PathError(f"DataProcessing: records of {content_type} cannot be joined with answers of {accept}")
    sent = _parsed("InputFilter", processing.input_filter)
    return Sieve(form, sent, _parsed("OutputFilter", processing.output_filter), processing.join)


def _parsed(member: str, text: str) -> Path:
    try:
        return parsed(text)
    except PathError as error:
        raise PathError(f"DataProcessing.{member}: {error}") from None


def answers(reply: bytes, count: int) -> list[bytes]:
    """The answers in a reply, one a record. Raises JoinError where there are not as many."""
    if count == 1:
        return [reply.strip(b"\r\n")]
    found = [line for line in reply.split(b"\n") if not blank(line)]
    if len(found) != count:
        raise JoinError(
            f"the model answered {count} records with {len(found)} lines: results can be joined only where each record "
            "has a line of its own"
        )
    return found


def assembled(results: Sequence[bytes], lines: bool) -> bytes:
    """Results one after the other, each with a newline after it where lines are asked for."""
    if not lines:
        return b"".join(results)
    return b"".join(result if result.endswith(b"\n") else result + b"\n" for result in results)


def shaped(reply: bytes, records: Sequence[bytes], written: Callable[[bytes, bytes], bytes]) -> list[bytes]:
    """What is written for each record of a request. Raises JoinError."""
    told = answers(reply, len(records))
    return [written(record, answer) for record, answer in zip(records, told, strict=True)]
