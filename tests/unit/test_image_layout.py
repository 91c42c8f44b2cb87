"""An engine's image as a root file system of ours: what is unpacked, how it starts, what is refused."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyrie.adapters import image_layout
from eyrie.adapters.image_layout import lay_out, start_of
from eyrie.adapters.image_store import ROOTFS, ImageError, ImageStore, Start, StoredImage

DIGEST = "e" * 64


def member(name: str, data: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for fact, value in facts.items():
        setattr(made, fact, value)
    return made, data


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=0o700)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


SERVE = member("usr/local/bin/serve", b"#!/bin/sh\n", mode=0o4711, uid=33, gid=33)


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> Iterator[bytes]:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    data = made.getvalue()
    return (data[at : at + 700] for at in range(0, len(data), 700))


def test_files_are_readable_and_have_no_rights_and_the_kernels_are_left_out(tmp_path: Path) -> None:
    lay_out(
        packed(
            folder("etc"), member("etc/secret", b"of root", mode=0o600), SERVE, link("bin", "usr/bin"),
            link("etc/mtab", "/proc/mounts"), link("etc/same", "etc/secret", tarfile.LNKTYPE),
            folder("proc"), member("./dev/null", type=tarfile.CHRTYPE), member("pipe", type=tarfile.FIFOTYPE),
        ),
        tmp_path,
    )  # fmt: skip
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == [
        "bin", "etc", "etc/mtab", "etc/same", "etc/secret", "usr", "usr/local", "usr/local/bin", "usr/local/bin/serve",
    ]  # fmt: skip
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("etc", "etc/secret")}
    assert modes == {"etc": 0o755, "etc/secret": 0o644}
    serve = (tmp_path / "usr/local/bin/serve").stat()
    assert (stat.S_IMODE(serve.st_mode), serve.st_uid) == (0o755, tmp_path.stat().st_uid)
    assert (tmp_path / "etc/same").read_bytes() == b"of root"


@pytest.mark.parametrize(
    "members",
    [
        (member("../out", b"x"),),
        (link("run", "/run"), member("run/out", b"x")),
        (link("same", "../../secret", tarfile.LNKTYPE),),
        (link("same", "/etc/passwd", tarfile.LNKTYPE),),
    ],
)
def test_what_leads_out_of_it_is_refused(tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...]) -> None:
    (tmp_path / "secret").write_text("not for the image")
    inside = tmp_path / "far/inside"
    inside.mkdir(parents=True)
    with pytest.raises(ImageError, match="cannot be unpacked"):
        lay_out(packed(*members), inside)
    assert not (tmp_path / "far/out").exists()


def test_half_a_stream_and_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="cannot be unpacked"):
        lay_out(list(packed(member("large", bytes(5000))))[:2], tmp_path)
    monkeypatch.setattr(image_layout, "ENTRIES_MAX", 2)
    with pytest.raises(ImageError, match="more than 2 files"):
        lay_out(packed(*(member(name) for name in "abc")), tmp_path)


def test_how_an_image_starts_is_what_the_engine_tells() -> None:
    config = {"Entrypoint": ["python", "-m", "it"], "Env": ["PATH=/opt/bin", "A=b=c", "odd"], "WorkingDir": "/opt"}
    assert start_of(config) == Start(("python", "-m", "it"), (("PATH", "/opt/bin"), ("A", "b=c")), "/opt")
    assert start_of({"Entrypoint": None, "Env": None}) == Start()


def an_image(store: ImageStore) -> StoredImage:
    return store.add_engine_image(f"sha256:{DIGEST}", 1, "mine:1")


def test_its_files_are_kept_beside_it_under_its_own_digest(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = an_image(store)
    assert store.root_of(image) is None

    def fill(root: Path) -> Start:
        lay_out(packed(SERVE), root)
        return Start((), (("A", "b"),), "")

    made = store.keep_root(image, fill)
    assert (made.kind, made.digest, made.command, made.environment) == (
        ROOTFS, DIGEST, ("/usr/local/bin/serve",), {"A": "b"},
    )  # fmt: skip
    assert store.root_of(image) == made
    assert store.find(DIGEST) == image  # alone in an instance it runs in its engine still
    assert (store.path(DIGEST) / "root/opt/ml").is_dir()
    assert an_image(store) == image or store.root_of(image) == made  # added again
    assert store.sweep(set(), 4e9) == [DIGEST]
    assert list((tmp_path / "images").iterdir()) == []


def test_what_was_left_half_kept_is_made_again_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = an_image(store)
    (store.path(DIGEST) / "root").mkdir()
    (store.path(DIGEST) / "root/stale").touch()

    def fill(root: Path) -> Start:
        lay_out(packed(SERVE), root)
        return Start()

    with pytest.raises(ImageError, match="no program named serve"):
        store.keep_root(image, lambda root: Start())
    assert store.root_of(image) is None
    store.keep_root(image, fill)
    assert not (store.path(DIGEST) / "root/stale").exists()
    assert [path.name for path in (tmp_path / "images").iterdir()] == [DIGEST]
