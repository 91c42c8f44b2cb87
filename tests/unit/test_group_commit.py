"""A file that commits in groups, on a disk that fails."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from eyrie.adapters import group_commit
from eyrie.adapters.group_commit import GroupCommit
from eyrie.adapters.sqlite_file import open_file

SCHEMA = "CREATE TABLE noted (text TEXT);"


class Failing:
    """A connection that refuses some statements, once each."""

    def __init__(self, db: sqlite3.Connection, *refused: str) -> None:
        self._db = db
        self.refused = list(refused)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement in self.refused:
            self.refused.remove(statement)
            raise sqlite3.OperationalError("disk I/O error")
        return self._db.execute(statement, *values)


def noting(text: str) -> Any:
    return lambda db: db.execute("INSERT INTO noted VALUES (?)", (text,)).rowcount


def test_a_commit_and_a_rollback_that_fail_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[Failing] = []

    def opened(*where: Any, **how: Any) -> Failing:
        connections.append(Failing(open_file(*where, **how)))
        return connections[-1]

    async def run() -> list[str]:
        async with asyncio.timeout(60):
            file = GroupCommit(tmp_path / "file.db", SCHEMA, 1)
            await file.write(noting("first"))
            connections[0].refused += ["COMMIT", "ROLLBACK"]
            with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
                await file.write(noting("lost"))
            assert not connections[0].refused
            await file.write(noting("second"))
            found = [row[0] for row in file.db.execute("SELECT text FROM noted")]
            file.close()
            return found

    monkeypatch.setattr(group_commit, "open_file", opened)
    assert asyncio.run(run()) == ["first", "second"]


def test_a_full_disk_refuses_a_write_and_takes_the_next_that_fits(tmp_path: Path) -> None:
    async def run() -> list[str]:
        async with asyncio.timeout(60):
            file = GroupCommit(tmp_path / "file.db", SCHEMA, 1)
            await file.write(lambda db: db.execute("PRAGMA max_page_count = 20").fetchone())
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await file.write(noting("x" * 500_000))
            await file.write(noting("small"))
            found = [row[0] for row in file.db.execute("SELECT text FROM noted")]
            file.close()
            return found

    assert asyncio.run(run()) == ["small"]
