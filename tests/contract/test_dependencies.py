"""Requirements of a model: built once, in a sandbox, from whatever sources this host is told of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from eyrie.adapters import dependencies, sandbox
from eyrie.adapters.dependencies import DependencyError, Requirements
from eyrie.adapters.sandbox import Isolation

ISOLATION = sandbox.detect("auto")
PLAIN = Isolation(sandbox.PROCESS, "")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small package, and the installers told to look nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "nest-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nest/__init__.py", "EGGS = 3\n")
        wheel.writestr("nest-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nest\nVersion: 1.0\n")
        wheel.writestr("nest-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("nest-1.0.dist-info/RECORD", "")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name, value in {"FIND_LINKS": str(folder), "NO_INDEX": "1", "OFFLINE": "1"}.items():
        monkeypatch.setenv(f"UV_{name}", value)
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def artifact(tmp_path: Path, text: str) -> Path:
    code = tmp_path / "artifact" / "model" / "code"
    code.mkdir(parents=True, exist_ok=True)
    (code / "requirements.txt").write_text(text)
    return tmp_path / "artifact"


@pytest.mark.parametrize("isolation", [ISOLATION, PLAIN], ids=["here", "plain"])
def test_requirements_are_built_and_importable(tmp_path: Path, wheels: Path, isolation: Isolation) -> None:
    built = Requirements(isolation, tmp_path / "data").build(artifact(tmp_path, "nest==1.0\n"))
    assert built is not None
    told = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(built)!r}); import nest; print(nest.EGGS)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "3\n"
    facts = (built / "nest" / "__init__.py").stat()
    assert (facts.st_uid, facts.st_mode & 0o777) == (os.getuid(), 0o644)
    assert [path.name for path in built.parent.iterdir() if path.name.startswith(".build")] == []


def test_it_is_built_once(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements, folder = Requirements(ISOLATION, tmp_path / "data"), artifact(tmp_path, "nest\n")
    built: list[Path | None] = []
    threads = [threading.Thread(target=lambda: built.append(requirements.build(folder))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*built}) == 1
    (wheels / "nest-1.0-py3-none-any.whl").unlink()
    assert requirements.build(folder) == built[0]


def test_what_cannot_be_had_is_said_with_the_tools_own_words(tmp_path: Path, wheels: Path) -> None:
    requirements, folder = Requirements(ISOLATION, tmp_path / "data"), artifact(tmp_path, "no-such-bird==9\n")
    with pytest.raises(DependencyError, match=r"could not be installed: (uv|pip) ended with code \d.*no-such-bird"):
        requirements.build(folder)
    assert [path for path in (folder / "deps").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("text", ["", "\n# only words\n"])
def test_nothing_asked_is_nothing_built(tmp_path: Path, text: str) -> None:
    assert Requirements(PLAIN, tmp_path).build(artifact(tmp_path, text)) is None
    assert Requirements(PLAIN, tmp_path).build(tmp_path / "elsewhere") is None


def test_a_text_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="larger than"):
        Requirements(PLAIN, tmp_path).build(artifact(tmp_path, "a\n" * 40_000))


def test_a_build_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "installer", lambda: ("sleep", ["/bin/sleep", "1000"]))
    with pytest.raises(DependencyError, match="did not end in time"):
        Requirements(ISOLATION, tmp_path, timeout_s=0.5).build(artifact(tmp_path, "nest\n"))


def test_a_build_sees_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if ISOLATION.kind != sandbox.BUBBLEWRAP:
        pytest.skip(ISOLATION.detail)
    (tmp_path / "credentials.json").write_text("secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    look = f"cat {tmp_path}/credentials.json; env | grep -i secret; exit 3"
    monkeypatch.setattr(dependencies, "installer", lambda: ("sh", ["/bin/sh", "-c", look]))
    with pytest.raises(DependencyError, match="code 3") as caught:
        Requirements(ISOLATION, tmp_path).build(artifact(tmp_path, "nest\n"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["PIP_CONFIG_FILE", "UV_CONFIG_FILE"])
def test_settings_switched_off_by_the_null_device_leave_the_device_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setattr(dependencies, "installer", lambda: ("sh", ["/bin/sh", "-c", "exec </dev/null >/dev/null"]))
    assert Requirements(ISOLATION, tmp_path).build(artifact(tmp_path, "nest\n")) is not None


def test_a_tool_is_reached_wherever_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True, mode=0o700)
    shutil.copy2("/bin/sh", home / "tool")
    (home / "bin" / "uv").symlink_to("../tool")
    home.chmod(0o700)
    monkeypatch.setattr(
        dependencies, "installer", lambda: ("uv", [str(home / "bin" / "uv"), "-c", "echo here; exit 3"])
    )
    with pytest.raises(DependencyError, match="uv ended with code 3: here"):
        Requirements(ISOLATION, tmp_path / "data").build(artifact(tmp_path, "nest\n"))


def test_a_script_that_only_finds_uv_is_no_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, text in (("shims", b"#!/bin/sh\nexec elsewhere\n"), ("real", b"\x7fELF")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "uv").write_bytes(text)
        (tmp_path / folder / "uv").chmod(0o755)
    monkeypatch.setattr(dependencies.sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}:{tmp_path / 'real'}")
    assert dependencies.uv_command() == str(tmp_path / "real" / "uv")


def test_links_that_lead_out_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = "ln -s /etc/passwd {work}/target/out && echo 1 > {work}/target/in.py && ln -s in.py {work}/target/same.py"
    monkeypatch.setattr(dependencies, "installer", lambda: ("sh", ["/bin/sh", "-c", make]))
    built = Requirements(ISOLATION, tmp_path).build(artifact(tmp_path, "nest\n"))
    assert built is not None
    assert sorted(path.name for path in built.iterdir()) == ["in.py", "same.py"]
