"""Models that try to get out of their sandbox. Each attempt is Python run by the instance's own server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compute_world import World, as_root, gone, inside, observed, ready, until, warm

from eyrie.adapters import cgroups, sandbox
from eyrie.adapters.slot_client import NoAnswer
from eyrie.domain.fleet import ObservedInstance

WORKS = sandbox.detect("auto").kind == sandbox.BUBBLEWRAP
pytestmark = pytest.mark.skipif(not WORKS, reason=f"no sandbox here: {sandbox.detect('auto').detail}")
DENIED = ("PermissionError", "OSError", "FileNotFoundError", "ProcessLookupError")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World(Path(tempfile.mkdtemp(prefix="ey-")), "bubblewrap", warm_slots=0)
    (made.data / "credentials.json").write_text("secret")
    os.environ["EYRIE_SECRET"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "secret"
    compute = made.compute()
    for number in (1, 2):
        compute.ensure(made.spec(number))
        ready(compute, made.spec(number))
    yield made
    del os.environ["EYRIE_SECRET"], os.environ["AWS_SECRET_ACCESS_KEY"]
    made.close()


@pytest.fixture
def one(world: World) -> ObservedInstance:
    return next(one for one in world.computes[0].inventory() if one.instance_id == world.spec(1).instance_id)


def denied(answer: Any) -> bool:
    return isinstance(answer, str) and answer.startswith(DENIED)


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/shadow').read()",
        "open('/etc/passwd', 'a')",
        "open('/opt/ml/model/weights', 'w')",
        "open('/opt/ml/model/new', 'w')",
        "os.unlink('/opt/ml/model/weights')",
        "os.chmod('/opt/ml/model/weights', 0o777)",
        "open('/usr/bin/new', 'w')",
        "open('/new', 'w')",
        "open('/run/new', 'w')",
        "os.mkdir('/home')",
        "open(os.path.join(os.sep, 'root', '.bashrc'))",
        "os.listdir('/sys')",
        "os.listdir('/var')",
        "open('/proc/sys/kernel/hostname', 'w')",
        "open('/proc/sysrq-trigger', 'w')",
        "open('/dev/kmsg')",
        "open('/dev/mem')",
        "os.mknod('/tmp/disk', 0o60666, os.makedev(254, 0)); open('/tmp/disk')",
        "os.setuid(0)",
        "os.setgid(0)",
        "os.setgroups([0])",
        "os.chroot('/tmp')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))",  # sends nothing
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
    ],
)
def test_is_denied(one: ObservedInstance, code: str) -> None:
    assert denied(inside(one, f"{code}; result = 'done'")), code


@pytest.mark.skipif(
    not as_root(), reason="without root pid 1 of the sandbox is the same user, as harmless as the model"
)
@pytest.mark.parametrize(
    "code", ["open('/proc/1/environ')", "os.listdir('/proc/1/fd')", "os.open('/proc/self/fd/9', os.O_WRONLY)"]
)
def test_is_denied_under_root(one: ObservedInstance, code: str) -> None:
    assert denied(inside(one, f"{code}; result = 'done'")), code


def test_pid_1_of_the_sandbox_is_no_better_off(one: ObservedInstance) -> None:
    inside(one, "os.kill(1, 9)")
    told = _status(inside(one, "result = open('/proc/1/status').read()"))
    assert (int(told["CapEff"], 16), told["NoNewPrivs"], told["Seccomp"]) == (0, "1", "2")
    assert "secret" not in str(inside(one, "result = open('/proc/1/environ').read()"))


def test_the_hosts_own_ports_are_out_of_reach(one: ObservedInstance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = inside(one, f"import socket; socket.create_connection({listener.getsockname()!r}, 1)")
    assert "Connection refused" in answer


def _call(function: str, *arguments: str) -> str:
    """Code that makes one C library call and yields its errno name."""
    return (
        f"import ctypes, errno; libc = ctypes.CDLL(None, use_errno=True); "
        f"got = libc.{function}({', '.join(arguments)}); "
        "result = errno.errorcode.get(ctypes.get_errno(), '?') if got == -1 else 'done'"
    )


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("unshare", ("0x10000000",)),  # a user namespace
        ("unshare", ("0x20000",)),  # a mount namespace
        ("mount", ("b'none'", "b'/tmp'", "b'tmpfs'", "0", "None")),
        ("umount2", ("b'/opt/ml'", "2")),
        ("ptrace", ("16", "1", "0", "0")),
        ("setns", ("0", "0")),
        ("pivot_root", ("b'/tmp'", "b'/tmp'")),
        ("reboot", ("0",)),
        ("sethostname", ("b'x'", "1")),
        ("syscall", ("56", "0x10000011", "0", "0", "0", "0")),  # clone with CLONE_NEWUSER
        ("syscall", ("321", "0", "0", "0")),  # bpf
        ("syscall", ("298", "0", "0", "0", "0", "0")),  # perf_event_open
        ("syscall", ("425", "8", "0")),  # io_uring_setup
        ("syscall", ("250", "0", "0")),  # keyctl
        ("syscall", ("0x40000027",)),  # getpid, spelled for the x32 machine
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_the_system_call_is_denied(one: ObservedInstance, function: str, arguments: tuple[str, ...]) -> None:
    name = "libc.pivot_root" if function == "pivot_root" else function
    if name.startswith("libc."):
        function, arguments = "syscall", ("155", *arguments)
    assert inside(one, _call(function, *arguments)) == "EPERM"


def _status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_clone3_falls_back(one: ObservedInstance) -> None:
    assert inside(one, _call("syscall", "435", "0", "0")) == "ENOSYS"
    assert inside(one, "import threading; t = threading.Thread(target=print); t.start(); t.join(); result = 1") == 1


def test_no_rights_are_left(one: ObservedInstance) -> None:
    told = _status(inside(one, "result = open('/proc/self/status').read()"))
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if kind != "CapBnd" or as_root():
            assert int(told[kind], 16) == 0, kind
    assert told["NoNewPrivs"] == "1"
    assert told["Seccomp"] == "2"


@pytest.mark.skipif(not as_root(), reason="without root every instance is Eyrie's own user, in a namespace of its own")
def test_each_instance_is_a_user_of_its_own(world: World) -> None:
    users = {
        inside(one, "result = [os.getuid(), os.getgid(), os.getgroups()]")[0] for one in world.computes[0].inventory()
    }
    assert len(users) == 2
    assert min(users) >= 20_000


@pytest.mark.parametrize("program", ["su", "mount", "passwd", "newgrp", "sudo"])
def test_setuid_programs_give_nothing(one: ObservedInstance, program: str) -> None:
    code = f"""
