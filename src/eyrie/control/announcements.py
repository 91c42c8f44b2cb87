"""Announcing events: a document in the very commit that makes the event true, so that no crash comes between.

`AnnouncingStore` stands before the store of everything that changes endpoints: where a commit gives an endpoint another
status, or its deployment another phase, it carries the announcement. `control/events.py` takes announcements up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.control.endpoint_events import endpoint_changes
from eyrie.control.topics import uuid
from eyrie.control.transform_events import ARN_TYPE, transform_changes
from eyrie.decide.events import event
from eyrie.domain.events import DEFAULT_BUS
from eyrie.domain.names import Scope
from eyrie.ports import Action, Commit, Document, Event, Identity, Store

KIND = "Announcement"
_ENDPOINT, _TRANSFORM = "Endpoint", "TransformJob"


def announcement(
    scope: Scope,
    identity: Identity,
    source: str,
    detail_type: str,
    detail: Mapping[str, Any],
    now_ms: int,
    resources: Sequence[str] = (),
) -> Document:
    """The document to put for an event that happened now."""
    event_id = uuid(identity.token)
    return announced(scope, event(scope, event_id, source, detail_type, detail, now_ms, resources), now_ms)


def announced(scope: Scope, made: Mapping[str, Any], now_ms: int) -> Document:
    """The document to put for an event as it is."""
    return Document(KIND, scope, str(made["id"]), 0, now_ms, now_ms, {"bus": DEFAULT_BUS, "event": dict(made)})


class AnnouncingStore:
    """A Store that announces what its commits change about endpoints and transform jobs."""

    def __init__(self, store: Store, identity: Identity) -> None:
        self._store, self._identity = store, identity

    def get(self, kind: str, scope: Scope, name: str) -> Document | None:
        """The document, or None."""
        return self._store.get(kind, scope, name)

    def scan(self, kind: str, scope: Scope | None = None) -> list[Document]:
        """All documents of a kind, in one scope or in all."""
        return self._store.scan(kind, scope)

    def commit(self, commit: Commit) -> None:
        """Store a transaction durably, with what it announces. Raises Conflict."""
        made = [one for document in commit.puts if document.kind == _ENDPOINT for one in self._changed(document)]
        made += [one for document in commit.puts if document.kind == _TRANSFORM for one in self._of_transform(document)]
        made += [one for document in commit.deletes if document.kind == _ENDPOINT for one in self._gone(document)]
        self._store.commit(replace(commit, puts=[*commit.puts, *made]) if made else commit)

    def outbox(self) -> list[Action]:
        """Actions not finished yet, in the order they were committed."""
        return self._store.outbox()

    def events(self, kind: str, scope: Scope, name: str, limit: int = 1000) -> list[Event]:
        """The newest events of a resource, oldest first."""
        return self._store.events(kind, scope, name, limit)

    def lease(self, name: str, holder: str, now_ms: int, duration_ms: int) -> bool:
        """Take or renew a lease; False while another holds it."""
        return self._store.lease(name, holder, now_ms, duration_ms)

    def _changed(self, document: Document) -> list[Document]:
        before = self._store.get(_ENDPOINT, document.scope, document.name)
        return self._announced(document, before.body if before is not None else None, document.body)

    def _gone(self, document: Document) -> list[Document]:
        return self._announced(document, document.body, None)

    def _of_transform(self, document: Document) -> list[Document]:
        before = self._store.get(_TRANSFORM, document.scope, document.name)
        told = self._tags(document.scope, f"{ARN_TYPE}/{document.name}")
        return [
            announcement(document.scope, self._identity, "aws.sagemaker", kind, detail, document.modified_ms, [arn])
            for kind, detail, arn in transform_changes(before.body if before else None, document.body, told)
        ]

    def _tags(self, scope: Scope, resource: str) -> dict[str, str]:
        tags = self._store.get("Tags", scope, resource)
        return {tag["Key"]: tag["Value"] for tag in tags.body["Tags"]} if tags else {}

    def _announced(
        self, document: Document, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
    ) -> list[Document]:
        told = self._tags(document.scope, f"endpoint/{document.name}")
        now_ms = document.modified_ms
        return [
            announcement(document.scope, self._identity, "aws.sagemaker", kind, detail, now_ms, [str(body["arn"])])
            for kind, detail, body in endpoint_changes(before, after, told)
        ]
