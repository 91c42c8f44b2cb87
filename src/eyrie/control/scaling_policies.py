"""Scaling policies as they are put, read: into the nouns that decide/scaling decides by, into what is measured for
them, and into the pair of alarms that CloudWatch shows for a tracked target.

`eyrie:Fast` is written as a customized metric that every AWS client lets through: Namespace "eyrie:Fast", MetricName
"RequestRate" or "ConcurrentRequests", Statistic "Average", and as dimensions what is not to be the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from eyrie.control.scaling_table import PolicyRecord
from eyrie.decide.metric_grammar import MathError, parse
from eyrie.decide.statistics import statistic
from eyrie.decide.target_tracking import LOW
from eyrie.domain.alarms import Alarm, Comparison, MetricQuery, MetricRule, MetricStat, MissingData
from eyrie.domain.scaling import (
    COOLDOWN_MS,
    AdjustmentType,
    FastTracking,
    Measure,
    Policy,
    Step,
    StepScaling,
    TargetKey,
    TargetTracking,
)

TRACKING, STEPS, PREDICTIVE = "TargetTrackingScaling", "StepScaling", "PredictiveScaling"
TRACKED, STEPPED = "TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration"
FAST = "eyrie:Fast"
FAST_OPTIONS = {"StableWindowSeconds": (10, 600), "PanicWindowSeconds": (1, 60)}
PREDEFINED = {  # name, statistic and period of what SageMaker variants are tracked by
    "SageMakerVariantInvocationsPerInstance": ("InvocationsPerInstance", "Sum", 60),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": ("ConcurrentRequestsPerModel", "Average", 10),
}
PREDEFINED_PROVISIONED = {  # and of the provisioned concurrency of serverless ones
    "SageMakerVariantProvisionedConcurrencyUtilization": ("ServerlessProvisionedConcurrencyUtilization", "Average", 60),
}
FINE_S, FINE_LOW_POINTS = 10, 90  # high-resolution metrics
STEPS_MAX = 20
METRICS_MAX = 10
MISSING_IS_ZERO = frozenset({"Invocations", "InvocationsPerInstance", "ConcurrentRequestsPerModel"})
_DO_NOT_EDIT = "DO NOT EDIT OR DELETE. For TargetTrackingScaling policy"


class BadPolicy(ValueError):
    """A configuration that cannot be followed; the message names field and value."""


def policy_of(record: PolicyRecord) -> Policy:
    """What decide/scaling decides by. Raises BadPolicy."""
    given = record.configuration
    if record.kind == STEPS:
        return _steps(record.name, given)
    target = float(given["TargetValue"])
    if not 0 < target < float("inf"):
        raise BadPolicy(f"TargetValue must be a positive number, and is {given['TargetValue']}")
    custom = given.get("CustomizedMetricSpecification")
    predefined = given.get("PredefinedMetricSpecification")
    if (custom is None) == (predefined is None):
        raise BadPolicy("Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification must be given")
    scale_in = not given.get("DisableScaleIn", False)
    if custom is not None and custom.get("Namespace") == FAST:
        return _fast(record.name, target, given, custom, scale_in)
    period_s = queries_of(record.key, given)[1]
    fine = period_s < 60
    return TargetTracking(
        record.name,
        target,
        out_cooldown_ms=_cooldown(given, "ScaleOutCooldown", COOLDOWN_MS),
        in_cooldown_ms=_cooldown(given, "ScaleInCooldown", COOLDOWN_MS),
        scale_in=scale_in,
        period_ms=period_s * 1000,
        low_points=FINE_LOW_POINTS if fine else 15,
    )


def queries_of(key: TargetKey, given: Mapping[str, Any]) -> tuple[tuple[MetricQuery, ...], int]:
    """What a tracked target is measured by, and its period in seconds. Raises BadPolicy."""
    predefined = given.get("PredefinedMetricSpecification")
    if predefined is not None:
        kind = predefined["PredefinedMetricType"]
        table = PREDEFINED_PROVISIONED if key.provisioned else PREDEFINED
        if kind not in table:
            known = ", ".join(table)
            raise BadPolicy(f"PredefinedMetricType {kind} is not supported for {key.resource_id}: use one of {known}")
        if "ResourceLabel" in predefined:
            raise BadPolicy(f"ResourceLabel {predefined['ResourceLabel']!r} must not be given with {kind}")
        name, stat, period_s = table[kind]
        dimensions = (("EndpointName", key.endpoint), ("VariantName", key.variant))
        return (MetricQuery("m1", MetricStat("AWS/SageMaker", name, stat, period_s, dimensions)),), period_s
    custom = given["CustomizedMetricSpecification"]
    if "Metrics" in custom:
        return _math(custom), 60
    for name in ("MetricName", "Namespace", "Statistic"):
        if not custom.get(name):
            raise BadPolicy(f"CustomizedMetricSpecification needs {name}, or Metrics")
    return (MetricQuery("m1", _stat(custom, custom["Statistic"], custom.get("Unit", ""))),), 60


def counts_requests(queries: Sequence[MetricQuery]) -> bool:
    """Whether a period without measurements had no requests: it is one metric of SageMaker's that counts them."""
    stat = queries[0].stat if len(queries) == 1 else None
    return stat is not None and stat.namespace == "AWS/SageMaker" and stat.name in MISSING_IS_ZERO


