"""The other sections of an endpoint's page: deployment, scaling, logs, a request by hand, the story."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from eyrie.console import charts, endpoint_actions, endpoint_live, endpoint_views, measures
from eyrie.console.charts import Series
from eyrie.console.client import Client, Trouble
from eyrie.console.endpoint_live import SPANS, Choice
from eyrie.console.frame import Chart, Frame, Live, button, field
from eyrie.console.markup import note, tag

LINES_MAX = 400
CONTENT_TYPES = ("text/csv", "application/json", "application/jsonlines", "text/libsvm", "text/plain")
EXAMPLE_BODY = "5.1,3.5,1.4,0.2"
_LOG_SPANS = (("15 min", 15.0), ("1 h", 60.0), ("1 day", 1440.0), ("all", 20_160.0))
_REPLY_CHARS_MAX = 20_000


class Deployment:
    """The deployment as a timeline, and the split as it shifts."""

    every_s = 1.5

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Traffic now"), sanitize=False)
            self._split = Live(note("Loading …"))
        self._chart = Chart(frame, "Invocations", "per second, by variant")
        with ui.element("section").classes("card"):
            self._steps = Live(note("Loading …"))
            self._promote = ui.element("div").classes("buttons")
            with self._promote:
                endpoint_actions.Promote(frame, name)
            self._promote.set_visibility(False)

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name = self._frame.client, self._name
        described, story = await self._frame.ask(lambda: (client.endpoint(name), client.story(name)))
        self._split.show(endpoint_views.split(described))
        self._steps.show(endpoint_views.deployment(described, story, time.time() * 1000))
        self._promote.set_visibility("PendingDeploymentSummary" in described)
        span, variants = measures.span_of(10, time.time() * 1000), endpoint_live.names_of(described)
        wanted = [measures.invoked("Invocations", "Sum", name, variant, per_second=True) for variant in variants]
        points = await self._frame.ask(lambda: client.measured(wanted, span))
        series = [Series(v, found, kind="bar", stack="all") for v, found in zip(variants, points, strict=True)]
        self._chart.show(series, span, "No request came in the last 10 minutes.", marks=endpoint_live.marks_of(story))


class Scaling:
    """Each policy drawn over its metric, and what it did."""

    every_s = 3.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        self._minutes = 60.0
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Policies"), sanitize=False)
            self._policies = Live(note("Loading …"))
        Choice("Time shown", SPANS, self._minutes, self._choose)
        self._place = ui.element("div").classes("grid")
        with self._place:
            self._counts = Chart(frame, "Instances", "ready, by variant")
        self._drawn: dict[str, Chart] = {}
        with ui.element("section").classes("card").style("margin-top: 16px"):
            ui.html(tag("h2", "What it did"), sanitize=False)
            self._activities = Live(note("Loading …"))

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name = self._frame.client, self._name
        now_ms = time.time() * 1000
        described = await self._frame.ask(lambda: client.endpoint(name))
        variants = endpoint_live.names_of(described)
        span = measures.span_of(self._minutes, now_ms)
        counted = [ready_of(name, variant, span) for variant in variants]
        (policies, activities), alarms, points = await asyncio.gather(
            self._frame.ask(lambda: scaling_of(client, name, variants)),
            self._frame.ask(client.alarms),
            self._frame.ask(lambda: client.measured(counted, span)),
        )
        self._policies.show(endpoint_views.policies(policies))
        self._activities.show(endpoint_views.activities(activities, now_ms))
        self._counts.show(
            [Series(v, present(found), kind="step") for v, found in zip(variants, points, strict=True)], span
        )
        await self._draw(followed(policies, alarms), span)

    async def _draw(self, found: Sequence[Followed], span: charts.Span) -> None:
        """Each policy's metric with its target."""
        client = self._frame.client
        points = await self._frame.ask(lambda: client.measured([one.measure for one in found], span))
        for one, seen in zip(found, points, strict=True):
            name = str(one.policy["PolicyName"])
            if name not in self._drawn:
                with self._place:
                    self._drawn[name] = Chart(self._frame, name, endpoint_views.policy_in_words(one.policy))
            series = [Series(one.measure.name, seen)]
            if one.target is not None:
                series.append(charts.level("target", one.target, span))
            self._drawn[name].show(series, span, "Its metric has no values in this time.")


def ready_of(name: str, variant: str, span: charts.Span) -> measures.Said:
    """A search for all instances of a variant: each has a CPU as long as it lives."""
    where = f'EndpointName="{name}" VariantName="{variant}"'
    what = '{/aws/sagemaker/Endpoints,EndpointName,InstanceId,VariantName} MetricName="CPUUtilization"'
    return measures.Said(f"SEARCH('{what} {where}', 'SampleCount', {int(span.period_ms // 1000)})")


def present(points: charts.Points) -> charts.Points:
    """How many series had a value at each moment, from one row a series and moment."""
    counts: dict[float, float] = {}
    for ms, _ in points:
        counts[ms] = counts.get(ms, 0.0) + 1.0
    return sorted(counts.items())


