"""Signed calls to the running Eyrie without boto3, straight to control's socket: they need no gateway."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.adapters.unix_http import UnixConnection
from eyrie.cli import data as datadir
from eyrie.cli.errors import CommandError

_REPLY_BYTES_MAX = 64 * 1024 * 1024


class ControlUnreachable(CommandError):
    """Control does not answer; what files and locks tell is all there is."""


class ControlClient:
    """Calls as the root key of a data directory."""

    def __init__(self, data: Path, region: str, timeout_s: float = 10.0) -> None:
        key = datadir.credential(data)
        self._signer = SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", region)
        self._socket = data / "run" / "control.sock"
        self._timeout_s = timeout_s

    def status(self) -> dict[str, Any]:
        """`GET /eyrie/status`."""
        return self._get("/eyrie/status")

    def story(self, endpoint: str) -> list[dict[str, Any]]:
        """The events of an endpoint, oldest first."""
        return list(self._get(f"/eyrie/story/{quote(endpoint, safe='')}").get("events", []))

    def insights(self, name: str) -> list[dict[str, Any]]:
        """What is unusual of an endpoint (or that of an alarm), and what may explain it; "": of every endpoint."""
        return list(self._get(f"/eyrie/insights/{quote(name, safe='')}").get("insights", []))

    def compare(self, endpoint: str, baseline: str) -> dict[str, Any]:
        """The variants of an endpoint against one of them; "": against the first."""
        query = f"?baseline={quote(baseline, safe='')}" if baseline else ""
        return self._get(f"/eyrie/compare/{quote(endpoint, safe='')}{query}")

    def availability(self, endpoint: str, days: int) -> dict[str, Any]:
        """What is known of an endpoint's minutes in so many days."""
        return self._get(f"/eyrie/availability/{quote(endpoint, safe='')}?days={days}")

    def decide_quota(self, request_id: str, what: str) -> dict[str, Any]:
        """Approve or deny a request for an increase of a quota: {"id", "name", "value", "status"}."""
        return self._ask("POST", f"/eyrie/quotas/{quote(request_id, safe='')}/{what}")

    def sagemaker(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """An operation of the SageMaker API: its reply, times as seconds since the epoch. Raises CommandError."""
        headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        return self._ask("POST", "/", dict(params), headers)

    def deployment(self, endpoint: str) -> dict[str, Any]:
        """The deployment of an endpoint that is on its way, with its verdict."""
        return self._get(f"/eyrie/deployments/{quote(endpoint, safe='')}")

    def steer(self, endpoint: str, **asked: Any) -> dict[str, Any]:
        """Promote, abort or pause it, or plan one: `do` and what belongs to it."""
        return self._ask("POST", f"/eyrie/deployments/{quote(endpoint, safe='')}", asked)

    def images(self) -> list[dict[str, Any]]:
        """The images of the user's own, a row a name."""
        return list(self._get("/eyrie/images").get("images", []))

    def name_image(self, name: str, digest: str) -> dict[str, Any]:
        """Let a name mean an image that lies in the data directory: {"name", "digest"}."""
        return self._ask("POST", "/eyrie/images", {"name": name, "digest": digest})

    def shadow(self, endpoint: str, experiment: str = "") -> dict[str, Any]:
        """What a shadow's answers came to beside production's."""
        query = f"?experiment={quote(experiment, safe='')}" if experiment else ""
        return self._get(f"/eyrie/shadow/{quote(endpoint, safe='')}{query}")

    def remove_image(self, name: str) -> dict[str, Any]:
        """Let a name mean nothing any more: {"name", "digest"}."""
        return self._ask("POST", "/eyrie/images/remove", {"name": name})

    def _get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path)

    def _ask(
        self, method: str, path: str, given: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        told = None if given is None else json.dumps(given).encode()
        named = {"Host": "localhost", **(headers or {})}
        request = AWSRequest(method, f"http://localhost{path}", headers=named, data=told)
        self._signer.add_auth(request)
        connection = UnixConnection(self._socket, self._timeout_s)
        try:
            connection.request(method, path, body=told, headers=dict(request.headers.items()))
            reply = connection.getresponse()
            body = reply.read(_REPLY_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise ControlUnreachable(f"control does not answer ({error}); is Eyrie up?") from None
        finally:
            connection.close()
        return _understood(reply.status, body)


def _understood(status: int, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        raise CommandError(f"control answered {status} without JSON") from None
    if status != 200 or not isinstance(found, dict):
        raise CommandError(
            str(found.get("message") or found.get("Message") or found) if isinstance(found, dict) else str(found)
        )
    return found
