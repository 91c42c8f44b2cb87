"""Logs: events a second into the file, and records a second that a Logs Insights query reads and groups.

Each round makes a new file, puts batches as large as PutLogEvents may bring, then runs one query over all of it,
requests per second by instance, as control's query threads do. One core, one process, by its CPU time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import frame
from eyrie.adapters.log_file import LogFile
from eyrie.decide.query_run import Query, Record
from eyrie.domain.logs import LogGroup
from eyrie.domain.names import Scope

BATCH = 5_000
BATCHES = 20
INGESTED_WANTED, QUERIED_WANTED = 50_000.0, 20_000.0
GOAL = 1.0
NOON_MS = 1_795_262_400_000
SCOPE = Scope()
QUERY = 'filter kind = "second" | stats sum(requests) as rps by bin(1s), instance'


class Clock:
    """Time that stands."""

    def now_ms(self) -> int:
        return NOON_MS


def batches() -> list[list[tuple[int, str]]]:
    """Access records, as Eyrie's own."""
    text = (
        '{"kind": "second", "variant": "v", "instance": "i-%04d", "requests": %d, "errors5xx": 0, "modelMsAvg": 11.25}'
    )
    return [[(NOON_MS + (b * BATCH + n) * 10, text % (n % 8, n % 100)) for n in range(BATCH)] for b in range(BATCHES)]


def ingested(file: LogFile, told: list[list[tuple[int, str]]]) -> float:
    """Events a second, each batch durable against the end of the process."""
    file.put_group(LogGroup(SCOPE, "/bench", NOON_MS))
    file.create_stream(SCOPE, "/bench", "s", NOON_MS)
    began = time.process_time()
    for batch in told:
        file.append(SCOPE, "/bench", "s", batch, NOON_MS)
    return BATCH * BATCHES / (time.process_time() - began)


def queried(file: LogFile) -> float:
    """Records a second, read and grouped."""
    query = Query(QUERY)
    began = time.process_time()
    for entry in file.read(SCOPE, "/bench", "s", (0, 1 << 62), None, True):
        query.feed(Record(entry.at_ms, entry.text, entry.stream, "1:/bench", entry.ingested_ms, entry.ordinal))
    rows = query.rows()
    took = time.process_time() - began
    assert len(rows) == 8 * BATCH * BATCHES // 100, len(rows)
    return BATCH * BATCHES / took


def main() -> int:
    chosen = frame.arguments(__doc__).parse_args()
    told = batches()
    into: list[float] = []
    out: list[float] = []
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as folder:
            file = LogFile(Path(folder) / "logs.db", Clock(), 1 << 30)
            into.append(ingested(file, told))
            out.append(queried(file))
            file.close()
        print(f"{into[-1]:12,.0f} events/s in {out[-1]:12,.0f} records/s queried", flush=True)
    ratios = [
        frame.Ratio.of(
            "log events put against 50,000 a second",
            into,
            [INGESTED_WANTED] * len(into),
            GOAL,
            detail=f"{statistics.median(into):,.0f} events/s in batches of {BATCH:,}",
        ),
        frame.Ratio.of(
            "a Logs Insights query against 20,000 records a second",
            out,
            [QUERIED_WANTED] * len(out),
            GOAL,
            detail=f"{statistics.median(out):,.0f} JSON records/s filtered and grouped by second and instance",
        ),
    ]
    return frame.finish(ratios, chosen.report)


if __name__ == "__main__":
    sys.exit(main())
