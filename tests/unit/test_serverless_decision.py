"""How many instances a serverless variant has: decision by decision, and in the toy world of a whole control."""

from __future__ import annotations

import random

import pytest
from toyworld import KEY, Rig, fresh, wish

from eyrie.control.reconciler import Seen
from eyrie.decide import serverless
from eyrie.decide.endpoint import Update
from eyrie.decide.serverless import PATIENCE_MS, SETTLE_MS, Size, marked, requests_at_once, size
from eyrie.domain.deployment import CapacitySize, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import CapacityChange, EndpointStatus, FleetSpec
from eyrie.domain.errors import BadAmount, NotServerless
from eyrie.domain.fleet import InstanceState
from eyrie.domain.serverless import Serverless, Use

IDLE_MS = 300_000
T = 10_000_000  # a time long after everything is known
IN_SERVICE = EndpointStatus.IN_SERVICE


def use(now: int, *marks: tuple[int, int], since_ms: int = 0) -> Use:
    return Use(now, since_ms, tuple(marks))


def count(allowed: Serverless, wanted: int, seen: Use | None, patient_ms: int = 0) -> int:
    return size(allowed, 16, wanted, patient_ms, seen, T, IDLE_MS).count


SMALL = Serverless(1024, 20)
LARGE = Serverless(1024, 200)
KEPT = Serverless(1024, 200, 40)


@pytest.mark.parametrize(
    ("memory_mb", "foreign", "requests"),
    [(1024, False, 16), (2048, False, 32), (6144, False, 96), (1024, True, 4), (6144, True, 24)],
)
def test_an_instance_serves_requests_by_its_memory(memory_mb: int, foreign: bool, requests: int) -> None:
    assert requests_at_once(Serverless(memory_mb, 1), foreign) == requests
    assert requests_at_once(Serverless(memory_mb, 1, at_once=3), foreign) == 3


@pytest.mark.parametrize(
    ("allowed", "wanted", "seen", "patient_ms", "becomes"),
    [
        (LARGE, 0, use(0), 0, 0),  # at zero without requests it stays there
        (LARGE, 0, use(1), 0, 1),  # the first request
        (LARGE, 0, use(200), 0, 1),  # a burst at zero: one start serves many
        (LARGE, 1, use(200), T + 100, 1),  # while it comes, no other
        (LARGE, 1, use(200), T, 2),  # unless it takes long
        (LARGE, 1, use(200), 0, 2),  # it is there, and not enough: twice as many
        (LARGE, 2, use(200), 0, 4),
        (LARGE, 8, use(200), 0, 13),  # never more than are needed
        (LARGE, 1, use(17), 0, 2),
        (LARGE, 1, use(16), 0, 1),
        (SMALL, 1, use(200), 0, 2),  # MaxConcurrency needs two
        (SMALL, 2, use(200), 0, 2),
        (LARGE, 3, use(0, (40, T - 1)), 0, 3),  # lately needed
        (LARGE, 3, use(0, (40, T - IDLE_MS), (10, T - 1)), 0, 1),  # the two of them are idle
        (LARGE, 3, use(5, (40, T - IDLE_MS)), 0, 1),  # one is at work
        (LARGE, 3, use(0, (40, T - IDLE_MS)), 0, 0),  # all of them are idle
        (LARGE, 1, use(1, (1, T - 10 * IDLE_MS)), 0, 1),  # a request that takes long keeps its instance
        (LARGE, 3, use(0, since_ms=T - IDLE_MS + 1), 0, 3),  # the past is not known: nothing shrinks
        (LARGE, 3, None, 0, 3),
        (LARGE, 0, None, 0, 0),
        (LARGE, 99, None, 0, 13),  # a smaller MaxConcurrency needs fewer
        (KEPT, 0, use(0), 0, 3),  # 40 provisioned requests, 16 an instance
        (KEPT, 0, None, 0, 3),
        (KEPT, 5, use(0), 0, 3),
        (KEPT, 3, use(60), 0, 4),  # beyond what is provisioned
        (Serverless(1024, 1), 0, use(1), 0, 1),
        (Serverless(1024, 1), 1, use(1), 0, 1),
    ],
)
def test_the_count(allowed: Serverless, wanted: int, seen: Use | None, patient_ms: int, becomes: int) -> None:
    assert count(allowed, wanted, seen, patient_ms) == becomes


