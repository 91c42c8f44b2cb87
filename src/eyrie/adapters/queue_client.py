"""A small synchronous client of the SQS API on dispatch's Unix socket: SendMessage, signed with a key of the queue's
account. Deliveries of topics to queues go through it.
"""

from __future__ import annotations

import json
from http.client import HTTPException
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.adapters.artifacts import signing_key
from eyrie.adapters.unix_http import UnixConnection
from eyrie.domain.names import Scope
from eyrie.ports import ArtifactError

_REPLY_BYTES_MAX = 65_536


class QueueRefused(Exception):
    """The queue will not take the message, now or later; the message says why."""


class QueueUnavailable(Exception):
    """The queue cannot be reached, or takes nothing now."""


class QueueClient:
    """Sends messages; a connection each, from any thread."""

    def __init__(self, socket: Path, keys: Path | None) -> None:
        """`keys`: credentials.json; None while nothing is verified."""
        self._socket, self._keys = socket, keys

    def send(self, arn: str, body: str) -> None:
        """Put a message into a queue, durably. Raises QueueRefused, QueueUnavailable."""
        parts = arn.split(":")
        if len(parts) != 6 or parts[2] != "sqs":
            raise QueueRefused(f"{arn} is no ARN of a queue")
        scope, name = Scope(parts[4], parts[3]), parts[5]
        params = {"QueueUrl": f"http://localhost/{scope.account}/{name}", "MessageBody": body}
        status, said = self._ask(scope, "SendMessage", json.dumps(params).encode())
        if status == 200:
            return
        told = f"{status} {said[:300].decode('utf-8', 'replace')}"
        if status == 400:
            raise QueueRefused(told)
        raise QueueUnavailable(told)

    def _ask(self, scope: Scope, operation: str, body: bytes) -> tuple[int, bytes]:
        headers = {
            "Host": "localhost",
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{operation}",
            "Content-Length": str(len(body)),
        }
        try:
            key = signing_key(self._keys, scope)
        except ArtifactError as error:
            raise QueueRefused(str(error)) from None
        request = AWSRequest("POST", "http://localhost/", headers=headers, data=body)
        SigV4Auth(
            Credentials(key.access_key_id, key.secret_access_key, key.session_token), "sqs", scope.region
        ).add_auth(request)
        connection = UnixConnection(self._socket)
        try:
            connection.request("POST", "/", body=body, headers=dict(request.headers.items()))
            reply = connection.getresponse()
            return reply.status, reply.read(_REPLY_BYTES_MAX)
        except (HTTPException, OSError) as error:
            raise QueueUnavailable(f"no answer: {error}") from None
        finally:
            connection.close()
