"""Floor 2, the promises: what the decisions' driver needs of the world, each at most six methods.

Adapters keep them (one technology a file); `tests/contract/` runs one suite over every adapter of a port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eyrie.domain.credits import Credits
from eyrie.domain.fleet import InstanceSpec, ObservedInstance
from eyrie.domain.jobs import Job, RunSeen
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import EndpointKey, Scope
from eyrie.domain.routing import EndpointRoute
from eyrie.domain.usage import HostUsage, InstanceUsage

Statistic = Callable[[Summary], float | None]


class Clock(Protocol):
    """Time for decisions; `EYRIE_TIME_SCALE` speeds it up."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...


class Identity(Protocol):
    """Chance, as an argument."""

    def token(self, digits: int) -> str:
        """Random lower-case hex digits."""
        ...


class Conflict(Exception):
    """A document was not at the version that the commit expected: read again, decide again."""


@dataclass(frozen=True, slots=True)
class Document:
    """One stored resource. `version` rises by one a commit; 0 is written for 'must not exist yet'."""

    kind: str  # "Model", "EndpointConfig", "Endpoint", ... SageMaker's noun
    scope: Scope
    name: str
    version: int
    created_ms: int
    modified_ms: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a resource's story: what was decided or seen, when, and why."""

    kind: str  # noun of the subject
    scope: Scope
    name: str
    at_ms: int
    what: str  # "instance READY"
    why: str  # the reason, with its numbers


@dataclass(frozen=True, slots=True)
class Action:
    """An effect that a commit owes the world. It may run twice: `action_id` is its idempotency key."""

    action_id: str
    kind: str  # noun and name of the subject tell whose reconciler hears of the outcome
    scope: Scope
    name: str
    verb: str  # "ensure_instance", "stop_instance", "publish_route", "fetch_artifact", ...
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: all of it or nothing."""

    puts: Sequence[Document] = ()  # each is compared with its version, then stored at version + 1
    deletes: Sequence[Document] = ()
    events: Sequence[Event] = ()
    actions: Sequence[Action] = ()
    finished: Sequence[str] = ()  # ids of actions that are done
    extra: dict[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """State of the control process: documents with versions, events, an outbox of actions, leases."""

    def get(self, kind: str, scope: Scope, name: str) -> Document | None:
        """The document, or None."""
        ...

    def scan(self, kind: str, scope: Scope | None = None) -> list[Document]:
        """All documents of a kind, in one scope or in all."""
        ...

    def commit(self, commit: Commit) -> None:
        """Store a transaction durably. Raises Conflict when any document is at another version."""
        ...

    def outbox(self) -> list[Action]:
        """Actions not finished yet, in the order they were committed."""
        ...

    def events(self, kind: str, scope: Scope, name: str, limit: int = 1000) -> list[Event]:
        """The newest events of a resource, oldest first; they outlive the resource."""
        ...

    def lease(self, name: str, holder: str, now_ms: int, duration_ms: int) -> bool:
        """Take or renew a lease; False while another holds it."""
        ...


class StartRefused(Exception):
    """Compute cannot start this instance and never will as things stand; the message is the reason for people."""


class InsufficientCapacity(StartRefused):
    """The limit that was set on this host is reached."""


class Compute(Protocol):
    """Brings instances up and down. Every call may be repeated; an older generation is refused."""

    def ensure(self, spec: InstanceSpec) -> None:
        """Make the instance run, unless it already does (alive by its lock) or ever did. Raises StartRefused."""
        ...

    def stop(self, instance_id: str, grace_ms: int) -> None:
        """SIGTERM (0 grace: SIGKILL at once), SIGKILL after the grace; returns without waiting for it."""
        ...

    def forget(self, instance_id: str) -> None:
        """Remove what is left of an instance that is gone (its logs move to the log archive). No-op while it lives."""
        ...

    def inventory(self) -> list[ObservedInstance]:
        """Every instance that exists on this compute, alive or gone but not forgotten."""
        ...

    def tail(self, instance_id: str, lines: int) -> list[str]:
        """The last lines of an instance's log, for reasons."""
        ...

    def cpu_us(self, instance_id: str) -> int | None:
        """CPU time that its processes have used, microseconds; None: not known, or one of them is stopped."""
        ...


