"""What surrounds each page: the navigation, the title, the place for content; and the parts that pages keep live.

A page is built, asked once for what it shows (so that it arrives filled), and then asks again every few seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from eyrie.console import assets, charts
from eyrie.console.client import AWAY, Client, Trouble
from eyrie.console.desk import Busy, Desk
from eyrie.console.markup import Html, href, join, link, note, tag, text
from eyrie.console.sessions import Session

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.4  # a page arrives without what takes longer, and says that it loads
_NAVIGATION = (
    (
        "",
        (
            ("Overview", ()),
            ("Endpoints", ("endpoints",)),
            ("Models", ("models",)),
            ("Jobs", ("jobs",)),
            ("Shadow tests", ("shadow",)),
            ("Costs", ("costs",)),
        ),
    ),
    (
        "Watch",
        (
            ("Alarms", ("alarms",)),
            ("Dashboards", ("dashboards",)),
            ("Metrics", ("metrics",)),
            ("Logs", ("logs",)),
            ("Events", ("events",)),
            ("Audit", ("audit",)),
        ),
    ),
)  # fmt: skip


@dataclass(slots=True)
class Frame:
    """One page on one screen."""

    desk: Desk
    session: Session
    scheme: charts.Scheme
    title: str
    trouble: Live | None = None
    place: Any = None  # where the page's content stands
    _filled: bool = False  # whether it showed once what it is about

    @property
    def client(self) -> Client:
        """The API, as this session sees it."""
        return self.session.client

    async def ask(self, question: Callable[[], Any]) -> Any:
        """Run a call in a thread. Raises Trouble or Busy."""
        return await self.desk.ask(question)

    async def live(self, refresh: Callable[[], Awaitable[None]], every_s: float = 2.0) -> None:
        """Ask now, and again every so often while somebody looks. What goes wrong is told on top of the page.

        The browser says when it is time: a page that was left, or that nobody sees, asks for nothing.
        """
        asking = asyncio.Lock()
        place = ui.context.slot

        async def turn() -> None:
            if asking.locked():
                return  # the answer is on its way still
            async with asking:
                with place:
                    await self._turn(refresh)

        first = asyncio.create_task(turn())
        await asyncio.wait({first}, timeout=_FIRST_WAIT_S)
        ui.on("look", turn, args=[])
        ui.add_head_html(f"<script>window.eyrieEvery={int(every_s * 1000)}</script>")

    async def _turn(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Ask once. A page that has nothing to show (its endpoint is not there) is its trouble alone, in words."""
        try:
            await refresh()
        except (Trouble, Busy) as trouble:
            bare = not self._filled and isinstance(trouble, Trouble) and trouble.code != AWAY
            self.tell(str(trouble))
        except RuntimeError:
            if not left(self.place):
                raise
            return  # whoever looked at the page has left it, and with it all its elements went
        else:
            bare, self._filled = False, True
            self.tell("")
        if self.place is not None and not left(self.place):
            self.place.classes(add="bare") if bare else self.place.classes(remove="bare")

    def tell(self, trouble: str) -> None:
        """Show what goes wrong, or that nothing does."""
        if self.trouble is not None:
            self.trouble.show(note(trouble, "error") if trouble else Html(""))


def left(element: Any) -> bool:
    """Whether nobody has the page of an element open any more."""
    try:
        return bool(element.is_deleted or element.client.is_deleted)
    except RuntimeError:  # its client is gone
        return True


class Live:
    """A piece of HTML that changes: it is patched in place, so that focus, selection and scrolling stay."""

    def __init__(self, first: object = "", classes: str = "") -> None:
        self._shown = text(first)
        self.element = ui.html(self._shown, sanitize=False).classes(classes)

    def show(self, html: object) -> None:
        """Show this from now on."""
        fresh = text(html)
        if fresh == self._shown:
            return
        self._shown = fresh
        client = self.element.client
        if client.has_socket_connection:
            client.run_javascript(f"eyriePatch('c{self.element.id}', {json.dumps(fresh)})")
        else:
            self.element.set_content(fresh)


