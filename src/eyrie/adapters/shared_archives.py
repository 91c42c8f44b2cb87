"""Model archives that endpoints and jobs share: what is removed is named by neither.

Endpoints say what they need when they `keep`; whoever else holds archives is asked at that moment. `held` gives a
holder the time to write down what it has fetched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eyrie.domain.names import Scope
from eyrie.ports import Artifacts


class SharedArchives:
    """The Artifacts port over another one, with more who need archives."""

    def __init__(self, inner: Artifacts, others: Callable[[], set[str]]) -> None:
        """`others`: digests that somebody besides endpoints needs."""
        self._inner, self._others = inner, others
        self._removing = threading.Lock()

    def fetch(self, scope: Scope, url: str, code_url: str | None = None) -> str:
        """Download an archive, verify and unpack it once; its sha256. Raises ArtifactError, OSError."""
        return self._inner.fetch(scope, url, code_url)

    def path(self, digest: str) -> Path:
        """The folder `artifacts/DIGEST`: `model/` unpacked."""
        return self._inner.path(digest)

    def keep(self, digests: set[str]) -> None:
        """Remove every archive that is neither named here nor needed by others."""
        with self._removing:
            self._inner.keep(digests | self._others())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is removed meanwhile."""
        with self._removing:
            yield
