"""What the index knows of buckets, objects, uploads and parts, as plain frozen values.

An object's bytes are segments of blobs: one for a simple object, one or more a part of a multipart one. Copies share
blobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket. Names are unique over all accounts."""

    name: str
    account: str
    region: str
    created_ms: int
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Details:
    """What travels with an object besides its bytes."""

    headers: dict[str, str] = field(default_factory=dict)  # content-type, content-encoding, ... as they are replied
    metadata: dict[str, str] = field(default_factory=dict)  # x-amz-meta-NAME, names lower case
    tags: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)  # algorithm -> base64, "-N" at the end of a composite one
    checksum_type: str = ""  # COMPOSITE or FULL_OBJECT; of an upload: what it will be
    checksum_algorithm: str = ""  # of an upload: what its parts must have


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it stands in its bucket."""

    bucket: str
    key: bytes
    version: str  # whose segments hold the bytes; another one after every overwrite
    size: int
    etag: str  # without quotes
    modified_ms: int
    details: Details = Details()


@dataclass(frozen=True, slots=True)
class Segment:
    """`size` bytes from `blob_start` of a blob are the bytes from `start` of an object or part."""

    start: int
    size: int
    blob: str
    blob_start: int = 0
    part: int = 1  # number of the part it came with


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload in progress."""

    upload_id: str
    bucket: str
    key: bytes
    started_ms: int
    account: str
    details: Details


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part."""

    number: int
    version: str
    size: int
    etag: str
    modified_ms: int
    checksums: dict[str, str] = field(default_factory=dict)
