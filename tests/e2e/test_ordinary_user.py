"""Eyrie without root: started, deployed to and ended by another user, whose instances are isolated as far as he may."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Deployed, RealEyrie, point_boto3_at, remove, until

NOBODY = 65534
STEP_DOWN = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
STEP_DOWN += ["--inh-caps=-all", "--bounding-set=-all", "--"]


def interpreter(folder: Path) -> Path:
    """A Python that any user may run, with the packages of this one."""
    if usable(sys.executable):
        return Path(sys.executable)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    system = shutil.which(f"python{version}", path="/usr/bin:/usr/local/bin")
    if system is None or not usable(system):
        pytest.skip(f"no Python {version} here that another user may run")
    venv = folder / "venv"
    subprocess.run([system, "-m", "venv", "--without-pip", venv], check=True)
    places = [path for path in sys.path if path.endswith("site-packages")] + [str(Path(__file__).parents[2] / "src")]
    (venv / f"lib/python{version}/site-packages/under-test.pth").write_text("\n".join(places) + "\n")
    return venv / "bin" / "python"


def usable(python: str) -> bool:
    """Whether another user may start it, and from there start it again."""
    again = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', '']).returncode)"
    return subprocess.run([*STEP_DOWN, python, "-c", again], capture_output=True, check=False).returncode == 0


@pytest.fixture
def ordinary() -> Iterator[RealEyrie]:
    """An Eyrie of an ordinary user."""
    if os.geteuid() != 0:
        pytest.skip("every other test of this folder runs as an ordinary user already")
    folder = Path(tempfile.mkdtemp(prefix="eyrie-e2e-"))
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    eyrie = RealEyrie(data, STEP_DOWN, interpreter(folder))
    yield eyrie
    remove(eyrie)
    shutil.rmtree(folder)


def test_an_ordinary_user_deploys_and_is_answered(
    ordinary: RealEyrie, trained: tuple[list[object], list[str], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary.up()
    point_boto3_at(ordinary, monkeypatch)
    deployed = Deployed(ordinary, *trained)  # type: ignore[arg-type]
    deployed.upload()
    deployed.create("own", instances=1, models=("xgboost",))
    assert 0 <= float(deployed.ask("own")) <= 1
    pid = ordinary.instances("own")[0]["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
    os.kill(pid, 9)
    until(lambda: [i for i in ordinary.instances("own") if i["pid"] not in (None, pid) and i["routed"]])
    assert deployed.ask("own")
    deployed.delete("own")
    ordinary.down()


@pytest.mark.heavy
@pytest.mark.soak
def test_an_ordinary_user_assesses_and_is_told_what_is_missing(
    ordinary: RealEyrie, trained: tuple[list[object], list[str], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary.up()
    point_boto3_at(ordinary, monkeypatch)
    deployed = Deployed(ordinary, *trained)  # type: ignore[arg-type]
    deployed.upload()
    deployed.create("own", instances=1, models=("sklearn",))
    flags = ("--quick", "--for", "1", "--faults", "memory,fill-box,full-disk", "--instances", "1", "--within", "60")
    done = ordinary.run("assess", "own", "--yes", "--json", "--send", deployed.rows[0], *flags)
    assert done.returncode in (0, 3), done.stderr + ordinary.last_logs()
    found = json.loads(done.stdout)
    assert {run["fault"]: run["skipped"] for run in found["faults"] if run["skipped"]} == {}
    assert all(run["recover_s"] is not None for run in found["faults"])
    assert any("without rights of administration" in note for note in found["notes"])
    assert any(text.startswith("limits: control groups") for text in found["missing"])
    for pid in (ordinary.instances("own")[0]["pid"], ordinary.processes()["control"]):
        (limit,) = [row for row in Path(f"/proc/{pid}/limits").read_text().splitlines() if "Max file size" in row]
        assert limit.split()[3] == "unlimited"  # as it was: the disk is full no more
    ordinary.down()
