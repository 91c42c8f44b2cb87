"""The sandbox of an instance: bubblewrap with the recipe that also isolates when Eyrie runs as root, or a plain
process.

bubblewrap's defaults are no sandbox under root: capabilities stay, and uid 0 outside goes on reading what root may
read. So under root the server gets a uid of its own and no capability (setpriv, inside), and without root a user
namespace. Either way it sees /usr, the Python environment, its model (read-only), a private bounded /tmp and its own
box, and nothing else; it has its own process, network, IPC and host name spaces, and a filter denies the system calls
that could make new ones.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import eyrie
from eyrie.adapters import seccomp

BUBBLEWRAP, PROCESS = "bubblewrap", "process"
INNER_BOX, INNER_ML = "/run/eyrie", "/opt/ml"
TMP_BYTES_MAX = 536_870_912  # of an instance's private /tmp, which is memory
SHM_BYTES_MAX = 67_108_864
RESERVED_UIDS = 64  # of the range: the last one builds requirements, those before it run jobs
UIDS = ((700_000, 60_000), (20_000, 40_000))  # first and count; the second where a user namespace maps no high ids
PROBE_TIMEOUT_S = 10.0
_NEEDED_OPTIONS = ("--json-status-fd", "--size", "--perms", "--clearenv", "--args")
_JAVA_ETC = tuple(f"java-{version}-openjdk" for version in (11, 17, 21, 25))  # Debian keeps a JVM's settings there
_ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "alternatives", "ssl/certs", "mime.types"),
    *_JAVA_ETC,
)
_NETWORK_ETC = ("resolv.conf", "hosts", "nsswitch.conf", "pip.conf", "ca-certificates", "ssl", "pki", "gai.conf")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


class SandboxUnavailable(RuntimeError):
    """bubblewrap was asked for and does not work here; the message says why."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """How instances are kept apart on this host, found out once by trying."""

    kind: str  # "bubblewrap" or "process"
    detail: str  # for people
    bubblewrap: str = ""  # path of bwrap
    uids: tuple[int, int] | None = None  # first and count of the range; None: a user namespace, or plain processes
    seccomp: bytes | None = None

    @property
    def own_uid(self) -> bool:
        """Whether each instance runs as a user of its own."""
        return self.uids is not None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What one sandboxed process sees and is."""

    read_only: Mapping[str, str]  # inside -> on the host
    writable: Mapping[str, str]
    hidden: tuple[str, ...] = ()  # host paths to lay an empty folder over, where a read-only path shows them
    uid: int | None = None
    network: bool = False
    environment: Mapping[str, str] | None = None
    mounts: tuple[str, ...] = ()  # more of bubblewrap's arguments, after all others that mount
    steps_into_root: bool = False  # the command may call chroot until it gives that right up


def detect(wanted: str, runtime: Sequence[Path] | None = None) -> Isolation:
    """The isolation of this host for the setting `sandbox`: auto, bubblewrap or process. Raises SandboxUnavailable."""
    if wanted == PROCESS:
        return Isolation(PROCESS, "plain processes, as the setting asks: models see what Eyrie sees")
    if wanted not in ("auto", BUBBLEWRAP):
        raise SandboxUnavailable(f"sandbox={wanted!r} is not one of auto, bubblewrap, process")
    try:
        return _bubblewrap(list(runtime or runtime_paths()))
    except SandboxUnavailable as why:
        if wanted == BUBBLEWRAP:
            raise SandboxUnavailable(f"sandbox=bubblewrap was asked for, but {why}") from None
        return Isolation(PROCESS, f"plain processes, models see what Eyrie sees: {why}")


