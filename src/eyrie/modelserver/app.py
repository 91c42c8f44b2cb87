"""The model server on its socket: /ping, /invocations, /execution-parameters of the container contract, /eyrie/claim
and /eyrie/state.

A slot waits; a claim makes it an instance, once; the model is loaded in a thread while /ping answers 503; then it
serves. Started by `slot`. The path of an invocation: `head` -> `body` -> `codecs.decode` -> `batcher` -> model ->
`encode` -> reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import time
import traceback
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from eyrie.http1.replies import header_block
from eyrie.http1.server import Connection
from eyrie.modelserver import environment, loader
from eyrie.modelserver.batcher import SLOW_S, Batcher, Outcome, predict_each
from eyrie.modelserver.codecs import (
    Refused,
    decode,
    guess_type,
    negotiate,
)
from eyrie.modelserver.environment import Claim, ClaimError
from eyrie.modelserver.frameworks.interface import Answer, CallModel, Invocation, LoadError, RowModel, Source
from eyrie.modelserver.measure import pace
from eyrie.modelserver.threads import Pools, Workers, threads_for

log = logging.getLogger("eyrie.modelserver")

INLINE_BYTES_MAX = 32_768  # a longer body is decoded in a thread: reading it would hold up everybody else
QUEUE_MAX = 1024
TYPES_REMEMBERED_MAX = 64
CLAIM_BYTES_MAX = 1_048_576
MESSAGE_CHARS_MAX = 2_000
FAILED = 1  # exit code of a model that does not load
TEXT_LINES = b"content-type: text/plain; charset=utf-8\r\n"
JSON_LINES = b"content-type: application/json\r\n"


class Phase(StrEnum):
    """Where a slot stands; the spellings are those of GET /eyrie/state."""

    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"


class ModelServer:
    """The application behind the socket. Everything runs on the event loop but loading, slow models, large bodies and
    user code.
    """

    def __init__(
        self, ml: Path, loop: asyncio.AbstractEventLoop, pools: Pools, exit_with: Callable[[int], None]
    ) -> None:
        """`exit_with` ends the process: a model that does not load takes its instance with it, as a container would."""
        self._ml = ml
        self._loop = loop
        self._pools = pools
        self._exit_with = exit_with
        self.phase = Phase.WAITING
        self.claim: Claim | None = None
        self._loaded_ms: int | None = None
        self._body_max = environment.BODY_BYTES_DEFAULT
        self._rows: RowModel | None = None
        self._calls: CallModel | None = None
        self._batcher: Batcher[Connection] | None = None
        self._workers = Workers(1, QUEUE_MAX, loop.call_soon_threadsafe)
        self._loader = Workers(1, 1, loop.call_soon_threadsafe, "loader")
        self._types: dict[tuple[bytes | None, bytes | None], tuple[str, str]] = {}  # by the headers that ask for them
        self._lines: dict[str, bytes] = {}  # header lines of a reply by content type; bounded by what models offer

    # ------------------------------------------------------------------------------------------------- requests come in
    def head(self, connection: Connection) -> None:
        """Decide by the head alone what may follow."""
        target = connection.target
        if target == b"/invocations" and connection.method == b"POST":
            if self.phase is not Phase.READY:
                connection.reply(503, TEXT_LINES, b"the model is still loading")
            else:
                connection.collect(self._body_max)
        elif target == b"/ping" and connection.method in (b"GET", b"HEAD"):
            connection.reply(200 if self.phase is Phase.READY else 503, b"", b"")
        else:
            self._other(connection, target.partition(b"?")[0])

    def body(self, connection: Connection, data: bytes) -> None:
        """A whole body: an invocation, or a claim."""
        if connection.target == b"/eyrie/claim":
            self._claimed(connection, data)
        elif self._rows is not None:
            self._invoke_rows(connection, data, self._rows)
        elif self._calls is not None:
            self._invoke_call(connection, data, self._calls)

    def too_large(self, connection: Connection) -> None:
        """The body passed its limit."""
        connection.reply(413, TEXT_LINES, f"the body is longer than {self._body_max} bytes".encode())

    def data(self, connection: Connection, piece: bytes) -> None:
        """Never called: bodies are collected."""

    def end(self, connection: Connection) -> None:
        """Never called: bodies are collected."""

    def gone(self, connection: Connection) -> None:
        """The client left; its request is skipped if it still waits (`Connection.alive`)."""

    def paused(self, connection: Connection) -> None:
        """Replies are whole: nothing to hold back."""

    def resumed(self, connection: Connection) -> None:
        """Replies are whole: nothing to go on with."""

    def _other(self, connection: Connection, path: bytes) -> None:
        allowed = {
            b"/invocations": b"POST",
            b"/ping": b"GET",
            b"/eyrie/claim": b"POST",
            b"/eyrie/state": b"GET",
            b"/execution-parameters": b"GET",
        }.get(path)
        if allowed is None:
            connection.reply(404, TEXT_LINES, b"no such path; there are /ping, /invocations and /execution-parameters")
        elif connection.method != allowed:
            connection.reply(405, b"allow: " + allowed + b"\r\n" + TEXT_LINES, b"wrong method for this path")
        elif path == b"/eyrie/claim":
            connection.collect(CLAIM_BYTES_MAX)
        elif path == b"/eyrie/state":
            connection.reply(200, JSON_LINES, json.dumps(self.state()).encode())
        else:
            connection.reply(200, JSON_LINES, json.dumps(self._execution_parameters()).encode())

    def state(self) -> dict[str, Any]:
        """What GET /eyrie/state answers: the phase, proportional memory, and how long loading took."""
        return {"phase": self.phase.value, "pss_bytes": pss_bytes(), "loaded_ms": self._loaded_ms}

    def _execution_parameters(self) -> dict[str, Any]:
        parallel = self._calls.workers if self._calls is not None else 1
        return {
            "MaxConcurrentTransforms": parallel,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": max(1, self._body_max // 1_048_576),
        }

    # ----------------------------------------------------------------------------------------------- the claim
    def _claimed(self, connection: Connection, body: bytes) -> None:
        try:
            claim = Claim.parse(body)
        except ClaimError as error:
            connection.reply(400, TEXT_LINES, str(error).encode())
            return
        if self.claim is not None and self.claim.instance_id != claim.instance_id:
            connection.reply(409, TEXT_LINES, f"this slot is {self.claim.instance_id}".encode())
            return
        connection.reply(202, b"", b"")
        if self.claim is None:
            self.claim = claim
            self.phase = Phase.LOADING
            self._begin_loading(claim)

    def _begin_loading(self, claim: Claim) -> None:
        environment.apply(claim, self._ml)
        environment.set_log_level(os.environ)
        self._body_max = environment.body_bytes_max(os.environ)
        log.info(
            "instance %s of endpoint %s, variant %s, zone %s",
            claim.instance_id,
            claim.endpoint,
            claim.variant,
            claim.zone,
        )
        began = time.monotonic()

        def loaded(outcome: Any) -> None:
            self._loaded(outcome, began)

        self._loader.run(self._load, loaded)

    def _load(self) -> tuple[RowModel | CallModel, Batcher[Connection] | None]:
        """In the loader's thread: everything that may take long before the first prediction."""
        assert self.claim is not None
        threads = threads_for(self.claim.vcpu_milli)
        self._pools.resize(threads, os.environ, self.claim.environment)
        source = Source(self._ml, dict(os.environ), self.claim.image)
        environment.extend_path(loader.code_paths(source, loader.script_path(source)))
        model = loader.load(source)
        if not isinstance(model, RowModel):
            return model, None
        speed = pace(model.predict, model.shape, time.perf_counter)
        on_loop = speed.quick(SLOW_S)
        log.info("%s; %s; predicts %s", model.title, speed, "on the event loop" if on_loop else "in worker threads")
        return model, self._batcher_for(model, 0 if on_loop else threads)

    def _batcher_for(self, model: RowModel, threads: int) -> Batcher[Connection]:
        return Batcher(
            model.predict,
            model.shape,
            self._deliver,
            soon=self._loop.call_soon,
            off=self._off,
            clock=time.perf_counter,
            threads=threads,
            wanted=_alive,
        )

    def _off(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        return self._workers.run(work, done)

    def _loaded(self, outcome: Any, began: float) -> None:
        if isinstance(outcome, BaseException):
            report_failure(outcome)
            self._exit_with(FAILED)
            return
        model, self._batcher = outcome
        if isinstance(model, RowModel):
            self._rows = model
            assert self.claim is not None
            count = (
                threads_for(self.claim.vcpu_milli) + 1
            )  # one more than batches use: a large body must not wait for them
        else:
            self._calls = model
            count = model.workers
            log.info("%s; %d worker thread(s)", model.title, count)
        self._workers = Workers(count, QUEUE_MAX, self._loop.call_soon_threadsafe)
        self._loaded_ms = int((time.monotonic() - began) * 1000)
        gc.collect()
        gc.freeze()  # what was loaded lives as long as the process: the collector need not look at it again
        self.phase = Phase.READY
        log.info("ready after %d ms", self._loaded_ms)

    # ------------------------------------------------------------------------------------------------------- row models
    def _invoke_rows(self, connection: Connection, body: bytes, model: RowModel) -> None:
        fields = connection.fields
        asked = (fields.get(b"content-type"), fields.get(b"accept"))
        try:
            content_type, kind = self._types.get(asked) or self._negotiate(asked, model)
            if not 0 < len(body) <= INLINE_BYTES_MAX:
                self._invoke_unusual(connection, body, content_type, kind, model)
                return
            rows = decode(body, content_type or guess_type(body), model.shape)
        except Refused as refused:
            self._refuse(connection, refused)
            return
        connection.context = kind
        if self._batcher is None or not self._batcher.submit(connection, rows):
            _busy(connection)

    def _negotiate(self, asked: tuple[bytes | None, bytes | None], model: RowModel) -> tuple[str, str]:
        """The content types of a request ("" where it says none) and of its reply; remembered. Raises NotAcceptable."""
        content_type, accept = ((header or b"").decode("latin-1").strip() for header in asked)
        types = (content_type, negotiate(accept, model.offers, model.default_accept))
        if len(self._types) < TYPES_REMEMBERED_MAX:
            self._types[asked] = types
        return types

    def _deliver(self, connection: Connection, outcome: Outcome) -> None:
        """A request's predictions, or its own error."""
        if isinstance(outcome, Exception):
            self._refuse(connection, outcome)
            return
        assert self._rows is not None
        kind = connection.context
        try:
            body = self._rows.encode(outcome, kind)
        except (
            Exception
        ) as error:  # the boundary to foreign code: a prediction that cannot be written is its request's error
            self._refuse(connection, error)
            return
        connection.reply(200, self._lines.get(kind) or self._line(kind), body)

    def _line(self, kind: str) -> bytes:
        suffix = "; charset=utf-8" if kind.startswith("text/") else ""
        self._lines[kind] = line = f"content-type: {kind}{suffix}\r\n".encode()
        return line

    def _invoke_unusual(
        self, connection: Connection, body: bytes, content_type: str, kind: str, model: RowModel
    ) -> None:
        """An empty body is answered at once, a large one is worked off in a thread from reading to writing."""
        if not body:
            connection.reply(model.empty_status, TEXT_LINES, b"" if model.empty_status == 204 else b"the body is empty")
            return

        def work() -> bytes:
            rows = decode(body, content_type or guess_type(body), model.shape)
            (outcome,) = predict_each(model.predict, model.shape, [rows])
            if isinstance(outcome, Exception):
                raise outcome
            return model.encode(outcome, kind)

        def done(outcome: Any) -> None:
            if isinstance(outcome, BaseException):
                self._refuse(connection, outcome)
            else:
                connection.reply(200, self._lines.get(kind) or self._line(kind), outcome)

        if not self._workers.run(_if_alive(connection, work), done):
            _busy(connection)

    # -------------------------------------------------------------------------------------------------------- user code
    def _invoke_call(self, connection: Connection, body: bytes, model: CallModel) -> None:
        fields = connection.fields
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields.items()}
        invocation = Invocation(body, _header(fields, b"content-type"), _header(fields, b"accept"), headers)

        def work() -> Answer:
            return model.call(invocation)

        def done(outcome: Any) -> None:
            if isinstance(outcome, BaseException):
                self._refuse(connection, outcome)
            else:
                self._answer(connection, outcome)

        if not self._workers.run(_if_alive(connection, work), done):
            _busy(connection)

    def _answer(self, connection: Connection, answer: Answer) -> None:
        headers = [("content-type", answer.content_type), *answer.headers]
        try:
            lines = header_block([(name.lower().encode(), value.encode("latin-1")) for name, value in headers])
        except (ValueError, AttributeError) as error:
            self._refuse(connection, RuntimeError(f"the user code's headers cannot be sent: {error}"))
            return
        connection.reply(answer.status, lines, answer.body)

    # --------------------------------------------------------------------------------------------------------- refusals
    def _refuse(self, connection: Connection, error: BaseException) -> None:
        """Answer with an error's own status. What the server did wrong is logged whole; what the client did, in a
        line.
        """
        status = status_of(error)
        message = str(error) or type(error).__name__
        if isinstance(error, _ClientLeft):
            return
        if status >= 500:
            log.error("invocation failed with %d\n%s", status, "".join(traceback.format_exception(error)).rstrip())
            message = f"{type(error).__name__}: {message}"
        else:
            log.info("invocation refused with %d: %s", status, message[:MESSAGE_CHARS_MAX])
        connection.reply(status, TEXT_LINES, message[:MESSAGE_CHARS_MAX].encode("utf-8", "backslashreplace"))


