"""Model archives for control: fetched from the S3 API by signed HTTP, checked, unpacked once into
DATA/artifacts/DIGEST/model.

Synchronous: an action thread of control calls it. What is fetched lands in a staging folder beside its destination and
is synced and renamed, so a folder with a digest for its name is whole. An archive is trusted no more than its uploader:
`archive` unpacks it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import unquote
from xml.etree import ElementTree

from eyrie.adapters import durable
from eyrie.adapters.archive import ENTRIES_MAX, check_room, sync_tree, unpack
from eyrie.adapters.s3_client import S3Client, S3Refused, SigningKey
from eyrie.domain.names import Scope
from eyrie.ports import ArtifactError, ArtifactMissing

ARCHIVE_BYTES_MAX = 64 << 30
_PIECE_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STAGED = ".staged-"
_S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class S3Artifacts:
    """The Artifacts port over the S3 API on a Unix socket. One a data directory, in the control process."""

    def __init__(self, data: Path, socket: Path, keys: Path | None) -> None:
        """`keys`: credentials.json; None while nothing is verified (`--auth off`)."""
        self._root = data / "artifacts"
        self._socket = socket
        self._keys = keys
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.glob(_STAGED + "*"):
            shutil.rmtree(left, ignore_errors=True)

    def fetch(self, scope: Scope, url: str, code_url: str | None = None) -> str:
        """Download an s3:// archive, or a prefix that ends with "/", and unpack it once; its sha256.

        `code_url` is a second archive, the user's own code, unpacked over `model/code`; the digest is then of both.
        Raises ArtifactError for what will not get better by trying again, OSError for what may.
        """
        with self._staging() as staged:
            model = staged / "model"
            model.mkdir()
            digest = self._fetch_into(scope, url, model)
            if code_url is not None:
                code = self._fetch_into(scope, code_url, model / "code")
                digest = hashlib.sha256(f"{digest}\n{code}".encode()).hexdigest()
            self._publish(staged, digest)
        return digest

    def download(self, scope: Scope, url: str, folder: Path) -> str:
        """Download and unpack an archive, or a prefix, into a folder of the caller's that is not there yet; its sha256.

        It appears only once it is whole. Raises as `fetch` does.
        """
        with self._staging() as staged:
            (staged / "model").mkdir()
            digest = self._fetch_into(scope, url, staged / "model")
            sync_tree(staged)
            (staged / "model").rename(folder)
        return digest

    def path(self, digest: str) -> Path:
        """The folder `artifacts/DIGEST`: `model/` unpacked."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"not a digest: {digest!r}")
        return self._root / digest

    def keep(self, digests: set[str]) -> None:
        """Remove every archive that is not named."""
        for entry in self._root.iterdir():
            if _DIGEST.fullmatch(entry.name) and entry.name not in digests:
                with self._staging() as doomed:
                    entry.rename(doomed / entry.name)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        staged = Path(tempfile.mkdtemp(prefix=_STAGED, dir=self._root))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, staged: Path, digest: str) -> None:
        """Make the staged folder the archive's, unless it is there already."""
        target = self.path(digest)
        if (target / "model").is_dir():
            return
        sync_tree(staged)
        staged.chmod(0o755)  # instances have a uid of their own
        try:
            staged.rename(target)
        except OSError:
            if not (target / "model").is_dir():  # else another thread was faster with the same bytes
                raise
        durable.sync(self._root)

    def _fetch_into(self, scope: Scope, url: str, folder: Path) -> str:
        bucket, key = bucket_and_key(url)
        with S3Client(self._socket, signing_key(self._keys, scope), scope.region) as client:
            try:
                if key.endswith("/") or not key:
                    return _fetch_prefix(client, bucket, key, folder, url)
                return _fetch_archive(client, bucket, key, folder, url)
            except S3Refused as refused:
                raise reason_of(refused, scope, url) from None


def signing_key(keys: Path | None, scope: Scope) -> SigningKey:
    """A key of the account: whose bucket it is decides what may be read. Raises ArtifactError."""
    if keys is None:
        return SigningKey(scope.account, "unchecked")
    for entry in json.loads(keys.read_bytes()):
        if entry["account"] == scope.account:
            return SigningKey(entry["access_key_id"], entry["secret_access_key"], entry.get("session_token") or None)
    raise ArtifactError(f"There are no credentials of account {scope.account}.")


