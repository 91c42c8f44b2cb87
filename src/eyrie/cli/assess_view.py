"""What a person sees of an assessment on the terminal: grades with reasons, what each fault cost, a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eyrie.cli.assess_page import name_of, worst_of
from eyrie.cli.load_view import ms
from eyrie.cli.screen import show
from eyrie.domain.assessment import OVER, Assessment, Change, FaultRun

_COLOURS = {"A": "green", "B": "green", "C": "yellow", "D": "yellow", "E": "red", "F": "red"}


def show_assessment(found: Assessment, changes: Sequence[Change], page: Path) -> None:
    """Print it."""
    show(Text(f"{found.endpoint}: {found.grade} ({worst_of(found)}), {found.took_s:.0f} s", style="bold"))
    grades = Table(box=None, pad_edge=False, show_header=False)
    for grade in found.grades:
        letter = Text(grade.letter, style=_COLOURS.get(grade.letter, "dim"))
        grades.add_row(letter, grade.measure, Text(grade.why))
    show(grades)
    told = found.performance
    if told is not None and told.at_80 is not None:
        usd = "no price" if told.usd_a_million is None else f"{told.usd_a_million:.3g} USD a million"
        show(
            Text(
                f"saturation {told.saturation_rps:,.0f}/s; at 80 %: p50 {told.at_80.p50_ms} ms, "
                f"p99 {told.at_80.p99_ms} ms, "
                f"{told.rows_a_minute:,.0f} rows/min, {told.mb_a_second:.3g} MB/s, {usd}"
            )
        )
    if found.faults:
        show(_faults(found.faults), whole=True)
    for run in found.faults:
        if run.skipped and run.skipped != OVER:
            show(Text(f"not injected: {name_of(run)}: {run.skipped}", style="yellow"))
    if found.left_out:
        show(Text(f"left out, since the time (--time) was over: {'; '.join(found.left_out)}", style="yellow"))
    if changes:
        show(_changes(changes), whole=True)
    for text in found.missing:
        show(Text(f"this host does not offer {text}", style="dim"))
    show(Text(f"report: {page}"))


def _faults(runs: Sequence[FaultRun]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("fault", "noticed", "whole after", "recovered", "lost", "p99 before", "p99 during", "same answers"):
        table.add_column(name, justify="left" if name == "fault" else "right", no_wrap=True)
    for run in (one for one in runs if not one.skipped):
        table.add_row(
            name_of(run),
            _seconds(run.detect_s, "-"),
            _seconds(run.whole_s, "not whole"),
            _seconds(run.recover_s, "never"),
            f"{run.failed} of {run.requests:,}",
            ms(None if run.p99_before_ms is None else run.p99_before_ms * 1000),
            ms(None if run.p99_during_ms is None else run.p99_during_ms * 1000),
            f"{run.answers_same} of {run.answers}" if run.answers else "-",
        )
    return table


def _changes(changes: Sequence[Change]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("against the earlier one", "before", "now", ""):
        table.add_column(name, justify="left" if name.startswith("against") else "right", no_wrap=True)
    for one in changes:
        values = ("-" if value is None else f"{value:,.4g} {one.unit}" for value in (one.before, one.after))
        table.add_row(
            one.name, *values, Text(one.verdict, style={"worse": "red", "better": "green"}.get(one.verdict, ""))
        )
    return table


def show_history(kept: Sequence[Mapping[str, Any]]) -> None:
    """Those that were kept, a row each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("at", "grade", "saturation/s", "p99 at 80 %", "good requests", "slowest recovery"):
        table.add_column(name, justify="left" if name in ("at", "grade") else "right", no_wrap=True)
    for one in kept:
        told, available = one.get("performance") or {}, one.get("availability") or {}
        recovered = [run["recover_s"] for run in one.get("faults", []) if not run["skipped"]]
        slowest = "-" if not recovered else "never" if None in recovered else f"{max(recovered):.2f} s"
        point, p99 = told.get("saturation_rps"), (told.get("at_80") or {}).get("p99_ms")
        table.add_row(
            one["at"],
            one["grade"],
            "-" if point is None else f"{point:,.0f}",
            "-" if p99 is None else f"{p99:g} ms",
            f"{available['of_requests']:.4%}" if available else "-",
            slowest,
        )
    show(table, whole=True)


def _seconds(value: float | None, absent: str) -> str:
    return absent if value is None else f"{value:.2f} s"
