"""The data directory as the door sees it: its format, the root key, and `env.json`, which tells what runs."""

from __future__ import annotations

import json
import secrets
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyrie.adapters import durable
from eyrie.adapters.clock import SystemClock
from eyrie.cli.errors import CommandError
from eyrie.settings import Settings, SettingsError

FORMAT = 1
_OURS_BEFORE_VERSION = frozenset({"eyrie.lock", "run", "logs", "lost+found"})


@dataclass(frozen=True, slots=True)
class Credential:
    """One access key of credentials.json."""

    access_key_id: str
    secret_access_key: str
    account: str


def flag(data: Path | None, option: str = "--data") -> str:
    """The option that a command printed for people needs, to be meant for this Eyrie; "" for the default directory."""
    return "" if data in (None, Settings().data) else f" {option} {shlex.quote(str(data))}"


def make(data: Path) -> None:
    """Create the directory and the folders that every process expects. Raises CommandError where that cannot be."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("run", "logs"):
            (data / folder).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot use the data directory {data}: {error.strerror}") from None


def check_ours(data: Path) -> None:
    """Raises CommandError for a folder that holds something else, so that `--data ~` does no harm."""
    if not data.is_dir() or (data / "version").exists():
        return
    strangers = [p.name for p in data.iterdir() if not p.name.startswith(".") and p.name not in _OURS_BEFORE_VERSION]
    if strangers:
        raise CommandError(f"{data} is not empty and is no data directory of Eyrie (it holds {sorted(strangers)[0]!r})")


def check_version(data: Path) -> None:
    """Write the format of a new directory. Raises CommandError for one that a newer Eyrie wrote."""
    path = data / "version"
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        write_whole(path, f"{FORMAT}\n", 0o644)
        return
    if not text.isdigit():
        raise CommandError(f"{path} does not hold a format number but {text[:20]!r}")
    if int(text) > FORMAT:
        raise CommandError(
            f"{data} was written by a newer Eyrie (format {text}, not {FORMAT}): upgrade, or use another --data"
        )


def ensure_credentials(data: Path, account: str) -> Path:
    """The path of credentials.json, with a random root key in it from the first start on."""
    path = data / "credentials.json"
    if not path.exists():
        letters = string.ascii_uppercase + "234567"
        key_id = "AKIA" + "".join(secrets.choice(letters) for _ in range(16))
        fields = {"access_key_id": key_id, "secret_access_key": secrets.token_urlsafe(30), "account": account}
        write_whole(path, json.dumps([fields], indent=2) + "\n", 0o600)
    return path


def credential(data: Path) -> Credential:
    """The root key. Raises CommandError where no Eyrie ever ran, or where it may not be read."""
    path = data / "credentials.json"
    try:
        first = json.loads(path.read_text())[0]
        return Credential(first["access_key_id"], first["secret_access_key"], first["account"])
    except FileNotFoundError:
        raise CommandError(f"no Eyrie has run with the data directory {data}: start one with `eyrie up`") from None
    except PermissionError:
        raise CommandError(f"{path} may be read only by the user who runs Eyrie") from None
    except (ValueError, LookupError, TypeError):
        raise CommandError(f"{path} cannot be understood: it should hold a list of access keys") from None


def running_env(data: Path) -> dict[str, Any]:
    """What the last `eyrie up` wrote about itself. Raises CommandError where none ever did."""
    try:
        found = json.loads((data / "env.json").read_text())
    except FileNotFoundError:
        raise CommandError(f"no Eyrie has run with the data directory {data}: start one with `eyrie up`") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{data / 'env.json'} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise CommandError(f"{data / 'env.json'} cannot be understood")
    return found


def running_settings(asked: Settings) -> Settings:
    """The settings that the running Eyrie was started with; what was asked for where none runs or ever did."""
    try:
        return Settings.from_env(running_env(asked.data)["settings"])
    except (CommandError, LookupError, TypeError, SettingsError):
        return asked


def time_scale(data: Path | None) -> float:
    """How fast the clock of decisions of the Eyrie of a directory runs; 1 where there is none, or it does not say."""
    if data is None or not (data / "env.json").exists():
        return 1.0
    return float(running_env(data).get("settings", {}).get("EYRIE_TIME_SCALE", 1.0))


def clock_of(data: Path | None) -> SystemClock:
    """The clock of decisions as the Eyrie of a directory has it: metrics, stories and bills go by it."""
    return SystemClock(time_scale(data))


def write_env(data: Path, env: Mapping[str, Any]) -> None:
    """Write env.json, whole."""
    write_whole(data / "env.json", json.dumps(env, indent=2) + "\n", 0o600)


def write_whole(path: Path, text: str, mode: int) -> None:
    """Write a file so that a crash leaves either the old one or the new one; once this returns, the new one."""
    durable.write_lasting(path, text.encode(), mode)
