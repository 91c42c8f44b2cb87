"""The endpoint's own service in control: the commands that the API calls, and the one way that a Decision is stored.

A command reads, decides (decide/endpoint), commits and wakes the loop; on a Conflict it reads again. Called from API
threads and from the loop; the store is what serialises them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from eyrie.adapters.described import described
from eyrie.decide import endpoint as decide
from eyrie.decide.steering import Steer, steer
from eyrie.domain.endpoint import CapacityChange, Endpoint, FleetSpec
from eyrie.domain.errors import CapacityChanged, EndpointExists, EndpointMissing
from eyrie.domain.names import EndpointKey, Scope
from eyrie.domain.plan import Decision
from eyrie.domain.stored import endpoint_of_today
from eyrie.ports import Action, Clock, Commit, Conflict, Document, Event, Identity, Store

described(Endpoint)  # it is read into in several threads

KIND = "Endpoint"
ATTEMPTS_MAX = 20  # of one command against concurrent commits

Wake = Callable[[EndpointKey], None]


def encode(endpoint: Endpoint) -> dict[str, Any]:
    """The document body of an endpoint."""
    body: dict[str, Any] = msgspec.to_builtins(endpoint)
    return body


def decode(body: dict[str, Any]) -> Endpoint:
    """The endpoint of a document body, also of one that an earlier version stored. Raises msgspec.ValidationError for
    anything else.
    """
    return msgspec.convert(endpoint_of_today(body), Endpoint)


@dataclass(frozen=True, slots=True)
class Also:
    """What goes into the commit of a command besides: another root kind's step that the command is part of."""

    puts: Sequence[Document] = ()
    events: Sequence[Event] = ()


