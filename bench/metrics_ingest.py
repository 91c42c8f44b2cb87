"""Metric ingestion: measurements a second into the metrics file, from being recorded to being written.

Each round fills a new file with one value a second of many series, in batches as gateway rollups and PutMetricData
bring them, and writes as its thread does; the clock runs with the measurements. One core, one process.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import frame
from eyrie.adapters.metric_file import MetricFile
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope

SERIES = 2_000
SECONDS = 60
WRITE_EVERY = 5  # seconds of measurements, as the file's own thread
GOAL = 1.0  # of 100,000 points a second
WANTED = 100_000.0
NOON_MS = 1_795_262_400_000


class Clock:
    """Time that goes with the measurements."""

    def __init__(self) -> None:
        self.at_ms = NOON_MS

    def now_ms(self) -> int:
        return self.at_ms


def points() -> list[list[Measured]]:
    """A batch a second, made beforehand: making them is their sender's work."""
    chance = random.Random(7)
    metrics = [Metric(Scope(), "Bench", "Latency", (("Host", f"h{n:05}"),)) for n in range(SERIES)]
    batches = []
    for second in range(SECONDS):
        batch = []
        for metric in metrics:
            summary = Summary()
            summary.add(chance.lognormvariate(3, 1))
            batch.append(Measured(metric, NOON_MS + 1000 * second, summary, "Milliseconds"))
        batches.append(batch)
    return batches


def ingested(batches: list[list[Measured]], folder: Path) -> float:
    """Points a second, the last of them in the file."""
    clock = Clock()
    metrics = MetricFile(folder / "metrics.db", clock)
    began = time.perf_counter()
    for second, batch in enumerate(batches):
        clock.at_ms = NOON_MS + 1000 * second
        metrics.record(batch)
        if second % WRITE_EVERY == WRITE_EVERY - 1:
            metrics.write()
    took = time.perf_counter() - began
    metrics.close()
    return SERIES * SECONDS / took


def main() -> int:
    chosen = frame.arguments(__doc__).parse_args()
    batches = points()
    rates, cpu_s = [], time.process_time()
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as folder:
            rates.append(ingested(batches, Path(folder)))
        print(f"{rates[-1]:12,.0f} points/s", flush=True)
    cpu_us = (time.process_time() - cpu_s) * 1e6 / (SERIES * SECONDS * len(rates))
    ratio = frame.Ratio.of(
        "metric ingestion against 100,000 points/s",
        rates,
        [WANTED] * len(rates),
        GOAL,
        detail=f"{statistics.median(rates):,.0f} points/s into the file, {SERIES:,} series, {cpu_us:.1f} us of CPU",
    )
    return frame.finish([ratio], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
