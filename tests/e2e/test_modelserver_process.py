"""`python -m eyrie.modelserver` as a real process: claimed, invoked over its socket, made to fail, drain and crash."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z .*")
DEADLINE_S = 90.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which may lie at a long path."""

    def __init__(self, path: Path) -> None:
        super().__init__("instance", timeout=DEADLINE_S)
        self.path = path

    def connect(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(DEADLINE_S)
            self.sock.connect(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)


class Slot:
    """One model server process with its folders and its lock."""

    def __init__(self, root: Path, imports: str = "", log_bytes_max: int = 1_000_000) -> None:
        self.box, self.ml = root / "box", root / "ml"
        self.box.mkdir(parents=True)
        (self.ml / "model" / "code").mkdir(parents=True)
        self.lock = root / "lock"
        held = os.open(self.lock, os.O_CREAT | os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "eyrie.modelserver", "--box", self.box, "--ml", self.ml]
        command += ["--lock-fd", str(held), "--imports", imports, "--log-bytes-max", str(log_bytes_max)]
        self.process = subprocess.Popen(command, pass_fds=[held], cwd="/")
        os.close(held)

    def listening(self) -> Slot:
        until(lambda: (self.box / "s").exists() or self.process.poll() is not None, "the socket")
        assert self.process.poll() is None, self.log()
        return self

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = UnixConnection(self.box / "s")
        try:
            connection.request(method, path, body or None, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}
        finally:
            connection.close()

    def claim(self, instance_id: str = "i-1", **environment: str) -> int:
        return self.claim_all([{"hostname": "primary", "environment": environment}], instance_id)

    def claim_all(self, containers: list[dict[str, Any]], instance_id: str = "i-1", **more: Any) -> int:
        claim = {"instance_id": instance_id, "endpoint": "123456789012.us-east-1.e", "variant": "A", "zone": "a"}
        return self.request("POST", "/eyrie/claim", json.dumps(claim | {"containers": containers} | more).encode())[0]

    def ready(self) -> Slot:
        until(lambda: self.process.poll() is not None or self.request("GET", "/ping")[0] == 200, "a ping of 200")
        assert self.process.poll() is None, self.log()
        return self

    def code(self, text: str) -> Slot:
        (self.ml / "model" / "code" / "inference.py").write_text(dedent(text))
        return self

    def log(self) -> str:
        return (self.box / "log").read_text() if (self.box / "log").exists() else "(no log)"

    def lock_is_free(self) -> bool:
        with self.lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.005)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Slot]]:
    slots: list[Slot] = []

    def begin(root: Path | None = None, **options: Any) -> Slot:
        slots.append(Slot(root or tmp_path, **options))
        return slots[-1].listening()

    yield begin
    for slot in slots:
        if slot.process.poll() is None:
            slot.process.send_signal(signal.SIGCONT)
            slot.process.kill()
        slot.process.wait()


