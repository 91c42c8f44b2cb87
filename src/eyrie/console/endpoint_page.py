"""An endpoint's page: a head with its state and the actions on it, and one section at a time below."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
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
from eyrie.console.client import AWAY, Trouble
from eyrie.console.desk import Desk
from eyrie.console.frame import Frame, Live, framed
from eyrie.console.markup import Html, chip, join, note, tag
from eyrie.console.pages import place

Section = Callable[[Frame, str], Any]
SECTIONS: Mapping[str, Section] = {
    "": endpoint_live.LiveSection,
    "deployment": endpoint_sections.Deployment,
    "scaling": endpoint_sections.Scaling,
    "availability": endpoint_availability.Availability,
    "logs": endpoint_sections.Logs,
    "invoke": endpoint_sections.Invoke,
    "story": endpoint_sections.Story,
    "queue": endpoint_kinds.Queue,
    "serverless": endpoint_kinds.Serverless,
}

NOT_THERE = "Could not find"  # how the API tells of an endpoint that is not there
WAS_DELETED = "This endpoint was deleted while its page was open. What is shown is how it was last."
IS_NOT_THERE = "There is no endpoint of this name now. What is shown is what is still known of it."


def register(desk: Desk) -> None:
    """The pages below /console/endpoints/NAME, one a section."""
    for here, section in SECTIONS.items():
        place("/endpoints/{name}" + (f"/{here}" if here else ""), page_of(desk, here, section))


def page_of(desk: Desk, here: str, section: Section) -> Callable[..., Awaitable[None]]:
    """What builds the page of a section."""

    async def page(request: Any, name: str) -> None:
        await show(desk, request, name, here, section)

    return page


async def show(desk: Desk, request: Any, name: str, here: str, section: Section) -> None:
    """Head, sections, and the one that was asked for."""
    with framed(desk, request, name, ("endpoints",), (("Endpoints", ("endpoints",)),)) as frame:
        head = Head(frame, name, here)
        part = section(frame, name)

        async def refresh() -> None:
            told = await asyncio.gather(head.refresh(), part.refresh(), return_exceptions=True)
            for trouble in told:
                if isinstance(trouble, BaseException) and not head.explains(trouble):
                    raise trouble

        await frame.live(refresh, part.every_s)


class Head:
    """Name, state, what can be done, and the sections that such an endpoint has."""

    def __init__(self, frame: Frame, name: str, here: str) -> None:
        self._frame, self._name, self._here = frame, name, here
        self._seen = self._gone = False
        with ui.element("div").classes("head"):
            ui.html(tag("h1", name), sanitize=False)
            self._state = Live()
            ui.element("span").classes("spacer")
            self._buttons = ui.element("div").classes("buttons")
            with self._buttons:
                endpoint_actions.buttons(frame, name)
        self._trouble = Live()
        self._sections = Live(endpoint_views.subnav(name, here))

    async def refresh(self) -> None:
        """Ask for the state. Raises Trouble, but for an endpoint that is not there: that is told."""
        client, name = self._frame.client, self._name
        try:
            described = await self._frame.ask(lambda: client.endpoint(name))
        except Trouble as trouble:
            if trouble.code == AWAY or not str(trouble).startswith(NOT_THERE):
                raise
            self._gone = True
            self._buttons.set_visibility(False)
            self._state.show(chip("Deleted") if self._seen else chip("Not there"))
            self._trouble.show(note(WAS_DELETED if self._seen else IS_NOT_THERE, "error"))
            return
        self._gone, self._seen = False, True
        self._buttons.set_visibility(True)
        self._state.show(chip(described["EndpointStatus"]))
        self._sections.show(endpoint_views.subnav(name, self._here, kind_views.sections_of(described)))
        reason = described.get("FailureReason")
        self._trouble.show(note(join(["Why: ", reason]), "error") if reason else Html(""))

    def explains(self, trouble: BaseException) -> bool:
        """Whether what a section could not show has been told already: the endpoint went while its page was open."""
        return self._gone and self._seen and isinstance(trouble, Trouble) and trouble.code != AWAY