class Endpoints:
    """Commands and reads of endpoints. `wake` is called, from any thread, after each commit that changed one."""

    def __init__(self, store: Store, clock: Clock, identity: Identity, wake: Wake) -> None:
        self._store = store
        self._clock = clock
        self._identity = identity
        self._wake = wake

    def get(self, key: EndpointKey) -> Endpoint | None:
        """The endpoint as it is stored now."""
        return self.read(key)[0]

    def list(self, scope: Scope | None = None) -> list[Endpoint]:
        """Every endpoint of a scope, or of all."""
        return [decode(d.body) for d in self._store.scan(KIND, scope)]

    def owed(self) -> set[str]:
        """Ids of all effects that are owed to the world."""
        return {action.action_id for action in self._store.outbox()}

    def create(
        self,
        key: EndpointKey,
        wish: FleetSpec,
        data_capture: dict[str, Any] | None = None,
        deployment_config: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        also: Sequence[Document] = (),
    ) -> Endpoint:
        """CreateEndpoint; `also` are documents (its tags) that go into the same commit. Raises a domain Refused."""

        def make(now: Endpoint | None, now_ms: int) -> Decision:
            if now is not None:
                raise EndpointExists(now.arn)
            uid = "e-" + self._identity.token(12)
            return decide.create(key, uid, wish, now_ms, data_capture, deployment_config, options)

        return self._command(key, make, Also(also))

    def update(self, key: EndpointKey, asked: decide.Update, also: Also | None = None) -> Endpoint:
        """UpdateEndpoint; `also` goes into the same commit. Raises a domain Refused."""
        return self._command(key, lambda now, now_ms: decide.update(_present(key, now), asked, now_ms), also or Also())

    def update_weights(self, key: EndpointKey, changes: Sequence[CapacityChange], also: Also | None = None) -> Endpoint:
        """UpdateEndpointWeightsAndCapacities; `also` goes into the same commit. Raises a domain Refused."""

        def make(now: Endpoint | None, now_ms: int) -> Decision:
            return decide.update_weights_and_capacities(_present(key, now), changes, now_ms)

        return self._command(key, make, also or Also())

    def scale(
        self, key: EndpointKey, variant: str, before: int, count: int, why: str, also: Sequence[Document] = ()
    ) -> Endpoint:
        """Change a variant's count as `update_weights` does, if it is still `before`; `also` goes into the same commit.
        A growth on its way may grow further.

        Raises a domain Refused.
        """

        def make(now: Endpoint | None, now_ms: int) -> Decision:
            endpoint = _present(key, now)
            found = endpoint.fleet.variant(variant)
            if found is not None and found.desired_count != before:
                raise CapacityChanged(variant, before, found.desired_count)
            changes = [CapacityChange(variant, count=count)]
            return decide.update_weights_and_capacities(endpoint, changes, now_ms, why, overtake=True)

        return self._command(key, make, Also(also))

    def provision(
        self, key: EndpointKey, variant: str, before: int, count: int, why: str, also: Sequence[Document] = ()
    ) -> Endpoint:
        """Change a serverless variant's ProvisionedConcurrency, if it is still `before`. Raises a domain Refused."""

        def make(now: Endpoint | None, now_ms: int) -> Decision:
            endpoint = _present(key, now)
            found = endpoint.fleet.variant(variant)
            provisioned = found.serverless.provisioned if found is not None and found.serverless is not None else 0
            if provisioned != before:
                raise CapacityChanged(variant, before, provisioned)
            changes = [CapacityChange(variant, provisioned=count)]
            return decide.update_weights_and_capacities(endpoint, changes, now_ms, why)

        return self._command(key, make, Also(also))

    def steer(self, key: EndpointKey, how: Steer, why: str = "") -> Endpoint:
        """Promote, abort or pause the deployment that is on its way. Raises a domain Refused."""
        return self._command(key, lambda now, now_ms: steer(_present(key, now), how, now_ms, why))

    def delete(self, key: EndpointKey) -> Endpoint:
        """DeleteEndpoint: it is gone once every instance has stopped. Raises a domain Refused."""
        return self._command(key, lambda now, now_ms: decide.delete(_present(key, now), now_ms))

    def read(self, key: EndpointKey) -> tuple[Endpoint | None, Document | None]:
        """An endpoint with the document that it was read from."""
        document = self._store.get(KIND, key.scope, key.name)
        return (decode(document.body), document) if document is not None else (None, None)

    def store(
        self, key: EndpointKey, before: Document | None, decision: Decision, now_ms: int, also: Also | None = None
    ) -> None:
        """Commit a decision that was made from `before`. Raises Conflict when it has changed meanwhile."""
        also = also or Also()
        puts: list[Document] = list(also.puts)
        deletes: list[Document] = []
        if decision.endpoint is not None:
            puts.append(_document(key, before, decision.endpoint, now_ms))
        elif before is not None:
            deletes.append(before)
        self._store.commit(
            Commit(
                puts=puts,
                deletes=deletes,
                events=[
                    *(Event(KIND, key.scope, key.name, now_ms, n.what, n.why) for n in decision.notes),
                    *also.events,
                ],
                actions=[
                    Action(e.effect_id, KIND, key.scope, key.name, e.verb, {**e.arguments, "subject": e.subject})
                    for e in decision.effects
                ],
                finished=decision.finished,
            )
        )

    def _command(
        self, key: EndpointKey, make: Callable[[Endpoint | None, int], Decision], also: Also | None = None
    ) -> Endpoint:
        for attempt in range(ATTEMPTS_MAX):
            endpoint, document = self.read(key)
            now_ms = self._clock.now_ms()
            decision = make(endpoint, now_ms)
            assert decision.endpoint is not None
            try:
                self.store(key, document, decision, now_ms, also)
            except Conflict:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
                continue
            self._wake(key)
            return decision.endpoint
        raise AssertionError("unreachable")


def _present(key: EndpointKey, endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise EndpointMissing(key.scope.arn("endpoint", key.name))
    return endpoint


def _document(key: EndpointKey, before: Document | None, endpoint: Endpoint, now_ms: int) -> Document:
    return Document(
        kind=KIND,
        scope=key.scope,
        name=key.name,
        version=before.version if before is not None else 0,
        created_ms=endpoint.created_ms,
        modified_ms=now_ms,
        body=encode(endpoint),
    )