def test_the_whole_life_of_an_instance(start: Callable[..., Slot]) -> None:
    xgboost = pytest.importorskip("xgboost")
    import numpy as np

    rows = np.random.default_rng(3).normal(size=(64, 6)).astype(np.float32)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(rows, rows[:, 0] > 0), 5)
    expected = booster.predict(xgboost.DMatrix(rows)).tolist()
    slot = start(imports="xgboost,no_such_framework")
    assert slot.request("GET", "/ping")[0] == 503
    assert slot.request("POST", "/invocations", b"1,2")[0] == 503
    state = json.loads(slot.request("GET", "/eyrie/state")[1])
    assert (state["phase"], state["loaded_ms"]) == ("waiting", None)
    assert state["pss_bytes"] > 1_000_000
    assert not slot.lock_is_free()

    booster.save_model(slot.ml / "model" / "xgboost-model.json")
    assert slot.request("POST", "/eyrie/claim", b"{}")[0] == 400
    assert [slot.claim("i-1"), slot.claim("i-1"), slot.claim("i-2")] == [202, 202, 409]
    slot.ready()
    assert json.loads(slot.request("GET", "/eyrie/state")[1])["phase"] == "ready"

    def invoke(body: bytes, content_type: str = "text/csv", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        return slot.request("POST", "/invocations", body, content_type=content_type, **headers)

    line = ",".join(map(repr, rows[0].tolist())).encode()
    status, body, headers = invoke(line)
    assert (status, float(body), headers["content-type"]) == (200, expected[0], "text/csv; charset=utf-8")
    assert json.loads(invoke(line, accept="application/json")[1]) == {"predictions": [{"score": expected[0]}]}
    many = b"\n".join(",".join(map(repr, row)).encode() for row in rows.tolist() * 40)
    assert len(many) > 100_000  # worked off in a thread
    assert [float(v) for v in invoke(many)[1].split(b",")] == expected * 40
    assert invoke(many[:-5] + b"x")[0] == 400
    assert invoke(b"")[0] == 204
    assert invoke(b"1,2")[:2] == (
        400,
        b"Feature size of inference data 2 is not consistent with feature size of trained model 6.",
    )
    assert invoke(line, "image/png")[0] == 415
    assert invoke(line, accept="image/png")[0] == 406
    assert invoke(b"1," * 14_000_000)[0] == 413
    assert slot.request("GET", "/nothing")[0] == 404
    assert slot.request("GET", "/invocations")[0] == 405
    parameters = json.loads(slot.request("GET", "/execution-parameters")[1])
    assert parameters == {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}

    answers_beside_a_bad_row(slot, [",".join(map(repr, row)).encode() for row in rows.tolist()], expected)
    slot.process.terminate()
    assert slot.process.wait(DEADLINE_S) == 0
    assert slot.lock_is_free()
    log = slot.log()
    assert "no_such_framework is not available" in log
    assert "binary:logistic, 6 features" in log
    assert all(STAMPED.fullmatch(text) for text in log.splitlines()), log


def answers_beside_a_bad_row(slot: Slot, lines: list[bytes], expected: list[float]) -> None:
    """Many requests at once, every eighth of them bad: each connection gets its own answer."""
    bodies = [b"1,2,oops,4,5,6" if n % 8 == 3 else line for n, line in enumerate(lines)]
    connections = [UnixConnection(slot.box / "s") for _ in bodies]
    for connection, body in zip(connections, bodies, strict=True):
        connection.request("POST", "/invocations", body, {"content-type": "text/csv"})
    replies = [connection.getresponse() for connection in connections]
    answers = [(reply.status, reply.read()) for reply in replies]
    for connection in connections:
        connection.close()
    for number, (status, text) in enumerate(answers):
        if number % 8 == 3:
            assert (status, text) == (400, b"row 1, column 3: 'oops' is not a number")
        else:
            assert (status, float(text)) == (200, expected[number])


def test_a_model_that_does_not_load_ends_the_instance(start: Callable[..., Slot]) -> None:
    slot = start().code("def model_fn(model_dir):\n    raise RuntimeError('the weights are gone')\n")
    assert slot.claim() == 202
    assert slot.process.wait(DEADLINE_S) == 1
    lines = slot.log().splitlines()
    assert any(line == "Traceback (most recent call last):" for line in lines)
    assert "The model could not be loaded: RuntimeError: the weights are gone" in slot.log()
    assert slot.lock_is_free()


def test_sigterm_answers_what_was_begun(start: Callable[..., Slot], tmp_path: Path) -> None:
    slot = start().code(
        f"""
        import os, time
        def model_fn(model_dir):
            return 1
        def transform_fn(model, data, content_type, accept):
            open({str(tmp_path / "begun")!r}, "w").close()
            while not os.path.exists({str(tmp_path / "go")!r}):
                time.sleep(0.01)
            return "answered"
        """
    )
    slot.claim()
    slot.ready()
    connection = UnixConnection(slot.box / "s")
    connection.request("POST", "/invocations", b"x", {"content-type": "text/plain"})
    until((tmp_path / "begun").exists, "the call")
    assert slot.request("GET", "/ping")[0] == 200, "user code must not block /ping"
    slot.process.terminate()
    until(lambda: refused(slot), "the listening socket to close")
    assert slot.process.poll() is None
    (tmp_path / "go").touch()
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"answered")
    connection.close()
    assert slot.process.wait(DEADLINE_S) == 0


def size(path: Path) -> int:
    """Bytes of a file that may be renamed away at this very moment."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def refused(slot: Slot) -> bool:
    try:
        slot.request("GET", "/ping")
    except OSError:
        return True
    return False


def test_a_waiting_slot_ends_at_once(start: Callable[..., Slot]) -> None:
    slot = start()
    slot.process.terminate()
    assert slot.process.wait(DEADLINE_S) == 0


TALKATIVE = """
    import logging, os, subprocess, sys
    def model_fn(model_dir):
        print("from print")
        print("two", "words", file=sys.stderr)
        logging.getLogger("mine").warning("from logging")
        os.write(1, b"from descriptor one\\n")
        os.write(2, b"from descriptor two\\n")
        sys.stdout.buffer.write(b"from the buffer\\n")
        subprocess.run(["sh", "-c", "echo from a child"], check=True)
        return 1
    def predict_fn(value, model):
        if value[0][0] == 13:
            os.abort()
        if value[0][0] == 14:
            os.write(1, b"n" * 60_000 + b"\\n")
        print("x" * 500)
        return value
