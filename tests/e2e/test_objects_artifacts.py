"""Model archives fetched from a real S3 API: unpacked safely, once, and kept only as long as they are named."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.adapters.artifacts import S3Artifacts
from eyrie.adapters.s3_client import UnixConnection
from eyrie.domain.names import Scope
from eyrie.ports import ArtifactError

from .objects_world import KEYS, OTHER, ROOT, World, serving

HOME = Scope(ROOT, "us-east-1")
URL = "s3://models/m/model.tar.gz"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("artifacts"), unix=True) as made:
        yield made


@pytest.fixture(scope="module")
def s3(world: World) -> Uploader:
    return Uploader(world)


class Uploader:
    """Puts objects through the Unix socket."""

    def __init__(self, world: World) -> None:
        self._connect = lambda: UnixConnection(world.data / "run" / "objects.sock")
        self.put("models", "", b"")

    def put(self, bucket: str, key: str, body: bytes) -> None:

        path = f"/{bucket}" + (f"/{quote(key)}" if key else "")
        request = AWSRequest("PUT", f"http://localhost{path}", data=body)
        S3SigV4Auth(Credentials(*KEYS[ROOT]), "s3", "us-east-1").add_auth(request)
        connection = self._connect()
        connection.request("PUT", path, body=body, headers=dict(request.headers.items()))
        reply = connection.getresponse()
        reply.read()
        connection.close()
        assert reply.status == 200


@pytest.fixture
def artifacts(world: World, tmp_path: Path) -> S3Artifacts:
    return S3Artifacts(tmp_path, world.data / "run" / "objects.sock", world.data / "credentials.json")


def archive(*entries: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            tar.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_archive_is_unpacked_once_by_its_digest(s3: Uploader, artifacts: S3Artifacts) -> None:
    body = archive(("./model.json", b"{}"), ("code/inference.py", b"x = 1"), special("empty", tarfile.DIRTYPE))
    s3.put("models", "m/model.tar.gz", body)
    digest = artifacts.fetch(HOME, URL)
    assert digest == hashlib.sha256(body).hexdigest()
    model = artifacts.path(digest) / "model"
    assert files(model) == {"model.json": b"{}", "code/inference.py": b"x = 1"}
    assert (model / "empty").is_dir()
    assert stat.S_IMODE((model / "model.json").stat().st_mode) == 0o644
    assert stat.S_IMODE(artifacts.path(digest).stat().st_mode) == 0o755
    before = (model / "model.json").stat().st_ino
    assert artifacts.fetch(HOME, URL) == digest
    assert (model / "model.json").stat().st_ino == before
    assert [p.name for p in artifacts.path(digest).parent.iterdir()] == [digest]


def test_a_plain_tar_is_unpacked_too(s3: Uploader, artifacts: S3Artifacts) -> None:
    s3.put("models", "plain.tar", archive(("a", b"1"), mode="w"))
    digest = artifacts.fetch(HOME, "s3://models/plain.tar")
    assert files(artifacts.path(digest) / "model") == {"a": b"1"}


def test_a_prefix_is_fetched_as_files(s3: Uploader, artifacts: S3Artifacts) -> None:
    for key, body in (("p/x.json", b"{}"), ("p/code/é b.py", b"y"), ("p/code/", b""), ("pq", b"not below")):
        s3.put("models", key, body)
    digest = artifacts.fetch(HOME, "s3://models/p/")
    assert files(artifacts.path(digest) / "model") == {"x.json": b"{}", "code/é b.py": b"y"}
    assert artifacts.fetch(HOME, "s3://models/p/") == digest
    s3.put("models", "p/x.json", b"{1}")
    assert artifacts.fetch(HOME, "s3://models/p/") != digest


def test_the_users_own_code_is_laid_over(s3: Uploader, artifacts: S3Artifacts) -> None:
    s3.put(
        "models", "m/model.tar.gz", archive(("model.json", b"{}"), ("code/inference.py", b"old"), ("code/kept", b"k"))
    )
    s3.put("models", "sourcedir.tar.gz", archive(("inference.py", b"new"), ("requirements.txt", b"")))
    alone = artifacts.fetch(HOME, URL)
    digest = artifacts.fetch(HOME, URL, "s3://models/sourcedir.tar.gz")
    assert digest != alone
    assert files(artifacts.path(digest) / "model") == {
        "model.json": b"{}",
        "code/inference.py": b"new",
        "code/requirements.txt": b"",
        "code/kept": b"k",
    }


def test_missing_and_foreign_models_are_told_apart(s3: Uploader, artifacts: S3Artifacts) -> None:
    s3.put("models", "m/model.tar.gz", archive(("a", b"1")))
    for url in ("s3://models/none.tar.gz", "s3://no-such-bucket/m", "s3://models/none/"):
        with pytest.raises(ArtifactError, match=f"Could not find model data at {url}"):
            artifacts.fetch(HOME, url)
    with pytest.raises(ArtifactError, match="does not belong to account"):
        artifacts.fetch(Scope(OTHER, "us-east-1"), URL)
    with pytest.raises(ArtifactError, match="no credentials of account"):
        artifacts.fetch(Scope("111111111111", "us-east-1"), URL)
    with pytest.raises(ArtifactError, match="must be an s3"):
        artifacts.fetch(HOME, "https://x/y")


def test_an_s3_api_that_is_away_may_be_tried_again(tmp_path: Path, world: World) -> None:
    away = S3Artifacts(tmp_path, tmp_path / "nobody.sock", world.data / "credentials.json")
    with pytest.raises(OSError, match="did not answer"):
        away.fetch(HOME, URL)


BOMB_HEADER = tarfile.TarInfo("x")
BOMB_HEADER.pax_headers = {"comment": "a" * (3 << 20)}
HUGE = tarfile.TarInfo("huge")
HUGE.size = 1 << 50

BAD = {
    "traversal": archive(("../out", b"x")),
    "deep traversal": archive(("a/../../out", b"x")),
    "absolute": archive(("/etc/out", b"x")),
    "symlink": archive(special("link", tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": archive(special("link", tarfile.LNKTYPE, "a")),
    "device": archive(special("dev", tarfile.CHRTYPE)),
    "pipe": archive(special("pipe", tarfile.FIFOTYPE)),
    "file below a file": archive(("a", b"1"), ("a/b", b"2")),
    "folder over a file": archive(("a", b"1"), special("a", tarfile.DIRTYPE)),
    "file over a folder": archive(special("a", tarfile.DIRTYPE), ("a", b"1")),
    "long header": archive(BOMB_HEADER),
    "cut off": archive(("a", os.urandom(100_000)))[:50_000],
    "wrong checksum": gzip.compress(b"not a tar archive at all" * 50),
    "no archive": b"just text",
    "empty": b"",
    "huge": gzip.compress(HUGE.tobuf()),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_archives_are_refused_and_leave_nothing(
    s3: Uploader, artifacts: S3Artifacts, tmp_path: Path, kind: str
) -> None:
    s3.put("models", "bad.tar.gz", BAD[kind])
    with pytest.raises(ArtifactError, match=r"s3://models/bad\.tar\.gz"):
        artifacts.fetch(HOME, "s3://models/bad.tar.gz")
    assert list((tmp_path / "artifacts").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_only_named_archives_are_kept(s3: Uploader, artifacts: S3Artifacts, tmp_path: Path, world: World) -> None:
    digests = []
    for number in range(3):
        s3.put("models", "k.tar.gz", archive((f"{number}", b"x")))
        digests.append(artifacts.fetch(HOME, "s3://models/k.tar.gz"))
    left = tmp_path / "artifacts" / ".staged-of-a-killed-process"
    left.mkdir()
    artifacts.keep({digests[1]})
    assert {p.name for p in (tmp_path / "artifacts").iterdir()} == {digests[1], left.name}
    S3Artifacts(tmp_path, world.data / "run" / "objects.sock", None)
    assert {p.name for p in (tmp_path / "artifacts").iterdir()} == {digests[1]}
    with pytest.raises(ValueError, match="not a digest"):
        artifacts.path("../x")


def test_many_threads_fetch_the_same(s3: Uploader, artifacts: S3Artifacts) -> None:
    s3.put("models", "same.tar.gz", archive(*[(f"f{n}", os.urandom(1000)) for n in range(50)]))
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(artifacts.fetch(HOME, "s3://models/same.tar.gz")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(files(artifacts.path(found[0]) / "model")) == 50
