"""Containers of somebody's own that try to get out, run wild, or do not come up: each attempt is Python run by the
container's own server, in a folder and in a root file system, and they are as confined as our own model servers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_sandbox as ours
from compute_world import World, as_root, gone, inside, observed, ready, until
from container_world import Images, serve_program

from eyrie.adapters import sandbox
from eyrie.adapters.image_store import ImageStore, Start
from eyrie.adapters.slot_client import NoAnswer, ask
from eyrie.domain.fleet import ObservedInstance
from eyrie.ports import StartRefused

WORKS = sandbox.detect("auto").kind == sandbox.BUBBLEWRAP
sandboxed = pytest.mark.skipif(not WORKS, reason=f"no sandbox here: {sandbox.detect('auto').detail}")
# What only a root file system has, or what it may do in memory of its own.
ITS_OWN = ("os.listdir('/var')", "open('/run/new', 'w')")
ATTEMPTS = ours.test_is_denied.pytestmark[0].args[1]
CALLS = next(mark for mark in ours.test_the_system_call_is_denied.pytestmark if mark.name == "parametrize").args[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    made = Images(tmp_path_factory.mktemp("images"))
    yield made
    made.close()


def a_world(images: Images, kind: str, wanted: str = "bubblewrap") -> World:
    data = Path(tempfile.mkdtemp(prefix="ey-"))
    digest = images.digest(kind)
    images.lend(data)
    return World(data, wanted, digest, warm_slots=0)


@pytest.fixture(scope="module", params=["folder", "rootfs"])
def world(request: pytest.FixtureRequest, images: Images) -> Iterator[World]:
    made = a_world(images, request.param)
    (made.data / "credentials.json").write_text("secret")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EYRIE_SECRET", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "secret")
        compute = made.compute()
        for number in (1, 2):
            compute.ensure(made.spec(number))
            ready(compute, made.spec(number))
        yield made
    made.close()


@pytest.fixture
def one(world: World) -> ObservedInstance:
    return next(one for one in world.computes[0].inventory() if one.instance_id == world.spec(1).instance_id)


@sandboxed
def test_every_attempt_of_our_own_models_is_denied_to_a_container_too(world: World, one: ObservedInstance) -> None:
    is_root = inside(one, "result = os.path.exists('/etc/secret-of-the-image')")
    codes = [code for code in ATTEMPTS if not (is_root and code in ITS_OWN)]
    assert len(codes) > 20
    allowed = [code for code in codes if not ours.denied(inside(one, f"{code}; result = 'done'"))]
    assert allowed == []
    assert ours.denied(inside(one, f"open({__file__!r})"))


@sandboxed
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_the_system_calls_are_denied(one: ObservedInstance) -> None:
    def errno_of(function: str, arguments: tuple[str, ...]) -> Any:
        if function == "pivot_root":
            function, arguments = "syscall", ("155", *arguments)
        # CDLL of the process itself needs the C library alone, which every image of the tests has
        return inside(one, ours._call(function, *arguments))

    assert {(call, errno_of(call, arguments)) for call, arguments in CALLS} == {(call, "EPERM") for call, _ in CALLS}


@sandboxed
def test_no_rights_are_left(one: ObservedInstance) -> None:
    told = ours._status(inside(one, "result = open('/proc/self/status').read()"))
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if kind != "CapBnd" or as_root():
            assert int(told[kind], 16) == 0, kind
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")


@sandboxed
def test_it_sees_its_own_processes_and_nothing_of_eyrie(world: World, one: ObservedInstance) -> None:
    pids = inside(one, "result = [int(name) for name in os.listdir('/proc') if name.isdigit()]")
    assert set(pids) <= {1, 2, 3, 4}
    other = next(o for o in world.computes[0].inventory() if o.instance_id == world.spec(2).instance_id)
    for path in (world.data / "credentials.json", Path(other.socket), world.data / "slots"):
        assert inside(one, f"result = os.path.exists({str(path)!r})") is False
        for pid in pids:  # by way of the process that holds its lock, too
            assert not inside(one, f"result = os.path.exists('/proc/{pid}/root{path}')")
    names = set(inside(one, "result = list(os.environ)"))
    assert not {name for name in names if name.startswith("EYRIE") or "SECRET" in name}
    found = inside(one, "result = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n > '2']")
    assert not [path for path in found if "lock" in path or path.startswith(str(world.data))]


@sandboxed
@pytest.mark.skipif(not as_root(), reason="without root every instance is Eyrie's own user, in a namespace of its own")
def test_each_instance_is_a_user_of_its_own(world: World) -> None:
    who = [inside(one, "result = [os.getuid(), os.getgid(), os.getgroups()]") for one in world.computes[0].inventory()]
    assert len({uid for uid, _, _ in who}) == 2
    assert all(uid == gid >= 20_000 and groups == [] for uid, gid, groups in who)


@sandboxed
def test_the_contract_is_what_it_finds(world: World, one: ObservedInstance) -> None:
    assert inside(one, "result = open('/opt/ml/model/weights').read()") == "42"
    told = inside(one, "result = dict(os.environ)")
    assert (told["AWS_REGION"], told["SM_MODEL_DIR"], told["TOLD"]) == ("us-east-1", "/opt/ml/model", "yes")
    assert "SAGEMAKER_BIND_TO_PORT" not in told  # 8080, in a network of its own
    assert inside(one, "open('/tmp/x', 'w').write('1'); result = open('/tmp/x').read()") == "1"
    assert inside(one, "import pwd; result = pwd.getpwuid(os.getuid()).pw_name") == "model"
    network = inside(one, "result = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]")
    assert network == ["lo"]


@sandboxed
def test_the_hosts_own_ports_are_out_of_reach(one: ObservedInstance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = inside(one, f"import socket; socket.create_connection({listener.getsockname()!r}, 1)")
    assert "Connection refused" in answer


@sandboxed
def test_memory_beyond_the_type_ends_it_and_the_reason_says_so(world: World) -> None:
    compute, spec = world.computes[0], world.spec(6, memory_mb=256)
    if "memory" not in compute.groups.controllers:
        pytest.skip(f"no memory limit here: {compute.groups.detail}")
    compute.ensure(spec)
    one = ready(compute, spec)
    with pytest.raises(NoAnswer):
        inside(one, "x = bytearray(600 << 20); x[::4096] = bytes(len(x[::4096])); result = 'had'")
    assert "memory limit of 256 MB" in str(gone(compute, spec).exit_reason)


@sandboxed
def test_what_it_prints_without_end_is_bounded_and_does_not_end_it(world: World) -> None:
    compute, spec = world.compute(log_bytes_max=1_048_576), world.spec(3)
    compute.ensure(spec)
    one = ready(compute, spec)
    line = "x" * 999
    assert inside(one, f"[print({line!r}, flush=True) for _ in range(20_000)]; result = 1") == 1
    assert inside(one, "os.write(2, b'y' * 300_000); print('\\nthe last of it', flush=True); result = 2") == 2
    until(lambda: any("the last of it" in text for text in compute.tail(spec.instance_id, 50)), "its last line")
    box = Path(one.socket).parent
    assert sum(path.stat().st_size for path in box.glob("log*")) <= 1_048_576 + 65_536
    assert observed(compute, spec).alive  # type: ignore[union-attr]


@sandboxed
def test_killing_who_holds_its_lock_is_its_end_and_the_programs(world: World) -> None:
    compute, spec = world.computes[0], world.spec(4)
    compute.ensure(spec)
    one = ready(compute, spec)
    until(lambda: observed(compute, spec).pid is not None)  # type: ignore[union-attr]
    slot = Path(one.socket).parent.parent
    init = next(json.loads(line) for line in (slot / "status").read_text().splitlines())["child-pid"]
    os.kill(observed(compute, spec).pid or 0, 9)  # type: ignore[union-attr]
    gone(compute, spec)
    until(lambda: not os.path.exists(f"/proc/{init}"), "all of its sandbox gone")


@sandboxed
def test_sigterm_reaches_the_program_while_it_answers(world: World) -> None:
    """What was begun is the program's to finish: the bridge passes the answer on after the signal."""
    compute, spec = world.computes[0], world.spec(5, artifact=world.behave(ignore_term=True))
    compute.ensure(spec)
    one = ready(compute, spec)
    compute.stop(spec.instance_id, 10_000)
    until(lambda: any("SIGTERM is passed on" in line for line in compute.tail(spec.instance_id, 5)))
    assert inside(one, "result = 'still here'") == "still here"
    compute.stop(spec.instance_id, 0)
    gone(compute, spec)


