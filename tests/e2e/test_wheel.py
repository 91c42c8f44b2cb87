"""The wheel: built, installed into a fresh environment of its own, and what `eyrie` does from there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Deployed, not_yet, running

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ".")
    return next(folder.glob("eyrie-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Path]:
    """The Python of a fresh environment that holds the wheel, with the versions of the lock file."""
    with tempfile.TemporaryDirectory(prefix="eyrie-wheel-") as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        run(sys.executable, "-m", "venv", python.parents[1])
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(*pip, "--constraint", "requirements.lock", f"{wheel}[sklearn,xgboost]")
        yield python


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"eyrie"}
    wanted = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src/eyrie").rglob("*") if p.is_file()}
    assert {name for name in wanted if "__pycache__" not in name} <= set(names)


def test_the_installed_eyrie_serves_a_model(
    installed: Path, trained: tuple[list[object], list[str], list[int]]
) -> None:
    assert "up" in run(installed.with_name("eyrie"), "--help")
    with running(eyrie=not_yet(python=installed)) as eyrie:
        deployed = Deployed(eyrie, *trained)  # type: ignore[arg-type]
        deployed.upload()
        deployed.create("wheel", instances=1, models=("xgboost",))
        assert 0 <= float(deployed.ask("wheel")) <= 1
