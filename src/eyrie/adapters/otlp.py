"""Sends families to an OpenTelemetry receiver: OTLP over HTTP, in its JSON encoding. Nothing waits for it.

A loop of control's. A receiver that is away or refuses costs that one export; numbers are cumulative, so the next one
makes up for it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import eyrie
from eyrie.domain.exposition import Distribution, Family, FamilyKind, Labels

log = logging.getLogger(__name__)

ENDPOINT, HEADERS, INTERVAL = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_METRIC_EXPORT_INTERVAL"
EVERY_MS = 60_000  # OpenTelemetry's own default
TIMEOUT_S = 10.0
_CUMULATIVE = 2
_REPLY_BYTES_MAX = 65_536


class ReceiverUnusable(ValueError):
    """The address is no http or https one; the message is for people."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where to, with which headers, how often."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    every_ms: int = EVERY_MS


def receiver(address: str, env: Mapping[str, str]) -> Receiver | None:
    """The receiver that a setting, or else OpenTelemetry's variable, names; None where neither does. Raises
    ReceiverUnusable.
    """
    address = address or env.get(ENDPOINT, "")
    if not address:
        return None
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ReceiverUnusable(f"EYRIE_OTLP or {ENDPOINT}: {address!r} is no http:// or https:// address")
    given = env.get(INTERVAL, "")
    if given and not (given.isdigit() and int(given) >= 100):
        raise ReceiverUnusable(f"{INTERVAL}: {given!r} is not a number of milliseconds from 100 on")
    pairs = (pair.partition("=") for pair in env.get(HEADERS, "").split(",") if "=" in pair)
    headers = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    return Receiver(f"{address.rstrip('/')}/v1/metrics", headers, int(given or EVERY_MS))


class OtlpExport:
    """The loop that sends."""

    def __init__(self, to: Receiver, families: Callable[[], Sequence[Family]]) -> None:
        self._to = to
        self._families = families
        self._started_ns = time.time_ns()
        self._failing = False

    async def run(self) -> None:
        """Send again and again, for ever."""
        while True:
            await asyncio.sleep(self._to.every_ms / 1000)
            try:
                await asyncio.to_thread(self.send)
            except Exception:  # the loop boundary: what could not be gathered now is in the next export
                log.exception("metrics cannot be gathered")

    def send(self) -> bool:
        """One export; False where it did not arrive."""
        body = json.dumps(request(self._families(), self._started_ns, time.time_ns())).encode()
        headers = {"Content-Type": "application/json", **self._to.headers}
        asked = urllib.request.Request(self._to.url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as reply:
                reply.read(_REPLY_BYTES_MAX)
        except (OSError, http.client.HTTPException, ValueError) as error:  # refused, or a port that speaks no HTTP/1
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if not self._failing:
                log.warning("metrics cannot be sent to %s: %s", self._to.url, error)
            self._failing = True
            return False
        if self._failing:
            log.info("metrics are sent to %s again", self._to.url)
        self._failing = False
        return True


def request(families: Sequence[Family], started_ns: int, now_ns: int) -> dict[str, Any]:
    """An ExportMetricsServiceRequest."""
    when = {"startTimeUnixNano": str(started_ns), "timeUnixNano": str(now_ns)}
    metrics = [_metric(family, when) for family in families if family.samples or family.distributions]
    scope = {"name": "eyrie", "version": eyrie.__version__}
    resource = {"attributes": _attributes({"service.name": "eyrie", "service.version": eyrie.__version__})}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": scope, "metrics": metrics}]}]}


def _metric(family: Family, when: Mapping[str, str]) -> dict[str, Any]:
    points = [{"attributes": _attributes(s.labels), **when, "asDouble": s.value} for s in family.samples]
    what: dict[str, Any] = {"gauge": {"dataPoints": points}}
    if family.kind is FamilyKind.COUNTER:
        what = {"sum": {"dataPoints": points, "aggregationTemporality": _CUMULATIVE, "isMonotonic": True}}
    elif family.kind is FamilyKind.HISTOGRAM:
        spreads = [_spread(spread, when) for spread in family.distributions]
        what = {"histogram": {"dataPoints": spreads, "aggregationTemporality": _CUMULATIVE}}
    return {"name": family.name, "description": family.about, "unit": family.unit, **what}


def _spread(spread: Distribution, when: Mapping[str, str]) -> dict[str, Any]:
    return {
        "attributes": _attributes(spread.labels),
        **when,
        "count": str(int(sum(spread.counts))),
        "sum": spread.total,
        "bucketCounts": [str(int(count)) for count in spread.counts],
        "explicitBounds": list(spread.bounds),
    }


def _attributes(labels: Labels) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"stringValue": value}} for name, value in labels.items()]
