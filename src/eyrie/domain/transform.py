"""Batch transform: what a job is asked to do with objects of a bucket, and what it has done so far.

A job's work list is split among its instances by object key; each share is worked off in order, object by object,
payload by payload. A `Mark` is where a share stands: what comes before it is done and on disk, what comes after is
done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Split(StrEnum):
    """Where a record of an input object ends (SplitType)."""

    NONE = "None"  # the object is one record
    LINE = "Line"
    RECORD_IO = "RecordIO"
    TF_RECORD = "TFRecord"


class Strategy(StrEnum):
    """How many records a request has (BatchStrategy)."""

    MULTI_RECORD = "MultiRecord"  # as many as fit
    SINGLE_RECORD = "SingleRecord"


class Assemble(StrEnum):
    """What stands between results (AssembleWith)."""

    NONE = "None"
    LINE = "Line"


@dataclass(frozen=True, slots=True)
class Processing:
    """DataProcessing: what of a record the model gets, and what of record and prediction is written."""

    input_filter: str = "$"
    output_filter: str = "$"
    join: bool = False  # JoinSource Input

    @property
    def filters_input(self) -> bool:
        """Whether records are taken apart before they are sent."""
        return self.input_filter != "$"

    @property
    def shapes_output(self) -> bool:
        """Whether answers are taken apart before they are written."""
        return self.join or self.output_filter != "$"


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """What a transform job was asked for. None: left to the container, or to the default."""

    input_url: str  # s3:// prefix, or the URL of a manifest
    output_url: str
    manifest: bool = False
    content_type: str = ""
    accept: str = ""
    gzip: bool = False
    split: Split = Split.NONE
    assemble: Assemble = Assemble.NONE
    strategy: Strategy | None = None
    max_payload_mb: int | None = None  # 0: no limit, sent in chunks
    max_concurrent: int | None = None
    timeout_s: int = 600  # of one request
    retries: int = 3  # of one request
    processing: Processing = Processing()
    instances: int = 1
    startup_s: int = 600  # how long an instance may take until it answers pings
    bad_records_max: int = 0  # records that may be bad in the whole job; 0: strict, as the real service is
    in_process: bool = True  # many records in one message where the instance is ours; off: a request each
    capture_url: str = ""  # DataCaptureConfig: s3:// prefix
    capture_ids: bool = False  # with an inference id each


@dataclass(frozen=True, slots=True)
class InputObject:
    """One object to transform."""

    bucket: str
    key: str
    name: str  # of its output below the job's output path, without ".out"
    size: int  # bytes, as stored
    etag: str = ""

    @property
    def url(self) -> str:
        """For people."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an output object that is in the bucket."""

    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a share of the work stands. Counters only rise."""

    index: int = 0  # of the object that is worked on, in the share
    offset: int = 0  # bytes of it, unpacked, that are done
    line: int = 0  # records of it that are done, blank ones too
    kept: int = 0  # bytes of its output that are on disk here and in no part yet
    upload_id: str = ""
    parts: tuple[Part, ...] = ()
    bad_kept: int = 0  # bytes of the list of its bad records, on disk here
    records: int = 0  # done, of all objects
    bytes_read: int = 0  # of the input, as stored, of all objects
    bytes_written: int = 0  # of outputs
    bad_records: int = 0
    failed: tuple[str, ...] = ()  # why objects have no output: the first few
    failed_count: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, for people: over all its shares."""

    objects: int = 0
    objects_done: int = 0
    bytes_total: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    records: int = 0
    bad_records: int = 0
    objects_failed: int = 0
    phase: str = "Starting"  # Starting, Transforming, Done
    resumed: int = 0  # how often its run was taken up again

    @property
    def percent(self) -> float:
        """Of the input's bytes."""
        if self.phase == "Done":
            return 100.0
        return min(100.0, 100.0 * self.bytes_read / self.bytes_total) if self.bytes_total else 0.0


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one instance of a job, and who sits there now."""

    number: int
    instance_id: str
    socket: str = ""  # of its first worker; "": not started yet
    workers: int = 1
    foreign: bool = False  # nothing of ours answers in it
    replaced: int = 0  # how often, since the share got anywhere
    replaced_at: int = 0  # the share's counter then


@dataclass(frozen=True, slots=True)
class Agreed:
    """What holds for the requests of a job: the job's own word, then the container's, then the default."""

    strategy: Strategy
    payload_bytes: int  # 0: no limit, sent in chunks
    concurrent: int
    environment: Mapping[str, str] = field(default_factory=dict)
