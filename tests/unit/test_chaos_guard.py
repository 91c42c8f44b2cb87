"""What holds a process still lets it go, whatever becomes of who asked for it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_world import state, until, victim_process

from eyrie.cli.chaos_faults import Guard
from eyrie.cli.chaos_place import Place
from eyrie.cli.chaos_processes import processes_of
from eyrie.cli.errors import CommandError

ASKER = """
import sys, time
from pathlib import Path
from eyrie.cli.chaos_faults import Guard
Guard(Path(sys.argv[3]), {"pids": [int(sys.argv[1])], "kind": sys.argv[2], "seconds": 60.0, "share": 0.9})
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def victim() -> Iterator[int]:
    with victim_process() as pid:
        yield pid


def test_a_guard_lets_go_when_its_time_is_over_or_when_it_is_told(victim: int, tmp_path: Path) -> None:
    brief = Guard(tmp_path, {"kind": "hang", "pids": [victim], "seconds": 0.05})
    until(lambda: brief.over)
    assert state(victim) in "SR"
    brief.end()
    long = Guard(tmp_path, {"kind": "hang", "pids": [victim], "seconds": 60.0})
    until(lambda: state(victim) == "T")
    long.end()
    assert state(victim) in "SR"


@pytest.mark.parametrize("kind", ["hang", "slow"])
def test_a_killed_command_leaves_nothing_stopped(victim: int, kind: str, tmp_path: Path) -> None:
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(victim), kind, str(tmp_path)], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    assert asker.stdout.readline() == b"held\n"
    until(lambda: state(victim) == "T")
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    asker.stdout.close()
    until(lambda: state(victim) in "SR")
    time.sleep(0.15)  # longer than a cycle of a slow one
    assert state(victim) in "SR"


def test_a_killed_guard_is_stood_in_for(victim: int, tmp_path: Path) -> None:
    guard = Guard(tmp_path, {"kind": "hang", "pids": [victim], "seconds": 60.0})
    until(lambda: state(victim) == "T")
    (child,) = [pid for pid in processes_of(os.getpid()) if "eyrie.cli.chaos_guard" in _command(pid)]
    subprocess.run(["kill", "-9", str(child)], check=True)
    until(lambda: guard.over)
    guard.end()
    assert state(victim) in "SR"


def killed_asker(data: Path, told: dict[str, object]) -> None:
    """A command that asks for a hold, and is killed while it lasts."""
    code = "import json, sys, time\nfrom eyrie.cli.chaos_faults import Guard\n"
    code += "from pathlib import Path\nGuard(Path(sys.argv[2]), json.loads(sys.argv[1]))\n"
    code += "print('held', flush=True)\ntime.sleep(60)"
    asker = subprocess.Popen([sys.executable, "-c", code, json.dumps(told), str(data)], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    assert asker.stdout.readline() == b"held\n"
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    asker.stdout.close()


def writable(path: Path) -> bool:
    """Whether a transaction can begin there now."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as store:
        try:
            store.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


def test_a_store_is_locked_for_writers_alone_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "eyrie.db"
    with contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("CREATE TABLE t (x)")
    guard = Guard(tmp_path, {"kind": "lock", "path": str(path), "seconds": 60.0})
    assert not writable(path)
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as store:
        assert store.execute("SELECT count(*) FROM t").fetchone() == (0,)
    guard.end()
    assert writable(path)
    killed_asker(tmp_path, {"kind": "lock", "path": str(path), "seconds": 60.0})
    until(lambda: writable(path))
    with pytest.raises(CommandError, match="nothing was broken: unable to open"):
        Guard(tmp_path, {"kind": "lock", "path": str(tmp_path / "absent.db"), "seconds": 60.0})
    assert not (tmp_path / "absent.db").exists()


def test_what_was_filled_is_removed_again(tmp_path: Path) -> None:
    path = tmp_path / "filler"
    guard = Guard(tmp_path, {"kind": "fill", "path": str(path), "bytes": 1_000_000, "seconds": 60.0})
    assert path.stat().st_blocks * 512 >= 1_000_000
    guard.end()
    assert not path.exists()
    killed_asker(tmp_path, {"kind": "fill", "path": str(path), "bytes": 1_000_000, "seconds": 60.0})
    until(lambda: not path.exists())
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    Guard(tmp_path, {"kind": "fill", "path": str(link), "bytes": 10, "seconds": 60.0}).end()
    assert not (tmp_path / "elsewhere").exists()  # a model made it: it is not followed


def test_files_cannot_grow_while_the_disk_is_full_and_can_afterwards(victim: int, tmp_path: Path) -> None:
    soft = resource.prlimit(victim, resource.RLIMIT_FSIZE)[0]
    told = {"kind": "full", "locks": [str(tmp_path / "absent.lock")], "pids": [victim], "soft": soft, "seconds": 60.0}
    guard = Guard(tmp_path, told)
    until(lambda: resource.prlimit(victim, resource.RLIMIT_FSIZE)[0] == 0)
    (child,) = [pid for pid in processes_of(os.getpid()) if "eyrie.cli.chaos_guard" in _command(pid)]
    subprocess.run(["kill", "-9", str(child)], check=True)
    until(lambda: guard.over)
    assert resource.prlimit(victim, resource.RLIMIT_FSIZE)[0] == 0
    guard.end()  # stands in for it
    assert resource.prlimit(victim, resource.RLIMIT_FSIZE)[0] == soft
    killed_asker(tmp_path, told)
    until(lambda: resource.prlimit(victim, resource.RLIMIT_FSIZE)[0] == soft)


def test_data_is_capped_and_uncapped(victim: int, tmp_path: Path) -> None:
    soft = resource.prlimit(victim, resource.RLIMIT_DATA)[0]
    guard = Guard(tmp_path, {"kind": "cap", "pids": [[victim, soft]], "seconds": 60.0})
    assert 0 < resource.prlimit(victim, resource.RLIMIT_DATA)[0] < 100_000_000
    guard.end()
    assert resource.prlimit(victim, resource.RLIMIT_DATA)[0] == soft


def test_a_group_is_squeezed_and_let_go(victim: int, tmp_path: Path) -> None:
    limit, score = tmp_path / "memory.max", Path(f"/proc/{victim}/oom_score_adj")
    limit.write_text("max")
    before = score.read_text().strip()
    told = {"kind": "squeeze", "files": [[str(limit), "max", "4096"]], "scores": [[victim, before]], "seconds": 60.0}
    told |= {"group": str(tmp_path), "bytes": 4_194_304}
    guard = Guard(tmp_path, told)
    assert (limit.read_text(), score.read_text().strip()) == ("4096", "1000")
    joined = tmp_path / "cgroup.procs"
    until(lambda: joined.exists() and joined.read_text())  # what asks for memory joins the group
    hog = int(joined.read_text())
    guard.end()
    assert (limit.read_text(), score.read_text().strip()) == ("max", before)
    assert not Path(f"/proc/{hog}").exists()
    with pytest.raises(CommandError, match="nothing was broken"):
        Guard(tmp_path, {**told, "files": [[str(tmp_path / "no" / "file"), "max", "1"]]})
    assert score.read_text().strip() == before


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials.json").write_text(
        json.dumps([{"access_key_id": "a", "secret_access_key": "b", "account": "123456789012"}])
    )
    assert Place(tmp_path, "us-east-1", "e").instances() is None  # control does not answer
    monkeypatch.setattr("os.geteuid", lambda: 12_345)
    with pytest.raises(CommandError, match="another user"):
        Place(tmp_path, "us-east-1", "e")


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
