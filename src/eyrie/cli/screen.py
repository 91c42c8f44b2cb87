"""Printing tables: fitted to a terminal, never cut short where a program or a file reads them."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.measure import Measurement

WIDTH_IN_A_PIPE = 240


def show(shown: RenderableType, whole: bool = False) -> None:
    """Print it; `whole` keeps every column at its own width even where the terminal has to break the lines."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_IN_A_PIPE)
    elif whole:
        wanted = Measurement.get(console, console.options.update(max_width=WIDTH_IN_A_PIPE), shown).maximum
        console = Console(width=max(console.width, wanted))
    console.print(shown)
