"""Makes outcomes visible: the object of a result or of a failure, then the message that a topic is owed.

The outcome was decided durably before, so whatever dies in between, the same object is put again under the same name: a
client sees one, and never half of it. A put that cannot be done now is tried until it is done; one that is refused for
good (the bucket is gone) turns a result into a failure, and a failure into a line in the log.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from eyrie.adapters.group_commit import GroupCommit
from eyrie.decide import async_dispatch as decide
from eyrie.dispatch import requests
from eyrie.dispatch.invoke import SMALL_BYTES, failed, place_of
from eyrie.dispatch.spools import Spools
from eyrie.dispatch.storage import S3Refused, S3Stream, S3Unavailable
from eyrie.dispatch.tally import Tally
from eyrie.domain.async_inference import AsyncRoute, Ended, Outcome, Waiting
from eyrie.domain.names import EndpointKey
from eyrie.ports import ArtifactError, Clock

log = logging.getLogger(__name__)

AT_ONCE = 32  # puts under way
WAITING_MAX = 512  # outcomes that are not visible yet: beyond it no invocation is started
REASON_CHARS_MAX = 16_384  # of a failure, in a notification
NOTIFICATIONS_MAX = 100_000  # owed at once: beyond it a message is dropped and counted


class Storer:
    """Brings every decided outcome to its end."""

    def __init__(
        self,
        file: GroupCommit,
        storage: S3Stream,
        spools: Spools,
        tally: Tally,
        clock: Clock,
        done: Callable[[], None],
        owed: Callable[[], None],
    ) -> None:
        """`done` is called when there is room again, `owed` when a topic is owed a message."""
        self._file, self._storage, self._spools, self._tally = file, storage, spools, tally
        self._clock, self._done, self._owed = clock, done, owed
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def full(self) -> bool:
        """Whether so many outcomes wait that no more should be made."""
        return len(self._tasks) >= WAITING_MAX

    @property
    def waiting(self) -> int:
        """Outcomes that are not visible yet."""
        return len(self._tasks)

    def add(self, request: Waiting, outcome: Outcome) -> None:
        """An outcome was decided."""
        if request.number not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._bring(request, outcome))
            self._tasks[request.number] = task
            task.add_done_callback(lambda _: self._over(request.number))

    async def resume(self) -> None:
        """Take up what an earlier process had decided."""
        after = 0
        while found := requests.decided(self._file.db, after, WAITING_MAX // 2):
            for request in found:
                after = request.number
                while self.full:
                    await asyncio.sleep(0.05)
                outcome = requests.outcome_of(self._file.db, request.number)
                if outcome is not None:
                    self.add(request, outcome)

    async def close(self, patience_s: float) -> None:
        """Wait so long for what is under way, then leave it to the next process."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, number: int) -> None:
        full = self.full
        self._tasks.pop(number, None)
        if full:
            self._done()

    async def _bring(self, request: Waiting, outcome: Outcome) -> None:
        """One outcome, until the request is forgotten."""
        tries = 0
        while True:
            try:
                async with self._gate:
                    await self._end(request, await self._visible(request, outcome))
                return
            except Exception:  # the boundary of one outcome: a full disk, say; it is tried again
                log.exception("the outcome of request %d is not stored yet", request.number)
            tries += 1
            self._tally.count("outcomes_retried")
            await asyncio.sleep(decide.retry_ms(tries) / 1000)

    async def _visible(self, request: Waiting, outcome: Outcome) -> Outcome:
        """Put the object; the outcome as it is now."""
        if outcome.ended is Ended.COMPLETED:
            try:
                await self._put(request, request.output, outcome)
                return outcome
            except (S3Refused, ArtifactError, FileNotFoundError) as refused:
                self._tally.add(request.slug, outcome.variant, "ResponseUploadFailures")
                why = f"The result could not be stored at {request.output}: {refused}"
                spool, outcome = outcome.spool, failed(why, outcome.variant, outcome.model_us)
                await self._file.write(lambda db: requests.decide_anew(db, request.number, outcome))
                self._spools.remove(spool)
        try:
            await self._put(request, request.failure, outcome)
        except (S3Refused, ArtifactError) as refused:
            self._tally.add(request.slug, outcome.variant, "ResponseUploadFailures")
            log.error(
                "request %s: its failure could not be stored at %s: %s", request.inference_id, request.failure, refused
            )
        return outcome

    async def _put(self, request: Waiting, url: str, outcome: Outcome) -> None:
        """Try until it is done or refused."""
        tries = 0
        while url:
            began = time.perf_counter()
            place = place_of(url)
            body: bytes | AsyncIterator[bytes] = outcome.body
            if outcome.spool:
                body = self._spools.read(outcome.spool)
            scope = EndpointKey.from_slug(request.slug).scope
            try:
                await self._storage.put(scope, place.bucket, place.key, outcome.content_type, outcome.size, body)
            except S3Unavailable as error:
                tries += 1
                self._tally.count("puts_retried")
                if tries == 1:
                    log.info("request %s: %s; trying again", request.inference_id, error)
                await asyncio.sleep(decide.retry_ms(tries) / 1000)
                continue
            took_us = (time.perf_counter() - began) * 1e6
            self._tally.add(request.slug, outcome.variant, "ResponseUploadLatency", took_us)
            return

    async def _end(self, request: Waiting, outcome: Outcome) -> None:
        """Forget the request, and owe its message."""
        now_ms = self._clock.now_ms()
        route = requests.route_of(self._file.db, request.number)
        completed = outcome.ended is Ended.COMPLETED
        topic, with_answer = decide.topic_of(route, completed)
        if topic and requests.notifications(self._file.db) >= NOTIFICATIONS_MAX:
            self._tally.add(request.slug, outcome.variant, "NotificationFailures")
            topic = ""
        message = ""
        if topic:
            answer = _answer(outcome) if with_answer else None
            message = json.dumps(message_of(request, outcome, route, now_ms, answer))
        await self._file.write(lambda db: requests.finish(db, request, outcome.variant, topic, message, now_ms))
        self._spools.remove(outcome.spool)
        self._measure(request, outcome, now_ms)
        if topic:
            self._owed()

    def _measure(self, request: Waiting, outcome: Outcome, now_ms: int) -> None:
        slug, variant, tally = request.slug, outcome.variant, self._tally
        tally.add(slug, variant, "TotalProcessingTime", now_ms - request.accepted_ms)
        if outcome.model_us:
            tally.add(slug, variant, "ModelLatency", outcome.model_us)
        if outcome.ended is Ended.EXPIRED:
            tally.add(slug, variant, "ExpiredRequests")
        else:
            tally.add(slug, variant, "InvocationsProcessed")
            tally.add(slug, variant, "InvocationsProcesssed")  # as the guide spells it, and alarms of users do


