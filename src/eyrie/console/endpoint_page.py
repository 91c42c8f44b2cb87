"""An endpoint's page: a head with its state and the actions on it, and one section at a time below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from eyrie.console import (
    endpoint_actions,
    endpoint_availability,
    endpoint_kinds,
    endpoint_live,
    endpoint_sections,
    endpoint_views,
    kind_views,
)
from eyrie.console.client import Trouble
from eyrie.console.desk import Desk
from eyrie.console.frame import Frame, Live, framed
from eyrie.console.markup import Html, chip, join, note, tag
from eyrie.console.pages import place

Section = Callable[[Frame, str], Any]


def register(desk: Desk) -> None:
    """The pages below /console/endpoints/NAME."""

    async def live(request: Any, name: str) -> None:
        await show(desk, request, name, "", endpoint_live.LiveSection)

    async def deployment(request: Any, name: str) -> None:
        await show(desk, request, name, "deployment", endpoint_sections.Deployment)

    async def scaling(request: Any, name: str) -> None:
        await show(desk, request, name, "scaling", endpoint_sections.Scaling)

    async def logs(request: Any, name: str) -> None:
        await show(desk, request, name, "logs", endpoint_sections.Logs)

    async def invoke(request: Any, name: str) -> None:
        await show(desk, request, name, "invoke", endpoint_sections.Invoke)

    async def story(request: Any, name: str) -> None:
        await show(desk, request, name, "story", endpoint_sections.Story)

    async def availability(request: Any, name: str) -> None:
        await show(desk, request, name, "availability", endpoint_availability.Availability)

    async def queue(request: Any, name: str) -> None:
        await show(desk, request, name, "queue", endpoint_kinds.Queue)

    async def serverless(request: Any, name: str) -> None:
        await show(desk, request, name, "serverless", endpoint_kinds.Serverless)

    place("/endpoints/{name}", live)
    for section, build in (
        ("deployment", deployment),
        ("scaling", scaling),
        ("logs", logs),
        ("invoke", invoke),
        ("story", story),
        ("availability", availability),
        ("queue", queue),
        ("serverless", serverless),
    ):
        place(f"/endpoints/{{name}}/{section}", build)


async def show(desk: Desk, request: Any, name: str, here: str, section: Section) -> None:
    """Head, sections, and the one that was asked for."""
    with framed(desk, request, name, ("endpoints",), (("Endpoints", ("endpoints",)),)) as frame:
        head = Head(frame, name, here)
        part = section(frame, name)

        async def refresh() -> None:
            await head.refresh()
            await part.refresh()

        await frame.live(refresh, part.every_s)


class Head:
    """Name, state, what can be done, and the sections that such an endpoint has."""

    def __init__(self, frame: Frame, name: str, here: str) -> None:
        self._frame, self._name, self._here = frame, name, here
        with ui.element("div").classes("head"):
            ui.html(tag("h1", name), sanitize=False)
            self._state = Live()
            ui.element("span").classes("spacer")
            with ui.element("div").classes("buttons"):
                endpoint_actions.buttons(frame, name)
        self._trouble = Live()
        self._sections = Live(endpoint_views.subnav(name, here))

    async def refresh(self) -> None:
        """Ask for the state. Raises Trouble."""
        client, name = self._frame.client, self._name
        try:
            described = await self._frame.ask(lambda: client.endpoint(name))
        except Trouble as trouble:
            if trouble.code == "away":
                raise
            self._state.show(chip("Deleted"))
            raise
        self._state.show(chip(described["EndpointStatus"]))
        self._sections.show(endpoint_views.subnav(name, self._here, kind_views.sections_of(described)))
        reason = described.get("FailureReason")
        self._trouble.show(note(join(["Why: ", reason]), "error") if reason else Html(""))