def alarms_of(record: PolicyRecord, idle_is_zero: bool) -> list[Alarm]:
    """The pair of alarms of a tracked target; none for other policies. Raises BadPolicy."""
    policy = policy_of(record)
    if type(policy) is not TargetTracking:
        return []
    queries, _ = queries_of(record.key, record.configuration)
    names = dict(record.alarms)
    one = len(queries) == 1
    high = MetricRule(queries, Comparison.ABOVE, policy.high_points, policy.high_points, policy.target, single=one)
    idle = idle_is_zero and counts_requests(queries)
    low = MetricRule(
        queries,
        Comparison.BELOW,
        policy.low_points,
        policy.low_points,
        policy.target * LOW,
        missing=MissingData.BREACHING if idle else MissingData.MISSING,
        missing_given=idle,
        single=one,
    )
    description = f"{_DO_NOT_EDIT} {record.arn}."
    scope = record.key.scope
    acts = (record.arn,)
    return [
        Alarm(scope, names["High"], high, description=description, alarm_actions=acts),
        Alarm(scope, names["Low"], low, description=description, alarm_actions=acts if policy.scale_in else ()),
    ]


# --- step scaling ---------------------------------------------------------------------------------------------------


def _steps(name: str, given: Mapping[str, Any]) -> StepScaling:
    steps = tuple(_step(n, step) for n, step in enumerate(given.get("StepAdjustments") or (), 1))
    if "AdjustmentType" not in given:
        raise BadPolicy(f"AdjustmentType must be given in {STEPPED}")
    if not 0 < len(steps) <= STEPS_MAX:
        raise BadPolicy(f"StepAdjustments must have 1 to {STEPS_MAX} members, and has {len(steps)}")
    how = AdjustmentType(given["AdjustmentType"])
    magnitude = given.get("MinAdjustmentMagnitude", 0)
    if magnitude and (how is not AdjustmentType.PERCENT or magnitude < 0):
        raise BadPolicy(
            f"MinAdjustmentMagnitude {magnitude} may only be given with AdjustmentType {AdjustmentType.PERCENT}, and "
            "must be positive"
        )
    if how is AdjustmentType.EXACT and any(step.adjustment < 0 for step in steps):
        raise BadPolicy(f"ScalingAdjustment must not be negative with AdjustmentType {how}")
    _check_intervals(steps)
    return StepScaling(name, how, steps, _cooldown(given, "Cooldown", COOLDOWN_MS), magnitude)


def _step(number: int, given: Mapping[str, Any]) -> Step:
    lower, upper = given.get("MetricIntervalLowerBound"), given.get("MetricIntervalUpperBound")
    if lower is not None and upper is not None and lower >= upper:
        raise BadPolicy(
            f"MetricIntervalLowerBound {lower} of StepAdjustments.{number} must be less than its "
            f"MetricIntervalUpperBound {upper}"
        )
    return Step(lower, upper, given["ScalingAdjustment"])


def _check_intervals(steps: Sequence[Step]) -> None:
    """No two may overlap, nothing may lie between them, and at most one is open to each side."""
    for side, bound in (("MetricIntervalLowerBound", "lower"), ("MetricIntervalUpperBound", "upper")):
        if sum(getattr(step, bound) is None for step in steps) > 1:
            raise BadPolicy(f"At most one of the StepAdjustments may be without {side}")
    ordered = sorted(steps, key=lambda s: float("-inf") if s.lower is None else s.lower)
    for one, next_one in pairwise(ordered):
        upper = float("inf") if one.upper is None else one.upper
        lower = float("-inf") if next_one.lower is None else next_one.lower
        if upper != lower:
            wrong = "overlap" if upper > lower else "leave a gap"
            raise BadPolicy(
                f"StepAdjustments {wrong}: MetricIntervalUpperBound {one.upper} is followed by "
                f"MetricIntervalLowerBound {next_one.lower}"
            )


# --- target tracking ------------------------------------------------------------------------------------------------


