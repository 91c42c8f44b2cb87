"""`eyrie capture cat`: the records of captured data, decrypted where they are encrypted, one line of JSON each."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from eyrie.adapters.artifacts import signing_key
from eyrie.adapters.capture_keys import EXTRA, CaptureKeys, Unsealable, is_sealed
from eyrie.adapters.s3_client import S3Client, S3Refused, S3Unavailable
from eyrie.cli.errors import CommandError
from eyrie.domain.names import Scope
from eyrie.ports import ArtifactError
from eyrie.settings import Settings

_S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


def cat(settings: Settings, sources: list[str]) -> None:
    """Print the records of objects (s3://BUCKET/KEY), of all below a prefix, or of files. Raises CommandError."""
    keys = CaptureKeys(settings.data)
    for source in sources:
        for data in _objects(settings, source) if source.startswith("s3://") else _file(source):
            sys.stdout.buffer.write(_opened(keys, source, data))
    sys.stdout.buffer.flush()


def _opened(keys: CaptureKeys, source: str, data: bytes) -> bytes:
    if not is_sealed(data):
        return data
    try:
        return keys.unseal(data)
    except ImportError:
        raise CommandError(f"to decrypt needs {EXTRA}") from None
    except (Unsealable, OSError) as error:
        raise CommandError(f"{source} cannot be decrypted: {error}") from None


def _file(source: str) -> Iterator[bytes]:
    try:
        yield Path(source).read_bytes()
    except OSError as error:
        raise CommandError(f"{source} cannot be read: {error.strerror}") from None


def _objects(settings: Settings, uri: str) -> Iterator[bytes]:
    """The objects whose key is, or begins with, that of the URI, in the order of their keys, which is that of time."""
    match = re.fullmatch(r"s3://([^/]+)/?(.*)", uri)
    if match is None:
        raise CommandError(f"{uri} is no s3:// URI", code=2)
    credentials = settings.data / "credentials.json" if settings.auth else None
    scope = Scope(settings.account, settings.region)
    try:
        with S3Client(settings.data / "run/objects.sock", signing_key(credentials, scope), scope.region) as client:
            found = list(_keys(client, match[1], match[2]))
            if not found:
                raise CommandError(f"there is nothing below {uri}")
            for key in found:
                with client.get(match[1], key) as (size, stream):
                    yield stream.read(size)
    except (S3Refused, S3Unavailable, ArtifactError, OSError) as error:
        raise CommandError(f"{uri} cannot be read: {error}") from None


def _keys(client: S3Client, bucket: str, prefix: str) -> Iterator[str]:
    query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
    while True:
        page = ElementTree.fromstring(client.listing(bucket, query))
        yield from (unquote(entry.findtext(_S3 + "Key", "")) for entry in page.iter(_S3 + "Contents"))
        token = page.findtext(_S3 + "NextContinuationToken")
        if token is None:
            return
        query["continuation-token"] = token