def test_it_looks_again_when_something_may_have_changed() -> None:
    def looks(*marks: tuple[int, int], wanted: int, now: int = 0, patient_ms: int = 0) -> int | None:
        return size(LARGE, 16, wanted, patient_ms, use(now, *marks), T, IDLE_MS).look_ms

    assert looks((40, T - 7), (1, T - 5), wanted=3) == T - 7 + IDLE_MS  # one of three may go then
    assert looks((1, T - 5), wanted=1) == T - 5 + IDLE_MS
    assert looks(wanted=0) is None
    assert looks(wanted=1, now=200, patient_ms=T + 100) == T + 100
    assert size(LARGE, 16, 3, 0, use(0, since_ms=T), T, IDLE_MS).look_ms == T + IDLE_MS


def test_marks_are_the_highest_numbers_back_from_now() -> None:
    marks: tuple[tuple[int, int], ...] = ()
    for at_ms, requests in enumerate([3, 9, 4, 4, 1, 2]):
        marks = marked(marks, requests, at_ms)
    assert marks == ((9, 1), (4, 3), (2, 5))


def test_marks_know_the_highest_number_of_any_time_back() -> None:
    chance = random.Random(5)
    seen: list[tuple[int, int]] = []
    marks: tuple[tuple[int, int], ...] = ()
    for at_ms in range(400):
        seen.append((chance.randrange(200), at_ms))
        marks = marked(marks, *seen[-1])
        back = chance.randrange(400)
        expected = max((n for n, ms in seen if ms >= back), default=None)
        assert max((n for n, ms in marks if ms >= back), default=None) == expected


