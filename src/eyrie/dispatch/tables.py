"""The route tables as dispatch reads them: which endpoints are asynchronous, and the workers of their instances with
what dispatch has outstanding on each.

Read like a gateway worker does: whole, an older generation refused, acknowledged; an instance that left the tables is
told idle once the last request on it is answered (law 14).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, Target, VariantRoute
from eyrie.http1.upstream import Pool

log = logging.getLogger(__name__)

_TABLE_BYTES_MAX = 16 << 20
CONNECTIONS_MAX = 1_024  # to one worker of an instance


@dataclass(eq=False, slots=True)
class Worker:
    """One model server process of an instance."""

    instance_id: str
    name: str  # the instance's id, with the worker's number where that is not 0
    socket: str
    pool: Pool
    variant: VariantRoute
    running: set[int] = field(default_factory=set)  # numbers of requests
    alone: bool = False  # what runs is to be alone
    retired: bool = False  # it left the tables
    down_until_s: float = 0.0  # nobody listened there: it is asked again later


@dataclass(eq=False, slots=True)
class Endpoint:
    """One endpoint's newest table."""

    route: EndpointRoute
    workers: list[Worker] = field(default_factory=list)

    @property
    def instances(self) -> int:
        """How many instances are in the table."""
        return len({worker.instance_id for worker in self.workers})


class Tables:
    """Every table that is published, and who left them with requests outstanding."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, changed: Callable[[str], None]) -> None:
        """`changed` hears the slug of every table that is new, changed or gone."""
        self.endpoints: dict[str, Endpoint] = {}
        self.idle: list[str] = []  # left the tables and answered all; told at each new connection
        self._folder, self._loop, self._changed = folder, loop, changed
        self._retired: dict[str, Worker] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}

    def read_all(self) -> tuple[dict[str, int], list[str]]:
        """Read what is new or changed; generations by slug, and slugs withdrawn."""
        found: dict[str, tuple[int, int, int]] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found[path.stem] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        gone = [slug for slug in self.endpoints if slug not in found]
        changed = [slug for slug, stamp in found.items() if self._seen.get(slug) != stamp]
        self._seen = found
        return self.read(changed + gone)

    def read(self, slugs: list[str]) -> tuple[dict[str, int], list[str]]:
        """Read these again; a missing file means that the endpoint is withdrawn."""
        served: dict[str, int] = {}
        gone: list[str] = []
        for slug in slugs:
            try:
                EndpointKey.from_slug(slug)
                served[slug] = self._take(slug, self._load(slug))
            except FileNotFoundError:
                self._withdraw(slug)
                gone.append(slug)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                log.error("the route table of %s cannot be read: %s", slug, error)
        return served, gone

    @property
    def generations(self) -> dict[str, int]:
        """What is served, by slug."""
        return {slug: endpoint.route.generation for slug, endpoint in self.endpoints.items()}

    @property
    def busy(self) -> list[str]:
        """Instances that left the tables and have requests outstanding still."""
        return sorted({worker.instance_id for worker in self._retired.values() if worker.running})

    def take_idle(self) -> list[str]:
        """Instances that left the tables and have now answered all they had; each is told once."""
        busy = {worker.instance_id for worker in self._retired.values() if worker.running}
        done = [worker for worker in self._retired.values() if worker.instance_id not in busy]
        for worker in done:
            del self._retired[worker.name]
            worker.pool.close()
        idle = list(dict.fromkeys(worker.instance_id for worker in done))
        self.idle = [*self.idle, *idle][-4_096:]
        return idle

    def close(self) -> None:
        """Cut the idle connections to every instance."""
        for endpoint in self.endpoints.values():
            for worker in endpoint.workers:
                worker.pool.close()

    def _load(self, slug: str) -> EndpointRoute:
        with open(self._folder / f"{slug}.json", "rb") as file:
            data = file.read(_TABLE_BYTES_MAX + 1)
        if len(data) > _TABLE_BYTES_MAX:
            raise ValueError(f"longer than {_TABLE_BYTES_MAX} bytes")
        return msgspec.json.decode(data, type=EndpointRoute)

    def _take(self, slug: str, route: EndpointRoute) -> int:
        now = self.endpoints.get(slug)
        if route.key.slug != slug:
            raise ValueError("it names another endpoint")
        if now is not None and route.generation < now.route.generation:
            return now.route.generation
        known = {worker.name: worker for worker in now.workers} if now is not None else {}
        endpoint = self.endpoints[slug] = Endpoint(route)
        for variant in route.everyone:  # also of real-time endpoints: control hears of their instances too, as idle
            for target in variant.targets:
                endpoint.workers += [self._worker(target, n, variant, known) for n in range(target.workers)]
        for left in known.values():
            self._retire(left)
        self._changed(slug)
        return route.generation

    def _worker(self, target: Target, number: int, variant: VariantRoute, known: dict[str, Worker]) -> Worker:
        name = f"{target.instance_id}.{number}" if number else target.instance_id
        socket = f"{target.socket}.{number}" if number else target.socket
        worker = known.pop(name, None) or self._retired.pop(name, None)
        if worker is None or worker.socket != socket:
            pool = Pool(self._loop, socket, channels_max=CONNECTIONS_MAX)
            worker = Worker(target.instance_id, name, socket, pool, variant)
        worker.variant, worker.retired = variant, False
        return worker

    def _retire(self, worker: Worker) -> None:
        worker.retired = True
        self._retired[worker.name] = worker

    def _withdraw(self, slug: str) -> None:
        endpoint = self.endpoints.pop(slug, None)
        if endpoint is not None:
            for worker in endpoint.workers:
                self._retire(worker)
            self._changed(slug)
