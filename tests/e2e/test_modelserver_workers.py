"""An instance of several workers as real processes: forked after loading, loading apart, dying one by one, draining."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .test_modelserver_process import DEADLINE_S, Slot, UnixConnection, until

PID_CODE = """
    import os, threading, time
    {above}
    def model_fn(folder):
        {load}
        print(f"loaded in {{os.getpid()}}")
        return os.getpid()
    def predict_fn(data, model):
        {predict}
        return [os.getpid(), model]
"""


class Crew(Slot):
    """A slot that is claimed for several workers."""

    def claim_for(self, workers: int, image: str = "", vcpu_milli: int = 1000, **environment: str) -> Crew:
        container = {"hostname": "primary", "image": image, "environment": environment, "folder": ""}
        claim = {"instance_id": "i-1", "workers": workers, "vcpu_milli": vcpu_milli, "containers": [container]}
        assert self.request("POST", "/eyrie/claim", json.dumps(claim).encode())[0] == 202
        return self

    def user_code(self, load: str = "pass", predict: str = "pass", above: str = "") -> Crew:
        self.code(PID_CODE.format(load=load, predict=predict, above=above))
        return self

    def ask(self, worker: int, body: bytes = b"1,2", timeout_s: float = DEADLINE_S) -> list[Any]:
        """A prediction of one worker."""
        connection = UnixConnection(self.box / (f"s.{worker}" if worker else "s"))
        connection.timeout = timeout_s
        try:
            connection.request("POST", "/invocations", body, {"content-type": "text/csv", "accept": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            assert response.status == 200, answer
            return list(json.loads(answer))
        finally:
            connection.close()

    def ready(self) -> Crew:
        """Wait for a ping of 200; a ping that meets the hand-over from the keeper to worker 0 may end unanswered."""

        def well() -> bool:
            try:
                return self.process.poll() is not None or self.request("GET", "/ping")[0] == 200
            except (ConnectionError, http.client.HTTPException):
                return False

        until(well, "a ping of 200")
        assert self.process.poll() is None, self.log()
        return self

    def pids(self) -> list[int]:
        """The instance's processes: its keeper and all below."""
        found, new = [self.process.pid], [self.process.pid]
        while new:
            children = subprocess.run(["ps", "-o", "pid=", "--ppid", ",".join(map(str, new))], capture_output=True)
            new = [int(word) for word in children.stdout.split()]
            found += new
        return found


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Callable[..., Crew]]:
    made: list[Crew] = []

    def begin(imports: str = "") -> Crew:
        made.append(Crew(tmp_path, imports=imports))
        made[-1].listening()
        return made[-1]

    yield begin
    for slot in made:
        if slot.process.poll() is None:
            slot.process.kill()
        slot.process.wait()


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_are_forked_from_one_that_has_loaded(crew: Callable[..., Crew]) -> None:
    slot = crew().user_code().claim_for(3).ready()
    answers = [slot.ask(worker) for worker in range(3)]
    assert len({pid for pid, _ in answers}) == 3
    assert len({loaded for _, loaded in answers}) == 1, "the model was loaded once"
    assert slot.log().count("loaded in") == 1
    state = json.loads(slot.request("GET", "/eyrie/state")[1])
    assert state["phase"] == "ready"
    assert state["pss_bytes"] > 10_000_000
    pids = slot.pids()
    assert len(pids) == 5  # keeper, nursery, workers
    slot.process.send_signal(signal.SIGTERM)
    assert slot.process.wait(DEADLINE_S) == 0
    until(lambda: gone(pids), "the end of every process")
    assert slot.lock_is_free()


@pytest.mark.parametrize(
    ("load", "left"),
    [
        ("threading.Thread(target=time.sleep, args=(600,), daemon=True).start()", "1 threads"),
        ("global kept; kept = __import__('socket').socket()", "1 open sockets"),
    ],
)
def test_a_model_that_cannot_be_forked_is_loaded_by_each_worker(
    crew: Callable[..., Crew], load: str, left: str
) -> None:
    slot = crew().user_code(load=load).claim_for(3).ready()
    answers = [slot.ask(worker) for worker in range(3)]
    assert all(pid == loaded for pid, loaded in answers)
    assert len({pid for pid, _ in answers}) == 3
    assert f"loading left {left} behind: 3 workers load a copy each" in slot.log()
    pids = slot.pids()
    os.kill(answers[2][0], signal.SIGKILL)
    until(lambda: slot.ask(2)[0] != answers[2][0], "another worker 2")
    assert slot.log().count("it is started again") == 1
    slot.process.send_signal(signal.SIGTERM)
    assert slot.process.wait(DEADLINE_S) == 0
    until(lambda: gone(pids), "the end of every process")