class Chart:
    """A chart that moves on."""

    def __init__(self, frame: Frame, what: str, unit: str = "", tall: bool = False) -> None:
        self._frame = frame
        self._what, self._unit = what, unit
        self.card = ui.element("section").classes("card tall" if tall else "card")
        with self.card:
            ui.html(tag("h2", what, tag("span", f" {unit}" if unit else "", class_="hint")), sanitize=False)
            self._empty = Live(note("Loading …"))
            blank = charts.chart(what, unit, (), charts.Span(0, 1, 1), frame.scheme)
            self.plot = ui.echart(blank, renderer="svg")
            self.plot.set_visibility(False)

    def hide(self) -> None:
        """Take it off the page, until something is shown again."""
        self._empty.show("")
        self.card.set_visibility(False)

    def tell(self, trouble: str) -> None:
        """Why nothing can be drawn."""
        self.card.set_visibility(True)
        self._empty.show(note(trouble, "error"))
        self.plot.set_visibility(False)

    def show(
        self,
        series: list[charts.Series],
        span: charts.Span,
        empty: str = "Nothing was measured in this time.",
        **how: Any,
    ) -> None:
        """Draw these; in words where there is nothing to draw."""
        self.card.set_visibility(True)
        if not any(one.points for one in series):
            self._empty.show(note(empty))
            self.plot.set_visibility(False)
            return
        self._empty.show("")
        self.plot.set_visibility(True)
        options = charts.chart(self._what, self._unit, series, span, self._frame.scheme, **how)
        self.plot.options.clear()
        self.plot.options.update(options)
        self.plot.update()


@contextmanager
def framed(
    desk: Desk, request: Any, title: str, here: tuple[str, ...], crumbs: tuple[tuple[str, tuple[str, ...]], ...] = ()
) -> Iterator[Frame]:
    """The surroundings of a page; its content goes inside. `here` is the page's place in the navigation."""
    session: Session = request.scope["state"]["session"]
    dark = request.scope["state"]["scheme"] == "dark"
    frame = Frame(desk, session, charts.DARK if dark else charts.LIGHT, title)
    ui.page_title(f"{title} · Eyrie")
    ui.dark_mode(dark)
    ui.add_head_html(
        f'<script>window.eyrieScheme="{"dark" if dark else "light"}";window.eyrieNow={int(time.time() * 1000)}</script>'
        f'<script src="{assets.url("theme.js")}"></script><script src="{assets.url("live.js")}" defer></script>'
        f'<link rel="stylesheet" href="{assets.url("style.css")}"><link rel="icon" href="{assets.url("icon.svg")}">'
    )
    ui.html(tag("a", "Skip to content", href="#main", class_="skip"), sanitize=False)
    with ui.element("div").classes("shell"):
        with ui.element("header").classes("side"):
            ui.html(_side(desk, session, here), sanitize=False).style("display: contents")
        with ui.element("div").classes("page").props("id=main tabindex=-1") as frame.place:
            if crumbs:
                ui.html(
                    tag("p", *(join([link(said, *path), " / "]) for said, path in crumbs), class_="crumb"),
                    sanitize=False,
                ).classes("crumbs")
            frame.trouble = Live(classes="trouble")
            yield frame


def _side(desk: Desk, session: Session, here: tuple[str, ...]) -> Html:
    groups = []
    for name, entries in _NAVIGATION:
        items = [
            tag("li", tag("a", said, href=href(*path), aria_current="page" if path == here else None))
            for said, path in entries
        ]
        groups.append(join([tag("p", name, class_="group") if name else "", tag("ul", *items)]))
    who = session.client.keys.access_key_id if desk.settings.auth else "Everybody: nothing is verified here"
    out = (
        tag("form", tag("button", "Log out", class_="button", type="submit"), method="post", action="/console/logout")
        if desk.settings.auth
        else ""
    )
    theme = tag("button", "Light or dark", class_="button", type="button", data_toggle_theme="")
    brand = tag("p", tag("a", assets.MARK, "Eyrie", href=href()), class_="brand", style="margin:0")
    return join(
        [
            brand,
            tag("nav", *groups, aria_label="Pages"),
            tag("div", tag("div", who), tag("div", session.client.region), theme, out, class_="self"),
        ]
    )


def field(
    said: str, value: str = "", options: Sequence[str] = (), lines: int = 1, classes: str = "", number: bool = False
) -> Any:
    """A labelled input: a line, several lines, a number, or a choice of options."""
    made: Any
    if options:
        made = ui.select(list(options), value=value, label=said, with_input=False, new_value_mode=None)
    elif lines > 1:
        made = ui.textarea(said, value=value).props(f"rows={lines}")
    elif number:
        made = ui.number(said, value=float(value or 0), min=0)
    else:
        made = ui.input(said, value=value)
    return made.props("outlined dense").classes(classes)


def button(said: str, act: Callable[[], Any], kind: str = "") -> Any:
    """A button with words on it."""
    return ui.button(said, on_click=act, color=None).props("flat no-caps").classes(f"button {kind}".strip())