"""


def test_everything_that_is_said_lands_in_the_bounded_log(start: Callable[..., Slot]) -> None:
    slot = start(log_bytes_max=100_000).code(TALKATIVE)
    slot.claim(SAGEMAKER_CONTAINER_LOG_LEVEL="30")
    slot.ready()
    lines = slot.log().splitlines()
    for words in ("from print", "two words", "WARNING mine: from logging"):
        assert any(STAMPED.fullmatch(line) and line.endswith(words) for line in lines), words
    for words in ("from descriptor one", "from descriptor two", "from the buffer", "from a child"):
        assert words in lines
    with contextlib.closing(UnixConnection(slot.box / "s")) as connection:
        for _ in range(400):
            connection.request("POST", "/invocations", b"[[1]]", {"content-type": "application/json"})
            assert connection.getresponse().read() == b"[[1.0]]"
            assert size(slot.box / "log") + size(slot.box / "log.1") <= 100_000
        assert (slot.box / "log.1").exists()
        connection.request("POST", "/invocations", b"[[14]]", {"content-type": "application/json"})
        connection.getresponse().read()
    until(lambda: size(slot.box / "log") < 50_000, "the rotation of what was written past the streams")
    with pytest.raises((OSError, http.client.HTTPException)):
        slot.request("POST", "/invocations", b"[[13]]", content_type="application/json")
    assert slot.process.wait(DEADLINE_S) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in slot.log()
    assert 'inference.py", line' in slot.log()


def test_user_code_that_fails_costs_its_own_request_only(start: Callable[..., Slot]) -> None:
    slot = start().code(
        """
        import sys
        def model_fn(model_dir):
            return 1
        def predict_fn(value, model):
            if value[0][0] == 1:
                raise KeyError("colour")
            if value[0][0] == 2:
                sys.exit(3)
            return value
        """
    )
    slot.claim()
    slot.ready()
    invoke = [
        slot.request("POST", "/invocations", body, content_type="application/json")[:2]
        for body in (b"[1]", b"[2]", b"[3]")
    ]
    assert invoke == [(500, b"KeyError: 'colour'"), (500, b"SystemExit: 3"), (200, b"[[3.0]]")]
    assert 'raise KeyError("colour")' in slot.log()


def test_workers_run_side_by_side_and_the_environment_is_the_contracts(start: Callable[..., Slot]) -> None:
    slot = start().code(
        """
        import os, threading
        both = threading.Barrier(2, timeout=60)
        def model_fn(model_dir):
            return {name: os.environ.get(name) for name in ("AWS_REGION", "COLOUR", "SM_MODEL_DIR", "EYRIE_PORT")}
        def predict_fn(value, model):
            both.wait()
            return model
        def output_fn(prediction, accept):
            import json
            return json.dumps(prediction)
        """
    )
    slot.claim(SAGEMAKER_MODEL_SERVER_WORKERS="2", COLOUR="red", SM_MODEL_DIR="/lies", EYRIE_PORT="1")
    slot.ready()
    connections = [UnixConnection(slot.box / "s") for _ in range(2)]
    for connection in connections:
        connection.request("POST", "/invocations", b"[1]", {"content-type": "application/json"})
    for connection in connections:
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read()) == {
            "AWS_REGION": "us-east-1",
            "COLOUR": "red",
            "SM_MODEL_DIR": str(slot.ml / "model"),
            "EYRIE_PORT": None,
        }
        connection.close()


def test_the_lock_dies_with_the_instance_and_not_with_its_children(start: Callable[..., Slot], tmp_path: Path) -> None:
    slot = start().code(
        f"""
        import subprocess
        def model_fn(model_dir):
            child = subprocess.Popen(["sleep", "60"], close_fds=False)
            open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
            return 1
        """
    )
    slot.claim()
    slot.ready()
    child = int((tmp_path / "child").read_text())
    try:
        slot.process.kill()
        slot.process.wait()
        assert slot.lock_is_free()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_that_another_holds_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "eyrie.modelserver", "--box", tmp_path / "box", "--ml", tmp_path]
        command += ["--lock-fd", str(second.fileno()), "--imports", ""]
        assert subprocess.run(command, pass_fds=[second.fileno()], timeout=DEADLINE_S).returncode == 1
    assert "held by another process" in (tmp_path / "box" / "log").read_text()


def test_a_box_at_a_long_path(start: Callable[..., Slot], tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    slot = start(deep).code("def model_fn(model_dir):\n    return 1\ndef predict_fn(value, model):\n    return value\n")
    slot.claim()
    slot.ready()
    assert slot.request("POST", "/invocations", b"[7]", content_type="application/json")[1] == b"[[7.0]]"


STREAMING = """
    def model_fn(model_dir):
        return None
    def transform_fn(model, body, content_type, accept):
        def pieces():
            for number in range(1000):
                yield b"x" * 100_000
                print("yielded", number)
            raise RuntimeError("the last piece")
        def few():
            yield b"one"
            raise RuntimeError("after one")
        return few() if body == "few" else pieces()
