"""From the answer to a payload to what is written of it: shaped, joined, assembled; bad records sifted out or told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eyrie.decide.transform_join import JoinError, Sieve, assembled, shaped
from eyrie.decide.transform_split import Payload, Splitter, splitter
from eyrie.domain.transform import Agreed, Assemble, Mark, Split, Strategy, TransformSpec
from eyrie.transform.bad import Asks, BadRecord, sifted
from eyrie.transform.wire import Reply


class ObjectFailed(Exception):
    """An object has no output; the message says why."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is written of one payload, and where its object stands after it."""

    data: bytes
    end: int  # bytes of the object that are done
    line: int  # records of it that are done, blank ones too
    records: int  # of the payload
    bad: tuple[BadRecord, ...] = ()


def cutter(spec: TransformSpec, agreed: Agreed, sieve: Sieve | None, mark: Mark) -> Splitter:
    """What cuts an object into payloads, from where a mark is."""
    return splitter(
        spec.split,
        agreed.payload_bytes,
        agreed.strategy is Strategy.SINGLE_RECORD,
        sent=sieve.sent if sieve is not None and not sieve.input_path.whole else None,
        looked_at=spec.processing.shapes_output,
        offset=mark.offset,
        line=mark.line,
    )


def written(spec: TransformSpec, sieve: Sieve | None, payload: Payload, reply: Reply, room: int, ask: Asks) -> Written:
    """What is written for a payload, of whose records so many may be bad. Raises ObjectFailed, and what `ask` does."""
    try:
        results, bad = _results(spec, sieve, payload, reply, room, ask)
    except BadRecord as error:
        raise ObjectFailed(f"record {error.line}: {error}") from None
    except JoinError as error:
        raise ObjectFailed(f"{span([payload])}: {error}") from None
    several = len(results) > 1 and spec.processing.shapes_output
    data = assembled(results, several or spec.assemble is Assemble.LINE)
    answered = reply.body.count(b"\n") == payload.lines  # each line has its own: none was blank, none need be looked at
    records = payload.lines if answered else payload.count
    return Written(data, payload.end, payload.first_line + payload.lines - 1, records, tuple(bad))


def _results(
    spec: TransformSpec, sieve: Sieve | None, payload: Payload, reply: Reply, room: int, ask: Asks
) -> tuple[list[bytes], list[BadRecord]]:
    shaping = sieve if spec.processing.shapes_output else None
    if reply.status != 200:
        return sifted(payload, reply, b"\n" if spec.split is Split.LINE else b"", room, ask, shaping)
    if shaping is None:
        return [reply.body], []
    return shaped(reply.body, [record for _, record, _ in payload.pieces()], shaping.written), []


def span(payloads: Sequence[Payload]) -> str:
    """Which records payloads hold, in words."""
    first, last = payloads[0], payloads[-1]
    end = last.first_line + last.lines - 1
    return f"record {end}" if first.first_line == end else f"records {first.first_line} to {end}"
