"""The supervisor with stand-ins for its parts: what it starts, restarts, ends in order, takes over, and refuses."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eyrie.adapters import process_lock
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import CONTROL
from eyrie.cli.supervisor import Supervisor, World

UP = Path(__file__).parent / "standins" / "up.py"


class Started:
    """One `up` with stand-ins, and what can be seen of it."""

    def __init__(self, data: Path, port: int = 0, gateways: int = 2) -> None:
        self.data = data
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, str(UP), str(data), str(port), str(gateways)],
            stdout=pipe,
            stderr=pipe,
            text=True,
            process_group=0,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    @property
    def port(self) -> int:
        return int(json.loads((self.data / "env.json").read_text())["port"])

    def end(self, signum: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(signum)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def pids(data: Path) -> dict[str, int]:
    found = {p.stem: process_lock.holder(p) for p in (data / "run").glob("*.lock")}
    return {name: pid for name, pid in found.items() if pid is not None}


def ask(port: int) -> int:
    """The pid of the worker that answers on the shared port."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"who?\n")
        return int(connection.recv(100))


def until(seen: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


@pytest.fixture
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="eyrie-") as folder:
        data = Path(folder) / "data"
        yield data
        for path in [data / "eyrie.lock", *(data / "run").glob("*.lock")]:
            with process_lock.running(path) as left:
                if left is not None:
                    left.end(0.0)


