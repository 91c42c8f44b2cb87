"""A gateway worker, wired: the chain that a request passes, and the life of the process.

    head -> a path of InvokeEndpoint? -> Invoker (signature, room, variant, instance, reply)
         (with a response stream: a StreamInvocation of the same Invoker)
         -> /v2: the Open Inference Protocol -> OpenInference (infer: an InferInvocation of the same Invoker)
         -> a runtime feature that is not built? -> a modelled refusal
         -> anything else -> Forwarder (control, objects or dispatch)

N workers accept from one inherited listening socket. One sweep keeps every deadline.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from eyrie.gateway import errors
from eyrie.gateway.capture import Capture
from eyrie.gateway.door import Door
from eyrie.gateway.feed import Feed
from eyrie.gateway.forward import Forwarder
from eyrie.gateway.headers import TARGET_MODEL
from eyrie.gateway.health import Health
from eyrie.gateway.infer import InferInvocation
from eyrie.gateway.infer_model import InferModelInvocation
from eyrie.gateway.invoker import Invoker
from eyrie.gateway.meter import Meter
from eyrie.gateway.model_invocation import ModelInvocation
from eyrie.gateway.models import Models
from eyrie.gateway.openinference import OpenInference
from eyrie.gateway.predictions import Predictions
from eyrie.gateway.replays import Replays
from eyrie.gateway.request import InvokeRequest
from eyrie.gateway.routes import Instance, RouteBook
from eyrie.gateway.serverless import Gates
from eyrie.gateway.sessions import Sessions, signing_key
from eyrie.gateway.shadow import Mirror
from eyrie.gateway.shadow_pairs import Pairs
from eyrie.gateway.stream import StreamInvocation
from eyrie.http1.limits import Limits
from eyrie.http1.server import Connection, Server, listen
from eyrie.http1.shapes import Varying
from eyrie.http1.sweep import PERIOD_MS, Sweep
from eyrie.http1.upstream import Pool
from eyrie.settings import Settings
from eyrie.wire.auth import Verifier
from eyrie.wire.credentials import Credentials
from eyrie.wire.dispatch import Kind, destination

log = logging.getLogger(__name__)

_GC_OBJECTS = 20_000  # a request leaves no cycles behind: looking for them may be rare
# What differs between the requests that one client signs.
VARYING = {
    b"authorization": Varying(rb"[0-9a-f]{64}", after=b"Signature="),
    b"x-amz-date": Varying(rb"[0-9]{8}T[0-9]{6}Z"),
    b"x-amz-content-sha256": Varying(rb"[0-9A-Za-z-]{1,64}"),
    b"amz-sdk-invocation-id": Varying(rb"[0-9A-Za-z-]{1,64}"),
    b"amz-sdk-request": Varying(rb"[0-9A-Za-z=]{1,32}(?:; [0-9A-Za-z=]{1,32}){0,3}"),
    TARGET_MODEL: Varying(rb"[!-~]{1,512}"),
}
_NAMES_MAX = 4_096  # paths whose endpoint name is remembered
_STREAMS_MAY_END = 0.9  # of drain_ms: then those that have begun are told that the worker stops
_QUIET_MS = 1_000  # at the end, a connection that was idle for so long is closed without a word


class Gateway:
    """The application of a worker's server."""

    def __init__(
        self, settings: Settings, name: str, loop: asyncio.AbstractEventLoop, sweep: Sweep | None = None
    ) -> None:
        self.settings = settings
        self.name = name
        self.sweep = sweep or Sweep(loop)
        self.meter = Meter(settings.access_records)
        run = settings.data / "run"
        credentials = Credentials.load(settings.data / "credentials.json")
        verifier = Verifier(credentials, auth=settings.auth, account=settings.account, region=settings.region)
        self.book = RouteBook(settings.data / "routes", loop)
        self.feed = Feed(run / "feed.sock", name, self.book, self.meter)
        self.gates = self.book.gates = Gates(run / "concurrency.lock", self.sweep, self.meter, loop)
        self.gates.tell = self.feed.tell_use
        sessions = Sessions(signing_key(settings.data / "credentials.json"))
        self.invoker = Invoker(settings, verifier, sessions, self.book, self.meter, self.sweep)
        self.capture = Capture(settings, loop, self.meter)
        self.predictions = Predictions(self.meter)
        self.book.tap_makers = (self.capture.tap, self.predictions.tap)
        self.inference = OpenInference(settings, self.invoker)
        self.health = Health(settings, self.book, self.meter, self.sweep, self.feed.tell_ejected)
        self.invoker.health = self.health
        loads = Pool(loop, str(run / "models.sock"), idle_max=16)
        self.invoker.models = Models(
            loads, self.meter, self.sweep, {InvokeRequest: ModelInvocation, InferInvocation: InferModelInvocation}
        )
        self.mirror = Mirror(*(settings, loop, self.meter, self.sweep, self.health), Pairs(settings.shadow_tolerance))
        self.meter.sources["shadows"] = self.mirror.pairs.take
        replays = Replays(self.meter)
        self.book.on_replay = replays.again
        self.meter.sources["replays"] = replays.take
        self.book.tap_makers += (self.mirror.tap_for,)
        self.forwarder = Forwarder(run, loop, self.meter, self.sweep, settings.forward_wait_ms)
        self._names: dict[bytes, str] = {}
        self._second = 0
        self._turned_s = self._lag_s = 0.0  # when it last turned, and how late it was at most in this second
        self.connections: Callable[[], int] = lambda: 0  # of clients, once there is a server

    # --- the server's application -----------------------------------------------------------------------------------

    def head(self, connection: Connection) -> None:
        """Where does this request go?"""
        shape = connection.shape
        if shape is not None:
            self.invoker.again(connection, shape.derived)
            return
        target = connection.target
        name = self._names.get(target)
        if name is not None and connection.method == b"POST" and b"authorization" in connection.fields:
            self.invoker.head(connection, name, target, b"")
            return
        path, _, query = target.partition(b"?")
        found = destination(connection.method, path, query, connection.fields.get)
        if found.kind is not Kind.INVOKE:
            if found.kind is Kind.INFER:
                self.inference.head(connection, path)
            elif found.service == "sagemaker-runtime" and found.endpoint and found.kind is not Kind.DISPATCH:
                self._not_built(connection, found.action)
            else:
                self.forwarder.head(connection, found)
            return
        if found.action != "invocations":
            self.invoker.head(connection, found.endpoint, path, query, StreamInvocation)
            return
        if not query and b"%" not in path:
            if len(self._names) >= _NAMES_MAX:
                self._names.clear()
            self._names[target] = found.endpoint
        self.invoker.head(connection, found.endpoint, path, query)

    def _not_built(self, connection: Connection, action: str) -> None:
        what = {"invocations-bidirectional-stream": "InvokeEndpointWithBidirectionalStream"}.get(action)
        said = f"{what} is not supported: not built yet." if what else f"The runtime has no operation {action[:64]!r}."
        self.invoker.answer(connection, errors.validation(said))

    def body(self, connection: Connection, data: bytes) -> None:
        """Never called: an InvokeRequest or a Forward listens to what follows a head."""

    def data(self, connection: Connection, piece: bytes) -> None:
        """Never called, as `body`."""

    def end(self, connection: Connection) -> None:
        """Never called, as `body`."""

    def too_large(self, connection: Connection) -> None:
        """Never called, as `body`."""

    def gone(self, connection: Connection) -> None:
        """Never called, as `body`."""

    def paused(self, connection: Connection) -> None:
        """Never called, as `body`."""

    def resumed(self, connection: Connection) -> None:
        """Never called, as `body`."""

    # --- the process ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the tables and begin to keep deadlines."""
        self.invoker.now_ms = time.time_ns() // 1_000_000
        self.book.read_all()
        self.sweep.add(self._turn)

    def stop(self) -> None:
        """Keep no deadline any more, write what is captured, and cut idle connections to instances and processes."""
        self.sweep.remove(self._turn)
        self.capture.close()
        self.book.close()
        self.gates.close()
        self.invoker.models.close()
        self.mirror.close()
        self.forwarder.close()

    def _turn(self, now: float) -> None:
        if self._turned_s:
            self._lag_s = max(self._lag_s, now - self._turned_s - PERIOD_MS / 1000)
        self._turned_s = now
        self.invoker.now_ms = time.time_ns() // 1_000_000
        self.health.turn(now)
        self.invoker.turn(now)
        self.gates.turn(now)
        self.invoker.models.turn(now)
        self.mirror.turn(now)
        self.forwarder.turn(now)
        self.predictions.turn()
        self.inference.turn(now)
        self.capture.turn()
        self.feed.tell_idle()
        if int(now) != self._second:
            self._second = int(now)
            self._note_outstanding()
            self._note_levels()
            self.feed.tell_meter()

    def _note_levels(self) -> None:
        """What the worker tells of itself. How late its turns were is rounded, so that it seldom changes."""
        self.meter.gauges = {
            "connections": float(self.connections()),
            "active_requests": float(len(self.invoker.active)),
            "forwards": float(len(self.forwarder.active)),
            "reserved_bytes": float(self.invoker.reserved_bytes),
            "shadow_copies": float(len(self.mirror.active)),
            "shadow_bytes": float(self.mirror.bytes),
            "loop_lag_seconds": round(self._lag_s, 2),
        }
        self._lag_s = 0.0

    def _note_outstanding(self) -> None:
        """Requests that take longer than a second count in each of them, and not only when they are answered."""
        for endpoint in self.book.endpoints.values():
            for variant in endpoint.everyone:
                busy: dict[str, int] = {}
                for instance in variant.instances:
                    if instance.invocations:  # of each of its workers
                        busy[instance.instance_id] = busy.get(instance.instance_id, 0) + instance.outstanding
                for instance_id, count in busy.items():
                    shadow = variant.key not in endpoint.variants
                    self.meter.rollup(endpoint.slug, variant.name, instance_id, shadow).at_once(count)

    def stats(self, server: Server) -> dict[str, Any]:
        """What `run/gateway-N.sock` answers to `stats`."""
        return {
            "worker": self.name,
            "pid": os.getpid(),
            "control": self.feed.connected,
            "connections": len(server.connections),
            "refused_connections": server.refused_connections,
            "active": len(self.invoker.active),
            "reserved_bytes": self.invoker.reserved_bytes,
            "forwards": len(self.forwarder.active),
            "models": self.invoker.models.stats(),
            "serverless": self.gates.stats(),
            "counters": self.meter.counters,
            "endpoints": {
                endpoint.slug: {
                    "generation": endpoint.generation,
                    "held": len(endpoint.held),
                    "instances": {i.name: _stats(i) for v in endpoint.everyone for i in v.instances},
                }
                for endpoint in self.book.endpoints.values()
            },
        }


