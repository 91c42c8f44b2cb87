"""What the rollout tests count by: it sees a worker that gives green too much, and a table that was missed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from rollouts_world import Counted, Table, Tables, excesses, share_of

BLUE, GREEN = 5, 6


def seen(tmp_path: Path, **shares: float) -> Tables:
    """Tables by generation, with green's share."""
    tables = Tables(tmp_path / "none.json")
    tables.seen = {int(g[1:]): Table({BLUE: 1 - share, GREEN: share}, {}) for g, share in shares.items()}
    return tables


@pytest.mark.parametrize(("green", "wrong"), [(10, 0), (11, 0), (12, 1)])
def test_a_request_too_much_is_seen(tmp_path: Path, green: int, wrong: int) -> None:
    tables = seen(tmp_path, g1=0.0, g2=0.1)
    found = Counted(Counter({("w", 1, BLUE): 500, ("w", 2, BLUE): 100 - green, ("w", 2, GREEN): green}))
    assert len(excesses(found, tables, GREEN)) == wrong
    assert excesses(found, tables, GREEN, slack=2) == []


def test_each_worker_counts_for_itself(tmp_path: Path) -> None:
    tables = seen(tmp_path, g1=0.1)
    found = Counted(Counter({("v", 1, BLUE): 10_000, ("w", 1, BLUE): 100, ("w", 1, GREEN): 30}))
    (wrong,) = excesses(found, tables, GREEN)
    assert wrong.startswith("w, table 1: 30 of 130")


def test_a_table_that_was_missed_allows_no_more_than_those_around_it(tmp_path: Path) -> None:
    tables = seen(tmp_path, g1=0.0, g3=0.1, g5=0.5)
    assert [share_of(tables, g, GREEN) for g in range(7)] == [0.0, 0.0, 0.1, 0.1, 0.5, 0.5, 0.5]
