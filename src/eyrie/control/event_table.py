"""Rules, connections and API destinations in the store, and what an event owes to whom.

Documents of kind "EventRule", "EventConnection" and "ApiDestination"; the default bus is the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from eyrie.adapters.described import described
from eyrie.control.deliveries import delivery_document
from eyrie.control.topics import Token, TopicMissing, publications
from eyrie.decide.event_patterns import Pattern, PatternError, parse_pattern
from eyrie.decide.events import Event, PathError, input_of
from eyrie.domain.events import ApiDestination, Connection, Delivery, EventRule, Target
from eyrie.domain.names import Scope
from eyrie.ports import Document, Store

described(EventRule, Connection, ApiDestination, Delivery)  # it is read into in several threads

RULE = "EventRule"
CONNECTION = "EventConnection"
DESTINATION = "ApiDestination"
TRIES_DEFAULT = 185  # as EventBridge has them
AGE_DEFAULT_S = 86_400
T = TypeVar("T", EventRule, Connection, ApiDestination)
_NOUNS: dict[type, str] = {EventRule: RULE, Connection: CONNECTION, ApiDestination: DESTINATION}


def find(store: Store, noun: type[T], scope: Scope, name: str) -> T | None:
    """The rule, connection or destination of that name."""
    document = store.get(_NOUNS[noun], scope, name)
    return read(noun, document) if document is not None else None


def read(noun: type[T], document: Document) -> T:
    """What a document holds."""
    return msgspec.convert(document.body, noun)


def every(store: Store, noun: type[T], scope: Scope | None = None) -> list[T]:
    """All of a kind, by name."""
    return [read(noun, document) for document in store.scan(_NOUNS[noun], scope)]


def document_of(store: Store, thing: EventRule | Connection | ApiDestination, now_ms: int) -> Document:
    """The document to put for a new one or a changed one."""
    kind = _NOUNS[type(thing)]
    found = store.get(kind, thing.scope, thing.name)
    version, created_ms = (found.version, found.created_ms) if found is not None else (0, now_ms)
    body: dict[str, Any] = msgspec.to_builtins(thing)
    return Document(kind, thing.scope, thing.name, version, created_ms, now_ms, body)


class Patterns:
    """Patterns by their text, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, Pattern | None] = {}

    def matches(self, text: str, event: Event) -> bool:
        """Whether a pattern picks an event. One that cannot be read (it was refused when it was put) picks none."""
        if len(self._known) > 10_000:
            self._known.clear()
        if text not in self._known:
            try:
                self._known[text] = parse_pattern(text)
            except PatternError:
                self._known[text] = None
        pattern = self._known[text]
        return pattern is not None and pattern.matches(event)


def matching(rules: Sequence[EventRule], patterns: Patterns, event: Event, scope: Scope) -> Iterator[EventRule]:
    """The enabled rules of an account and region that pick an event."""
    for rule in rules:
        if rule.scope == scope and rule.enabled and rule.pattern and patterns.matches(rule.pattern, event):
            yield rule


def owed_by(store: Store, rule: EventRule, event: Event, now_ms: int, token: Token) -> list[Document]:
    """A delivery for each of a rule's targets; for a topic those that its subscribers get."""
    return [one for target in rule.targets for one in _owed_to(store, rule, target, event, now_ms, token)]


def _owed_to(store: Store, rule: EventRule, target: Target, event: Event, now_ms: int, token: Token) -> list[Document]:
    try:
        body = input_of(target, event, rule.arn, rule.name, now_ms)
    except PathError:  # was refused when it was put
        body = "{}"
    if target.arn.startswith("arn:aws:sns:"):
        try:
            return publications(store, rule.scope, target.arn, body, now_ms, token)
        except TopicMissing:
            pass  # told as a delivery that is given up at once
    tries = TRIES_DEFAULT if target.retries_max is None else target.retries_max
    age_s = AGE_DEFAULT_S if target.age_max_s is None else target.age_max_s
    headers = {"Content-Type": "application/json; charset=utf-8"}
    made = Delivery(
        *(rule.scope, token(32), RULE, rule.name, f"event {event['detail-type']}", target.arn, body, headers),
        created_ms=now_ms,
        next_ms=now_ms,
        attempts_max=tries + 1,
        age_max_ms=age_s * 1000,
        target=target,
    )
    return [delivery_document(made)]
