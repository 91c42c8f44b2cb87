"""InvokeEndpointAsync: a request is checked, kept durably, and only then answered with 202.

head signed? -> body (bounded) -> signature proven -> wire.decode -> an asynchronous endpoint? -> room? -> commit -> 202
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from eyrie.adapters.group_commit import GroupCommit
from eyrie.decide import async_dispatch as decide
from eyrie.dispatch import requests
from eyrie.dispatch.runner import Runner
from eyrie.dispatch.tables import Tables
from eyrie.dispatch.tally import Tally
from eyrie.domain.async_inference import TIMEOUT_DEFAULT_S, TTL_DEFAULT_S, AsyncRoute, Waiting
from eyrie.domain.names import EndpointKey
from eyrie.ports import Clock, Identity
from eyrie.wire.credentials import Identity as Signer
from eyrie.wire.errors import ApiError

BACKLOG_MAX = 1_000_000  # requests of one endpoint that wait
COMMITS_WAITING_MAX = 8_192  # requests on their way into the file


class Acceptor:
    """Answers InvokeEndpointAsync."""

    def __init__(
        self,
        file: GroupCommit,
        tables: Tables,
        runner: Runner,
        tally: Tally,
        clock: Clock,
        identity: Identity,
        room_left: Callable[[], int],
    ) -> None:
        """`room_left()`: bytes that the queue's file may still grow by."""
        self._file, self._tables, self._runner, self._tally = file, tables, runner, tally
        self._clock, self._identity, self._room_left = clock, identity, room_left
        self._encoded: dict[AsyncRoute, str] = {}

    async def accept(self, signer: Signer, host: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The reply, once the request is durable. Raises ApiError."""
        key = EndpointKey(signer.account, signer.region, params["EndpointName"])
        route = self._route(key)
        body = _input_of(params)
        self._check_room(key.slug, len(body or b""))
        token = self._identity.token(32)
        own = "-".join((token[:8], token[8:12], token[12:16], token[16:20], token[20:]))
        output, failure = decide.locations(
            route, own, params.get("S3OutputPathExtension", ""), params.get("Filename", "")
        )
        now_ms = self._clock.now_ms()
        request = Waiting(
            number=0,
            slug=key.slug,
            inference_id=params.get("InferenceId") or own,
            accepted_ms=now_ms,
            expires_ms=now_ms + 1000 * params.get("RequestTTLSeconds", TTL_DEFAULT_S),
            timeout_s=params.get("InvocationTimeoutSeconds", TIMEOUT_DEFAULT_S),
            content_type=params.get("ContentType", ""),
            accept=params.get("Accept", ""),
            attributes=params.get("CustomAttributes", ""),
            location=params.get("InputLocation", ""),
            output=output,
            failure=failure,
        )
        kept = self._kept(route)
        written = self._file.write(lambda db: requests.add(db, request, kept, body))
        written.add_done_callback(lambda done: self._accepted(key.slug, done))
        await asyncio.shield(written)  # a client that leaves does not unwrite it
        reply = {"InferenceId": request.inference_id, "OutputLocation": output, "FailureLocation": failure}
        return {name: value for name, value in reply.items() if value}

    def _accepted(self, slug: str, done: asyncio.Future[int]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._runner.added(slug)

    def _route(self, key: EndpointKey) -> AsyncRoute:
        endpoint = self._tables.endpoints.get(key.slug)
        if endpoint is None:
            raise _refused(f"Endpoint {key.name} of account {key.account} not found.")
        if endpoint.route.asynchronous is None:
            said = "is not an asynchronous endpoint: it has no AsyncInferenceConfig. Call InvokeEndpoint."
            raise _refused(f"Endpoint {key.name} {said}")
        return endpoint.route.asynchronous

    def _check_room(self, slug: str, size: int) -> None:
        if self._runner.backlog(slug) >= BACKLOG_MAX:
            self._tally.count("backlog_limit")
            raise ApiError("ThrottlingException", f"{BACKLOG_MAX} requests of this endpoint wait already.", 429)
        if self._file.waiting >= COMMITS_WAITING_MAX:
            self._tally.count("commits_limit")
            raise ApiError("ServiceUnavailable", "Too many requests are on their way into the queue. Try again.", 503)
        if self._room_left() < size + 4_096:
            self._tally.count("queue_bytes_limit")
            raise ApiError("ServiceUnavailable", "The queue's file has reached EYRIE_QUEUE_BYTES_MAX.", 503)

    def _kept(self, route: AsyncRoute) -> str:
        found = self._encoded.get(route)
        if found is None:
            if len(self._encoded) >= 1_024:
                self._encoded.clear()
            found = self._encoded[route] = msgspec.json.encode(route).decode()
        return found


def _input_of(params: Mapping[str, Any]) -> bytes | None:
    """The inline body; None where the input is in S3. Raises ApiError unless it is exactly one of the two."""
    location, body = params.get("InputLocation"), params.get("Body")
    if location and body:
        raise _refused("InputLocation and Body are mutually exclusive: provide exactly one of them.")
    if location:
        if not location.startswith("s3://") or not location.removeprefix("s3://").partition("/")[2]:
            raise _refused(f"InputLocation {location!r} is not the s3:// address of an object.")
        return None
    if not body:
        raise _refused("One of InputLocation and Body is needed.")
    return bytes(body)


def _refused(message: str) -> ApiError:
    return ApiError("ValidationError", message)
