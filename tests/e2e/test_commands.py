"""The `eyrie` command against a real Eyrie: what each prints, and each refusal in one clear line."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Deployed, RealEyrie, not_yet, remove


@pytest.fixture
def other() -> Iterator[RealEyrie]:
    """A second data directory where nothing runs yet."""
    other = not_yet()
    yield other
    remove(other)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_up_says_in_one_line_where_it_is_and_how_long_it_took(other: RealEyrie) -> None:
    line = other.up()
    assert line.count("\n") == 1
    assert f"http://127.0.0.1:{other.port}" in line
    assert str(other.data) in line
    assert "credentials.json" in line
    assert re.search(r" [0-9.]+ s\n", line)  # three seconds on a free machine; what it is here, it says
    other.down()


def test_env_points_the_aws_clients_here(eyrie: RealEyrie) -> None:
    exports = eyrie.exports()
    assert exports["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{eyrie.port}"
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"} <= set(exports)
    config = Path(exports["SAGEMAKER_USER_CONFIG_OVERRIDE"]).read_text()
    assert "DefaultS3Bucket: sagemaker-us-east-1-123456789012" in config
    assert "TelemetryOptOut: true" in config


def test_status_story_and_logs_tell_of_an_endpoint(deployed: Deployed) -> None:
    deployed.create("shown", models=("sklearn",))
    eyrie = deployed.eyrie
    shown = eyrie.run("status").stdout
    for word in ("control", "gateway-0", "objects", "shown", "InService", "READY", "2/2"):
        assert word in shown
    told = json.loads(eyrie.run("status", "--json").stdout)
    assert [e["name"] for e in told["endpoints"]] == ["shown"]
    assert "READY" in eyrie.run("story", "shown").stdout
    assert "scikit-learn" in eyrie.run("logs", "shown").stdout
    deployed.delete("shown")
    assert eyrie.run("story", "shown").returncode == 0  # a story outlives its endpoint
    assert "scikit-learn" in eyrie.run("logs", "shown").stdout


def test_unknown_endpoints_are_one_clear_line(eyrie: RealEyrie) -> None:
    assert "nobody" in refusal(eyrie.run("story", "nobody"))
    assert "nobody" in refusal(eyrie.run("logs", "nobody"))


def test_status_without_control_still_tells_what_it_can(other: RealEyrie) -> None:
    other.up()
    (other.data / "run" / "control.sock").rename(other.data / "run" / "hidden.sock")
    done = other.run("status")
    assert done.returncode == 0
    assert "gateway-0" in done.stdout
    assert "control does not answer" in done.stdout
    other.down()


def test_a_port_in_use(other: RealEyrie) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(other.run("up", "--port", str(port)))
    assert said == f"eyrie: port {port} on 127.0.0.1 is in use by another program: choose another with --port\n"


def test_a_second_up_on_the_same_data(eyrie: RealEyrie) -> None:
    assert "already runs with the data directory" in refusal(eyrie.run("up", "--port", "0"))
    assert eyrie.run("status").returncode == 0


def test_a_data_directory_of_a_newer_version(other: RealEyrie) -> None:
    (other.data / "version").write_text("2\n")
    assert "newer Eyrie" in refusal(other.run("up", "--port", "0"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "70000"], "--port 70000"),
        (["--zones", "a,,a"], "--zones"),
        (["--zones", "A b"], "no zone name"),
        (["--gateways", "0"], "--gateways 0"),
        (["--host", "203.0.113.9"], "203.0.113.9"),
    ],
)
def test_flags_that_make_no_sense(other: RealEyrie, flags: list[str], said: str) -> None:
    assert said in refusal(other.run("up", "--port", "0", *flags))


def test_a_variable_that_cannot_be_read() -> None:
    env = {**os.environ, "EYRIE_GATEWAYS": "many"}
    done = subprocess.run(
        [sys.executable, "-m", "eyrie", "status"], capture_output=True, text=True, check=False, env=env
    )
    assert "EYRIE_GATEWAYS='many'" in refusal(done)
    assert done.returncode == 2


def test_nothing_runs_here(other: RealEyrie) -> None:
    for command in (["status"], ["env"], ["down"], ["story", "x"]):
        assert "no Eyrie has run" in refusal(other.run(*command))