@pytest.mark.parametrize("seed", range(100))
def test_any_traffic_is_served_within_bounds(seed: int) -> None:
    """Instances start after a while and serve what they can: never above what MaxConcurrency or the requests there
    are need, nothing starts beside a start that is young, and whatever waits is served in the end.
    """
    chance = random.Random(seed)
    allowed = Serverless(1024, chance.randint(1, 200), 0)
    allowed = Serverless(
        1024, allowed.max_concurrency, chance.choice([0, 0, chance.randint(1, allowed.max_concurrency)])
    )
    each, idle_ms, start_ms = chance.choice([1, 4, 16, 96]), 20_000, chance.choice([100, 2_000, 12_000])
    most = max(-(-allowed.max_concurrency // each), -(-allowed.provisioned // each))
    wanted, at_ms, marks = 0, 0, ()
    waiting = 0
    instances: list[int] = []  # when each was asked for
    for _ in range(300):
        at_ms += chance.choice([10, 100, 1_000])
        waiting = min(waiting + chance.choice([0, 0, 0, 1, 50]), allowed.max_concurrency)
        ready = [i for i in instances if at_ms - i >= start_ms]
        coming = [i for i in instances if at_ms - i < start_ms]
        marks = marked(marks, waiting, at_ms)
        patient_ms = max((i + (SETTLE_MS + start_ms if i in ready else PATIENCE_MS) for i in instances), default=0)
        made = size(allowed, each, wanted, patient_ms, Use(waiting, 0, marks), at_ms, idle_ms)
        assert made.count <= most
        if made.count > max(wanted, -(-allowed.provisioned // each)):
            assert made.count <= -(-waiting // each)  # no more than these need
            assert made.count <= max(1, 2 * wanted)
            assert not coming or at_ms - max(coming) >= PATIENCE_MS
            assert not ready or at_ms - max(ready) - start_ms >= SETTLE_MS
        if made.count < wanted:
            assert made.count >= -(-waiting // each) or made.count == most
        instances += [at_ms] * (made.count - len(instances))
        instances = sorted(instances)[: made.count]
        wanted = made.count
        waiting -= min(waiting, each * len(ready))
    for _ in range(50):  # nothing more comes: what waits is served
        at_ms += 5_000
        ready = [i for i in instances if at_ms - i >= start_ms]
        marks = marked(marks, waiting, at_ms)
        made = size(allowed, each, wanted, at_ms, Use(waiting, 0, marks), at_ms, idle_ms)
        instances = (instances + [at_ms] * (made.count - len(instances)))[: made.count]
        wanted = made.count
        waiting -= min(waiting, each * len(ready))
    assert waiting == 0
    assert wanted == -(-allowed.provisioned // each)  # and then it rests


# --- the whole of control, in the toy world -------------------------------------------------------------------------


def serverless_wish(allowed: Serverless = LARGE, config: str = "config-1") -> FleetSpec:
    return wish(("A", serverless.first_count(allowed, False)), config=config, may_be_empty=True, serverless=allowed)


class Busy(Rig):
    """A control that is told of requests."""

    use: Use | None = None

    def look(self, key=KEY) -> bool:  # type: ignore[no-untyped-def]
        outcomes = self.outcomes.pop(key, [])
        pending = frozenset(e.effect_id for k, e in self.queue if k == key)
        look = self.reconciler.look(
            key, Seen(self.inventory, self.inventory_ms, self.health, self.use), outcomes, pending
        )
        self.queue.extend((key, e) for e in look.decision.effects)
        return look.changed


def in_service(allowed: Serverless = LARGE) -> Busy:
    plain = fresh()
    rig = Busy(plain.store, plain.world, plain.clock)
    rig.endpoints.create(KEY, serverless_wish(allowed))
    rig.run_until(rig.in_status(IN_SERVICE))
    return rig


def at_zero(allowed: Serverless = LARGE) -> Busy:
    rig = in_service(allowed)
    rig.use = Use(0, rig.clock.ms - IDLE_MS, ((0, rig.clock.ms),))
    rig.run_until(lambda: not rig.endpoint().instances)
    assert rig.endpoint().status is IN_SERVICE
    return rig


def test_a_model_is_proven_at_creation_and_goes_to_zero_when_idle() -> None:
    rig = in_service()
    assert len(rig.endpoint().instances) == 1
    rig.run(10_000)
    assert len(rig.endpoint().instances) == 1  # nothing is known of requests
    rig = at_zero()
    table = rig.world.tables[KEY]
    assert [v.targets for v in table.variants] == [()]
    assert table.variants[0].serverless is not None
    assert table.body_bytes_max == 4 << 20
    assert rig.world.wrongs == []
    assert any("no request for" in event.why for event in rig.store.events("Endpoint", KEY.scope, KEY.name))


def test_it_wakes_for_a_request_and_a_restart_of_control_changes_nothing() -> None:
    rig = at_zero()
    again = Busy(rig.store, rig.world, rig.clock, 9)
    again.use = Use(1, rig.clock.ms)
    again.run_until(lambda: any(i.state is InstanceState.READY for i in again.endpoint().instances))
    assert again.endpoint().status is IN_SERVICE  # it never was Updating
    again.run(3_000)
    assert len(again.world.alive()) == 1


def test_a_burst_at_zero_starts_one() -> None:
    rig = at_zero()
    starts = sum(rig.world.starts.values())
    rig.use = Use(200, 0, ((200, rig.clock.ms),))
    rig.run(300, step_ms=50)
    assert sum(rig.world.starts.values()) == starts + 1


def test_a_start_that_fails_is_told_to_gateways_and_forgotten_at_zero() -> None:
    rig = at_zero()
    rig.world.crashing_images.add("eyrie/xgboost")
    rig.use = Use(1, 0, ((1, rig.clock.ms),))
    rig.run_until(lambda: bool(rig.world.tables[KEY].variants[0].serverless.trouble))  # type: ignore[union-attr]
    assert "did not pass the ping health check" in rig.world.tables[KEY].variants[0].serverless.trouble  # type: ignore[union-attr]
    rig.use = Use(0, 0, ((1, rig.clock.ms),))
    rig.run_until(lambda: rig.endpoint().fleet.variants[0].desired_count == 0, limit_ms=2 * IDLE_MS, step_ms=5_000)
    rig.run(10_000)
    assert rig.world.tables[KEY].variants[0].serverless.trouble == ""  # type: ignore[union-attr]


def test_a_model_that_cannot_start_fails_the_creation() -> None:
    rig = fresh()
    rig.world.crashing_images.add("eyrie/xgboost")
    rig.endpoints.create(KEY, serverless_wish())
    rig.run_until(rig.in_status(EndpointStatus.FAILED))


def test_provisioned_concurrency_is_reached_before_it_is_in_service_and_kept() -> None:
    rig = in_service(KEPT)
    assert rig.endpoint().ready_count(rig.endpoint().fleet, "A") == 3
    rig.use = Use(0, 0)
    rig.run(2 * IDLE_MS, step_ms=20_000)
    assert len(rig.world.alive()) == 3


def test_serverless_update_config_raises_and_lowers_what_is_kept() -> None:
    rig = at_zero()
    rig.endpoints.update_weights(KEY, [CapacityChange("A", max_concurrency=100, provisioned=20)])
    assert rig.endpoint().status is EndpointStatus.UPDATING
    rig.run_until(rig.in_status(IN_SERVICE))
    assert len(rig.world.alive()) == 2
    route = rig.world.tables[KEY].variants[0].serverless
    assert route is not None
    assert (route.max_concurrency, route.provisioned) == (100, 20)
    with pytest.raises(BadAmount, match="must not be above its MaxConcurrency 100"):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", provisioned=101)])
    with pytest.raises(BadAmount, match="use ServerlessUpdateConfig"):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", count=1)])


def test_provisioned_concurrency_that_cannot_start_goes_back() -> None:
    rig = at_zero()
    rig.world.crashing_images.add("eyrie/xgboost")
    rig.endpoints.update_weights(KEY, [CapacityChange("A", provisioned=20)])
    rig.run_until(rig.in_status(IN_SERVICE))
    variant = rig.endpoint().fleet.variants[0]
    assert variant.serverless == LARGE
    assert rig.endpoint().failure_reason


def test_serverless_becomes_instances_and_never_the_other_way() -> None:
    rig = at_zero()
    rig.endpoints.update(KEY, Update(wish(("A", 2), config="instances")))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.world.tables[KEY].variants[0].serverless is None
    assert len(rig.world.alive()) == 2
    with pytest.raises(NotServerless, match="cannot be updated"):
        rig.endpoints.update(KEY, Update(serverless_wish(config="back")))
    with pytest.raises(BadAmount, match="is not serverless"):
        rig.endpoints.update_weights(KEY, [CapacityChange("A", max_concurrency=3)])


def test_a_serverless_update_proves_the_new_model_and_then_rests() -> None:
    rig = at_zero()
    rig.endpoints.update(KEY, Update(serverless_wish(Serverless(2048, 5), config="new")))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().config_name == "new"
    rig.run_until(lambda: not rig.endpoint().instances)


def test_a_new_serverless_model_that_fails_is_rolled_back() -> None:
    rig = at_zero()
    rig.world.crashing_images.add("broken")
    bad = wish(("A", 1), config="new", image="broken", may_be_empty=True, serverless=LARGE)
    rig.endpoints.update(KEY, Update(bad))
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().config_name == "config-1"
    assert rig.endpoint().failure_reason


def test_traffic_of_serverless_moves_all_at_once() -> None:
    policy = TrafficPolicy(Strategy.CANARY, CapacitySize(SizeKind.CAPACITY_PERCENT, 10))
    with pytest.raises(NotServerless, match="CANARY"):
        at_zero().endpoints.update(KEY, Update(serverless_wish(config="new"), policy=policy))


def test_it_scales_while_an_update_is_on_its_way() -> None:
    rig = at_zero()
    rig.world.silent_images.add("slow")
    slow = wish(("A", 1), config="new", image="slow", may_be_empty=True, serverless=LARGE)
    rig.endpoints.update(KEY, Update(slow))
    rig.use = Use(1, 0, ((1, rig.clock.ms),))
    rig.run_until(lambda: any(v.targets for v in rig.world.tables[KEY].variants), limit_ms=3_000)
    assert rig.endpoint().status is EndpointStatus.UPDATING
    rig.run_until(rig.in_status(IN_SERVICE))
    assert rig.endpoint().config_name == "config-1"


def test_a_killed_instance_is_replaced_for_what_waits() -> None:
    rig = at_zero()
    rig.use = Use(1, 0, ((1, rig.clock.ms),))
    rig.run_until(lambda: len(rig.world.alive()) == 1)
    rig.run(1_000)
    rig.world.kill(rig.world.alive()[0])
    rig.run_until(lambda: any(v.targets for v in rig.world.tables[KEY].variants) and rig.whole(), limit_ms=5_000)


def test_a_size_says_why() -> None:
    assert size(LARGE, 16, 0, 0, use(3), T, IDLE_MS) == Size(
        1, "3 requests at once, 16 an instance, 0 wanted before", T + PATIENCE_MS
    )
    assert "MaxConcurrency 20" in size(SMALL, 16, 9, 0, None, T, IDLE_MS).why
    assert "provisioned" in size(KEPT, 16, 0, 0, None, T, IDLE_MS).why
