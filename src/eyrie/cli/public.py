"""The public API of a running Eyrie, asked with botocore as any client asks it: what the commands that deploy, call and
watch endpoints stand on.

Which Eyrie is meant, and by which key, the data directory tells; where none ever ran with it, AWS_ENDPOINT_URL and the
AWS keys of the environment, so that the commands reach an Eyrie of another machine too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, ProxyConnectionError

from eyrie.cli import data as datadir
from eyrie.cli.errors import CommandError

_NEEDED = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PAGES_MAX = 1_000
LINE_CHARS_MAX = 600


@dataclass(frozen=True, slots=True)
class Where:
    """An Eyrie's address, and the key that requests are signed with."""

    url: str
    region: str
    access_key_id: str
    secret_access_key: str
    token: str | None = None
    data: Path | None = None  # its data directory, where it is one of this machine's


def where(data: Path, environ: Mapping[str, str]) -> Where:
    """The Eyrie that is meant. Raises CommandError where neither the directory nor the environment tells."""
    if not (data / "env.json").exists() and all(environ.get(name) for name in _NEEDED):
        url, key_id, secret = (environ[name] for name in _NEEDED)
        if not re.match(r"https?://[^/]", url):
            raise CommandError(f"AWS_ENDPOINT_URL is no http:// or https:// address but {url!r}", code=2)
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return Where(url.rstrip("/"), region, key_id, secret, environ.get("AWS_SESSION_TOKEN"))
    running, key = datadir.running_env(data), datadir.credential(data)
    url, region = str(running["endpoint"]).rstrip("/"), str(running["region"])
    return Where(url, region, key.access_key_id, key.secret_access_key, data=data)


class Refused(CommandError):
    """The API refused; `error` is its code (ValidationException ...)."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class Public:
    """Clients of the services, made when they are first asked."""

    def __init__(self, where: Where, timeout_s: float = 70.0) -> None:
        self.where = where
        self._session = botocore.session.Session()
        self._timeout_s = timeout_s
        self._clients: dict[str, Any] = {}

    @classmethod
    def of(cls, data: Path, timeout_s: float = 70.0) -> Public:
        """Of the Eyrie of a data directory, or of the environment. Raises CommandError."""
        return cls(where(data, os.environ), timeout_s)

    def client(self, service: str) -> Any:
        """botocore's client of a service."""
        if service not in self._clients:
            self._clients[service] = self._session.create_client(
                service,
                region_name=self.where.region,
                endpoint_url=self.where.url,
                aws_access_key_id=self.where.access_key_id,
                aws_secret_access_key=self.where.secret_access_key,
                aws_session_token=self.where.token,
                config=Config(
                    connect_timeout=min(5.0, self._timeout_s),
                    read_timeout=self._timeout_s,
                    retries={"total_max_attempts": 2, "mode": "standard"},
                    s3={"addressing_style": "path"},
                ),
            )
        return self._clients[service]

    def ask(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """One operation. Raises Refused with the API's own words, or CommandError where nobody answers."""
        return self.ask_plainly(service, operation, _refused, **params)

    def ask_plainly(
        self, service: str, operation: str, told: Callable[[ClientError], CommandError], **params: Any
    ) -> dict[str, Any]:
        """One operation; `told` makes a refusal into the error to raise."""
        try:
            reply: dict[str, Any] = getattr(self.client(service), operation)(**params)
        except ClientError as error:
            raise told(error) from None
        except (EndpointConnectionError, ProxyConnectionError):
            raise CommandError(f"nothing answers at {self.where.url}: start Eyrie with `eyrie up`") from None
        except BotoCoreError as error:
            raise CommandError(one_line(error)) from None
        return reply

    def pages(self, service: str, operation: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every entry under `key` of an operation that answers in pages."""
        for _ in range(PAGES_MAX):
            reply = self.ask(service, operation, **params)
            yield from reply.get(key, [])
            token = reply.get("NextToken") or reply.get("nextToken")
            if not token:
                return
            params["NextToken" if "NextToken" in reply else "nextToken"] = token

    def endpoint(self, name: str) -> dict[str, Any] | None:
        """DescribeEndpoint; None where there is none of this name."""
        try:
            return self.ask("sagemaker", "describe_endpoint", EndpointName=name)
        except Refused as refused:
            if "Could not find endpoint" in str(refused):
                return None
            raise


def _refused(error: ClientError) -> CommandError:
    told = error.response.get("Error", {})
    return Refused(str(told.get("Code", "")), one_line(told.get("Message") or error))


def one_line(said: object) -> str:
    """What was said, on one line, and no longer than one reads."""
    line = " ".join(str(said).split())
    return line if len(line) <= LINE_CHARS_MAX else f"{line[:LINE_CHARS_MAX]} ..."
