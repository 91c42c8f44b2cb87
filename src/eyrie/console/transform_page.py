"""A batch transform job: how far it is, what it reads and writes, what went wrong, and its end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nicegui import ui

from eyrie.console import endpoint_views, shown, transform_views
from eyrie.console.client import Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.dialogs import Question
from eyrie.console.frame import Frame, Live, button, framed
from eyrie.console.markup import Html, chip, facts, join, link, note, since, table, tag
from eyrie.console.pages import place

HERE = ("jobs",)
ROWS_MAX = 100
ASKED_MAX = 20  # jobs on their way whose progress the list shows
GROUP = "/aws/sagemaker/TransformJobs"
LINES_MAX = 100
UNDER_WAY = ("InProgress", "Stopping")


def register(desk: Desk) -> None:
    """The page at /console/jobs/transform/NAME."""

    async def job(request: Any, name: str) -> None:
        with framed(desk, request, name, HERE, (("Jobs", HERE),)) as frame:
            await frame.live(TransformJob(frame, name).refresh, 1.5)

    place("/jobs/transform/{name}", job)


def jobs_table(client: Client, now_ms: float) -> Html:
    """Every transform job, newest first, those under way with their progress. Raises Trouble."""
    found = client.call("sagemaker", "list_transform_jobs", MaxResults=ROWS_MAX)["TransformJobSummaries"]
    asked = [one["TransformJobName"] for one in found if one["TransformJobStatus"] in UNDER_WAY][:ASKED_MAX]
    told = {
        name: transform_views.progress_of(client.call("sagemaker", "describe_transform_job", TransformJobName=name))
        for name in asked
    }
    rows = [
        (
            link(one["TransformJobName"], "jobs", "transform", one["TransformJobName"]),
            chip(str(one["TransformJobStatus"])),
            transform_views.bar(told[one["TransformJobName"]]) if one["TransformJobName"] in told else shown.NOTHING,
            since(one["CreationTime"].timestamp() * 1000, now_ms),
            str(one.get("FailureReason", ""))[:200],
        )
        for one in found
    ]
    empty = join(["None yet: ", tag("code", "eyrie transform MODEL s3://FROM s3://TO"), " starts one."])
    return table("Batch transform jobs", ("Job", "Status", "Progress", "Made", "Why"), rows, empty=empty)


class TransformJob:
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
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Progress"), sanitize=False)
            self._bar = Live(note("Loading …"))
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Made of"), sanitize=False)
            self._details = Live(note("Loading …"))
        with ui.element("section").classes("card"):
            ui.html(tag("h2", "Its log"), sanitize=False)
            self._lines = Live(note("Loading …"))
        meaning = "What was written stays; the job cannot be continued."
        question = Question(frame, f"Stop {name}", meaning, "Stop", self._end, risky=True)

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name = self._frame.client, self._name
        job, lines = await asyncio.gather(
            self._frame.ask(lambda: client.call("sagemaker", "describe_transform_job", TransformJobName=name)),
            self._frame.ask(lambda: log_of(client, name)),
        )
        told, status = transform_views.progress_of(job), str(job["TransformJobStatus"])
        self._state.show(chip(status))
        self._stop.set_visibility(status == "InProgress")
        reason = job.get("FailureReason")
        self._trouble.show(note(join(["Why: ", reason]), "error") if reason else Html(""))
        self._figures.show(transform_views.head(job, told, time.time()))
        self._bar.show(transform_views.bar(told) if told else note("Nothing was read yet."))
        self._details.show(facts(transform_views.details(job, told)))
        self._lines.show(lines)

    async def _end(self) -> str:
        client, name = self._frame.client, self._name
        await self._frame.ask(lambda: client.call("sagemaker", "stop_transform_job", TransformJobName=name))
        return f"{name} is being stopped."


def log_of(client: Client, name: str) -> Html:
    """The newest lines of a job's log. Raises Trouble where the API is away."""
    try:
        found = client.every(
            "logs", "filter_log_events", "events", most=2_000, logGroupName=GROUP, logStreamNamePrefix=f"{name}/"
        )
    except Trouble as trouble:
        if trouble.code == "away":
            raise
        found = []
    return endpoint_views.log_lines(found[-LINES_MAX:], empty="It has said nothing yet.")
