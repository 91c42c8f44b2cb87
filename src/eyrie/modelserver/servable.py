"""A loaded model that answers invocations: the object behind /invocations, behind one stage of a pipeline, and behind
one of many models of a multi-model container.

The path of an invocation: `app` -> `Servable.invoke` -> `codecs.decode` -> `batcher` -> model -> `encode` -> the
replier, which is the connection itself, or a stage of a pipeline that hands the answer on. What is loaded
(`hosting.Loaded`) knows of no loop and no thread; a servable binds it to the event loop that serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eyrie.http1.replies import header_block
from eyrie.modelserver.batcher import Batcher, Bounds, Outcome, Part, predict_each
from eyrie.modelserver.codecs import (
    CSV,
    LINES_BYTES_MAX,
    Array,
    Refused,
    decode,
    guess_type,
    negotiate,
    one_line,
    read_lines,
)
from eyrie.modelserver.frameworks.interface import Answer, CallModel, EncodesEach, Invocation, RowModel
from eyrie.modelserver.replier import TEXT_LINES, ClientLeft, Fields, Replier, refuse, turn_away
from eyrie.modelserver.scope import Scope
from eyrie.modelserver.streaming import Stream
from eyrie.modelserver.threads import Workers

log = logging.getLogger("eyrie.modelserver")

INLINE_BYTES_MAX = 32_768  # a longer body is decoded in a thread: reading it would hold up everybody else
QUEUE_MAX = 1024
TYPES_REMEMBERED_MAX = 64


class Servable(Protocol):
    """Something that answers invocations."""

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        """Answer one request, now or later, once. Never raises."""
        ...

    @property
    def parallel(self) -> int:
        """How many requests it works on at once."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a request is in it."""
        ...


@dataclass(frozen=True, slots=True)
class Ground:
    """What servables stand on: the event loop, and the worker threads that they share."""

    loop: asyncio.AbstractEventLoop
    workers: Workers


# ----------------------------------------------------------------------------------------------------------- row models
class Together:
    """Requests of one row each, read and predicted as one: a ticket of the batcher."""

    __slots__ = ("answered", "client", "kind")

    def __init__(self, client: Replier, kind: str, answered: Callable[[list[bytes] | None, bytes], None]) -> None:
        """`answered` hears their answers in order and the header lines of each; None: ask them one by one."""
        self.client = client
        self.kind = kind  # the content type of the answers
        self.answered = answered

    @property
    def alive(self) -> bool:
        """Whether anybody waits for the answers."""
        return self.client.alive