def _math(custom: Mapping[str, Any]) -> tuple[MetricQuery, ...]:
    given = custom["Metrics"]
    if not 0 < len(given) <= METRICS_MAX:
        raise BadPolicy(f"Metrics must have 1 to {METRICS_MAX} members, and has {len(given)}")
    if any(name in custom for name in ("MetricName", "Namespace", "Dimensions", "Statistic", "Unit")):
        raise BadPolicy("CustomizedMetricSpecification takes either Metrics or MetricName with its like, not both")
    queries = tuple(map(_query, given))
    names = [query.query_id for query in queries]
    if len(set(names)) < len(names):
        raise BadPolicy(f"The Ids of Metrics must differ: {', '.join(names)}")
    if sum(query.returns for query in queries) != 1:
        raise BadPolicy("Exactly one of Metrics must have ReturnData true")
    return queries


def _query(given: Mapping[str, Any]) -> MetricQuery:
    name, stat, expression = given["Id"], given.get("MetricStat"), given.get("Expression", "")
    if not (name[0].islower() and name.isascii() and name.replace("_", "a").isalnum()):
        raise BadPolicy(f"The Id {name!r} must be letters, digits and _, beginning in lower case")
    if (stat is None) == (not expression):
        raise BadPolicy(f"Metrics {name} needs exactly one of MetricStat and Expression")
    returns, label = given.get("ReturnData", True), given.get("Label", "")
    if stat is None:
        try:
            parse(expression)
        except MathError as error:
            raise BadPolicy(f"Error in the Expression of {name}: {error}") from None
        return MetricQuery(name, expression=expression, label=label, returns=returns)
    metric = stat["Metric"]
    if not metric.get("MetricName") or not metric.get("Namespace"):
        raise BadPolicy(f"The Metric of {name} needs MetricName and Namespace")
    return MetricQuery(name, _stat(metric, stat["Stat"], stat.get("Unit", "")), label=label, returns=returns)


def _stat(metric: Mapping[str, Any], name: str, unit: str) -> MetricStat:
    try:
        statistic(name)
    except ValueError as error:
        raise BadPolicy(f"Stat: {error}") from None
    dimensions = tuple(sorted((d["Name"], d["Value"]) for d in metric.get("Dimensions", ())))
    if len({name for name, _ in dimensions}) < len(dimensions):
        raise BadPolicy("No two Dimensions may have the same Name")
    return MetricStat(metric["Namespace"], metric["MetricName"], name, 60, dimensions, unit)


def _fast(
    name: str, target: float, given: Mapping[str, Any], custom: Mapping[str, Any], scale_in: bool
) -> FastTracking:
    try:
        measure = Measure(custom.get("MetricName", ""))
    except ValueError:
        known = ", ".join(Measure)
        raise BadPolicy(f"MetricName {custom.get('MetricName')!r} of {FAST} must be one of {known}") from None
    if custom.get("Statistic", "Average") != "Average" or "Metrics" in custom:
        raise BadPolicy(f"Statistic of {FAST} must be Average, and is {custom.get('Statistic')!r}")
    windows = {"StableWindowSeconds": 60, "PanicWindowSeconds": 2}
    for dimension in custom.get("Dimensions", ()):
        windows.update([_option(dimension)])
    stable_s, panic_s = windows["StableWindowSeconds"], windows["PanicWindowSeconds"]
    if panic_s * 2 > stable_s:
        raise BadPolicy(f"PanicWindowSeconds {panic_s} must be at most half of StableWindowSeconds {stable_s}")
    return FastTracking(
        name,
        target,
        measure,
        stable_s,
        panic_s,
        out_cooldown_ms=_cooldown(given, "ScaleOutCooldown", 0),
        in_cooldown_ms=_cooldown(given, "ScaleInCooldown", stable_s * 1000),
        scale_in=scale_in,
    )


def _option(dimension: Mapping[str, str]) -> tuple[str, int]:
    name, text = dimension["Name"], dimension["Value"]
    if name not in FAST_OPTIONS:
        raise BadPolicy(f"Dimension {name!r} of {FAST} must be one of {', '.join(FAST_OPTIONS)}")
    low, high = FAST_OPTIONS[name]
    if not (text.isascii() and text.isdigit()) or not low <= int(text[:9]) <= high:
        raise BadPolicy(f"{name} of {FAST} must be a whole number from {low} to {high}, and is {text[:32]!r}")
    return name, int(text)


def _cooldown(given: Mapping[str, Any], name: str, default_ms: int) -> int:
    seconds = given.get(name)
    if seconds is None:
        return default_ms
    if not 0 <= seconds <= 86_400 * 7:
        raise BadPolicy(f"{name} must be from 0 to 604800 seconds, and is {seconds}")
    return int(seconds) * 1000
