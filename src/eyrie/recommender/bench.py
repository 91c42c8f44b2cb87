"""One candidate under load: users as the pattern says, from the processes of `eyrie load`, until the test has shown
enough. What clients see is put as metrics of the job while it goes on; what instances used is asked of the API.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from eyrie.adapters.clock import SystemClock
from eyrie.decide.load import quantile
from eyrie.decide.recommendation import enough, stretches, whole_seconds
from eyrie.domain.load import Second
from eyrie.domain.metrics import merged, middle_of
from eyrie.domain.recommendation import Order, Pattern, Stretch
from eyrie.load.gathering import Gathering
from eyrie.load.plan import Plan, Target
from eyrie.recommender.api import Api, Refused

log = logging.getLogger("eyrie.recommender")

NAMESPACE = "/aws/sagemaker/InferenceRecommendationsJobs"
PROCESS_USERS = 64
TIMEOUT_S = 60.0
LOOK_S = 0.25
TOLD_AFTER_S = 1.5  # a second is whole by then: its processes tell four times a second
TELL_EVERY_S = 2.0
ENDED_WITHIN_S = 15.0
VALUES_MAX = 150  # of a metric's datum
PAYLOADS_TRIED = 10
OWN_CPU_FULL = 0.9
METRICS_WITHIN_S = 5.0  # all that was answered is in the metrics by then
METRICS_SHARE = 0.9
METRICS_LOOK_S = 0.3


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load came to."""

    seen: tuple[Stretch, ...]
    why: str  # it ended
    began_ms: int
    ended_ms: int
    own_cpu: float  # the highest share of a core that a process of the load used


@dataclass(frozen=True, slots=True)
class Used:
    """What a variant used and took, told by its metrics."""

    latency_ms: float | None
    cpu_percent: float | None
    memory_percent: float | None


