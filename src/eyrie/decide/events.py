"""Events in the form that the real bus gives them, and what a target is given of one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.decide.moments import zulu
from eyrie.domain.events import Target, Transformer
from eyrie.domain.names import Scope

_PLACE = re.compile(r"<([^<>\s]+)>")
_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\['([^']+)'\]|\[(\d+)\]")
Event = Mapping[str, Any]


class PathError(ValueError):
    """A path that cannot be read; the message says which."""


def event(
    scope: Scope,
    event_id: str,
    source: str,
    detail_type: str,
    detail: Mapping[str, Any],
    now_ms: int,
    resources: Sequence[str] = (),
) -> dict[str, Any]:
    """An event of the bus."""
    return {
        "version": "0",
        "id": event_id,
        "detail-type": detail_type,
        "source": source,
        "account": scope.account,
        "time": zulu(now_ms),
        "region": scope.region,
        "resources": list(resources),
        "detail": dict(detail),
    }


def input_of(target: Target, found: Event, rule_arn: str, rule_name: str, now_ms: int) -> str:
    """What a target gets of an event, JSON (or text, by its template)."""
    if target.input is not None:
        return target.input
    if target.input_path is not None:
        return json.dumps(at_path(target.input_path, found))
    if target.transformer is not None:
        own = {
            "aws.events.rule-arn": rule_arn,
            "aws.events.rule-name": rule_name,
            "aws.events.event.ingestion-time": zulu(now_ms),
            "aws.events.event": {name: value for name, value in found.items() if name != "detail"},
            "aws.events.event.json": found,
        }
        return transformed(target.transformer, found, own)
    return json.dumps(found)


def transformed(transformer: Transformer, found: Event, own: Mapping[str, Any]) -> str:
    """The template with its <names> replaced: by their text within quotes, by JSON elsewhere."""
    values = {name: at_path(path, found) for name, path in transformer.paths.items()} | dict(own)
    template = transformer.template
    whole_text = template.strip()[:1] == '"'
    parts: list[str] = []
    quoted, at = False, 0
    for place in _PLACE.finditer(template):
        before = template[at : place.start()]
        quoted ^= (before.count('"') - before.count('\\"')) % 2 == 1
        parts.append(before)
        if place[1] not in values:
            parts.append(place[0])
        else:
            parts.append(_filled(values[place[1]], quoted or whole_text))
        at = place.end()
    parts.append(template[at:])
    return "".join(parts)


def _filled(value: Any, quoted: bool) -> str:
    if not quoted:
        return json.dumps(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text)[1:-1]


def at_path(path: str, found: Any) -> Any:
    """The value at $.a.b[0]; None where there is none. Raises PathError."""
    for step in steps_of(path):
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and step < len(found) else None
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
        if found is None:
            return None
    return found


def steps_of(path: str) -> list[str | int]:
    """The steps of a path. Raises PathError for what is none."""
    if not path.startswith("$"):
        raise PathError(f"{path[:64]!r} is no path: it begins with $")
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise PathError(f"{path[:64]!r} cannot be read at {path[at : at + 10]!r}")
        steps.append(int(step[3]) if step[3] else step[1] or step[2])
        at = step.end()
    return steps