def _answer(outcome: Outcome) -> bytes | None:
    """The answer, where it is small enough to travel in a message."""
    return outcome.body if outcome.size <= SMALL_BYTES and not outcome.spool else None


def message_of(
    request: Waiting, outcome: Outcome, route: AsyncRoute, now_ms: int, answer: bytes | None
) -> dict[str, Any]:
    """The notification, as SageMaker writes it. `answer` goes along where the config asks for it."""
    key = EndpointKey.from_slug(request.slug)
    completed = outcome.ended is Ended.COMPLETED
    asked = {"contentType": request.content_type, "endpointName": key.name, "inputLocation": request.location}
    response = decide.told({"contentType": outcome.content_type, "outputLocation": request.output}) if completed else {}
    carried = None
    if answer is not None:
        carried = {"content": base64.b64encode(answer).decode(), "encoding": "BASE64"}
    return decide.told(
        {
            "awsRegion": key.region,
            "eventTime": moment(now_ms),
            "receivedTime": moment(request.accepted_ms),
            "invocationStatus": str(outcome.ended),
        },
        failureReason="" if completed else outcome.reason[:REASON_CHARS_MAX],
        requestParameters=decide.told(asked),
        responseParameters=response,
        responseBody=carried,
        failureLocation="" if completed else request.failure,
        inferenceId=request.inference_id,
        eventVersion="1.0",
        eventSource="aws:sagemaker",
        eventName="InferenceResult",
    )


def moment(at_ms: int) -> str:
    """A time as notifications carry it: 2026-11-21T08:40:02.123Z."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
