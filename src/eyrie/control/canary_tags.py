"""`eyrie:CanaryAnalysis`: the extension's fields, which every AWS client can send and SageMaker itself only stores.

A tag of the EndpointConfig that is deployed, or of the endpoint for all of its updates; the config's comes first. Its
value is `on`, `off`, or words NAME=VALUE: docs/concepts/safe-change.md has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.control.context import Context
from eyrie.control.records import tags_document
from eyrie.decide.rollout import ANALYSIS_TAG
from eyrie.domain.analysis import AnalysisPolicy
from eyrie.wire.errors import validation

_LIMITS = {"LatencyIncrease": "latency", "ErrorIncrease": "errors", "PredictionShift": "predictions"}
_NUMBERS: Mapping[str, tuple[str, float, float, float]] = {  # field, lowest, highest, of the field a unit
    "LatencyIncrease": ("latency", 0.0, 100.0, 1.0),
    "ErrorIncrease": ("errors", 0.0, 1.0, 1.0),
    "PredictionShift": ("predictions", 0.0, 1.0, 1.0),
    "MinimumSamples": ("samples_min", 100.0, 1e7, 1.0),
    "WarmUpInSeconds": ("warm_up_ms", 0.0, 3_600.0, 1_000.0),
    "PauseLimitInSeconds": ("pause_limit_ms", 60.0, 604_800.0, 1_000.0),
    "SamplingPercentage": ("sampling", 0.01, 100.0, 1.0),
}
_WHOLE = frozenset({"samples_min", "warm_up_ms", "pause_limit_ms"})


def asked(context: Context, config: str, endpoint: str) -> AnalysisPolicy | None:
    """What the tags of a config, else of an endpoint, ask for. Raises ValidationException."""
    for kind, name in (("endpoint-config", config), ("endpoint", endpoint)):
        document = tags_document(context, kind, name)
        value = tag_of(document.body["Tags"]) if document is not None else None
        if value is not None:
            return analysis_policy(value)
    return None


def check(tags: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValidationException for a value that cannot be followed."""
    value = tag_of(tags)
    if value is not None:
        analysis_policy(value)


def tag_of(tags: Sequence[Mapping[str, Any]]) -> str | None:
    """The tag's value among others."""
    return next((str(tag["Value"]) for tag in tags if tag["Key"] == ANALYSIS_TAG), None)


def analysis_policy(value: str) -> AnalysisPolicy | None:
    """The policy that a value means; None where it is off. Raises ValidationException naming field and value."""
    words = value.split()
    if words == ["off"]:
        return None
    fields: dict[str, Any] = {}
    for word in words if words != ["on"] else []:
        name, equals, given = word.partition("=")
        if name not in _NUMBERS or not equals:
            raise _bad(f"{word[:64]!r} is not one of its fields, NAME=VALUE with {', '.join(_NUMBERS)}; or on, or off")
        field, number = _number(name, given)
        if field in fields:
            raise _bad(f"{name} is given twice")
        fields[field] = number
    policy = AnalysisPolicy(**fields)
    if not policy.compared:
        raise _bad(f"nothing is left to compare; one of {', '.join(_LIMITS)} must not be off")
    return policy


def _number(name: str, given: str) -> tuple[str, float | int | None]:
    field, low, high, unit = _NUMBERS[name]
    if given == "off" and name in _LIMITS:
        return field, None
    try:
        number = float(given)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise _bad(f"{name} must be a number from {low:g} to {high:g}, and is {given[:64]!r}")
    return field, round(number * unit) if field in _WHOLE else number * unit


def _bad(what: str) -> Exception:
    return validation(f"Tag {ANALYSIS_TAG}: {what}.")
