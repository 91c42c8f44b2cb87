"""What is known of the kinds of slots that are needed: which frameworks are installed, what an instance's files say,
and, in `DATA/warm.json`, when each kind was last started, so that the next control keeps the right slots warm.

Asked by adapters/compute_process; decide/warmth decides what follows.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from eyrie.adapters.placing import container_folders
from eyrie.adapters.slots import read_bounded
from eyrie.decide.warmth import Contents
from eyrie.domain.fleet import InstanceSpec
from eyrie.domain.kinds import FRAMEWORKS, kind_of

NAMES_MAX = 200  # of a folder that are looked at
KINDS_MAX = 32  # that are remembered; the oldest are forgotten first


def installed() -> tuple[str, ...]:
    """The frameworks that are installed here. Imports none of them."""
    return tuple(name for name, known in FRAMEWORKS.items() if importlib.util.find_spec(known.library) is not None)


def divided(imports: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The setting EYRIE_SLOT_IMPORTS: the kind of the first slots, and the modules that every slot imports."""
    names = {known.library: name for name, known in FRAMEWORKS.items()} | {name: name for name in FRAMEWORKS}
    here = installed()
    first = kind_of(names[given] for given in imports if given in names and names[given] in here)
    return first, tuple(given for given in imports if given not in names)


def contents_of(spec: InstanceSpec, place: Callable[[str], Path | None]) -> Iterator[Contents]:
    """Each container's image, files and requirements; `place` knows where a path below /opt/ml is on this host."""
    for container, folder in zip(spec.containers, container_folders(spec), strict=True):
        model, deps = place(str(Path(folder, "model"))), place(str(Path(folder, "deps")))
        brings = (name for name in _names(deps) if name.endswith(".dist-info/"))
        yield Contents(container.image, _names(model), tuple(map(_distribution, brings)))


def _names(folder: Path | None) -> tuple[str, ...]:
    """Names in a folder, those of folders with a slash at their end."""
    if folder is None or not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        return tuple(e.name + ("/" if e.is_dir() else "") for e in itertools.islice(entries, NAMES_MAX))


def _distribution(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.removesuffix(".dist-info/").rpartition("-")[0]).lower()


class LastStarts:
    """When an instance of each kind was last started, milliseconds since the epoch; kept in a file. Safe from threads.

    A file that cannot be read or written costs warm slots of the right kind after a restart, nothing else.
    """

    def __init__(self, data: Path) -> None:
        self._path = data / "warm.json"
        self._lock = threading.Lock()
        self._known = self._read()

    def of_all(self) -> dict[str, int]:
        """By kind."""
        with self._lock:
            return dict(self._known)

    def note(self, kind: str, now_ms: int) -> None:
        """An instance of a kind is started now."""
        with self._lock:
            self._known[kind] = now_ms
            newest = sorted(self._known, key=lambda k: -self._known[k])[:KINDS_MAX]
            self._known = {k: self._known[k] for k in newest}
            half = self._path.with_suffix(".half")
            try:
                half.write_bytes(msgspec.json.encode(self._known))
                os.replace(half, self._path)
            except OSError:
                return

    def _read(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(read_bounded(self._path) or b"{}", type=dict[str, int])
        except (msgspec.DecodeError, msgspec.ValidationError):
            return {}
