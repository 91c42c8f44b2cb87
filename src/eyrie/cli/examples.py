"""What `--help` shows below a command's words: how it is typed. A test holds each to a command and its options.

The commands about endpoints have theirs beside what they do (`endpoint_commands.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import typer

EXAMPLES: Mapping[str, Sequence[str]] = {
    "up": ("eyrie up", "eyrie up --port 0 --zones a,b --detach"),
    "down": ("eyrie down",),
    "status": ("eyrie status", "eyrie status --json"),
    "env": ('eval "$(eyrie env)"',),
    "logs": ("eyrie logs iris --lines 20", "eyrie logs iris --follow"),
    "advise": (
        "eyrie advise --payload 500MB --processing 3min --requests-per-day 20",
        "eyrie advise --payload 2kB --endpoint iris --traffic recorded:24h",
    ),
    "story": ("eyrie story iris", "eyrie story iris --json"),
    "insights": ("eyrie insights", "eyrie insights iris --json"),
    "compare": ("eyrie compare iris --baseline main",),
    "transform": (
        "eyrie transform churn s3://models/in/ s3://models/out --follow",
        "eyrie transform churn-20261122 --follow",
    ),
    "recommend": ("eyrie recommend churn --payload rows.csv --each-line --type ml.m5.large --type ml.c5.xlarge",),
    "doctor": ("eyrie doctor", "eyrie doctor --json"),
    "simulate": (
        "eyrie simulate --traffic flash:base=20,peak=400 --policy policy.json --policy hpa",
        "eyrie simulate --traffic recorded:24h --endpoint iris --tune",
    ),
    "costs": ("eyrie costs", "eyrie costs --json"),
    "availability": ("eyrie availability iris", "eyrie availability iris --json"),
    "version": ("eyrie version",),
    "key create": ("eyrie key create --endpoint iris --expires 90d",),
    "key list": ("eyrie key list",),
    "key revoke": ("eyrie key revoke KEY-ID",),
    "shadow report": ("eyrie shadow report iris",),
    "capture cat": ("eyrie capture cat s3://captures/iris/",),
    "image add": ("eyrie image add scorer:1 ./scorer --env MODE=fast",),
    "image list": ("eyrie image list",),
    "image remove": ("eyrie image remove scorer:1",),
    "deployment plan": ("eyrie deployment plan iris iris-2 --deployment-config file://canary.json",),
    "deployment show": ("eyrie deployment show iris",),
    "deployment promote": ('eyrie deployment promote iris --why "looked at the errors"',),
    "deployment abort": ('eyrie deployment abort iris --why "latency"',),
    "deployment pause": ("eyrie deployment pause iris",),
    "quota list": ("eyrie quota list",),
    "quota request": ('eyrie quota request "ml.m5.large for endpoint usage" 40',),
    "quota approve": ("eyrie quota approve REQUEST-ID",),
    "quota deny": ("eyrie quota deny REQUEST-ID",),
    "objective set": ("eyrie objective set iris 99.9 --probe row.csv",),
    "objective show": ("eyrie objective show iris",),
    "objective remove": ("eyrie objective remove iris",),
    "maintenance add": ("eyrie maintenance add iris sun/02:00Z 2h", "eyrie maintenance add iris now 30min"),
    "maintenance clear": ("eyrie maintenance clear iris",),
}


def show(app: typer.Typer) -> None:
    """Put the examples below the words of every command that has some here."""
    for words, command in commands_of(app):
        found = EXAMPLES.get(words, ())
        if found and command.callback is not None:
            command.help = "\n\n".join([inspect.getdoc(command.callback) or "", *found])


def commands_of(app: typer.Typer, before: str = "") -> list[tuple[str, typer.models.CommandInfo]]:
    """Every command with the words that call it."""
    found = []
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__.replace("_", "-") if command.callback is not None else "")
        found.append((f"{before}{name}", command))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            found += commands_of(group.typer_instance, f"{before}{group.name or group.typer_instance.info.name} ")
    return found