class Bench:
    """Loads the endpoints of one job."""

    def __init__(self, api: Api, order: Order, job: str, bodies: Sequence[bytes], time_scale: float) -> None:
        self._api, self._order, self._job, self._bodies = api, order, job, bodies
        self._clock, self._scale = SystemClock(time_scale), time_scale

    def try_payloads(self, endpoint: str) -> None:
        """A request each with the first bodies. Raises Refused with the model's words, Away, Stopped."""
        accept = {"Accept": self._order.accept} if self._order.accept else {}
        for body in self._bodies[:PAYLOADS_TRIED]:
            given = {"ContentType": self._order.content_type, "Body": body, **accept}
            self._api.ask("sagemaker-runtime", "invoke_endpoint", EndpointName=endpoint, **given)

    def load(self, endpoint: str, pattern: Pattern) -> Loaded:
        """Users as the pattern says. Raises ProcessDied, Stopped, Away."""
        plans = self._plans(endpoint, pattern)
        parts = stretches(pattern)
        gathering = Gathering(plans)
        begin_s = gathering.begin_s
        began_ms = self._clock.now_ms() + int((begin_s - time.monotonic()) * 1000 * self._scale)
        told = Telling(self._api, self._job, endpoint, pattern, began_ms, self._scale)
        why, over, now_s = "all of its traffic was sent", False, 0.0
        try:
            while not over:
                over = gathering.until_over(LOOK_S, begin_s + pattern.seconds + TIMEOUT_S + ENDED_WITHIN_S)
                self._api.pause(0)
                now_s, seconds = time.monotonic() - begin_s, gathering.look()
                told.tell(seconds, now_s)
                if reason := enough(self._seen(parts, seconds, now_s), self._order.stopping):
                    why = reason
                    break
        finally:
            gathering.stop()
        seconds = gathering.look()  # its processes have told everything
        ended_s = pattern.seconds if over else now_s
        told.tell(seconds, ended_s + TOLD_AFTER_S, last=True)
        seen = self._seen(parts, seconds, ended_s + TOLD_AFTER_S)
        busiest = max((max(shares, default=0.0) for shares in gathering.cpu.values()), default=0.0)
        return Loaded(tuple(seen), why, began_ms, self._clock.now_ms(), busiest)

    def used(self, endpoint: str, variant: str, loaded: Loaded, best: Stretch) -> Used:
        """What the API's metrics tell of the best stretch, once they are there. Raises Away, Stopped, Refused."""
        first, last = (loaded.began_ms + int(at * 1000 * self._scale) for at in (best.begin_s, best.end_s))
        wanted = {
            "latency": ("AWS/SageMaker", "ModelLatency", f"p{self._order.stopping.percentile:g}"),
            "calls": ("AWS/SageMaker", "ModelLatency", "SampleCount"),
            "cpu": ("/aws/sagemaker/Endpoints", "CPUUtilization", "Average"),
            "memory": ("/aws/sagemaker/Endpoints", "MemoryUtilization", "Maximum"),
        }
        expected = METRICS_SHARE * best.rps * (best.end_s - best.begin_s)
        until = time.monotonic() + METRICS_WITHIN_S
        while True:
            found = self._metrics(endpoint, variant, wanted, first, last)
            calls = found["calls"]
            if sum(calls.values()) >= expected or time.monotonic() > until:
                break
            self._api.pause(METRICS_LOOK_S)
        latency_us = _mean([(value, calls.get(at, 0.0)) for at, value in found["latency"].items()])
        return Used(
            None if latency_us is None else latency_us / 1000,
            _mean([(value, 1.0) for value in found["cpu"].values()]),
            max(found["memory"].values(), default=None),
        )

    def _metrics(
        self, endpoint: str, variant: str, wanted: Mapping[str, tuple[str, str, str]], first_ms: int, last_ms: int
    ) -> dict[str, dict[datetime, float]]:
        """Values by time of each wanted (namespace, metric, statistic)."""
        dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
        queries = [
            {
                "Id": name,
                "MetricStat": {
                    "Metric": {"Namespace": namespace, "MetricName": metric, "Dimensions": dimensions},
                    "Period": 1,
                    "Stat": statistic,
                },
            }
            for name, (namespace, metric, statistic) in wanted.items()
        ]
        told = self._api.ask(
            "cloudwatch",
            "get_metric_data",
            MetricDataQueries=queries,
            StartTime=datetime.fromtimestamp(first_ms / 1000, UTC),
            EndTime=datetime.fromtimestamp(last_ms / 1000, UTC),
        )
        rows = {row["Id"]: row for row in told["MetricDataResults"]}
        return {name: dict(zip(rows[name]["Timestamps"], rows[name]["Values"], strict=True)) for name in wanted}

    def _seen(
        self, parts: Sequence[tuple[float, float, int]], seconds: Mapping[int, Second], now_s: float
    ) -> list[Stretch]:
        """The stretches that are over."""
        percentile = self._order.stopping.percentile / 100
        found = []
        for begin_s, end_s, users in parts:
            within = [seconds.get(at, Second()) for at in whole_seconds(begin_s, end_s)]
            if now_s < end_s + TOLD_AFTER_S or not within:
                continue
            good = sum(second.answered for second in within)
            failed = sum(sum(second.errors.values()) for second in within)
            latency_us = quantile(merged(second.service for second in within), percentile)
            share = failed / max(1, failed + good)
            latency_ms = None if latency_us is None else latency_us / 1000
            found.append(Stretch(users, begin_s, end_s, good / len(within), share, latency_ms))
        return found

    # -------------------------------------------------------------------------------------------------------- plans
    def _plans(self, endpoint: str, pattern: Pattern) -> list[Plan]:
        """A plan a process of the load."""
        most = max(level.users for level in pattern.levels)
        count = max(1, min(-(-most // PROCESS_USERS), os.cpu_count() or 1))
        target = self._target(endpoint)
        return [
            Plan(
                target=target,
                bodies=list(self._bodies),
                models=[],
                share=share,
                shares=count,
                stages=[],
                poisson=False,
                seed=1,
                users=0,
                think_s=0.0,
                seconds=pattern.seconds,
                connections=_part(most, share, count),
                waiting_max=0,
                timeout_s=TIMEOUT_S,
                levels=[(level.at_s, _part(level.users, share, count)) for level in pattern.levels],
            )
            for share in range(count)
        ]

    def _target(self, endpoint: str) -> Target:
        address = urlsplit(self._api.url)
        tls = address.scheme == "https"
        headers = [("Content-Type", self._order.content_type)]
        if self._order.accept:
            headers.append(("Accept", self._order.accept))
        return Target(
            host=address.hostname or "127.0.0.1",
            port=address.port or (443 if tls else 80),
            tls=tls,
            path=f"{address.path}/endpoints/{quote(endpoint, safe='')}/invocations",
            headers=headers,
            access_key_id=self._api.key.access_key_id,
            secret=self._api.key.secret_access_key,
            token=self._api.key.session_token,
            region=self._api.scope.region,
        )


class Telling:
    """Puts what clients see as metrics of the job, each second once."""

    def __init__(self, api: Api, job: str, endpoint: str, pattern: Pattern, began_ms: int, scale: float) -> None:
        self._api, self._pattern, self._began_ms, self._scale = api, pattern, began_ms, scale
        self._dimensions = [{"Name": "JobName", "Value": job}, {"Name": "EndpointName", "Value": endpoint}]
        self._next, self._told_s = 0, 0.0

    def tell(self, seconds: Mapping[int, Second], now_s: float, last: bool = False) -> None:
        """Put the seconds that are whole; what cannot be put is told in the log only. Raises Away, Stopped."""
        if not last and now_s < self._told_s + TELL_EVERY_S:
            return
        self._told_s = now_s
        whole = range(self._next, max(self._next, int(now_s - TOLD_AFTER_S)))
        data = [datum for at in whole if at in seconds for datum in self._data(at, seconds[at])]
        self._next = whole.stop
        try:
            if data:
                self._api.ask("cloudwatch", "put_metric_data", Namespace=NAMESPACE, MetricData=data)
        except Refused as error:
            log.warning("what clients saw cannot be put as metrics: %s", error)

    def _data(self, at: int, second: Second) -> Iterator[dict[str, Any]]:
        moment = datetime.fromtimestamp((self._began_ms + at * 1000 * self._scale) / 1000, UTC)
        given = {"Dimensions": self._dimensions, "Timestamp": moment, "StorageResolution": 1}
        users = next((level.users for level in reversed(self._pattern.levels) if level.at_s <= at), 0)
        yield {**given, "MetricName": "NumberOfUsers", "Value": float(users), "Unit": "Count"}
        yield {**given, "MetricName": "ClientInvocations", "Value": float(second.sent), "Unit": "Count"}
        failed = float(sum(second.errors.values()))
        yield {**given, "MetricName": "ClientInvocationErrors", "Value": failed, "Unit": "Count"}
        buckets = sorted(second.service.buckets.items())
        for n in range(0, len(buckets), VALUES_MAX):
            some = buckets[n : n + VALUES_MAX]
            values = {"Values": [middle_of(b) / 1000 for b, _ in some], "Counts": [times for _, times in some]}
            yield {**given, "MetricName": "ClientLatency", **values, "Unit": "Milliseconds"}


def _part(whole: int, share: int, shares: int) -> int:
    return whole // shares + (share < whole % shares)


def _mean(weighed: Sequence[tuple[float, float]]) -> float | None:
    """The mean of values with weights; None of none."""
    whole = sum(weight for _, weight in weighed)
    return sum(value * weight for value, weight in weighed) / whole if whole else None
