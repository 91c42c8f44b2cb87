"""Where a page is: a builder of NiceGUI elements, answering at a path below /console."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui
from starlette.requests import Request

PATIENCE_S = 30.0  # in which a busy host builds a page; NiceGUI's own 3 s made it an error


def place(path: str, build: Callable[..., Awaitable[Any]]) -> None:
    """Let a page builder answer at a path. Its parameters are the request and the texts that the path names."""
    names = [name for name in build.__annotations__ if name != "return"]
    build.__annotations__ = {name: Request if name == "request" else str for name in names}
    ui.page(path, response_timeout=PATIENCE_S)(build)
