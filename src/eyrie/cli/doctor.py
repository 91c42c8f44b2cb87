"""`eyrie doctor`: what isolation, limits and extras this machine offers, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eyrie import __version__
from eyrie.settings import Settings

_OPEN_FILES_WANTED = 8192
_EXTRAS = {
    "scikit-learn": "sklearn",
    "skops": "sklearn",
    "xgboost-cpu": "xgboost",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `good` is None for a plain fact."""

    what: str
    found: str
    good: bool | None = None
    advice: str = ""


def run(settings: Settings) -> None:
    """Print the findings. Missing optional things are no failure: the exit code is 0."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings(settings):
        mark = {True: Text("ok", "green"), False: Text("--", "yellow"), None: Text("  ")}[finding.good]
        table.add_row(mark, finding.what, f"{finding.found}{'; ' + finding.advice if finding.advice else ''}")
    Console().print(table)


def findings(settings: Settings) -> list[Finding]:
    """Everything there is to say, in order."""
    checks: list[Callable[[], Finding]] = [
        _versions,
        _host,
        lambda: _data(settings),
        _open_files,
        _bubblewrap,
        _cgroups,
        _installer,
    ]
    return [check() for check in checks] + [_extra(package, extra) for package, extra in _EXTRAS.items()]


def _versions() -> Finding:
    return Finding(
        "eyrie", f"{__version__} on Python {sys.version.split()[0]}, {os.uname().sysname} {os.uname().release}"
    )


def _host() -> Finding:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    return Finding(
        "host",
        f"{cores} cores, {memory_gb:.1f} GB; instance types are caps, and the host overcommits",
    )


def _data(settings: Settings) -> Finding:
    free_gb = shutil.disk_usage(_existing(settings.data)).free / 1e9
    return Finding(
        "data",
        f"{settings.data}, {free_gb:.1f} GB free",
        free_gb > 1,
        "" if free_gb > 1 else "make room for models and logs",
    )


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = hard >= _OPEN_FILES_WANTED
    return Finding(
        "open files", f"{soft} (at most {hard})", good, "" if good else f"raise the hard limit to {_OPEN_FILES_WANTED}"
    )


def _bubblewrap() -> Finding:
    path = shutil.which("bwrap")
    if path is None:
        return Finding(
            "isolation",
            "plain processes: bubblewrap is missing",
            False,
            "install the package `bubblewrap` for sandboxes",
        )
    probe = [path, "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--unshare-ipc", "true"]
    try:
        done = subprocess.run(probe, capture_output=True, timeout=10, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("isolation", f"plain processes: {path} does not run ({error})", False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Finding(
            "isolation",
            f"plain processes: {path} may not make sandboxes ({last})",
            False,
            "allow unprivileged user namespaces",
        )
    return Finding("isolation", f"bubblewrap sandboxes ({path})", True)


def _cgroups() -> Finding:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        version, places = "v2", [root]
    else:
        version, places = "v1", [root / "cpu", root / "memory"]
    if not all(place.is_dir() for place in places):
        return Finding(
            "limits", "none: no cgroup tree with cpu and memory", False, "instances share CPU and memory without a cap"
        )
    if not all(os.access(place, os.W_OK) for place in places):
        return Finding(
            "limits",
            f"cgroup {version}, not writable for this user",
            False,
            "instances share CPU and memory without a cap",
        )
    return Finding("limits", f"cgroup {version}, writable", True)


def _installer() -> Finding:
    try:
        import uv  # type: ignore[import-not-found,unused-ignore]

        return Finding("requirements.txt", f"built with {uv.find_uv_bin()}", True)
    except (ImportError, FileNotFoundError):
        path = shutil.which("uv")
    if path is not None:
        return Finding("requirements.txt", f"built with {path}", True)
    return Finding("requirements.txt", "uv is missing", False, "install uv so that models may bring their requirements")


def _extra(package: str, extra: str) -> Finding:
    try:
        return Finding(package, importlib.metadata.version(package), True)
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "not installed", False, f"pip install 'eyrie[{extra}]'")
