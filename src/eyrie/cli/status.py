"""`eyrie status`: processes by their locks; endpoints and instances by what control tells, where it answers."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from eyrie.adapters import process_lock
from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient, ControlUnreachable
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import living
from eyrie.cli.screen import show

_STATE_COLOURS = {
    "READY": "green",
    "InService": "green",
    "UNKNOWN": "yellow",
    "FAILED": "red",
    "LOST": "red",
    "Failed": "red",
}


def run(data: Path, as_json: bool) -> None:
    """Print the status. Exit code 1 where nothing runs."""
    running = datadir.running_env(data)
    processes = running_processes(data)
    if not processes:
        raise CommandError(f"nothing runs with the data directory {data}: start it with `eyrie up`")
    told, trouble = _told(data, str(running["region"]))
    if as_json:
        print_document({"processes": processes, "endpoint": running["endpoint"], "trouble": trouble, **told})
        return
    show(Text(f"Eyrie {running['version']} at {running['endpoint']} · data {data}"))
    for table in tables(processes, told):
        show(table, whole=True)
    if trouble:
        show(Text(trouble, style="yellow"))


def running_processes(data: Path) -> dict[str, int]:
    """The pid of each process that holds its lock, by name."""
    found: dict[str, int] = {}
    supervisor = process_lock.holder(data / "eyrie.lock")
    if supervisor is not None:
        found["up"] = supervisor
    for part in living(data):
        found[part.name] = part.pid
        part.close()
    return found


def tables(processes: dict[str, int], told: dict[str, Any]) -> list[RenderableType]:
    """The tables that people see."""
    shown: list[RenderableType] = [_processes(processes)]
    endpoints = told.get("endpoints", [])
    if endpoints:
        shown += [_endpoints(endpoints), _instances(endpoints, int(told.get("now_ms", time.time() * 1000)))]
    elif told:
        shown.append(Text("no endpoints"))
    slots = told.get("slots") or {}
    if slots:
        shown.append(Text(" · ".join(f"{name} slots {count}" for name, count in slots.items())))
    if told.get("warm_kinds"):
        shown.append(_warm_kinds(told["warm_kinds"]))
    return [Group(Text(""), part) for part in shown]


def _told(data: Path, region: str) -> tuple[dict[str, Any], str | None]:
    try:
        return ControlClient(data, region, timeout_s=5.0).status(), None
    except ControlUnreachable:
        return (
            {},
            "control does not answer: endpoints and instances cannot be told; what is routed goes on being served",
        )


def _grid(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _processes(processes: dict[str, int]) -> Table:
    table = _grid("process", "pid")
    for name, pid in processes.items():
        table.add_row(name, str(pid))
    if "up" not in processes:
        table.add_row(Text("up", style="red"), Text("gone: run `eyrie up` again, it takes over", style="red"))
    return table


def _endpoints(endpoints: list[dict[str, Any]]) -> Table:
    table = _grid("endpoint", "region", "status", "variant", "weight", "ready")
    for endpoint in endpoints:
        for number, variant in enumerate(endpoint.get("variants", []) or [{}]):
            first = (
                [endpoint["name"], endpoint["region"], _coloured(endpoint["status"])] if number == 0 else ["", "", ""]
            )
            ready = f"{variant['ready']}/{variant['desired']}" if variant else ""
            table.add_row(
                *first, str(variant.get("name", "")), f"{variant.get('weight', 0):g}" if variant else "", ready
            )
    return table


def _instances(endpoints: list[dict[str, Any]], now_ms: int) -> Table:
    table = _grid("zone", "instance", "endpoint", "variant", "state", "routed", "pid", "isolation", "age")
    rows = [(instance, endpoint["name"]) for endpoint in endpoints for instance in endpoint.get("instances", [])]
    counts = Counter(str(instance["zone"]) for instance, _ in rows)
    last = None
    for instance, endpoint in sorted(rows, key=lambda row: (row[0]["zone"], row[1], row[0]["variant"], row[0]["id"])):
        zone = str(instance["zone"])
        table.add_row(
            f"{zone} ({counts[zone]})" if zone != last else "",
            instance["id"],
            escape(endpoint),
            escape(instance["variant"]),
            _coloured(instance["state"]),
            "yes" if instance.get("routed") else "no",
            str(instance.get("pid") or ""),
            str(instance.get("isolation") or ""),
            age(now_ms - int(instance.get("started_ms") or now_ms)),
        )
        last = zone
    return table


def _warm_kinds(kinds: list[dict[str, Any]]) -> Table:
    """Warm slots by kind; of the starts that found none, or one without their frameworks, also how long they took."""
    table = _grid("warm slots of", "wanted", "wait", "start", "claimed warm", "early", "in part", "missed")
    for row in kinds:
        slow = [f"{row[how]} ({row[f'{how}_worst_ms']} ms)" if row[how] else "0" for how in ("early", "part", "missed")]
        counts = (str(row[name]) for name in ("wanted", "waiting", "starting", "warm"))
        table.add_row(escape(str(row["kind"])), *counts, *slow)
    return table


def _coloured(state: str) -> Text:
    return Text(state, style=_STATE_COLOURS.get(state, ""))


def age(ms: int) -> str:
    """A duration in its one largest sensible unit."""
    seconds = max(0, ms) // 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
