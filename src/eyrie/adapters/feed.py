"""Control's side of the feed: the Routes port. Tables are files `routes/SLUG.json`, written whole and renamed into
place; the socket `run/feed.sock` carries hints to the gateway workers and what they say back, as
docs/concepts/processes.md describes it.

A worker is live while it is connected, or while the lock of its process is held: one that has not come back to a new
control process may still serve its old tables, so it counts as serving generation 0.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from eyrie.adapters.durable import write_whole
from eyrie.adapters.process_lock import holder
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute

LOG = logging.getLogger(__name__)
NOBODY = 1 << 62  # served when no live worker serves the endpoint at all
LINE_BYTES_MAX = 4 << 20
UNSENT_BYTES_MAX = 1 << 20  # a worker that does not read its hints is cut off; it reads the folder when it is back
WORKERS_MAX = 256
LOCKS_LOOK_S = 0.5
REMEMBERED_MAX = 100_000  # instances and endpoints of the past


class Listener(Protocol):
    """Who hears what the workers say. Called on the event loop."""

    def acknowledged(self, keys: set[EndpointKey]) -> None:
        """A worker serves other tables than before; of all endpoints where `keys` is empty."""
        ...

    def emptied(self, instance_ids: list[str]) -> None:
        """The last request on these instances was answered, as far as one worker is concerned."""
        ...

    def ejected(self, key: EndpointKey, instance_id: str, why: str) -> None:
        """A worker found an instance dead or silent."""
        ...

    def joined(self, worker: int) -> None:
        """A worker is connected, by the number of its connection."""
        ...

    def left(self, worker: int) -> None:
        """That connection has ended."""
        ...

    def used(self, worker: int, told: dict[EndpointKey, list[int]]) -> None:
        """Of serverless endpoints: requests at once now, the most since the last word, and how many of those that
        came since then were within ProvisionedConcurrency and beyond it.
        """
        ...


@dataclass(eq=False)
class _Worker:
    """One connection of a worker. Until its first acknowledgement nothing is known of what it serves."""

    writer: asyncio.StreamWriter
    number: int = 0  # of the connection
    name: str = ""
    pid: int = 0
    acked: dict[str, int] | None = None
    idle: set[str] = field(default_factory=set)
    busy: frozenset[str] | None = None  # what was outstanding, outside its tables, at its first acknowledgement
    first: dict[str, int] = field(default_factory=dict)  # its first acknowledgement


class Feed:
    """Writes tables and speaks with the workers. The Routes methods are safe to call from any thread."""

    def __init__(self, data: Path) -> None:
        self._routes = data / "routes"
        self._run = data / "run"
        self._lock = threading.RLock()
        self._workers: set[_Worker] = set()
        self._published: dict[str, int] = {}
        self._withdrawn: dict[str, int] = {}
        self._targets: dict[str, frozenset[str]] = {}  # of each published table
        self._sizes: dict[str, dict[str, int]] = {}  # and how many each variant has
        self._configs: dict[str, dict[str, str]] = {}  # during an update: each instance's EndpointConfigName
        self._left: dict[str, tuple[str, int]] = {}  # instance -> its endpoint and the first table without it
        self._absent: tuple[float, frozenset[int]] = (-1e9, frozenset())  # pids with a lock and no connection
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._listener: Listener | None = None
        self._metered: Callable[[dict[str, Any]], None] = lambda told: None
        self._hinted: set[str] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._routes.mkdir(parents=True, exist_ok=True)
        self._run.mkdir(parents=True, exist_ok=True)
        self._read_published()

    async def start(self, listener: Listener, sock: socket.socket, metered: Callable[[dict[str, Any]], None]) -> None:
        """Serve on `sock`, which listens at `run/feed.sock`. `metered` gets the workers' rollups."""
        self._metered = metered
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=LINE_BYTES_MAX)

    async def close(self) -> None:
        """Close the socket. Workers serve on."""
        if self._server is not None:
            self._server.close()
        for worker in list(self._workers):
            worker.writer.transport.abort()
        await asyncio.gather(*self._serving, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def publish(self, route: EndpointRoute) -> None:
        """Write the endpoint's table and hint; a lower generation than the published one is refused (and logged)."""
        slug = route.key.slug
        with self._lock:
            if route.generation < max(self._published.get(slug, 0), self._withdrawn.get(slug, 0)):
                LOG.warning("route %s: generation %d is older than what was published", slug, route.generation)
                return
            write_whole(self._routes / f"{slug}.json", msgspec.json.encode(route), 0o644)
            self._published[slug] = route.generation
            self._sizes[slug], self._configs[slug] = _sizes(route), _configs(route)
            self._withdrawn.pop(slug, None)
            self._note_left(slug, route.generation, frozenset(t.instance_id for v in route.everyone for t in v.targets))
        self._hint(slug)

    def withdraw(self, key: EndpointKey, generation: int) -> None:
        """Remove the endpoint's table, unless a higher generation is published by now."""
        with self._lock:
            if generation < self._published.get(key.slug, 0):
                return
            (self._routes / f"{key.slug}.json").unlink(missing_ok=True)
            self._published.pop(key.slug, None)
            self._sizes.pop(key.slug, None)
            self._configs.pop(key.slug, None)
            if len(self._withdrawn) > REMEMBERED_MAX:
                self._withdrawn.clear()
            self._withdrawn[key.slug] = generation
            self._note_left(key.slug, generation, frozenset())
        self._hint(key.slug)

    def served(self, key: EndpointKey) -> int:
        """The lowest generation that any live gateway worker still serves; very large when none is live."""
        with self._lock:
            if self._not_connected():
                return 0
            missing = 0 if key.slug in self._published else NOBODY
            lowest = NOBODY
            for worker in self._workers:
                if worker.name:
                    lowest = min(lowest, 0 if worker.acked is None else worker.acked.get(key.slug, missing))
            return lowest

    def idle(self, instance_id: str) -> bool:
        """True when no live worker has a request outstanding on an instance that left its table."""
        with self._lock:
            if self._not_connected():
                return False
            left = self._left.get(instance_id)
            return all(_is_idle(w, instance_id, left) for w in self._workers if w.name)

    def published(self) -> dict[EndpointKey, int]:
        """Every table that is published, with its generation: what a start finds."""
        with self._lock:
            return {EndpointKey.from_slug(slug): generation for slug, generation in self._published.items()}

    def size(self, key: EndpointKey, variant: str) -> int:
        """How many instances of a variant are in the published table."""
        return self._sizes.get(key.slug, {}).get(variant, 0)

    def config_of(self, key: EndpointKey, instance_id: str) -> str:
        """The EndpointConfigName of an instance in the published table during an update, else ""."""
        return self._configs.get(key.slug, {}).get(instance_id, "")

    def workers(self) -> list[str]:
        """Names of the connected workers."""
        with self._lock:
            return sorted(w.name for w in self._workers if w.name)

    def _note_left(self, slug: str, generation: int, targets: frozenset[str]) -> None:
        if len(self._left) > REMEMBERED_MAX:
            self._left.clear()
        for instance_id in self._targets.get(slug, frozenset()) - targets:
            self._left[instance_id] = (slug, generation)
        self._targets[slug] = targets

    def _read_published(self) -> None:
        for path in self._routes.iterdir():
            if path.suffix != ".json":
                path.unlink(missing_ok=True)  # half written by one who died
                continue
            try:
                route = msgspec.json.decode(path.read_bytes(), type=EndpointRoute)
            except (msgspec.DecodeError, OSError) as error:
                LOG.error("route table %s cannot be read: %s", path.name, error)
                continue
            self._published[route.key.slug] = route.generation
            self._sizes[route.key.slug], self._configs[route.key.slug] = _sizes(route), _configs(route)
            self._targets[route.key.slug] = frozenset(t.instance_id for v in route.everyone for t in v.targets)

    def _not_connected(self) -> frozenset[int]:
        """Pids of workers and of dispatch that live by their lock and are not connected (looked at twice a second)."""
        now = self._loop.time() if self._loop is not None else 0.0
        looked, absent = self._absent
        if now - looked >= LOCKS_LOOK_S or absent:
            connected = {w.pid for w in self._workers if w.name}
            held = {holder(path) for path in (*self._run.glob("gateway-*.lock"), self._run / "dispatch.lock")}
            absent = frozenset(pid for pid in held if pid is not None and pid not in connected)
            self._absent = (now, absent)
        return absent

    def _hint(self, slug: str) -> None:
        if self._loop is None:
            return
        with self._lock:
            first = not self._hinted
            self._hinted.add(slug)
        if first:
            self._loop.call_soon_threadsafe(self._send_hints)

    def _send_hints(self) -> None:
        with self._lock:
            slugs, self._hinted = sorted(self._hinted), set()
        line = json.dumps({"routes": slugs}).encode() + b"\n"
        for worker in list(self._workers):
            if worker.writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
                LOG.warning("gateway worker %s does not read: cut off", worker.name)
                worker.writer.transport.abort()
            elif not worker.writer.transport.is_closing():
                worker.writer.write(line)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = _Worker(writer, next(self._numbers))
        if len(self._workers) >= WORKERS_MAX:
            writer.transport.abort()
            return
        with self._lock:
            self._workers.add(worker)
        try:
            async for line in reader:
                self._hear(worker, json.loads(line))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            LOG.warning("gateway worker %s: %s: connection closed", worker.name or "unnamed", error)
        finally:
            with self._lock:
                self._workers.discard(worker)
                self._absent = (-1e9, frozenset())
            writer.transport.abort()
            if self._listener is not None:
                self._listener.left(worker.number)
                self._listener.acknowledged(set())

    def _hear(self, worker: _Worker, said: dict[str, Any]) -> None:
        assert self._listener is not None
        if "hello" in said:
            with self._lock:
                worker.name, worker.pid = str(said["hello"]), int(said["pid"])
                self._absent = (-1e9, frozenset())
            self._listener.joined(worker.number)
        if "busy" in said:
            worker.busy = frozenset(said["busy"])
        if "ack" in said or "gone" in said:
            self._listener.acknowledged(self._hear_tables(worker, said.get("ack", {}), said.get("gone", ())))
        if "use" in said:
            used = {EndpointKey.from_slug(slug): [int(n) for n in counts] for slug, counts in said["use"].items()}
            self._listener.used(worker.number, used)
        if "meter" in said:
            self._metered({**said["meter"], "worker": worker.name})
        if "backlog" in said:
            self._metered({"backlog": said["backlog"]})
        if "idle" in said:
            with self._lock:
                if len(worker.idle) > REMEMBERED_MAX:
                    worker.idle.clear()
                worker.idle.update(said["idle"])
            self._listener.emptied(list(said["idle"]))
        if "eject" in said:
            told = said["eject"]
            self._listener.ejected(EndpointKey.from_slug(told["endpoint"]), str(told["instance"]), str(told["why"]))

    def _hear_tables(self, worker: _Worker, acked: dict[str, int], gone: list[str]) -> set[EndpointKey]:
        with self._lock:
            known = dict(worker.acked or {})
            known.update({str(slug): int(generation) for slug, generation in acked.items()})
            for slug in gone:
                known.pop(slug, None)
            if worker.acked is None:
                worker.first = known
            worker.acked = known
        return {EndpointKey.from_slug(slug) for slug in (*acked, *gone)}


def _is_idle(worker: _Worker, instance_id: str, left: tuple[str, int] | None) -> bool:
    """It said so; or the instance had left the first tables that it read, and it did not name it as busy."""
    if instance_id in worker.idle:
        return True
    if worker.acked is None or worker.busy is None or instance_id in worker.busy:
        return False
    return left is None or worker.first.get(left[0], NOBODY) >= left[1]


def _sizes(route: EndpointRoute) -> dict[str, int]:
    """Instances by variant; while traffic shifts, those of both fleets."""
    sizes: dict[str, int] = {}
    for variant in route.everyone:
        sizes[variant.name] = sizes.get(variant.name, 0) + len(variant.targets)
    return sizes


def _configs(route: EndpointRoute) -> dict[str, str]:
    return {t.instance_id: v.config for v in route.everyone if v.config for t in v.targets}