def test_a_worker_that_dies_is_replaced_and_the_instance_is_well_again(crew: Callable[..., Crew]) -> None:
    slot = crew().user_code().claim_for(2).ready()
    first = slot.ask(0)
    before = slot.ask(1)
    os.kill(before[0], signal.SIGKILL)
    after = slot.ask(1)  # waits at the socket, which never closes
    assert after[0] != before[0]
    assert after[1] == before[1]
    os.kill(first[0], signal.SIGKILL)
    assert slot.ask(0)[0] != first[0]
    until(lambda: slot.request("GET", "/ping")[0] == 200, "a ping of 200")
    assert slot.log().count("it is started again") == 2


def test_workers_that_die_again_and_again_end_the_instance(crew: Callable[..., Crew]) -> None:
    slot = crew().user_code(predict="os._exit(3)").claim_for(2).ready()
    pids = slot.pids()
    for _ in range(7):
        try:
            slot.ask(1)
        except (AssertionError, OSError, json.JSONDecodeError):
            continue
    assert slot.process.wait(DEADLINE_S) == 70
    until(lambda: gone(pids), "the end of every process")
    assert "6 workers died within a minute: ending" in slot.log()


def test_a_model_that_does_not_load_ends_the_instance_as_one_of_a_single_worker(crew: Callable[..., Crew]) -> None:
    slot = crew().user_code(load="raise ValueError('no such thing')").claim_for(2)
    assert slot.process.wait(DEADLINE_S) == 1
    assert "The model could not be loaded: ValueError: no such thing" in slot.log().splitlines()[-1]


