"""The public API as the recommender asks it: with botocore, as any client does. What answers badly for a moment
(control and gateways restart in a second or two) is asked again; SIGTERM ends the waiting.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from eyrie.adapters.artifacts import signing_key
from eyrie.domain.names import Scope

log = logging.getLogger("eyrie.recommender")

PATIENCE_S = 120.0  # how long the API may be away
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 2.0


class Refused(Exception):
    """The API refused; `code` is its word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Away(Exception):
    """The API does not answer."""


class Stopped(Exception):
    """The job was stopped."""


class Api:
    """Clients of the services of one Eyrie, for one account and region."""

    def __init__(self, data: Path, keys: Path | None, scope: Scope, stopped: threading.Event) -> None:
        """`keys`: credentials.json; None with `--auth off`."""
        self._data, self.scope, self._stopped = data, scope, stopped
        self.key = signing_key(keys, scope)
        self._session = botocore.session.Session()
        self._clients: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """Where the door is now."""
        return str(json.loads((self._data / "env.json").read_text())["endpoint"]).rstrip("/")

    def ask(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """One operation. Raises Refused, Away, Stopped."""
        until, pause_s = time.monotonic() + PATIENCE_S, PAUSE_FIRST_S
        while True:
            try:
                reply: dict[str, Any] = getattr(self._client(service), operation)(**params)
                return reply
            except ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500:
                    told = error.response.get("Error", {})
                    raise Refused(str(told.get("Code", "")), str(told.get("Message") or error)) from None
                why = str(error)
            except (HTTPClientError, BotoCoreError, OSError, ValueError) as error:
                why = str(error)
            if time.monotonic() > until:
                raise Away(f"InternalError: the API does not answer: {why}") from None
            self._clients.clear()  # it may come back at another port
            self.pause(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def pages(self, operation: str, member: str, **params: Any) -> list[dict[str, Any]]:
        """Every entry of a List operation of SageMaker. Raises as `ask` does."""
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            reply = self.ask("sagemaker", operation, MaxResults=100, **params, **token)
            found += reply[member]
            if not reply.get("NextToken"):
                return found
            token = {"NextToken": reply["NextToken"]}

    def pause(self, seconds: float) -> None:
        """Wait. Raises Stopped."""
        if self._stopped.wait(seconds):
            raise Stopped

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.create_client(
                service,
                region_name=self.scope.region,
                endpoint_url=self.url,
                aws_access_key_id=self.key.access_key_id,
                aws_secret_access_key=self.key.secret_access_key,
                aws_session_token=self.key.session_token,
                config=Config(
                    connect_timeout=5,
                    read_timeout=70,
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path"},
                ),
            )
        return self._clients[service]
