"""Who is logged in: a table of sessions in this process's memory, and the signed cookie that names one.

The browser gets a random name and its signature, never a credential. A session ends by logging out, after
LIFETIME_S, when there are too many (the oldest goes), and with the process.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from eyrie.console.client import Client

COOKIE = "eyrie-session"
LIFETIME_S = 12 * 3600.0
SESSIONS_MAX = 200
_NAME_HEX = 64
_MARK_HEX = 64


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in. `client` calls the API with its credentials; `name` is what the cookie names."""

    name: str
    client: Client
    until_s: float


@dataclass(slots=True)
class Sessions:
    """The sessions that are open. `token` gives that many random hex digits."""

    key: bytes
    token: Callable[[int], str]
    _open: dict[str, Session] = field(default_factory=dict)

    def open(self, client: Client, now_s: float) -> tuple[Session, str]:
        """A new session and its cookie."""
        self._forget(now_s)
        while len(self._open) >= SESSIONS_MAX:
            del self._open[next(iter(self._open))]
        name = self.token(_NAME_HEX)
        session = self._open[name] = Session(name, client, now_s + LIFETIME_S)
        return session, signed(self.key, name)

    def find(self, cookie: str | None, now_s: float) -> Session | None:
        """The session that a cookie names; None for a forged, ended or unknown one."""
        name = opened(self.key, cookie or "")
        session = self._open.get(name) if name else None
        if session is not None and session.until_s <= now_s:
            del self._open[session.name]
            return None
        return session

    def close(self, session: Session) -> None:
        """Log out."""
        self._open.pop(session.name, None)

    def __len__(self) -> int:
        return len(self._open)

    def _forget(self, now_s: float) -> None:
        for name in [name for name, session in self._open.items() if session.until_s <= now_s]:
            del self._open[name]


def signed(key: bytes, name: str) -> str:
    """The cookie of a session's name."""
    return f"{name}.{hmac.new(key, name.encode(), hashlib.sha256).hexdigest()}"


def opened(key: bytes, cookie: str) -> str | None:
    """The name within a cookie that we signed; None for any other."""
    if len(cookie) != _NAME_HEX + 1 + _MARK_HEX or not cookie.isascii():
        return None
    name = cookie[:_NAME_HEX]
    return name if hmac.compare_digest(signed(key, name), cookie) else None
