"""How one delivery is done: a request to a web hook or an API destination, a message put into a queue, or an event into
a log group.

A 2xx answer is success. 4xx answers (but 408, 409, 425 and 429) will not become better and end it; all else is tried
again. Redirects are failures.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote, urlencode

from eyrie.adapters.log_file import Missing
from eyrie.adapters.queue_client import QueueClient, QueueRefused, QueueUnavailable
from eyrie.adapters.webhooks import WebhookFailed, send
from eyrie.control import event_table
from eyrie.control.deliveries import Failed
from eyrie.control.log_book import LogBook
from eyrie.control.topics import SUBSCRIPTION, subscription_document, subscription_of
from eyrie.domain.events import ApiDestination, Connection, Delivery
from eyrie.ports import Clock, Commit, Conflict, Store

MAY_GET_BETTER = frozenset({408, 409, 425, 429})
_TRIES = 5  # of confirming a subscription against concurrent changes


class Outgoing:
    """Does deliveries. Called on many threads."""

    def __init__(self, store: Store, clock: Clock, logs: LogBook, queues: QueueClient) -> None:
        self._store, self._clock, self._logs, self._queues = store, clock, logs, queues

    def send(self, owed: Delivery) -> None:
        """Do one. Raises Failed."""
        if owed.to.startswith(("http://", "https://")):
            _request(owed.to, "POST", owed.headers, owed.body)
        elif owed.to.startswith("arn:aws:sqs:"):
            self._to_queue(owed)
        elif ":api-destination/" in owed.to:
            self._to_destination(owed)
        elif ":log-group:" in owed.to:
            self._to_log(owed)
        else:
            raise Failed(f"there is no {owed.to}", final=True)
        if owed.confirms:
            self._confirm(owed)

    def _to_queue(self, owed: Delivery) -> None:
        try:
            self._queues.send(owed.to, owed.body)
        except QueueRefused as error:
            raise Failed(str(error), final=True) from None
        except QueueUnavailable as error:
            raise Failed(str(error)) from None

    def _to_destination(self, owed: Delivery) -> None:
        name = owed.to.split(":api-destination/", 1)[1].split("/")[0]
        destination = event_table.find(self._store, ApiDestination, owed.scope, name)
        if destination is None or destination.arn != owed.to:
            raise Failed(f"there is no API destination {owed.to}", final=True)
        connection_name = destination.connection_arn.split(":connection/", 1)[1].split("/")[0]
        connection = event_table.find(self._store, Connection, owed.scope, connection_name)
        if connection is None:
            raise Failed(f"there is no connection {destination.connection_arn}", final=True)
        told = owed.target
        headers = {**owed.headers, **(told.headers if told else {}), **connection.headers, **credentials(connection)}
        url = _filled(destination.url, told.path_values if told else (), told.query if told else {})
        _request(url, destination.method, headers, owed.body)

    def _to_log(self, owed: Delivery) -> None:
        name = owed.to.split(":log-group:", 1)[1].removesuffix(":*")
        group = self._logs.group(owed.scope, name)
        if group is None:
            raise Failed(f"there is no log group {name}", final=True)
        stream, now_ms = owed.name, self._clock.now_ms()
        if stream not in self._logs.names(group):
            self._logs.keep(group)
            self._logs.file.create_stream(owed.scope, name, stream, now_ms)
        try:
            self._logs.append(group, stream, [(owed.created_ms, owed.body)], now_ms)
        except Missing as error:
            raise Failed(f"the log group {name} went away: {error}") from None

    def _confirm(self, owed: Delivery) -> None:
        """The subscriber answered: it is one."""
        for _ in range(_TRIES):
            document = self._store.get(SUBSCRIPTION, owed.scope, owed.confirms)
            if document is None:
                return
            now_ms = self._clock.now_ms()
            confirmed = replace(subscription_of(document), confirmed=True)
            put = subscription_document(self._store, confirmed, now_ms)
            try:
                self._store.commit(Commit(puts=[put]))
                return
            except Conflict:
                continue


def credentials(connection: Connection) -> dict[str, str]:
    """The headers by which a connection authenticates us."""
    if connection.kind == "BASIC":
        pair = f"{connection.secrets['Username']}:{connection.secrets['Password']}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return dict(connection.secrets)


def _filled(url: str, values: tuple[str, ...], query: Mapping[str, str]) -> str:
    for value in values:
        url = url.replace("*", quote(value, safe=""), 1)
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query)
    return url


def _request(url: str, method: str, headers: Mapping[str, str], body: str) -> None:
    try:
        answer = send(url, method, headers, body.encode())
    except WebhookFailed as error:
        raise Failed(str(error)) from None
    if 200 <= answer.status < 300:
        return
    final = 400 <= answer.status < 500 and answer.status not in MAY_GET_BETTER
    raise Failed(f"it answered {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}", final)
