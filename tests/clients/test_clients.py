"""tritonclient and KServe's REST client, unchanged, against a real Eyrie (`make setup-clients` makes their home)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Deployed, RealEyrie, deployed, eyrie, trained  # noqa: F401  (the fixtures)

pytestmark = pytest.mark.heavy

HERE = Path(__file__).parent
PYTHON = HERE.parent.parent / ".venv-clients/bin/python"


def flow(name: str, eyrie: RealEyrie, key: str, rows: Path) -> dict[str, Any]:  # noqa: F811
    """What a client's script saw."""
    if not PYTHON.exists():
        pytest.fail("the environment of the clients is missing: `make setup-clients`")
    command = [str(PYTHON), str(HERE / name), f"127.0.0.1:{eyrie.port}", key, "called", str(rows)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, env=clean)
    assert done.returncode == 0, done.stderr[-4_000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def called(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[int]]:  # noqa: F811
    """An endpoint with a key for it: the key, the rows as a file, and what the model says of them."""
    deployed.create("called", instances=2)
    key = deployed.eyrie.run("key", "create", "--endpoint", "called").stdout.strip()
    rows = np.array([[float(cell) for cell in row.split(",")] for row in deployed.rows[:12]])
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, rows)
    said = [round(float(deployed.ask("called", row, Accept="text/csv"))) for row in deployed.rows[:12]]
    return key, path, said


def test_tritonclient(deployed: Deployed, called: tuple[str, Path, list[int]]) -> None:  # noqa: F811
    key, rows, said = called
    found = flow("flow_triton.py", deployed.eyrie, key, rows)
    assert (found["live"], found["ready"], found["model ready"], found["unknown ready"]) == (True, True, True, False)
    assert found["server"]["name"] == "eyrie"
    assert (found["model"]["name"], found["model"]["versions"]) == ("called", ["sklearn"])
    assert found["model"]["inputs"][0]["shape"] == [-1, 30]
    for name in ("binary", "json", "mixed", "version", "plain"):
        assert found[name] == said, name
    assert found["id"] == "7"
    assert found["async"] == said[:8]
    assert found["narrow"].startswith("400 ")
    assert found["no key"].startswith("401 ")


def test_kserves_client(deployed: Deployed, called: tuple[str, Path, list[int]]) -> None:  # noqa: F811
    key, rows, said = called
    found = flow("flow_kserve.py", deployed.eyrie, key, rows)
    assert (found["live"], found["ready"], found["model ready"], found["unknown ready"]) == (True, True, True, False)
    assert found["binary"] == found["json"] == said
