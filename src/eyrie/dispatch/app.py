"""The dispatch process, wired: asynchronous inference and the SQS API on run/dispatch.sock, over DATA/queue.db.
`eyrie.app` takes the process's lock, then runs `serve`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from eyrie.adapters.clock import RandomIdentity, SystemClock
from eyrie.adapters.group_commit import GroupCommit
from eyrie.adapters.sqlite_file import FileUnusable
from eyrie.dispatch import queue_table, requests
from eyrie.dispatch.accept import Acceptor
from eyrie.dispatch.feed import Feed
from eyrie.dispatch.invoke import Invoker
from eyrie.dispatch.notifier import Notifier
from eyrie.dispatch.queues import Queues
from eyrie.dispatch.runner import Runner
from eyrie.dispatch.spools import Spools
from eyrie.dispatch.storage import Keyring, S3Stream
from eyrie.dispatch.storer import Storer
from eyrie.dispatch.tables import Tables
from eyrie.dispatch.tally import Tally
from eyrie.domain.async_inference import INLINE_BYTES_MAX
from eyrie.http1.handlers import BodyTooLarge, ClientGone, Request, Response
from eyrie.http1.handlers import serve as serve_http
from eyrie.http1.limits import Limits
from eyrie.http1.unix import listen_unix
from eyrie.http1.upstream import Pool
from eyrie.settings import Settings
from eyrie.wire.auth import Verifier
from eyrie.wire.codec import Wire
from eyrie.wire.credentials import Credentials, CredentialsError
from eyrie.wire.credentials import Identity as Signer
from eyrie.wire.dispatch import destination
from eyrie.wire.errors import ApiError, internal_failure, too_large, unavailable, validation
from eyrie.wire.messages import HttpReply, HttpRequest
from eyrie.wire.model import Models

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
RUNTIME = "sagemaker-runtime"
BODY_BYTES_MAX = {RUNTIME: INLINE_BYTES_MAX + 1, "sqs": 4 << 20}  # one more, so that the model's own limit is told
LIMITS = Limits(connections=4_096, idle_ms=120_000)
DRAIN_SHARE = 0.25  # of drain_ms: how long what runs is waited for; it is in the queue, and nothing is lost by a cut
_REGION = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){0,4}")

# Who asks, the host that was asked, the parameters.
Answer = Callable[[Signer, str, dict[str, Any]], Awaitable[dict[str, Any]]]


class Dispatch:
    """The process, made within its event loop. Raises FileUnusable, CredentialsError."""

    def __init__(self, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        data, run = settings.data, settings.data / "run"
        self._settings = settings
        self._clock, identity = SystemClock(settings.time_scale), RandomIdentity()
        credentials = Credentials.load(data / "credentials.json") if settings.auth else Credentials()
        self._verifier = Verifier(credentials, auth=settings.auth, account=settings.account, region=settings.region)
        self._wire = Wire(Models(), lambda: identity.token(32), body_bytes_max=max(BODY_BYTES_MAX.values()))
        self.tally = Tally()
        self.file = GroupCommit(data / "queue.db", requests.SCHEMA + queue_table.SCHEMA, SCHEMA_VERSION)
        self.spools = Spools(data / "async", identity)
        keyring = Keyring(data / "credentials.json" if settings.auth else None)
        self._objects = Pool(loop, str(run / "objects.sock"), idle_max=64)
        self._control = Pool(loop, str(run / "control.sock"), idle_max=16)
        storage = S3Stream(self._objects, keyring)
        self.notifier = Notifier(self.file, self._control, keyring, self.tally, self._clock)
        self.storer = Storer(
            self.file, storage, self.spools, self.tally, self._clock, self._room_again, self.notifier.wake
        )
        self.tables = Tables(data / "routes", loop, self._table_changed)
        self.feed = Feed(run / "feed.sock", self.tables, self.told, partial(self.tally.count, "feed_lines_dropped"))
        invoker = Invoker(storage, self.spools, self.tally, lambda number: requests.body_of(self.file.db, number))
        self.runner = Runner(
            *(self.file, self.tables, invoker, self.storer, self.spools, self.tally, self._clock),
            random.random,
            self.feed.tell_ejected,
        )
        self.acceptor = Acceptor(
            *(self.file, self.tables, self.runner, self.tally, self._clock, identity), self._room_left
        )
        self.queues = Queues(self.file, self._clock, identity, self.tally, self._room_left)
        self._answers: dict[tuple[str, str], Answer] = {(RUNTIME, "InvokeEndpointAsync"): self.acceptor.accept}
        self._answers.update({("sqs", name): answer for name, answer in operations(self.queues).items()})
        self._room = (0.0, 0)  # when the file was measured, and what is left

    # --- requests ---------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Response:
        """Answer one request: an http1 Handler. Refusals are in the client's own protocol."""
        head = _http_request(request)
        try:
            reply = await self._answer(request, head)
        except ApiError as error:
            reply = self._wire.refuse(head, error, request.request_id)
        except BodyTooLarge as error:
            reply = self._wire.refuse(head, too_large(error.limit), request.request_id)
        except sqlite3.Error:
            log.exception("request %s: the queue cannot be written", request.request_id)
            reply = self._wire.refuse(head, unavailable("The queue cannot be written now."), request.request_id)
        except ClientGone:
            raise
        except Exception:  # the boundary of a request: a mistake of ours costs nobody else anything
            log.exception("request %s failed", request.request_id)
            reply = self._wire.refuse(head, internal_failure(), request.request_id)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
        return Response(reply.status, headers, reply.body)

    async def _answer(self, request: Request, head: HttpRequest) -> HttpReply:
        method, path, query = request.method, request.path, request.query
        service = destination(method, path, query, request.header).service
        claim = self._verifier.check_head(method, path, query, request.fields, service, _wall_ms())
        body = await request.read(BODY_BYTES_MAX.get(service, 65_536))
        signer = claim.check_body(body)
        if not _REGION.fullmatch(signer.region):
            raise validation(f"The region of the credential scope is not a region's name: {signer.region[:64]!r}.")
        whole = HttpRequest(head.method, head.path, head.query, head.headers, body)
        call = self._wire.decode(whole, request.request_id)
        answer = self._answers.get((call.service, call.operation))
        if answer is None:
            text = f"{call.operation} of {call.service} is not supported by this Eyrie."
            return self._wire.refuse(call, ApiError("UnknownOperationException", text))
        try:
            return self._wire.encode(call, await answer(signer, head.headers.get("host", ""), call.params))
        except ApiError as error:
            return self._wire.refuse(call, error)

    # --- what is told -----------------------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """What control hears."""
        slugs = {slug for slug, e in self.tables.endpoints.items() if e.route.asynchronous is not None}
        now_ms = self._clock.now_ms()
        endpoints = {}
        for slug in slugs:
            backlog = self.runner.backlog(slug)
            since_ms = requests.oldest_ms(self.file.db, slug) if backlog else None
            age_s = 0.0 if since_ms is None else max(0.0, (now_ms - since_ms) / 1000)
            endpoints[slug] = {
                "backlog": backlog,
                "instances": self.tables.endpoints[slug].instances,
                "age_s": age_s,
            }
        return {
            "at_s": int(time.time()),
            "endpoints": endpoints,
            "measured": self.tally.take(),
            "counters": dict(self.tally.counts),
            "gauges": {"running": self.runner.running, "storing": self.storer.waiting},
        }

    def _table_changed(self, slug: str) -> None:
        self.runner.stir(slug)

    def _room_again(self) -> None:
        self.runner.stir_all()

    def _room_left(self) -> int:
        """Bytes that the queue may still grow by; looked at once a second."""
        now_s = time.monotonic()
        if now_s - self._room[0] >= 1.0:
            (pages,) = self.file.db.execute("PRAGMA page_count").fetchone()
            (free,) = self.file.db.execute("PRAGMA freelist_count").fetchone()
            (size,) = self.file.db.execute("PRAGMA page_size").fetchone()
            self._room = (now_s, self._settings.queue_bytes_max - (pages - free) * size)
        return self._room[1]

    # --- the process ------------------------------------------------------------------------------------------------

    def start(self) -> list[asyncio.Task[None]]:
        """Take up what an earlier process left; what goes on until `close`."""
        left = self.spools.tidy(set(requests.spools(self.file.db)))
        if left:
            log.info("removed %d unfinished results", left)
        self.tables.read_all()
        self.runner.stir_all()
        works = (
            *(self.feed.run(), self.feed.beat(), self.runner.sweep(), self.queues.sweep()),
            *(self.storer.resume(), self.notifier.run()),
        )
        return [asyncio.get_running_loop().create_task(work) for work in works]

    async def run(self) -> None:
        """Serve until SIGTERM. What is durable is not waited for: the next process brings it to its end."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        works = self.start()
        path = self._settings.data / "run" / "dispatch.sock"
        server = await serve_http(self.handle, listen_unix(str(path)), LIMITS)
        log.info("dispatch serves on %s", path)
        await _until(stop, works)
        drain_ms = int(self._settings.drain_ms * DRAIN_SHARE)
        await server.close(drain_ms)
        await self.close(works, drain_ms / 1000)
        path.unlink(missing_ok=True)

    async def close(self, works: list[asyncio.Task[None]], patience_s: float) -> None:
        """End what `start` began, and wait so long for what is under way."""
        await self.runner.close(patience_s)
        await self.storer.close(patience_s)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        for pool in (self._objects, self._control):
            pool.close()
        self.tables.close()
        self.file.close()


async def serve(settings: Settings) -> None:
    """Run dispatch until SIGTERM. Raises SystemExit with one line where a file cannot be used."""
    try:
        dispatch = Dispatch(settings)
    except (FileUnusable, CredentialsError) as error:
        raise SystemExit(str(error)) from None
    await dispatch.run()


def operations(queues: Queues) -> dict[str, Answer]:
    """The operations of the SQS API."""
    return {
        "CreateQueue": queues.create_queue,
        "GetQueueUrl": queues.get_queue_url,
        "ListQueues": queues.list_queues,
        "DeleteQueue": queues.delete_queue,
        "PurgeQueue": queues.purge_queue,
        "GetQueueAttributes": queues.get_queue_attributes,
        "SetQueueAttributes": queues.set_queue_attributes,
        "SendMessage": queues.send_message,
        "SendMessageBatch": queues.send_message_batch,
        "ReceiveMessage": queues.receive_message,
        "DeleteMessage": queues.delete_message,
        "DeleteMessageBatch": queues.delete_message_batch,
        "ChangeMessageVisibility": queues.change_message_visibility,
        "ChangeMessageVisibilityBatch": queues.change_message_visibility_batch,
    }


async def _until(stop: asyncio.Event, works: list[asyncio.Task[None]]) -> None:
    """Wait for a stop; what went wrong in a work is raised: the process ends, and is started anew."""
    told = asyncio.create_task(stop.wait())
    going: set[asyncio.Task[Any]] = {told, *works}
    while told in going:
        done, going = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        for work in done:
            work.result()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _http_request(request: Request) -> HttpRequest:
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.fields.items()}
    return HttpRequest(
        request.method.decode("latin-1"), request.path.decode("latin-1"), request.query.decode("latin-1"), fields
    )
