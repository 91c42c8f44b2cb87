"""Cuts objects into portions: payloads that follow each other, told by their place, for a worker to fetch itself.

A portion begins and ends where payloads do, so whoever cuts it alone finds the payloads that the whole object has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eyrie.decide.transform_split import Payload, SplitError
from eyrie.domain.transform import InputObject, Mark
from eyrie.transform import source
from eyrie.transform.bucket import BucketError
from eyrie.transform.outputs import Work
from eyrie.transform.results import cutter

PORTION_BYTES = 1 << 20  # or one payload, where that is longer
PORTIONS_MAX = 2_000  # of a job, about: those of a large one are longer
TO_ITS_END = -1


@dataclass(frozen=True, slots=True)
class Portion:
    """Where some payloads of an object are."""

    index: int  # of the object
    start: int  # in its stream
    end: int  # TO_ITS_END: all that follows
    line: int  # records of the object before it


@dataclass(frozen=True, slots=True)
class Course:
    """An object: its portions, and why nothing comes after them, where that is no end."""

    index: int
    portions: tuple[Portion, ...]
    error: str = ""


def portion_bytes(objects: list[InputObject]) -> int:
    """How long a portion of these objects is, at least."""
    return max(PORTION_BYTES, sum(one.size for one in objects) // PORTIONS_MAX)


def courses(work: Work, objects: list[InputObject], mark: Mark) -> Iterator[Course]:
    """Every object from where a mark is on."""
    size = portion_bytes(objects)
    for index in range(mark.index, len(objects)):
        at = mark if index == mark.index else Mark()
        if source.unpacked(work.spec, objects[index]):  # has no places that could be fetched: one worker reads it
            yield Course(index, (Portion(index, at.offset, TO_ITS_END, at.line),))
        else:
            yield _course(work, objects[index], index, at, size)


def _course(work: Work, one: InputObject, index: int, at: Mark, size: int) -> Course:
    """An object, which is read once for it."""
    found, error = list[Portion](), ""
    start, line = at.offset, at.line
    end, done = start, line
    try:
        for payload in _payloads(work, one, at):
            end, done = payload.end, payload.first_line + payload.lines - 1
            if end - start >= size:
                found.append(Portion(index, start, end, line))
                start, line = end, done
    except SplitError as broken:
        error = f"record {broken.line}: {broken.why}"
    except BucketError as broken:
        error = str(broken)
    if end > start:
        found.append(Portion(index, start, end, line))
    return Course(index, tuple(found), error)


def _payloads(work: Work, one: InputObject, at: Mark) -> Iterator[Payload]:
    cut = cutter(work.spec, work.agreed, work.sieve, at)
    for piece in source.pieces(work.door, work.spec, one, at.offset):
        yield from cut.feed(piece)
    yield from cut.finish()
