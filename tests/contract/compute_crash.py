"""A control that ensures one instance and dies by SIGKILL at its Nth step.

A step is the beginning or the end of anything that leaves a trace outside of the process.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compute_world import World, standin, warm

from eyrie.adapters import compute_process, launch, slot_maker, tending
from eyrie.adapters.slots import Slot


class Fuse:
    def __init__(self, steps: int, told: int) -> None:
        self.left, self.lit, self.told = steps, False, told

    def step(self, name: str) -> None:
        if not self.lit:
            return
        os.write(self.told, f"{name}\n".encode())
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def traced(*args: Any, **named: Any) -> Any:
            told = f"{name} {args[1]}" if name == "write" else name
            self.step(f"before {told}")
            try:
                return inner(*args, **named)
            finally:
                self.step(f"after {told}")

        setattr(owner, name, traced)


def crash(data: Path, how: str, steps: int) -> list[str]:
    """Run a control in a process of its own up to its Nth step; the steps that it took, and DONE when it came
    through.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # the test runner may have a thread of its own, which the child has no use for
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            _ensure(data, how, Fuse(steps, writing))
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading) as file:
        told = file.read().splitlines()
    os.waitpid(child, 0)
    return told


def _ensure(data: Path, how: str, fuse: Fuse) -> None:
    world = World(data)
    for owner, name in (
        (Slot, "write"),
        (Slot, "hold_lock"),
        (slot_maker.SlotMaker, "make"),
        (launch, "run"),
        (compute_process, "place"),
        (tending.Tending, "_try_claim"),
    ):
        fuse.wrap(owner, name)
    compute = world.compute(standin(), warm_slots=int(how == "warm"))
    if how == "warm":
        warm(compute)
    compute.close()  # its thread would take steps of its own
    fuse.lit = True
    compute.ensure(world.spec())
    fuse.step("DONE")
