"""Control dies after every commit of an inference experiment's life, from its start to its promotion: the end is the
same as without a crash, since each step is one commit with the endpoint's change.
"""

from __future__ import annotations

import contextlib
from typing import Any

from experiment_life import PROMOTE, Life, S, begun
from toyworld import MemoryStore

from eyrie.decide import inference_experiments as decide
from eyrie.ports import Commit


class Crash(BaseException):
    """Control is no more."""


class MortalStore(MemoryStore):
    """Dies after one of its commits, once."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.count, self.armed = at, 0, False

    def commit(self, commit: Commit) -> None:
        super().commit(commit)
        self._point()

    def _point(self) -> None:
        if not self.armed:
            return
        self.count += 1
        if self.count - 1 == self.at:
            raise Crash


def lived(at: int) -> tuple[Any, int]:
    """An experiment from its start to its promotion, with a new control after a crash at one of the commits."""
    store = MortalStore(at)
    life = begun(store)
    world = life.rig.world
    store.armed = True
    stopped = False
    for seed in range(3):
        with contextlib.suppress(Crash):
            while not life.experiment().over:
                if not stopped and life.experiment().status is S.RUNNING:
                    stopped = True
                    store.armed = False
                    life.put(decide.stop(life.experiment(), PROMOTE, life.now))
                    store.armed = True
                life.run(200)
            life.rig.run_until(life.rig.whole)
            break
        life = Life(store, world, seed=10 + seed)
    experiment, endpoint = life.experiment(), life.rig.endpoint()
    configs = sorted(d.name for d in store.scan("EndpointConfig"))
    fleets = (endpoint.status, endpoint.config_name, endpoint.fleet.generation, life.variants())
    return (experiment.status, experiment.reason, fleets, configs, world.wrongs, store.outbox()), store.count


def test_control_may_die_at_any_commit_of_an_experiment() -> None:
    expected, count = lived(-1)
    assert expected[0] is S.COMPLETED
    assert expected[4] == []
    assert count > 20
    for at in range(count):
        assert lived(at)[0] == expected, f"crash at {at}"