def test_while_the_model_loads_the_keeper_answers_that_it_does(crew: Callable[..., Crew], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slot = crew().user_code(load=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)").claim_for(2)
    until(lambda: len(slot.pids()) == 2, "the nursery")
    for _ in range(3):
        assert slot.request("GET", "/ping")[0] == 503
    assert json.loads(slot.request("GET", "/eyrie/state")[1])["phase"] == "loading"
    assert slot.request("POST", "/invocations", b"1,2")[0] == 503
    connection = waiting_ping(slot)
    gate.touch()
    slot.ready()
    assert connection.getresponse().status in (200, 503)  # the keeper's, which leaves the socket to worker 0
    connection.close()
    assert slot.ask(1)[0] != slot.ask(0)[0]


def waiting_ping(slot: Slot) -> UnixConnection:
    """A ping that was asked and may wait for a 200."""
    connection = UnixConnection(slot.box / "s")
    connection.request("GET", "/ping", headers={"x-eyrie-wait-ms": "4000"})
    return connection


def test_a_ping_that_may_wait_is_answered_when_the_model_is_loaded(crew: Callable[..., Crew], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slot = crew()
    early = waiting_ping(slot)  # of a slot that nobody claimed: there is nothing to wait for
    assert early.getresponse().status == 503
    slot.user_code(load=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)").claim_for(1)
    connections = [waiting_ping(slot) for _ in range(3)]
    brief = UnixConnection(slot.box / "s")
    brief.request("GET", "/ping", headers={"x-eyrie-wait-ms": "20"})
    assert brief.getresponse().status == 503
    gate.touch()
    assert [connection.getresponse().status for connection in connections] == [200, 200, 200]
    for connection in (early, brief, *connections):
        connection.close()


def train(framework: str, folder: Path) -> None:
    """A small model of a framework whose native threads do not survive a fork."""
    if (folder / "code").is_dir():
        (folder / "code").rmdir()  # a model without the user's own code
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(300, 4))
    labels = (rows[:, 0] + rows[:, 1] > 0).astype(int)
    if framework == "xgboost":
        xgboost = pytest.importorskip("xgboost")
        booster = xgboost.XGBClassifier(n_estimators=20).fit(rows, labels).get_booster()
        booster.save_model(folder / "xgboost-model.json")
    elif framework == "lightgbm":
        lightgbm = pytest.importorskip("lightgbm")
        lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(rows, labels).booster_.save_model(folder / "model.txt")
    else:
        ensemble = pytest.importorskip("sklearn.ensemble")
        model = ensemble.HistGradientBoostingClassifier(max_iter=20).fit(rows, labels)
        pytest.importorskip("joblib").dump(model, folder / "model.joblib")


def not_light(slot: Crew) -> None:
    """Make the model too large for a copy in each worker, as far as its files tell."""
    (slot.ml / "model" / "README.md").touch()
    os.truncate(slot.ml / "model" / "README.md", 4 << 20)


def test_a_light_model_is_loaded_by_workers_that_were_forked_ahead(crew: Callable[..., Crew]) -> None:
    slot = crew(imports="xgboost")
    train("xgboost", slot.ml / "model")
    waiting = slot.pids()
    assert len(waiting) == 1 + min(2, len(os.sched_getaffinity(0)))
    slot.claim_for(2, image="eyrie/xgboost", vcpu_milli=2000).ready()
    assert set(waiting) <= set(slot.pids())
    assert len(slot.pids()) == 3
    before = slot.ask(1, b"1,2,3,4")
    assert before == slot.ask(0, b"1,2,3,4")
    assert slot.log().count("INFO eyrie.modelserver: loading ") == 2
    os.kill(slot.pids()[2], signal.SIGKILL)
    until(lambda: slot.log().count("it is started again") == 1, "another worker")
    until(lambda: slot.request("GET", "/ping")[0] == 200, "a ping of 200")
    assert [slot.ask(worker, b"1,2,3,4") for worker in (0, 1)] == [before, before]
    pids = slot.pids()
    slot.process.send_signal(signal.SIGTERM)
    assert slot.process.wait(DEADLINE_S) == 0
    until(lambda: gone(pids), "the end of every process")


@pytest.mark.heavy
@pytest.mark.soak
def test_who_was_forked_ahead_and_is_not_needed_ends(crew: Callable[..., Crew]) -> None:
    slot = crew(imports="xgboost")
    train("xgboost", slot.ml / "model")
    slot.claim_for(1, image="eyrie/xgboost").ready()
    until(lambda: slot.pids() == [slot.process.pid], "the end of those forked ahead")
    assert slot.request("GET", "/ping")[0] == 200


@pytest.mark.heavy
@pytest.mark.soak
def test_one_of_two_workers_says_why_a_light_model_does_not_load(crew: Callable[..., Crew]) -> None:
    slot = crew(imports="xgboost")
    (slot.ml / "model" / "code").rmdir()
    (slot.ml / "model" / "xgboost-model.json").write_text('{"learner": 7}')
    slot.claim_for(2, image="eyrie/xgboost")
    assert slot.process.wait(DEADLINE_S) == 1
    assert slot.log().count("The model could not be loaded: ") == 1
    assert "The model could not be loaded: " in slot.log().splitlines()[-1]


@pytest.mark.heavy
@pytest.mark.soak
def test_a_worker_forked_ahead_that_died_meanwhile_is_forked_then(crew: Callable[..., Crew]) -> None:
    slot = crew(imports="xgboost")
    train("xgboost", slot.ml / "model")
    os.kill(slot.pids()[1], signal.SIGKILL)
    slot.claim_for(2, image="eyrie/xgboost", vcpu_milli=2000).ready()
    assert slot.ask(0, b"1,2,3,4") == slot.ask(1, b"1,2,3,4")


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm", "sklearn"])
def test_forked_children_of_a_framework_predict(crew: Callable[..., Crew], framework: str) -> None:
    """A child of a process in which OpenMP had a pool would wait for it for ever."""
    slot = crew(imports=framework)
    train(framework, slot.ml / "model")
    not_light(slot)
    slot.claim_for(2, image=f"eyrie/{framework}", vcpu_milli=2000).ready()
    rows = "\n".join(",".join(map(str, row)) for row in np.random.default_rng(1).normal(size=(200, 4))).encode()
    assert slot.ask(0, rows, timeout_s=DEADLINE_S) == slot.ask(1, rows, timeout_s=DEADLINE_S)
    assert slot.log().count("INFO eyrie.modelserver: loading ") == 1
    assert framework == "lightgbm" or f"rehearsed {framework} in" in slot.log()


def test_a_model_that_has_run_in_parallel_is_not_forked(crew: Callable[..., Crew]) -> None:
    slot = crew()
    train("sklearn", slot.ml / "model")
    slot.claim_for(2, image="eyrie/sklearn", vcpu_milli=4000, OMP_NUM_THREADS="2").ready()
    assert slot.ask(0, b"1,2,3,4", timeout_s=DEADLINE_S) == slot.ask(1, b"1,2,3,4", timeout_s=DEADLINE_S)
    assert re.search(r"loading left \d threads behind: 2 workers load a copy each", slot.log())


def test_nothing_outlives_a_keeper_that_is_killed(crew: Callable[..., Crew]) -> None:
    slot = crew().user_code().claim_for(2).ready()
    pids = slot.pids()
    slot.process.kill()
    until(lambda: gone(pids[1:]), "the end of every process")
    assert slot.lock_is_free()


def test_each_worker_answers_what_it_began_before_it_ends(crew: Callable[..., Crew], tmp_path: Path) -> None:
    begins = f"open({str(tmp_path)!r} + f'/begun-{{os.getpid()}}', 'w').close(); time.sleep(0.5)"
    slot = crew().user_code(predict=begins).claim_for(2).ready()
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(slot.box / name)], stdout=subprocess.PIPE, text=True, cwd=slot.box
        )
        for name in ("s", "s.1")
    ]
    until(lambda: len(list(tmp_path.glob("begun-*"))) == 2, "both workers at it")
    slot.process.send_signal(signal.SIGTERM)
    for process in asking:
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert "200" in output
    assert slot.process.wait(DEADLINE_S) == 0


ASK = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(os.path.basename(sys.argv[1]))
client.sendall(b"POST /invocations HTTP/1.1\\r\\nhost: x\\r\\ncontent-type: text/csv\\r\\n")
client.sendall(b"content-length: 3\\r\\n\\r\\n1,2")
print(client.recv(100))
"""
