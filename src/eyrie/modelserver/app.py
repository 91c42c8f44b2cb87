"""The model server on its socket: /ping, /invocations, /execution-parameters of the container contract, /eyrie/claim,
/eyrie/state, and /eyrie/batch.

A slot waits; a claim makes it an instance, once; its containers are loaded in a thread while /ping answers 503; then it
serves. Started by `slot`. The path of an invocation: `head` -> `body` -> `servable` -> `batcher` -> model -> reply.
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
from typing import TYPE_CHECKING, Any

from eyrie.http1.server import Connection
from eyrie.modelserver import bulk, environment, hosting, opening
from eyrie.modelserver.board import Board
from eyrie.modelserver.effort import Effort
from eyrie.modelserver.environment import Claim, ClaimError
from eyrie.modelserver.frameworks.interface import LoadError
from eyrie.modelserver.hosting import Hosted
from eyrie.modelserver.metadata import describe
from eyrie.modelserver.pace import Pace, PaceError, read_pace
from eyrie.modelserver.pipeline import Choice, Pipeline
from eyrie.modelserver.replier import JSON_LINES, TEXT_LINES, Fields, speaking
from eyrie.modelserver.servable import RowServable, Servable
from eyrie.modelserver.shelf import Shelf
from eyrie.modelserver.threads import Pools, Workers

if TYPE_CHECKING:
    from eyrie.modelserver.guests import Guests

log = logging.getLogger("eyrie.modelserver")

CLAIM_BYTES_MAX = 1_048_576
_INVOCATIONS = (b"/invocations", b"/invoke", bulk.PATH)
PING_WAIT = b"x-eyrie-wait-ms"  # of a ping: how long it may wait for a 200 while the model is loaded
PING_WAIT_MS_MAX = 5_000
PING_LOOK_S = 0.003  # how often a ping that waits looks whether all workers serve: other processes tell nobody
PINGS_MAX = 16  # that wait at once; others are answered at once
FAILED = 1  # exit code of a model that does not load


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
        self,
        ml: Path,
        loop: asyncio.AbstractEventLoop,
        pools: Pools,
        exit_with: Callable[[int], None],
        *,
        several: Callable[[Claim], None] | None = None,
        alone: Callable[[], None] = lambda: None,
        board: Board | None = None,
        number: int = 0,
        guests: Guests | None = None,
    ) -> None:
        """`exit_with` ends the process: a model that does not load takes its instance with it, as a container would.
        `several` hears a claim for more than one worker in place of loading it, `alone` that there is one for one;
        `board` is that of a process of such an instance, `number` the worker's; `guests` are containers of the user's
        own in it.
        """
        self._ml = ml
        self._loop = loop
        self._pools = pools
        self._exit_with = exit_with
        self._several = several
        self._alone = alone
        self._board = board
        self._number = number
        self._guests = guests
        self.phase = Phase.WAITING
        self.claim: Claim | None = None
        self._loaded_ms: int | None = None
        self._body_max = environment.BODY_BYTES_DEFAULT
        self._hosted: Hosted | None = None
        self._servable: Servable | None = None
        self._effort = Effort()
        self._of_rows = False  # it looks at no header but those of types
        self._compiling: Any = None  # a model's compilation beside the server, where it was asked for
        self._shelf: Shelf | None = None  # of a multi-model container
        self._pace: Pace | None = None  # where control throttles it and no control group does
        self._loader = Workers(1, 1, loop.call_soon_threadsafe, "loader")
        self._pings: dict[Connection, float] = {}  # that wait for a 200, and until when

    # ------------------------------------------------------------------------------------------------- requests come in
    def head(self, connection: Connection) -> None:
        """Decide by the head alone what may follow."""
        target = connection.target
        if target == b"/invocations" and connection.method == b"POST":
            if self.phase is not Phase.READY:
                connection.reply(503, TEXT_LINES, b"the model is still loading")
            else:
                connection.collect(self._body_max)
        elif target == bulk.PATH and connection.method == b"POST" and self._servable is not None:
            connection.collect(bulk.BYTES_MAX + self._body_max)
        elif self._shelf is not None and target.startswith(b"/models"):
            self._shelf.head(connection)
        elif target == b"/ping" and connection.method in (b"GET", b"HEAD"):
            self._ping(connection)
        else:
            self._other(connection, target.partition(b"?")[0])

    def _ping(self, connection: Connection) -> None:
        """Answer a ping: now, or, where it may wait and the model is being loaded, when there is a 200 to tell."""
        well = self._well()
        if well or self.phase is Phase.WAITING or not connection.fields.get(PING_WAIT, b"").isdigit():
            connection.reply(200 if well else 503, b"", b"")
        else:
            connection.collect(0)

    def _wait(self, connection: Connection) -> None:
        """A ping that may wait has come whole."""
        if len(self._pings) >= PINGS_MAX:
            connection.reply(503, b"", b"")
            return
        if not self._pings:
            self._loop.call_later(PING_LOOK_S, self._look_at_pings)
        wait_ms = min(int(connection.fields[PING_WAIT][:9]), PING_WAIT_MS_MAX)
        self._pings[connection] = self._loop.time() + wait_ms / 1000

    def _look_at_pings(self) -> None:
        """Answer the pings that waited long enough; again soon, while some wait."""
        self._answer_pings()
        if self._pings:
            self._loop.call_later(PING_LOOK_S, self._look_at_pings)

    def _answer_pings(self) -> None:
        now_s, well = self._loop.time(), self._well()
        for connection, until_s in list(self._pings.items()):
            if well or now_s >= until_s or not connection.alive:
                del self._pings[connection]
                connection.reply(200 if well else 503, b"", b"")

    def let_go(self, well: bool = False) -> None:
        """Answer every ping that waits: this loop ends for another one. `well`: those who serve from now on are."""
        for connection in self._pings:
            connection.reply(200 if well else 503, b"", b"")
        self._pings.clear()

    def _well(self) -> bool:
        """Whether /ping answers 200: worker 0 answers for the whole instance, every other one for itself."""
        board = self._board
        whole = board is None or self._number > 0 or (board.open and board.all_serving)
        whole = whole and (self._guests is None or self._guests.well)
        return whole and self.phase is Phase.READY

    def body(self, connection: Connection, data: bytes) -> None:
        """A whole body: an invocation, or a claim."""
        servable = self._servable
        if servable is not None and self._pace is None and connection.target == b"/invocations":
            servable.invoke(connection, data, self._fields(connection))
        elif self._pace is not None and connection.target.endswith(_INVOCATIONS):
            if not self._pace.take(connection, data):
                connection.reply(503, TEXT_LINES, b"too many requests wait for CPU time: the instance is throttled")
        elif connection.target == b"/eyrie/pace":
            self._paced(connection, data)
        else:
            self._serve(connection, data)

    def _serve(self, connection: Connection, data: bytes) -> None:
        """A body whose turn it is."""
        servable = self._servable
        if servable is not None and connection.target == b"/invocations":
            servable.invoke(connection, data, self._fields(connection))
        elif self._shelf is not None and connection.target.startswith(b"/models"):
            self._shelf.body(connection, data)
        elif connection.target == b"/ping":
            self._wait(connection)
        elif servable is not None and connection.target == bulk.PATH:
            bulk.answer(servable, self._loop, self._effort, connection, data, self._fields(connection))
        else:
            self._claimed(connection, data)

    def _paced(self, connection: Connection, data: bytes) -> None:
        """From now on so much CPU, and no more."""
        try:
            vcpu_milli = read_pace(data)
        except PaceError as error:
            connection.reply(400, TEXT_LINES, str(error).encode())
            return
        if self._pace is None:
            self._pace = Pace(self._loop, self._serve)
        self._pace.set(vcpu_milli)
        connection.reply(200, b"", b"")

    def _fields(self, connection: Connection) -> Fields:
        """The headers of an invocation. The gateway's are the same every time but for the length, which rows have no
        use for: a head of theirs is recognised by its shape, and its fields are made once.
        """
        shape = connection.shape
        if shape is None:
            shape = connection.remember()
            if shape is not None and shape.derived is None:
                shape.derived = {name: value for name, value in connection.fields.items() if name != b"content-length"}
            return connection.fields
        known: Fields = shape.derived
        return known if self._of_rows else connection.fields

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
        """Whole replies have nothing to hold back."""

    def resumed(self, connection: Connection) -> None:
        """Whole replies have nothing to go on with."""

    def _other(self, connection: Connection, path: bytes) -> None:
        allowed = {
            b"/invocations": b"POST",
            b"/ping": b"GET",
            b"/eyrie/claim": b"POST",
            bulk.PATH: b"POST",
            b"/eyrie/pace": b"POST",
            b"/eyrie/phase": b"GET",
            b"/eyrie/state": b"GET",
            b"/eyrie/times": b"GET",
            b"/eyrie/metadata": b"GET",
            b"/execution-parameters": b"GET",
        }.get(path)
        if allowed is None:
            connection.reply(404, TEXT_LINES, b"no such path; there are /ping, /invocations and /execution-parameters")
        elif connection.method != allowed:
            connection.reply(405, b"allow: " + allowed + b"\r\n" + TEXT_LINES, b"wrong method for this path")
        elif path in (b"/eyrie/claim", b"/eyrie/pace"):
            connection.collect(CLAIM_BYTES_MAX)
        elif path == b"/eyrie/phase":
            connection.reply(200, JSON_LINES, json.dumps({"phase": self.phase.value}).encode())
        elif path == b"/eyrie/state":
            connection.reply(200, JSON_LINES, json.dumps(self.state()).encode())
        elif path == b"/eyrie/times":
            connection.reply(200, JSON_LINES, json.dumps(self._times()).encode())
        elif path == b"/execution-parameters":
            connection.reply(200, JSON_LINES, json.dumps(self._execution_parameters()).encode())
        elif self._hosted is None or path == bulk.PATH:
            connection.reply(503, TEXT_LINES, b"the model is still loading")
        else:
            connection.reply(200, JSON_LINES, json.dumps(self._metadata(self._hosted)).encode())

    def state(self) -> dict[str, Any]:
        """What GET /eyrie/state answers: the phase, proportional memory, and how long loading took."""
        pids = self._board.pids if self._board is not None else ["self"]
        memory = sum(pss_bytes(pid) for pid in pids)
        state: dict[str, Any] = {"phase": self.phase.value, "pss_bytes": memory, "loaded_ms": self._loaded_ms}
        if self._compiling is not None:
            state["compile"] = self._compiling.state
        return state | {"models": self._shelf.state()} if self._shelf is not None else state

    def _times(self) -> dict[str, Any]:
        """How long each of several containers took; nothing of one."""
        servable = self._servable
        return servable.times.as_json() if isinstance(servable, Pipeline | Choice) else {}

    def _metadata(self, hosted: Hosted) -> dict[str, Any]:
        containers = [describe(container.hostname, loaded) for container, loaded in hosted.containers]
        return {"execution": "Direct" if hosted.claim.direct else "Serial", "containers": containers}

    def _execution_parameters(self) -> dict[str, Any]:
        return {
            "MaxConcurrentTransforms": self._servable.parallel if self._servable is not None else 1,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": environment.payload_mb_told(self._body_max),
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
        environment.set_log_level({**os.environ, **claim.containers[0].environment})
        log.info(
            "instance %s of endpoint %s, variant %s, zone %s",
            claim.instance_id,
            claim.endpoint,
            claim.variant,
            claim.zone,
        )
        if claim.workers > 1 and self._several is not None:
            self._several(claim)
            return
        self._alone()
        began = time.monotonic()

        def load() -> Hosted:
            return hosting.load(claim, self._ml, self._pools, self._guests.names if self._guests else frozenset())

        def loaded(outcome: Any) -> None:
            if isinstance(outcome, BaseException):
                report_failure(outcome)
                self._exit_with(FAILED)
            else:
                self.serve(outcome, int((time.monotonic() - began) * 1000))

        self._loader.run(load, loaded)

    def await_workers(self, claim: Claim) -> None:
        """Be loading for as long as others load."""
        self.claim = claim
        self.phase = Phase.LOADING

    def serve(self, hosted: Hosted, loaded_ms: int) -> None:
        """Bind what was loaded to this event loop, and be ready."""
        self.claim = hosted.claim
        if self._board is not None:
            hosting.size_pools(hosted.claim, self._pools, hosted.claim.workers)
        self._hosted = hosted
        self._effort = Effort()  # of this process, which may be a fork of the one that made us
        self._body_max = opening.body_bytes_max(hosted.claim)
        self._servable = opening.open_containers(hosted, self._loop, self._guests.members if self._guests else ())
        self._of_rows = isinstance(self._servable, RowServable)
        self._shelf = self._servable if isinstance(self._servable, Shelf) else None
        self._loaded_ms = loaded_ms
        gc.collect()
        gc.freeze()  # what was loaded lives as long as the process: the collector need not look at it again
        self.phase = Phase.READY
        self._answer_pings()
        log.info("ready after %d ms", loaded_ms)
        self._compile(hosted)

    def _compile(self, hosted: Hosted) -> None:
        """Compile the model of an instance that has one, where its container asks for it."""
        alone = len(hosted.claim.containers) == len(hosted.containers) == 1
        if self._servable is not None and alone and environment.COMPILE in hosted.sources[0].env:
            from eyrie.modelserver.compile import at_load  # its libraries are for those who ask

            model = hosted.containers[0][1].model
            self._compiling = at_load.begin(hosted.sources[0], model, self._servable, self._loop, hosted.threads)


def report_failure(error: BaseException) -> None:
    """Put the traceback and one plain line into the log; a LoadError is its own plain line and needs no traceback."""
    if isinstance(error, hosting.Unloadable) and error.__cause__ is not None:
        with speaking(error.hostname):
            report_failure(error.__cause__)
        return
    if not isinstance(error, LoadError):
        log.error("loading failed\n%s", "".join(traceback.format_exception(error)).rstrip())
        if isinstance(error, ModuleNotFoundError):
            error = LoadError(
                f"the module {error.name!r} is missing: name it in code/requirements.txt, or put it in code/"
            )
        else:
            error = LoadError(f"{type(error).__name__}: {error}")
    log.error("The model could not be loaded: %s", " ".join(str(error).split()))


def pss_bytes(pid: int | str = "self") -> int:
    """Proportional memory of a process in bytes; 0 where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
