"""Calls of the public API, as any client makes them: botocore against the gateway's port, with a session's credentials.

Every call is synchronous and runs in a thread of the desk's pool. What goes wrong is a Trouble whose text is for
people.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.session import Session as BotoSession

from eyrie.console import measures
from eyrie.console.charts import Points, Span

_PAGES_MAX = 50
_LOOKS_MS = (60_000.0, 3_600_000.0)
_LOG_PAGES_MAX = 60  # of 10,000 lines at most
AWAY = "away"  # the code of a Trouble that is over once Eyrie answers again
_AWAY = (
    "Eyrie does not answer at {url}. What is routed goes on being served; this page goes on by itself when it is back."
)


class Trouble(Exception):
    """A call that did not work out; the message is for people."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Keys:
    """What a session signs with."""

    access_key_id: str
    secret_access_key: str


class Client:
    """The API as one set of credentials sees it. Its methods may be called from any thread."""

    def __init__(self, botocore: BotoSession, url: str, region: str, keys: Keys) -> None:
        self._botocore = botocore
        self.url = url
        self.region = region
        self.keys = keys
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._signer = SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key), "sagemaker", region)
        self._plain = URLLib3Session(timeout=10.0, max_pool_connections=8)

    def call(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """One operation, by its snake-case name. Raises Trouble."""
        with self._troubles():
            return dict(getattr(self._client(service), operation)(**params))

    def every(self, service: str, operation: str, under: str, most: int = 1_000, **params: Any) -> list[Any]:
        """What a list operation gives on all its pages, `most` at most. Raises Trouble."""
        with self._troubles():
            pages = self._client(service).get_paginator(operation).paginate(**params)
            rows: list[Any] = []
            for count, page in enumerate(pages):
                rows += page.get(under, ())
                if len(rows) >= most or count >= _PAGES_MAX:
                    break
            return rows[:most]

    def own(self, path: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A path of Eyrie's own, such as /eyrie/status; with something given, a POST. Raises Trouble."""
        sent = None if given is None else json.dumps(given).encode()
        request = AWSRequest("GET" if sent is None else "POST", f"{self.url}{path}", data=sent)
        self._signer.add_auth(request)
        with self._troubles():
            reply = self._plain.send(request.prepare())
        try:
            said = json.loads(reply.content)
        except ValueError:
            said = {}
        if reply.status_code != 200:
            told = said.get("message") or said.get("Message") or f"HTTP {reply.status_code}"
            raise Trouble(str(told), str(said.get("__type", "")))
        return dict(said)

    def newest_lines(
        self, group: str, most: int, pattern: str = "", since_ms: float = 0.0, prefix: str = ""
    ) -> list[dict[str, Any]]:
        """The newest `most` lines of a log group that match, oldest first, from a time on. Raises Trouble.

        FilterLogEvents begins with the oldest, so that the last minute is asked for first, and then longer times until
        there are enough lines; where the last minute alone is too much for one look, it is read on to its end.
        """
        more: dict[str, Any] = {"filterPattern": pattern} if pattern else {}
        more |= {"logStreamNamePrefix": prefix} if prefix else {}
        now_ms = time.time() * 1000
        found: list[dict[str, Any]] = []
        for length_ms in (*_LOOKS_MS, now_ms):
            start_ms = max(since_ms, now_ms - length_ms)
            found = self._lines_from(group, start_ms, most, more)
            if len(found) >= most or start_ms <= since_ms:
                break
        return found

    def _lines_from(self, group: str, start_ms: float, most: int, more: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The last `most` of the lines from a time on, of as many as are looked at."""
        kept: list[dict[str, Any]] = []
        with self._troubles():
            pages = self._client("logs").get_paginator("filter_log_events")
            for count, page in enumerate(pages.paginate(logGroupName=group, startTime=int(start_ms), **more)):
                kept = [*kept, *page.get("events", ())][-most:]
                if count >= _LOG_PAGES_MAX:
                    break
        return kept

    # --- what several pages ask ---------------------------------------------------------------------------------------

    def who(self) -> str:
        """The account of the credentials. Raises Trouble where they are no good."""
        return str(self.call("sts", "get_caller_identity")["Account"])

    def status(self) -> list[dict[str, Any]]:
        """The endpoints of our region with their instances."""
        told = self.own("/eyrie/status")
        return [one for one in told.get("endpoints", ()) if one["region"] == self.region]

    def story(self, name: str) -> list[dict[str, Any]]:
        """The events of an endpoint, oldest first."""
        return list(self.own(f"/eyrie/story/{quote(name, safe='')}").get("events", ()))

    def steer(self, name: str, do: str) -> None:
        """Promote or abort the deployment that is on its way. Raises Trouble."""
        self.own(f"/eyrie/deployments/{quote(name, safe='')}", {"do": do, "why": "asked for in the console"})

    def endpoint(self, name: str) -> dict[str, Any]:
        """DescribeEndpoint."""
        return self.call("sagemaker", "describe_endpoint", EndpointName=name)

    def config(self, name: str) -> dict[str, Any]:
        """DescribeEndpointConfig."""
        return self.call("sagemaker", "describe_endpoint_config", EndpointConfigName=name)

    def alarms(self) -> list[dict[str, Any]]:
        """All metric alarms and composite ones."""
        found = self.every("cloudwatch", "describe_alarms", "MetricAlarms", AlarmTypes=["MetricAlarm"])
        return found + self.every("cloudwatch", "describe_alarms", "CompositeAlarms", AlarmTypes=["CompositeAlarm"])

    def measured(self, wanted: Sequence[measures.Measure | measures.Said], span: Span) -> list[Points]:
        """A series for each measure."""
        points: list[Points] = []
        for at in range(0, len(wanted), measures.QUERIES_MAX):
            part = wanted[at : at + measures.QUERIES_MAX]
            points += measures.found(self._metric_data(measures.queries(part, span), span), part, span)
        return points

    def series(self, queries: Sequence[Mapping[str, Any]], span: Span) -> list[tuple[str, str, Points]]:
        """What MetricDataQueries give: each series with its query's id and its label. Raises Trouble."""
        return measures.labelled(self._metric_data(queries, span))

    def _metric_data(self, queries: Sequence[Mapping[str, Any]], span: Span) -> dict[str, Any]:
        return self.call(
            "cloudwatch",
            "get_metric_data",
            MetricDataQueries=queries,
            StartTime=span.start_ms / 1000,
            EndTime=span.end_ms / 1000,
            ScanBy="TimestampAscending",
            MaxDatapoints=100_000,
        )

    def _client(self, service: str) -> Any:
        with self._lock:
            client = self._clients.get(service)
            if client is None:
                client = self._clients[service] = self._botocore.create_client(
                    service,
                    region_name=self.region,
                    endpoint_url=self.url,
                    aws_access_key_id=self.keys.access_key_id,
                    aws_secret_access_key=self.keys.secret_access_key,
                    config=_config(service),
                )
            return client

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """Whatever a call raises, in words."""
        try:
            yield
        except ClientError as error:
            told: Mapping[str, Any] = error.response.get("Error", {})
            code = str(told.get("Code", ""))
            raise Trouble(str(told.get("Message") or code or "The request was refused."), code) from None
        except HTTPClientError:
            raise Trouble(_AWAY.format(url=self.url), AWAY) from None
        except BotoCoreError as error:  # a parameter that botocore itself refuses
            raise Trouble(str(error)) from None


def _config(service: str) -> Config:
    """No retries beyond one: a page asks again by itself. Invocations are not retried at all: their time is shown."""
    attempts = 1 if service == "sagemaker-runtime" else 2
    return Config(
        connect_timeout=3,
        read_timeout=70 if service in ("sagemaker-runtime", "s3") else 20,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        max_pool_connections=16,
        s3={"addressing_style": "path"},
        parameter_validation=True,
    )


Open = Callable[[Keys, str], Client]
"""Makes a client of credentials and a region."""
