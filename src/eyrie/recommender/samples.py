"""The sample payload of a job: a tar.gz in a bucket, each file of which is the body of a request; or one such file."""

from __future__ import annotations

import io
import tarfile
import zlib

from eyrie.adapters.artifacts import bucket_and_key
from eyrie.ports import ArtifactError
from eyrie.recommender.api import Api, Refused

ARCHIVE_BYTES_MAX = 128 << 20
BODY_BYTES_MAX = 25 << 20  # what a real-time request may carry
BODIES_MAX = 1_000
GZIP = b"\x1f\x8b"


class Unusable(Exception):
    """The sample payload cannot be used; the message is for people."""


def bodies(api: Api, url: str) -> list[bytes]:
    """The bodies, in the order of their names. Raises Unusable, Away, Stopped."""
    try:
        bucket, key = bucket_and_key(url)
        told = api.ask("s3", "get_object", Bucket=bucket, Key=key)
        content = told["Body"].read(ARCHIVE_BYTES_MAX + 1)
    except (ArtifactError, Refused) as error:
        raise Unusable(f"ClientError: the sample payload {url} cannot be read: {error}") from None
    if len(content) > ARCHIVE_BYTES_MAX:
        raise Unusable(f"ClientError: the sample payload {url} is larger than {ARCHIVE_BYTES_MAX >> 20} MB")
    found = unpacked(content, url)
    if not found or not all(found):
        raise Unusable(f"ClientError: the sample payload {url} holds {'an empty file' if found else 'no file'}")
    return found


def unpacked(content: bytes, url: str) -> list[bytes]:
    """The files of an archive; what is none is a body itself. Raises Unusable."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            return _files(archive, url)
    except tarfile.ReadError as error:
        if content.startswith(GZIP):
            raise Unusable(f"ClientError: {url} is a broken archive: {error}") from None
        return [_bounded(content, url, url)]
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise Unusable(f"ClientError: {url} is a broken archive: {error}") from None


def _files(archive: tarfile.TarFile, url: str) -> list[bytes]:
    found: dict[str, bytes] = {}
    left = ARCHIVE_BYTES_MAX
    for entry in archive:
        if not entry.isreg() or entry.name.rpartition("/")[2].startswith("."):
            continue
        if entry.size > left or len(found) >= BODIES_MAX:
            raise Unusable(f"ClientError: {url} holds more than {BODIES_MAX} files or {ARCHIVE_BYTES_MAX >> 20} MB")
        file = archive.extractfile(entry)
        found[entry.name] = _bounded(file.read() if file else b"", entry.name, url)
        left -= entry.size
    return [found[name] for name in sorted(found)]


def _bounded(body: bytes, name: str, url: str) -> bytes:
    if len(body) > BODY_BYTES_MAX:
        raise Unusable(f"ClientError: {name} of {url} has {len(body)} bytes; a request carries {BODY_BYTES_MAX}")
    return body
