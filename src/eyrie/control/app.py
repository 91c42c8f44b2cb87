"""Control's door: the chain that every API request goes through, in the order of `ControlApp._answer`.

    http1 -> known path? -> head signed? -> body (bounded) -> signature proven -> wire.decode -> dispatch table -> the
operation, in a     thread -> wire.encode -> access log

Whatever is refused on the way is told in the client's own protocol; an exception nobody expected becomes a 500
InternalFailure whose traceback is in the log under the request id. Operations are plain synchronous functions; those
that wait for a thread are bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from eyrie.control import (
    api_quotas,
    availability_door,
    comparison,
    deployment_door,
    exposition,
    image_door,
    insights,
    shadow_report,
    story,
)
from eyrie.control.audit import OWN, Deed, Hears
from eyrie.control.context import Caller, Context
from eyrie.control.dispatch import not_here, table
from eyrie.control.endpoints import Endpoints
from eyrie.control.evidence import no_evidence
from eyrie.control.log_book import LogBook
from eyrie.control.log_queries import LogQueries
from eyrie.decide.alarms import AlarmActions
from eyrie.domain.exposition import CONTENT_TYPE
from eyrie.domain.instance_types import InstanceTypes
from eyrie.domain.names import Scope
from eyrie.http1.handlers import BodyTooLarge, ClientGone, Request, Response
from eyrie.ports import Clock, Conflict, Identity, Metrics, Store
from eyrie.settings import Settings
from eyrie.wire import dispatch as wire_dispatch
from eyrie.wire.api_keys import KeyRefused
from eyrie.wire.auth import Verifier
from eyrie.wire.codec import Wire
from eyrie.wire.credentials import Credentials
from eyrie.wire.credentials import Identity as Signer
from eyrie.wire.errors import ApiError, internal_failure, throttled, too_large, validation
from eyrie.wire.messages import Call, HttpReply, HttpRequest
from eyrie.wire.model import Models

log = logging.getLogger(__name__)
access = logging.getLogger("eyrie.access")

BODY_BYTES_MAX = 4_194_304  # the largest request of these APIs is a pipeline definition of 1 MB
THREADS = 16
OWN_PARAMS_BYTES_MAX = 16_384  # of a request to a path of our own, for the audit
WAITING_MAX = 256  # operations running or waiting for a thread; beyond it ThrottlingException
RACES_MAX = 8  # times that an operation that lost a race is run again
_REGION = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){0,4}")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What control is made of, as far as the API needs it."""

    settings: Settings
    store: Store
    clock: Clock
    identity: Identity
    endpoints: Endpoints
    logs: LogBook
    instance_types: InstanceTypes
    metrics: Metrics
    observe: Callable[[], story.Observation]  # what runs, for /eyrie/status; may take a moment
    queries: LogQueries
    scrape: Callable[[bytes | None, int], bytes] = lambda authorization, now_ms: b""  # for GET /metrics
    wake_jobs: Callable[[], None] = lambda: None  # from any thread: a job was created or changed
    wake_experiments: Callable[[], None] = lambda: None  # likewise an inference experiment
    wake_alarms: Callable[[], None] = lambda: None  # likewise an alarm
    wake_events: Callable[[], None] = lambda: None  # there is something to announce or to deliver
    alarm_actions: AlarmActions = field(default_factory=dict)
    wake_scaling: Callable[[], None] = lambda: None  # likewise a scalable target, or something that it has
    audit: Hears = lambda deed: None  # every call that was answered, and who made it
    availability: availability_door.AvailabilityDoor | None = None  # None: nobody watches it
    deployments: deployment_door.DeploymentDoor = field(
        default_factory=lambda: deployment_door.DeploymentDoor(no_evidence)
    )


