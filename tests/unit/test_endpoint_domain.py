"""The nouns of an endpoint: their transition tables, their stored form, and the lint that holds plans to both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

import pytest
from toyworld import KEY, POLICY, serving, wish

from eyrie.control.endpoints import decode, encode
from eyrie.decide import check
from eyrie.decide.draft import Draft
from eyrie.decide.endpoint import Update, create
from eyrie.decide.policy import Policy
from eyrie.domain.deployment import PHASE_MOVES, DeploymentPhase
from eyrie.domain.endpoint import STATUS_MOVES, Endpoint, EndpointStatus
from eyrie.domain.errors import IllegalTransition
from eyrie.domain.fleet import INSTANCE_MOVES, Instance, InstanceState
from eyrie.domain.observation import Observation
from eyrie.domain.plan import Decision, Effect, Verb
from eyrie.domain.transition import moved

TABLES: list[Mapping[StrEnum, frozenset[StrEnum]]] = [STATUS_MOVES, PHASE_MOVES, INSTANCE_MOVES]  # type: ignore[list-item]


@pytest.mark.parametrize("table", TABLES)
def test_every_move_that_a_table_lacks_raises(table: Mapping[StrEnum, frozenset[StrEnum]]) -> None:
    states = list(type(next(iter(table))))
    assert set(table) == set(states)
    for source in states:
        for destination in states:
            if destination in table[source]:
                assert moved(table, "x", source, destination) is destination
            else:
                with pytest.raises(IllegalTransition, match=f"no way from {source} to {destination}"):
                    moved(table, "x", source, destination)


def test_a_draft_refuses_a_move_from_a_wrong_source() -> None:
    endpoint = whole()
    draft = Draft(endpoint, Observation({}, 0), 1)
    stopped = replace(endpoint.instances[0], state=InstanceState.STOPPED)
    with pytest.raises(IllegalTransition):
        draft.move(stopped, InstanceState.READY, "it cannot rise again")
    with pytest.raises(IllegalTransition):
        draft.status(EndpointStatus.CREATING, "nor be created twice")


def test_an_endpoint_survives_its_stored_form() -> None:
    rig = serving(("A", 2), ("B", 1))
    rig.endpoints.update(KEY, Update(wish(("A", 1), config="config-2")))
    rig.settle()
    endpoint = rig.endpoint()
    assert endpoint.deployment is not None
    assert endpoint.route is not None
    assert decode(json.loads(json.dumps(encode(endpoint)))) == endpoint


def whole() -> Endpoint:
    """An endpoint InService with two instances of A."""
    return serving(("A", 2)).endpoint()


def with_first(endpoint: Endpoint, **fields: object) -> Endpoint:
    first, *others = endpoint.instances
    return replace(endpoint, instances=(replace(first, **fields), *others))  # type: ignore[arg-type]


def new_instance(endpoint: Endpoint, zone: str) -> Endpoint:
    new = Instance("i-new", "A", 1, 1, zone, InstanceState.REQUESTED, "why", 1, 1)
    return replace(endpoint, instances=(*endpoint.instances, new))


def without_first_in_route(endpoint: Endpoint, keep: int = 1) -> Endpoint:
    assert endpoint.route is not None
    (variant,) = endpoint.route.variants
    route = replace(
        endpoint.route,
        generation=endpoint.route.generation + 1,
        variants=(replace(variant, targets=variant.targets[2 - keep :]),),
    )
    return replace(endpoint, route=route, route_generation=route.generation)


def test_the_lint_finds_nothing_wrong_with_what_is_right() -> None:
    endpoint = whole()
    assert check.problems(endpoint, Decision(endpoint), POLICY, {i.instance_id for i in endpoint.instances}) == []
    lost = with_first(without_first_in_route(endpoint), state=InstanceState.LOST)
    assert check.problems(endpoint, Decision(new_instance(lost, "c")), POLICY) == []


def test_the_lint_names_each_kind_of_unsafe_plan() -> None:
    before = whole()
    first = before.instances[0].instance_id
    stop = Effect(f"{before.uid}/stop_instance/{first}", Verb.STOP_INSTANCE, first, {"grace_ms": 0})
    lost = with_first(without_first_in_route(before), state=InstanceState.LOST)
    cases: list[tuple[str, Decision]] = [
        ("status InService -> Creating", Decision(replace(before, status=EndpointStatus.CREATING))),
        ("a generation falls", Decision(replace(before, generation=0))),
        ("without a new generation", Decision(replace(before, route=None))),
        ("is not the endpoint's", Decision(replace(before, route_generation=before.route_generation + 1))),
        ("an instance id occurs twice", Decision(replace(before, instances=before.instances * 2))),
        ("READY -> STARTING", Decision(with_first(before, state=InstanceState.STARTING))),
        ("became another", Decision(with_first(before, zone="c"))),
        ("in the route as something else", Decision(with_first(before, variant="B"))),
        ("its fleet or variant is no more", Decision(with_first(before, fleet=9))),
        ("3 of A where 2 are wanted", Decision(new_instance(before, "c"))),
        ("shares zone b while", Decision(new_instance(lost, "b"))),
        ("is in the route and unknown", Decision(replace(before, instances=before.instances[1:]))),
        ("is dropped while it runs", Decision(replace(before, instances=before.instances[1:]))),
        ("loses its last serving instance", Decision(without_first_in_route(before, keep=0))),
        ("not to be ended", Decision(before, effects=(stop,))),
        ("an effect is owed twice", Decision(before, effects=(stop, stop))),
        ("removed while InService", Decision(None)),
    ]
    for told, decision in cases:
        found = check.problems(before, decision, POLICY, {first})
        assert any(told in problem for problem in found), (told, found)


def test_the_lint_knows_the_phases() -> None:
    rig = serving(("A", 1))
    rig.endpoints.update(KEY, Update(wish(("A", 1), config="config-2")))
    before = rig.endpoint()
    assert before.deployment is not None
    after = replace(before, deployment=replace(before.deployment, phase=DeploymentPhase.RETIRING))
    assert "deployment PENDING -> RETIRING" in check.problems(before, Decision(after), POLICY)


def test_back_off_doubles_from_the_second_crash_to_its_limit() -> None:
    policy = Policy(backoff_first_ms=1_000, backoff_max_ms=300_000)
    assert [policy.backoff_ms(n) for n in range(6)] == [0, 0, 1_000, 2_000, 4_000, 8_000]
    assert policy.backoff_ms(10) == 256_000
    assert policy.backoff_ms(11) == policy.backoff_ms(10_000) == 300_000


def test_a_new_endpoint_of_an_old_name_begins_above_the_old_tables() -> None:
    earlier = create(KEY, "e-1", wish(("A", 1)), 1_000).endpoint
    later = create(KEY, "e-2", wish(("A", 1)), 2_000).endpoint
    assert earlier is not None
    assert later is not None
    assert later.route_generation > earlier.route_generation
