"""Load for the demo: threads that invoke with plain boto3, half of them without client retries, and what came of it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

THREADS_EACH = 2
NO_RETRIES = Config(retries={"total_max_attempts": 1, "mode": "standard"})


class Tally:
    """Counts of one kind of client; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.asked = 0
        self.failed = 0
        self.variants: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._latencies_s: list[float] = []

    def answered(self, variant: str, took_s: float) -> None:
        """Count a good reply."""
        with self._lock:
            self.asked += 1
            self.variants[variant] += 1
            self._latencies_s.append(took_s)

    def refused(self, why: str) -> None:
        """Count a failure."""
        with self._lock:
            self.asked += 1
            self.failed += 1
            self.reasons[why[:200]] += 1

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latencies of good replies, milliseconds."""
        with self._lock:
            ordered = sorted(self._latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def invoke(runtime: Any, endpoint: str, row: str, tally: Tally) -> float:
    """One prediction; raises what boto3 raises."""
    began = time.perf_counter()
    reply = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Accept="text/csv", Body=row)
    score = float(reply["Body"].read())
    tally.answered(reply["InvokedProductionVariant"], time.perf_counter() - began)
    return score


class Traffic:
    """Invocations that go on until the block ends: `wire` without client retries, `boto` with boto3's defaults."""

    def __init__(self, endpoint: str, rows: list[str]) -> None:
        self.wire, self.boto = Tally(), Tally()
        self._endpoint = endpoint
        self._rows = rows
        self._stop = threading.Event()
        kinds = [(self.wire, NO_RETRIES), (self.boto, None)] * THREADS_EACH
        self._threads = [threading.Thread(target=self._go_on, args=kind) for kind in kinds]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def connections(self) -> int:
        """How many connections the wire's threads keep open at most."""
        return THREADS_EACH

    def failures(self) -> str:
        """Both counts, in words."""
        return f"{self.wire.failed} on the wire, {self.boto.failed} as boto3 sees it"

    def _go_on(self, tally: Tally, config: Config | None) -> None:
        runtime = boto3.session.Session().client("sagemaker-runtime", config=config)
        for row in itertools.cycle(self._rows):
            if self._stop.is_set():
                return
            try:
                invoke(runtime, self._endpoint, row, tally)
            except (BotoCoreError, ClientError) as error:
                tally.refused(f"{type(error).__name__}: {error}")
