"""Documents as earlier versions stored them, brought to the form of today's nouns, before they are read as such.

Plain JSON in, plain JSON out; what has today's form already is returned as it is. Endpoints come through here when
control reads them from the store, specifications of instances when it reads `slots/ID/spec.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def endpoint_of_today(body: Json) -> Json:
    """An Endpoint document. A model's first form had one `container`, a deployment's was all at once."""
    deployment = body.get("deployment")
    changed = {**body, "fleet": _fleet(body["fleet"])} if "fleet" in body else body
    if isinstance(deployment, dict) and "green" in deployment:
        changed = {**changed, "deployment": _deployment({**deployment, "green": _fleet(deployment["green"])})}
    return changed


def _deployment(body: Json) -> Json:
    if "policy" in body or "bake_ms" not in body:
        return body
    waits = {name: body[name] for name in ("bake_ms", "termination_wait_ms") if name in body}
    kept = {name: value for name, value in body.items() if name not in waits}
    on_green = body["phase"] in ("SHIFTING", "BAKING", "TERMINATION_WAIT", "RETIRING")
    return {**kept, "policy": waits, "step": int(on_green)}


def instance_of_today(body: Json) -> Json:
    """The specification of an instance. Its first form had one `container`."""
    return _several(body)


def _fleet(fleet: Mapping[str, Any]) -> Json:
    return {**fleet, "variants": [_variant(variant) for variant in fleet["variants"]]}


def _variant(variant: Mapping[str, Any]) -> Json:
    spec = variant["spec"]
    return {**variant, "spec": {**spec, "model": _several(spec["model"])}}


def _several(owner: Json) -> Json:
    """What owned a single container owns a list of one."""
    if "container" not in owner or "containers" in owner:
        return owner
    kept = {name: value for name, value in owner.items() if name != "container"}
    return {**kept, "containers": [owner["container"]]}
