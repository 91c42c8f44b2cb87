"""`run/models.sock`: where gateway workers ask for models of multi-model endpoints. Nobody outside of this host can
reach it, and the socket is Eyrie's user's own, so nothing is signed here.

    POST /eyrie/models/load    {"endpoint": SLUG, "instance": ID, "worker": N, "model": TargetModel}
    POST /eyrie/models/unload  the same

All that ask for one model in one worker share one load, which goes on when they leave. Loads are bounded twice: so many
at once, so many waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from eyrie.control.model_loads import InstanceGone, Loaded, LoadRefused, ModelLoads, Wanted
from eyrie.domain.names import EndpointKey
from eyrie.http1.handlers import BodyTooLarge, Request, Response

log = logging.getLogger(__name__)

LOADS_AT_ONCE = 8
WAITING_MAX = 4_096
BODY_BYTES_MAX = 16_384
SURVEY_PERIOD_S = 10.0
PATHS = (b"/eyrie/models/load", b"/eyrie/models/unload")


class ModelDoor:
    """The handler of models.sock."""

    def __init__(self, loads: ModelLoads) -> None:
        self._loads = loads
        self._threads = ThreadPoolExecutor(LOADS_AT_ONCE, thread_name_prefix="models")
        self._under_way: dict[Wanted, asyncio.Future[Loaded]] = {}
        self._waiting = 0

    async def handle(self, request: Request) -> Response:
        """Answer one worker."""
        if request.method != b"POST" or request.path not in PATHS:
            return _reply(404, {"message": "There is no such path here."})
        try:
            wanted = _read(await request.read(BODY_BYTES_MAX))
        except (ValueError, BodyTooLarge) as error:
            return _reply(400, {"code": "ValidationError", "message": str(error)})
        if self._waiting >= WAITING_MAX:
            return _reply(
                503, {"code": "ServiceUnavailable", "message": "Too many models are being loaded. Try again."}
            )
        self._waiting += 1
        try:
            if request.path == PATHS[0]:
                return await self._answer(lambda: self._load(wanted))
            return await self._answer(lambda: self._unload(wanted))
        finally:
            self._waiting -= 1

    async def survey(self) -> None:
        """Look after what is loaded where, for ever."""
        while True:
            await asyncio.sleep(SURVEY_PERIOD_S)
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._loads.survey)
            except Exception:  # the loop boundary: the next round looks again
                log.exception("the survey of loaded models failed")

    def close(self) -> None:
        """Begin no more loads; those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, work: Callable[[], Any]) -> Response:
        try:
            return _reply(200, await work())
        except LoadRefused as refused:
            told = {"code": refused.code, "message": refused.message, "status": refused.status}
            return _reply(422, told)
        except InstanceGone as gone:
            return _reply(410, {"code": "InstanceGone", "message": str(gone)})
        except OSError as error:
            log.warning("a model could not be loaded: %s", error)
            return _reply(503, {"code": "ServiceUnavailable", "message": f"The model could not be loaded now: {error}"})

    async def _load(self, wanted: Wanted) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        under_way = self._under_way.get(wanted)
        if under_way is None:
            under_way = loop.run_in_executor(self._threads, self._loads.load, wanted)
            self._under_way[wanted] = under_way
            under_way.add_done_callback(lambda done: self._settled(wanted, done))
        return asdict(await asyncio.shield(under_way))

    def _settled(self, wanted: Wanted, done: asyncio.Future[Loaded]) -> None:
        self._under_way.pop(wanted, None)
        if not done.cancelled():
            done.exception()  # taken, also where nobody waits for it any more

    async def _unload(self, wanted: Wanted) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        took_us = await loop.run_in_executor(self._threads, self._loads.unload, wanted)
        return {"key": wanted.key, "unload_us": took_us}


def _read(body: bytes) -> Wanted:
    """Raises ValueError for what cannot be read."""
    told = json.loads(body)
    if not isinstance(told, dict):
        raise ValueError("the body is no object")
    for name, kind in (("endpoint", str), ("instance", str), ("worker", int), ("model", str)):
        if not isinstance(told.get(name), kind):
            raise ValueError(f"{name} is missing or of another kind")
    return Wanted(EndpointKey.from_slug(told["endpoint"]), told["instance"], max(0, told["worker"]), told["model"])


def _reply(status: int, told: dict[str, Any]) -> Response:
    return Response(status, [(b"content-type", b"application/json")], json.dumps(told).encode())
