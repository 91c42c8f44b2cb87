"""Compilation as a model server meets it: a compiled model that came in the archive is loaded in place of the original;
and, where the container asks for it, the original is compiled once it serves, and replaced.

EYRIE_COMPILE in the container's environment: `auto` (or nothing) serves what the archive holds, `1` also compiles what
was not compiled, `0` serves the original whatever the archive holds. Whatever goes wrong costs one line in the log, and
the original serves.

Compiling takes seconds of CPU and, for that long, the memory of a second model: it runs in a process of its own that
gives way to the one that serves. The workers of one instance share the work: the first does it, the others wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyrie.modelserver import environment
from eyrie.modelserver.batcher import SLOW_S
from eyrie.modelserver.compile import manifest as manifests
from eyrie.modelserver.compile import serving
from eyrie.modelserver.frameworks.interface import CallModel, LoadError, RowModel, Source
from eyrie.modelserver.measure import pace
from eyrie.modelserver.servable import RowServable, Servable
from eyrie.modelserver.threads import Workers

log = logging.getLogger("eyrie.modelserver")

WANTED, OFF = ("1", "on", "true"), ("0", "off", "false")
TIMEOUT_S = 900.0
NICE = 10
_PROGRAM = "eyrie.modelserver.compile.beside"

Replace = Callable[[RowModel, bool], None]  # the model, and whether the event loop may run it


def compiled_of(source: Source) -> RowModel | None:
    """The compiled model of a folder, if it holds one that is to be served; None, with one line, where it does not."""
    if _setting(source.env) in OFF:
        return None
    try:
        manifest = manifests.read(source.model_dir)
        if manifest is None:
            return None
        if manifest.decision != "compiled":
            log.info("the archive's compiled model was no faster when it was measured: serving the original")
            return None
        return serving.load(source.model_dir, source.env)
    except LoadError as error:
        log.warning("the compiled model is not served, the original is: %s", error)
        return None


def begin(
    source: Source, model: RowModel | CallModel, servable: Servable, loop: asyncio.AbstractEventLoop, threads: int
) -> Compiling | None:
    """Compile a model that serves already, where its container asks for it; None where there is nothing to do.

    `threads`: for a compiled model that is too slow for the event loop.
    """
    if _setting(source.env) not in WANTED or isinstance(model, serving.CompiledModel):
        return None
    if not isinstance(servable, RowServable) or not isinstance(model, RowModel):
        log.warning("EYRIE_COMPILE is set, but only models of rows are compiled: serving this one as it is")
        return None

    def replace(compiled: RowModel, on_loop: bool) -> None:
        servable.replace(compiled, 0 if on_loop else threads)

    compiling = Compiling(source, replace, Workers(1, 1, loop.call_soon_threadsafe, "compile"))
    compiling.start()
    return compiling


@dataclass(slots=True)
class Compiling:
    """One model's compilation beside the server. Lives on the event loop; the work is in a thread, and in its child."""

    source: Source
    replace: Replace
    workers: Workers  # one thread
    state: dict[str, Any] = field(default_factory=lambda: {"phase": "compiling"})  # for GET /eyrie/state

    def start(self) -> None:
        """Start; returns at once."""
        log.info("compiling the model; the original serves meanwhile")
        self.workers.run(lambda: _compile(self.source), self._done)

    def _done(self, outcome: Any) -> None:
        if isinstance(outcome, BaseException):
            self.state = {"phase": "done", "decision": "original", "reason": str(outcome)}
            log.warning("the model is not compiled, the original serves on: %s", outcome)
            return
        self.state = {"phase": "done", **outcome.report}
        if outcome.model is None:
            log.warning("the model is not compiled, the original serves on: %s", outcome.report.get("reason"))
            return
        self.replace(outcome.model, outcome.on_loop)
        log.info("%s: serving the compiled model from now on", outcome.report.get("reason"))


@dataclass(frozen=True, slots=True)
class _Outcome:
    report: Mapping[str, Any]
    model: RowModel | None = None
    on_loop: bool = False


def _compile(source: Source) -> _Outcome:
    """In a thread: have it compiled, and load what came out, warmed up. Raises LoadError, OSError."""
    folder = _compiled_here(source)
    report = json.loads((folder / manifests.FOLDER / manifests.REPORT).read_bytes())
    if report["decision"] != "compiled":
        return _Outcome(report)
    model = serving.load(folder, source.env)
    return _Outcome(report, model, pace(model.predict, model.shape, time.perf_counter).quick(SLOW_S))


def _compiled_here(source: Source) -> Path:
    """A folder of ours with `compiled/`, made by whichever worker comes first. Raises LoadError."""
    key = hashlib.sha256(f"{source.model_dir} {os.getuid()}".encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"eyrie-compiled-{key}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with _locked(folder / "lock"):
        if not (folder / manifests.FOLDER / manifests.REPORT).is_file():
            _run(source, folder)
    return folder


def _run(source: Source, folder: Path) -> None:
    """The child: a process that gives way. Raises LoadError with its last line."""
    told = json.dumps({"ml": str(source.ml), "image": source.image, "folder": str(folder)})
    words = ["nice", "-n", str(NICE), sys.executable, "-I", "-B", "-m", _PROGRAM]
    try:
        done = subprocess.run(
            words, input=told, capture_output=True, text=True, timeout=TIMEOUT_S, env=dict(source.env), check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"the compilation took longer than {TIMEOUT_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise LoadError(f"the compilation ended with code {done.returncode}: {last[:300]}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _setting(env: Mapping[str, str]) -> str:
    return env.get(environment.COMPILE, "").strip().lower()