def _stats(instance: Instance) -> dict[str, Any]:
    """One target, in `stats`."""
    variant = instance.variant
    found = {"variant": variant.name, "outstanding": instance.outstanding, "ejected": instance.ejected}
    return {**found, "models": len(instance.holding)} if variant.multi_model else found


def limits_of(settings: Settings) -> Limits:
    """The server's bounds."""
    return Limits(
        body_bytes=settings.body_bytes_max,
        connections=settings.gateway_connections_max,
        linger_bytes=max(67_108_864, 2 * settings.body_bytes_max),
    )


async def serve(settings: Settings, index: int, sock: socket.socket) -> None:
    """Run worker `index` on an inherited listening socket until SIGTERM; what was begun is answered within drain_ms."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    name = f"gateway-{index}"
    gateway = Gateway(settings, name, loop)
    gateway.start()
    kept = sock.dup()  # the server closes the one that it accepts on
    server = await listen(gateway, sock, limits_of(settings), gateway.sweep, VARYING)
    gateway.connections = lambda: len(server.connections)
    door = Door(settings.data / "run" / f"{name}.sock", kept, lambda: gateway.stats(server))
    feeding = loop.create_task(gateway.feed.run())
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 20, 100)
    door.open()
    log.info("%s serves %d endpoints", name, len(gateway.book.endpoints))
    await stop.wait()
    log.info("%s stops", name)
    breaking_off = loop.call_later(settings.drain_ms / 1000 * _STREAMS_MAY_END, gateway.invoker.break_off)
    await server.close(settings.drain_ms, min(_QUIET_MS, settings.drain_ms))
    breaking_off.cancel()
    gateway.stop()
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    await door.close()
    kept.close()
