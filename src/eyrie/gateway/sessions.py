"""Sticky sessions without a table: the session id that a client holds says itself which target holds the session.

A container that begins a session answers `ID; Expires=TIME`. What the client gets in place of ID is

    ID-TARGET-EXPIRES-MAC    target: base32 of its name; expires: seconds since the epoch; MAC: HMAC-SHA256, 16 bytes

signed for the endpoint, so that any gateway worker, also one that has just been started, finds the session, and nobody
can make up an id, prolong a session, or enter somebody else's. The container gets its own ID back with each request.
What ends a session is its time, its container (`closed`), or the end of its target; the workers remember nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

NEW = b"NEW_SESSION"
_BEGUN = b"x-amzn-sagemaker-new-session-id"
_CLOSED = b"x-amzn-sagemaker-closed-session-id"
ID_CHARS_MAX = 128  # of a container's own id: with what is added it must stay within the API's 256
LASTS_S = 20 * 60  # a session whose container names no end

_ID = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_EXPIRES = re.compile(r";\s*expires=([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)", re.IGNORECASE)
_TOKEN_CHARS_MAX = 256


class SessionError(ValueError):
    """A session id that leads nowhere, or one that a container may not give; the message says why."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is under way."""

    token: str  # the id that the client holds
    container_id: str  # the id that the container gave it
    target: str  # who holds it
    expires_s: int


def signing_key(credentials: Path) -> bytes:
    """The key of all workers of this Eyrie, from DATA/credentials.json. Raises OSError."""
    return hmac.digest(credentials.read_bytes(), b"eyrie sessions", "sha256")


class Sessions:
    """Makes the ids of sessions and reads them back."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def begin(self, said: str, slug: str, target: str, now_s: int) -> Session:
        """The session that a container has begun: `said` is its X-Amzn-SageMaker-New-Session-Id. Raises SessionError
        for an id that the API does not allow.
        """
        container_id, separator, _ = said.partition(";")
        container_id = container_id.strip()
        if not _ID.fullmatch(container_id) or len(container_id) > ID_CHARS_MAX:
            shown = ascii(container_id[:ID_CHARS_MAX])
            raise SessionError(f"a session id must be at most {ID_CHARS_MAX} letters, digits and hyphens, not {shown}")
        expires_s = now_s + LASTS_S
        if separator:
            found = _EXPIRES.fullmatch(said[said.index(";") :].strip())
            if found is None:
                raise SessionError("what follows a session id must be Expires=YYYY-MM-DDThh:mm:ssZ")
            expires_s = _seconds(found[1])
        place = b32encode(target.encode()).decode().rstrip("=").lower()
        signed = f"{container_id}-{place}-{expires_s}"
        return Session(f"{signed}-{self._mac(slug, signed)}", container_id, target, expires_s)

    def find(self, token: str, slug: str, now_s: int) -> Session:
        """The session of an id that a client sent. Raises SessionError."""
        signed, _, mac = token.rpartition("-")
        parts = signed.rsplit("-", 2)
        good = len(token) <= _TOKEN_CHARS_MAX and len(parts) == 3 and token.isascii()
        if not good or not hmac.compare_digest(self._mac(slug, signed), mac):
            raise SessionError(f"Session {token[:_TOKEN_CHARS_MAX]!a} not found.")
        container_id, place, expires = parts
        if now_s >= int(expires):
            raise SessionError(f"Session {token} has expired.")
        target = b32decode(place.upper() + "=" * (-len(place) % 8)).decode()
        return Session(token, container_id, target, int(expires))

    def _mac(self, slug: str, signed: str) -> str:
        return hmac.digest(self._key, f"{slug}\n{signed}".encode(), hashlib.sha256)[:16].hex()


def expiry(session: Session) -> str:
    """`ID; Expires=TIME`, as a client is told of a new session."""
    at = datetime.fromtimestamp(session.expires_s, UTC)
    return f"{session.token}; Expires={at:%Y-%m-%dT%H:%M:%SZ}"


def session_lines(
    headers: Iterable[tuple[bytes, bytes]],
    session: Session | None,
    sessions: Sessions,
    slug: str,
    target: str,
    now_s: int,
) -> bytes:
    """The header lines of a reply that tell of a session begun or closed. Raises SessionError for an id that no session
    can have.
    """
    lines = b""
    for name, value in headers:
        said = value.decode("latin-1").strip()
        if name == _BEGUN:
            lines += b"%b: %b\r\n" % (name, expiry(sessions.begin(said, slug, target, now_s)).encode())
        elif name == _CLOSED and session is not None and said == session.container_id:
            lines += b"%b: %b\r\n" % (name, session.token.encode())
    return lines


def _seconds(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise SessionError(f"the end of a session is no time: {error}") from None
