"""In a cluster's worker: fetches a portion of an object, and has the model in this process answer its payloads.

Everything that comes and goes is a message of bytes, so that Ray Data has nothing to understand in it.
"""

from __future__ import annotations

import atexit
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from eyrie.adapters.s3_client import SigningKey
from eyrie.decide.transform_join import Sieve, sieve
from eyrie.decide.transform_split import Payload, SplitError
from eyrie.domain.transform import Agreed, InputObject, Mark, TransformSpec
from eyrie.raydata.portions import TO_ITS_END, Portion
from eyrie.transform import source
from eyrie.transform.bad import BadRecord
from eyrie.transform.bucket import BucketError, Door
from eyrie.transform.results import ObjectFailed, Written, cutter, written
from eyrie.transform.wire import Reply

MESSAGE_BYTES = 1 << 20  # of results in one answer, about
TOGETHER_BYTES, TOGETHER = 1 << 20, 256  # payloads that the model is given at once
SERVER_ERROR = 500
PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Errand:
    """What every worker of a job is told."""

    spec: TransformSpec
    agreed: Agreed
    endpoint: str  # http://HOST:PORT of Eyrie, as nodes see it
    access_key_id: str
    secret_access_key: str
    session_token: str | None
    region: str
    environment: Mapping[str, str]  # of the container
    image: str


@dataclass(frozen=True, slots=True)
class Result:
    """What is written of one payload."""

    data: bytes
    end: int
    line: int
    records: int
    bad: tuple[tuple[int, str], ...] = ()

    def written(self) -> Written:
        """As outputs take it."""
        return Written(self.data, self.end, self.line, self.records, tuple(BadRecord(*one) for one in self.bad))


@dataclass(frozen=True, slots=True)
class Answered:
    """Results of a portion, in order; the last message of it says so, and why the object fails where it does."""

    results: tuple[Result, ...]
    last: bool = False
    error: str = ""
    fatal: str = ""  # the model cannot be had at all


class Model(Protocol):
    """What answers."""

    def answers(self, bodies: Sequence[bytes], content_type: str, accept: str) -> list[tuple[int, bytes]]:
        """Status and body of each answer."""
        ...


class Answering:
    """An actor of Ray Data: the model, loaded once."""

    def __init__(self, errand: bytes, objects: bytes, package: Any) -> None:
        """`package`: Ray's reference to a tar of the folder `model`."""
        import ray

        told = msgspec.msgpack.decode(errand, type=Errand)
        listed = msgspec.msgpack.decode(objects, type=list[InputObject])
        key = SigningKey(told.access_key_id, told.secret_access_key, told.session_token)
        self._fatal, model = "", None
        try:
            model = load(ray.get(package), told)
        except Exception as error:  # the boundary to foreign code: whatever its loading raises is the job's reason
            self._fatal = f"ClientError: the model cannot be loaded: {error or type(error).__name__}"
        self._answerer = Answerer(told.spec, told.agreed, listed, Door(told.endpoint, key, told.region), model)

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The messages of a portion."""
        portion = msgspec.msgpack.decode(row["portion"], type=Portion)
        answers = [Answered((), last=True, fatal=self._fatal)] if self._fatal else self._answerer.answer(portion)
        for answered in answers:
            yield {"answered": msgspec.msgpack.encode(answered)}


def load(package: bytes, errand: Errand) -> Model:
    """The model of a package. Raises LoadError, or what a framework or user code raises."""
    from eyrie.modelserver.inside import InsideModel

    folder = Path(tempfile.mkdtemp(prefix="eyrie-package-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # a model may read its files at any time until then
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:
        tar.extractall(folder, filter="data")
    return InsideModel(folder, errand.environment, errand.image)


class Answerer:
    """Answers portions with a model."""

    def __init__(
        self, spec: TransformSpec, agreed: Agreed, objects: Sequence[InputObject], door: Door, model: Model | None
    ) -> None:
        self._spec, self._agreed, self._objects, self._door = spec, agreed, objects, door
        self._sieve: Sieve | None = sieve(spec.processing, spec.content_type, spec.accept)
        self._model = model

    def answer(self, portion: Portion) -> Iterator[Answered]:
        """A portion's results, a message at a time; the last one says that it is the last."""
        held, size = list[Result](), 0
        try:
            for one in self._results(portion):
                held.append(one)
                size += len(one.data)
                if size >= MESSAGE_BYTES:
                    yield Answered(tuple(held))
                    held, size = [], 0
        except SplitError as error:
            yield Answered(tuple(held), True, f"record {error.line}: {error.why}")
        except (ObjectFailed, BucketError) as error:
            yield Answered(tuple(held), True, str(error))
        else:
            yield Answered(tuple(held), True)

    def _results(self, portion: Portion) -> Iterator[Result]:
        """Raises SplitError, ObjectFailed, BucketError."""
        spec = self._spec
        for payloads in self._together(self._payloads(portion)):
            for payload, reply in zip(payloads, self._ask([one.body for one in payloads]), strict=True):
                found = written(spec, self._sieve, payload, reply, spec.bad_records_max, self._ask)
                bad = tuple((one.line, str(one)) for one in found.bad)
                yield Result(found.data, found.end, found.line, found.records, bad)

    def _payloads(self, portion: Portion) -> Iterator[Payload]:
        one = self._objects[portion.index]
        if portion.end != TO_ITS_END:
            one = replace(one, size=portion.end)
        cut = cutter(self._spec, self._agreed, self._sieve, Mark(offset=portion.start, line=portion.line))
        for piece in source.pieces(self._door, self._spec, one, portion.start):
            yield from cut.feed(piece)
        yield from cut.finish()

    def _together(self, payloads: Iterator[Payload]) -> Iterator[list[Payload]]:
        held, size = list[Payload](), 0
        for payload in payloads:
            if held and (size + len(payload.body) > TOGETHER_BYTES or len(held) >= TOGETHER):
                yield held
                held, size = [], 0
            held.append(payload)
            size += len(payload.body)
        if held:
            yield held

    def _ask(self, bodies: Sequence[bytes]) -> list[Reply]:
        """The answers; one of 5xx is asked for again, as often as the job says."""
        answers = self._answers(bodies)
        for _ in range(self._spec.retries):
            again = [number for number, reply in enumerate(answers) if reply.status >= SERVER_ERROR]
            if not again:
                break
            time.sleep(PAUSE_S)
            for number, reply in zip(again, self._answers([bodies[number] for number in again]), strict=True):
                answers[number] = reply
        return answers

    def _answers(self, bodies: Sequence[bytes]) -> list[Reply]:
        assert self._model is not None
        kind = source.sent_type(self._spec)
        return [Reply(status, body) for status, body in self._model.answers(bodies, kind, self._spec.accept)]