class _ClientLeft(Exception):
    """Nobody waits for this answer any more."""


def status_of(error: BaseException) -> int:
    """The HTTP status for an exception: a refusal's own, an exception's `status_code` (the toolkits' errors have one),
    else 500.
    """
    status = error.status if isinstance(error, Refused) else getattr(error, "status_code", None)
    return status if isinstance(status, int) and 400 <= status <= 599 else 500


def _alive(connection: Connection) -> bool:
    return connection.alive


def _if_alive(connection: Connection, work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, unless its client has left by the time that a thread comes to it."""

    def guarded() -> Any:
        if not connection.alive:
            raise _ClientLeft
        return work()

    return guarded


def _header(fields: dict[bytes, bytes], name: bytes) -> str:
    value = fields.get(name)
    return value.decode("latin-1") if value is not None else ""


def _busy(connection: Connection) -> None:
    connection.reply(503, b"retry-after: 1\r\n" + TEXT_LINES, b"too many requests are waiting for this model")


def report_failure(error: BaseException) -> None:
    """Put the traceback and one plain line into the log; a LoadError is its own plain line and needs no traceback."""
    if not isinstance(error, LoadError):
        log.error("loading failed\n%s", "".join(traceback.format_exception(error)).rstrip())
        if isinstance(error, ModuleNotFoundError):
            error = LoadError(
                f"the module {error.name!r} is missing: name it in code/requirements.txt, or put it in code/"
            )
        else:
            error = LoadError(f"{type(error).__name__}: {error}")
    log.error("The model could not be loaded: %s", " ".join(str(error).split()))


def pss_bytes() -> int:
    """Proportional memory of this process in bytes; 0 where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
