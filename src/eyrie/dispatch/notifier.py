"""Tells topics: each message that is owed becomes a Publish of the SNS API, which control answers, tried until it is
taken or refused for good. At least once: a crash between the answer and its commit repeats a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from urllib.parse import urlencode

from eyrie.adapters.group_commit import GroupCommit
from eyrie.decide import async_dispatch as decide
from eyrie.dispatch import requests
from eyrie.dispatch.requests import Notification
from eyrie.dispatch.storage import Keyring
from eyrie.dispatch.tally import Tally
from eyrie.domain.names import EndpointKey, Scope
from eyrie.http1.client import Broken, Exchange
from eyrie.http1.upstream import Pool
from eyrie.ports import ArtifactError, Clock

log = logging.getLogger(__name__)

AT_ONCE = 8
TRIES_MAX = 200  # at ten seconds at most between two: about half an hour
_LOOK_S = 1.0
_TIMEOUT_S = 30.0
_REPLY_BYTES_MAX = 65_536
_FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


class Notifier:
    """Sends what is owed, oldest first."""

    def __init__(self, file: GroupCommit, control: Pool, keyring: Keyring, tally: Tally, clock: Clock) -> None:
        self._file, self._control, self._keyring, self._tally, self._clock = file, control, keyring, tally, clock
        self._stirred = asyncio.Event()
        self._sending: dict[int, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Something new is owed."""
        self._stirred.set()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                self._stirred.clear()
                room = AT_ONCE - len(self._sending)
                if room > 0:
                    now_ms = self._clock.now_ms()
                    for one in requests.due(self._file.db, now_ms, room, list(self._sending)):
                        task = asyncio.get_running_loop().create_task(self._send(one))
                        self._sending[one.number] = task
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._stirred.wait()
        finally:
            for task in self._sending.values():
                task.cancel()

    async def _send(self, one: Notification) -> None:
        try:
            await self._ended(one, await self._publish(one))
        except Exception:  # the boundary of one message: it is owed still
            log.exception("a notification to %s failed", one.topic)
        finally:
            del self._sending[one.number]
            self._stirred.set()

    async def _ended(self, one: Notification, why: str | None) -> None:
        if why is None:
            await self._file.write(lambda db: requests.told(db, one.number))
            return
        tries = one.tries + 1
        final = why.startswith("refused")
        if final or tries >= TRIES_MAX:
            log.warning("a notification to %s is given up after %d tries: %s", one.topic, tries, why)
            self._tally.add(one.slug, one.variant, "NotificationFailures")
            await self._file.write(lambda db: requests.told(db, one.number))
            return
        next_ms = self._clock.now_ms() + decide.retry_ms(tries)
        await self._file.write(lambda db: requests.tell_later(db, one.number, next_ms))

    async def _publish(self, one: Notification) -> str | None:
        """None where it was taken, else why not; that begins with "refused" where it never will be."""
        owner = EndpointKey.from_slug(one.slug)
        scope = Scope(owner.account, _region(one.topic) or owner.region)
        form = {"Action": "Publish", "Version": "2010-03-31", "TopicArn": one.topic, "Message": one.message}
        body = urlencode(form).encode()
        exchange = Exchange(self._control)
        try:
            head = self._keyring.signed(scope, "sns", _FORM, body)
            async with asyncio.timeout(_TIMEOUT_S):
                status = await exchange.ask(head, body)
                said, _ = await exchange.read(_REPLY_BYTES_MAX)
        except (Broken, TimeoutError) as error:
            return f"no answer: {error or 'in time'}"
        except ArtifactError as error:
            return f"refused: {error}"
        finally:
            exchange.cancel()
        if status == 200:
            return None
        told = f"{status} {said[:300].decode('utf-8', 'replace')}"
        return f"refused: {told}" if status in (400, 403, 404) and b"Throttl" not in said else told


def _region(arn: str) -> str:
    parts = arn.split(":", 5)
    return parts[3] if len(parts) == 6 else ""
