"""Starts the `serve` program of a container: inside its root file system, without any right, its output in a pipe.

Who starts it is Eyrie's own code in the sandbox of the instance, which has one right for a moment where there is a root
file system to step into (chroot). The sandbox is what confines; stepping into the root file system is for the view.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 1, 8, 23, 24
_CAPABILITY_VERSION_3 = 0x20080522
_SETPCAP, _SYS_CHROOT = 8, 18
_CAPABILITIES = 64
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Started:
    """A program that runs. `output` is the reading end of its standard output and error."""

    pid: int
    output: int


def step_down(uid: int | None, keep: bool) -> None:
    """Become a user without rights; `keep` those that `start` needs to step into a root file system, until
    `drop_rights`. Raises OSError.
    """
    if uid is None:
        return
    libc = _libc()
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _set_capabilities(libc, (1 << _SETPCAP | 1 << _SYS_CHROOT) if keep else 0)


def start(command: Sequence[str], environment: Mapping[str, str], workdir: str, root: str) -> Started:
    """Start a program; its first word is found along the PATH of its environment. Raises OSError."""
    libc = _libc()
    output, theirs = os.pipe()

    def enter() -> None:
        """In the child, before the program."""
        if root:
            os.chroot(root)
        os.chdir(workdir)
        _drop(libc)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    try:
        child = subprocess.Popen(
            [_found(command[0], environment.get("PATH", DEFAULT_PATH), root), *command[1:]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=enter,
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(theirs)
    child.returncode = 0  # it is reaped by its pidfd, not by subprocess
    return Started(child.pid, output)


def drop_rights() -> None:
    """Give up for ever what `step_down` kept. Raises OSError."""
    _drop(_libc())


def _found(name: str, path: str, root: str) -> str:
    """The program's path as the program will see it; the name itself where there is none, for exec to complain of."""
    if "/" in name:
        return name
    for folder in path.split(":"):
        place = f"{root}{folder}/{name}"
        if folder and (os.path.islink(place) or (os.path.isfile(place) and os.stat(place).st_mode & 0o111)):
            return f"{folder}/{name}"
    return name


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _drop(libc: ctypes.CDLL) -> None:
    for number in range(_CAPABILITIES):
        if libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused where there is no right to: then none is had either
    _set_capabilities(libc, 0)


def _set_capabilities(libc: ctypes.CDLL, kept: int) -> None:
    header = _Header(_CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)(_Sets(kept, kept, 0), _Sets(0, 0, 0))
    if libc.capset(ctypes.byref(header), ctypes.byref(sets)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities could not be set: {os.strerror(number)}")
