"""An inference recommendations job: its tests as they go on, what it recommends and what that costs, and its end."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from eyrie.console import endpoint_views, recommendation_views
from eyrie.console.client import Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.dialogs import Question
from eyrie.console.frame import Frame, Live, button, framed
from eyrie.console.markup import Html, chip, facts, join, link, note, since, table, tag
from eyrie.console.pages import place

HERE = ("jobs",)
ROWS_MAX = 100
STEPS_MAX = 300
GROUP = "/aws/sagemaker/InferenceRecommendationsJobs"
LINES_MAX = 100
UNDER_WAY = ("PENDING", "IN_PROGRESS")


def register(desk: Desk) -> None:
    """The page at /console/jobs/recommendations/NAME."""

    async def job(request: Any, name: str) -> None:
        with framed(desk, request, name, HERE, (("Jobs", HERE),)) as frame:
            await frame.live(RecommendationsJob(frame, name).refresh, 2.0)

    place("/jobs/recommendations/{name}", job)


def jobs_table(client: Client, now_ms: float) -> Html:
    """Every recommendations job, newest first. Raises Trouble."""
    found = client.call("sagemaker", "list_inference_recommendations_jobs", MaxResults=ROWS_MAX)
    rows = [
        (
            link(one["JobName"], "jobs", "recommendations", one["JobName"]),
            chip(str(one["Status"])),
            one["JobType"],
            since(one["CreationTime"].timestamp() * 1000, now_ms),
            str(one.get("FailureReason", ""))[:200],
        )
        for one in found["InferenceRecommendationsJobs"]
    ]
    empty = join(["None yet: ", tag("code", "eyrie recommend MODEL --payload FILE"), " starts one."])
    return table("Inference recommendations", ("Job", "Status", "Kind", "Made", "Why"), rows, empty=empty)


class RecommendationsJob:
    """The page of one job."""

    def __init__(self, frame: Frame, name: str) -> None:
        self._frame, self._name = frame, name
        with ui.element("div").classes("head"):
            ui.html(tag("h1", name), sanitize=False)
            self._state = Live()
            ui.element("span").classes("spacer")
            self._stop = button("Stop", lambda: question.open(), "risk")
            self._stop.set_visibility(False)
        self._trouble = Live()
        self._figures = Live(note("Loading …"))
        self._best, self._tests, self._details, self._lines = (
            _card(said) for said in ("Recommended", "Tests", "Made of", "Its log")
        )
        meaning = "What it has deployed for its tests is removed; what was measured stays."
        question = Question(frame, f"Stop {name}", meaning, "Stop", self._end, risky=True)

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name = self._frame.client, self._name
        job, steps, lines = await asyncio.gather(
            self._frame.ask(lambda: client.call("sagemaker", "describe_inference_recommendations_job", JobName=name)),
            self._frame.ask(lambda: steps_of(client, name)),
            self._frame.ask(lambda: log_of(client, name)),
        )
        status, reason = str(job["Status"]), job.get("FailureReason")
        self._state.show(chip(status))
        self._stop.set_visibility(status in UNDER_WAY)
        self._trouble.show(note(join(["Why: ", reason]), "error") if reason else Html(""))
        self._figures.show(recommendation_views.head(job, steps))
        self._best.show(recommendation_views.candidates(job))
        self._tests.show(recommendation_views.tests(steps))
        self._details.show(facts(recommendation_views.details(job)))
        self._lines.show(lines)

    async def _end(self) -> str:
        client, name = self._frame.client, self._name
        await self._frame.ask(lambda: client.call("sagemaker", "stop_inference_recommendations_job", JobName=name))
        return f"{name} is being stopped."


def _card(said: str) -> Live:
    with ui.element("section").classes("card"):
        ui.html(tag("h2", said), sanitize=False)
        return Live(note("Loading …"))


def steps_of(client: Client, name: str) -> list[Any]:
    """Every test of a job. Raises Trouble."""
    return client.every("sagemaker", "list_inference_recommendations_job_steps", "Steps", most=STEPS_MAX, JobName=name)


def log_of(client: Client, name: str) -> Html:
    """The newest lines of a job's log. Raises Trouble where the API is away."""
    try:
        found = client.every(
            "logs", "filter_log_events", "events", most=2_000, logGroupName=GROUP, logStreamNamePrefix=name
        )
    except Trouble as trouble:
        if trouble.code == "away":
            raise
        found = []
    return endpoint_views.log_lines(found[-LINES_MAX:], empty="It has said nothing yet.")
