"""Which target of a variant a request goes to, where two are equally busy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from eyrie.decide.gathering import ENOUGH_S, LIGHT_OUTSTANDING, first_is_light
from eyrie.domain.routing import RoutingStrategy, VariantRoute
from eyrie.gateway.routes import Variant


def of_two(first: str, second: str) -> tuple[Variant, list[Any]]:
    route = VariantRoute("v", 1.0, RoutingStrategy.LEAST_OUTSTANDING_REQUESTS, "primary", ())
    variant = Variant(cast(Any, None), route)
    targets = [SimpleNamespace(instance_id=name, invocations=set()) for name in (first, second)]
    variant.routed = cast(Any, targets)
    return variant, targets


def test_of_two_idle_workers_of_an_instance_the_first_stays_warm() -> None:
    variant, (first, second) = of_two("i-1", "i-1")
    assert all(variant.choose(None) is first for _ in range(50))
    first.invocations.add(1)
    assert variant.choose(None) is second


def test_of_two_idle_instances_each_gets_its_share() -> None:
    variant, targets = of_two("i-1", "i-2")
    chosen = [variant.choose(None) for _ in range(200)]
    assert all(50 < chosen.count(target) < 150 for target in targets)


def test_small_requests_fill_the_first_worker_while_it_is_quick() -> None:
    variant, (first, second) = of_two("i-1", "i-1")
    variant.of_one = True
    first.gathering, first.answers_s, first.message_s, first.busy = object(), ENOUGH_S / 2, 0.0, 0.0
    first.invocations.update(range(20))
    assert variant.choose(None, gathers=True) is first
    assert variant.choose(None) is second, "a large one goes to the least busy"
    first.answers_s = 2 * ENOUGH_S
    assert variant.choose(None, gathers=True) is second
    first.message_s, first.busy = ENOUGH_S / 2, 0.5
    assert variant.choose(None, gathers=True) is first, "by its own word it is the delay of others"
    first.gathering, first.answers_s = None, 0.0
    assert variant.choose(None, gathers=True) is second, "it takes no messages"


def test_the_first_worker_has_requests_for_many_models_while_it_is_idle_or_quick() -> None:
    assert first_is_light(10 * ENOUGH_S, 0)
    assert first_is_light(ENOUGH_S / 2, LIGHT_OUTSTANDING - 1)
    assert not first_is_light(ENOUGH_S / 2, LIGHT_OUTSTANDING)
    assert not first_is_light(ENOUGH_S, 1)
