"""The promise of `Compute`, kept with real processes: in sandboxes where this host has them, and as plain processes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from compute_world import World, exists, gone, inside, living, observed, ready, standin, until, warm
from container_world import Images

from eyrie.adapters import processes, sandbox, warm_pool
from eyrie.adapters.compute_process import end_all
from eyrie.adapters.ending import slots_of
from eyrie.ports import InsufficientCapacity, StartRefused


@pytest.fixture(params=["auto", "process"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Compute whose instances are model servers of ours, from warm slots."""
    made = World(Path(tempfile.mkdtemp(prefix="ey-")), request.param)
    yield made
    made.close()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    made = Images(tmp_path_factory.mktemp("images"))
    yield made
    made.close()


OURS = ("auto", "process")
SANDBOXED = pytest.mark.skipif(sandbox.detect("auto").kind != sandbox.BUBBLEWRAP, reason="no sandbox here")


@pytest.fixture(
    params=[
        *OURS,
        pytest.param("folder", marks=SANDBOXED),
        "folder-process",
        pytest.param("rootfs", marks=SANDBOXED),
        pytest.param("docker", marks=pytest.mark.heavy),
    ]
)
def any_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Every compute: model servers of ours, and containers of the user's own by each way to run one."""
    data, kind = Path(tempfile.mkdtemp(prefix="ey-")), str(request.param)
    if kind in OURS:
        made = World(data, kind)
    else:
        images: Images = request.getfixturevalue("images")
        image, _, plain = kind.partition("-")
        digest = images.digest(image)
        images.lend(data)
        engine = {"compute": images.engine.url} if image == "docker" and images.engine else {}
        made = World(data, "process" if plain else "auto", digest, warm_slots=0, **engine)
    yield made
    made.close()


def test_an_instance_comes_up_and_serves(world: World) -> None:
    compute, spec = world.compute(), world.spec()
    warm(compute)
    compute.ensure(spec)
    one = ready(compute, spec)
    assert (one.zone, one.generation, one.alive, one.exit_reason) == ("a", 1, True, None)
    assert one.isolation == compute.isolation.kind
    assert (
        inside(one, "result = open('/opt/ml/model/weights').read()" if one.isolation == "bubblewrap" else "result='42'")
        == "42"
    )
    assert inside(one, "result = os.environ['TOLD']") == "yes"
    assert compute.stats()["pool_claims_warm"] == 1


def test_an_instance_of_any_kind_serves_and_is_adopted_by_the_next_control(any_world: World) -> None:
    first, spec = any_world.compute(), any_world.spec()
    first.ensure(spec)
    one = ready(first, spec)
    assert (one.zone, one.generation, one.alive, one.exit_reason) == ("a", 1, True, None)
    assert inside(one, "result = os.environ['TOLD']") == "yes"
    until(lambda: observed(first, spec).pid is not None)  # type: ignore[union-attr]
    one = observed(first, spec)
    first.close()
    second = any_world.compute()
    assert observed(second, spec) == one
    second.ensure(spec)
    assert len(second.inventory()) == 1
    second.stop(spec.instance_id, 5_000)
    assert "stopped as asked" in str(gone(second, spec).exit_reason)


def test_without_warm_slots_it_starts_cold(world: World) -> None:
    compute, spec = world.compute(warm_slots=0), world.spec()
    compute.ensure(spec)
    ready(compute, spec)
    assert compute.stats()["pool_claims_cold"] == 1


def test_a_slot_still_importing_is_claimed_as_soon_as_it_answers(world: World) -> None:
    compute, spec = world.compute(), world.spec()
    until(lambda: compute.stats()["pool_starting"] + compute.stats()["pool_waiting"])
    compute.ensure(spec)
    ready(compute, spec)
    assert compute.stats()["pool_claims_cold"] == 0


