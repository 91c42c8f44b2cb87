"""The page of a job of any kind: its state, its figures, what it is made of, its log, and its end.

What kinds differ in is a `Kind`: `transform_page.py` and `recommendation_page.py` have one each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from eyrie.console import endpoint_views
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.desk import Desk
from eyrie.console.dialogs import Question
from eyrie.console.frame import Frame, Live, button, framed
from eyrie.console.markup import Html, chip, join, note, tag
from eyrie.console.pages import place

HERE = ("jobs",)
LINES_MAX = 100


@dataclass(frozen=True, slots=True)
class Told:
    """What a job says of itself."""

    status: str
    reason: str  # why it failed; "" where it did not
    figures: Html
    parts: Sequence[object]  # what stands in each of the kind's cards


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of job differs in."""

    path: str  # below /console/jobs
    cards: Sequence[str]
    look: Callable[[Client, str], Told]
    stop: str  # the operation that ends a job
    named: str  # the parameter that names it there
    meaning: str  # what its end means, in words
    under_way: frozenset[str]
    log_group: str
    log_suffix: str = ""  # of the stream names' beginning, after the job's name
    every_s: float = 2.0


def register(kind: Kind) -> Callable[[Desk], None]:
    """What registers the page of this kind at /console/jobs/PATH/NAME."""

    def at(desk: Desk) -> None:
        async def job(request: Any, name: str) -> None:
            with framed(desk, request, name, HERE, (("Jobs", HERE),)) as frame:
                await frame.live(Job(frame, name, kind).refresh, kind.every_s)

        place(f"/jobs/{kind.path}/{{name}}", job)

    return at


class Job:
    """The page of one job."""

    def __init__(self, frame: Frame, name: str, kind: Kind) -> None:
        self._frame, self._name, self._kind = frame, name, kind
        with ui.element("div").classes("head"):
            ui.html(tag("h1", name), sanitize=False)
            self._state = Live()
            ui.element("span").classes("spacer")
            self._stop = button("Stop", lambda: question.open(), "risk")
            self._stop.set_visibility(False)
        self._trouble = Live()
        self._figures = Live(note("Loading …"))
        self._parts = [_card(said) for said in kind.cards]
        self._lines = _card("Its log")
        question = Question(frame, f"Stop {name}", kind.meaning, "Stop", self._end, risky=True)

    async def refresh(self) -> None:
        """Ask again and show it. Raises Trouble."""
        client, name, kind = self._frame.client, self._name, self._kind
        told, lines = await asyncio.gather(
            self._frame.ask(lambda: kind.look(client, name)), self._frame.ask(lambda: log_of(client, name, kind))
        )
        self._state.show(chip(told.status))
        self._stop.set_visibility(told.status in kind.under_way)
        self._trouble.show(note(join(["Why: ", told.reason]), "error") if told.reason else Html(""))
        self._figures.show(told.figures)
        for place_, part in zip(self._parts, told.parts, strict=True):
            place_.show(part)
        self._lines.show(lines)

    async def _end(self) -> str:
        client, name, kind = self._frame.client, self._name, self._kind
        await self._frame.ask(lambda: client.call("sagemaker", kind.stop, **{kind.named: name}))
        return f"{name} is being stopped."


def _card(said: str) -> Live:
    with ui.element("section").classes("card"):
        ui.html(tag("h2", said), sanitize=False)
        return Live(note("Loading …"))


def log_of(client: Client, name: str, kind: Kind) -> Html:
    """The newest lines of a job's log. Raises Trouble where the API is away."""
    try:
        found = client.newest_lines(kind.log_group, LINES_MAX, prefix=f"{name}{kind.log_suffix}")
    except Trouble as trouble:
        if trouble.code == AWAY:
            raise
        found = []
    return endpoint_views.log_lines(found, empty="It has said nothing yet.")
