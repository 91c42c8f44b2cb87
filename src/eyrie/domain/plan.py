"""What a decision consists of: the new state, the reasons, the effects that are owed. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from eyrie.domain.endpoint import Endpoint


class Verb(StrEnum):
    """Everything that a decision may want done to the world."""

    FETCH_ARTIFACT = "fetch_artifact"
    ENSURE_INSTANCE = "ensure_instance"
    STOP_INSTANCE = "stop_instance"
    FORGET_INSTANCE = "forget_instance"
    PUBLISH_ROUTE = "publish_route"
    WITHDRAW_ROUTE = "withdraw_route"
    KEEP_ARTIFACTS = "keep_artifacts"


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing to do, perhaps twice: `effect_id` is its idempotency key. Effects of one subject keep their order."""

    effect_id: str
    verb: Verb
    subject: str  # an instance id, or what else it is about
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """One line for the story: what was decided or seen, and the reason with its numbers."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an effect ended. `error` is a reason for people; None means done."""

    effect_id: str
    verb: Verb
    subject: str
    error: str | None = None
    value: str | None = None  # what it yielded: an artifact's digest


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a command or of a look at the world: one commit, then its effects."""

    endpoint: Endpoint | None  # None: the endpoint is gone
    notes: tuple[Note, ...] = ()
    effects: tuple[Effect, ...] = ()
    finished: tuple[str, ...] = ()  # ids of effects whose outcome this decision has absorbed
    wake_ms: int | None = None  # when to look again even if nothing happens
