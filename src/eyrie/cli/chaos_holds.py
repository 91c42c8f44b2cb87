"""What a fault that lasts holds, and how it lets go: processes held still, a memory limit lowered, files that cannot
grow, a box filled up, a store locked. `chaos_guard` does it in a process of its own; `release` is all that it takes to
revert one, so that others can do that too where the guard itself was killed (`chaos_journal`).

Everything that must be put back is in what is told, from the beginning, and when each process was born ("born"): a pid
that is another's by now is never touched. Nothing here ever takes this host's memory or
disk: a limit is lowered to what is used anyway, and what is filled is a share that Eyrie itself bounds.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from eyrie.adapters import process_lock
from eyrie.cli.chaos_processes import births, processes_of, started

CYCLE_S = 0.1  # of a slow process: stopped for a share of it; of the others: how often a hold is renewed
HOG_PIECE_BYTES = 4_194_304
LOCK_WITHIN_S = 10.0
PR_SET_PDEATHSIG = 1


class Hold(Protocol):
    """One kind of fault that lasts."""

    stopped_share: float  # of each cycle, in which `grip` holds; 1.0: all the time

    def grip(self) -> None:
        """Hold; called once a cycle. Raises OSError or sqlite3.Error where it cannot."""

    def release(self) -> None:
        """Let go; harmless where nothing is held."""


def known(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a guard is told, and when each process of it was born."""
    named = [_pid(one) for one in (*told.get("pids", ()), *told.get("scores", ()))]
    return {**told, "born": births(named)}


def hold_of(told: Mapping[str, Any]) -> Hold:
    """The hold of a line on the guard's standard input."""
    kind, born = told["kind"], dict(told["born"])
    pids = [one for one in told.get("pids", ()) if born[str(_pid(one))] == started(_pid(one)) != ""]
    if kind in ("hang", "slow"):
        return Stopped([int(pid) for pid in pids], float(told["share"]) if kind == "slow" else 1.0)
    if kind == "squeeze":
        scores = [(int(pid), str(before)) for pid, before in told["scores"] if born[str(pid)] == started(pid) != ""]
        return Squeezed(told["files"], scores, told["group"], int(told["bytes"]))
    if kind == "cap":
        return Capped([(int(pid), int(soft)) for pid, soft in pids])
    if kind == "full":
        return Unwritable([Path(path) for path in told["locks"]], [int(pid) for pid in pids], int(told["soft"]))
    if kind == "fill":
        return Filled(Path(told["path"]), int(told["bytes"]))
    return Locked(Path(told["path"]))


class Stopped:
    """SIGSTOP, all the time or for a share of it. A pidfd each: signals reach these processes or nobody."""

    def __init__(self, pids: Sequence[int], share: float) -> None:
        self.stopped_share = share
        self._held: list[int] = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._held.append(os.pidfd_open(pid))

    def grip(self) -> None:
        """Stop them."""
        self._send(signal.SIGSTOP)

    def release(self) -> None:
        """Continue them."""
        self._send(signal.SIGCONT)

    def __del__(self) -> None:
        for pidfd in self._held:
            os.close(pidfd)

    def _send(self, signum: signal.Signals) -> None:
        for pidfd in self._held:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signum)


class Squeezed:
    """The memory limit of a control group lowered to what is used, and one more process in it that asks for more: the
    kernel ends a process of that group, the model server first.
    """

    stopped_share = 1.0

    def __init__(
        self, files: Sequence[tuple[str, str, str]], scores: Sequence[tuple[int, str]], group: str, size: int
    ) -> None:
        self._files, self._scores, self._group, self._size = files, scores, group, size
        self._hog: int | None = None

    def grip(self) -> None:
        """Lower it, once."""
        if self._hog is not None:
            return
        for pid, _ in self._scores:
            _write(Path(f"/proc/{pid}/oom_score_adj"), "1000")
        for path, _, low in self._files:
            Path(path).write_text(low)
        self._hog = _hog(Path(self._group, "cgroup.procs"), self._size)

    def release(self) -> None:
        """As it was. The group is gone where its instance is."""
        if self._hog is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._hog, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._hog, 0)
        for path, before, _ in reversed(self._files):
            _write(Path(path), before)
        for pid, before in self._scores:
            _write(Path(f"/proc/{pid}/oom_score_adj"), before)


