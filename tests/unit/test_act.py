"""Effects: refused when overtaken or unsafe, in order for one subject, tried again when the world throws."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from toyworld import KEY, Rig, fresh, serving, wish

from eyrie.control import act
from eyrie.control.act import Executor, Hands, NotYet
from eyrie.domain.endpoint import EndpointStatus
from eyrie.domain.fleet import InstanceState
from eyrie.domain.names import EndpointKey
from eyrie.domain.plan import Effect, Outcome, Verb


def effect(rig: Rig, verb: Verb, subject: str, **arguments: Any) -> Effect:
    return Effect(f"{rig.endpoint().uid}/{verb}/{subject}", verb, subject, arguments)


def refused(rig: Rig, wanted: Effect) -> str:
    outcome = rig.hands.perform(KEY, wanted)
    assert outcome.error is None
    assert (outcome.value or "").startswith("refused: "), outcome
    return outcome.value or ""


def test_what_serves_is_never_stopped_started_again_or_forgotten() -> None:
    rig = serving(("A", 2))
    ready = rig.endpoint().instances[0].instance_id
    assert "not to be ended" in refused(rig, effect(rig, Verb.STOP_INSTANCE, ready, grace_ms=0))
    assert "not to be ended" in refused(rig, effect(rig, Verb.FORGET_INSTANCE, ready))
    assert "not to be started" in refused(rig, effect(rig, Verb.ENSURE_INSTANCE, ready))
    assert "no longer" in refused(rig, effect(rig, Verb.STOP_INSTANCE, "i-other", grace_ms=0))
    assert len(rig.world.alive()) == 2


def test_an_overtaken_table_is_not_published_and_a_future_one_neither() -> None:
    rig = serving(("A", 1))
    now = rig.endpoint().route_generation
    assert "is not the endpoint's yet" in refused(rig, effect(rig, Verb.PUBLISH_ROUTE, "9", generation=now + 1))
    assert "overtaken" in refused(rig, effect(rig, Verb.WITHDRAW_ROUTE, "9", generation=now))
    rig.endpoints.delete(KEY)
    rig.look()
    assert "overtaken" in refused(rig, effect(rig, Verb.PUBLISH_ROUTE, "9", generation=now))


def test_effects_of_an_earlier_endpoint_of_the_name_are_refused() -> None:
    rig = serving(("A", 1))
    old = effect(rig, Verb.PUBLISH_ROUTE, "1", generation=rig.endpoint().route_generation)
    rig.endpoints.delete(KEY)
    rig.run_until(rig.gone)
    assert "gone" in refused(rig, old)
    rig.endpoints.create(KEY, wish(("A", 1)))
    assert "gone" in refused(rig, old)


def test_archives_are_kept_while_one_may_be_about_to_be_named() -> None:
    rig = fresh()
    rig.endpoints.create(KEY, wish(("A", 1)))
    rig.look()
    keep = Effect("x/keep", Verb.KEEP_ARTIFACTS, "all")
    tried: list[type[BaseException]] = []

    def keep_meanwhile(name: str) -> None:
        if name.startswith("fetched"):
            with pytest.raises(NotYet) as caught:
                rig.hands.perform(KEY, keep)
            tried.append(caught.type)

    rig.world.fault = keep_meanwhile
    rig.act()  # the fetch
    assert tried == [NotYet]
    rig.hands.perform(KEY, keep)
    assert len(rig.world.archives) == 1  # fetched, and its outcome not committed yet
    rig.run_until(rig.in_status(EndpointStatus.IN_SERVICE))
    rig.hands.perform(KEY, keep)
    assert len(rig.world.archives) == 1
    rig.endpoints.delete(KEY)
    rig.run_until(rig.gone)
    rig.settle()
    assert rig.world.archives == {}


class Scripted(Hands):
    """Hands that do what a test says."""

    def __init__(self, do: Callable[[Effect], str | None]) -> None:
        self._script = do

    def perform(self, key: EndpointKey, effect: Effect) -> Outcome:
        return Outcome(effect.effect_id, effect.verb, effect.subject, value=self._script(effect))


async def ended(executor: Executor, outcomes: list[Outcome], count: int) -> None:
    async with asyncio.timeout(30):
        while len(outcomes) < count:
            await asyncio.sleep(0.001)
    await executor.close()


def test_one_subject_in_order_and_different_ones_at_once() -> None:
    async def scenario() -> None:
        other_done = threading.Event()
        order: list[str] = []

        def do(effect: Effect) -> None:
            if effect.effect_id == "first":
                assert other_done.wait(30)
            order.append(effect.effect_id)
            if effect.effect_id == "other":
                other_done.set()

        outcomes: list[Outcome] = []
        executor = Executor(Scripted(do), lambda key, outcome: outcomes.append(outcome))
        executor.submit(
            KEY, [Effect("first", Verb.ENSURE_INSTANCE, "i-1"), Effect("second", Verb.STOP_INSTANCE, "i-1")]
        )
        executor.submit(KEY, [Effect("other", Verb.ENSURE_INSTANCE, "i-2")])
        await ended(executor, outcomes, 3)
        assert order == ["other", "first", "second"]

    asyncio.run(scenario())


def test_nothing_is_cleared_away_while_an_instance_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "TIDY_AFTER_S", 0.01)

    async def scenario() -> None:
        order: list[str] = []
        published = threading.Event()

        def do(effect: Effect) -> None:
            if effect.verb is Verb.ENSURE_INSTANCE:
                assert published.wait(30)
            order.append(effect.effect_id)
            if effect.verb is Verb.PUBLISH_ROUTE:
                published.set()

        outcomes: list[Outcome] = []
        executor = Executor(Scripted(do), lambda key, outcome: outcomes.append(outcome))
        gone, start = Effect("gone", Verb.FORGET_INSTANCE, "i-1"), Effect("start", Verb.ENSURE_INSTANCE, "i-2")
        executor.submit(KEY, [gone, start, Effect("route", Verb.PUBLISH_ROUTE, "2")])
        await ended(executor, outcomes, 3)
        assert order == ["route", "start", "gone"]

    asyncio.run(scenario())


def test_what_throws_is_tried_again_and_a_start_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(act, "RETRY_MAX_S", 0.002)

    async def scenario() -> None:
        tries: list[str] = []

        def do(effect: Effect) -> str:
            tries.append(effect.subject)
            if effect.subject == "i-1" or tries.count("route") < 10:
                raise OSError("the disk is full")
            return "done"

        outcomes: list[Outcome] = []
        executor = Executor(Scripted(do), lambda key, outcome: outcomes.append(outcome))
        executor.submit(KEY, [Effect("a", Verb.ENSURE_INSTANCE, "i-1"), Effect("b", Verb.PUBLISH_ROUTE, "route")])
        await ended(executor, outcomes, 2)
        told = {o.effect_id: o for o in outcomes}
        assert told["a"].error == "OSError: the disk is full"
        assert tries.count("i-1") == act.TRIES_MAX
        assert (told["b"].error, told["b"].value) == (None, "done")

    asyncio.run(scenario())


def test_a_start_that_throws_for_ever_fails_the_creation_with_its_reason() -> None:
    rig = fresh()
    rig.endpoints.create(KEY, wish(("A", 1), url=None))
    rig.look()
    key, start = rig.queue.pop()
    rig.outcomes[key] = [Outcome(start.effect_id, start.verb, start.subject, error="OSError: the disk is full")]
    rig.look()
    rig.settle()
    assert rig.endpoint().status is EndpointStatus.FAILED
    assert rig.endpoint().failure_reason == "OSError: the disk is full"
    assert all(i.state is InstanceState.FAILED for i in rig.endpoint().instances)
