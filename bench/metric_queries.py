"""GetMetricData of 100 series over a day at 300 s: how long the server takes, from the request's bytes to the reply's.

The file holds a day of a value a minute of each series (and 1,900 others), its coarser rows made as time went by. A
request is decoded, answered and encoded as control does for boto3 (CBOR), with Average and p99 in turn; one core.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import frame
from eyrie.adapters.metric_file import MetricFile
from eyrie.control.api_metrics import get_metric_data
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope
from eyrie.wire import cbor
from eyrie.wire.codec import Wire
from eyrie.wire.messages import HttpRequest
from eyrie.wire.model import Models

SERIES, OTHERS = 100, 1_900
DAY_S, STEP_S, PERIOD_S = 86_400, 60, 300
GOAL_MS = 200.0
MIDNIGHT_MS = 1_795_219_200_000


class Clock:
    """Time that goes with the measurements."""

    def __init__(self) -> None:
        self.at_ms = MIDNIGHT_MS

    def now_ms(self) -> int:
        return self.at_ms


def metric(number: int) -> Metric:
    return Metric(Scope(), "AWS/SageMaker", "ModelLatency", (("EndpointName", f"e{number:04}"), ("VariantName", "v")))


def filled(folder: Path) -> tuple[MetricFile, Clock]:
    """A day of measurements; the others have had one value an hour."""
    chance, clock = random.Random(7), Clock()
    metrics = MetricFile(folder / "metrics.db", clock)
    wanted, others = [metric(n) for n in range(SERIES)], [metric(n) for n in range(SERIES, SERIES + OTHERS)]
    for second in range(0, DAY_S, STEP_S):
        clock.at_ms = MIDNIGHT_MS + second * 1000
        batch = []
        for one in wanted if second % 3600 else wanted + others:
            summary = Summary()
            for _ in range(3):
                summary.add(chance.lognormvariate(8, 1))
            batch.append(Measured(one, clock.at_ms, summary, "Microseconds"))
        metrics.record(batch)
        if second % 300 == 0:
            metrics.write()
    clock.at_ms = MIDNIGHT_MS + DAY_S * 1000
    metrics.write()
    return metrics, clock


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def request(stat: str) -> HttpRequest:
    """As boto3 sends it."""
    queries = [
        {
            "Id": f"m{n}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/SageMaker",
                    "MetricName": "ModelLatency",
                    "Dimensions": [{"Name": name, "Value": value} for name, value in metric(n).dimensions],
                },
                "Period": PERIOD_S,
                "Stat": stat,
            },
        }
        for n in range(SERIES)
    ]
    start = MIDNIGHT_MS // 1000
    body = {"MetricDataQueries": queries, "StartTime": moment(start), "EndTime": moment(start + DAY_S)}
    headers = {"smithy-protocol": "rpc-v2-cbor", "content-type": "application/cbor"}
    path = "/service/GraniteServiceVersion20100801/operation/GetMetricData"
    return HttpRequest("POST", path, "", headers, cbor.dumps(body))


def answered_ms(wire: Wire, context: Any, asked: HttpRequest) -> float:
    """Milliseconds of one request."""
    began = time.perf_counter()
    call = wire.decode(asked, "bench")
    result = get_metric_data(context, call.params)
    reply = wire.encode(call, result)
    took_ms = (time.perf_counter() - began) * 1000
    points = sum(len(one["Values"]) for one in result["MetricDataResults"])
    if points != SERIES * DAY_S // PERIOD_S or len(reply.body) < points:
        raise SystemExit(f"{points} points came back")
    return took_ms


def main() -> int:
    chosen = frame.arguments(__doc__, rounds=5).parse_args()
    wire = Wire(Models(), lambda: "bench", body_bytes_max=4 << 20)
    ratios = []
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as folder:
        metrics, clock = filled(Path(folder))
        context = cast(Any, SimpleNamespace(metrics=metrics, scope=Scope(), now_ms=clock.now_ms()))
        for stat in ("Average", "p99"):
            asked = request(stat)
            answered_ms(wire, context, asked)  # the model of the service is read once
            cpu_s = time.process_time()
            took = [answered_ms(wire, context, asked) for _ in range(chosen.rounds)]
            cpu_ms = (time.process_time() - cpu_s) * 1000 / len(took)
            ratios.append(
                frame.Ratio.of(
                    f"GetMetricData ({stat}) of 100 series over a day at 300 s against 200 ms",
                    took,
                    [GOAL_MS] * len(took),
                    1.0,
                    at_most=True,
                    detail=f"{statistics.median(took):.0f} ms at the server, {cpu_ms:.0f} ms of CPU",
                )
            )
        metrics.close()
    return frame.finish(ratios, chosen.report)


if __name__ == "__main__":
    sys.exit(main())
