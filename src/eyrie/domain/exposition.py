"""What Eyrie tells monitoring systems about itself: families of numbers with labels, in the form that Prometheus and
OpenTelemetry share. `adapters/prometheus_text` and `adapters/otlp` write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Labels = Mapping[str, str]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus's text


class FamilyKind(StrEnum):
    """What a family's numbers mean; the spellings are Prometheus's."""

    COUNTER = "counter"  # only rises while its process lives
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One number."""

    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """How values are spread: `counts[i]` of them are at most `bounds[i]` and above the bound before, the last beyond
    all bounds.
    """

    labels: Labels
    bounds: Sequence[float]
    counts: Sequence[float]
    total: float


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers of one meaning. A counter's name has no `_total`, which Prometheus's text adds."""

    name: str
    kind: FamilyKind
    about: str
    unit: str = ""  # OpenTelemetry's: "s", "By", "%"
    samples: Sequence[Sample] = ()
    distributions: Sequence[Distribution] = field(default=())


def counter(name: str, about: str, samples: Sequence[Sample], unit: str = "") -> Family:
    """A family that only rises."""
    return Family(name, FamilyKind.COUNTER, about, unit, samples)


def gauge(name: str, about: str, samples: Sequence[Sample], unit: str = "") -> Family:
    """A family of levels."""
    return Family(name, FamilyKind.GAUGE, about, unit, samples)


def histogram(name: str, about: str, distributions: Sequence[Distribution], unit: str = "") -> Family:
    """A family of distributions."""
    return Family(name, FamilyKind.HISTOGRAM, about, unit, (), distributions)
