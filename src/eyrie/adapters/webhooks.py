"""One HTTP request to an address outside of Eyrie, as a delivery needs it. Blocking: for threads.

Redirects are not followed, at most BODY_MAX bytes of a reply are read, and each request has a deadline per socket
operation and a whole one between them.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

BODY_MAX = 65_536
TIMEOUT_S = 10.0


class WebhookFailed(Exception):
    """There was no answer, or not in HTTP; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and the beginning of the body."""

    status: int
    body: bytes


def send(url: str, method: str, headers: Mapping[str, str], body: bytes, timeout_s: float = TIMEOUT_S) -> Answer:
    """Send a request. Raises WebhookFailed."""
    parts = urlsplit(url)
    try:
        connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout_s)
    except ValueError as error:
        raise WebhookFailed(f"{url[:200]} is no address: {error}") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body, {"User-Agent": "Eyrie", "Connection": "close", **headers})
        reply = connection.getresponse()
        return Answer(reply.status, reply.read(BODY_MAX))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WebhookFailed(f"{type(error).__name__}: {error}"[:500]) from None
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None, timeout_s: float) -> http.client.HTTPConnection:
    if not host:
        raise ValueError("it names no host")
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
    if scheme != "http":
        raise ValueError("it is neither http nor https")
    return http.client.HTTPConnection(host, port, timeout=timeout_s)
