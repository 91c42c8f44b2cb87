"""Assessments that were kept: `DATA/assessments/ENDPOINT/STAMP.json` with its page beside it, the newest of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eyrie.cli import data as datadir
from eyrie.cli.errors import CommandError
from eyrie.domain.assessment import FORMAT, Assessment, Change

KEPT_MAX = 100  # of an endpoint
BYTES_MAX = 64 * 1024 * 1024


def document(found: Assessment) -> dict[str, Any]:
    """All of it as plain values."""
    told = {"format": FORMAT, **asdict(found)}
    if found.availability is not None:
        told["availability"] |= {
            "of_seconds": round(found.availability.of_seconds, 8),
            "of_requests": round(found.availability.of_requests, 8),
            "budget_used": round(found.availability.budget_used, 6),
        }
    return told


def plain(change: Change) -> dict[str, Any]:
    """One figure of a comparison as plain values."""
    return asdict(change)


def keep(data: Path, found: Assessment, page: str) -> tuple[Path, Path]:
    """Write both; the oldest of too many go. Raises CommandError where they cannot be written."""
    folder = _folder(data, found.endpoint)
    stamp = found.at.replace(":", "").replace("+0000", "Z")
    paths = folder / f"{stamp}.json", folder / f"{stamp}.html"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        datadir.write_whole(paths[0], json.dumps(document(found), indent=1) + "\n", 0o600)
        datadir.write_whole(paths[1], page, 0o600)
        for old in sorted(folder.glob("*.json"))[:-KEPT_MAX]:
            old.unlink()
            old.with_suffix(".html").unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"the assessment cannot be kept in {folder}: {error.strerror}") from None
    return paths


def earlier(data: Path, endpoint: str) -> list[dict[str, Any]]:
    """Those that were kept of an endpoint, oldest first."""
    return [read(path) for path in sorted(_folder(data, endpoint).glob("*.json"))]


def against(data: Path, endpoint: str, given: str) -> dict[str, Any]:
    """The one to compare with: a file, or "last" that was kept. Raises CommandError."""
    if given != "last":
        return read(Path(given))
    kept = sorted(_folder(data, endpoint).glob("*.json"))
    if not kept:
        raise CommandError(f"no earlier assessment of {endpoint} was kept", code=2)
    return read(kept[-1])


def read(path: Path) -> dict[str, Any]:
    """An assessment's document. Raises CommandError."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise CommandError(f"{path} is larger than {BYTES_MAX // 1024 // 1024} MiB", code=2)
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {error}", code=2) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CommandError(f"{path} is no assessment of this form (format {FORMAT})", code=2)
    return found


def _folder(data: Path, endpoint: str) -> Path:
    return data / "assessments" / endpoint