class RowServable:
    """A model of rows."""

    parallel = 1

    def __init__(
        self,
        model: RowModel,
        ground: Ground,
        threads: int,
        label: str = "",
        said: bytes = b"",
        bounds: Bounds | None = None,
    ) -> None:
        """`threads`: how many batches run in worker threads at once; 0: on the event loop. `label`: its mark in the
        log, where it is one of several; `said`: header lines of every answer, after its type's.
        """
        self._bounds = bounds
        self._model = model
        self._label = label
        self._said = said
        self._ground = ground
        self._aside = 0  # requests that are worked off in a thread of their own
        self._types: dict[tuple[bytes | None, bytes | None], tuple[str, str]] = {}  # by the headers that ask for them
        self._lines: dict[str, bytes] = {}  # header lines of a reply by content type; bounded by what models offer
        self._each = model if isinstance(model, EncodesEach) else None
        self._batcher = self._batch(model, threads)

    def replace(self, model: RowModel, threads: int) -> None:
        """Serve another model of the same form from now on; what is queued for the old one is answered by it."""
        self._model, self._batcher = model, self._batch(model, threads)
        self._each = model if isinstance(model, EncodesEach) else None

    @property
    def busy(self) -> bool:
        """Whether a request is in it."""
        return self._aside > 0 or self._batcher.busy

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        """Queue the rows of a body; the hot path."""
        asked = (fields.get(b"content-type"), fields.get(b"accept"))
        try:
            content_type, kind = self._types.get(asked) or self._negotiate(asked)
            if not 0 < len(body) <= INLINE_BYTES_MAX:
                self._invoke_unusual(replier, body, content_type, kind)
                return
            rows: Part | None = one_line(body, content_type)
            if rows is None:
                rows = decode(body, content_type or guess_type(body), self._model.shape)
        except Refused as refused:
            refuse(replier, refused, self._label)
            return
        replier.context = kind
        if not self._batcher.submit(replier, rows):
            turn_away(replier)

    def invoke_together(
        self,
        client: Replier,
        bodies: Sequence[bytes],
        fields: Fields,
        answered: Callable[[list[bytes] | None, bytes], None],
    ) -> bool:
        """Queue requests that are one row of plain numbers each, as one: nothing is made for each of them. False where
        one is anything else, or the queue is full, and they are to be asked one by one; so they are when `answered`
        hears None, since one of them is at fault.
        """
        types = self._types.get((fields.get(b"content-type"), fields.get(b"accept")))
        if types is None or types[0] != CSV or sum(map(len, bodies)) > LINES_BYTES_MAX:
            return False
        rows = read_lines([body.strip(b"\r\n") for body in bodies], self._model.shape)
        return rows is not None and self._batcher.submit(Together(client, types[1], answered), rows)

    def _batch(self, model: RowModel, threads: int) -> Batcher[Replier | Together]:
        return Batcher(
            model.predict,
            model.shape,
            self._deliver,
            soon=self._ground.loop.call_soon,
            off=self._ground.workers.run,
            clock=time.perf_counter,
            threads=threads,
            wanted=_alive,
            bounds=self._bounds,
        )

    def _negotiate(self, asked: tuple[bytes | None, bytes | None]) -> tuple[str, str]:
        """The content types of a request ("" where it says none) and of its reply; remembered. Raises NotAcceptable."""
        content_type, accept = ((header or b"").decode("latin-1").strip() for header in asked)
        types = (content_type, negotiate(accept, self._model.offers, self._model.default_accept))
        if len(self._types) < TYPES_REMEMBERED_MAX:
            self._types[asked] = types
        return types

    def _deliver(self, replier: Replier | Together, outcome: Outcome) -> None:
        """A request's predictions, or its own error."""
        if isinstance(replier, Together):
            self._deliver_together(replier, outcome)
            return
        if isinstance(outcome, Exception):
            refuse(replier, outcome, self._label)
            return
        kind = replier.context
        try:
            body = self._model.encode(outcome, kind)
        except (
            Exception
        ) as error:  # the boundary to foreign code: a prediction that cannot be written is its request's error
            refuse(replier, error, self._label)
            return
        replier.reply(200, self._lines.get(kind) or self._line(kind), body)

    def _deliver_together(self, together: Together, outcome: Outcome) -> None:
        answers, kind = None, together.kind
        if not isinstance(outcome, Exception):
            with contextlib.suppress(Exception):  # foreign code, as in _deliver: one by one tells whose error it is
                answers = self._encode_each(outcome, kind)
        together.answered(answers, self._lines.get(kind) or self._line(kind))

    def _encode_each(self, values: Array, kind: str) -> list[bytes]:
        """The answers to requests of one row each."""
        if self._each is not None:
            return self._each.encode_each(values, kind)
        return [self._model.encode(value, kind) for value in values[:, None]]

    def _line(self, kind: str) -> bytes:
        suffix = "; charset=utf-8" if kind.startswith("text/") else ""
        self._lines[kind] = line = f"content-type: {kind}{suffix}\r\n".encode() + self._said
        return line

    def _invoke_unusual(self, replier: Replier, body: bytes, content_type: str, kind: str) -> None:
        """An empty body is answered at once, a large one is worked off in a thread from reading to writing."""
        model = self._model
        if not body:
            replier.reply(model.empty_status, TEXT_LINES, b"" if model.empty_status == 204 else b"the body is empty")
            return

        def work() -> bytes:
            rows = decode(body, content_type or guess_type(body), model.shape)
            (outcome,) = predict_each(model.predict, model.shape, [rows])
            if isinstance(outcome, Exception):
                raise outcome
            return model.encode(outcome, kind)

        def done(outcome: Any) -> None:
            self._aside -= 1
            if isinstance(outcome, BaseException):
                refuse(replier, outcome, self._label)
            else:
                replier.reply(200, self._lines.get(kind) or self._line(kind), outcome)

        if self._ground.workers.run(_if_alive(replier, work), done):
            self._aside += 1
        else:
            turn_away(replier)