# --- what does not come up ------------------------------------------------------------------------------------------


def added(world: World, script: str, **how: Any) -> str:
    """An image with another program, in a store of the world's own."""
    if (world.data / "images").is_symlink():
        (world.data / "images").unlink()
    source = world.data / "source"
    shutil.rmtree(source, ignore_errors=True)
    program = world.data / "script.py"
    program.write_text(script)
    serve_program(source / "bin/serve", program)
    return ImageStore(world.data).add_tree(source, Start(**how)).digest


@pytest.fixture(params=["auto", "process"])
def bare(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(Path(tempfile.mkdtemp(prefix="ey-")), request.param, warm_slots=0)
    yield made
    made.close()


def test_a_crash_at_start_is_told_with_its_last_words(bare: World) -> None:
    bare.image_digest = added(bare, "import no_such_module\n")
    compute, spec = bare.compute(), bare.spec()
    compute.ensure(spec)
    reason = str(gone(compute, spec).exit_reason)
    assert "exited with code 1" in reason
    assert "ModuleNotFoundError: No module named 'no_such_module'" in reason


def test_a_program_that_cannot_be_started_is_named(bare: World) -> None:
    bare.image_digest = added(bare, "", entrypoint=("no-such-program",))
    compute, spec = bare.compute(), bare.spec()
    compute.ensure(spec)
    reason = str(gone(compute, spec).exit_reason)
    assert "no-such-program could not be started" in reason


def test_one_that_never_listens_never_answers_and_can_be_stopped(bare: World) -> None:
    bare.image_digest = added(bare, "import time\nprint('thinking', flush=True)\ntime.sleep(1000)\n")
    compute, spec = bare.compute(), bare.spec()
    compute.ensure(spec)
    until(lambda: any("thinking" in line for line in compute.tail(spec.instance_id, 5)))
    one = observed(compute, spec)
    assert one is not None
    with pytest.raises(NoAnswer):
        ask(Path(one.socket), "GET", "/ping")
    compute.stop(spec.instance_id, 5_000)
    assert "stopped as asked" in str(gone(compute, spec).exit_reason)


def test_an_image_that_was_removed_from_the_host_is_named(bare: World) -> None:
    compute = bare.compute()
    container = replace(bare.spec().containers[0], image="mine:1", image_digest="d" * 64)
    with pytest.raises(StartRefused, match=r"sha256:d{64} \(mine:1\) is not on this host"):
        compute.ensure(bare.spec(containers=(container,)))
    assert compute.inventory() == []


def test_an_image_of_an_engine_needs_one(bare: World) -> None:
    made = ImageStore(bare.data).add_engine_image(f"sha256:{'e' * 64}", 1, "mine:1")
    bare.image_digest = made.digest
    with pytest.raises(StartRefused, match=r"needs a container engine.*docker://"):
        bare.compute().ensure(bare.spec())


def test_a_root_file_system_needs_the_sandbox(images: Images) -> None:
    made = a_world(images, "rootfs", "process")
    try:
        with pytest.raises(StartRefused, match="needs the sandbox of bubblewrap"):
            made.compute().ensure(made.spec())
    finally:
        made.close()


def test_without_a_network_of_their_own_each_gets_a_port(images: Images) -> None:
    made = a_world(images, "folder", "process")
    try:
        compute = made.compute()
        ports = set()
        for number in (1, 2):
            compute.ensure(made.spec(number))
            one = ready(compute, made.spec(number))
            ports.add(inside(one, "result = os.environ['SAGEMAKER_BIND_TO_PORT']"))
            assert inside(one, "result = open(os.environ['SM_MODEL_DIR'] + '/weights').read()") == "42"
        assert len(ports) == 2
    finally:
        made.close()
