"""How transition tables are read: from where one may go where. A move that a table lacks is a defect, and raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from eyrie.domain.errors import IllegalTransition

State = TypeVar("State", bound=str)


def moved(table: Mapping[State, frozenset[State]], subject: str, source: State, destination: State) -> State:
    """`destination`, if the table leads there from `source`. Raises IllegalTransition otherwise."""
    if destination not in table[source]:
        raise IllegalTransition(subject, source, destination)
    return destination
