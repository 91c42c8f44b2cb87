"""What control tells about itself, as JSON: `/eyrie/status` and `/eyrie/story/NAME` (docs/concepts/processes.md)."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec

from eyrie.control.context import Context
from eyrie.decide.rollout import shares
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import Instance, ObservedInstance
from eyrie.ports import Event
from eyrie.wire.messages import HttpReply

PREFIX = "/eyrie/"
STATUS = "/eyrie/status"
STORY = "/eyrie/story/"
EVENTS_MAX = 1000
TOLD = ("Endpoint", "InferenceExperiment", "Alarm", "EventRule", "Topic")  # kinds of what has a story


@dataclass(frozen=True, slots=True)
class Observation:
    """What compute has: its instances, and its slots by state ("warm", "claimed")."""

    instances: Sequence[ObservedInstance] = ()
    slots: Mapping[str, int] = field(default_factory=dict)
    models: Callable[[str], int] = lambda socket: 0  # how many an instance of a multi-model endpoint holds
    warm_kinds: Sequence[Mapping[str, int | str]] = ()  # warm slots and claims by kind of framework
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # what parts count of their work, by part


def status(context: Context, seen: Observation, answered: Mapping[str, int]) -> dict[str, Any]:
    """Every endpoint of every account with its instances, and the slots. For whoever runs this Eyrie."""
    by_id = {observed.instance_id: observed for observed in seen.instances}
    return {
        "now_ms": context.now_ms,
        "pid": os.getpid(),
        "endpoints": [_endpoint(endpoint, by_id, seen.models) for endpoint in context.endpoints.list()],
        "slots": dict(seen.slots),
        "warm_kinds": [dict(row) for row in seen.warm_kinds],
        "api": dict(answered),
        **{part: dict(counts) for part, counts in seen.counts.items()},
    }


def story(context: Context, path: str) -> dict[str, Any]:
    """The events of the endpoint (alarm, event rule, topic) that the path names, in the caller's account and region,
    oldest first.
    """
    name = unquote(path.removeprefix(STORY))
    stories = [context.store.events(kind, context.scope, name, EVENTS_MAX) for kind in TOLD]
    events = list(heapq.merge(*stories, key=lambda event: event.at_ms))  # each stays in its own order
    return {
        "events": [{"at_ms": e.at_ms, "kind": e.kind, "name": e.name, "what": e.what, "why": why(e)} for e in events]
    }


def why(event: Event) -> str:
    """The reason of an event. That of an alarm's is within the data that its history keeps."""
    if event.kind != "Alarm":
        return event.why
    data = msgspec.json.decode(event.why)
    state = data.get("newState", {})
    return str(state.get("stateReason") or data.get("error") or data.get("notificationResource") or "")


def reply(found: Mapping[str, Any], request_id: str, status: int = 200) -> HttpReply:
    """A reply of Eyrie's own paths."""
    headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", request_id)]
    return HttpReply(status, headers, msgspec.json.encode(found))


def _endpoint(
    endpoint: Endpoint, by_id: Mapping[str, ObservedInstance], models: Callable[[str], int]
) -> dict[str, Any]:
    routed = {t.instance_id for v in endpoint.route.everyone for t in v.targets} if endpoint.route else set()
    serving = shares(endpoint)[-1][0]  # green as soon as it holds any traffic
    return {
        "account": endpoint.key.account,
        "region": endpoint.key.region,
        "name": endpoint.key.name,
        "status": str(endpoint.status),
        "generation": endpoint.route.generation if endpoint.route else 0,
        "reason": endpoint.trouble,
        "variants": [
            {
                "name": v.name,
                "weight": v.desired_weight,
                "desired": v.desired_count,
                "ready": endpoint.ready_count(serving, v.name),
                "shadow_of": v.spec.shadow_of,
            }
            for v in serving.variants
        ],
        "instances": [
            {**_instance(i, by_id.get(i.instance_id), i.instance_id in routed), "models": models(i.socket)}
            for i in endpoint.instances
        ],
    }


def _instance(instance: Instance, observed: ObservedInstance | None, routed: bool) -> dict[str, Any]:
    return {
        "id": instance.instance_id,
        "variant": instance.variant,
        "zone": instance.zone,
        "state": str(instance.state),
        "reason": instance.reason,
        "pid": observed.pid if observed and observed.alive else None,
        "isolation": observed.isolation if observed else instance.isolation,
        "started_ms": observed.started_ms if observed else instance.started_ms,
        "routed": routed,
    }