import subprocess, shutil
found = shutil.which({program!r})
me = os.getuid()
result = found and subprocess.run([found, '-c', 'id'], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
"""
    assert "uid=0" not in str(inside(one, code))


def test_it_sees_only_its_own_processes(one: ObservedInstance) -> None:
    pids = inside(one, "result = [int(name) for name in os.listdir('/proc') if name.isdigit()]")
    assert set(pids) <= {1, 2, 3}
    assert denied(inside(one, f"os.kill({one.pid}, 0)"))
    assert denied(inside(one, f"os.kill({os.getpid()}, 0)"))


def test_it_sees_no_file_of_eyrie_or_of_another_model(world: World, one: ObservedInstance) -> None:
    other = next(o for o in world.computes[0].inventory() if o.instance_id == world.spec(2).instance_id)
    for path in (world.data / "credentials.json", Path(other.socket).parent.parent / "ml/model/weights", world.data):
        assert inside(one, f"result = os.path.exists({str(path)!r})") is False
    found = inside(one, "result = sorted(os.listdir('/opt/ml')), sorted(os.listdir('/run/eyrie'))")
    assert found == [["model"], ["log", "s"]]
    # Not what every program of the host may read, nor /proc: on a cold disk that alone takes longer than an answer may.
    known = ["/usr", "/proc", *map(str, sandbox.runtime_paths())]
    code = f"""
result = []
for path, folders, names in os.walk('/'):
    folders[:] = [name for name in folders if os.path.join(path, name) not in {known!r}]
    result += [path] if 'credentials.json' in names or path.endswith('/slots') else []
"""
    tree = inside(one, code)
    assert tree == []


def test_its_environment_is_its_own(one: ObservedInstance) -> None:
    names = set(inside(one, "result = list(os.environ)"))
    assert names <= {"PATH", "LANG", "HOME", "TMPDIR", "TOLD", "PWD", "LC_CTYPE"}
    seen = "".join(inside(one, "result = [open(f'/proc/{p}/cmdline').read() for p in (1, 2)]"))
    assert "credentials" not in seen
    assert "--bind" not in seen


def test_only_what_it_needs_is_open(one: ObservedInstance) -> None:
    found = inside(
        one,
        "result = {n: os.readlink(p) for n in map(str, range(3, 64)) if os.path.lexists(p := f'/proc/self/fd/{n}')}",
    )
    assert [path for path in found.values() if "/lock" in path] == [found["9"]]
    assert not [path for path in found.values() if path.endswith(("status", "args", "filter"))]


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_private_memory_files_are_bounded(one: ObservedInstance, place: str) -> None:
    size = inside(one, f"s = os.statvfs({place!r}); result = s.f_blocks * s.f_frsize")
    assert size <= 536_870_912
    if place == "/dev/shm":
        code = f"f = open('{place}/x', 'wb')\nfor _ in range(80): f.write(bytes(1 << 20)); f.flush()"
        assert "No space left" in inside(one, code)
        inside(one, f"os.unlink('{place}/x')")


def test_a_box_that_grows_is_the_end_of_it(world: World) -> None:
    compute, spec = world.compute(log_bytes_max=1_048_576), world.spec(3)
    compute.ensure(spec)
    one = ready(compute, spec)
    inside(one, "open('/run/eyrie/x', 'wb').write(bytes(6 << 20))")
    gone(compute, spec)


def test_a_socket_that_became_a_link_is_the_end_of_it(world: World) -> None:
    compute, spec = world.compute(), world.spec(4)
    compute.ensure(spec)
    one = ready(compute, spec)
    inside(one, "os.rename('/run/eyrie/s', '/run/eyrie/t'); os.symlink('../../../run/control.sock', '/run/eyrie/s')")
    gone(compute, spec)


def test_links_in_its_box_are_not_followed(world: World) -> None:
    compute, spec = world.compute(), world.spec(5)
    compute.ensure(spec)
    one = ready(compute, spec)
    inside(one, f"os.unlink('/run/eyrie/log'); os.symlink({str(world.data / 'credentials.json')!r}, '/run/eyrie/log')")
    assert "secret" not in str(compute.tail(spec.instance_id, 10))
    compute.stop(spec.instance_id, 0)
    gone(compute, spec)
    compute.forget(spec.instance_id)
    assert "secret" not in str(compute.tail(spec.instance_id, 10))


def test_memory_beyond_the_type_ends_it_and_the_reason_says_so(world: World) -> None:
    compute, spec = world.computes[0], world.spec(6, memory_mb=256)
    compute.ensure(spec)
    one = ready(compute, spec)
    too_much = "x = bytearray(600 << 20); x[::4096] = bytes(len(x[::4096])); result = 'had'"
    if "memory" in compute.groups.controllers:
        with pytest.raises(NoAnswer):
            inside(one, too_much)
        assert "memory limit of 256 MB" in str(gone(compute, spec).exit_reason)
    else:  # a limit of the process, set once its pid is known
        until(lambda: "MemoryError" in inside(one, too_much), "memory refused")


def test_the_types_cpu_is_the_cap(world: World) -> None:
    compute, spec = world.computes[0], world.spec(7, vcpu_milli=200)
    if "cpu" not in compute.groups.controllers:
        pytest.skip(f"no CPU limit here: {compute.groups.detail}")
    compute.ensure(spec)
    one = ready(compute, spec)
    spin = "while time.monotonic() < until: pass"
    code = f"a, until = time.process_time(), time.monotonic() + 1\n{spin}\nresult = time.process_time() - a"
    used = inside(one, code)
    assert used < 0.5


def test_processes_are_bounded(world: World) -> None:
    compute = world.computes[0]
    if "pids" not in compute.groups.controllers:
        pytest.skip(f"no limit of processes here: {compute.groups.detail}")
    slot = Path(compute.inventory()[0].socket).parent.parent
    limits = [Path(group) / "pids.max" for group in json.loads((slot / "slot.json").read_text())["groups"]]
    assert [path.read_text().strip() for path in limits if path.exists()] == [str(cgroups.PIDS_MAX)]


def test_nothing_is_left_of_it(world: World) -> None:
    compute, spec = world.computes[0], world.spec(8)
    compute.ensure(spec)
    one = ready(compute, spec)
    groups = json.loads((Path(one.socket).parent.parent / "slot.json").read_text())["groups"]
    compute.stop(spec.instance_id, 0)
    gone(compute, spec)
    compute.forget(spec.instance_id)
    assert not Path(one.socket).parent.parent.exists()
    until(lambda: not any(Path(group).exists() for group in groups), "its groups removed")
    assert observed(compute, spec) is None


def test_groups_without_a_slot_are_swept_with_what_runs_in_them(world: World) -> None:
    first = world.computes[0]
    if not first.groups.prefixes:
        pytest.skip(f"no groups here: {first.groups.detail}")
    made = first.groups.create("feedfeedfeed")
    sleeper = subprocess.Popen(["/bin/sleep", "100"])
    Path(made[0], "cgroup.procs").write_text(str(sleeper.pid))
    slots = world.data / "slots"
    until(
        lambda: first.groups.sweep(lambda name: (slots / name).exists()) or not Path(made[0]).exists(), "them removed"
    )
    assert sleeper.wait() == -9
    assert all(
        one.alive
        for one in first.inventory()
        if one.instance_id in (world.spec(1).instance_id, world.spec(2).instance_id)
    )


def test_a_warm_slot_is_no_way_into_the_next_model(world: World) -> None:
    compute = world.compute(warm_slots=1)
    warm(compute)
    compute.ensure(world.spec(9))
    one = ready(compute, world.spec(9))
    assert inside(one, "result = open('/opt/ml/model/weights').read()") == "42"
    assert denied(inside(one, "open('/opt/ml/model/weights', 'w')"))
