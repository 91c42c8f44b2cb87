"""Control dies by SIGKILL at every step of an ensure; the next one ensures again, and there is one instance or none."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from compute_crash import crash
from compute_world import World, gone, living, observed, ready, until

from eyrie.adapters.ending import slots_of

STEPS = {"warm": 8, "cold": 14}


@pytest.mark.parametrize(("how", "steps"), [(how, n) for how, count in STEPS.items() for n in range(1, count + 1)])
def test_control_dies_at_this_step_of_ensure(how: str, steps: int) -> None:
    world = World(Path(tempfile.mkdtemp(prefix="ey-")), warm_slots=0)
    try:
        taken = crash(world.data, how, steps)
        assert "DONE" not in taken, f"only {len(taken) - 1} steps"
        assert len(taken) == steps
        compute, spec = world.compute(), world.spec()
        compute.ensure(spec)
        compute.ensure(spec)
        if taken[-1] in ("after hold_lock", "before run"):  # it cannot be told from one that was started
            assert "not seen" in str(gone(compute, spec).exit_reason)
        else:
            ready(compute, spec)
        assert len([slot for slot in slots_of(world.data) if slot.spec()]) == 1
        compute.stop(spec.instance_id, 0)
        gone(compute, spec)
        compute.forget(spec.instance_id)
        assert observed(compute, spec) is None
        until(lambda: not living(world.data) and not slots_of(world.data), "nothing is left")
    finally:
        world.close()


@pytest.mark.parametrize("how", list(STEPS))
def test_every_step_was_tried(how: str) -> None:
    world = World(Path(tempfile.mkdtemp(prefix="ey-")), warm_slots=0)
    try:
        taken = crash(world.data, how, 1000)
        assert taken[-1] == "DONE"
        assert len(taken) - 1 == STEPS[how]
    finally:
        world.close()
