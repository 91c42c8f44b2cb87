"""Brings waiting requests to instances: one line of requests an endpoint, oldest first, as many at once on an instance
as the endpoint's config says.

Nothing here is durable but what an attempt came to: a request is in the queue's file until its outcome is decided
there, and where this process dies in between, the next one finds it waiting. What an attempt may come to: an outcome;
an instance that was not reached or had no room, an input that cannot be read now (tried again, nobody's fault); an
instance that died with the request (counted durably: decide/async_dispatch says what follows).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from eyrie.adapters.group_commit import GroupCommit
from eyrie.decide import async_dispatch as decide
from eyrie.dispatch import requests
from eyrie.dispatch.invoke import Busy, InputAway, Invoker, Lost, NotReached, failed
from eyrie.dispatch.spools import Spools
from eyrie.dispatch.storer import Storer
from eyrie.dispatch.tables import Endpoint, Tables, Worker
from eyrie.dispatch.tally import Tally
from eyrie.domain.async_inference import AsyncRoute, Ended, Outcome, Waiting
from eyrie.http1.upstream import Failure
from eyrie.ports import Clock

log = logging.getLogger(__name__)

WINDOW = 128  # requests of a line that are read ahead
RUNNING_MAX = 1_024  # invocations under way, of all endpoints
SWEEP_S = 1.0
SWEEP_MAX = 512  # requests that one sweep ends
GONE_GRACE_S = 10.0  # an endpoint without a table for so long is deleted: its requests fail
DOWN_S = 0.5  # a worker that nobody listened at is asked again after so long
NOT_REACHED_S = 0.05


@dataclass(slots=True)
class _Line:
    """The requests of one endpoint."""

    slug: str
    count: int = 0  # of which nothing is decided
    cursor: int = 0  # the highest number that was read
    more: bool = True  # there may be requests beyond the cursor
    ready: deque[Waiting] = field(default_factory=deque)
    suspects: deque[Waiting] = field(default_factory=deque)  # an instance died with them: alone from now on
    later: list[tuple[float, int, Waiting]] = field(default_factory=list)  # a heap: due, number
    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)  # attempts that came to nothing, by number
    reserved: str = ""  # the instance that is to become empty for a suspect
    gone_s: float = 0.0  # since when it has no table
    timer_s: float = 0.0  # when it is looked at again for what waits in `later`


class Runner:
    """Every line, and what runs."""

    def __init__(
        self,
        file: GroupCommit,
        tables: Tables,
        invoker: Invoker,
        storer: Storer,
        spools: Spools,
        tally: Tally,
        clock: Clock,
        draw: Callable[[], float],
        tell_ejected: Callable[[str, Worker, str], None],
    ) -> None:
        """`draw`: a number from 0 to below 1."""
        self._file, self._tables, self._invoker, self._storer, self._spools = file, tables, invoker, storer, spools
        self._tally, self._clock, self._draw, self._tell_ejected = tally, clock, draw, tell_ejected
        self._loop = asyncio.get_running_loop()
        self._lines: dict[str, _Line] = {}
        self._stirred: set[str] = set()
        self._running = 0
        self._stopping = False
        for slug, count in requests.backlogs(file.db).items():
            self._line(slug).count = count

    # --- what others tell -------------------------------------------------------------------------------------------

    def added(self, slug: str) -> None:
        """A request was accepted durably."""
        line = self._line(slug)
        line.count += 1
        line.more = True
        self.stir(slug)

    def stir(self, slug: str) -> None:
        """Look at an endpoint's line soon: its table or its requests have changed."""
        if not self._stirred:
            self._loop.call_soon(self._turn)
        self._stirred.add(slug)

    def stir_all(self) -> None:
        """Look at every line soon."""
        for slug in self._lines:
            self.stir(slug)

    def backlog(self, slug: str) -> int:
        """Requests of an endpoint that wait or are being processed."""
        line = self._lines.get(slug)
        return 0 if line is None else line.count

    @property
    def slugs(self) -> list[str]:
        """Endpoints that have or had requests."""
        return list(self._lines)

    @property
    def running(self) -> int:
        """Invocations under way."""
        return self._running

    async def sweep(self) -> None:
        """End what has expired and what belongs to nobody; look at every line. Never returns."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._expire()
                await self._bury()
            except Exception:  # the loop's boundary: the next sweep may go better
                log.exception("a sweep of the queue failed")
            self.stir_all()

    async def close(self, patience_s: float) -> None:
        """Start nothing more; wait so long for what runs, then cut it: the next process brings it to an end."""
        self._stopping = True
        tasks = [task for line in self._lines.values() for task in line.running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- choosing ---------------------------------------------------------------------------------------------------

    def _line(self, slug: str) -> _Line:
        line = self._lines.get(slug)
        if line is None:
            line = self._lines[slug] = _Line(slug)
        return line

    def _turn(self) -> None:
        stirred, self._stirred = self._stirred, set()
        for slug in stirred:
            line, endpoint = self._lines.get(slug), self._tables.endpoints.get(slug)
            route = endpoint.route.asynchronous if endpoint is not None else None
            if line is not None and endpoint is not None and route is not None:
                self._begin(line, endpoint, route)

    def _begin(self, line: _Line, endpoint: Endpoint, route: AsyncRoute) -> None:
        """Start what may start of one line."""
        now_s = self._loop.time()
        while line.later and line.later[0][0] <= now_s:
            self._queue(line, heapq.heappop(line.later)[2])
        if line.later and not now_s < line.timer_s <= line.later[0][0]:
            line.timer_s = line.later[0][0]
            self._loop.call_at(line.timer_s, self.stir, line.slug)
        while not (self._stopping or self._storer.full or self._running >= RUNNING_MAX):
            if not self._next(line, endpoint, route, now_s):
                return

    def _next(self, line: _Line, endpoint: Endpoint, route: AsyncRoute, now_s: float) -> bool:
        """Start one request; False where none can be."""
        most = decide.concurrency(route)
        now_ms = self._clock.now_ms()
        while line.suspects and line.suspects[0].expires_ms <= now_ms:  # the sweep ends it
            line.suspects.popleft()
        workers = [worker for worker in endpoint.workers if worker.down_until_s <= now_s]
        if not line.suspects:
            line.reserved = ""
        else:
            place = self._place(workers, most, "", alone=True)
            if place is not None:
                line.reserved = ""
                self._start(line, line.suspects.popleft(), place, alone=True)
                return True
            if line.reserved not in {worker.instance_id for worker in workers}:
                line.reserved = _least_loaded(workers)
        place = self._place(workers, most, line.reserved, alone=False)
        if place is None:
            return False
        request = self._take(line)
        if request is None:
            return False
        self._start(line, request, place, alone=False)
        return True

    def _place(self, workers: list[Worker], most: int, reserved: str, alone: bool) -> Worker | None:
        loads = [
            decide.Load(w.instance_id, len(w.running), w.variant.weight, w.alone or w.instance_id == reserved)
            for w in workers
        ]
        chosen = decide.choose(loads, most, alone, self._draw())
        return None if chosen is None else workers[chosen]

    def _take(self, line: _Line) -> Waiting | None:
        """The oldest request that is not expired."""
        now_ms = self._clock.now_ms()
        while True:
            if not line.ready and line.more:
                found = requests.waiting(self._file.db, line.slug, line.cursor, WINDOW)
                line.more = len(found) == WINDOW
                if found:
                    line.cursor = found[-1].number
                for request in found:
                    self._queue(line, request)
            if not line.ready:
                return None
            request = line.ready.popleft()
            if request.expires_ms > now_ms:  # else the sweep ends it
                return request

    def _queue(self, line: _Line, request: Waiting) -> None:
        (line.suspects if request.losses else line.ready).append(request)

    # --- running ----------------------------------------------------------------------------------------------------

    def _start(self, line: _Line, request: Waiting, worker: Worker, alone: bool) -> None:
        worker.running.add(request.number)
        worker.alone = worker.alone or alone
        self._running += 1
        line.running[request.number] = self._loop.create_task(self._run(line, request, worker, alone))

    async def _run(self, line: _Line, request: Waiting, worker: Worker, alone: bool) -> None:
        try:
            outcome = await self._attempt(line, request, worker)
            self._leave(worker, request, alone)
            if outcome is not None:
                line.tries.pop(request.number, None)
                waited_ms = self._clock.now_ms() - request.accepted_ms - outcome.model_us // 1000
                self._tally.add(line.slug, worker.variant.name, "TimeInBacklog", waited_ms)
                await self._decide(line, request, outcome)
        except Exception:  # the boundary of one request: it is in the queue still
            log.exception("request %s could not be brought to an end", request.inference_id)
            self._again(line, request, decide.retry_ms(line.tries.get(request.number, 0)) / 1000)
        finally:
            self._leave(worker, request, alone)
            full = self._running >= RUNNING_MAX
            self._running -= 1
            line.running.pop(request.number, None)
            self.stir(line.slug)
            if full:  # other endpoints' requests may have waited for the room
                self.stir_all()

    def _leave(self, worker: Worker, request: Waiting, alone: bool) -> None:
        """The instance has no more to do with it."""
        if request.number in worker.running:
            worker.running.discard(request.number)
            if alone:
                worker.alone = False
            self.stir(request.slug)

    async def _attempt(self, line: _Line, request: Waiting, worker: Worker) -> Outcome | None:
        """One try; None where there is to be another."""
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._invoker.invoke(request, worker)
        except TimeoutError:
            self._tally.add(line.slug, worker.variant.name, "InvocationFailures")
            said = f"The invocation took longer than {request.timeout_s} seconds (InvocationTimeoutSeconds)."
            return failed(said, worker.variant.name, request.timeout_s * 1_000_000)
        except NotReached as error:
            self._not_reached(line, request, worker, error)
        except InputAway as error:
            self._retry(line, request, f"its input cannot be read now: {error}")
        except Busy as error:
            if self._retry(line, request, f"{worker.name} is busy: {error}") > decide.BUSY_TRIES_MAX:
                self._tally.add(line.slug, worker.variant.name, "InvocationFailures")
                return failed(f"The instances took no more requests, {decide.BUSY_TRIES_MAX} times: {error}")
        except Lost as error:
            return await self._lost(line, request, worker, str(error))
        return None

    def _not_reached(self, line: _Line, request: Waiting, worker: Worker, error: NotReached) -> None:
        worker.down_until_s = self._loop.time() + DOWN_S
        if error.failure is Failure.REFUSED and not worker.retired:
            self._tell_ejected(line.slug, worker, "nobody listens on its socket")
        self._tally.count("instances_not_reached")
        self._again(line, request, NOT_REACHED_S)

    def _retry(self, line: _Line, request: Waiting, why: str) -> int:
        """Try again later, ever later; how often that was so."""
        tries = line.tries[request.number] = line.tries.get(request.number, 0) + 1
        self._tally.count("attempts_retried")
        if tries == 1:
            log.info("request %s is tried again: %s", request.inference_id, why)
        if tries <= decide.BUSY_TRIES_MAX or why.startswith("its input"):
            self._again(line, request, decide.retry_ms(tries) / 1000)
        return tries

    async def _lost(self, line: _Line, request: Waiting, worker: Worker, why: str) -> Outcome | None:
        """The instance died with the request. One that was being retired did not die of it."""
        self._tally.count("instances_lost")
        worker.down_until_s = self._loop.time() + DOWN_S
        if worker.retired:
            self._again(line, request, 0.0)
            return None
        losses = request.losses + 1
        if decide.given_up(losses):
            self._tally.add(line.slug, worker.variant.name, "InvocationFailures")
            said = f"{losses} instances ended while they had this request, the last one alone with it; it is given up."
            return failed(said, worker.variant.name)
        await self._file.write(lambda db: requests.lose(db, request.number))
        log.warning("request %s: %s; it is tried once more, alone", request.inference_id, why)
        self._again(line, replace(request, losses=losses), 0.0)
        return None

    def _again(self, line: _Line, request: Waiting, pause_s: float) -> None:
        heapq.heappush(line.later, (self._loop.time() + pause_s, request.number, request))

    async def _decide(self, line: _Line, request: Waiting, outcome: Outcome) -> None:
        """Keep the outcome durably; from then on it is the storer's."""
        first = await self._file.write(lambda db: requests.decide(db, request.number, outcome))
        if first:
            line.count -= 1
            self._storer.add(request, outcome)
        else:
            self._spools.remove(outcome.spool)

    # --- what is ended without an instance --------------------------------------------------------------------------

    async def _expire(self) -> None:
        found = requests.expired(self._file.db, self._clock.now_ms(), SWEEP_MAX + self._running)
        for request in found:
            line = self._line(request.slug)
            if request.number in line.running or self._storer.full:
                continue
            seconds = (request.expires_ms - request.accepted_ms) // 1000
            said = f"The request waited longer than {seconds} seconds (RequestTTLSeconds)."
            await self._decide(line, request, failed(said, ended=Ended.EXPIRED))

    async def _bury(self) -> None:
        """Endpoints that are gone: their requests fail, and then they are forgotten."""
        now_s = self._loop.time()
        for slug, line in list(self._lines.items()):
            if slug in self._tables.endpoints:
                line.gone_s = 0.0
                continue
            line.gone_s = line.gone_s or now_s
            if now_s - line.gone_s < GONE_GRACE_S or line.running:
                continue
            if not line.count:
                del self._lines[slug]
                continue
            for request in requests.waiting(self._file.db, slug, 0, SWEEP_MAX):
                if self._storer.full:
                    break
                await self._decide(line, request, failed("The endpoint was deleted before the request's turn came."))
            line.ready.clear()
            line.suspects.clear()
            line.later.clear()
            line.cursor, line.more = 0, True


def _least_loaded(workers: list[Worker]) -> str:
    """The instance that will be empty soonest, as far as its load tells; empty where there is none."""
    by_instance: dict[str, int] = {}
    for worker in workers:
        by_instance[worker.instance_id] = by_instance.get(worker.instance_id, 0) + len(worker.running)
    return min(by_instance, key=lambda name: by_instance[name], default="")
