"""A decision being made: an endpoint's copy that the steps of decide/reconcile change, with its reasons and effects.

It lives within one call of `reconcile.plan` and never leaves it; what leaves is the Decision that `close` makes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eyrie.domain.endpoint import STATUS_MOVES, Endpoint, EndpointStatus
from eyrie.domain.fleet import INSTANCE_MOVES, Instance, InstanceState
from eyrie.domain.observation import Observation
from eyrie.domain.plan import Decision, Effect, Note, Verb
from eyrie.domain.transition import moved


class Draft:
    """The working copy. `seen` is the observation that the decision rests on."""

    def __init__(self, endpoint: Endpoint, seen: Observation, now_ms: int) -> None:
        self.endpoint = endpoint
        self.seen = seen
        self.now_ms = now_ms
        self.gone = False  # the endpoint is to be removed
        self._notes: list[Note] = []
        self._effects: dict[str, Effect] = {}
        self._wake_ms: int | None = None

    def note(self, what: str, why: str) -> None:
        """A line for the story."""
        self._notes.append(Note(what, why))

    def change(self, **fields: Any) -> None:
        """Change fields of the endpoint."""
        self.endpoint = replace(self.endpoint, **fields)

    def status(self, status: EndpointStatus, why: str) -> None:
        """Move the endpoint to a status. Raises IllegalTransition where the table has no such way."""
        moved(STATUS_MOVES, self.endpoint.arn, self.endpoint.status, status)
        self.change(status=status, modified_ms=self.now_ms)
        self.note(f"endpoint {status}", why)

    def add(self, instance: Instance) -> None:
        """A new instance."""
        self.change(instances=(*self.endpoint.instances, instance))
        self.note(f"instance {instance.instance_id} {instance.state} in zone {instance.zone}", instance.reason)

    def put(self, instance: Instance) -> Instance:
        """Keep a changed instance."""
        self.change(
            instances=tuple(instance if i.instance_id == instance.instance_id else i for i in self.endpoint.instances)
        )
        return instance

    def move(self, instance: Instance, state: InstanceState, why: str, **fields: Any) -> Instance:
        """Move an instance to a state. Raises IllegalTransition where the table has no such way."""
        moved(INSTANCE_MOVES, instance.instance_id, instance.state, state)
        self.note(f"instance {instance.instance_id} {state}", why)
        return self.put(replace(instance, state=state, reason=why, since_ms=self.now_ms, **fields))

    def drop(self, instance: Instance) -> None:
        """Keep an instance no longer: nothing is left of it."""
        self.change(instances=tuple(i for i in self.endpoint.instances if i.instance_id != instance.instance_id))

    def effect_id(self, verb: Verb, subject: str) -> str:
        """The idempotency key of an effect on a subject of this endpoint."""
        return f"{self.endpoint.uid}/{verb}/{subject}"

    def owed(self, verb: Verb, subject: str) -> bool:
        """True while an effect on a subject has not ended, whether it was owed before or is by this decision."""
        effect_id = self.effect_id(verb, subject)
        return effect_id in self.seen.pending or effect_id in self._effects

    def owe(self, verb: Verb, subject: str, turn: str = "", **arguments: Any) -> None:
        """An effect to do; `turn` tells repetitions for one subject apart."""
        effect_id = self.effect_id(verb, subject + ("/" + turn if turn else ""))
        self._effects.setdefault(effect_id, Effect(effect_id, verb, subject, arguments))

    def wake_at(self, at_ms: int) -> None:
        """Look again at that time at the latest."""
        if self._wake_ms is None or at_ms < self._wake_ms:
            self._wake_ms = at_ms

    def close(self) -> Decision:
        """The decision that was made."""
        return Decision(
            endpoint=None if self.gone else self.endpoint,
            notes=tuple(self._notes),
            effects=tuple(self._effects.values()),
            finished=tuple(o.effect_id for o in self.seen.outcomes),
            wake_ms=self._wake_ms,
        )
