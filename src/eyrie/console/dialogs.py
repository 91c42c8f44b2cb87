"""Questions before something is done: what will happen in words, then yes or no. What goes wrong is told there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from eyrie.console.client import Trouble
from eyrie.console.desk import Busy
from eyrie.console.frame import Frame, Live, button
from eyrie.console.markup import Html, note, tag

Act = Callable[[], Awaitable[str]]  # does it; returns what to say afterwards


class Question:
    """A dialog with a title, what it means, fields of the caller's, and two buttons."""

    def __init__(self, frame: Frame, title: str, meaning: object, yes: str, act: Act, risky: bool = False) -> None:
        self._frame, self._act = frame, act
        self.dialog = ui.dialog().props(f'aria-label="{title}"')
        with self.dialog, ui.element("div").classes("dialog"):
            ui.html(tag("h2", title), sanitize=False)
            self._meaning = Live(meaning, classes="hint")
            self.fields = ui.element("div")
            self._trouble = Live()
            with ui.element("div").classes("buttons").style("justify-content: flex-end; margin-top: 14px"):
                button("Cancel", self.dialog.close)
                self._yes = button(yes, self._do, "main risk" if risky else "main")

    def open(self, meaning: object | None = None) -> None:
        """Ask."""
        if meaning is not None:
            self._meaning.show(meaning)
        self._trouble.show(Html(""))
        self.dialog.open()

    async def _do(self) -> None:
        self._yes.disable()
        try:
            said = await self._act()
        except (Trouble, Busy, ValueError) as trouble:
            self._trouble.show(note(str(trouble), "error"))
        else:
            self.dialog.close()
            with self.dialog.parent_slot.parent if self.dialog.parent_slot else self.dialog:
                ui.notify(said, type="positive", position="top")
        finally:
            self._yes.enable()
