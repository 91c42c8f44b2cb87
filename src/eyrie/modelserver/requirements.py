"""Whether the built requirements of several containers can be found side by side in one process.

Each container's are a folder of distributions, as pip installs them. Two that hold different versions of one, or one
that differs from what the server itself runs with, would give some container a version that it did not ask for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from eyrie.modelserver.frameworks.interface import LoadError


def check(folders: Sequence[tuple[str, Path]]) -> None:
    """Look at every container's requirements, by hostname. Raises LoadError that names what does not agree."""
    known: dict[str, tuple[str, str]] = {}
    for hostname, folder in folders:
        for name, wanted in distributions(folder).items():
            holder, here = known.setdefault(name, (hostname, wanted))
            if here != wanted:
                raise LoadError(
                    f"the requirements of container {holder} hold {name} {here}, those of {hostname} {wanted}: "
                    "containers of one instance share a process, so they must agree"
                )
            own = installed(name)
            if own not in ("", wanted):
                raise LoadError(
                    f"the requirements of container {hostname} hold {name} {wanted}, and the server runs with {own}: "
                    "several containers share it, so leave it out or ask for the same"
                )


def distributions(folder: Path) -> dict[str, str]:
    """Version by normalised name of the distributions in a folder."""
    found = {}
    for path in sorted(folder.glob("*.dist-info")):
        name, _, release = path.name.removesuffix(".dist-info").rpartition("-")
        if name:
            found[_normalised(name)] = release
    return found


def installed(name: str) -> str:
    """The version that this process finds without any container's requirements; "" where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
