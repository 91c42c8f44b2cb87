"""The lists: endpoints, models and one model, jobs, alarms, events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

from eyrie.console import overview_page, recommendation_page, transform_page, views
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.dialogs import Question
from eyrie.console.frame import Live, button, field, framed
from eyrie.console.markup import Html, facts, href, join, link, note, since, table, tag
from eyrie.console.pages import place

ROWS_MAX = 500
STORIES_MAX = 200  # endpoints whose events are shown
_MADE = ("CreationTime", "Made")
JOBS = (
    (
        "Compilation jobs",
        "list_compilation_jobs",
        "CompilationJobSummaries",
        (("CompilationJobName", "Job"), ("CompilationJobStatus", "Status"), _MADE, ("CompilationEndTime", "Ended")),
    ),
)
Look = Callable[[Client], object]


def register(desk: Desk) -> None:
    """The pages at /console/endpoints, models, jobs, alarms and events."""

    async def endpoints(request: Any) -> None:
        await listed(desk, request, "Endpoints", ("endpoints",), endpoints_of, (("Deploy a model", ("deploy",)),))

    async def models(request: Any) -> None:
        await listed(desk, request, "Models", ("models",), models_of, (("Deploy a model", ("deploy",)),))

    async def model(request: Any, name: str) -> None:
        await one_model(desk, request, name)

    async def jobs(request: Any) -> None:
        await listed(desk, request, "Jobs", ("jobs",), jobs_of)

    async def alarms(request: Any) -> None:
        await listed(desk, request, "Alarms", ("alarms",), alarms_of)

    async def events(request: Any) -> None:
        await told(desk, request)

    for path, build in (
        ("/endpoints", endpoints),
        ("/models", models),
        ("/models/{name}", model),
        ("/jobs", jobs),
        ("/alarms", alarms),
        ("/events", events),
    ):
        place(path, build)


async def listed(
    desk: Desk,
    request: Any,
    title: str,
    here: tuple[str, ...],
    look: Look,
    actions: Sequence[tuple[str, tuple[str, ...]]] = (),
) -> None:
    """A page that shows one view and keeps it live."""
    with framed(desk, request, title, here) as frame:
        links = [views.pager(said, *path) for said, path in actions]
        ui.html(tag("div", tag("h1", title), tag("span", class_="spacer"), *links, class_="head"), sanitize=False)
        with ui.element("section").classes("card"):
            shown = Live(note("Loading …"))

        async def refresh() -> None:
            client = frame.client
            shown.show(await frame.ask(lambda: look(client)))

        await frame.live(refresh, 3.0)


def endpoints_of(client: Client) -> Html:
    """Every endpoint with its load. Raises Trouble."""
    seen = overview_page.look(client)
    return views.endpoints_table(seen.endpoints, seen.rates)


def models_of(client: Client) -> Html:
    """Every model, newest first. Raises Trouble."""
    found = client.every(
        "sagemaker", "list_models", "Models", most=ROWS_MAX, SortBy="CreationTime", SortOrder="Descending"
    )
    now_ms = time.time() * 1000
    rows = [
        (link(one["ModelName"], "models", one["ModelName"]), since(one["CreationTime"].timestamp() * 1000, now_ms))
        for one in found
    ]
    return table(
        "Models", ("Model", "Made"), rows, empty=join(["No model yet. ", link("Deploy one from a file", "deploy"), "."])
    )


def jobs_of(client: Client) -> Html:
    """The jobs of each kind that this Eyrie runs. Raises Trouble."""
    now_ms = time.time() * 1000
    parts: list[object] = [tag("h2", "Batch transform jobs"), transform_page.jobs_table(client, now_ms)]
    for title, operation, under, columns in JOBS:
        try:
            rows = client.call("sagemaker", operation, MaxResults=100)[under]
        except Trouble as trouble:
            if trouble.code == AWAY:
                raise
            parts += [tag("h2", title), note(str(trouble))]
            continue
        parts += [tag("h2", title), views.rows_of(columns, rows, title, now_ms, "None yet.")]
    parts += [tag("h2", "Inference recommendations"), recommendation_page.jobs_table(client, now_ms)]
    return join(parts)


def alarms_of(client: Client) -> Html:
    """Every alarm. Raises Trouble."""
    empty = join(["No alarm is set. ", tag("code", "aws cloudwatch put-metric-alarm"), " sets one."])
    alarms, now_ms = client.alarms(), time.time() * 1000
    scaling = [alarm for alarm in alarms if str(alarm["AlarmName"]).startswith(views.SCALING)]
    yours = views.alarms_table(views.own_alarms(alarms), now_ms, empty)
    if not scaling:
        return yours
    return join(
        [
            yours,
            tag("h2", "Of scaling policies"),
            tag(
                "p",
                "One rings whenever there are too few or too many instances; that is how a policy works.",
                class_="hint",
            ),
            views.alarms_table(scaling, now_ms, caption="Alarms of scaling policies"),
        ]
    )


async def one_model(desk: Desk, request: Any, name: str) -> None:
    """What a model is made of, and its end."""
    with framed(desk, request, name, ("models",), (("Models", ("models",)),)) as frame:
        with ui.element("div").classes("head"):
            ui.html(tag("h1", name), sanitize=False)
            ui.element("span").classes("spacer")
            ui.html(tag("a", "Deploy", href=href("deploy", model=name), class_="button main"), sanitize=False)
            button("Delete", lambda: question.open(), "risk")
        with ui.element("section").classes("card"):
            shown = Live(note("Loading …"))

        async def end() -> str:
            client = frame.client
            await frame.ask(lambda: client.call("sagemaker", "delete_model", ModelName=name))
            ui.navigate.to("/models")
            return f"{name} is deleted."

        meaning = "Endpoints that serve it go on; the archive in S3 stays."
        question = Question(frame, f"Delete {name}", meaning, "Delete", end, risky=True)

        async def refresh() -> None:
            client = frame.client
            shown.show(model_facts(await frame.ask(lambda: client.call("sagemaker", "describe_model", ModelName=name))))

        await frame.live(refresh, 10.0)


def model_facts(described: Mapping[str, Any]) -> Html:
    """A model in names and values."""
    said: dict[str, object] = {
        "ARN": tag("code", described["ModelArn"]),
        "Made": since(described["CreationTime"].timestamp() * 1000, time.time() * 1000),
    }
    containers = [described["PrimaryContainer"]] if "PrimaryContainer" in described else described.get("Containers", [])
    for at_, container in enumerate(containers):
        name = f"Container {at_ + 1}" if len(containers) > 1 else "Container"
        said[f"{name}: image"] = tag("code", container.get("Image", ""))
        said[f"{name}: model data"] = tag(
            "code", container.get("ModelDataUrl") or container.get("ModelDataSource") or "none"
        )
        if container.get("Environment"):
            said[f"{name}: environment"] = tag(
                "code", ", ".join(f"{key}={value}" for key, value in container["Environment"].items())
            )
    return facts(said)


async def told(desk: Desk, request: Any) -> None:
    """What was decided and what rang, of everything, with a filter."""
    with framed(desk, request, "Events", ("events",)) as frame:
        ui.html(tag("div", tag("h1", "Events"), class_="head"), sanitize=False)
        with ui.element("section").classes("card"):
            ui.html(
                tag(
                    "p", "Every decision about endpoints with its reason, and every change of an alarm.", class_="hint"
                ),
                sanitize=False,
            )
            wanted = field("Only lines with", classes="grow")
            shown = Live(note("Loading …"))

        async def refresh() -> None:
            client, text = frame.client, str(wanted.value or "").lower()
            events = await frame.ask(lambda: events_of(client))
            found = [one for one in events if text in f"{one['name']} {one['what']} {one['why']}".lower()]
            shown.show(
                views.lately(
                    found, time.time() * 1000, 300, "No line has that." if text else "Nothing has happened yet."
                )
            )

        wanted.on("keydown.enter", refresh)
        await frame.live(refresh, 4.0)


def events_of(client: Client) -> list[dict[str, Any]]:
    """The stories of all endpoints and the history of all alarms. Raises Trouble."""
    found: list[dict[str, Any]] = []
    for one in client.status()[:STORIES_MAX]:
        try:
            found += client.story(str(one["name"]))
        except Trouble as trouble:
            if trouble.code == AWAY:
                raise  # any other: the endpoint went meanwhile
    history = client.every(
        "cloudwatch", "describe_alarm_history", "AlarmHistoryItems", most=300, HistoryItemType="StateUpdate"
    )
    for item in history:
        found.append(
            {
                "at_ms": item["Timestamp"].timestamp() * 1000,
                "kind": "Alarm",
                "name": item["AlarmName"],
                "what": item["HistorySummary"],
                "why": "",
            }
        )
    return found