def test_ensure_is_idempotent_over_threads(any_world: World) -> None:
    compute, spec = any_world.compute(warm_slots=2), any_world.spec()
    warm(compute, 2)
    threads = [threading.Thread(target=compute.ensure, args=(spec,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ready(compute, spec)
    assert len(compute.inventory()) == 1
    assert sum((slot.path / "spec.json").exists() for slot in slots_of(any_world.data)) == 1


def test_what_is_gone_is_not_started_again(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec()
    compute.ensure(spec)
    one = ready(compute, spec)
    os.kill(one.pid or 0, signal.SIGKILL)
    last = gone(compute, spec)
    assert "signal 9 (SIGKILL)" in str(last.exit_reason)
    compute.ensure(spec)
    assert not observed(compute, spec).alive  # type: ignore[union-attr]
    assert len(compute.inventory()) == 1


def test_a_death_is_told_within_moments(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec()
    compute.ensure(spec)
    one = ready(compute, spec)
    until(lambda: one.pid == compute.inventory()[0].pid)
    os.kill(one.pid or 0, signal.SIGKILL)
    until(lambda: any_world.deaths == [spec.instance_id], "the hint")


def test_generations_only_rise(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec(generation=5)
    compute.ensure(spec)
    ready(compute, spec)
    with pytest.raises(StartRefused, match="older than 5"):
        compute.ensure(replace(spec, generation=4))
    compute.ensure(replace(spec, generation=6))
    assert observed(compute, spec).generation == 6  # type: ignore[union-attr]
    again = any_world.compute()
    with pytest.raises(StartRefused, match="older than 6"):
        again.ensure(spec)


def test_another_specification_under_the_same_id_is_refused(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec()
    compute.ensure(spec)
    with pytest.raises(StartRefused, match="another specification"):
        compute.ensure(replace(spec, zone="b", generation=2))


def test_stop_asks_first(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec()
    compute.ensure(spec)
    ready(compute, spec)
    compute.stop(spec.instance_id, 10_000)
    last = gone(compute, spec)
    assert last.exit_reason == "stopped as asked, exited with code 0"
    assert "SIGTERM" in compute.tail(spec.instance_id, 1)[0]


@pytest.mark.parametrize("grace_ms", [0, 200])
def test_stop_forces_what_does_not_listen_with_all_it_started(any_world: World, grace_ms: int) -> None:
    compute, spec = any_world.compute(), any_world.spec(artifact=any_world.behave(ignore_term=True))
    compute.ensure(spec)
    one = ready(compute, spec)
    mark = any_world.data.name  # in the command line of the child, wherever it is seen from
    program = f"import time; time.sleep(1000)  # {mark}"
    child = inside(one, f"import subprocess, sys; result = subprocess.Popen([sys.executable, '-c', {program!r}]).pid")
    assert isinstance(child, int)
    slot = next(slot for slot in slots_of(any_world.data) if str(slot.socket) == one.socket)
    # Popen returns a moment before the kernel shows the new command line.
    running = until(lambda: [pid for pid in processes.pids() if _sleeps(pid, mark)], "its child seen")
    assert len(running) == 1
    compute.stop(spec.instance_id, grace_ms)
    assert "signal 9" in str(gone(compute, spec).exit_reason)
    until(lambda: not exists(running[0]), "its child gone")
    assert not slot.alive()


def test_stop_ends_one_that_was_frozen(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec()
    compute.ensure(spec)
    one = ready(compute, spec)
    os.kill(one.pid or 0, signal.SIGSTOP)
    assert observed(compute, spec).alive  # type: ignore[union-attr]
    compute.stop(spec.instance_id, 100)
    assert not gone(compute, spec).alive


def test_the_grace_outlives_control(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec(artifact=any_world.behave(ignore_term=True))
    compute.ensure(spec)
    ready(compute, spec)
    compute.stop(spec.instance_id, 300)
    (slot,) = [slot for slot in slots_of(any_world.data) if slot.spec() is not None]
    ending = slot.ending()
    assert ending is not None
    kill_at_ms = ending.kill_at_ms
    compute.close()
    again = any_world.compute()
    one = observed(again, spec)
    assert one is not None
    assert one.alive or time.time() * 1000 >= kill_at_ms
    gone(again, spec)
    assert time.time() * 1000 >= kill_at_ms


def test_forget_moves_the_log_and_only_of_the_dead(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec()
    compute.ensure(spec)
    ready(compute, spec)
    compute.forget(spec.instance_id)
    assert observed(compute, spec)
    compute.stop(spec.instance_id, 0)
    gone(compute, spec)
    compute.forget(spec.instance_id)
    assert observed(compute, spec) is None
    log = any_world.data / "logs/endpoints/123456789012.us-east-1.ep/main" / f"{spec.instance_id}.log"
    first = "serving the model" if any_world.image_digest else f"claimed for {spec.instance_id}"
    assert first in log.read_text()
    assert any(first in line for line in compute.tail(spec.instance_id, 10))
    compute.forget(spec.instance_id)
    compute.stop(spec.instance_id, 0)


def test_a_model_that_does_not_load_says_why(any_world: World) -> None:
    compute, spec = any_world.compute(), any_world.spec(artifact=any_world.behave(exit_on_load=3))
    compute.ensure(spec)
    reason = str(gone(compute, spec).exit_reason)
    assert "exited with code 3" in reason
    assert "ModelLoadError: the model is not a model" in reason


def test_a_new_control_adopts_instances_and_waiting_slots(world: World) -> None:
    first, spec = world.compute(), world.spec()
    warm(first)
    first.ensure(spec)
    one = ready(first, spec)
    warm(first)
    first.close()
    before = living(world.data)
    second = world.compute()
    warm(second)
    assert living(world.data) == before
    assert second.stats()["pool_slots_started"] == 0
    assert observed(second, spec) == one
    second.ensure(spec)
    other = world.spec(2)
    second.ensure(other)
    assert ready(second, other).socket != one.socket
    assert second.stats()["pool_claims_warm"] == 1


def test_slots_of_other_settings_are_retired(world: World) -> None:
    first = world.compute()
    warm(first)
    first.close()
    before = living(world.data)
    second = world.compute(log_bytes_max=1_000_000)
    warm(second)
    assert second.stats()["pool_slots_retired"] == 1
    until(lambda: not set(before) & set(living(world.data)), "the old slot gone")


def test_a_waiting_slot_that_dies_is_replaced(world: World) -> None:
    compute = world.compute()
    warm(compute)
    (slot,) = slots_of(world.data)
    os.kill(processes.server_pid(slot) or 0, signal.SIGKILL)
    until(lambda: compute.stats()["pool_slots_died"] == 1)
    warm(compute)
    assert [other.slot_id for other in slots_of(world.data)] != [slot.slot_id]


def test_a_frozen_waiting_slot_is_not_claimed(world: World) -> None:
    compute, spec = world.compute(), world.spec()
    warm(compute)
    (slot,) = slots_of(world.data)
    os.kill(processes.server_pid(slot) or 0, signal.SIGSTOP)
    compute.ensure(spec)
    assert slot.slot_id not in ready(compute, spec).socket


def test_slots_that_cannot_start_are_tried_again(world: World) -> None:
    began = time.monotonic()
    compute = world.compute(standin("--fail-at-start"))
    until(lambda: compute.stats()["pool_starts_failed"] >= 2)
    failed, took_s = compute.stats()["pool_starts_failed"], time.monotonic() - began
    assert took_s >= warm_pool.BACKOFF_FIRST_S * (2 ** (failed - 1) - 1)  # each after twice the pause of the one before
    assert compute.stats()["pool_waiting"] == 0


def test_a_start_that_fails_is_seen_as_gone_with_what_it_said(world: World) -> None:
    compute, spec = world.compute(standin("--fail-at-start"), warm_slots=0), world.spec()
    compute.ensure(spec)
    assert "standin: told to fail" in str(gone(compute, spec).exit_reason)


def test_the_limit_of_instances(any_world: World) -> None:
    compute = any_world.compute(instances_max=1)
    compute.ensure(any_world.spec(1))
    with pytest.raises(InsufficientCapacity, match="1 of at most 1 instances"):
        compute.ensure(any_world.spec(2))
    compute.stop(any_world.spec(1).instance_id, 0)
    gone(compute, any_world.spec(1))
    compute.ensure(any_world.spec(2))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("instance_type", "ml.g4dn.xlarge", "accelerator"),
        ("instance_id", "../x", "not a name"),
        ("variant", "a/b", "not a name"),
    ],
)
def test_what_cannot_run_is_refused(any_world: World, field: str, value: str, reason: str) -> None:
    compute = any_world.compute(warm_slots=0)
    with pytest.raises(StartRefused, match=reason):
        compute.ensure(replace(any_world.spec(), **{field: value}))
    assert compute.inventory() == []


def test_a_missing_archive_is_refused_and_leaves_nothing(any_world: World) -> None:
    compute = any_world.compute(warm_slots=0)
    with pytest.raises(StartRefused, match="not unpacked"):
        compute.ensure(any_world.spec(artifact="b" * 64))
    assert slots_of(any_world.data) == []


def test_no_other_child_of_control_holds_a_lock(world: World) -> None:
    compute, spec = world.compute(warm_slots=0), world.spec()
    stop = threading.Event()

    def spawn() -> None:
        while not stop.is_set():
            children.append(subprocess.Popen(["/bin/sleep", "60"]))
            stop.wait(0.01)

    children: list[subprocess.Popen[bytes]] = []
    spawner = threading.Thread(target=spawn)
    spawner.start()
    compute.ensure(spec)
    ready(compute, spec)
    stop.set()
    spawner.join()
    compute.stop(spec.instance_id, 0)
    gone(compute, spec)
    for child in children:
        child.kill()
        child.wait()


def test_end_all_ends_everything_without_control(world: World) -> None:
    compute = world.compute()
    stubborn = world.spec(2, artifact=world.behave(ignore_term=True))
    compute.ensure(world.spec(1))
    compute.ensure(stubborn)
    ready(compute, world.spec(1))
    ready(compute, stubborn)
    warm(compute)
    compute.close()
    ended = end_all(world.settings.with_flags(drain_ms=2_000))
    assert (ended.asked, ended.killed, ended.left) == (3, 1, ())
    assert living(world.data) == []
    again = world.compute(warm_slots=0)
    assert {one.alive for one in again.inventory()} == {False}
    assert len(again.inventory()) == 2


def _sleeps(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return f"time.sleep(1000)  # {mark}" in file.read()
    except OSError:
        return False