def arguments(sandbox: Sandbox, uid_inside: bool) -> list[str]:
    """bubblewrap's arguments, without the command. `uid_inside`: the command itself steps down to `sandbox.uid`."""
    args = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "instance"]
    args += [] if sandbox.network else ["--unshare-net"]
    args += _privileges(uid_inside, sandbox.steps_into_root)
    args += ["--new-session", "--clearenv", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        args += _root_link(name)
    args += ["--proc", "/proc", "--dev", "/dev"]
    for path, size in (("/dev/shm", SHM_BYTES_MAX), ("/tmp", TMP_BYTES_MAX)):
        args += ["--perms", "1777", "--size", str(size), "--tmpfs", path]
    folders = [*sandbox.read_only, *sandbox.writable, *(f"/etc/{name}" for name in (*_ETC, *_NETWORK_ETC)), "/run/x"]
    for folder in _above(folders):
        args += ["--perms", "0755", "--dir", folder]
    for inside, outside in sorted(sandbox.read_only.items()):
        args += ["--ro-bind", outside, inside]
    args += [part for name in _ETC for part in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")]
    if sandbox.network:
        args += [part for name in _NETWORK_ETC for part in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")]
    for path in sandbox.hidden:
        args += ["--perms", "0755", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
    for inside, outside in sorted(sandbox.writable.items()):
        args += ["--bind", outside, inside]
    args += sandbox.mounts
    environment = {**ENVIRONMENT, "HOME": "/tmp", "TMPDIR": "/tmp", **(sandbox.environment or {})}
    args += [part for name, value in environment.items() for part in ("--setenv", name, value)]
    return [*args, "--chdir", "/tmp", "--remount-ro", "/"]


def step_down(uid: int | None) -> list[str]:
    """The words before a command, inside, that take the last rights from it."""
    if uid is None:
        return []
    who = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return ["/usr/bin/setpriv", *who, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


def runtime_paths() -> list[Path]:
    """What a model server must be able to read besides /usr: this Python's environment, its base, and Eyrie's
    package.
    """
    found = [
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sys.executable).parent,
        Path(sys.executable).resolve().parent,
    ]
    found += [Path(p) for p in (*sys.path, *site.getsitepackages()) if p.endswith(("site-packages", "dist-packages"))]
    found.append(Path(eyrie.__file__).parent)
    return outermost(path for path in found if path.is_dir())


def outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that lie neither below another one nor below /usr."""
    kept: list[Path] = []
    for path in sorted({p.absolute() for p in paths} - {Path("/")}):
        if not any(path.is_relative_to(above) for above in (Path("/usr"), *kept)):
            kept.append(path)
    return kept


def hidden_paths(runtime: Sequence[Path], data: Path) -> tuple[str, ...]:
    """The data directory, where it lies below something that instances see."""
    return (str(data),) if any(data.is_relative_to(path) for path in (Path("/usr"), *runtime)) else ()


def _privileges(uid_inside: bool, steps_into_root: bool) -> list[str]:
    kept = ["CAP_SETPCAP", "CAP_SYS_CHROOT"] if steps_into_root else []
    if uid_inside:
        kept = [*{*kept, "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"}]  # for the step down, inside
    user = [] if uid_inside or os.getuid() == 0 else ["--unshare-user"]
    return [*user, "--cap-drop", "ALL", *(part for cap in sorted(kept) for part in ("--cap-add", cap))]


def _root_link(name: str) -> list[str]:
    path = Path("/", name)
    if path.is_symlink():
        return ["--symlink", os.readlink(path).lstrip("/"), f"/{name}"]
    return ["--ro-bind", f"/{name}", f"/{name}"] if path.is_dir() else []


def _above(paths: Iterable[str]) -> list[str]:
    """Every folder above the paths, outermost first: bubblewrap itself would make them unreadable for another user."""
    found = {str(parent) for path in paths for parent in Path(path).parents if str(parent) != "/"}
    mounted = {"/tmp", "/dev", "/proc"}  # their modes are set
    return sorted(p for p in found - mounted if not Path(p).is_relative_to("/usr"))


def _bubblewrap(runtime: list[Path]) -> Isolation:
    """Find bubblewrap and try the whole recipe with this interpreter. Raises SandboxUnavailable."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailable("bubblewrap (the command bwrap) is not installed")
    options = subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S).stdout
    missing = [name for name in _NEEDED_OPTIONS if name not in options]
    if missing:
        raise SandboxUnavailable(f"this bubblewrap is too old, it lacks {', '.join(missing)} (0.8 has all)")
    uids = _uids() if os.getuid() == 0 else None
    if os.getuid() == 0 and uids is None:
        raise SandboxUnavailable("Eyrie runs as root where no other user id can be taken")
    if uids is not None and not os.path.exists("/usr/bin/setpriv"):
        raise SandboxUnavailable("setpriv (package util-linux) is not installed")
    how = f"own user id from {uids[0]}" if uids else "a user namespace"
    found = Isolation(BUBBLEWRAP, f"bubblewrap, {how}", bwrap, uids, seccomp.program())
    _try_out(found, runtime)
    return found


def _try_out(isolation: Isolation, runtime: list[Path]) -> None:
    uid = isolation.uids[0] if isolation.uids else None
    sandbox = Sandbox({str(p): str(p) for p in runtime}, {}, uid=uid)
    command = [*step_down(uid), sys.executable, "-I", "-c", "import eyrie; print('reachable')"]
    with tempfile.TemporaryFile() as program:
        program.write(isolation.seccomp or b"")
        program.seek(0)
        denied = ["--seccomp", str(program.fileno())] if isolation.seccomp else []
        try:
            tried = subprocess.run(
                [isolation.bubblewrap, *arguments(sandbox, uid is not None), *denied, "--", *command],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=PROBE_TIMEOUT_S,
                pass_fds=(program.fileno(),),
                env={},
            )
        except subprocess.TimeoutExpired:
            raise SandboxUnavailable("a trial sandbox did not start in time") from None
    if tried.stdout.strip() != "reachable":
        last = (tried.stderr.strip().splitlines() or ["no output"])[-1]
        raise SandboxUnavailable(f"a trial sandbox failed: {last[:300]}")


def _uids() -> tuple[int, int] | None:
    """The first range of user ids that exists in this user namespace."""
    with open("/proc/self/uid_map") as file:
        mapped = [tuple(map(int, re.findall(r"\d+", line))) for line in file]
    for first, count in UIDS:
        if any(inside <= first and first + count <= inside + size for inside, _, size in mapped):
            return first, count
    return None
