"""Images of the user's own on disk: what they are taken for, what their digest is of, what is left out."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from eyrie.adapters.image_store import (
    ENGINE,
    FOLDER,
    IMAGE,
    ROOTFS,
    SETTLED_S,
    ImageError,
    ImageStore,
    Start,
    kind_of,
    writable_places,
)
from eyrie.adapters.launch_container import merged, placed


def program(place: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(mode)
    return place


def root(path: Path) -> Path:
    for name in ("etc", "usr/bin", "var"):
        (path / name).mkdir(parents=True)
    program(path / "usr/local/bin/serve")
    return path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "data")


def test_what_a_directory_is_taken_for(tmp_path: Path) -> None:
    assert kind_of(root(tmp_path / "root")) == ROOTFS
    (tmp_path / "venv/lib").mkdir(parents=True)
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/etc").mkdir()
    (tmp_path / "venv/pyvenv.cfg").touch()
    assert kind_of(tmp_path / "venv") == FOLDER
    (tmp_path / "plain").mkdir()
    assert kind_of(tmp_path / "plain") == FOLDER


def test_the_serve_program_is_found(tmp_path: Path, store: ImageStore) -> None:
    found = store.add_tree(root(tmp_path / "root"))
    assert (found.kind, found.command, found.workdir) == (ROOTFS, ("/usr/local/bin/serve",), "/usr/local/bin")
    program(tmp_path / "venv/bin/serve")
    found = store.add_tree(tmp_path / "venv")
    assert (found.kind, found.command, found.workdir) == (FOLDER, (f"{IMAGE}/bin/serve",), IMAGE)
    program(tmp_path / "flat/serve")
    assert store.add_tree(tmp_path / "flat").command == (f"{IMAGE}/serve",)
    assert placed(f"{IMAGE}/serve", Path("/x/held")) == "/x/held/serve"
    assert store.find(found.digest) == found


def test_the_path_of_the_image_decides_where_it_is_looked_for(tmp_path: Path, store: ImageStore) -> None:
    made = root(tmp_path / "root")
    program(made / "srv/mine/serve")
    found = store.add_tree(made, Start(environment=(("PATH", "/srv/mine:/bin"),)))
    assert (found.command, found.environment) == (("/srv/mine/serve",), {"PATH": "/srv/mine:/bin"})


def test_what_stands_before_serve_may_be_told(tmp_path: Path, store: ImageStore) -> None:
    (tmp_path / "app").mkdir()
    found = store.add_tree(tmp_path / "app", Start(("python", "app.py"), workdir="/srv"))
    assert (found.command, found.workdir) == (("python", "app.py", "serve"), "/srv")


@pytest.mark.parametrize("mode", [0o644, None])
def test_nothing_to_serve_with(tmp_path: Path, store: ImageStore, mode: int | None) -> None:
    (tmp_path / "empty").mkdir()
    if mode:
        program(tmp_path / "empty/serve", mode=mode)
    with pytest.raises(ImageError, match="no program named serve"):
        store.add_tree(tmp_path / "empty")
    with pytest.raises(ImageError, match="no directory"):
        store.add_tree(tmp_path / "nothing")
    assert list((tmp_path / "data/images").iterdir()) == []


def test_the_digest_is_of_what_there_is_and_how_it_starts(tmp_path: Path, store: ImageStore) -> None:
    made = tmp_path / "app"
    program(made / "serve")
    (made / "data").write_text("1")
    first = store.add_tree(made).digest
    os.utime(made / "data", (1, 1))
    assert store.add_tree(made).digest == first
    digests = {first}
    (made / "data").write_text("2")
    digests.add(store.add_tree(made).digest)
    (made / "data").chmod(0o755)
    digests.add(store.add_tree(made).digest)
    (made / "data").rename(made / "date")
    digests.add(store.add_tree(made).digest)
    (made / "link").symlink_to("date")
    digests.add(store.add_tree(made).digest)
    (made / "folder").mkdir()
    digests.add(store.add_tree(made).digest)
    digests.add(store.add_tree(made, Start(environment=(("A", "b"),))).digest)
    assert len(digests) == 7


def test_it_stays_what_it_was(tmp_path: Path, store: ImageStore) -> None:
    served = program(tmp_path / "app/serve", "#!/bin/sh\n# first\n")
    made = store.add_tree(tmp_path / "app")
    served.write_text("#!/bin/sh\n# second\n")
    assert (store.path(made.digest) / "root/serve").read_text() == "#!/bin/sh\n# first\n"


def test_everything_is_readable_and_nothing_has_more_rights(tmp_path: Path, store: ImageStore) -> None:
    made = tmp_path / "app"
    program(made / "serve", mode=0o4700)
    program(made / "secret", mode=0o600)
    os.mkfifo(made / "pipe")
    kept = store.path(store.add_tree(made).digest) / "root"
    assert stat.S_IMODE((kept / "serve").stat().st_mode) == 0o755
    assert stat.S_IMODE((kept / "secret").stat().st_mode) == 0o644
    assert not (kept / "pipe").exists()


def test_a_root_file_system_gets_its_places_and_loses_the_kernels(tmp_path: Path, store: ImageStore) -> None:
    made = root(tmp_path / "root")
    (made / "proc").mkdir()
    (made / "proc/leftover").touch()
    (made / "var/log").symlink_to("/tmp")
    kept = store.path(store.add_tree(made).digest) / "root"
    assert not (kept / "proc/leftover").exists()
    for name in ("proc", "dev", "tmp", "opt/ml", "run", "etc/passwd"):
        assert (kept / name).exists(), name
    assert "var/log" not in writable_places(kept)
    assert "run" in writable_places(kept)


@pytest.mark.parametrize("name", ["opt", "opt/ml", "tmp", "dev"])
def test_no_link_may_lead_a_mount_astray(tmp_path: Path, store: ImageStore, name: str) -> None:
    made = root(tmp_path / "root")
    (made / name).parent.mkdir(exist_ok=True)
    (made / name).symlink_to("/etc")
    if name == "dev":
        store.add_tree(made)  # the kernel's folders are not taken from an image
        return
    with pytest.raises(ImageError, match="not a link"):
        store.add_tree(made)


def test_scripts_of_an_environment_start_its_interpreter_where_it_is_now(tmp_path: Path, store: ImageStore) -> None:
    made = tmp_path / "venv"
    program(made / "bin/serve", f"#!{made}/bin/python -I\nprint('{made}/data')\n" + "x" * 2000)
    program(made / "bin/sh-trick", f"#!/bin/sh\n'''exec' {made}/bin/python \"$0\"\n' '''\n")
    program(made / "bin/other", "#!/usr/bin/env python\n")
    (made / "bin/python").symlink_to("/usr/bin/python3")
    (made / "pyvenv.cfg").touch()
    kept = store.path(store.add_tree(made).digest) / "root"
    assert (kept / "bin/serve").read_text().startswith(f"#!{kept}/bin/python -I\n")
    assert (kept / "bin/serve").read_text().endswith("x" * 2000)
    assert f"'''exec' {kept}/bin/python" in (kept / "bin/sh-trick").read_text()
    assert (kept / "bin/other").read_text() == "#!/usr/bin/env python\n"


def test_what_an_engine_holds_is_noted_by_its_id(store: ImageStore) -> None:
    made = store.add_engine_image(f"sha256:{'a' * 64}", 12, "mine:1")
    assert (made.kind, made.digest, made.reference) == (ENGINE, "a" * 64, f"sha256:{'a' * 64}")
    assert store.find("a" * 64) == made
    with pytest.raises(ImageError):
        store.add_engine_image("mine:1", 12, "mine:1")


@pytest.mark.parametrize("digest", ["", "a" * 63, "../" + "a" * 61, "A" * 64])
def test_only_digests_are_looked_for(store: ImageStore, digest: str) -> None:
    assert store.find(digest) is None


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, store: ImageStore) -> None:
    program(tmp_path / "app/serve")
    made = store.add_tree(tmp_path / "app")
    (store.path(made.digest) / "image.json").write_text('{"half')
    assert store.find(made.digest) is None


def test_the_sweep_takes_what_nobody_names_and_nobody_is_about_to(tmp_path: Path, store: ImageStore) -> None:
    made = []
    for number in range(3):
        program(tmp_path / f"app{number}/serve", f"#!/bin/sh\n# {number}\n")
        made.append(store.add_tree(tmp_path / f"app{number}").digest)
    (tmp_path / "data/images/.staged-1").mkdir()
    now = time.time()
    assert store.sweep(set(), now) == []
    later = now + SETTLED_S + 1
    os.utime(store.path(made[2]), (later, later))
    assert set(store.sweep({made[0]}, later)) == {made[1], ".staged-1"}
    assert [bool(store.find(digest)) for digest in made] == [True, False, True]


def test_users_of_an_image_and_of_the_instance_stand_together() -> None:
    theirs, ours = "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n", "root:x:0:0::/:/no\nmodel:x:7:7::/tmp:/no\n"
    assert merged(theirs, ours) == "model:x:7:7::/tmp:/no\nroot:x:0:0::/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n"
