"""Random lives of an endpoint: commands, faults, crashes of control and late gateways in any order, from a seed. What
control sees of the world may be old at any step.

Safety while faults happen: the lint accepts every decision (the reconciler raises otherwise), the world never sees a
second start or an early stop, no variant runs more than its bound, and one that has a healthy READY instance has it in
the route. Liveness when they stop: the endpoint comes to rest, whole or Failed or gone, and nothing else is left.
"""

from __future__ import annotations

import contextlib
import random

import pytest
from toyworld import KEY, Rig, fresh, wish

from eyrie.decide.endpoint import Update
from eyrie.decide.rollout import shares
from eyrie.domain.alarms import AlarmState
from eyrie.domain.deployment import CapacitySize, SizeKind, Strategy, TrafficPolicy
from eyrie.domain.endpoint import CapacityChange, EndpointStatus, FleetSpec
from eyrie.domain.errors import Refused
from eyrie.domain.fleet import COUNTED, InstanceState

STEPS = 150
SEEDS = 60


class Life:
    """One seed's interleaving."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.rig = fresh(seed)
        self.seed = seed
        self.configs = 0

    def step(self) -> None:
        self.rig.clock.ms += self.chance.choice([1, 20, 200, 1_000, 7_000])
        self.chance.choice(
            [self.command, self.kill, self.hang, self.wake, self.crash]
            + [self.gateways, self.image, self.capacity, self.alarm]
            + [self.look] * 12
            + [self.act] * 12
            + [self.rig.ping] * 6
            + [self.rig.see] * 6
        )()
        self.judge()

    def command(self) -> None:
        self.configs += 1
        variants = [("A", self.chance.randint(1, 4))] + ([("B", self.chance.randint(1, 2))] * self.chance.randint(0, 1))
        image, empty = self.chance.choice(["eyrie/xgboost", "other"]), self.chance.random() < 0.5
        new = wish(*variants, config=f"config-{self.configs}", image=image, may_be_empty=empty)
        change = CapacityChange("A", weight=self.chance.random(), count=self.chance.randint(0, 4))
        endpoints = self.rig.endpoints
        with contextlib.suppress(Refused):
            self.chance.choice(
                [
                    lambda: endpoints.create(KEY, new),
                    lambda: endpoints.update(KEY, self.update(new)),
                    lambda: endpoints.update_weights(KEY, [change]),
                    lambda: self.chance.random() < 0.2 and endpoints.delete(KEY),
                ]
            )()

    def update(self, fleet: FleetSpec) -> Update:
        """Any way to that fleet."""
        return Update(fleet, retain_all=self.chance.random() < 0.3, policy=self.policy())

    def policy(self) -> TrafficPolicy:
        """Any DeploymentConfig; some are refused for the fleet."""
        strategy = self.chance.choice(list(Strategy))
        size = CapacitySize(self.chance.choice(list(SizeKind)), self.chance.choice([1, 2, 5, 10, 30, 50]))
        return TrafficPolicy(
            strategy=strategy,
            size=None if strategy is Strategy.ALL_AT_ONCE else size,
            bake_ms=self.chance.choice([0, 1_000, 10_000]),
            termination_wait_ms=self.chance.choice([0, 5_000]),
            limit_ms=self.chance.choice([0, 0, 100_000]),
            alarms=("errors",) * self.chance.randint(0, 1),
            rollback_size=self.chance.choice([None, CapacitySize(SizeKind.CAPACITY_PERCENT, 30)]),
        )

    def alarm(self) -> None:
        self.rig.world.alarms["errors"] = self.chance.choice(list(AlarmState))

    def some(self) -> str | None:
        alive = self.rig.world.alive()
        return self.chance.choice(alive) if alive else None

    def kill(self) -> None:
        if victim := self.some():
            self.rig.world.kill(victim)

    def hang(self) -> None:
        if victim := self.some():
            self.rig.world.instances[victim].hung = True

    def wake(self) -> None:
        for instance in self.rig.world.instances.values():
            instance.hung = False

    def crash(self) -> None:
        self.rig = Rig(self.rig.store, self.rig.world, self.rig.clock, self.chance.getrandbits(32))

    def gateways(self) -> None:
        world = self.rig.world
        gateway = self.chance.choice(world.gateways)
        world.lazy_gateways = self.chance.random() < 0.3
        gateway.live = self.chance.random() < 0.7
        if not gateway.live:  # it takes its requests with it; its successor begins with the newest tables
            gateway.busy, gateway.tables = set(), {}
        world.read_tables(g for g in world.gateways if g.live)
        serves = {i for i in world.alive() if gateway.serves(i)}
        gateway.busy = serves if self.chance.random() < 0.3 else set()

    def image(self) -> None:
        for group in (self.rig.world.crashing_images, self.rig.world.silent_images):
            (group.add if self.chance.random() < 0.2 else group.discard)("other")

    def capacity(self) -> None:
        self.rig.world.capacity = self.chance.choice([4, 8, 1_000])

    def look(self) -> None:
        for key in sorted(self.rig.keys()):
            self.rig.look(key)

    def act(self) -> None:
        if self.rig.queue:
            self.rig.act(self.chance.randrange(self.rig.choices()))

    def judge(self) -> None:
        world = self.rig.world
        assert world.wrongs == [], world.wrongs
        assert all(n == 1 for n in world.starts.values())
        owed = [effect.effect_id for _, effect in self.rig.queue]
        assert len(owed) == len(set(owed)), "an effect was owed again before it ended"
        endpoint = self.rig.endpoints.get(KEY)
        if endpoint is None:
            return
        alive = set(world.alive())
        for fleet in endpoint.fleets:
            for variant in fleet.variants:
                running = [i for i in endpoint.members(fleet, variant.name) if i.instance_id in alive]
                # a count that was just lowered is reached by the next look; it never exceeds what was asked for
                assert len(running) <= 4 + 1, self.rig.told()
        if endpoint.route is not None and endpoint.status is not EndpointStatus.DELETING:
            routed = {t.instance_id for v in endpoint.route.variants for t in v.targets}
            for fleet, by in shares(endpoint):
                for name in by:
                    ready = [i for i in endpoint.members(fleet, name) if i.state is InstanceState.READY]
                    variant = fleet.variant(name)
                    if variant is None or not variant.desired_count:  # none is wanted: they may drain
                        continue
                    assert not ready or any(i.instance_id in routed for i in ready), self.rig.told()[-5:]

    def calm(self) -> None:
        """The faults stop."""
        world = self.rig.world
        world.alarms.clear()
        world.crashing_images.clear()
        world.silent_images.clear()
        world.capacity = 10_000
        world.lazy_gateways = False
        self.wake()
        for gateway in world.gateways:
            gateway.live = True
            gateway.busy = set()
        world.read_tables(world.gateways)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_life_is_safe_and_comes_to_rest(seed: int) -> None:
    life = Life(seed)
    life.rig.endpoints.create(KEY, wish(("A", 2), may_be_empty=seed % 2 == 0))
    for _ in range(STEPS):
        life.step()
    life.calm()

    def at_rest() -> bool:
        endpoint = life.rig.endpoints.get(KEY)
        if endpoint is None:
            return not life.rig.world.instances
        if endpoint.status is EndpointStatus.FAILED:
            return not endpoint.instances
        if endpoint.status is EndpointStatus.UPDATE_ROLLBACK_FAILED:  # the faults kept blue from coming back: by hand
            life.rig.endpoints.delete(KEY)
            return False
        return endpoint.status is EndpointStatus.IN_SERVICE and life.rig.whole()

    life.rig.run_until(at_rest, limit_ms=700_000, step_ms=1_000)
    life.rig.run(10_000, step_ms=1_000)
    life.judge()
    assert life.rig.store.outbox() == []
    endpoint = life.rig.endpoints.get(KEY)
    counted = [i.instance_id for i in endpoint.instances if i.state in COUNTED] if endpoint else []
    assert sorted(life.rig.world.instances) == sorted(counted)  # no orphan, nothing forgotten half


def test_deciding_again_without_news_changes_nothing() -> None:
    life = Life(1)
    life.rig.endpoints.create(KEY, wish(("A", 2), ("B", 1)))
    life.rig.run_until(life.rig.whole)
    life.rig.run(10_000)
    version = life.rig.store.get("Endpoint", KEY.scope, KEY.name)
    life.rig.run(60_000)
    assert life.rig.store.get("Endpoint", KEY.scope, KEY.name) == version
