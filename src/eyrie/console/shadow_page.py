"""Shadow tests: a list, and for each production beside its shadow, how they differ, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from nicegui import ui

from eyrie.console import charts, lists_page, measures, shadow_views
from eyrie.console.charts import Series
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.dialogs import Question
from eyrie.console.frame import Chart, Frame, Live, button, framed
from eyrie.console.markup import Html, href, join, link, note, tag
from eyrie.console.pages import place

HERE = ("shadow",)
TESTS_MAX = 60
ENDPOINTS_MAX = 60  # that are asked whether they have a shadow
MINUTES = 60.0
_RUNNING = ("Created", "Running", "Updating")  # what can be stopped, and so be decided
_MS = 1e-3


def register(desk: Desk) -> None:
    """The pages at /console/shadow and /console/shadow/ENDPOINT; `experiment` in the query: that one."""

    async def tests(request: Any) -> None:
        await lists_page.listed(desk, request, "Shadow tests", HERE, tests_of)

    async def test(request: Any, name: str) -> None:
        wanted = str(request.query_params.get("experiment", ""))
        with framed(desk, request, wanted or name, HERE, (("Shadow tests", HERE),)) as frame:
            await frame.live(Test(frame, name, wanted).refresh, 3.0)

    place("/shadow", tests)
    place("/shadow/{name}", test)


def tests_of(client: Client) -> Html:
    """Every shadow test, and endpoints with a shadow of their own config. Raises Trouble."""
    now_ms = time.time() * 1000
    found = client.every("sagemaker", "list_inference_experiments", "InferenceExperiments", most=TESTS_MAX)
    told = []
    for one in found:
        described = client.call("sagemaker", "describe_inference_experiment", Name=one["Name"])
        told.append({**one, "EndpointName": described["EndpointMetadata"]["EndpointName"]})
    own = []
    for endpoint in client.status()[:ENDPOINTS_MAX]:
        variants = client.endpoint(str(endpoint["name"])).get("ShadowProductionVariants", ())
        own += [(str(endpoint["name"]), "", str(v["VariantName"])) for v in variants]
    heading = tag("h2", "Endpoints with a shadow variant")
    return join([shadow_views.experiments(told, now_ms), heading, shadow_views.shadowed(own)])


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the page of a test shows."""

    report: Mapping[str, Any]
    experiment: Mapping[str, Any] | None  # DescribeInferenceExperiment
    points: list[charts.Points]
    span: charts.Span


def report_of(client: Client, name: str, experiment: str) -> dict[str, Any]:
    """Eyrie's comparison of an endpoint's shadow with production. Raises Trouble."""
    asked = f"?experiment={quote(experiment, safe='')}" if experiment else ""
    return client.own(f"/eyrie/shadow/{quote(name, safe='')}{asked}")


def look(client: Client, name: str, experiment: str) -> Seen:
    """Ask for everything. Raises Trouble."""
    report = report_of(client, name, experiment)
    told = report["experiment"]
    described = client.call("sagemaker", "describe_inference_experiment", Name=told["name"]) if told else None
    span = measures.span_of(MINUTES, time.time() * 1000)
    both = (str(report["production"]), str(report["shadow"]))
    wanted = [
        measures.invoked(what, stat, name, variant, factor=factor, per_second=rate)
        for what, stat, factor, rate in (("ModelLatency", "p50", _MS, False), ("ModelLatency", "p99", _MS, False))
        for variant in both
    ]
    wanted += [measures.invoked("InvocationModelErrors", "Sum", name, variant, per_second=True) for variant in both]
    return Seen(report, described, client.measured(wanted, span), span)


