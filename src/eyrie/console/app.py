"""The console's process: NiceGUI below /console on run/console.sock, behind the door.

The browser's channel is socket.io over plain requests (long polling), since the gateway passes requests on and no
upgraded connections.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from eyrie.console.desk import Desk, new_desk
from eyrie.console.door import ROOT, Door
from eyrie.http1.unix import listen_unix
from eyrie.settings import Settings

log = logging.getLogger(__name__)

_REQUESTS_MAX = 1_000  # at once; each open page holds one
_LEAVE_S = 1  # for what is being answered at the end: a long poll would wait for its time


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM."""
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(settings.data / "run" / "console"))
    began = time.monotonic()
    import uvicorn

    desk = new_desk(settings)
    app = Door(application(desk), desk)
    path = settings.data / "run" / "console.sock"
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        http="httptools",
        lifespan="on",
        limit_concurrency=_REQUESTS_MAX,
        timeout_graceful_shutdown=_LEAVE_S,
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    sock = listen_unix(str(path), mode=0o600)
    log.info("console serves after %.1f s", time.monotonic() - began)
    try:
        await server.serve(sockets=[sock])
    finally:
        desk.close()
        sock.close()
        path.unlink(missing_ok=True)


def application(desk: Desk) -> Any:
    """The pages, mounted below /console."""
    from fastapi import FastAPI
    from nicegui import app, ui

    register(desk)
    app.config.socket_io_js_transports = ["polling"]
    app.config.quasar_config["loadingBar"]["skipHijack"] = True  # polls are no loading that anybody waits for
    shell = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        shell,
        title="Eyrie",
        mount_path=ROOT,
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=30.0,
        show_welcome_message=False,
    )
    return shell


def register(desk: Desk) -> None:
    """Every page at its path."""
    from eyrie.console import (
        audit_page,
        costs_page,
        dashboards_page,
        deploy_page,
        endpoint_page,
        lists_page,
        logs_page,
        metrics_page,
        overview_page,
        recommendation_page,
        shadow_page,
        transform_page,
    )

    pages = (overview_page, endpoint_page, deploy_page, lists_page, metrics_page, logs_page, dashboards_page)
    for part in (*pages, shadow_page, transform_page, recommendation_page, costs_page, audit_page):
        part.register(desk)
