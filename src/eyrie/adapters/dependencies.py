"""`code/requirements.txt` of a model, built once for each archive, Python and text, and shared by every instance of it.

uv builds where it is there, else pip; in a throwaway sandbox with network where bubblewrap works, since a source
package runs its own code while it is built. The result lies in `artifacts/DIGEST/deps/KEY/`, renamed into place when
it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters import sandbox
from eyrie.adapters.process_lock import try_lock
from eyrie.adapters.sandbox import Isolation, Sandbox
from eyrie.adapters.slots import read_bounded

REQUIREMENTS_BYTES_MAX = 65_536
BUILD_TIMEOUT_S = 600.0
_LAST_LINES = 8
_PAUSE_S = 0.1
# What decides where packages come from; nothing else of Eyrie's environment reaches a build.
_SOURCES = re.compile(r"(?i)((UV|PIP)_\w+|(https?|all|no)_proxy|SSL_CERT_\w+|REQUESTS_CA_BUNDLE)")
_FILE_URL = re.compile(r"file://(/[^\s\"']+)")


class DependencyError(Exception):
    """The requirements could not be installed; the message has the tool's last lines."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """Builds requirements for the Python that model servers run in."""

    isolation: Isolation
    data: Path
    timeout_s: float = BUILD_TIMEOUT_S

    def build(self, artifact: Path) -> Path | None:
        """The folder with what `artifact/model/code/requirements.txt` asks for, built now or before; None: it asks
        nothing.

        Raises DependencyError.
        """
        text = _requirements(artifact / "model" / "code" / "requirements.txt")
        if text is None:
            return None
        target = artifact / "deps" / _key(text)
        if target.is_dir():
            return target
        deadline = time.monotonic() + self.timeout_s
        target.parent.mkdir(exist_ok=True)
        with _locked(target.with_name(f"{target.name}.lock"), deadline):
            if not target.is_dir():
                self._install(text, target, deadline)
        return target

    def _install(self, text: bytes, target: Path, deadline: float) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as made:
            work = Path(made)
            for name in ("target", "tmp"):
                (work / name).mkdir()
            (work / "requirements.txt").write_bytes(text)
            tool, command = installer()
            self._run(tool, command, work, deadline)
            _own(work / "target")
            (work / "target").rename(target)

    def _run(self, tool: str, command: list[str], work: Path, deadline: float) -> None:
        sandboxed = self.isolation.kind == sandbox.BUBBLEWRAP
        inside = "/build" if sandboxed else str(work)
        environment = {**_sources(), "HOME": f"{inside}/tmp", "TMPDIR": f"{inside}/tmp"}
        words = [word.replace("{work}", inside) for word in command]
        if sandboxed:
            words = [*self._enter(work, environment, Path(words[0])), *words]
        output = work / "output"
        with output.open("wb") as file:
            code = _finish(words, {**sandbox.ENVIRONMENT, **environment}, file.fileno(), deadline)
        if code == 0:
            return
        lines = read_bounded(output).decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        how = "did not end in time" if code is None else f"ended with code {code}"
        raise DependencyError(
            f"requirements.txt of the model could not be installed: {tool} {how}: {' | '.join(lines)}"
        )

    def _enter(self, work: Path, environment: Mapping[str, str], tool: Path) -> list[str]:
        """bubblewrap's words: this Python, the tool wherever it is, package sources on this host, and the folder of
        the build; with network.
        """
        uid = sum(self.isolation.uids) - 1 if self.isolation.uids else None
        if uid is not None:
            for path in (work, *work.iterdir()):
                os.chown(path, uid, uid)
        paths = sandbox.outermost([*sandbox.runtime_paths(), tool, *_local_sources(environment)])
        seen = {str(path): str(path) for path in paths}
        hidden = sandbox.hidden_paths(paths, self.data)
        box = Sandbox(seen, {"/build": str(work)}, hidden, uid, network=True, environment=environment)
        return [
            self.isolation.bubblewrap,
            *sandbox.arguments(box, uid is not None),
            "--die-with-parent",
            "--",
            *sandbox.step_down(uid),
        ]


def installer() -> tuple[str, list[str]]:
    """A tool that installs packages, and its command; `{work}` stands for the folder of the build."""
    what = ["--target", "{work}/target", "--requirement", "{work}/requirements.txt"]
    uv = uv_command()
    common = ["--python", sys.executable, "--cache-dir", "{work}/tmp/cache", "--link-mode", "copy", "--no-progress"]
    if uv and not _pip_alone_is_told():
        return "uv", [uv, "pip", "install", *common, *what]
    if importlib.util.find_spec("pip") is not None:
        quiet = ["--no-input", "--no-cache-dir", "--disable-pip-version-check"]
        return "pip", [sys.executable, "-m", "pip", "install", *quiet, *what]
    if uv:
        return "uv", [uv, "pip", "install", *common, *what]
    raise DependencyError("the model has a requirements.txt, but neither uv nor pip is installed on this host")


