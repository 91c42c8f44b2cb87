"""The objects process: the S3 API on run/objects.sock. `eyrie.app` takes the process's lock, then runs `serve`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator

from eyrie.adapters.blobs import BlobsUnusable, open_blobs
from eyrie.adapters.sqlite_file import FileUnusable
from eyrie.http1.handlers import serve as serve_http
from eyrie.http1.limits import Limits
from eyrie.http1.unix import listen_unix
from eyrie.objects.router import Router
from eyrie.objects.store import ObjectStore
from eyrie.settings import Settings
from eyrie.wire.auth import Verifier
from eyrie.wire.credentials import Credentials, CredentialsError

log = logging.getLogger(__name__)

SWEEP_PERIOD_S = 3600
# The head holds 2 KB of metadata and a 1024-byte key, three times as long when it is encoded; a client may pause.
LIMITS = Limits(connections=2048, body_idle_ms=60_000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _token(digits: int) -> str:
    return secrets.token_hex((digits + 1) // 2)[:digits]


@contextlib.asynccontextmanager
async def objects_server(settings: Settings, listener: socket.socket) -> AsyncIterator[ObjectStore]:
    """The S3 API on a bound socket, inside the context. Raises BlobsUnusable, FileUnusable, CredentialsError."""
    credentials = Credentials() if not settings.auth else Credentials.load(settings.data / "credentials.json")
    verifier = Verifier(credentials, auth=settings.auth, account=settings.account, region=settings.region)
    store = ObjectStore(settings.data / "objects.db", open_blobs(settings.blobs_url), _token, _now_ms)
    left = await store.tidy()
    if left:
        log.info("removed %d unfinished files of interrupted uploads", left)
    server = await serve_http(Router(store, verifier, _now_ms), listener, LIMITS)
    sweeping = asyncio.create_task(_sweep_for_ever(store))
    try:
        yield store
    finally:
        await server.close(settings.drain_ms)
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping
        await store.close()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was begun (at most `drain_ms`)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    run = settings.data / "run"
    run.mkdir(parents=True, exist_ok=True)
    path = run / "objects.sock"
    try:
        async with objects_server(settings, listen_unix(str(path))):
            log.info("serving S3 on %s", path)
            await stop.wait()
    except (BlobsUnusable, FileUnusable, CredentialsError) as error:  # one line in the log, and no traceback
        raise SystemExit(str(error)) from None
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


async def _sweep_for_ever(store: ObjectStore) -> None:
    while True:
        try:
            found = await store.sweep()
            if found:
                log.info("removed %d blobs that no object names", found)
        except OSError:
            log.exception("a sweep was cut short; the next one goes on")
        await asyncio.sleep(SWEEP_PERIOD_S)
