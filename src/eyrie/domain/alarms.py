"""Alarms: what CloudWatch watches and in which state each is. Nouns of `decide/alarms*`, stored by
`control/alarm_table.py`.

A metric alarm compares a metric, or the outcome of metric math, with a threshold or a band; a composite one combines
the states of other alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from eyrie.domain.metrics import Dimensions, Metric
from eyrie.domain.names import Scope

CREATED = "Unchecked: Initial alarm creation"  # the reason of a state that nothing was ever evaluated for


class AlarmState(StrEnum):
    """What an alarm says."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class MissingData(StrEnum):
    """What a period without measurements counts as."""

    MISSING = "missing"
    IGNORE = "ignore"
    BREACHING = "breaching"
    NOT_BREACHING = "notBreaching"


class Comparison(StrEnum):
    """How a value breaches. The last three are for bands."""

    AT_OR_ABOVE = "GreaterThanOrEqualToThreshold"
    ABOVE = "GreaterThanThreshold"
    BELOW = "LessThanThreshold"
    AT_OR_BELOW = "LessThanOrEqualToThreshold"
    OUTSIDE_BAND = "LessThanLowerOrGreaterThanUpperThreshold"
    BELOW_BAND = "LessThanLowerThreshold"
    ABOVE_BAND = "GreaterThanUpperThreshold"


BAND_COMPARISONS = frozenset({Comparison.OUTSIDE_BAND, Comparison.BELOW_BAND, Comparison.ABOVE_BAND})


@dataclass(frozen=True, slots=True)
class MetricStat:
    """A statistic of a metric, a value a period."""

    namespace: str
    name: str
    stat: str  # "Average", "p99", ...
    period_s: int
    dimensions: Dimensions = ()  # sorted by name
    unit: str = ""  # "": whatever it was measured in

    def metric(self, scope: Scope) -> Metric:
        """The metric in an account and region."""
        return Metric(scope, self.namespace, self.name, self.dimensions)


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """One of an alarm's queries: a metric's statistic, or an expression over the others."""

    query_id: str
    stat: MetricStat | None = None
    expression: str = ""
    label: str = ""
    returns: bool = True  # the one that is compared; a band too
    period_s: int = 0  # of an expression; 0: that of its metrics


@dataclass(frozen=True, slots=True)
class MetricRule:
    """When a metric alarm is in ALARM: `to_alarm` of the last `periods` values breach."""

    queries: tuple[MetricQuery, ...]
    comparison: Comparison
    periods: int  # EvaluationPeriods, N
    to_alarm: int  # DatapointsToAlarm, M
    threshold: float | None = None  # None: the band of `band_id`
    band_id: str = ""  # ThresholdMetricId: the query whose expression is an ANOMALY_DETECTION_BAND
    missing: MissingData = MissingData.MISSING
    low_samples: str = ""  # EvaluateLowSampleCountPercentile: "evaluate", "ignore"
    single: bool = True  # told as one metric by its name, not as a list of queries
    to_alarm_given: bool = False  # whether DatapointsToAlarm and TreatMissingData were said, or are the defaults
    missing_given: bool = False

    @property
    def watched(self) -> MetricQuery:
        """The query whose values are compared."""
        return next(q for q in self.queries if q.returns and q.query_id != self.band_id)

    @property
    def period_s(self) -> int:
        """The period of its values."""
        own = self.watched.period_s
        return own or max((q.stat.period_s for q in self.queries if q.stat), default=60)


@dataclass(frozen=True, slots=True)
class CompositeRule:
    """When a composite alarm is in ALARM: its expression over other alarms is true."""

    expression: str  # ALARM("a") AND NOT OK("b")
    suppressor: str = ""  # name or ARN of the alarm that holds its actions back while it is in ALARM
    wait_s: int = 0  # how long actions wait for the suppressor to go into ALARM
    extension_s: int = 0  # how long actions stay suppressed after it left ALARM


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why a composite alarm's actions are held back."""

    by: str  # "WaitPeriod", "ExtensionPeriod", "Alarm"
    reason: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm: what it watches, what it does, and what it says now. Exactly one of `metric` and `composite` is set."""

    scope: Scope
    name: str
    metric: MetricRule | None = None
    composite: CompositeRule | None = None
    description: str | None = None
    actions_enabled: bool = True
    alarm_actions: tuple[str, ...] = ()  # ARNs
    ok_actions: tuple[str, ...] = ()
    insufficient_data_actions: tuple[str, ...] = ()
    configured_ms: int = 0
    state: AlarmState = AlarmState.INSUFFICIENT_DATA
    reason: str = CREATED
    reason_data: str = ""  # JSON
    updated_ms: int = 0  # of state or reason
    transitioned_ms: int = 0  # of the state alone
    suppression: Suppression | None = None
    owed_from: AlarmState | None = None  # a composite's actions are held back since it left this state
    left_alarm_ms: int = 0  # when it was last no more in ALARM

    @property
    def arn(self) -> str:
        """The ARN of the alarm."""
        return f"arn:aws:cloudwatch:{self.scope.region}:{self.scope.account}:alarm:{self.name}"

    @property
    def kind(self) -> str:
        """CloudWatch's word for which sort of alarm it is."""
        return "CompositeAlarm" if self.composite else "MetricAlarm"

    def actions_of(self, state: AlarmState) -> tuple[str, ...]:
        """The ARNs that are acted on when it goes into a state."""
        if state is AlarmState.ALARM:
            return self.alarm_actions
        return self.ok_actions if state is AlarmState.OK else self.insufficient_data_actions


def rule_on_metric(
    stat: MetricStat, comparison: Comparison, threshold: float, periods: int, to_alarm: int | None = None
) -> MetricRule:
    """The rule of an alarm on one metric, with nothing said about missing data; `to_alarm` None: all of `periods`."""
    queries = (MetricQuery("m1", stat),)
    given = to_alarm is not None
    return MetricRule(queries, comparison, periods, to_alarm or periods, threshold, to_alarm_given=given)