class Blobs(Protocol):
    """Bytes under opaque names (32 hex digits), each written once. Failures of the store are OSErrors."""

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a blob durably, streaming; its size in bytes. What `chunks` raises is raised, and nothing is stored."""
        ...

    def read(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`, in pieces."""
        ...

    async def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; those that are not there are no error."""
        ...

    def list(self) -> AsyncIterator[Sequence[str]]:
        """The names of all blobs, in pages, in no order: for sweeping."""
        ...

    async def tidy(self, prefix: str) -> int:
        """Remove what interrupted puts of names that begin so left half written; how many. While nobody puts such."""
        ...


class ArtifactError(Exception):
    """A model archive that cannot be had or read; the message is the reason for people."""


class ArtifactMissing(ArtifactError):
    """There is no such archive."""


class Artifacts(Protocol):
    """Model archives by digest, kept as long as an endpoint names them."""

    def fetch(self, scope: Scope, url: str, code_url: str | None = None) -> str:
        """Download an s3:// model archive (or a prefix, ending with "/"), verify and unpack it once; its sha256.

        `code_url` is a second archive, the user's own code (SAGEMAKER_SUBMIT_DIRECTORY where it is an s3:// URL): it is
        unpacked over `model/code`, and the digest is then of both. Raises ArtifactError; and OSError to be retried.
        """
        ...

    def path(self, digest: str) -> Path:
        """The folder `artifacts/DIGEST`: `model/` unpacked."""
        ...

    def keep(self, digests: set[str]) -> None:
        """Remove every archive that is not named."""
        ...


@dataclass(frozen=True, slots=True)
class TargetArchive:
    """A model of a multi-model endpoint, unpacked on this host."""

    path: Path  # the folder that holds its files
    fetched_us: int  # how long its download took; 0: it was here and is still the newest


class TargetModels(Protocol):
    """Archives that requests name, kept while there is room for them."""

    def hold(self, scope: Scope, url: str) -> AbstractContextManager[TargetArchive]:
        """The newest version of an archive, unpacked; nobody removes or replaces it while it is held.

        Raises ArtifactError (ArtifactMissing where there is none), and OSError to be retried.
        """
        ...


class NoAnswer(Exception):
    """An instance did not answer, or not in time, or not in HTTP; the message says which."""


class ModelRooms(Protocol):
    """Running instances as places that models are put into; an instance is named by its socket."""

    def placed(self, socket: str) -> set[str]:
        """Keys of the models whose files are there."""
        ...

    def place(self, socket: str, key: str, source: Path) -> None:
        """Put a model's files at `/opt/ml/models/KEY/model` of the instance, in place of what was there.

        Raises OSError.
        """
        ...

    def remove(self, socket: str, key: str) -> None:
        """Take a model's files away, if they are there."""
        ...

    def workers(self, socket: str) -> list[int]:
        """The numbers of its workers that listen."""
        ...

    def ask(
        self, socket: str, worker: int, method: str, target: str, body: bytes = b"", timeout_s: float = 5.0
    ) -> tuple[int, bytes]:
        """A request to one worker: status and body of its reply. Raises NoAnswer."""
        ...


class MetricsFull(Exception):
    """There is no room for a measurement; the message is for people."""


@dataclass(frozen=True, slots=True)
class Series:
    """A metric that was measured."""

    metric: Metric
    unit: str  # as it was first told
    latest_ms: int  # of its newest measurement


class Metrics(Protocol):
    """Measurements over time, merged by second, minute, five minutes and hour, the finer ones kept for less long."""

    def record(self, measured: Sequence[Measured]) -> None:
        """Take measurements in, without waiting for any disk. Raises MetricsFull, and takes none.

        They are the store's from here on: nobody changes a summary that was handed over.
        """
        ...

    def keep(self) -> None:
        """What was taken in so far outlives this process, where the disk allows it: called before something that was
        decided on it is committed, so that whoever decides next, after a crash, has seen no less.
        """
        ...

    def series(self, scope: Scope, namespace: str | None = None, name: str | None = None) -> list[Series]:
        """Every series of an account and region, or those of a namespace and a name; sorted."""
        ...

    def summaries(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int) -> dict[int, Summary]:
        """What was measured from `start_ms` to before `end_ms`, by the start of each period; empty ones are left out.

        Periods begin at `start_ms`; both are whole seconds.
        """
        ...

    def statistics(self, metric: Metric, start_ms: int, end_ms: int, period_ms: int, of: Statistic) -> dict[int, float]:
        """Likewise what `of` makes of each of them; periods for which it knows no answer are left out."""
        ...


class Usages(Protocol):
    """What the instances of this host use, and how much CPU each may use. Called from one thread at a time."""

    def read(self) -> list[InstanceUsage]:
        """Every instance that lives, now."""
        ...

    def throttle(self, instance_id: str, vcpu_milli: int) -> bool:
        """Let an instance use so much CPU from now on; False where nothing here can hold it to that."""
        ...

    def remember(self, instance_id: str, credits: Credits) -> None:
        """Keep what an instance has, for as long as it lives."""
        ...

    def recall(self, instance_id: str) -> Credits | None:
        """What was kept last."""
        ...


class Host(Protocol):
    """What this host as a whole uses."""

    def read(self) -> HostUsage:
        """The host now."""
        ...


class JobRuns(Protocol):
    """Brings a job's inputs here, runs its program in a sandbox, and takes its outputs to a bucket. Every call may be
    repeated.
    """

    def fetch(self, job: Job) -> None:
        """Download and unpack its inputs. Raises ArtifactError; and OSError to be retried."""
        ...

    def start(self, job: Job) -> None:
        """Start its program, unless it was ever started; one that is resumable again for each attempt, and what it
        needs and lacks as well. Raises StartRefused.
        """
        ...

    def inventory(self) -> list[RunSeen]:
        """Everything that is here of any job."""
        ...

    def stop(self, run_id: str) -> None:
        """Kill its program; returns without waiting. No-op where nothing runs."""
        ...

    def upload(self, job: Job) -> dict[str, str]:
        """Store its outputs; their URLs and digests, by name. Raises ArtifactError; and OSError to be retried."""
        ...

    def forget(self, run_id: str) -> None:
        """Remove what is left of a job that is over; its log moves to the archive. No-op while its program lives."""
        ...


class Routes(Protocol):
    """Publishes route tables to the gateway workers and hears what they say."""

    def publish(self, route: EndpointRoute) -> None:
        """Write the endpoint's table and hint; a lower generation than the published one is refused."""
        ...

    def withdraw(self, key: EndpointKey, generation: int) -> None:
        """Remove the endpoint's table."""
        ...

    def served(self, key: EndpointKey) -> int:
        """The lowest generation that any live gateway worker still serves; very large when none is live."""
        ...

    def idle(self, instance_id: str) -> bool:
        """True when no live worker has a request outstanding on an instance that left its table."""
        ...

    def published(self) -> dict[EndpointKey, int]:
        """Every table that is published, with its generation: what a start finds."""
        ...
