"""Every environment that Eyrie itself runs from has all of Eyrie's own dependencies in its lock file."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {**dict.fromkeys(("torch", "tensorflow", "spark", "ray"), "frameworks"), "console": "console"}
LOCKS = ["requirements.lock", *(f"tests/{folder}/{name}.lock" for name, folder in FOLDERS.items())]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_holds_what_eyrie_depends_on(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in project["dependencies"]}
    locked = {line.partition("==")[0].strip().lower() for line in (ROOT / lock).read_text().splitlines()}
    assert needed <= locked, f"add to {lock}: {sorted(needed - locked)}"
