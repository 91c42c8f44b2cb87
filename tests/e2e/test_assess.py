"""`eyrie assess` on a real Eyrie: what it reports, and that nothing of it is left, whatever becomes of the command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Deployed, RealEyrie, until

NAME = "graded"


@pytest.fixture(scope="module")
def graded(deployed: Deployed) -> Iterator[Deployed]:
    """An endpoint of one model."""
    deployed.create(NAME, instances=2)
    yield deployed
    deployed.delete(NAME)


def begun(eyrie: RealEyrie, *flags: str) -> subprocess.Popen[str]:
    """`eyrie assess`, on its way."""
    command = [sys.executable, "-P", "-m", "eyrie", "assess", NAME, "--yes", *flags, "--data", str(eyrie.data)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def copies(eyrie: RealEyrie) -> list[dict[str, Any]]:
    """The copies that are there now, as control tells of them; none while it stands still."""
    return [one for one in eyrie.status()["endpoints"] if one["name"].startswith(f"{NAME}-assess-")]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.usefixtures("graded")
@pytest.mark.heavy
def test_a_killed_assessment_leaves_no_copy(eyrie: RealEyrie) -> None:
    command = begun(eyrie, "--faults", "none")
    until(lambda: [one for one in copies(eyrie) if one["status"] == "InService"], 60)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    until(lambda: not copies(eyrie), 60)
    assert eyrie.run("assess", "nobody", "--yes").returncode == 1
    assert eyrie.run("assess", NAME, "--yes", "--faults", "flood").returncode == 2


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("graded")
def test_a_killed_assessment_leaves_no_fault(eyrie: RealEyrie) -> None:
    control = eyrie.processes()["control"]
    command = begun(eyrie, "--faults", "stop-control", "--for", "100", "--rps", "20", "--quick")
    until(lambda: state(control) == "T", 300)  # after the stairs, which may take a third of its time, and the copy
    command.send_signal(signal.SIGKILL)
    command.communicate()
    until(lambda: state(control) != "T", 60)
    until(lambda: not copies(eyrie), 60)


@pytest.mark.heavy
def test_five_measures_of_a_copy(eyrie: RealEyrie, graded: Deployed, tmp_path: Path) -> None:
    page, faults = tmp_path / "page.html", "kill-instance,memory,fill-box,zone,lock-store,full-disk"
    flags = ["--quick", "--time", "1000", "--for", "1.5", "--faults", faults, "--instances", "1,2"]
    flags += ["--send", graded.rows[0]]
    command = [sys.executable, "-P", "-m", "eyrie", "assess", NAME, "--yes", "--json", "--html", str(page), *flags]
    done = subprocess.run(
        [*command, "--data", str(eyrie.data)], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode in (0, 3), done.stderr + eyrie.last_logs()
    found = json.loads(done.stdout)
    assert found["assessed"] != NAME
    assert not copies(eyrie)
    assert len(eyrie.serving(NAME)) == 2  # the endpoint itself is as it was
    told = found["performance"]
    assert told["users_rps"] > 0
    assert told["rows_a_request"] == 1
    assert [scale["instances"] for scale in found["scalability"]["scales"]] == [1, 2]
    runs = {run["fault"]: run for run in found["faults"]}
    assert list(runs) == faults.split(",")
    assert {name: run["skipped"] for name, run in runs.items() if run["skipped"]} == {}
    assert all(run["recover_s"] is not None for run in runs.values())
    assert runs["kill-instance"]["detect_s"] <= runs["kill-instance"]["whole_s"]
    assert runs["lock-store"]["failed"] == runs["full-disk"]["failed"] == 0
    assert {grade["measure"] for grade in found["grades"]} >= {"performance", "resiliency"}
    assert page.read_text().count("<svg") >= 4
    last = eyrie.run("assess", NAME, "--history").stdout
    assert found["at"] in last
    assert found["left_out"] == []


def journal(eyrie: RealEyrie) -> list[dict[str, Any]]:
    """What the journal of faults tells now."""
    found = []
    for path in (eyrie.data / "faults").glob("[!.]*.json"):
        with contextlib.suppress(FileNotFoundError):
            found.append(json.loads(path.read_text()))
    return found


@pytest.mark.heavy
@pytest.mark.soak
def test_a_fault_and_a_copy_outlive_neither_commands_nor_guards(eyrie: RealEyrie, graded: Deployed) -> None:
    control = eyrie.processes()["control"]
    assessing = begun(eyrie, "--faults", "none")
    until(lambda: [one for one in copies(eyrie) if one["status"] == "InService"], 100)
    told = ["--stop-control", "--for", "600", "--send", graded.rows[0], "--yes", "--data", str(eyrie.data)]
    breaking = subprocess.Popen([sys.executable, "-P", "-m", "eyrie", "chaos", NAME, *told], stderr=subprocess.DEVNULL)
    until(lambda: state(control) == "T", 100)
    guards = journal(eyrie)
    assert {one["kind"] for one in guards} == {"hang", "endpoint"}
    for pid in (assessing.pid, breaking.pid, *(int(one["guard"]) for one in guards)):
        os.kill(pid, signal.SIGKILL)
    assessing.communicate()
    breaking.wait()
    until(lambda: state(control) != "T", 60)
    until(lambda: not copies(eyrie), 100)
    until(lambda: not journal(eyrie), 60)
