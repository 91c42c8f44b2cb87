"""`eyrie tail ENDPOINT`: its log followed by the CloudWatch Logs API, from wherever one is."""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public, Refused

LOOK_S = 0.5
OVERLAP_MS = 5_000  # events of several instances arrive a little out of order
REMEMBERED_MAX = 50_000
_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    endpoint: str
    pattern: str | None
    since: str
    follow: bool
    as_json: bool
    requests: bool


class Follower:
    """Remembers what was shown, so that nothing is shown twice though each look reaches back a little."""

    def __init__(self) -> None:
        self._shown: set[str] = set()
        self._order: deque[str] = deque()
        self.newest_ms = 0

    def new(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those not seen before, in the order of time."""
        found = []
        for event in sorted(events, key=lambda one: int(one["timestamp"])):
            identity = str(event["eventId"])
            if identity in self._shown:
                continue
            self._shown.add(identity)
            self._order.append(identity)
            if len(self._order) > REMEMBERED_MAX:
                self._shown.discard(self._order.popleft())
            self.newest_ms = max(self.newest_ms, int(event["timestamp"]))
            found.append(event)
        return found


def run(data: Path, asked: Asked) -> None:
    """Print what was said since, and go on until Ctrl-C. Raises CommandError."""
    public = Public.of(data)
    group = f"/{'eyrie' if asked.requests else 'aws/sagemaker'}/Endpoints/{asked.endpoint}"
    start = time.time_ns() // 1_000_000 - span_ms(asked.since)
    follower = Follower()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            since = max(start, follower.newest_ms - OVERLAP_MS)
            for event in follower.new(_events(public, group, since, asked)):
                _show(event, asked.as_json)
            if not asked.follow:
                return
            time.sleep(LOOK_S)


def span_ms(text: str) -> int:
    """30s, 10m, 2h, 1d as milliseconds. Raises CommandError."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise CommandError(f"--since {text!r} is no span of time: 30s, 10m, 2h, 1d", code=2)
    return int(found[1]) * _UNITS_MS[found[2]]


def _events(public: Public, group: str, since_ms: int, asked: Asked) -> list[dict[str, Any]]:
    more = {"filterPattern": asked.pattern} if asked.pattern else {}
    try:
        pages = public.pages("logs", "filter_log_events", "events", logGroupName=group, startTime=since_ms, **more)
        return list(pages)
    except Refused as refused:
        if refused.error == "ResourceNotFoundException":
            raise CommandError(f"there is no log of an endpoint {asked.endpoint!r}") from None
        raise


def _show(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        told = {"at_ms": event["timestamp"], "stream": event["logStreamName"], "message": event["message"]}
        print_document(told)
        return
    at = datetime.fromtimestamp(int(event["timestamp"]) / 1000, UTC)
    millis = at.microsecond // 1000
    print(f"{at:%H:%M:%S}.{millis:03d} {event['logStreamName']} {str(event['message']).rstrip()}", flush=True)
