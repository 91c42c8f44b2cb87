"""What instances print, read from their files: of those that live (`slots/ID/box/log`, `log.1`) and of those that are
gone.

The logs API, `eyrie logs` and failure reasons read through it; it writes nothing (and removes, for control,
what expired). The instance itself writes and bounds its files (docs/concepts/processes.md), so a file may be renamed or
gone at any moment: that reads as empty.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eyrie.adapters.slots import read_bounded
from eyrie.domain.fleet import JOB_INSTANCE
from eyrie.domain.names import EndpointKey, Scope

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z ?(.*)")
READ_BYTES_MAX = 67_108_864  # of one file; the writer's own bound is lower
SPEC_BYTES_MAX = 1_048_576
EDGE_BYTES = 65_536
TRANSFORM = "TransformJob"
DATA_LOG = "/data-log"  # of a transform job: what Eyrie itself says of it


@dataclass(frozen=True, slots=True)
class Line:
    """One log event: a stamped line with the unstamped ones that follow it."""

    at_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Stream:
    """The log of one instance, over its files, oldest file first; of an instance with several containers, the lines of
    one of them. What the instance itself says is in the first one's. Of a job: without a variant, under the job's name.
    """

    variant: str
    instance_id: str
    files: tuple[Path, ...]
    alive: bool
    container: str = ""  # host name; "" where the instance has a single one
    containers: tuple[str, ...] = ()  # of all, where there are several

    @property
    def name(self) -> str:
        """The stream's name in the logs API, as SageMaker names it."""
        if not self.variant:
            return self.instance_id
        return f"{self.variant}/{self.instance_id}" + (f"/{self.container}" if self.container else "")

    def own(self, line: Line) -> Line | None:
        """The line as this stream has it; None where it is another container's."""
        if not self.container:
            return line
        speaker, separator, text = line.text.removeprefix("[").partition("] ")
        if not separator or not line.text.startswith("[") or speaker not in self.containers:
            return line if self.container == self.containers[0] else None
        return Line(line.at_ms, text) if speaker == self.container else None


@dataclass(frozen=True, slots=True)
class Span:
    """First and last time in a stream (0: none), and how many bytes it has."""

    first_ms: int = 0
    last_ms: int = 0
    size_bytes: int = 0


class InstanceLogs:
    """The logs under one data directory."""

    def __init__(self, data: Path) -> None:
        self._slots = data / "slots"
        self._gone = data / "logs" / "endpoints"
        self._jobs, self._jobs_gone = data / "jobs", data / "logs" / "jobs"

    def endpoints(self) -> set[EndpointKey]:
        """Every endpoint that has a log."""
        living = {key for key, _ in self._living()}
        gone = {_key(folder.name) for folder in _folders(self._gone)}
        return living | {key for key in gone if key is not None}

    def streams(self, key: EndpointKey) -> list[Stream]:
        """The streams of an endpoint by name."""
        found = {stream.name: stream for stream in self._archived(key)}
        found.update({stream.name: stream for at, stream in self._living() if at == key})
        return [found[name] for name in sorted(found)]

    def jobs(self, kind: str, scope: Scope) -> list[Stream]:
        """The logs of jobs of a kind by name: of those under way, and the newest of each name that are over."""
        start = f"{scope.account}.{scope.region}."
        gone = (self._jobs_gone / kind).glob(f"{start}*.log")
        named = {path.stem.removeprefix(start): path for path in gone}
        found = {name: Stream("", name, (path,), alive=False) for name, path in named.items()}
        for folder in _folders(self._jobs):
            if (name := _job(folder / "job.json", kind, scope)) is not None:
                files = (folder / "start.log", folder / "box" / "log.1", folder / "box" / "log")
                found[name] = Stream("", name, files, alive=True)
        if kind == TRANSFORM:
            found = {f"{name}{DATA_LOG}": replace(one, instance_id=name + DATA_LOG) for name, one in found.items()}
            found |= {stream.name: stream for stream in self._of_transforms(scope)}
        return [found[name] for name in sorted(found)]

    def _of_transforms(self, scope: Scope) -> Iterator[Stream]:
        """The streams of the instances of transform jobs, `JOB/INSTANCE`."""
        for folder in _folders(self._jobs_gone / TRANSFORM):
            key = _key(folder.name)
            if key is not None and key.scope == scope:
                for path in sorted(folder.glob("*.log")):
                    yield Stream(key.name, path.stem, (path,), alive=False)
        for key, stream in self._living(jobs=True):
            if key.scope == scope:
                yield replace(stream, variant=key.name)

    def remove_jobs(self, kind: str, scope: Scope) -> None:
        """Remove the logs of jobs of a kind that are over. For control, whose files they are."""
        for path in (self._jobs_gone / kind).glob(f"{scope.account}.{scope.region}.*.log"):
            path.unlink(missing_ok=True)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)

    def lines(self, stream: Stream) -> list[Line]:
        """All lines of a stream, oldest first."""
        everything = _parse(_text(stream.files), max(map(_modified_ms, stream.files), default=0))
        return [own for line in everything if (own := stream.own(line)) is not None]

    def lines_of(self, stream: Stream) -> tuple[str, list[tuple[int, str]]]:
        """Its name, and all its lines as (milliseconds, text)."""
        return stream.name, [(line.at_ms, line.text) for line in self.lines(stream)]

    def written_ms(self, stream: Stream) -> int:
        """When any of its files was written last."""
        return max(map(_modified_ms, stream.files), default=0)

    def remove_gone(self, key: EndpointKey) -> None:
        """Remove the logs of instances of an endpoint that are gone. For control, whose files they are."""
        shutil.rmtree(self._gone / key.slug, ignore_errors=True)

    def remove_old(self, key: EndpointKey, before_ms: int) -> None:
        """Remove the logs of gone instances whose last line is older. For control, whose files they are."""
        for stream in self._archived(key):
            for path in stream.files:
                if _modified_ms(path) < before_ms and self.span(stream).last_ms < before_ms:
                    path.unlink(missing_ok=True)
                    path.with_suffix(".containers").unlink(missing_ok=True)

    def span(self, stream: Stream) -> Span:
        """From when to when a stream reaches, from the ends of its files: of several containers, all of them."""
        files = [path for path in stream.files if _size(path)]
        if not files:
            return Span()
        first, last = _parse(_head(files[0])), _parse(_text(files[-1:], EDGE_BYTES))
        stamps = [line.at_ms for line in (*first, *last) if line.at_ms]
        return Span(min(stamps, default=0), max(stamps, default=0), sum(_size(path) for path in files))

    def _living(self, jobs: bool = False) -> Iterator[tuple[EndpointKey, Stream]]:
        """Streams of instances of endpoints, or of jobs."""
        for slot in _folders(self._slots):
            spec = _spec(slot / "spec.json")
            if spec is not None and spec.instance_id.startswith(JOB_INSTANCE) is jobs:
                files = (slot / "start.log", slot / "box" / "log.1", slot / "box" / "log")
                whole = Stream(spec.variant, spec.instance_id, files, alive=True)
                for stream in _by_container(whole, spec.containers):
                    yield spec.key, stream

    def _archived(self, key: EndpointKey) -> Iterator[Stream]:
        for variant in _folders(self._gone / key.slug):
            for path in sorted(variant.glob("*.log")):
                whole = Stream(variant.name, path.stem, (path,), alive=False)
                yield from _by_container(whole, _archived_containers(path.with_suffix(".containers")))


