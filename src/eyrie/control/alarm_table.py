"""Where alarms are stored: documents of kind "Alarm", their states within; and their history, as events.

Whoever needs an alarm (the API, scaling, a deployment that rolls back) comes here; `control/alarms.py` evaluates what
it finds. What happened to an alarm is an Event whose `what` is CloudWatch's history item type and summary.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from eyrie.adapters.described import described
from eyrie.decide.moments import iso
from eyrie.domain.alarms import Alarm, AlarmState
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Document, Event, Store

described(Alarm)  # it is read into in several threads

KIND = "Alarm"
ALARMS_MAX = 5_000  # in one account and region, as in CloudWatch


def encode(alarm: Alarm) -> dict[str, Any]:
    """The document body of an alarm."""
    body: dict[str, Any] = msgspec.to_builtins(alarm)
    return body


def decode(document: Document) -> Alarm:
    """The alarm of a document. Raises msgspec.ValidationError for anything else."""
    return msgspec.convert(document.body, Alarm)


def document_of(store: Store, alarm: Alarm, now_ms: int) -> Document:
    """The document to put for a new alarm or a changed one, to go into a commit of the caller's own."""
    found = store.get(KIND, alarm.scope, alarm.name)
    if found is None:
        return Document(KIND, alarm.scope, alarm.name, 0, now_ms, now_ms, encode(alarm))
    return replace(found, body=encode(alarm), modified_ms=now_ms)


def configured(store: Store, alarm: Alarm, now_ms: int) -> tuple[Document, Event]:
    """What a commit needs to create an alarm, or to give one of that name this configuration: its state stays as it is.

    The caller wakes the alarms' loop afterwards.
    """
    found = store.get(KIND, alarm.scope, alarm.name)
    before = decode(found) if found is not None else None
    now = replace(alarm, configured_ms=now_ms, updated_ms=now_ms, transitioned_ms=now_ms)
    if before is not None:
        now = replace(
            now,
            state=before.state,
            reason=before.reason,
            reason_data=before.reason_data,
            updated_ms=before.updated_ms,
            transitioned_ms=before.transitioned_ms,
        )
    summary = f'Alarm "{alarm.name}" {"updated" if before else "created"}'
    what = {"type": "Update" if before else "Create", "version": "1.0", "updatedAlarm": _configuration(now)}
    return document_of(store, now, now_ms), history(now, now_ms, "ConfigurationUpdate", summary, what)


def put(store: Store, alarm: Alarm, now_ms: int) -> Alarm:
    """Create an alarm, or give one of that name this configuration. Raises Conflict."""
    document, event = configured(store, alarm, now_ms)
    store.commit(Commit(puts=[document], events=[event]))
    return decode(document)


def get(store: Store, scope: Scope, name: str) -> Alarm | None:
    """The alarm, or None."""
    found = store.get(KIND, scope, name)
    return decode(found) if found is not None else None


def delete(store: Store, scope: Scope, names: Iterable[str], now_ms: int) -> list[str]:
    """Delete those alarms that there are; their names. Raises Conflict."""
    found = [document for name in names if (document := store.get(KIND, scope, name)) is not None]
    events = [deleted(decode(document), now_ms) for document in found]
    if found:
        store.commit(Commit(deletes=found, events=events))
    return [document.name for document in found]


def deleted(alarm: Alarm, now_ms: int) -> Event:
    """The line of history that says an alarm is gone."""
    what = {"type": "Delete", "version": "1.0", "deletedAlarm": _configuration(alarm)}
    return history(alarm, now_ms, "ConfigurationUpdate", f'Alarm "{alarm.name}" deleted', what)


def all(store: Store, scope: Scope | None = None) -> list[Alarm]:
    """Every alarm of a scope, or of all, by name."""
    return [decode(document) for document in store.scan(KIND, scope)]


def states(store: Store, scope: Scope, names: Collection[str]) -> dict[str, AlarmState]:
    """The states of those of these alarms (by name or ARN) that there are."""
    found: dict[str, AlarmState] = {}
    for name in names:
        alarm = get(store, scope, name_of(name))
        if alarm is not None:
            found[name] = alarm.state
    return found


def name_of(name_or_arn: str) -> str:
    """The name of an alarm that is told by its name or by its ARN."""
    return name_or_arn.split(":", 6)[6] if name_or_arn.startswith("arn:") and ":alarm:" in name_or_arn else name_or_arn


def history(alarm: Alarm, now_ms: int, item: str, summary: str, data: Mapping[str, Any]) -> Event:
    """A line of an alarm's history: `item` is ConfigurationUpdate, StateUpdate or Action."""
    text = json.dumps({"kind": alarm.kind, **data}, separators=(",", ":"))
    return Event(KIND, alarm.scope, alarm.name, now_ms, f"{item}: {summary}", text)


def _configuration(alarm: Alarm) -> dict[str, Any]:
    body = encode(alarm)
    kept = ("metric", "composite", "description", "actions_enabled", "alarm_actions", "ok_actions")
    told = {name: body[name] for name in (*kept, "insufficient_data_actions") if body[name] not in (None, [])}
    return {"alarmName": alarm.name, "alarmArn": alarm.arn, "timestamp": iso(alarm.configured_ms), **told}
