"""Blobs over obstore: a local directory by default (EYRIE_BLOBS=file:///DIR), or
s3://BUCKET[/PREFIX]?endpoint=URL&region=R.

Names are ours and opaque; a blob is written once, read in ranges and deleted. A local `put` answers only when the bytes
and the directory entry are on disk: obstore renames a finished file into place but does not sync it, so that is done
here.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from eyrie.adapters import durable

if TYPE_CHECKING:
    from obstore.store import S3Config

_NAME = re.compile(r"[0-9a-f]{32}")
_STAGED = re.compile(r"[0-9a-f]{32}#\d+")  # what obstore leaves of a put that was killed
_WHOLE_BYTES_MAX = 1 << 20  # a blob up to this size is written by one call
_LIST_PAGE = 1000


class BlobsUnusable(Exception):
    """EYRIE_BLOBS cannot be used; the message names it and says why."""


class BlobsFailed(OSError):
    """The store could not do it now (a full disk, an unreachable server); the message is the store's."""


class ObstoreBlobs:
    """The Blobs port over one obstore store. `root` is the directory of a local store."""

    def __init__(self, store: ObjectStore, *, root: Path | None = None, part_bytes: int, read_bytes: int) -> None:
        self._store = store
        self._root = root
        self._part_bytes = part_bytes  # of a streamed upload; two of them are in memory
        self._read_bytes = read_bytes  # of one piece of a read

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a blob durably; its size in bytes. What `chunks` raises is raised, and nothing is stored.

        Raises BlobsFailed.
        """
        head = bytearray()
        async for chunk in chunks:
            head += chunk
            if len(head) > _WHOLE_BYTES_MAX:
                break
        size = len(head)
        try:
            if size <= _WHOLE_BYTES_MAX:
                await obstore.put_async(self._store, _path(name), bytes(head), use_multipart=False)
            else:
                stream = _Counted(bytes(head), chunks)
                del head
                await obstore.put_async(
                    self._store, _path(name), stream, use_multipart=True, chunk_size=self._part_bytes, max_concurrency=1
                )
                size = stream.size
        except BaseError as error:
            raise BlobsFailed(str(error)) from error
        if self._root is not None:
            await asyncio.to_thread(_sync, self._root / _path(name))
        return size

    async def read(self, name: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`, in pieces. Raises BlobsFailed, also for a blob that is not there."""
        while start < end:
            stop = min(end, start + self._read_bytes)
            try:
                piece = bytes(await obstore.get_range_async(self._store, _path(name), start=start, end=stop))
            except (BaseError, OSError) as error:
                raise BlobsFailed(str(error)) from error
            if len(piece) != stop - start:
                raise BlobsFailed(f"blob {name} is shorter than it should be")
            yield piece
            start = stop

    async def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; those that are not there are no error. Raises BlobsFailed."""
        for name in names:
            try:
                await obstore.delete_async(self._store, _path(name))
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise BlobsFailed(str(error)) from error

    async def list(self) -> AsyncIterator[Sequence[str]]:
        """The names of all blobs, in pages, in no order. Raises BlobsFailed."""
        try:
            async for page in obstore.list(self._store, chunk_size=_LIST_PAGE):
                names = [entry["path"].rpartition("/")[2] for entry in page]
                yield [name for name in names if _NAME.fullmatch(name)]
        except (BaseError, OSError) as error:
            raise BlobsFailed(str(error)) from error

    async def tidy(self, prefix: str) -> int:
        """Remove what interrupted puts of names that begin so left half written; how many. While nobody puts such."""
        return 0 if self._root is None else await asyncio.to_thread(_remove_staged, self._root, prefix)


class _Counted:
    """The rest of a stream after its first bytes, counting."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes]) -> None:
        self._head = head
        self._rest = rest
        self.size = 0

    def __aiter__(self) -> _Counted:
        return self

    async def __anext__(self) -> bytes:
        piece, self._head = self._head, b""
        if not piece:
            piece = await anext(self._rest)
        self.size += len(piece)
        return piece


def open_blobs(url: str) -> ObstoreBlobs:
    """The blobs that a URL names; a local directory is made. Raises BlobsUnusable."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return _local(Path(unquote(parts.path)), url)
    if parts.scheme == "s3" and parts.netloc:
        return _s3(
            parts.netloc, parts.path.strip("/"), {name: values[-1] for name, values in parse_qs(parts.query).items()}
        )
    raise BlobsUnusable(f"EYRIE_BLOBS={url!r}: neither file:///DIRECTORY nor s3://BUCKET?endpoint=URL")


def _local(root: Path, url: str) -> ObstoreBlobs:
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(256):  # made once and synced, so that a put has only its own directory to sync
            (root / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
        durable.sync(root)
    except OSError as error:
        raise BlobsUnusable(f"EYRIE_BLOBS={url!r}: {error.strerror}") from None
    return ObstoreBlobs(LocalStore(root), root=root, part_bytes=1 << 20, read_bytes=1 << 20)


def _s3(bucket: str, prefix: str, query: dict[str, str]) -> ObstoreBlobs:
    """Credentials come from the environment, as obstore reads it (AWS_ACCESS_KEY_ID, ...)."""
    endpoint = query.get("endpoint")
    config: S3Config = {"region": query.get("region", "us-east-1"), "virtual_hosted_style_request": False}
    if endpoint:
        config["endpoint"] = endpoint
    store = S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://")), "timeout": "300s"},
    )
    return ObstoreBlobs(store, part_bytes=8 << 20, read_bytes=4 << 20)


def _path(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a blob name: {name!r}")
    return f"{name[-2:]}/{name}"  # the first digits are the same for all of one writer


def _sync(path: Path) -> None:
    durable.sync(path)
    durable.sync(path.parent)


def _remove_staged(root: Path, prefix: str) -> int:
    removed = 0
    for folder in root.iterdir():
        if len(folder.name) == 2 and folder.is_dir():
            for entry in os.scandir(folder):
                if _STAGED.fullmatch(entry.name) and entry.name.startswith(prefix):
                    os.unlink(entry.path)
                    removed += 1
    return removed
