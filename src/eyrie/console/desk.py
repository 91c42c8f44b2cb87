"""What every page works with: the settings, the open sessions, and a pool of threads for calls of the API."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

from botocore.session import Session as BotoSession

from eyrie.console.client import Client, Keys
from eyrie.console.sessions import Session, Sessions
from eyrie.settings import Settings

_THREADS = 12
_WAITING_MAX = 128  # calls that run or wait for a thread; a page beyond keeps what it shows
T = TypeVar("T")


class Busy(Exception):
    """Too many calls wait already."""


@dataclass(slots=True)
class Desk:
    """One console."""

    settings: Settings
    sessions: Sessions
    _botocore: BotoSession = field(default_factory=BotoSession)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="api"))
    _clients: WeakValueDictionary[tuple[Keys, str], Client] = field(default_factory=WeakValueDictionary)
    _waiting: int = 0
    _open_to_all: Session | None = None

    def client(self, keys: Keys, region: str) -> Client:
        """A client of the API with these credentials: the one that another session of theirs has, while it has one."""
        found = self._clients.get((keys, region))
        if found is None:
            found = self._clients[(keys, region)] = Client(self._botocore, address(self.settings), region, keys)
        return found

    def session_of(self, cookie: str | None) -> Session | None:
        """Whose request this is. With auth off everybody is the default account."""
        if self.settings.auth:
            return self.sessions.find(cookie, time.monotonic())
        if self._open_to_all is None:
            keys = Keys(self.settings.account, "none-is-asked-for")
            client = self.client(keys, self.settings.region)
            self._open_to_all = Session("", client, float("inf"))
        return self._open_to_all

    async def ask(self, question: Callable[[], T]) -> T:
        """Run a call in a thread. Raises Trouble, or Busy."""
        if self._waiting >= _WAITING_MAX:
            raise Busy("The console is too busy to ask for this now.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, question)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let what runs end by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def new_desk(settings: Settings) -> Desk:
    """A console without sessions; its signing key is new, so that cookies of an earlier process are worth nothing."""
    return Desk(settings, Sessions(secrets.token_bytes(32), lambda digits: secrets.token_hex(digits // 2)))


def address(settings: Settings) -> str:
    """Where the API is: the one port. A wildcard address is reached on the loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def cookies(header: str) -> Mapping[str, str]:
    """The cookies of a request; of a name that comes twice the first."""
    found: dict[str, str] = {}
    for part in header.split(";"):
        name, is_one, value = part.strip().partition("=")
        if is_one:
            found.setdefault(name, value)
    return found
