"""A synthetic client at the door: asks the one port whether it answers, and sends an endpoint the request that its
owner gave for that. Used by control's watch over availability, from threads.
"""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.adapters.artifacts import signing_key
from eyrie.domain.availability import Probe
from eyrie.domain.names import EndpointKey
from eyrie.ports import ArtifactError

_REPLY_BYTES_MAX = 1 << 20
_EVERYWHERE = ("", "0.0.0.0", "::", "*")


class Unprobed(Exception):
    """The probe could not even be sent: it says nothing about the endpoint."""


class EndpointProbe:
    """Asks over TCP, a connection each, as any client does."""

    def __init__(self, host: str, port: int, keys: Path | None) -> None:
        """`keys`: credentials.json; None while nothing is verified."""
        self._host = "127.0.0.1" if host in _EVERYWHERE else host
        self._port, self._keys = port, keys

    def door(self, timeout_s: float) -> str | None:
        """None where a gateway worker answers, else what happened instead."""
        status = self._ask("GET", "/v2/health/live", b"", {}, timeout_s)
        return None if status == 200 else f"the door: {status}"

    def invoke(self, key: EndpointKey, probe: Probe, timeout_s: float) -> str | None:
        """None where the endpoint answered a probe with less than 500, else what happened instead. Raises Unprobed."""
        path = f"/endpoints/{quote(key.name, safe='')}/invocations"
        try:
            signer = signing_key(self._keys, key.scope)
        except (ArtifactError, OSError, ValueError) as error:
            raise Unprobed(str(error)) from None
        host = f"{self._host}:{self._port}"
        headers = {"Host": host, "Content-Type": probe.content_type, "Content-Length": str(len(probe.body))}
        request = AWSRequest("POST", f"http://{host}{path}", headers=headers, data=probe.body)
        known = Credentials(signer.access_key_id, signer.secret_access_key, signer.session_token)
        SigV4Auth(known, "sagemaker", key.region).add_auth(request)
        status = self._ask("POST", path, probe.body, dict(request.headers.items()), timeout_s)
        if isinstance(status, int):
            return None if status < 500 and status != 424 else f"status {status}"
        return status

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> int | str:
        """The status, or what happened instead."""
        connection = HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            reply = connection.getresponse()
            reply.read(_REPLY_BYTES_MAX)
            return reply.status
        except TimeoutError:
            return f"no answer in {timeout_s:g} s"
        except (OSError, HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