def bucket_and_key(url: str) -> tuple[str, str]:
    """The two parts of an s3:// URL. Raises ArtifactError."""
    match = re.fullmatch(r"s3://([^/]+)/?(.*)", url, re.DOTALL)
    if match is None:
        raise ArtifactError(f"Model data must be an s3:// URL, and {url!r} is none.")
    return match[1], match[2]


def reason_of(refused: S3Refused, scope: Scope, url: str) -> ArtifactError:
    """A refusal of the S3 API as a sentence about model data."""
    if refused.code in ("NoSuchKey", "NoSuchBucket"):
        return ArtifactMissing(f"Could not find model data at {url}.")
    if refused.code == "AccessDenied":
        return ArtifactError(
            f"Could not access model data at {url}: the bucket does not belong to account {scope.account}."
        )
    return ArtifactError(f"Could not read model data at {url}: {refused}")


def _fetch_archive(client: S3Client, bucket: str, key: str, folder: Path, url: str) -> str:
    with client.get(bucket, key) as (size, stream), tempfile.TemporaryFile(dir=folder.parent) as file:
        if size > ARCHIVE_BYTES_MAX:
            raise ArtifactError(f"The model data at {url} is larger than {ARCHIVE_BYTES_MAX} bytes.")
        check_room(folder.parent, size, url)
        digest = copy_download(stream, file, size, url)
        file.seek(0)
        folder.mkdir(exist_ok=True)
        unpack(file, folder, url)
    return digest


def _fetch_prefix(client: S3Client, bucket: str, prefix: str, folder: Path, url: str) -> str:
    """Every object below a prefix as a file; the digest is of their names and digests."""
    sums = hashlib.sha256()
    total = count = 0
    for key, size in _listed(client, bucket, prefix):
        name = key[len(prefix) :]
        if not name or name.endswith("/"):
            continue
        count, total = count + 1, total + size
        if count > ENTRIES_MAX or total > ARCHIVE_BYTES_MAX:
            raise ArtifactError(
                f"The model data at {url} is more than {ENTRIES_MAX} files or {ARCHIVE_BYTES_MAX} bytes."
            )
        check_room(folder.parent, size, url)
        digest = _fetch_file(client, bucket, key, _place(folder, name, url), url)
        sums.update(f"{digest} {len(name)} {name}\n".encode())
    if not count:
        raise ArtifactError(f"Could not find model data at {url}.")
    return sums.hexdigest()


def _fetch_file(client: S3Client, bucket: str, key: str, target: Path, url: str) -> str:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with client.get(bucket, key) as (size, stream), target.open("xb") as file:
            return copy_download(stream, file, size, url)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ArtifactError(f"The model data at {url} has an object and objects below it at {key!r}.") from None


def _place(folder: Path, name: str, url: str) -> Path:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
        raise ArtifactError(f"The model data at {url} has an object that cannot be a file: {name!r}.")
    return folder.joinpath(*parts)


def _listed(client: S3Client, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Keys and sizes below a prefix, in order."""
    query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
    while True:
        page = ElementTree.fromstring(client.listing(bucket, query))
        for entry in page.iter(_S3 + "Contents"):
            yield unquote(entry.findtext(_S3 + "Key", "")), int(entry.findtext(_S3 + "Size", "0"))
        token = page.findtext(_S3 + "NextContinuationToken")
        if token is None:
            return
        query["continuation-token"] = token


def copy_download(stream: IO[bytes], file: IO[bytes], size: int, url: str) -> str:
    """Copy a download of a known size; its sha256. Raises ConnectionError where it breaks off."""
    sums = hashlib.sha256()
    left = size
    while left:
        piece = stream.read(min(_PIECE_BYTES, left))
        if not piece:
            raise ConnectionError(f"the download of {url} broke off {left} bytes before its end")
        sums.update(piece)
        file.write(piece)
        left -= len(piece)
    return sums.hexdigest()
