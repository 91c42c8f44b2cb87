"""What follows when an alarm changes its state: one commit with the new state, its history, the event, and a delivery
to every subscriber of the topics among its actions.

`arn:aws:sns:` actions are done by that very commit. Others are dispatched by the beginning of their ARN to whoever said
that it takes them (`Dispatch`), after the commit; those are asked again at each evaluation while the alarm is in ALARM.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eyrie.control import alarm_table, alarm_view
from eyrie.control.announcements import announcement
from eyrie.control.topics import TopicMissing, publications
from eyrie.decide.alarms import AlarmActions, Evaluation
from eyrie.decide.moments import iso
from eyrie.domain.alarms import Alarm, AlarmState
from eyrie.ports import Commit, Document, Event, Identity, Store

LOG = logging.getLogger(__name__)
STATE_CHANGE = "CloudWatch Alarm State Change"
TOPIC_PREFIX = "arn:aws:sns:"
MESSAGE_MAX = 3_000  # of a published message, in the history


@dataclass(frozen=True, slots=True)
class Followed:
    """What a commit carries besides the alarm itself."""

    documents: Sequence[Document] = ()
    events: Sequence[Event] = ()


class Transitions:
    """Changes the states of alarms. Safe to use from many threads."""

    def __init__(self, store: Store, identity: Identity, actions: AlarmActions) -> None:
        self._store, self._identity, self._actions = store, identity, actions

    def commit(self, document: Document, before: Alarm, after: Alarm, now_ms: int, act: bool = True) -> Document:
        """Store an alarm's new state with all that follows from it; the document as it is now. Raises Conflict."""
        followed = self._of_change(before, after, now_ms)
        acted = self._of_actions(after, before.state, now_ms) if act else Followed()
        put = replace(document, body=alarm_table.encode(after), modified_ms=now_ms)
        puts = [put, *followed.documents, *acted.documents]
        self._store.commit(Commit(puts=puts, events=[*followed.events, *acted.events]))
        LOG.info("alarm %s: %s -> %s: %s", after.name, before.state, after.state, after.reason)
        return replace(put, version=put.version + 1)

    def commit_actions(self, document: Document, alarm: Alarm, left: AlarmState | None, now_ms: int) -> Document:
        """Store an alarm whose suppression changed, and where `left` says since which state, do what it owes."""
        acted = self._of_actions(alarm, left, now_ms) if left is not None else Followed()
        put = replace(document, body=alarm_table.encode(alarm), modified_ms=now_ms)
        self._store.commit(Commit(puts=[put, *acted.documents], events=acted.events))
        return replace(put, version=put.version + 1)

    def dispatch(self, alarm: Alarm, evaluation: Evaluation, changed: bool) -> None:
        """Hand over what others do: while in ALARM each time, otherwise when the state has just changed."""
        if not alarm.actions_enabled or not (changed or alarm.state is AlarmState.ALARM):
            return
        for prefix, take in self._actions.items():
            if any(arn.startswith(prefix) for arn in alarm.actions_of(alarm.state)):
                try:
                    take(alarm, evaluation)
                except Exception:  # the boundary to another part: the next evaluation asks again
                    LOG.exception("an action of the alarm %s failed", alarm.name)

    def _of_change(self, before: Alarm, after: Alarm, now_ms: int) -> Followed:
        detail = alarm_view.event_detail(after, before)
        told = announcement(after.scope, self._identity, "aws.cloudwatch", STATE_CHANGE, detail, now_ms, [after.arn])
        data = {
            "version": "1.0",
            "oldState": alarm_view.history_state(before),
            "newState": alarm_view.history_state(after),
        }
        summary = f"Alarm updated from {before.state} to {after.state}"
        return Followed([told], [alarm_table.history(after, now_ms, "StateUpdate", summary, data)])

    def _of_actions(self, alarm: Alarm, before: AlarmState | None, now_ms: int) -> Followed:
        if not alarm.actions_enabled or before is None:
            return Followed()
        documents: list[Document] = []
        events: list[Event] = []
        for arn in alarm.actions_of(alarm.state):
            if arn.startswith(TOPIC_PREFIX):
                event, owed = self._published(alarm, before, arn, now_ms)
                documents += owed
                events.append(event)
            elif any(arn.startswith(prefix) for prefix in self._actions):
                events.append(_acted(alarm, arn, now_ms, "Succeeded"))
            else:
                why = "nothing here takes actions of that kind"
                events.append(_acted(alarm, arn, now_ms, "Failed", error=why))
        return Followed(documents, events)

    def _published(self, alarm: Alarm, before: AlarmState, arn: str, now_ms: int) -> tuple[Event, Sequence[Document]]:
        message = alarm_view.message(alarm, before)
        token, subject = self._identity.token, alarm_view.subject(alarm)
        try:
            owed = publications(self._store, alarm.scope, arn, message, now_ms, token, subject=subject)
        except TopicMissing:
            return _acted(alarm, arn, now_ms, "Failed", error=f"Resource: {arn} is not found"), ()
        shown = message if len(message) <= MESSAGE_MAX else message[:MESSAGE_MAX]
        return _acted(alarm, arn, now_ms, "Succeeded", publishedMessage=shown), owed


def _acted(alarm: Alarm, arn: str, now_ms: int, state: str, **more: Any) -> Event:
    data = {"actionState": state, "stateUpdateTimestamp": iso(alarm.transitioned_ms), "notificationResource": arn}
    if state == "Succeeded":
        summary = f"Successfully executed action {arn}"
    else:
        summary = f'Failed to execute action {arn}. Received error: "{more["error"]}"'
    return alarm_table.history(alarm, now_ms, "Action", summary[:255], {**data, **more})


def changed(alarm: Alarm, state: AlarmState, reason: str, reason_data: str, now_ms: int) -> Alarm:
    """The alarm in another state."""
    left = alarm.state is AlarmState.ALARM and state is not AlarmState.ALARM
    return replace(
        alarm,
        state=state,
        reason=reason,
        reason_data=reason_data,
        updated_ms=now_ms,
        transitioned_ms=now_ms if state is not alarm.state else alarm.transitioned_ms,
        left_alarm_ms=now_ms if left else alarm.left_alarm_ms,
    )