"""


def test_a_streamed_answer_is_held_back_cut_and_left(start: Callable[..., Slot]) -> None:
    slot = start().code(STREAMING)
    slot.claim()
    slot.ready()
    connection = UnixConnection(slot.box / "s")
    connection.request("POST", "/invocations", b"few", {"content-type": "text/csv"})
    response = connection.getresponse()
    assert response.getheader("transfer-encoding") == "chunked"
    with pytest.raises(http.client.IncompleteRead) as cut:
        response.read()
    assert cut.value.partial == b"one"
    connection.close()
    until(lambda: "RuntimeError: after one" in slot.log(), "the traceback")
    assert "an answer broke off" in slot.log()

    connection.request("POST", "/invocations", b"many", {"content-type": "text/csv"})
    response = connection.getresponse()
    assert response.read(100_000) == b"x" * 100_000
    seen = -1
    while seen != (seen := slot.log().count("yielded")):  # until nothing more comes: the client does not read
        time.sleep(0.2)
    assert seen < 50
    response.close()
    connection.close()
    again = slot.request("GET", "/ping")
    assert again[0] == 200
    until(lambda: few_again(slot), "the only worker thread, free again")
    assert slot.log().count("yielded") < 60


def few_again(slot: Slot) -> bool:
    with contextlib.suppress(http.client.IncompleteRead):
        slot.request("POST", "/invocations", b"few", content_type="text/csv")
    return slot.log().count("RuntimeError: after one") >= 2


def test_a_pipeline_and_a_choice_of_containers_in_a_process(tmp_path: Path, start: Callable[..., Slot]) -> None:
    for execution in ("Serial", "Direct"):
        slot = start(tmp_path / execution)
        for number in range(3):
            code = slot.ml / "containers" / str(number) / "model" / "code"
            code.mkdir(parents=True)
            script = """
                import os
                from part import MARK
                def model_fn(model_dir):
                    return None
                def transform_fn(model, body, content_type, accept):
                    print("at", MARK)
                    if body == "fail" + MARK:
                        raise ValueError("failed in " + MARK)
                    return body + MARK + os.environ["OWN"], "text/csv"
            """
            (code / "inference.py").write_text(dedent(script))
            (code / "part.py").write_text(f"MARK = 'c{number}'")
        names = [{"hostname": f"h{n}", "folder": f"containers/{n}", "environment": {"OWN": str(n)}} for n in range(3)]
        assert slot.claim_all(names, execution=execution) == 202
        slot.ready()
        target = {"x_amzn_sagemaker_target_container_hostname": "h1"} if execution == "Direct" else {}
        status, body, _ = slot.request("POST", "/invocations", b"-", content_type="text/csv", **target)
        assert (status, body) == (200, b"-c11" if execution == "Direct" else b"-c00c11c22")
        assert " [h1] at c1" in slot.log()
        at = "1" if execution == "Direct" else "0"
        wrong = f"failc{at}".encode()
        status, body, headers = slot.request("POST", "/invocations", wrong, content_type="text/csv", **target)
        assert (status, body) == (500, f"ValueError: failed in c{at}".encode())
        assert headers.get("x-eyrie-container") == ("h0" if execution == "Serial" else None)
        assert f" [h{at}] ERROR eyrie.modelserver: invocation failed with 500" in slot.log()


def test_many_models_in_a_process(start: Callable[..., Slot]) -> None:
    slot = start()
    for name in ("aa", "bb"):
        code = slot.ml / "models" / name / "model" / "code"
        code.mkdir(parents=True)
        script = f"""
            def model_fn(model_dir):
                return {name!r}
            def transform_fn(model, body, content_type, accept):
                return model + body, "text/csv"
        """
        (code / "inference.py").write_text(dedent(script))
    assert slot.claim_all([{"hostname": "many", "mode": "MultiModel"}], memory_mb=2048) == 202
    slot.ready()
    for name in ("aa", "bb"):
        assert slot.request("POST", f"/models/{name}/invoke", b"1", content_type="text/csv")[0] == 404
        told = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"}).encode()
        assert [slot.request("POST", "/models", told)[0] for _ in range(2)] == [200, 409]
        assert slot.request("POST", f"/models/{name}/invoke", b"1", content_type="text/csv")[:2] == (
            200,
            f"{name}1".encode(),
        )
    assert slot.request("DELETE", "/models/aa")[0] == 200
    state = json.loads(slot.request("GET", "/eyrie/state")[1])["models"]
    assert (state["loaded"], state["hits"], state["misses"]) == (1, 2, 2)