def uv_command() -> str | None:
    """uv beside this Python or on the path; not a script that looks for it, which finds nothing in a sandbox."""
    for folder in (str(Path(sys.executable).parent), *os.environ.get("PATH", "").split(os.pathsep)):
        found = shutil.which("uv", path=folder) if folder else None
        if found and not _is_script(Path(found)):
            return found
    return None


def _is_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True  # it may be run and not read: it cannot be shown to a sandbox either


def _pip_alone_is_told() -> bool:
    """Whether this host's package sources are configured for pip only: uv does not read pip's settings."""
    pip = [Path("/etc/pip.conf"), Path.home() / ".config" / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf"]
    uv = [Path("/etc/uv/uv.toml"), Path.home() / ".config" / "uv" / "uv.toml"]
    pip_told = any(path.exists() for path in pip) or any(name.startswith("PIP_INDEX") for name in os.environ)
    uv_told = any(path.exists() for path in uv) or any(
        name.startswith(("UV_INDEX", "UV_DEFAULT")) for name in os.environ
    )
    return pip_told and not uv_told and shutil.which("pip", path=str(Path(sys.executable).parent)) is not None


def _sources() -> dict[str, str]:
    """Eyrie's environment as far as it says where packages come from, with a user's own files named."""
    found = {name: value for name, value in os.environ.items() if _SOURCES.fullmatch(name)}
    for variable, place in (("PIP_CONFIG_FILE", ".config/pip/pip.conf"), ("UV_CONFIG_FILE", ".config/uv/uv.toml")):
        if (Path.home() / place).is_file():
            found.setdefault(variable, str(Path.home() / place))
    return found


def _local_sources(environment: Mapping[str, str]) -> Iterator[Path]:
    """Folders and files on this host that package sources name."""
    files = [Path(name) for name in ("/etc/pip.conf", *environment.values()) if name.startswith("/")]
    texts = [*environment.values(), *(read_bounded(path).decode(errors="replace") for path in files)]
    for text in texts:
        for word in [*_FILE_URL.findall(text), *text.split()]:
            if word.startswith("/") and _can_be_shown(Path(word)):
                yield Path(word)


def _can_be_shown(path: Path) -> bool:
    """Whether it is a file or a folder of its own. /dev/null (settings switched off) is neither: bound, it would take
    the sandbox's device away.
    """
    return len(path.parts) > 2 and (path.is_file() or path.is_dir()) and path.parts[1] not in ("dev", "proc", "sys")


def _finish(words: list[str], environment: dict[str, str], output: int, deadline: float) -> int | None:
    """Run to its end or to the deadline; its exit code, None when it was ended."""
    process = subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    try:
        return process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _requirements(path: Path) -> bytes | None:
    """The text, or None when there is none or it asks for nothing. Raises DependencyError when it is too long."""
    text = read_bounded(path, REQUIREMENTS_BYTES_MAX + 1)
    if len(text) > REQUIREMENTS_BYTES_MAX:
        raise DependencyError(f"requirements.txt of the model is larger than {REQUIREMENTS_BYTES_MAX} bytes")
    asked = [line for line in text.splitlines() if line.strip() and not line.strip().startswith(b"#")]
    return text if asked else None


def _key(text: bytes) -> str:
    python = f"{sys.version_info[:2]} {sys.implementation.cache_tag} {sysconfig.get_platform()}"
    return hashlib.sha256(python.encode() + b"\0" + text).hexdigest()[:16]


def _own(folder: Path) -> None:
    """Take what a build made: ours, readable for all, without special rights. Links that lead out are removed."""
    root = folder.resolve()
    for here, folders, files in os.walk(folder):
        for path in (Path(here), *(Path(here, name) for name in (*folders, *files))):
            mode = path.lstat().st_mode
            if os.getuid() == 0:
                os.chown(path, 0, 0, follow_symlinks=False)
            if stat.S_ISLNK(mode):
                if not path.resolve().is_relative_to(root):
                    path.unlink()
            elif stat.S_ISDIR(mode):
                path.chmod(0o755)
            elif stat.S_ISREG(mode):
                path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
            else:
                path.unlink()


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold a lock file: one build at a time of the same thing. Raises DependencyError at the deadline."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not try_lock(fd):
            if time.monotonic() >= deadline:
                raise DependencyError("another build of the same requirements.txt does not end")
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(fd)
