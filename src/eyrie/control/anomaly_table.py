"""Anomaly detectors in the store: for which metric which times are left out of learning, and how fast it adapts."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from eyrie.control.alarm_data import TrainingOf
from eyrie.control.context import Context
from eyrie.decide.alarm_bands import Training
from eyrie.domain.alarms import MetricStat
from eyrie.domain.names import Scope
from eyrie.ports import Document, Store

KIND = "AnomalyDetector"


def detector_name(stat: MetricStat) -> str:
    """The name of a metric's detector: the same statistic of the same metric has one."""
    text = json.dumps([stat.namespace, stat.name, stat.dimensions, stat.stat])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def detector_body(stat: MetricStat) -> dict[str, Any]:
    """A detector as it is stored, with nothing said about its learning."""
    dimensions = [list(pair) for pair in stat.dimensions]
    return {"namespace": stat.namespace, "name": stat.name, "dimensions": dimensions, "stat": stat.stat}


def detector_document(context: Context, stat: MetricStat) -> Document | None:
    """The document to put for a metric that has no detector yet."""
    name = detector_name(stat)
    return None if context.get(KIND, name) else context.new(KIND, name, detector_body(stat))


def training_of(store: Store) -> TrainingOf:
    """How each metric's detector is told to learn."""

    def found(scope: Scope, stat: MetricStat) -> Training:
        document = store.get(KIND, scope, detector_name(stat))
        return training(document.body) if document is not None else Training()

    return found


def training(body: dict[str, Any]) -> Training:
    """What a detector's configuration comes to."""
    excluded = tuple((int(start), int(end)) for start, end in body.get("excluded", ()))
    return Training(excluded, offset_ms(body.get("timezone", "UTC")), body.get("speed", "NORMAL"))


def offset_ms(timezone: str) -> int:
    """How far a time zone is ahead of UTC, as it is now; 0 for one that is not known here."""
    try:
        offset = datetime.now(UTC).astimezone(ZoneInfo(timezone)).utcoffset()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return 0
    return int(offset.total_seconds() * 1000) if offset is not None else 0
