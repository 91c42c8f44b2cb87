"""`eyrie logs ENDPOINT`: what its instances say, merged by time, read from their files (control need not run)."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from eyrie.adapters.instance_logs import InstanceLogs, Line
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.domain.names import EndpointKey

_FOLLOW_PERIOD_S = 0.5
Told = tuple[Line, str]  # a line and the name of its stream


def run(data: Path, endpoint: str, follow: bool, last: int, as_json: bool = False) -> None:
    """Print the last lines, and with `follow` go on until Ctrl-C. Raises CommandError where there is no log."""
    logs = InstanceLogs(data)
    keys = sorted(key for key in logs.endpoints() if key.name == endpoint)
    if not keys:
        raise CommandError(f"no instance of an endpoint {endpoint!r} has said anything under {data}")
    seen = Seen()
    lines = seen.new(read(logs, keys))
    show(lines[len(lines) - min(last, len(lines)) :], as_json)
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            time.sleep(_FOLLOW_PERIOD_S)
            show(seen.new(read(logs, keys)), as_json)


def read(logs: InstanceLogs, keys: list[EndpointKey]) -> list[Told]:
    """Every line of every instance, oldest first."""
    streams = (stream for key in keys for stream in logs.streams(key))
    told = [(line, stream.name) for stream in streams for line in logs.lines(stream)]
    return sorted(told, key=lambda entry: entry[0].at_ms)


class Seen:
    """Remembers the newest moment shown of each stream, so that a rotated file shows nothing twice."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._at_newest: dict[str, Counter[str]] = {}

    def new(self, told: list[Told]) -> list[Told]:
        """The lines that were not there before; `told` is in the order of time."""
        before = {stream: counts.copy() for stream, counts in self._at_newest.items()}
        floor = dict(self._newest)
        return [(line, stream) for line, stream in told if self._is_new(line, stream, floor, before)]

    def _is_new(self, line: Line, stream: str, floor: dict[str, int], before: dict[str, Counter[str]]) -> bool:
        newest = floor.get(stream, -1)
        if line.at_ms < newest:
            return False
        if line.at_ms == newest and before[stream][line.text] > 0:
            before[stream][line.text] -= 1
            return False
        if line.at_ms > self._newest.get(stream, -1):
            self._newest[stream] = line.at_ms
            self._at_newest[stream] = Counter()
        self._at_newest[stream][line.text] += 1
        return True


def show(lines: list[Told], as_json: bool) -> None:
    """Print lines with their time and their stream; for programs an object a line, as `eyrie tail` does."""
    for line, stream in lines:
        if as_json:
            print_document({"at_ms": line.at_ms, "stream": stream, "message": line.text})
            continue
        at = datetime.fromtimestamp(line.at_ms / 1000, UTC)
        print(f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z {stream} {line.text}", flush=False)