def test_a_full_disk_ends_nothing_and_is_made_up_for(data: Path) -> None:
    up = Started(data)
    hard = resource.prlimit(up.process.pid, resource.RLIMIT_FSIZE)[1]
    before = pids(data)["gateway-1"]
    resource.prlimit(up.process.pid, resource.RLIMIT_FSIZE, (0, hard))  # nothing can be written
    os.kill(before, signal.SIGKILL)
    until(lambda: pids(data).get("gateway-1") != before)
    time.sleep(0.3)  # it has tried to write what runs now
    assert up.process.poll() is None
    resource.prlimit(up.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    found = until(lambda: pids(data) if set(pids(data)) > {"control", "gateway-0", "gateway-1"} else None)
    until(lambda: json.loads((data / "env.json").read_text())["processes"].get("gateway-1") == pids(data)["gateway-1"])
    assert found["gateway-1"] != before
    assert up.end()[0] == 0


def test_a_start_that_the_host_refuses_is_put_off_and_told(tmp_path: Path) -> None:
    for folder in ("logs", "run"):
        (tmp_path / folder).mkdir()
    programs, seconds = ["/nowhere/python"], itertools.count()
    with socket.socket() as listener:
        supervisor = Supervisor(
            World(
                data=tmp_path,
                env={},
                listener=listener,
                command=lambda part: programs,
                drain_s=0.0,
                end_instances=lambda: None,
                changed=lambda running: None,
                now_s=lambda: float(next(seconds)),
            )
        )
        child = supervisor.start(CONTROL)
        assert supervisor.pids() == {}
        with pytest.raises(CommandError, match=r"control keeps ending: .*No such file or directory: '/nowhere/python'"):
            supervisor.wait_ready([child], 1_000.0)
        programs[:] = ["/bin/sleep", "60"]
        child.due_s = 0.0
        supervisor.turn(0.0)
        pid = supervisor.pids()["control"]
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[0] == pid


def test_it_starts_every_part_and_ends_them_in_order(data: Path) -> None:
    up = Started(data)
    assert "is ready at http://127.0.0.1:" in up.line
    assert str(data / "credentials.json") in up.line
    assert set(pids(data)) == {"control", "objects", "dispatch", "gateway-0", "gateway-1"}
    assert ask(up.port) in pids(data).values()
    assert (data / "credentials.json").stat().st_mode & 0o777 == 0o600
    code, errors = up.end()
    assert (code, errors) == (0, "")
    order = (data / "order").read_text().split()
    assert set(order[:2]) == {"gateway-0", "gateway-1"}
    assert order[2:] == ["dispatch", "control", "instances", "objects"]
    assert pids(data) == {}


def test_ctrl_c_at_the_terminal_ends_it_all_in_order_too(data: Path) -> None:
    up = Started(data, gateways=1)
    os.killpg(up.process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    up.process.communicate(timeout=60)
    assert up.process.returncode == 0
    assert (data / "order").read_text().split() == ["gateway-0", "dispatch", "control", "instances", "objects"]
    assert pids(data) == {}


def test_a_part_that_dies_is_started_again(data: Path) -> None:
    up = Started(data)
    before = pids(data)
    for name in ("control", "gateway-1"):
        os.kill(before[name], signal.SIGKILL)
        after = until(lambda name=name: {k: v for k, v in pids(data).items() if k == name and v != before[name]})
        assert after[name] != before[name]
    assert pids(data)["gateway-0"] == before["gateway-0"]
    env = until(lambda: json.loads((data / "env.json").read_text())["processes"] == pids(data))
    assert env
    code, errors = up.end()
    assert code == 0
    assert "control was killed by SIGKILL; next start in 0 ms" in errors


def test_a_part_that_never_comes_up_is_told_with_its_last_words(data: Path) -> None:
    data.mkdir()
    (data / "run").mkdir()
    (data / "version").write_text("1\n")
    (data / "die-control").touch()
    up = Started(data, gateways=1)
    assert up.line == ""
    assert up.process.wait(60) == 1
    assert up.process.stderr is not None
    assert "control keeps ending: the stand-in was told to die" in up.process.stderr.read()
    assert pids(data) == {}
    assert "instances" not in (data / "order").read_text()  # what serves is not ended by a start that fails
    up.process.communicate()


def test_a_second_up_on_the_same_data_is_one_clear_line(data: Path) -> None:
    up = Started(data, gateways=1)
    second = Started(data, gateways=1)
    _, errors = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    said = f"an Eyrie already runs with the data directory {data} (process {up.process.pid}); `eyrie down` ends it"
    assert errors == f"eyrie: {said}\n"
    assert ask(up.port)
    up.end()


def test_after_a_kill_the_next_up_takes_the_listener_and_replaces_every_part(data: Path) -> None:
    first = Started(data)
    port, old = first.port, pids(data)
    first.end(signal.SIGKILL)
    assert pids(data) == old  # its children run on
    assert ask(port) in old.values()
    second = Started(data, port=port)
    assert "took over from 5 processes" in second.line
    until(lambda: not set(pids(data).values()) & set(old.values()))
    assert set(pids(data)) == {"control", "objects", "dispatch", "gateway-2", "gateway-3"}
    assert ask(port) in pids(data).values()
    order = (data / "order").read_text().split()
    old = {"gateway-0", "gateway-1", "control", "objects", "dispatch"}
    assert set(order) == old  # told to stop; instances left alone
    assert second.end()[0] == 0


def test_a_takeover_ends_control_and_dispatch_side_by_side_and_objects_after_them(data: Path) -> None:
    first = Started(data)
    port = first.port
    first.end(signal.SIGKILL)
    (data / "order").touch()
    (data / "after-control").write_text("dispatch")
    second = Started(data, port=port)
    assert "took over from 5 processes" in second.line
    order = [name for name in (data / "order").read_text().split() if not name.startswith("gateway")]
    assert order == ["dispatch", "control", "objects"]
    (data / "after-control").unlink()
    assert second.end()[0] == 0


def test_no_connection_is_refused_or_reset_during_a_takeover(data: Path) -> None:
    first = Started(data)
    port = first.port
    first.end(signal.SIGKILL)
    second = subprocess.Popen(
        [sys.executable, str(UP), str(data), str(port), "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    old, asked = set(pids(data).values()), 0
    while set(pids(data).values()) & old:
        ask(port)
        asked += 1
    assert asked > 10
    second.terminate()
    second.communicate(timeout=60)


def test_a_port_that_another_program_has_is_one_clear_line(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        up = Started(data, port=port)
        _, errors = up.process.communicate(timeout=60)
    assert up.process.returncode == 1
    assert errors == f"eyrie: port {port} on 127.0.0.1 is in use by another program: choose another with --port\n"


def test_a_data_directory_of_a_newer_version_is_refused(data: Path) -> None:
    data.mkdir()
    (data / "version").write_text("99\n")
    up = Started(data)
    _, errors = up.process.communicate(timeout=60)
    assert up.process.returncode == 1
    assert errors.startswith(f"eyrie: {data} was written by a newer Eyrie (format 99")
    assert errors.count("\n") == 1


def test_a_data_directory_that_cannot_be_used_is_one_clear_line(data: Path) -> None:
    long = data / ("x" * 300)
    _, errors = Started(long).process.communicate(timeout=30)
    assert errors.startswith(f"eyrie: cannot use the data directory {long}: File name too long")
    (data / "logs" / "up.log").mkdir(parents=True)
    _, errors = Started(data).process.communicate(timeout=30)
    assert errors == f"eyrie: cannot use the data directory {data}: Is a directory ({data}/logs/up.log)\n"


def test_a_folder_that_holds_something_else_is_refused_untouched(data: Path) -> None:
    data.mkdir()
    (data / "thesis.tex").touch()
    up = Started(data)
    _, errors = up.process.communicate(timeout=60)
    assert up.process.returncode == 1
    assert "is no data directory of Eyrie" in errors
    assert [p.name for p in data.iterdir()] == ["thesis.tex"]
