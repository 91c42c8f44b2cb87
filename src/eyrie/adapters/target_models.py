"""Models of multi-model endpoints on this host: fetched from the S3 API when a request names one, unpacked once for all
instances, the least recently used dropped when there are more bytes than the limit (the port `TargetModels`).

On the path of a load: `control/model_loads` -> here -> `placing`, which links the files into an instance. What an
instance has linked stays its own when the archive is dropped here. Nothing survives the start of control: an archive
is fetched again in milliseconds, and what a crash left half written is nobody's model.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters.archive import check_room, unpack
from eyrie.adapters.artifacts import bucket_and_key, copy_download, reason_of, signing_key
from eyrie.adapters.s3_client import S3Client, S3Refused
from eyrie.domain.names import Scope
from eyrie.ports import ArtifactError, TargetArchive

_LOCKS = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    etag: str
    size: int  # bytes, unpacked


class TargetCache:
    """The archives below one folder. Safe from threads."""

    def __init__(self, data: Path, socket: Path, keys: Path | None, bytes_max: int) -> None:
        """`keys`: credentials.json; None while nothing is verified."""
        self._root = data / "targets"
        self._socket, self._keys, self._bytes_max = socket, keys, bytes_max
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._table = threading.Lock()  # of the above
        self._locks = [threading.RLock() for _ in range(_LOCKS)]
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def hold(self, scope: Scope, url: str) -> Iterator[TargetArchive]:
        """The newest version of an archive; nobody removes or replaces it meanwhile."""
        name = hashlib.sha256(f"{scope.account} {scope.region} {url}".encode()).hexdigest()
        with self._lock(name):
            began = time.monotonic()
            fetched = self._refresh(scope, url, name)
            took_us = int((time.monotonic() - began) * 1e6) if fetched else 0
            if fetched:
                self._make_room(name)
            yield TargetArchive(self._root / name / "model", took_us)

    @property
    def size(self) -> int:
        """Bytes of all archives."""
        with self._table:
            return sum(entry.size for entry in self._entries.values())

    def _refresh(self, scope: Scope, url: str, name: str) -> bool:
        """Fetch it unless it is here and the newest; whether it was fetched."""
        with self._table:
            known = self._entries.get(name)
            if known is not None:
                self._entries.move_to_end(name)
        bucket, key = bucket_and_key(url)
        with S3Client(self._socket, signing_key(self._keys, scope), scope.region) as client:
            try:
                with client.get_newer(bucket, key, known.etag if known else None) as found:
                    if found is None:
                        return False
                    size, etag, stream = found
                    if size > self._bytes_max:
                        raise ArtifactError(f"The model data at {url} is larger than {self._bytes_max} bytes.")
                    with self._staging() as staged, tempfile.TemporaryFile(dir=staged) as file:
                        check_room(staged, size, url)
                        copy_download(stream, file, size, url)
                        file.seek(0)
                        (staged / "model").mkdir()
                        unpack(file, staged / "model", url)
                        self._take(staged, name, etag, url)
            except S3Refused as refused:
                raise reason_of(refused, scope, url) from None
        return True

    def _take(self, staged: Path, name: str, etag: str, url: str) -> None:
        """Make what was unpacked the archive, in place of an older version."""
        size = _open_to_all(staged)
        if size > self._bytes_max:
            raise ArtifactError(f"The model data at {url} unpacks to more than {self._bytes_max} bytes.")
        self._drop(name)
        staged.rename(self._root / name)
        with self._table:
            self._entries[name] = _Entry(etag, size)

    def _make_room(self, newest: str) -> None:
        """Drop the least recently used until the rest fits; those that are held are passed over."""
        with self._table:
            names = [name for name in self._entries if name != newest]
        for name in names:
            if self.size <= self._bytes_max:
                return
            lock = self._lock(name)
            if lock.acquire(blocking=False):
                try:
                    self._drop(name)
                finally:
                    lock.release()

    def _drop(self, name: str) -> None:
        with self._table:
            if self._entries.pop(name, None) is None:
                return
        with self._staging() as doomed:
            (self._root / name).rename(doomed / name)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=self._root))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _lock(self, name: str) -> threading.RLock:
        return self._locks[int(name[:8], 16) % _LOCKS]


def _open_to_all(folder: Path) -> int:
    """Let everybody read the folder, since instances have users of their own; its bytes."""
    size = 0
    for root, _, files in os.walk(folder):
        os.chmod(root, 0o755)
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(root, name)).st_size
    return size
