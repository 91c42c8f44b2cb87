"""`eyrie key`: makes, lists and revokes the API keys of the Open Inference Protocol (`/v2`).

The command itself writes DATA/keys.json, whole, while it holds `keys.lock`: one writer at a time, and it needs no
running Eyrie. Gateway workers see the new file within a second.
"""

from __future__ import annotations

import os
import re
import secrets
import string
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eyrie.adapters import process_lock
from eyrie.cli import data as datadir
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.wire.api_keys import KEYS_MAX, ApiKey, KeysError, digest, keys_text, read_keys

_LETTERS = string.ascii_lowercase + "234567"
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WAIT_S = 10.0
_AT = "%Y-%m-%d %H:%M:%S"


def create(data: Path, region: str, endpoints: list[str], expires: str | None, as_json: bool = False) -> None:
    """Make a key and print it, alone on standard output: it is shown this once. Raises CommandError."""
    account = datadir.credential(data).account
    now_ms = time.time_ns() // 1_000_000
    for name in endpoints:
        if not _NAME.fullmatch(name):
            raise CommandError(f"{name!r} is no name of an endpoint", code=2)
    key_id = "".join(secrets.choice(_LETTERS) for _ in range(10))
    text = f"eyrie_{key_id}_{secrets.token_urlsafe(32)}"
    until_ms = None if expires is None else expiry_ms(expires, now_ms)
    key = ApiKey(key_id, digest(text.encode()), account, region, tuple(endpoints), now_ms, until_ms)

    def add(keys: list[ApiKey]) -> list[ApiKey]:
        kept = [known for known in keys if not known.expired(now_ms)] if len(keys) >= KEYS_MAX else keys
        if len(kept) >= KEYS_MAX:
            raise CommandError(f"there are {KEYS_MAX} keys already: revoke some")
        return [*kept, key]

    _change(data, add)
    if as_json:
        print_document({**_plain(key, now_ms), "key": text})
        return
    print(text)
    what = ", ".join(endpoints) or "every endpoint"
    print(f"key {key_id} for {what} of account {account} in {region}; it is not shown again", file=sys.stderr)


def revoke(data: Path, key_id: str, as_json: bool = False) -> None:
    """Remove a key, named by its id or by itself. Raises CommandError where there is none."""
    wanted = key_id.split("_")[1] if key_id.count("_") >= 2 else key_id

    def drop(keys: list[ApiKey]) -> list[ApiKey]:
        kept = [key for key in keys if key.key_id != wanted]
        if len(kept) == len(keys):
            raise CommandError(f"there is no key {wanted}")
        return kept

    _change(data, drop)
    if as_json:
        print_document({"revoked": wanted})
    else:
        print(f"revoked {wanted}")


def show(data: Path, as_json: bool) -> None:
    """Print a row a key, without its secret."""
    datadir.credential(data)
    now_ms = time.time_ns() // 1_000_000
    if as_json:
        print_document([_plain(key, now_ms) for key in _read(data)])
    else:
        Console().print(table(_read(data), now_ms))


def table(keys: list[ApiKey], now_ms: int) -> Table:
    """The keys as rows, oldest first."""
    rows = Table("key", "region", "endpoints", "created (UTC)", "expires (UTC)", box=None)
    for key in keys:
        until = "never" if key.expires_ms is None else _at(key.expires_ms)
        if key.expired(now_ms):
            until += " (expired)"
        rows.add_row(key.key_id, key.region, ", ".join(key.endpoints) or "all", _at(key.created_ms), until)
    return rows


def expiry_ms(text: str, now_ms: int) -> int:
    """The end that `--expires` means: 30s, 15m, 12h, 90d from now, or a date or time in UTC. Raises CommandError."""
    span = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    try:
        until_ms = (
            now_ms + int(span[1]) * _UNITS_S[span[2]] * 1_000
            if span
            else int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)
        )
    except (ValueError, OverflowError):
        raise CommandError(f"--expires {text!r} is neither a span (12h, 90d) nor a date (2027-01-31)", code=2) from None
    if until_ms <= now_ms:
        raise CommandError(f"--expires {text!r} has passed already", code=2)
    return until_ms


def _plain(key: ApiKey, now_ms: int) -> dict[str, Any]:
    """A key for programs: all but its digest."""
    told = {**asdict(key), "expired": key.expired(now_ms)}
    return {name: value for name, value in told.items() if name != "sha256"}


def _at(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1_000, UTC):{_AT}}"


def _read(data: Path) -> list[ApiKey]:
    try:
        return read_keys(data / "keys.json")
    except KeysError as error:
        raise CommandError(str(error)) from None


def _change(data: Path, change: Callable[[list[ApiKey]], list[ApiKey]]) -> None:
    try:
        lock = process_lock.take(data / "keys.lock", _WAIT_S)
    except process_lock.Held as held:
        raise CommandError(f"another `eyrie key` (process {held.pid}) is at work") from None
    try:
        datadir.write_whole(data / "keys.json", keys_text(change(_read(data))), 0o600)
    finally:
        os.close(lock)