class Capped:
    """Where no control group caps memory: each process may have no more data than it has."""

    stopped_share = 1.0

    def __init__(self, pids: Sequence[tuple[int, int]]) -> None:
        self._pids = pids

    def grip(self) -> None:
        """Lower the soft limit."""
        for pid, _ in self._pids:
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (_data_bytes(pid), _hard(pid, resource.RLIMIT_DATA)))

    def release(self) -> None:
        """As it was."""
        for pid, soft in self._pids:
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (soft, _hard(pid, resource.RLIMIT_DATA)))


class Unwritable:
    """No file that these processes write grows or changes (RLIMIT_FSIZE 0): to them the disk is full. Those that are
    found by a lock are looked up each time, since one that dies comes back. What they start meanwhile inherits it, and
    gets its limit back with them.
    """

    stopped_share = 1.0

    def __init__(self, locks: Sequence[Path], pids: Sequence[int], soft: int) -> None:
        self._locks, self._pids, self._soft = locks, pids, soft

    def grip(self) -> None:
        """Lower the soft limit."""
        for pid in self._own():
            _limit_files(pid, 0)

    def release(self) -> None:
        """As it was: each of them first, so that nobody who comes from now on inherits it, then all below them."""
        own = self._own()
        for pid in own:
            _limit_files(pid, self._soft)
        for pid in {below for one in own for below in processes_of(one)}:
            with contextlib.suppress(OSError):
                if soft_limit(pid, resource.RLIMIT_FSIZE) == 0:
                    _limit_files(pid, self._soft)

    def _own(self) -> list[int]:
        return [*self._pids, *(pid for path in self._locks if (pid := process_lock.holder(path)) is not None)]


class Filled:
    """A file in an instance's box that takes more than the box may hold."""

    stopped_share = 1.0

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    def grip(self) -> None:
        """Write it, once; a box that is gone is none to fill."""
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._size)
            finally:
                os.close(fd)

    def release(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self._path.unlink()


class Locked:
    """An exclusive transaction on the store: nothing can be written to it. The kernel lets go when its holder dies."""

    stopped_share = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def grip(self) -> None:
        """Begin it, once."""
        if self._connection is None:
            uri = f"{self._path.absolute().as_uri()}?mode=rw"  # never makes one
            self._connection = sqlite3.connect(uri, timeout=LOCK_WITHIN_S, isolation_level=None, uri=True)
            self._connection.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        """Give it back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _hog(procs: Path, size: int) -> int:
    """A child that joins a group and asks for memory, piece by piece, until somebody in the group is killed."""
    child = os.fork()
    if child:
        return child
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        procs.write_text(str(os.getpid()))
        kept = []
        for _ in range(size // HOG_PIECE_BYTES):
            piece = mmap.mmap(-1, HOG_PIECE_BYTES)
            for at in range(0, HOG_PIECE_BYTES, mmap.PAGESIZE):
                piece[at] = 1
            kept.append(piece)
        signal.pause()
    finally:
        os._exit(0)


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)


def _limit_files(pid: int, soft: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, _hard(pid, resource.RLIMIT_FSIZE)))


def _pid(one: Any) -> int:
    """Of a pid, or of a pid with what belongs to it."""
    return int(one[0] if isinstance(one, list | tuple) else one)


def _hard(pid: int, which: int) -> int:
    return resource.prlimit(pid, which)[1]


def _data_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def soft_limit(pid: int, which: int) -> int:
    """The soft limit of a process now. Raises OSError where it may not be asked."""
    return resource.prlimit(pid, which)[0]


def refused(error: BaseException) -> str:
    """What a guard that could not hold says of it, on one line."""
    print(f"chaos_guard: {error!r}", file=sys.stderr)
    return " ".join(str(error).split()) or type(error).__name__
