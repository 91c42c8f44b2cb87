"""What makes a file whole and lasting: full disks, crashes in the middle, renames that are synced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from eyrie.adapters import durable
from eyrie.cli import data as datadir


def test_a_write_that_the_system_cuts_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, bytes(content)[:3]))
    durable.write_whole(tmp_path / "file", b"the whole content", 0o600)
    datadir.write_whole(tmp_path / "keys.json", '[{"key": "a whole one"}]', 0o600)
    assert (tmp_path / "file").read_bytes() == b"the whole content"
    assert (tmp_path / "keys.json").read_text() == '[{"key": "a whole one"}]'


def test_on_a_full_disk_the_old_file_stands_and_nothing_is_left_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    durable.write_whole(path, b"old", 0o600)
    write, written = os.write, []

    def full(fd: int, content: bytes) -> int:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(write(fd, bytes(content)[:2]))
        return 2

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_whole(path, b"new one", 0o600)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_of_the_same_number_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f".file.{os.getpid()}.half").write_bytes(b"torn")
    durable.write_whole(tmp_path / "file", b"new", 0o640)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_lasting_file_is_synced_before_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(fd: int) -> None:
        steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name.partition('.half')[0]}")
        fsync(fd)

    def renamed(old: Path, new: Path) -> None:
        steps.append(f"name {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    datadir.write_whole(tmp_path / "keys.json", "[]", 0o600)
    assert steps == [f"sync .keys.json.{os.getpid()}", "name keys.json", f"sync {tmp_path.name}"]
