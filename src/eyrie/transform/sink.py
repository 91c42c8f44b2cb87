"""An output object in the making: results are kept on disk, go to the bucket part by part, and become an object only
when they are whole.

What a `Mark` says of parts and kept bytes can be had again after any crash: parts have the same bytes whenever they
are made, and a file of kept bytes is removed only once a mark is written that does not need it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import IO

from eyrie.adapters.s3_client import S3Refused
from eyrie.decide.transform_plan import part_bytes
from eyrie.domain.transform import Mark, Part
from eyrie.transform.bucket import BucketError, Door, refused

NO_UPLOAD = "NoSuchUpload"


class Restart(Exception):
    """The upload is gone: the object has to be begun again."""


class _Whole(Exception):
    """The object is in the bucket already."""


class Sink:
    """The output of one object."""

    def __init__(self, door: Door, bucket: str, key: str, content_type: str, folder: Path, name: str) -> None:
        """`folder` and `name`: where the kept bytes are, NAME.N for those that become part N."""
        self._door, self._bucket, self._key, self._type = door, bucket, key, content_type
        self._folder, self._name = folder, name
        self._parts: list[Part] = []
        self._upload_id = ""
        self._kept = 0
        self._file: IO[bytes] | None = None
        self._stale: list[Path] = []

    @property
    def url(self) -> str:
        """For people."""
        return f"s3://{self._bucket}/{self._key}"

    def open(self, mark: Mark) -> None:
        """Stand where a mark says. Raises Restart where the kept bytes are gone."""
        self._parts, self._upload_id, self._kept = list(mark.parts), mark.upload_id, mark.kept
        path = self._path()
        if mark.kept and (not path.exists() or path.stat().st_size < mark.kept):
            raise Restart
        self._file = open(path, "r+b" if mark.kept else "w+b", buffering=0)  # noqa: SIM115 - lives as long as the sink
        self._file.truncate(mark.kept)
        self._file.seek(mark.kept)

    def write(self, data: bytes) -> None:
        """More of the output. Raises BucketError."""
        view = memoryview(data)
        while view:
            room = part_bytes(len(self._parts)) - self._kept
            self._append(view[:room])
            view = view[room:]
            if self._kept == part_bytes(len(self._parts)):
                self._send_part()

    def noted(self, mark: Mark) -> Mark:
        """A mark with where this stands, its bytes safely on disk."""
        if self._file is not None:
            os.fdatasync(self._file.fileno())
        return replace(mark, kept=self._kept, upload_id=self._upload_id, parts=tuple(self._parts))

    def tidy(self) -> None:
        """A mark has been written: what only older ones needed goes."""
        for path in self._stale:
            path.unlink(missing_ok=True)
        self._stale.clear()

    def finish(self) -> None:
        """Make it an object. May run again after it has. Raises BucketError, Restart."""
        with contextlib.suppress(_Whole):
            self._finish()

    def _finish(self) -> None:
        try:
            if not self._parts:
                rest = self._rest()
                self._door.call(lambda s3: s3.put_bytes(self._bucket, self._key, rest, self._type))
                return
            if self._kept:
                self._send_part()
            etags = [part.etag for part in self._parts]
            self._door.call(lambda s3: s3.complete_upload(self._bucket, self._key, self._upload_id, etags))
        except S3Refused as error:
            if error.code != NO_UPLOAD:
                raise refused(error, self.url) from None
            if not self._is_there():
                raise Restart from None

    def abort(self) -> None:
        """Give it up; nothing of it stays in the bucket."""
        if self._upload_id:
            with contextlib.suppress(S3Refused, BucketError):
                self._door.call(lambda s3: s3.abort_upload(self._bucket, self._key, self._upload_id))

    def close(self) -> None:
        """Let go of the files; they stay for whoever takes this up again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the files: the object is done, or given up."""
        self.close()
        self.tidy()
        self._path().unlink(missing_ok=True)

    def _path(self) -> Path:
        return self._folder / f"{self._name}.{len(self._parts)}"

    def _append(self, view: memoryview) -> None:
        assert self._file is not None
        self._kept += len(view)
        while view:
            view = view[self._file.write(view) :]

    def _rest(self) -> bytes:
        assert self._file is not None
        self._file.seek(0)
        return self._file.read(self._kept)

    def _send_part(self) -> None:
        body, number = self._rest(), len(self._parts) + 1
        try:
            if not self._upload_id:
                self._upload_id = self._door.call(lambda s3: s3.begin_upload(self._bucket, self._key, self._type))
            etag = self._door.call(lambda s3: s3.put_part(self._bucket, self._key, self._upload_id, number, body))
        except S3Refused as error:
            if error.code == NO_UPLOAD:
                sum_of_rest = hashlib.md5(body, usedforsecurity=False).hexdigest()
                raise (_Whole if self._is_there(sum_of_rest) else Restart) from None
            raise refused(error, self.url) from None
        self._stale.append(self._path())
        self.close()
        self._parts.append(Part(etag, len(body)))
        self._kept = 0
        self._file = open(self._path(), "w+b", buffering=0)  # noqa: SIM115 - lives as long as the sink

    def _is_there(self, *more: str) -> bool:
        """Whether the bucket has just this object already: a run before this one completed it and died. `more`: MD5
        sums of parts that it would have besides those that are noted.
        """
        sums = [part.etag.strip('"') for part in self._parts] + list(more)
        digest = hashlib.md5(b"".join(map(bytes.fromhex, sums)), usedforsecurity=False).hexdigest()
        whole = f"{digest}-{len(sums)}"
        try:
            return self._door.call(lambda s3: s3.head(self._bucket, self._key))[1].strip('"') == whole
        except S3Refused:
            return False
