"""The parts of compute that need no process: reasons, trees of files, control groups on a made-up tree, the filter."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from eyrie.adapters import cgroups, sandbox, seccomp
from eyrie.adapters.compute_process import ARCHIVED_LOGS_MAX, archive
from eyrie.adapters.ending import describe
from eyrie.adapters.placing import PlacingFailed, place
from eyrie.adapters.slot_client import NoAnswer, ask
from eyrie.adapters.slots import Slot, read_bounded
from eyrie.adapters.tending import excess
from eyrie.domain.fleet import ContainerSpec, InstanceSpec
from eyrie.domain.names import EndpointKey

UNLOADABLE = "ERROR eyrie.modelserver: The model could not be loaded: it is an int"
CRASH = ["Fatal Python error: Segmentation fault", "", 'File "a.py", line 1', "Extension modules: numpy (total: 1)"]


@pytest.mark.parametrize(
    ("exit_code", "oom_kills", "asked", "tail", "expected"),
    [
        (1, 0, False, ["a", "ValueError: b", " "], "exited with code 1; last line: ValueError: b"),
        (0, 0, True, ["a"], "stopped as asked, exited with code 0"),
        (137, 0, False, [], "killed by signal 9 (SIGKILL)"),
        (139, 0, False, [], "killed by signal 11 (SIGSEGV)"),
        (250, 0, False, [], "killed by signal 122 (unknown)"),
        (None, 0, False, ["x"], "gone, its lock is free; how it ended was not seen; last line: x"),
        (70, 0, False, CRASH, "exited with code 70; last line: Fatal Python error: Segmentation fault"),
        (70, 0, False, [*CRASH, "later"], "exited with code 70; last line: later"),
        (1, 0, False, [UNLOADABLE, "INFO: loading"], f"exited with code 1; last line: {UNLOADABLE}"),
        (1, 0, False, CRASH[2:], "exited with code 1; last line: Extension modules: numpy (total: 1)"),
        (137, 2, False, [], "killed by the kernel: its memory limit of 512 MB was reached (oom_kill 2)"),
    ],
)
def test_how_it_ended(exit_code: int | None, oom_kills: int, asked: bool, tail: list[str], expected: str) -> None:
    assert describe(exit_code, oom_kills, asked, tail, 512) == expected


# --- slots ----------------------------------------------------------------------------------------------------------


def test_only_regular_files_are_read_and_no_more_than_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert read_bounded(tmp_path / "file", 4) == b"6789"
    for name in ("link", "folder", "pipe", "nothing"):
        assert read_bounded(tmp_path / name) == b""


def test_files_of_control_that_are_broken_read_as_absent(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    for name in ("spec.json", "slot.json", "stop.json", "exit.json"):
        (tmp_path / name).write_text('{"half')
    assert (slot.spec(), slot.record(), slot.ending(), slot.exit_reason()) == (None, None, None, None)


def test_the_lock_appears_only_when_it_is_held(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    assert not slot.started
    fd = slot.hold_lock()
    assert slot.started
    assert slot.alive()
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert slot.started
    assert not slot.alive()


def test_the_status_is_what_the_launcher_wrote_so_far(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    assert slot.status().init is None
    (tmp_path / "status").write_text('{ "child-pid": 7, "pid-namespace": 99 }\n{ "exit-c')
    assert (slot.status().init, slot.status().pid_namespace, slot.status().exit_code) == (7, 99, None)
    (tmp_path / "status").write_text('{ "child-pid": 7 }\n{ "exit-code": 3 }\n')
    assert slot.status().exit_code == 3


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        ("true", None),
        ("head -c 3000000 /dev/zero >box/log", "bytes of this host's disk"),
        ("head -c 3000000 /dev/zero >lock", "bytes of this host's disk"),
        ("head -c 3000000 /dev/zero >start.log", "bytes of this host's disk"),
        ("seq 200 | sed 's|^|box/|' | xargs touch", "it holds 97 files"),
        ("mkdir box/more", "a folder in its box"),
        ("ln -s ../../other/box/s box/s", "replaced by a link"),
    ],
)
def test_what_a_model_does_to_the_disk_is_bounded(tmp_path: Path, make: str, expected: str | None) -> None:
    (tmp_path / "box").mkdir()
    subprocess.run(["/bin/sh", "-c", make], cwd=tmp_path, check=True)
    found = excess(Slot(tmp_path), 2_000_000)
    assert found is None if expected is None else expected in str(found)


# --- placing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "model"
    (source / "code").mkdir(parents=True)
    (source / "weights").write_text("w")
    (source / "weights").chmod(0o644)
    (source / "code" / "inference.py").write_text("c")
    (source / "code" / "inference.py").chmod(0o600)
    (source / "same").symlink_to("weights")
    (tmp_path / "slot" / "ml").mkdir(parents=True)
    return source


@pytest.mark.parametrize("share", [True, False])
def test_a_tree_is_placed_readable(tmp_path: Path, tree: Path, share: bool) -> None:
    place(tree, Slot(tmp_path / "slot"), "model", share)
    placed = tmp_path / "slot" / "ml" / "model"
    assert (placed / "weights").samefile(tree / "weights") is share
    assert not (placed / "code" / "inference.py").samefile(tree / "code" / "inference.py")  # not readable: a copy
    assert (placed / "code" / "inference.py").stat().st_mode & 0o777 == 0o444
    assert (placed / "same").read_text() == "w"
    assert (placed / "code").stat().st_mode & 0o777 == 0o755


def test_what_cannot_be_placed_leaves_nothing(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "slot" / "ml").rmdir()
    with pytest.raises(PlacingFailed, match="model could not be placed"):
        place(tree, Slot(tmp_path / "slot"), "model", True)
    assert list((tmp_path / "slot").iterdir()) == []


# --- control groups -------------------------------------------------------------------------------------------------


def _unified(root: Path, controllers: str) -> None:
    (root / "own").mkdir(parents=True)
    for folder in (root, root / "own"):
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text(controllers)


def test_without_a_tree_nothing_can_be_limited(tmp_path: Path) -> None:
    found = cgroups.detect("eyrie-x", tmp_path, tmp_path / "none")
    assert (found.version, found.prefixes, found.create("s")) == (0, (), ())
    assert cgroups.limit((), 1000, 64) == []


def test_version_1_by_its_files(tmp_path: Path) -> None:
    for controller, file in {"cpu": "cpu.cfs_quota_us", "memory": "memory.limit_in_bytes"}.items():
        probe = tmp_path / controller / "docker" / "me" / "eyrie-x.probe"
        probe.mkdir(parents=True)
        (tmp_path / controller / "cgroup.procs").write_text("")
        (probe / file).write_text("")
        (probe / "cgroup.procs").write_text("")
    (tmp_path / "own").write_text("3:cpu,cpuacct:/docker/me\n2:memory:/docker/me\n0::/\n")
    found = cgroups.detect("eyrie-x", tmp_path, tmp_path / "own")
    assert (found.version, found.controllers) == (1, {"cpu", "memory"})
    assert found.prefixes[0] == f"{tmp_path}/cpu/docker/me/eyrie-x."


def test_version_2_that_hands_nothing_down_is_said(tmp_path: Path) -> None:
    _unified(tmp_path, "hugetlb")
    (tmp_path / "place").write_text("0::/own\n")
    found = cgroups.detect("eyrie-x", tmp_path, tmp_path / "place")
    assert found.version == 0
    assert "version 2 is mounted" in found.detail
    assert not (tmp_path / "own" / "eyrie-x").exists()


def test_version_2_by_its_files(tmp_path: Path) -> None:
    _unified(tmp_path, "cpu memory pids")
    probe = tmp_path / "own" / "eyrie-x" / "probe"
    probe.mkdir(parents=True)
    for name in ("cpu.max", "memory.max", "pids.max", "cgroup.procs"):
        (probe / name).write_text("")
    (tmp_path / "place").write_text("0::/own\n")
    found = cgroups.detect("eyrie-x", tmp_path, tmp_path / "place")
    assert (found.version, found.controllers) == (2, {"cpu", "memory", "pids"})
    assert found.prefixes == (f"{tmp_path}/own/eyrie-x/",)


def test_limits_are_written_to_whichever_files_there_are(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in ((one, ["cpu.cfs_quota_us", "memory.limit_in_bytes"]), (two, ["cpu.max", "memory.max"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("")
    assert cgroups.limit((str(one), str(two)), 1500, 512) == []
    assert (one / "cpu.cfs_quota_us").read_text() == "150000"
    assert (two / "cpu.max").read_text() == "150000 100000"
    assert {(one / "memory.limit_in_bytes").read_text(), (two / "memory.max").read_text()} == {str(512 << 20)}
    assert cgroups.limits_memory((str(two),))
    (two / "memory.max").unlink()
    (two / "memory.max").mkdir()
    assert cgroups.limit((str(two),), 1500, 512) == [f"memory.max could not be set to {512 << 20}"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("memory.events", "low 0\noom 1\noom_kill 3\n"), ("memory.oom_control", "under_oom 0\noom_kill 3\n")],
)
def test_kills_for_memory_are_counted(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert cgroups.oom_kills((str(tmp_path),)) == 3
    assert cgroups.oom_kills(()) == 0


# --- the sandbox ----------------------------------------------------------------------------------------------------


def _run_filter(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would return: classic BPF over seccomp_data, as far as the filter uses it."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    code = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x15:
            at += if_true if accumulator == value else if_false
        elif operation == 0x45:
            at += if_true if accumulator & value else if_false
        else:
            return int(value)


ALLOW, X86_64, AARCH64 = 0x7FFF0000, 0xC000003E, 0xC00000B7


@pytest.mark.parametrize(
    ("machine", "arch", "number", "arguments", "expected"),
    [
        ("x86_64", X86_64, 0, (), None),  # read
        ("x86_64", X86_64, 165, (), errno.EPERM),  # mount
        ("x86_64", X86_64, 442, (), errno.EPERM),  # mount_setattr
        ("x86_64", X86_64, 435, (), errno.ENOSYS),  # clone3
        ("x86_64", X86_64, 56, (0x3D0F00,), None),  # a thread
        ("x86_64", X86_64, 56, (0x10000011,), errno.EPERM),  # clone with CLONE_NEWUSER
        ("x86_64", X86_64, 16, (0, 0x5401), None),  # ioctl TCGETS
        ("x86_64", X86_64, 16, (0, 0x5412), errno.EPERM),  # ioctl TIOCSTI
        ("x86_64", X86_64, 0x40000000, (), errno.EPERM),  # x32
        ("x86_64", 0x40000003, 21, (), errno.EPERM),  # i386
        ("aarch64", AARCH64, 63, (), None),  # read
        ("aarch64", AARCH64, 40, (), errno.EPERM),  # mount
        ("aarch64", AARCH64, 220, (0x10000011,), errno.EPERM),
        ("aarch64", AARCH64, 220, (0x11,), None),
    ],
)
def test_the_filter(machine: str, arch: int, number: int, arguments: tuple[int, ...], expected: int | None) -> None:
    program = seccomp.program(machine)
    assert program is not None
    got = _run_filter(program, arch, number, *arguments)
    assert got == (ALLOW if expected is None else 0x00050000 | expected)


def test_an_unknown_machine_has_no_filter() -> None:
    assert seccomp.program("pdp11") is None


def test_paths_below_others_or_usr_are_left_out() -> None:
    given = [Path("/a/b"), Path("/a"), Path("/usr/lib/x"), Path("/ab"), Path("/")]
    assert sandbox.outermost(given) == [Path("/a"), Path("/ab")]


def test_data_below_something_seen_is_hidden() -> None:
    assert sandbox.hidden_paths([Path("/venv")], Path("/venv/data")) == ("/venv/data",)
    assert sandbox.hidden_paths([Path("/venv")], Path("/data")) == ()


def test_a_sandbox_that_is_missing_is_an_error_only_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = sandbox.detect("auto")
    assert found.kind == "process"
    assert "not installed" in found.detail
    with pytest.raises(sandbox.SandboxUnavailable, match="was asked for"):
        sandbox.detect("bubblewrap")
    with pytest.raises(sandbox.SandboxUnavailable, match="is not one of"):
        sandbox.detect("jail")
    assert sandbox.detect("process").kind == "process"


# --- the client -----------------------------------------------------------------------------------------------------


def _answering(path: Path, reply: bytes, keep_open: bool) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as conversation:
            conversation.recv(65_536)
            conversation.sendall(reply)
            if keep_open:
                conversation.settimeout(5)
                conversation.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_reply_is_whole_by_its_length(tmp_path: Path) -> None:
    server = _answering(tmp_path / "s", b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok", keep_open=True)
    reply = ask(tmp_path / "s", "POST", "/eyrie/claim", b"{}")
    server.join()
    assert (reply.status, reply.body) == (202, b"ok")


@pytest.mark.parametrize(
    ("reply", "keep_open"),
    [(b"HTTP/1.1 200 OK\r\n", True), (b"SSH-2.0\r\n\r\n", False), (b"x" * 70_000, False), (b"", False)],
)
def test_a_bad_reply_is_no_answer(tmp_path: Path, reply: bytes, keep_open: bool) -> None:
    server = _answering(tmp_path / "s", reply, keep_open)
    with pytest.raises(NoAnswer):
        ask(tmp_path / "s", "GET", "/ping", timeout_s=0.1)
    server.join()


def test_a_link_instead_of_a_socket_is_not_followed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen()
        (tmp_path / "s").symlink_to(tmp_path / "other")
        with pytest.raises(NoAnswer, match="not a socket"):
            ask(tmp_path / "s", "GET", "/ping")


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    fd = os.open(folder, os.O_PATH)
    server = _answering(Path(f"/proc/self/fd/{fd}/s"), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", keep_open=False)
    assert ask(folder / "s", "GET", "/ping").status == 200
    server.join()
    os.close(fd)


def test_the_first_word_on_an_end_holds(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    slot.write_once("exit.json", "first")
    slot.write_once("exit.json", "second")
    assert slot.exit_reason() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["exit.json"]


def test_the_archive_of_logs_is_bounded(tmp_path: Path) -> None:
    spec = InstanceSpec(
        "i-1", EndpointKey("123456789012", "us-east-1", "ep"), "main", "a", 1, "ml.m5.large", 1000, 64,
        (ContainerSpec("primary", "eyrie/sklearn", None, None),),
    )  # fmt: skip
    slot = Slot(tmp_path / "slot")
    (slot.path / "box").mkdir(parents=True)
    for number in range(ARCHIVED_LOGS_MAX + 2):
        (slot.path / "box" / "log").write_text(f"line {number}\n")
        archive(slot, replace(spec, instance_id=f"i-{number}"), tmp_path)
        os.utime(tmp_path / f"logs/endpoints/{spec.endpoint.slug}/main/i-{number}.log", (number, number))
    left = {path.name for path in (tmp_path / "logs/endpoints" / spec.endpoint.slug / "main").iterdir()}
    assert left == {f"i-{number}.log" for number in range(2, ARCHIVED_LOGS_MAX + 2)}
