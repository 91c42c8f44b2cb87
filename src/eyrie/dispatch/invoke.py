"""One request and one instance: its input from the queue or from S3, streamed into `POST /invocations`; the answer kept
in memory while it is small, else in a file. What comes of it is an Outcome, or one of the exceptions here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from eyrie.dispatch.spools import RESULT_BYTES_MAX, ResultTooLarge, Spools
from eyrie.dispatch.storage import Reading, S3Refused, S3Stream, S3Unavailable
from eyrie.dispatch.tables import Worker
from eyrie.dispatch.tally import Tally
from eyrie.domain.async_inference import INPUT_BYTES_MAX, Ended, Outcome, Place, Waiting
from eyrie.domain.names import EndpointKey
from eyrie.http1.client import Broken, Exchange
from eyrie.http1.upstream import Failure
from eyrie.ports import ArtifactError

SMALL_BYTES = 131_072  # a result up to here is kept in the queue's file
REASON_BYTES_MAX = 65_536
BUSY = frozenset({429, 503})  # the instance took nothing: it may be asked again
_SM = b"x-amzn-sagemaker-"


class NotReached(Exception):
    """Nobody listens on the instance's socket, or it takes no more connections: it never saw the request."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class Lost(Exception):
    """The instance ended while it had the request."""


class Busy(Exception):
    """The instance answered that it takes no more now; the message is what it said."""


class InputAway(Exception):
    """The input cannot be read now, and may be later."""


class Invoker:
    """What all invocations share."""

    def __init__(self, storage: S3Stream, spools: Spools, tally: Tally, body_of: Callable[[int], bytes]) -> None:
        """`body_of`: the input that came with a call, by the request's number."""
        self._storage, self._spools, self._tally, self._body_of = storage, spools, tally, body_of

    async def invoke(self, request: Waiting, worker: Worker) -> Outcome:
        """Raises NotReached, Lost, Busy, InputAway."""
        if not request.location:
            return await self._exchange(request, worker, self._body_of(request.number), None)
        began = time.perf_counter()
        variant = worker.variant.name
        try:
            reading = await self._open(request)
        except (S3Refused, ArtifactError) as refused:
            self._tally.add(request.slug, variant, "RequestDownloadFailures")
            return failed(f"The input {request.location} cannot be read: {refused}", variant)
        except S3Unavailable as error:
            raise InputAway(str(error)) from None
        try:
            if reading.size > INPUT_BYTES_MAX:
                self._tally.add(request.slug, variant, "RequestDownloadFailures")
                said = f"is {reading.size} bytes long, and {INPUT_BYTES_MAX} are allowed"
                return failed(f"The input {request.location} {said}.", variant)
            measured = self._measured(request, variant, reading, began)
            return await self._exchange(request, worker, measured, reading)
        finally:
            reading.close()

    async def _open(self, request: Waiting) -> Reading:
        key = EndpointKey.from_slug(request.slug)
        place = place_of(request.location)
        return await self._storage.get(key.scope, place.bucket, place.key)

    async def _measured(self, request: Waiting, variant: str, reading: Reading, began: float) -> AsyncIterator[bytes]:
        try:
            async for piece in reading.pieces():
                yield piece
        except S3Unavailable as error:
            raise InputAway(str(error)) from None
        self._tally.add(request.slug, variant, "RequestDownloadLatency", (time.perf_counter() - began) * 1e6)

    async def _exchange(
        self, request: Waiting, worker: Worker, source: bytes | AsyncIterator[bytes], reading: Reading | None
    ) -> Outcome:
        exchange = Exchange(worker.pool)
        began = time.perf_counter()
        size = reading.size if reading is not None else len(source) if isinstance(source, bytes) else 0
        head = _head(request, worker, size, reading)
        try:
            if isinstance(source, bytes):
                status = await exchange.ask(head, source)
            else:
                status = await exchange.ask(head, pieces=source)
            return await self._answer(request, worker, exchange, status, began)
        except Broken as error:
            if not error.sent or error.failure is Failure.FULL:
                raise NotReached(error.failure) from None
            raise Lost(f"instance {worker.instance_id} ended with the request") from None
        finally:
            exchange.cancel()

    async def _answer(self, request: Waiting, worker: Worker, exchange: Exchange, status: int, began: float) -> Outcome:
        variant = worker.variant.name
        body, whole = b"", True
        if not 200 <= status < 300:
            body, whole = await exchange.read(REASON_BYTES_MAX)
            if status in BUSY:
                raise Busy(body[:500].decode("utf-8", "replace"))
            said = body.decode("utf-8", "replace") + ("" if whole else " ...")
            whose = "client" if 400 <= status < 500 else "server"
            self._tally.add(request.slug, variant, "InvocationFailures")
            told = f'Received {whose} error ({status}) from {worker.variant.container} with message "{said}"'
            return failed(told, variant, _us(began))
        content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
        pieces = exchange.pieces()
        held: list[bytes] = []
        size = 0
        async for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size > SMALL_BYTES:
                return await self._large(request, variant, content_type, b"".join(held), pieces, began)
        return Outcome(Ended.COMPLETED, content_type, "", b"".join(held), "", size, variant, _us(began))

    async def _large(
        self, request: Waiting, variant: str, content_type: str, first: bytes, rest: AsyncIterator[bytes], began: float
    ) -> Outcome:
        try:
            name, size = await self._spools.keep(first, rest)
        except ResultTooLarge:
            self._tally.add(request.slug, variant, "InvocationFailures")
            return failed(f"The result is longer than {RESULT_BYTES_MAX} bytes.", variant, _us(began))
        return Outcome(Ended.COMPLETED, content_type, "", b"", name, size, variant, _us(began))


def failed(reason: str, variant: str = "", model_us: int = 0, ended: Ended = Ended.FAILED) -> Outcome:
    """The outcome of a request that came to nothing."""
    cut = reason.encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore")
    body = cut.encode()
    return Outcome(ended, "text/plain", cut, body, "", len(body), variant, model_us)


def place_of(url: str) -> Place:
    """Bucket and key of an s3:// address."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return Place(bucket, key)


def _us(began: float) -> int:
    return int((time.perf_counter() - began) * 1e6)


def _head(request: Waiting, worker: Worker, size: int, reading: Reading | None) -> bytes:
    """Of the request to the instance: what SageMaker lets through, and the length."""
    content_type = request.content_type or (reading.content_type if reading is not None else "")
    lines = [b"POST /invocations HTTP/1.1\r\nhost: %b\r\n" % worker.variant.container.encode()]
    for name, value in (
        (b"content-type", content_type),
        (b"accept", request.accept),
        (_SM + b"custom-attributes", request.attributes),
        (_SM + b"inference-id", request.inference_id),
    ):
        if value:
            lines.append(b"%b: %b\r\n" % (name, value.encode("latin-1", "replace")))
    lines.append(b"content-length: %d\r\n\r\n" % size)
    return b"".join(lines)