class Test:
    """The page of one test."""

    def __init__(self, frame: Frame, name: str, experiment: str) -> None:
        self._frame, self._name, self._experiment = frame, name, experiment
        self._seen: Seen | None = None
        with ui.element("div").classes("head"):
            ui.html(tag("h1", experiment or f"Shadow of {name}"), sanitize=False)
            ui.element("span").classes("spacer")
            ui.html(tag("a", "The endpoint", href=href("endpoints", name), class_="button"), sanitize=False)
            with ui.element("div").classes("buttons") as self._buttons:
                button("Promote the shadow", self._ask_promote, "main")
                button("Stop and remove it", self._ask_remove, "risk")
            self._buttons.set_visibility(False)
        self._standing = Live(note("Loading …"))
        self._figures = Live()
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Production beside shadow"), sanitize=False)
            self._beside = Live(note("Loading …"))
            self._lost = Live()
        with ui.element("div").classes("grid"):
            self._median = Chart(frame, "Latency, p50", "ms, of the model")
            self._slow = Chart(frame, "Latency, p99", "ms, of the model")
            self._errors = Chart(frame, "Errors of the model", "per second")
        with ui.element("section").classes("card").style("margin-top: 16px"):
            ui.html(tag("h2", "Where they agree least"), sanitize=False)
            self._slices = Live(note("Loading …"))
        self._promote = Question(frame, "Promote the shadow", "", "Promote", self._do_promote, risky=True)
        self._remove = Question(frame, "Stop and remove it", "", "Stop", self._do_remove, risky=True)

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name, experiment = self._frame.client, self._name, self._experiment
        try:
            seen: Seen = await self._frame.ask(lambda: look(client, name, experiment))
        except Trouble as trouble:
            if trouble.code == AWAY:
                raise
            self._standing.show(note(join([str(trouble), " ", link("All shadow tests", "shadow")])))
            for part in (self._beside, self._slices):
                part.show(note("There is nothing to compare."))
            for chart in (self._median, self._slow, self._errors):
                chart.hide()
            self._buttons.set_visibility(False)
            return
        self._seen = seen
        self._standing.show(shadow_views.standing(seen.report["experiment"]))
        self._figures.show(shadow_views.head(seen.report))
        self._beside.show(shadow_views.beside(seen.report))
        self._lost.show(shadow_views.lost(seen.report))
        self._slices.show(shadow_views.slices(seen.report))
        self._buttons.set_visibility(seen.experiment is not None and seen.experiment["Status"] in _RUNNING)
        self._draw(seen)

    def _draw(self, seen: Seen) -> None:
        both = (f"production: {seen.report['production']}", f"shadow: {seen.report['shadow']}")
        for at, chart in enumerate((self._median, self._slow, self._errors)):
            found = seen.points[2 * at : 2 * at + 2]
            series = [Series(said, points) for said, points in zip(both, found, strict=True)]
            chart.show(series, seen.span, "No copy was sent in the last hour.")

    # --- what becomes of them -----------------------------------------------------------------------------------------
    def _ask_promote(self) -> None:
        if self._seen is not None:
            report = self._seen.report
            said = f"{report['shadow']} takes the place of {report['production']}, by an update of the endpoint "
            self._promote.open(f"{said}under its last deployment policy; {report['production']} ends after it.")

    def _ask_remove(self) -> None:
        if self._seen is not None:
            report = self._seen.report
            self._remove.open(f"The shadow {report['shadow']} ends; {report['production']} stays as it is.")

    async def _do_promote(self) -> str:
        await self._stop("Promote", "Remove")
        return "The shadow is being promoted."

    async def _do_remove(self) -> str:
        await self._stop("Remove", "Retain")
        return "The shadow test is being stopped."

    async def _stop(self, shadow: str, production: str) -> None:
        if self._seen is None or self._seen.experiment is None:
            raise ValueError("There is no test that could be stopped.")
        report, name, client = self._seen.report, str(self._seen.experiment["Name"]), self._frame.client
        actions = {str(report["shadow"]): shadow, str(report["production"]): production}
        await self._frame.ask(
            lambda: client.call("sagemaker", "stop_inference_experiment", Name=name, ModelVariantActions=actions)
        )
