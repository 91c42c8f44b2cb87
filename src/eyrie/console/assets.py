"""The console's own style sheet, script and icon, as they lie beside this module; addressed by their content."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from eyrie.console.markup import Html

_HERE = Path(__file__).parent / "static"
_KINDS = {".css": b"text/css; charset=utf-8", ".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml"}
PREFIX = "/console/assets/"
MARK = Html(
    '<svg class="mark" viewBox="0 0 32 32" aria-hidden="true">'
    '<path d="M3 21c4-1 6-4 8-8 2 3 4 4 7 4 4 0 8-3 11-9-1 10-6 17-14 17-5 0-9-1-12-4z"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    content: bytes
    kind: bytes
    digest: str


@functools.cache
def load(name: str) -> Asset | None:
    """A file of ours by its name; None where there is none."""
    path = _HERE / name
    kind = _KINDS.get(path.suffix)
    if kind is None or path.parent != _HERE or not path.is_file():
        return None
    content = path.read_bytes()
    return Asset(content, kind, hashlib.sha256(content).hexdigest()[:12])


def find(path: str) -> Asset | None:
    """What a request's path names: /console/assets/NAME. Only real files are looked up: the cache is bounded."""
    name = path.removeprefix(PREFIX)
    if name == path or name not in names():
        return None
    return load(name)


@functools.cache
def names() -> frozenset[str]:
    """The files that there are."""
    return frozenset(path.name for path in _HERE.iterdir() if path.suffix in _KINDS)


def url(name: str) -> str:
    """The address of a file, which changes with its content."""
    asset = load(name)
    return f"{PREFIX}{name}?v={asset.digest if asset else ''}"