def scaling_of(client: Client, name: str, variants: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The policies and the newest activities of an endpoint's variants. Raises Trouble."""
    policies: list[dict[str, Any]] = []
    activities: list[dict[str, Any]] = []
    for variant in variants:
        which: dict[str, Any] = {"ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{name}/variant/{variant}"}
        policies += client.every("application-autoscaling", "describe_scaling_policies", "ScalingPolicies", **which)
        activities += client.call("application-autoscaling", "describe_scaling_activities", MaxResults=30, **which)[
            "ScalingActivities"
        ]
    return policies, sorted(activities, key=lambda one: one["StartTime"], reverse=True)


@dataclass(frozen=True, slots=True)
class Followed:
    """A policy with the metric that it follows, and where it wants it."""

    policy: Mapping[str, Any]
    measure: measures.Measure
    target: float | None


def followed(policies: Sequence[Mapping[str, Any]], alarms: Sequence[Mapping[str, Any]]) -> list[Followed]:
    """The policies whose metric is known, in the words of the alarm that each keeps."""
    by_name = {alarm["AlarmName"]: alarm for alarm in alarms if "MetricName" in alarm}
    found = []
    for policy in policies:
        alarm = next((by_name[a["AlarmName"]] for a in policy.get("Alarms", ()) if a["AlarmName"] in by_name), None)
        if alarm is None:
            continue
        target = policy.get("TargetTrackingScalingPolicyConfiguration", {}).get("TargetValue")
        stat = str(alarm.get("Statistic") or alarm.get("ExtendedStatistic") or "Average")
        dimensions = tuple((d["Name"], d["Value"]) for d in alarm.get("Dimensions", ()))
        measure = measures.Measure(alarm["Namespace"], alarm["MetricName"], stat, dimensions)
        found.append(Followed(policy, measure, target if target is not None else alarm.get("Threshold")))
    return found


class Logs:
    """What instances said, with a search."""

    every_s = 3.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        self._minutes = 60.0
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "What instances said"), sanitize=False)
            with ui.element("div").classes("inputs"):
                self._pattern = field(
                    'Search: words, "a phrase", -without, %a.*regex%, { $.level = "ERR*" }', classes="grow"
                )
                self._pattern.on("keydown.enter", self.refresh)
                button("Search", self.refresh, "main")
            ui.element("div").style("height: 10px")
            Choice("Time searched", _LOG_SPANS, self._minutes, self._choose)
            self._lines = Live(note("Loading …"))

    async def _choose(self, minutes: float) -> None:
        self._minutes = minutes
        await self.refresh()

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, pattern = self._frame.client, str(self._pattern.value or "").strip()
        group, since_ms = f"/aws/sagemaker/Endpoints/{self._name}", int(time.time() * 1000 - self._minutes * 60_000)
        try:
            events = await self._frame.ask(lambda: client.newest_lines(group, LINES_MAX, pattern, since_ms))
        except Trouble as trouble:
            if trouble.code not in ("InvalidParameterException", "ResourceNotFoundException"):
                raise
            self._lines.show(note(str(trouble), "error"))
            return
        empty = "No line matches in this time." if pattern else "Instances have said nothing in this time."
        self._lines.show(endpoint_views.log_lines(events, pattern, empty))


class Invoke:
    """A request by hand: the reply and its time."""

    every_s = 5.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        with ui.element("div").classes("grid"):
            with ui.element("section").classes("card"):
                ui.html(tag("h2", "Request"), sanitize=False)
                with ui.element("div").classes("inputs"):
                    self._kind = field("Content type", "text/csv", options=CONTENT_TYPES, classes="grow")
                    self._variant = field("Variant (empty: by weight)", classes="grow")
                self._body = field("Body", EXAMPLE_BODY, lines=8, classes="coded")
                button("Invoke", self.send, "main")
            with ui.element("section").classes("card"):
                ui.html(tag("h2", "Reply"), sanitize=False)
                self._reply = Live(note("Nothing was asked yet."))

    async def refresh(self) -> None:
        """Nothing here goes on by itself."""

    async def send(self) -> None:
        """Ask the endpoint once, without a retry."""
        self._reply.show(note("Waiting for the reply …"))
        client, name = self._frame.client, self._name
        params: dict[str, Any] = {"ContentType": str(self._kind.value), "Body": str(self._body.value or "").encode()}
        if self._variant.value:
            params["TargetVariant"] = str(self._variant.value).strip()
        began = time.perf_counter()
        try:
            status, said, more = await self._frame.ask(lambda: invoked(client, name, params))
        except Trouble as trouble:
            status, said, more = trouble.code or "not asked", str(trouble), {}
        self._reply.show(endpoint_views.reply(status, (time.perf_counter() - began) * 1000, said, more))


def invoked(client: Client, name: str, params: Mapping[str, Any]) -> tuple[str, str, dict[str, object]]:
    """One invocation: its status, the reply's text, and what the reply says of itself. Raises Trouble."""
    reply = client.call("sagemaker-runtime", "invoke_endpoint", EndpointName=name, **params)
    body = reply["Body"].read()
    said = body[: 4 * _REPLY_CHARS_MAX].decode("utf-8", "replace")
    more = {
        "Variant": reply.get("InvokedProductionVariant", ""),
        "Content type": reply.get("ContentType", ""),
        "Bytes": len(body),
    }
    return str(reply["ResponseMetadata"]["HTTPStatusCode"]), said, more


class Story:
    """Every decision with its reason, and what insights make of it."""

    every_s = 3.0

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Every decision, and why"), sanitize=False)
            self._find = field("Only lines with", classes="grow")
            self._find.on("keydown.enter", self.refresh)
            self._told = Live(note("Loading …"))

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name = self._frame.client, self._name
        wanted = str(self._find.value or "").lower()
        events = await self._frame.ask(lambda: client.story(name))
        found = [one for one in events if wanted in f"{one['what']} {one['why']}".lower()]
        empty = "Nothing is known of this endpoint." if not wanted else "No line has that."
        self._told.show(endpoint_views.timeline(found[-300:], time.time() * 1000, empty=empty))