@dataclass(frozen=True, slots=True)
class _Owner:
    key: EndpointKey
    variant: str
    instance_id: str
    containers: tuple[str, ...]  # host names


def _by_container(whole: Stream, containers: tuple[str, ...]) -> list[Stream]:
    """A stream a container, where there are several."""
    if len(containers) < 2:
        return [whole]
    return [replace(whole, container=name, containers=containers) for name in containers]


def _archived_containers(path: Path) -> tuple[str, ...]:
    """Host names of the containers of an instance that is gone, where it had several."""
    try:
        return tuple(str(name) for name in json.loads(read_bounded(path, SPEC_BYTES_MAX)))
    except (ValueError, TypeError):
        return ()


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []


def _key(slug: str) -> EndpointKey | None:
    try:
        return EndpointKey.from_slug(slug)
    except ValueError:
        return None


def _spec(path: Path) -> _Owner | None:
    """Whose instance a slot is, as its spec says; None for a slot that nobody claimed."""
    try:
        spec: Any = json.loads(read_bounded(path, SPEC_BYTES_MAX))
        endpoint = spec["endpoint"]
        key = EndpointKey(endpoint["account"], endpoint["region"], endpoint["name"])
        containers = tuple(str(container["hostname"]) for container in spec.get("containers", ()))
        return _Owner(key, str(spec["variant"]), str(spec["instance_id"]), containers)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _job(path: Path, kind: str, scope: Scope) -> str | None:
    """The name of a job, where it is of that kind and scope."""
    try:
        told: Any = json.loads(read_bounded(path, SPEC_BYTES_MAX))
        ours = (told["kind"], told["scope"]) == (kind, [scope.account, scope.region])
        return str(told["name"]) if ours else None
    except (ValueError, KeyError, TypeError):
        return None


def _text(files: Sequence[Path], bytes_max: int = READ_BYTES_MAX) -> str:
    """The files one after the other. Links and pipes read as empty: the folder is an instance's own to write."""
    return b"".join(read_bounded(path, bytes_max) for path in files).decode("utf-8", "replace")


def _head(path: Path) -> str:
    """The first bytes of a file that `read_bounded` would read."""
    return read_bounded(path, READ_BYTES_MAX)[:EDGE_BYTES].decode("utf-8", "replace")


def _modified_ms(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns // 1_000_000
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _parse(text: str, unstamped_ms: int = 0) -> list[Line]:
    """The lines of a log. What comes before the first stamp gets that stamp's time, else `unstamped_ms`."""
    found: list[Line] = []
    for raw in text.splitlines():
        stamped = _STAMP.match(raw)
        if stamped is not None:
            found.append(Line(_milliseconds(stamped[1]), stamped[2]))
        elif found:
            found[-1] = Line(found[-1].at_ms, f"{found[-1].text}\n{raw}")
        elif raw:
            found.append(Line(0, raw))
    if found and not found[0].at_ms:
        found[0] = Line(found[1].at_ms if len(found) > 1 else unstamped_ms, found[0].text)
    return found


def _milliseconds(stamp: str) -> int:
    try:
        return round(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:  # the form of a stamp, but no such day
        return 0
