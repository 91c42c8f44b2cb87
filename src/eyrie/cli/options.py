"""What several files of commands share: the options that mean the same everywhere, and how they become settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from eyrie.cli.errors import CommandError
from eyrie.settings import Settings, SettingsError

Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data directory [EYRIE_DATA, else ~/.eyrie].")]
Where = Annotated[
    Path | None, typer.Option("--eyrie", metavar="DIR", help="Data directory of the Eyrie [EYRIE_DATA, else ~/.eyrie].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def settings_of(data: Path | None) -> Settings:
    """The settings of the environment, for this data directory. Raises CommandError."""
    try:
        return Settings.from_env(os.environ).with_flags(data=None if data is None else data.expanduser().absolute())
    except SettingsError as error:
        raise CommandError(str(error), code=2) from None


def confirmed(sure: bool, question: str) -> None:
    """Ask before something is broken or deleted. Raises CommandError where the answer is no, or nobody can answer."""
    if sure:
        return
    if not sys.stdin.isatty():
        raise CommandError("this asks before it acts: add --yes where nobody can answer", code=2)
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was done")


def completed_endpoints(begun: str) -> list[str]:
    """Names of endpoints for the shell's completion; none where nothing answers."""
    from eyrie.cli.public import Public

    try:
        public = Public.of(settings_of(None).data, timeout_s=2.0)
        found = public.ask("sagemaker", "list_endpoints", NameContains=begun, MaxResults=100)["Endpoints"]
    except CommandError:
        return []
    return [name for name in (str(one["EndpointName"]) for one in found) if name.startswith(begun)]


Endpoint = Annotated[str, typer.Argument(help="Name of the endpoint.", autocompletion=completed_endpoints)]
