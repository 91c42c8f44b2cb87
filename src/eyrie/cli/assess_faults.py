"""The window of an assessment in which things are broken, one after the other, under one load that never stops: what
each fault cost, how soon it was noticed and healed, and how available the endpoint was over the whole window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from eyrie.cli import chaos
from eyrie.cli.assess_budget import AROUND_S, Budget
from eyrie.cli.assess_load import Sender
from eyrie.cli.chaos_faults import Fault
from eyrie.cli.chaos_place import Place
from eyrie.cli.errors import CommandError
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.decide import assessment as decide
from eyrie.domain.assessment import OVER, Availability, FaultRun
from eyrie.domain.load import Second

CALM_S = 2.0
COOL_S = 1.0
WARM_WITHIN_S = 5.0
ASK_EVERY_S = 0.2
LASTING = ("slow", "crash-loop", "zone", "stop-control", "lock-store", "full-disk")
SHARED = ("kill-gateway", "kill-control", "stop-control", "lock-store", "full-disk")  # of all endpoints


@dataclass(frozen=True, slots=True)
class Breaking:
    """What is broken, and how."""

    faults: Sequence[str]
    seconds: float  # of those that last
    share: float
    runs: int
    rps: float
    objective: float
    within_s: float
    afterwards_s: float  # what is kept of the time for what comes after the faults

    def reserve_s(self, name: str) -> float:
        """The time that must be left when a fault is begun."""
        return AROUND_S + (self.seconds if name in LASTING else 0.0) + self.afterwards_s


@dataclass(frozen=True, slots=True)
class Window:
    """What came of it."""

    faults: tuple[FaultRun, ...]
    availability: Availability
    timeline: tuple[dict[str, float | None], ...]


@dataclass(slots=True)
class Answers:
    """Asks the same again and again, and counts the answers that are what they were before. It goes by variant, since
    two models may well differ; where a model answers the same request differently, nothing is counted.
    """

    public: Public
    endpoint: str
    body: bytes
    kind: str
    models: Sequence[str]
    known: dict[str, bytes] = field(default_factory=dict)
    asked: int = 0
    same: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def learn(self, variants: Sequence[str]) -> bool:
        """Ask each variant twice; whether it answers the same both times."""
        for variant in variants:
            first, second = (self._answer(TargetVariant=variant) for _ in range(2))
            if first is None or second is None or first[1] != second[1]:
                return False
            self.known[variant] = first[1]
        return True

    def begin(self) -> None:
        """Ask from now on."""
        self._thread = threading.Thread(target=self._ask, name="answers", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ask no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(chaos.TIMEOUT_S)

    def _ask(self) -> None:
        while not self._over.wait(ASK_EVERY_S):
            found = self._answer()
            self.same += found is not None and self.known.get(found[0]) == found[1]
            self.asked += 1

    def _answer(self, **more: str) -> tuple[str, bytes] | None:
        """Who answered, and what; None where nobody did, tried twice."""
        if self.models:
            more["TargetModel"] = self.models[0]
        try:
            reply = self.public.ask(
                "sagemaker-runtime",
                "invoke_endpoint",
                EndpointName=self.endpoint,
                ContentType=self.kind,
                Body=self.body,
                **more,
            )
            return str(reply.get("InvokedProductionVariant", "")), bytes(reply["Body"].read())
        except (CommandError, OSError):
            return None


def broken(sender: Sender, place: Place, variants: Sequence[str], asked: Breaking, budget: Budget) -> Window:
    """Break everything that is asked for, under load. Raises CommandError where the endpoint never becomes whole."""
    answers = Answers(Public(sender.public.where), sender.endpoint, sender.bodies[0], sender.kind, sender.models)
    counted = answers.learn(variants)
    gathering = sender.begin(chaos.open_shape(asked.rps))
    runs: list[FaultRun] = []
    try:
        if counted:
            answers.begin()
        time.sleep(max(0.0, gathering.begin_s - time.monotonic()))
        for name in asked.faults:
            for number in range(asked.runs):
                if not budget.fits(name if asked.runs == 1 else f"{name}, run {number + 1}", asked.reserve_s(name)):
                    runs.append(FaultRun(name, name, skipped=OVER))
                    continue
                _quiet(place, asked.within_s, sender.progress)
                before = (answers.asked, answers.same)
                run = _one(place, name, asked, gathering.begin_s, sender.progress)
                meant = replace(run, answers=answers.asked - before[0], answers_same=answers.same - before[1])
                runs.append(run if run.skipped else meant)
                gathering.check()
    finally:
        answers.end()
        gathering.stop()
    seconds = gathering.look()
    last = max((at for at, second in seconds.items() if second.answered), default=0)
    found = tuple(run if run.skipped else _costed(run, seconds) for run in runs)
    return Window(found, decide.availability(seconds, 0, last, asked.objective), decide.timeline(seconds, last))


def _quiet(place: Place, within_s: float, progress: Progress) -> None:
    """Until all is whole and a slot waits for the next instance, and then for a calm moment."""
    chaos.settled(place, within_s, progress)
    deadline = time.monotonic() + WARM_WITHIN_S
    while not place.warm() and time.monotonic() < deadline:
        time.sleep(chaos.SETTLE_LOOK_S)
    time.sleep(CALM_S)


def _one(place: Place, name: str, asked: Breaking, begin_s: float, progress: Progress) -> FaultRun:
    """One fault: injected, watched, reverted."""
    zones = sorted({instance.zone for instance in place.instances() or [] if instance.serving})
    if name == "zone" and len(zones) < 2:
        return FaultRun(name, "a zone is out", skipped="all its instances stand in one zone")
    fault: Fault | None = None
    try:
        fault = chaos.injected(place, name, asked.seconds, asked.share, zones[0] if zones else "")
        at = time.monotonic()
        progress.now(f"{fault.what}: until all is whole")
        noticed_s, whole_s = chaos.until_whole(place, fault, asked.within_s, at)
        time.sleep(COOL_S)
    except CommandError as error:
        progress.step(f"{name} was not injected: {error}")
        return FaultRun(name, name, skipped=str(error))
    finally:
        with suppress(KeyboardInterrupt):
            if fault is not None:
                fault.end()
    recover_s = None if whole_s is None else max(0.0, whole_s - fault.seconds)
    progress.step(f"{fault.what}: {'not whole' if whole_s is None else f'whole after {whole_s:.2f} s'}")
    return FaultRun(
        name,
        fault.what,
        at_s=round(at - begin_s, 3),
        lasted_s=fault.seconds,
        detect_s=_rounded(noticed_s),
        whole_s=_rounded(whole_s),
        recover_s=_rounded(recover_s),
    )


def _costed(run: FaultRun, seconds: dict[int, Second]) -> FaultRun:
    at = int(run.at_s)
    until = at + int(run.whole_s if run.whole_s is not None else run.lasted_s) + 1
    return decide.cost_of(run, seconds, at - int(CALM_S), at, until)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
