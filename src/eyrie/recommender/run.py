"""A whole recommendations job: candidate after candidate is deployed, loaded, measured and removed, within the budget.

    RUN/run.json           control's: the job
    RUN/box/progress.json  the ledger: what was measured so far; a run that takes this one up goes by it
    RUN/box/removed        everything that this run made is gone again
    RUN/box/result.json    the reason, where it failed

Only one job measures at a time on a host: another's load would be in its figures. The others wait for
DATA/run/recommender.lock.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from eyrie.adapters import process_lock
from eyrie.adapters.durable import write_whole
from eyrie.adapters.job_program import ProgramFailed
from eyrie.decide.recommendation import (
    COMPILE,
    best_stretch,
    ladder,
    load_seconds,
    next_candidate,
    why_none,
)
from eyrie.domain.names import Scope
from eyrie.domain.recommendation import Candidate, Ledger, Measured, Order, Trial, TrialState
from eyrie.load.gathering import ProcessDied
from eyrie.recommender.api import Api, Away, Refused, Stopped
from eyrie.recommender.bench import OWN_CPU_FULL, Bench, Loaded
from eyrie.recommender.hosting import Hosting, NotHosted, names
from eyrie.recommender.samples import Unusable, bodies

log = logging.getLogger("eyrie.recommender")

STARTUP_S, STARTUP_MAX_S = 600, 3_600
WAIT_MIN_S, WAIT_MAX_S = 60.0, 900.0
LOOK_S = 0.5
WAITING = "waiting until another recommendations job has measured"
Told = Callable[[Trial, str], Trial]  # writes down a test and the phase; the test with the time that it took


@dataclass(frozen=True, slots=True)
class Mission:
    """`run.json`."""

    scope: Scope
    job: str
    run_id: str
    data: str
    keys: str  # path of credentials.json; "" with `--auth off`
    order: Order
    time_scale: float
    note: str  # what holds for all figures of this host
    sweep: bool  # only remove what is left


class Run:
    """One run of a job, from its beginning or from where another one left it."""

    def __init__(self, folder: Path) -> None:
        self._box = folder / "box"
        self._mission = mission = msgspec.json.decode((folder / "run.json").read_bytes(), type=Mission)
        self._stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda number, frame: self._stopped.set())
        data, keys = Path(mission.data), Path(mission.keys) if mission.keys else None
        startup_s = min(STARTUP_MAX_S, int(STARTUP_S * max(1.0, mission.time_scale)))
        self._api = Api(data, keys, mission.scope, self._stopped)
        self._hosting = Hosting(self._api, mission.run_id, mission.job, startup_s)
        patient = Api(data, keys, mission.scope, threading.Event())  # what was made is removed also when it is stopped
        self._sweeping = Hosting(patient, mission.run_id, mission.job, startup_s)
        self._ledger = self._known()

    def run(self) -> None:
        """To the end. Raises ProgramFailed."""
        try:
            if not self._mission.sweep:
                with self._alone():
                    self._work()
        except Stopped:
            self._tell(replace(self._ledger, phase="stopped", tests=tuple(map(_stopped, self._ledger.tests))))
            raise ProgramFailed("the job was stopped") from None
        except (Unusable, Away) as error:
            raise ProgramFailed(str(error)) from None
        finally:
            self._sweep()

    def _work(self) -> None:
        mission, order = self._mission, self._mission.order
        self._sweeping.remove()  # what an earlier run was in the middle of
        self._tell(replace(self._ledger, phase="reading the sample payload", note=mission.note))
        bench = Bench(self._api, order, mission.job, bodies(self._api, order.payload_url), mission.time_scale)
        while (candidate := next_candidate(order, self._ledger.tests)) is not None:
            seconds = load_seconds(order, self._ledger.tests)
            if seconds is None:
                log.info("no time is left for %s", candidate.title)
                break
            self._test(candidate, seconds, bench)
        self._tell(replace(self._ledger, phase="done"))
        if not any(test.state is TrialState.COMPLETED for test in self._ledger.tests):
            failed = [f"{test.candidate.title}: {test.reason}" for test in self._ledger.tests]
            said = "; ".join(failed) or f"the time of {order.budget_s} s is too short for one test of its traffic"
            raise ProgramFailed(f"ClientError: no configuration could be measured: {said}"[:900])

    # --------------------------------------------------------------------------------------------------------- one test
    def _test(self, candidate: Candidate, seconds: float, bench: Bench) -> None:
        """Deploy, load, measure, remove; whatever comes of it is in the ledger. Raises Away, Stopped, Unusable."""
        number = len(self._ledger.tests) + 1
        endpoint, variant = names(self._mission.run_id, number)
        test = Trial(number, candidate, TrialState.IN_PROGRESS, candidate.endpoint or endpoint, variant)
        log.info("test %d: %s, %.0f s of load", number, candidate.title, seconds)
        before, begun = self._ledger, time.monotonic()

        def told(now: Trial, phase: str) -> Trial:
            now = replace(now, took_s=round(time.monotonic() - begun, 2))
            self._tell(replace(before, tests=(*before.tests, now), used_s=before.used_s + now.took_s, phase=phase))
            return now

        try:
            test = told(test, f"deploying {candidate.title}")
            test = self._measured(test, seconds, bench, told)
        except (NotHosted, Refused, ProcessDied) as error:
            test = replace(test, state=TrialState.FAILED, reason=_reason(error))
        if not candidate.endpoint:
            test = told(test, f"removing {candidate.title}")
            self._sweeping.remove(number)
        told(test, "between tests")
        log.info("test %d: %s: %s", number, test.state, test.reason or test.measured)

    def _measured(self, test: Trial, seconds: float, bench: Bench, told: Told) -> Trial:
        order, candidate = self._mission.order, test.candidate
        setup_s = None
        if candidate.endpoint:
            test = replace(test, variant=self._first_variant(candidate.endpoint))
        else:
            wait_s = max(WAIT_MIN_S, min(WAIT_MAX_S, order.budget_s - self._ledger.used_s))
            setup_s = self._hosting.host(candidate, test.number, order.model, wait_s)
            if candidate.environment.get(COMPILE) == "1":
                self._hosting.compiled(test.endpoint, time.monotonic() + wait_s)
        bench.try_payloads(test.endpoint)
        test = told(test, f"loading {candidate.title}")
        pattern = order.pattern or ladder(seconds)
        loaded = bench.load(test.endpoint, pattern)
        test = replace(
            test,
            began_ms=loaded.began_ms,
            ended_ms=loaded.ended_ms,
            loaded_s=round((loaded.ended_ms - loaded.began_ms) / 1000 / self._mission.time_scale, 2),
            note=self._note(candidate, loaded),
            reason=loaded.why,
        )
        for one in loaded.seen:
            took = "no answer" if one.latency_ms is None else f"{one.latency_ms:.1f} ms"
            log.info("%d users: %.1f/s, %.2f %% errors, %s", one.users, one.rps, one.errors * 100, took)
        best = best_stretch(loaded.seen, order.stopping)
        if best is None:
            return replace(test, state=TrialState.FAILED, reason=why_none(loaded.seen, order.stopping))
        used = bench.used(test.endpoint, test.variant, loaded, best)
        measured = Measured(
            max_invocations=max(1, int(best.rps * 60)),
            latency_ms=round(used.latency_ms if used.latency_ms is not None else best.latency_ms or 0.0, 3),
            users=best.users,
            errors=round(best.errors, 5),
            cpu_percent=None if used.cpu_percent is None else round(used.cpu_percent, 1),
            memory_percent=None if used.memory_percent is None else round(used.memory_percent, 1),
            setup_s=None if setup_s is None else round(setup_s, 2),
        )
        return replace(test, state=TrialState.COMPLETED, measured=measured)

    def _first_variant(self, endpoint: str) -> str:
        described = self._api.ask("sagemaker", "describe_endpoint", EndpointName=endpoint)
        variants = described.get("ProductionVariants") or []
        if described["EndpointStatus"] != "InService" or not variants:
            raise NotHosted(f"endpoint {endpoint} is {described['EndpointStatus']}, not InService")
        return str(variants[0]["VariantName"])

    def _note(self, candidate: Candidate, loaded: Loaded) -> str:
        """What a reader has to know of the figures of this test."""
        order, said = self._mission.order, [self._mission.note] if self._mission.note else []
        facts = order.types.get(candidate.instance_type)
        if facts is not None and facts.vcpu > order.host_cpus:
            said.append(f"{candidate.instance_type} has {facts.vcpu} vCPU, this host {order.host_cpus} CPUs")
        if loaded.own_cpu > OWN_CPU_FULL:
            said.append("the load itself used a whole core: the endpoint may be able to do more")
        return "; ".join(said)

    # ---------------------------------------------------------------------------------------------------------- ledger
    def _known(self) -> Ledger:
        """What an earlier run of the job wrote, without the test that it was in the middle of."""
        try:
            known = msgspec.json.decode((self._box / "progress.json").read_bytes(), type=Ledger)
        except FileNotFoundError:
            return Ledger()
        kept = tuple(test for test in known.tests if self._mission.sweep or test.state is not TrialState.IN_PROGRESS)
        return replace(known, tests=kept, used_s=sum(test.took_s for test in kept))

    def _tell(self, ledger: Ledger) -> None:
        self._ledger = ledger
        write_whole(self._box / "progress.json", msgspec.json.encode(ledger), 0o644)

    def _sweep(self) -> None:
        """Remove all that this run made, and say so where it is true; what is left, the next one removes."""
        try:
            self._sweeping.remove()
        except (Away, Refused) as error:
            log.warning("not everything could be removed: %s", error)
            return
        write_whole(self._box / "removed", b"", 0o644)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other job measures on this host. Raises Stopped."""
        fd = os.open(
            Path(self._mission.data) / "run" / "recommender.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            while not process_lock.try_lock(fd):
                if self._ledger.phase != WAITING:
                    self._tell(replace(self._ledger, phase=WAITING))
                self._api.pause(LOOK_S)
            yield
        finally:
            os.close(fd)


def _stopped(test: Trial) -> Trial:
    if test.state is not TrialState.IN_PROGRESS:
        return test
    return replace(test, state=TrialState.STOPPED, reason="the job was stopped")


def _reason(error: Exception) -> str:
    kind = "InternalError" if isinstance(error, ProcessDied) else "ClientError"
    return f"{kind}: {error}"[:900]