# ------------------------------------------------------------------------------------------------------------ user code
class Lane:
    """A share of the worker threads: so many jobs at once, the others wait in order. Lives on the event loop."""

    def __init__(self, workers: Workers, limit: int) -> None:
        self._workers = workers
        self._limit = limit
        self._running = 0
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return self._running > 0 or bool(self._waiting)

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        """Queue `work`; `done` is called with its result or its exception. False when nothing more may wait."""
        if self._running < self._limit:
            return self._start(work, done)
        if len(self._waiting) >= QUEUE_MAX:
            return False
        self._waiting.append((work, done))
        return True

    def _start(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        def finished(outcome: Any) -> None:
            self._running -= 1
            self._next()
            done(outcome)

        started = self._workers.run(work, finished)
        self._running += started
        return started

    def _next(self) -> None:
        while self._waiting and self._running < self._limit:
            work, done = self._waiting.popleft()
            if not self._start(work, done):
                done(RuntimeError("the worker threads are full"))


class CallServable:
    """A model that answers whole requests: user code, in worker threads."""

    def __init__(self, model: CallModel, ground: Ground, scope: Scope | None = None, label: str = "") -> None:
        """`scope`: where its code lives, and `label`: its mark in the log, where it is one of several."""
        self._model = model
        self._ground = ground
        self._scope = scope
        self._label = label
        self._lane = Lane(ground.workers, model.workers)

    @property
    def parallel(self) -> int:
        """How many requests it works on at once."""
        return self._model.workers

    @property
    def busy(self) -> bool:
        """Whether a request is in it."""
        return self._lane.busy

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        """Queue a request for a worker thread."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields.items()}
        invocation = Invocation(body, headers.get("content-type", ""), headers.get("accept", ""), headers)

        def work() -> tuple[Answer, bytes] | None:
            with self._scope.entered() if self._scope is not None else contextlib.nullcontext():
                return self._run(replier, invocation)

        def done(outcome: Any) -> None:
            if isinstance(outcome, BaseException):
                refuse(replier, outcome, self._label)
            elif outcome is not None:
                answer, lines = outcome
                replier.reply(answer.status, lines, answer.body)

        if not self._lane.run(_if_alive(replier, work), done):
            turn_away(replier)

    def _run(self, replier: Replier, invocation: Invocation) -> tuple[Answer, bytes] | None:
        """In a worker thread: the answer and its headers; None for one that was streamed from here."""
        answer = self._model.call(invocation)
        lines = header_lines(answer)
        if answer.pieces is None:
            return answer, lines
        Stream(replier, self._ground.loop.call_soon_threadsafe, self._label).run(answer.status, lines, answer.pieces)
        return None


def header_lines(answer: Answer) -> bytes:
    """The headers of what user code answered. Raises RuntimeError for one that cannot be sent."""
    headers = [("content-type", answer.content_type), *answer.headers]
    try:
        return header_block([(name.lower().encode(), value.encode("latin-1")) for name, value in headers])
    except (ValueError, AttributeError) as error:
        raise RuntimeError(f"the user code's headers cannot be sent: {error}") from None


def _alive(replier: Replier | Together) -> bool:
    return replier.alive


def _if_alive(replier: Replier, work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, unless its client has left by the time that a thread comes to it."""

    def guarded() -> Any:
        if not replier.alive:
            raise ClientLeft
        return work()

    return guarded
