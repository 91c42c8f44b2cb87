"""What the tables of `eyrie endpoints` and `eyrie top` show of each endpoint, asked of the public API.

DescribeEndpoint tells variants and counts, CloudWatch requests, latencies and errors, Application Auto Scaling the
bounds; where instances stand, by zone, is control's own to tell, so that column is empty for an Eyrie elsewhere.

Metrics are stamped by Eyrie's clock of decisions, which EYRIE_TIME_SCALE speeds up: they are asked for by that clock,
over as much of it as passes in the window; rates are of real seconds, as a client sees them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public
from eyrie.domain.described import percents, portions

NAMESPACE = "AWS/SageMaker"
USE = "/aws/sagemaker/Endpoints"
SUMS = {"requests": "Invocations", "errors4": "Invocation4XXErrors", "errors5": "Invocation5XXErrors"}
LATENCIES = {"p50": "p50", "p99": "p99"}
QUERIES_MAX = 400  # of one GetMetricData
US_A_MS = 1000.0
MINUTE = timedelta(minutes=1)
BY_SECONDS_MAX_S = 600.0  # a longer window is asked for in minutes


@dataclass(slots=True)
class Variant:
    """One variant as it stands."""

    name: str
    weight: float
    current: int
    desired: int
    scaling: str = ""
    fleet: str = ""  # "old" or "new" while a deployment is on its way
    traffic_percent: float = 0.0  # of the endpoint's: those of all variants and fleets sum to 100
    cpu_percent: float | None = None  # 100 a core
    memory_percent: float | None = None


@dataclass(slots=True)
class Row:
    """One endpoint: latencies in milliseconds are its model's; None is unknown, or nothing measured."""

    name: str
    status: str
    config: str
    variants: list[Variant] = field(default_factory=list)
    zones: dict[str, int] | None = None
    rps: float = 0.0
    errors4_a_second: float = 0.0
    errors5_a_second: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    failure: str = ""

    def document(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


class Watch:
    """Asks one Eyrie for its endpoints, again and again."""

    def __init__(self, public: Public, window_s: int, use: bool = False) -> None:
        self._public, self._window_s, self._use = public, window_s, use
        where = public.where
        self._clock, self._scale = datadir.clock_of(where.data), datadir.time_scale(where.data)
        self._control = ControlClient(where.data, where.region, timeout_s=3.0) if where.data is not None else None

    def rows(self, only: str | None = None) -> list[Row]:
        """Every endpoint by name, or one. Raises CommandError where nothing answers, or there is none of the name."""
        if only is None:
            names = [str(e["EndpointName"]) for e in self._public.pages("sagemaker", "list_endpoints", "Endpoints")]
        else:
            names = [only]
        described = [(name, self._public.endpoint(name)) for name in sorted(names)]
        rows = [_row(name, found) for name, found in described if found is not None]
        if only is not None and not rows:
            raise CommandError(f"there is no endpoint {only!r}")
        self._measure(rows)
        self._scaling(rows)
        self._place(rows)
        return rows

    def _measure(self, rows: Sequence[Row]) -> None:
        """Requests and errors of the window's whole seconds; latencies of the last minute that has any."""
        now = datetime.fromtimestamp(self._clock.now_ms() // 1000, UTC)
        window = timedelta(seconds=self._window_s * self._scale)
        start, end, period = _counted(now, window)
        by_name = {row.name: row for row in rows}
        sums = [(row.name, key, metric, "Sum", period) for row in rows for key, metric in SUMS.items()]
        for (name, key), values in self._values(sums, start, end).items():
            rate = sum(values) / self._window_s
            field_name = {"requests": "rps", "errors4": "errors4_a_second", "errors5": "errors5_a_second"}[key]
            setattr(by_name[name], field_name, rate)
        latencies = [(row.name, key, "ModelLatency", stat, 60) for row in rows for key, stat in LATENCIES.items()]
        since = now.replace(second=0) - max(window, MINUTE)
        for (name, key), values in self._values(latencies, since, now + timedelta(seconds=1)).items():
            setattr(by_name[name], f"{key}_ms", values[-1] / US_A_MS if values else None)
        if self._use:
            self._usage(rows, now, window)

    def _usage(self, rows: Sequence[Row], now: datetime, window: timedelta) -> None:
        """CPU and memory of each variant, of the last minute that has any."""
        metrics = {"cpu_percent": "CPUUtilization", "memory_percent": "MemoryUtilization"}
        known: dict[str, list[Variant]] = {}  # both fleets of a variant have its name, and its metrics together
        for row in rows:
            for variant in row.variants:
                known.setdefault(f"{row.name}/{variant.name}", []).append(variant)
        asked = [(name, key, metric, "Average", 60) for name in known for key, metric in metrics.items()]
        since = now.replace(second=0) - max(window, MINUTE)
        for (name, key), values in self._values(asked, since, now + timedelta(seconds=1), USE).items():
            for variant in known[name]:
                setattr(variant, key, values[-1] if values else None)

    def _values(
        self,
        asked: Sequence[tuple[str, str, str, str, int]],
        start: datetime,
        end: datetime,
        namespace: str = NAMESPACE,
    ) -> dict[tuple[str, str], list[float]]:
        """Values in the order of time of each (endpoint[/variant], key, metric, statistic, period)."""
        found: dict[tuple[str, str], list[float]] = {(name, key): [] for name, key, *_ in asked}
        for first in range(0, len(asked), QUERIES_MAX):
            part = asked[first : first + QUERIES_MAX]
            queries = [
                _query(f"q{n}", name, metric, stat, period, namespace)
                for n, (name, _, metric, stat, period) in enumerate(part)
            ]
            results = self._public.pages(
                "cloudwatch",
                "get_metric_data",
                "MetricDataResults",
                MetricDataQueries=queries,
                StartTime=start,
                EndTime=end,
                ScanBy="TimestampAscending",
            )
            for result in results:
                name, key, *_ = part[int(result["Id"][1:])]
                found[name, key] += [float(value) for value in result["Values"]]
        return found

    def _scaling(self, rows: Sequence[Row]) -> None:
        """Bounds of each variant that scales."""
        bounds: dict[str, str] = {}
        targets = self._public.pages(
            "application-autoscaling", "describe_scalable_targets", "ScalableTargets", ServiceNamespace="sagemaker"
        )
        for target in targets:
            bounds[str(target["ResourceId"])] = f"{target['MinCapacity']}-{target['MaxCapacity']}"
        for row in rows:
            for variant in row.variants:
                variant.scaling = bounds.get(f"endpoint/{row.name}/variant/{variant.name}", "")

    def _place(self, rows: Iterable[Row]) -> None:
        """READY instances by zone, where control is this machine's and answers."""
        if self._control is None:
            return
        try:
            told = self._control.status()
        except CommandError:
            return
        zones: Mapping[str, Counter[str]] = defaultdict(Counter)
        region = self._public.where.region
        for endpoint in told.get("endpoints", []):
            if endpoint["region"] == region:
                for instance in endpoint.get("instances", []):
                    zones[str(endpoint["name"])][str(instance["zone"])] += instance["state"] == "READY"
        for row in rows:
            row.zones = dict(sorted(zones[row.name].items()))


def _counted(now: datetime, window: timedelta) -> tuple[datetime, datetime, int]:
    """From when to when, and by how many seconds, requests are counted: as long as the window, and before now."""
    if window.total_seconds() <= BY_SECONDS_MAX_S:
        return now - window, now, 1
    end = now.replace(second=0)
    minutes = round(window / MINUTE)
    return end - minutes * MINUTE, end, 60


def _row(name: str, found: Mapping[str, Any]) -> Row:
    shown = portions(found)
    variants = [
        Variant(
            portion.variant,
            float(portion.told.get("CurrentWeight", 0.0)),
            int(portion.told.get("CurrentInstanceCount", 0)),
            int(portion.told.get("DesiredInstanceCount", 0)),
            fleet=portion.fleet,
            traffic_percent=percent,
        )
        for portion, percent in zip(shown, percents([portion.share for portion in shown]), strict=True)
    ]
    failure = " ".join(str(found.get("FailureReason", "")).split())
    return Row(name, str(found["EndpointStatus"]), str(found.get("EndpointConfigName", "")), variants, failure=failure)


def _query(id: str, name: str, metric: str, stat: str, period: int, namespace: str) -> dict[str, Any]:
    endpoint, _, variant = name.partition("/")
    dimensions = [{"Name": "EndpointName", "Value": endpoint}]
    if variant:
        dimensions.append({"Name": "VariantName", "Value": variant})
    named = {"Namespace": namespace, "MetricName": metric, "Dimensions": dimensions}
    return {"Id": id, "MetricStat": {"Metric": named, "Stat": stat, "Period": period}}
