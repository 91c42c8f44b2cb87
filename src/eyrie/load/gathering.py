"""The processes of a load test and what they tell, gathered: the side that starts them and is told.

A process that dies ends the test early and is named; when this side dies, its processes end by themselves, since nobody
reads what they write.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from time import monotonic, sleep

import msgspec

from eyrie.domain.load import Second, second_of
from eyrie.load.plan import Plan, encoded

READY_WITHIN_S = 120.0  # that a process takes to start and to read its plan
START_S = 0.5  # from then to the beginning of the load: the first connections are made
END_WITHIN_S = 10.0
READY_LOOK_S = 0.01


class ProcessDied(RuntimeError):
    """A process of the load test ended before its time."""


class Gathering:
    """A running load test. Raises ProcessDied where its processes do not get ready."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.seconds: defaultdict[int, Second] = defaultdict(Second)
        self.cpu: dict[int, list[float]] = {plan.share: [] for plan in plans}  # share of a core, by process
        self._lock = threading.Lock()
        self._ready: set[int] = set()
        self._over: set[int] = set()
        self._processes = [_process(plan) for plan in plans]
        self._readers = [
            threading.Thread(target=self._read, args=(plan.share, process), daemon=True)
            for plan, process in zip(plans, self._processes, strict=True)
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.begin_s = self._begun()
        except BaseException:
            self.stop()
            raise

    def _begun(self) -> float:
        """Once every process has read its plan, however large it is, tell all when the load begins."""
        deadline = monotonic() + READY_WITHIN_S
        while len(self._ready) < len(self._processes):
            self.check()
            if monotonic() > deadline:
                raise ProcessDied(f"the processes of the load test were not ready within {READY_WITHIN_S:g} s")
            sleep(READY_LOOK_S)
        begin_s = monotonic() + START_S
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # `check` says what became of it
                process.stdin.write(b"%r\n" % begin_s)
                process.stdin.close()
        return begin_s

    @property
    def over(self) -> bool:
        """Whether every process has told its last."""
        return len(self._over) == len(self._processes)

    def check(self) -> None:
        """Raises ProcessDied for a process that ended without saying so."""
        for number, process in enumerate(self._processes):
            code = process.poll()
            if code is not None and number not in self._over:
                self._readers[number].join(1.0)
                if number not in self._over:
                    raise ProcessDied(f"process {number} of the load test ended with {code}")

    def until_over(self, period_s: float, deadline_s: float) -> bool:
        """Wait a little; whether it is over, or past its deadline (CLOCK_MONOTONIC)."""
        for reader in self._readers:
            reader.join(period_s / len(self._readers))
        self.check()
        return self.over or monotonic() > deadline_s

    def look(self) -> dict[int, Second]:
        """A copy of what was seen so far, by the second."""
        with self._lock:
            found: dict[int, Second] = {}
            for at, second in self.seconds.items():
                kept = Second()
                kept.merge(second)
                found[at] = kept
            return found

    def stop(self) -> None:
        """Ask every process to end, and wait for what they have to tell."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for reader in self._readers:
            reader.join(END_WITHIN_S)
        for process in self._processes:
            try:
                process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _read(self, number: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            told = msgspec.json.decode(line)
            with self._lock:
                if told.get("ready"):
                    self._ready.add(number)
                for at, second in told.get("seconds", {}).items():
                    self.seconds[int(at)].merge(second_of(second))
                if "cpu" in told:
                    self.cpu[number].append(float(told["cpu"]))
                if told.get("over"):
                    self._over.add(number)


def _process(plan: Plan) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "eyrie.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # `check` says what became of it
        process.stdin.write(encoded(plan))
        process.stdin.flush()
    return process
