"""The console's door: every request passes here first. Who is it, and may it come in? Log-in and log-out.

Open to all are the log-in page, the style sheet, the script and the libraries. For everything else there must be a
session: a page without one leads to the log-in, anything else is 401. What another site sends is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote

from eyrie.console import assets, login_page
from eyrie.console.client import AWAY, Keys, Trouble
from eyrie.console.desk import Busy, Desk, cookies
from eyrie.console.sessions import COOKIE, LIFETIME_S

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

ROOT = "/console"
_FORM_BYTES_MAX = 8_192
BODY_BYTES_MAX = 2 * 1024**3 + 65_536  # of anything: a model file and what is around it
_TRIES_AT_ONCE = 4  # log-ins that are looked at at the same time; others wait
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_SAFETY: Headers = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


class Door:
    """ASGI: stands before the pages."""

    def __init__(self, app: App, desk: Desk) -> None:
        self._app = app
        self._desk = desk
        self._trying = asyncio.Semaphore(_TRIES_AT_ONCE)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer, or let the request in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        if method not in ("GET", "HEAD") and headers.get(b"sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            await _answer(send, 403, b"Another site may not ask for this.")
            return
        if not 0 <= _length(headers) <= BODY_BYTES_MAX:
            await _answer(send, 413, b"That is too large, or does not say how large it is.")
            return
        jar = cookies(headers.get(b"cookie", ""))
        asset = assets.find(path)
        if asset is not None:
            await _answer(
                send,
                200,
                asset.content,
                [(b"content-type", asset.kind), (b"cache-control", b"public, max-age=31536000, immutable")],
            )
        elif path == f"{ROOT}/login":
            await self._log_in(scope, receive, send, jar, headers)
        elif path == f"{ROOT}/logout" and method == "POST":
            await self._log_out(send, jar)
        elif _open_to_all(path):
            await self._app(scope, receive, _safely(send))
        else:
            await self._let_in(scope, receive, send, jar, headers)

    async def _let_in(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, jar: Any, headers: Any
    ) -> None:
        session = self._desk.session_of(jar.get(COOKIE))
        if session is not None:
            scope.setdefault("state", {})["session"] = session
            scope["state"]["scheme"] = "dark" if jar.get("eyrie-scheme") == "dark" else "light"
            await self._app(scope, receive, _safely(send))
        elif scope["method"] == "GET" and "text/html" in headers.get(b"accept", ""):
            wanted = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
            await _lead(send, f"{ROOT}/login?next={quote(wanted, safe='')}")
        else:
            await _answer(send, 401, b"Log in first.")

    # --- log-in and log-out -------------------------------------------------------------------------------------------

    async def _log_in(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, jar: Any, headers: Any
    ) -> None:
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        wanted = inside(asked.get("next", [ROOT])[0])
        if self._desk.session_of(jar.get(COOKIE)) is not None:
            await _lead(send, wanted)
        elif scope["method"] != "POST":
            await self._show(send, 200, wanted)
        else:
            form = parse_qs((await _body(receive)).decode("utf-8", "replace"))
            await self._try(send, form, inside(form.get("next", [wanted])[0]))

    async def _try(self, send: Send, form: dict[str, list[str]], wanted: str) -> None:
        """Whether the API takes these credentials is for the API to say."""
        keys = Keys(_line(form, "key"), _line(form, "secret"))
        region = _line(form, "region") or self._desk.settings.region
        if not keys.access_key_id or not keys.secret_access_key:
            await self._show(
                send, 400, wanted, "Both the access key and the secret are needed.", keys.access_key_id, region
            )
            return
        client = self._desk.client(keys, region)
        try:
            async with self._trying:
                await self._desk.ask(client.who)
        except (Trouble, Busy) as trouble:
            status = 503 if getattr(trouble, "code", "") == AWAY or isinstance(trouble, Busy) else 403
            said = str(trouble) if status == 503 else f"These credentials are not taken: {trouble}"
            await self._show(send, status, wanted, said, keys.access_key_id, region)
            return
        _, cookie = self._desk.sessions.open(client, time.monotonic())
        await _lead(send, wanted, [(b"set-cookie", _cookie(cookie, int(LIFETIME_S)))])

    async def _log_out(self, send: Send, jar: Any) -> None:
        session = self._desk.session_of(jar.get(COOKIE))
        if session is not None:
            self._desk.sessions.close(session)
        await _lead(send, f"{ROOT}/login", [(b"set-cookie", _cookie("", 0))])

    async def _show(
        self, send: Send, status: int, wanted: str, trouble: str = "", key: str = "", region: str = ""
    ) -> None:
        page = login_page.page(wanted, trouble, key, region or self._desk.settings.region)
        await _answer(
            send,
            status,
            page.encode(),
            [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")],
        )


def inside(wanted: str) -> str:
    """Where to go after the log-in: only ever a page of ours."""
    ours = wanted == ROOT or wanted.startswith((f"{ROOT}/", f"{ROOT}?"))
    plain = wanted.isprintable() and wanted.isascii() and "\\" not in wanted and "//" not in wanted
    return wanted if ours and plain and not wanted.startswith((f"{ROOT}/login", f"{ROOT}/logout")) else ROOT


def _open_to_all(path: str) -> bool:
    """The libraries that pages load; not what browsers send to a page of theirs."""
    return path.startswith(f"{ROOT}/_nicegui/") and "/client/" not in path


def _length(headers: dict[bytes, str]) -> int:
    """The length of a body; -1 where it is not told."""
    if b"transfer-encoding" in headers:
        return -1
    told = headers.get(b"content-length", "0")
    return int(told) if told.isdigit() and len(told) < 16 else -1


def _cookie(value: str, seconds: int) -> bytes:
    return f"{COOKIE}={value}; Path={ROOT}; Max-Age={seconds}; HttpOnly; SameSite=Lax".encode()


def _line(form: dict[str, list[str]], name: str) -> str:
    return form.get(name, [""])[0].strip()[:256]


async def _body(receive: Receive) -> bytes:
    """A form, as far as it is not too long to be one."""
    body = b""
    while len(body) <= _FORM_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body[:_FORM_BYTES_MAX]


def _safely(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_SAFETY]
        await send(message)

    return sending


async def _lead(send: Send, to: str, more: Headers | None = None) -> None:
    await _answer(send, 303, b"", [(b"location", to.encode()), (b"cache-control", b"no-store"), *(more or ())])


async def _answer(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    head = headers or [(b"content-type", b"text/plain; charset=utf-8")]
    lines = [*head, (b"content-length", str(len(body)).encode()), *_SAFETY]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
