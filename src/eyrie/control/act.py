"""The hands of control: does what commits owe the world. Every effect may be done twice; one that is of an older
generation, or that the lint calls unsafe, is refused and counts as ended.

`Hands` is one effect, plain and synchronous. `Executor` is many: a bounded thread pool, order kept among the effects
of one subject, retries with back-off. How an effect ended goes to the loop; the commit that takes the outcome in is the
one that finishes it, so after a crash it is owed still.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from eyrie.control.endpoints import Endpoints
from eyrie.decide.check import refusal
from eyrie.decide.fleet import spec_of
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.names import EndpointKey
from eyrie.domain.plan import Effect, Outcome, Verb
from eyrie.ports import Action, ArtifactError, Artifacts, Compute, Routes, StartRefused

LOG = logging.getLogger(__name__)
THREADS = 16
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
TIDY_AFTER_S = 0.3  # what is left of an instance that is gone is cleared away once no start needs the CPU
TIDY_LOOKS_MAX = 20
TRIES_MAX = 5  # of an effect that may fail for good; the others are tried for ever


class NotYet(Exception):
    """An effect that has to wait its turn; it is tried again, and that is no failure."""


def effect_of(action: Action) -> Effect:
    """The effect that a row of the outbox stands for."""
    arguments = {k: v for k, v in action.arguments.items() if k != "subject"}
    return Effect(action.action_id, Verb(action.verb), str(action.arguments["subject"]), arguments)


class Hands:
    """Does one effect. Safe to use from many threads."""

    def __init__(self, endpoints: Endpoints, compute: Compute, artifacts: Artifacts, routes: Routes) -> None:
        self._endpoints = endpoints
        self._compute = compute
        self._artifacts = artifacts
        self._routes = routes
        self._archives = threading.Lock()  # guards the two below
        self._fetching = 0
        self._fetched: dict[str, str] = {}  # effect -> digest: fetched, and maybe not named by an endpoint yet

    def perform(self, key: EndpointKey, effect: Effect) -> Outcome:
        """Do it. The outcome holds the reason where it cannot be done for good; anything that raises may be retried."""
        endpoint = self._endpoints.get(key)
        refused = refusal(endpoint, effect)
        if refused is not None:
            LOG.info("%s refused: %s", effect.effect_id, refused)
            return Outcome(effect.effect_id, effect.verb, effect.subject, value=f"refused: {refused}")
        try:
            value = self._do(key, endpoint, effect)
        except (StartRefused, ArtifactError) as error:
            return Outcome(effect.effect_id, effect.verb, effect.subject, error=str(error))
        return Outcome(effect.effect_id, effect.verb, effect.subject, value=value)

    def _do(self, key: EndpointKey, endpoint: Endpoint | None, effect: Effect) -> str | None:
        if effect.verb is Verb.KEEP_ARTIFACTS:
            self._keep()
            return None
        assert endpoint is not None  # the lint has seen to that
        if effect.verb is Verb.FETCH_ARTIFACT:
            return self._fetch(key, effect)
        if effect.verb is Verb.ENSURE_INSTANCE:
            self._ensure(endpoint, effect.subject)
        elif effect.verb is Verb.STOP_INSTANCE:
            self._compute.stop(effect.subject, int(effect.arguments["grace_ms"]))
        elif effect.verb is Verb.FORGET_INSTANCE:
            self._compute.forget(effect.subject)
        elif effect.verb is Verb.PUBLISH_ROUTE and endpoint.route is not None:
            self._routes.publish(endpoint.route)
        elif effect.verb is Verb.WITHDRAW_ROUTE:
            self._routes.withdraw(key, endpoint.route_generation)
        return None

    def _ensure(self, endpoint: Endpoint, instance_id: str) -> None:
        instance = next(i for i in endpoint.instances if i.instance_id == instance_id)
        spec = spec_of(endpoint, instance)
        if spec is None:
            raise StartRefused(f"the fleet of instance {instance_id} is no more")
        self._compute.ensure(spec)

    def _fetch(self, key: EndpointKey, effect: Effect) -> str:
        with self._archives:
            self._fetching += 1
        try:
            arguments = effect.arguments
            digest = self._artifacts.fetch(key.scope, str(arguments["url"]), arguments.get("code_url"))
            with self._archives:
                self._fetched[effect.effect_id] = digest
            return digest
        finally:
            with self._archives:
                self._fetching -= 1

    def _keep(self) -> None:
        """Remove archives that no endpoint names; never one that was fetched and is only about to be named."""
        with self._archives:
            if self._fetching:
                raise NotYet("an archive is being fetched")
            owed = self._endpoints.owed()  # before the endpoints: what is owed no more, they name
            self._fetched = {effect_id: digest for effect_id, digest in self._fetched.items() if effect_id in owed}
            named = {
                digest
                for e in self._endpoints.list()
                for f in e.fleets
                for v in f.variants
                for digest in v.spec.model.artifacts
            }
            self._artifacts.keep(named | set(self._fetched.values()))


@dataclass(frozen=True, slots=True)
class _Owed:
    key: EndpointKey
    effect: Effect


class Executor:
    """Does effects concurrently, within its event loop. `report` hears how each ended."""

    def __init__(self, hands: Hands, report: Callable[[EndpointKey, Outcome], None], threads: int = THREADS) -> None:
        self._hands = hands
        self._report = report
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="act")
        self._turns: dict[str, deque[_Owed]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0  # instances whose start is being made
        self._started_s = -TIDY_AFTER_S  # when the last of them was, on the event loop's clock

    def submit(self, key: EndpointKey, effects: Iterable[Effect]) -> None:
        """Do these, after whatever is owed to the same subjects already. Call it on the event loop."""
        for effect in effects:
            subject = _turn(key, effect)
            waiting = self._turns.get(subject)
            if waiting is not None:
                waiting.append(_Owed(key, effect))
                continue
            self._turns[subject] = deque([_Owed(key, effect)])
            task = asyncio.get_running_loop().create_task(self._serve(subject))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop. What is not done stays owed, in the store."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, subject: str) -> None:
        waiting = self._turns[subject]
        while waiting:
            owed = waiting[0]
            outcome = await self._until_done(owed)
            waiting.popleft()
            self._report(owed.key, outcome)
        del self._turns[subject]

    async def _until_done(self, owed: _Owed) -> Outcome:
        if owed.effect.verb is Verb.FORGET_INSTANCE:
            await self._quiet()
        if owed.effect.verb is not Verb.ENSURE_INSTANCE:
            return await self._tried(owed)
        self._starting += 1
        try:
            return await self._tried(owed)
        finally:
            self._starting -= 1
            self._started_s = asyncio.get_running_loop().time()

    async def _quiet(self) -> None:
        """Wait until no instance is being started, and none was a moment ago; not for ever."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # what was submitted together with it begins first
        for _ in range(TIDY_LOOKS_MAX):
            left_s = TIDY_AFTER_S if self._starting else self._started_s + TIDY_AFTER_S - loop.time()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)

    async def _tried(self, owed: _Owed) -> Outcome:
        tries, wait_s = 0, RETRY_FIRST_S
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._hands.perform, owed.key, owed.effect
                )
            except NotYet:
                pass
            except Exception as error:  # the boundary of an effect: whatever the world threw, it is owed still
                tries += 1
                LOG.exception("%s failed, try %d", owed.effect.effect_id, tries)
                if tries >= TRIES_MAX and owed.effect.verb in (Verb.ENSURE_INSTANCE, Verb.FETCH_ARTIFACT):
                    reason = f"{type(error).__name__}: {error}"
                    return Outcome(owed.effect.effect_id, owed.effect.verb, owed.effect.subject, error=reason)
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, wait_s * 2)


def _turn(key: EndpointKey, effect: Effect) -> str:
    """What effects must keep their order among: an instance, an endpoint's route, an archive, all archives."""
    if effect.verb in (Verb.PUBLISH_ROUTE, Verb.WITHDRAW_ROUTE):
        return f"route {key.slug}"
    if effect.verb is Verb.KEEP_ARTIFACTS:
        return "archives"
    return f"{key.slug} {effect.subject}"
