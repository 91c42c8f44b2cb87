"""What a running endpoint's own record tells the wind tunnel: its traffic, and what its instances are like.

Asked of the running Eyrie by the public API; starts are read from the endpoint's story.
"""

from __future__ import annotations

import math
import re
import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

from eyrie.adapters.instance_types import load_instance_types
from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.errors import CommandError
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.sim.profile import InstanceProfile
from eyrie.sim.traffic import Traffic, TrafficError, from_counts

NAMESPACE = "AWS/SageMaker"
HOURS_MAX = 15 * 24  # one-minute metrics are kept so long
PROFILE_HOURS = 24.0
TOLD_WITHIN_S = 3.0  # of the end of a second, its requests are in the metrics
Z90 = 1.2815515655446004  # of the normal distribution
_STARTED = re.compile(r"answered (\d+) ms after it was asked for")


class RecordedEndpoint:
    """One variant of a running endpoint."""

    def __init__(self, data: Path, endpoint: str, variant: str | None) -> None:
        running, key = datadir.running_env(data), datadir.credential(data)
        self._data, self._endpoint, self._region = data, endpoint, str(running["region"])
        self._clock = datadir.clock_of(data)
        session = botocore.session.Session()
        self._clients: dict[str, Any] = {
            service: session.create_client(
                service,
                region_name=self._region,
                endpoint_url=str(running["endpoint"]),
                aws_access_key_id=key.access_key_id,
                aws_secret_access_key=key.secret_access_key,
            )
            for service in ("sagemaker", "cloudwatch")
        }
        described = self._ask("sagemaker", "describe_endpoint", EndpointName=endpoint)
        names = [v["VariantName"] for v in described["ProductionVariants"]]
        if variant is not None and variant not in names:
            raise CommandError(f"endpoint {endpoint} has no variant {variant!r}: it has {', '.join(names)}", code=2)
        self._variant = variant or names[0]
        self._config = described["EndpointConfigName"]

    def recorded(self, hours: float) -> Traffic:
        """Its requests of the last hours, by the minute (the last three by the second). Raises CommandError."""
        if not 0 < hours <= HOURS_MAX:
            raise CommandError(f"recorded: at most {HOURS_MAX} hours are kept minute by minute, not {hours:g}", code=2)
        period_s = 1 if hours <= 3 else 60
        points = sorted(self._series("Invocations", "Sum", period_s, hours).items())
        if len(points) > 1 and points[-1][0] + period_s > self._clock.now_ms() / 1000 - TOLD_WITHIN_S:
            points.pop()  # that period is not over, or not yet told by every worker: it would look like silence
        try:
            return from_counts(f"{self._endpoint}, last {hours:g} h", points, period_s)
        except TrafficError:
            raise CommandError(f"nothing was recorded of {self._endpoint} in the last {hours:g} hours") from None

    def profile(self) -> InstanceProfile:
        """What its instances are like, as far as the record shows; the rest is as InstanceProfile has it."""
        base = InstanceProfile()
        config = self._ask("sagemaker", "describe_endpoint_config", EndpointConfigName=self._config)
        variants: list[dict[str, Any]] = config["ProductionVariants"]
        variant = next((v for v in variants if v["VariantName"] == self._variant), {})
        kind = str(variant.get("InstanceType", base.instance_type))
        middles = self._series("ModelLatency", "p50", 60, PROFILE_HOURS)
        highs = self._series("ModelLatency", "p90", 60, PROFILE_HOURS)
        service_ms, spread = base.service_ms, base.service_spread
        if middles:
            service_ms = max(statistics.median(middles.values()) / 1000, 0.001)
            ratios = [highs[at] / middle for at, middle in middles.items() if middle > 0 and highs.get(at, 0) >= middle]
            spread = min(_spread(statistics.median(ratios)), 3.0) if ratios else spread
        starts = self._starts()
        return InstanceProfile(
            service_ms=service_ms,
            service_spread=spread,
            slots=self._slots(kind),
            startup_s=statistics.median(starts) if starts else base.startup_s,
            instance_type=kind,
        )

    def errors(self) -> float:
        """The share of its requests of the last day that were answered with an error."""
        asked = sum(self._series("Invocations", "Sum", 3_600, PROFILE_HOURS).values())
        names = ("Invocation4XXErrors", "Invocation5XXErrors")
        failed = sum(sum(self._series(name, "Sum", 3_600, PROFILE_HOURS).values()) for name in names)
        return min(1.0, failed / asked) if asked else 0.0

    def _slots(self, kind: str) -> int:
        try:
            return load_instance_types(self._data).get(kind).vcpu
        except UnknownInstanceType:
            return InstanceProfile().slots

    def _starts(self) -> list[float]:
        """Seconds that its instances took to start."""
        events = ControlClient(self._data, self._region).story(self._endpoint)
        found = (_STARTED.search(str(event.get("why", ""))) for event in events)
        return [int(match[1]) / 1000 for match in found if match]

    def _series(self, name: str, stat: str, period_s: int, hours: float) -> dict[float, float]:
        """Values of a metric by the second (since the epoch) at which each period began."""
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)  # as the running Eyrie has it
        end = now.replace(microsecond=0) + timedelta(seconds=1)
        dimensions = [
            {"Name": "EndpointName", "Value": self._endpoint},
            {"Name": "VariantName", "Value": self._variant},
        ]
        metric = {"Namespace": NAMESPACE, "MetricName": name, "Dimensions": dimensions}
        query = {"Id": "m", "MetricStat": {"Metric": metric, "Stat": stat, "Period": period_s}}
        asked: dict[str, Any] = {
            "MetricDataQueries": [query],
            "StartTime": end - timedelta(hours=hours),
            "EndTime": end,
        }
        found: dict[float, float] = {}
        while True:
            reply = self._ask("cloudwatch", "get_metric_data", **asked)
            for result in reply["MetricDataResults"]:
                pairs = zip(result["Timestamps"], result["Values"], strict=True)
                found.update({at.timestamp(): float(value) for at, value in pairs})
            if not reply.get("NextToken"):
                return found
            asked["NextToken"] = reply["NextToken"]

    def _ask(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = getattr(self._clients[service], operation)(**params)
        except (ClientError, BotoCoreError) as error:
            raise CommandError(f"{operation}: {error}") from None
        return reply


def _spread(ratio: float) -> float:
    """The spread of a lognormal whose p90 is so many times its p50."""
    sigma = math.log(max(ratio, 1.0)) / Z90
    return math.sqrt(math.expm1(sigma * sigma))