class ControlApp:
    """The handler of control.sock. `handle` is an http1 Handler; `close` waits for operations that run."""

    def __init__(
        self,
        surroundings: Surroundings,
        credentials: Credentials,
        models: Models | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`wall_ms` is real time, which signatures are checked against; decisions use the clock of `surroundings`."""
        settings = surroundings.settings
        self._with = surroundings
        self._wire = Wire(models or Models(), lambda: surroundings.identity.token(32), body_bytes_max=BODY_BYTES_MAX)
        self._table = table(self._wire.models, settings)
        self._verifier = Verifier(credentials, auth=settings.auth, account=settings.account, region=settings.region)
        self._wall_ms = wall_ms
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="api")
        self._waiting = 0
        self._answered: Counter[int] = Counter()  # by status class: 2, 4, 5

    def close(self) -> None:
        """Let what runs come to its end."""
        self._threads.shutdown(wait=True)

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        started = time.perf_counter()
        told = "-"
        head = _http_request(request)
        try:
            if head.path.startswith(story.PREFIX):
                told = head.path
                reply = await self._own(request, head)
            elif head.path == exposition.PATH:
                told = head.path
                reply = await self._scrape(request)
            else:
                reply, told = await self._answer(request, head)
        except ApiError as error:
            reply, told = self._wire.refuse(head, error, request.request_id), f"{told} {error.code}"
        except BodyTooLarge as error:
            reply = self._wire.refuse(head, too_large(error.limit), request.request_id)
        except ClientGone:
            raise
        except Exception:  # the process boundary: a defect of ours costs one request, and its story is in the log
            log.exception("request %s failed", request.request_id)
            reply = self._wire.refuse(head, internal_failure(), request.request_id)
        self._answered[reply.status // 100] += 1
        took_ms = (time.perf_counter() - started) * 1000
        access.info("%s %s %s %d %.1fms", request.request_id, head.method, told, reply.status, took_ms)
        return _response(reply)

    async def _answer(self, request: Request, head: HttpRequest) -> tuple[HttpReply, str]:
        """The chain. Returns the reply and what the access log says of it."""
        signer, body = await self._verified(request)
        whole = HttpRequest(head.method, head.path, head.query, head.headers, body)
        call = self._wire.decode(whole, request.request_id)
        told = f"{call.service}.{call.operation}"
        deed = Deed(
            call.service, call.operation, call.params, signer, call.request_id, head.headers.get("user-agent", "")
        )
        try:
            result = await self._run(lambda: self._operate(call, signer))
            reply = self._wire.encode(call, result)
        except ApiError as error:
            self._with.audit(replace(deed, error=(error.code, error.message)))
            return self._wire.refuse(call, error), f"{told} {error.code}"
        except Exception:  # the process boundary, here so that the refusal is in the protocol of the call
            log.exception("request %s failed: %s", request.request_id, told)
            failure = internal_failure()
            self._with.audit(replace(deed, error=(failure.code, failure.message)))
            return self._wire.refuse(call, failure), told
        self._with.audit(deed)
        return reply, told

    async def _verified(self, request: Request, service: str | None = None) -> tuple[Signer, bytes]:
        """Who signed the request, and its body, which is read only once the head is in order. Raises ApiError."""
        method, path, query = request.method, request.path, request.query
        if service is None:
            service = wire_dispatch.destination(method, path, query, request.header).service
        claim = self._verifier.check_head(method, path, query, request.fields, service, self._wall_ms())
        body = await request.read(BODY_BYTES_MAX)
        signer = claim.check_body(body)
        if not _REGION.fullmatch(signer.region):
            raise validation(f"The region of the credential scope is not a region's name: {signer.region[:64]!r}.")
        return signer, body

    async def _run(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run in a thread. What was begun goes on when the client leaves: it may be half done."""
        if self._waiting >= WAITING_MAX:
            raise throttled()
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[dict[str, Any]]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # taken, also where nobody waits for it any more

    def _operate(self, call: Call, signer: Signer) -> dict[str, Any]:
        """The operation itself; one that lost a race with another commit sees what that one did, and decides again."""
        operation = self._table.get((call.service, call.operation))
        if operation is None:
            raise not_here(call.service, call.operation)
        for _ in range(RACES_MAX):
            try:
                return operation(self._context(signer), call.params)
            except Conflict as error:
                log.info("request %s lost a race: %s", call.request_id, error)
        raise throttled("Too many concurrent changes of the same resource.")

    def _context(self, signer: Signer) -> Context:
        w = self._with
        return Context(
            scope=Scope(signer.account, signer.region),
            caller=Caller(signer.access_key_id, signer.account),
            now_ms=w.clock.now_ms(),
            store=w.store,
            identity=w.identity,
            logs=w.logs,
            queries=w.queries,
            endpoints=w.endpoints,
            instance_types=w.instance_types,
            metrics=w.metrics,
            wake_jobs=w.wake_jobs,
            wake_experiments=w.wake_experiments,
            wake_alarms=w.wake_alarms,
            wake_events=w.wake_events,
            alarm_actions=w.alarm_actions,
            wake_scaling=w.wake_scaling,
            idle_is_zero=w.settings.scale_in_when_idle,
        )

    async def _scrape(self, request: Request) -> HttpReply:
        """What monitoring systems ask for."""
        authorization, now_ms = request.header(b"authorization"), self._wall_ms()
        try:
            found = await self._run(lambda: {"text": self._with.scrape(authorization, now_ms)})
        except KeyRefused as refused:
            challenge = [("WWW-Authenticate", "Bearer")] if refused.status == 401 else []
            return HttpReply(refused.status, [("Content-Type", "text/plain"), *challenge], f"{refused}\n".encode())
        return HttpReply(200, [("Content-Type", CONTENT_TYPE)], found["text"])

    async def _own(self, request: Request, head: HttpRequest) -> HttpReply:
        """Eyrie's own paths: what control tells about itself, and does by ways that AWS has no operation for."""
        signer, body = await self._verified(request, service="sagemaker")
        agent = head.headers.get("user-agent", "")
        deed = Deed(OWN, f"{head.method} {head.path[:256]}", _asked(body), signer, request.request_id, agent)
        try:
            reply = await self._told(request, head, signer, body)
        except ApiError as error:
            self._with.audit(replace(deed, error=(error.code, error.message)))
            raise
        refused = None if reply.status < 400 else (str(reply.status), reply.body.decode("utf-8", "replace"))
        self._with.audit(replace(deed, error=refused))
        return reply

    async def _told(self, request: Request, head: HttpRequest, signer: Signer, body: bytes) -> HttpReply:
        context = self._context(signer)
        if head.path.startswith(image_door.PATH):
            data = self._with.settings.data
            answered = await self._run(lambda: image_door.answer(context, data, head.method, head.path, body))
            return story.reply(answered, request.request_id)
        if head.path.startswith(deployment_door.PATH):
            door, models = self._with.deployments, self._wire.models
            found = await self._run(lambda: door.answer(context, models, head.method, head.path, body))
            return story.reply(found, request.request_id)
        if head.path.startswith(api_quotas.PATH) and head.method == "POST":
            return story.reply(await self._run(lambda: api_quotas.decide(context, head.path)), request.request_id)
        if head.method != "GET":
            return story.reply({"message": "Only GET is answered here."}, request.request_id, status=405)
        if head.path == story.STATUS:
            counts = {f"{group}xx": count for group, count in sorted(self._answered.items())}
            found = await self._run(lambda: story.status(context, self._with.observe(), counts))
        elif head.path.startswith(comparison.PATH):
            found = await self._run(lambda: comparison.compare(context, head.path, head.query))
        elif head.path.startswith(shadow_report.PATH):
            found = await self._run(lambda: shadow_report.report(context, head.path, head.query))
        elif head.path.startswith(insights.PATH):
            found = await self._run(lambda: insights.insights(context, head.path))
        elif (watch := self._with.availability) and head.path.startswith(availability_door.PATH):
            found = await self._run(lambda: watch.answer(context, head.path, head.query))
        elif head.path.startswith(story.STORY):
            found = await self._run(lambda: story.story(context, head.path))
        else:
            return story.reply({"message": f"There is no {head.path[:200]} here."}, request.request_id, status=404)
        return story.reply(found, request.request_id)


def _asked(body: bytes) -> dict[str, Any]:
    """What a request to a path of our own asks for, where it is JSON of a sensible size."""
    if not body or len(body) > OWN_PARAMS_BYTES_MAX:
        return {}
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _http_request(request: Request) -> HttpRequest:
    return HttpRequest(
        request.method.decode("latin-1"),
        request.path.decode("latin-1"),
        request.query.decode("latin-1"),
        {name.decode("latin-1"): value.decode("latin-1") for name, value in request.fields.items()},
    )


def _response(reply: HttpReply) -> Response:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    return Response(reply.status, headers, reply.body)
