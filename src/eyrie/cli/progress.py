"""What a long command is doing: one line that changes on a terminal, a line a step elsewhere. On standard error, so
that standard output holds the result alone.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Progress:
    """Steps of a command, each told once; `quiet` tells none."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = self._console.is_terminal and not quiet
        self._status: Status | None = None
        self._said = ""
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        if self._live:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, text: str) -> None:
        """Something was done, or begun: a line that stays."""
        took = time.monotonic() - self._began
        self._console.print(f"[dim]{took:6.1f} s[/dim]  {escape(text)}", soft_wrap=True)

    def now(self, text: str) -> None:
        """How it stands: on a terminal in place, elsewhere a line whenever it changes."""
        if text == self._said:
            return
        self._said = text
        if self._status is not None:
            self._status.update(escape(text))
        elif not self._live:
            self.step(text)
