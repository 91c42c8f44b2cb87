"""Jobs: work that begins, runs in a sandbox of its own, and ends with something in a bucket. Compilation is the first
kind, batch transform the second; the states, and what a job is made of, are the same for all.

The spellings of a kind's own API (INPROGRESS, InProgress ...) are its `api_*` file's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from eyrie.domain.names import Scope


class JobState(StrEnum):
    """QUEUED -> FETCHING -> RUNNING -> UPLOADING -> COMPLETED; from each of the first four -> STOPPING -> STOPPED, or
    -> FAILED; RUNNING and UPLOADING -> FETCHING where its sandbox is gone, and it begins again. One that is resumable
    stays RUNNING when its program is gone: it is started again where it was.
    """

    QUEUED = "QUEUED"  # waits until there is room
    FETCHING = "FETCHING"  # its inputs are being downloaded
    RUNNING = "RUNNING"
    UPLOADING = "UPLOADING"  # it has ended well; what it made is on its way to the bucket
    STOPPING = "STOPPING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


_S = JobState
JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.FETCHING, _S.STOPPING}),
    _S.FETCHING: frozenset({_S.RUNNING, _S.STOPPING, _S.FAILED}),
    _S.RUNNING: frozenset({_S.UPLOADING, _S.FETCHING, _S.STOPPING, _S.FAILED}),
    _S.UPLOADING: frozenset({_S.COMPLETED, _S.FETCHING, _S.STOPPING, _S.FAILED}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.FAILED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.STOPPED: frozenset(),
}
ENDED = frozenset({_S.COMPLETED, _S.FAILED, _S.STOPPED})
HOLDS_ROOM = frozenset({_S.FETCHING, _S.RUNNING, _S.UPLOADING, _S.STOPPING})


@dataclass(frozen=True, slots=True, order=True)
class JobKey:
    """One job among all kinds, accounts and regions."""

    kind: str  # SageMaker's noun: "CompilationJob"
    account: str
    region: str
    name: str

    @property
    def scope(self) -> Scope:
        """The account and region that the job lives in."""
        return Scope(self.account, self.region)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything that is needed to run a job, also when it is run once more."""

    program: str  # which of the programs that the runner knows
    inputs: Mapping[str, str]  # folder below /opt/ml -> s3:// URL of an archive, or of a prefix that ends with "/"
    arguments: Mapping[str, Any]  # for the program
    output_url: str  # s3:// prefix that the outputs go below
    max_runtime_ms: int
    vcpu_milli: int
    memory_mb: int
    resumable: bool = False  # its program takes up what an earlier run of it has left


@dataclass(frozen=True, slots=True)
class Job:
    """One job as control keeps it. Times are milliseconds since the epoch, 0 for 'not yet'."""

    key: JobKey
    run_id: str  # of its sandbox: "j-" and 16 hex digits, the last of which counts attempts
    spec: JobSpec
    state: JobState
    reason: str  # why it is in this state
    created_ms: int
    modified_ms: int
    started_ms: int = 0  # its program was told to run
    ended_ms: int = 0
    attempt: int = 0
    stop_asked: bool = False
    overdue: str = ""  # why it was stopped though nobody asked: it will be FAILED with that
    outputs: Mapping[str, str] = field(default_factory=dict)  # what the end yielded: URLs, digests
    request: Mapping[str, Any] = field(default_factory=dict)  # as it was asked for, to be described
    done: int = 0  # how far its program was when it was begun last
    idle: int = 0  # beginnings since it got any further
    progress: Mapping[str, Any] = field(default_factory=dict)  # what its program told last, for people
    told_ms: int = 0  # when

    @property
    def ended(self) -> bool:
        """Nothing will happen to it any more."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class RunSeen:
    """What the runner sees of a job's process: facts only. Alive means that its lock is held."""

    run_id: str
    started: bool  # it was started, ever
    alive: bool
    exit_code: int | None = None
    ending: str = ""  # how it ended, in words
    error: str = ""  # what the program itself gave as the reason
    excess: str = ""  # why it must be ended for what it did to the host
    attempt: int = 0  # of a resumable one: which beginning this is
    done: int = 0  # how far it is; only rises
    progress: Mapping[str, Any] = field(default_factory=dict)  # the same for people
    lacking: str = ""  # what it needs that is gone, and can be had again


@dataclass(frozen=True, slots=True)
class WorkDone:
    """How a piece of work for a job ended. `error` is a reason for people; None means done."""

    work: str
    error: str | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
