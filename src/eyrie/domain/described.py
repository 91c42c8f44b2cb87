"""What a DescribeEndpoint reply says, for those who show it to people: who gets which share of the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OLD, NEW = "old", "new"  # the fleets of a deployment that is on its way
_TENTHS = 1_000  # of a percent, in a whole


@dataclass(frozen=True, slots=True)
class Portion:
    """A variant of a fleet, and its share of the endpoint's traffic, 0 to 1."""

    variant: str
    fleet: str  # OLD or NEW while a deployment is on its way, else ""
    share: float
    told: Mapping[str, Any]  # the variant as the reply has it

    @property
    def name(self) -> str:
        """The variant, with its fleet where there are two."""
        return f"{self.variant} ({self.fleet})" if self.fleet else self.variant


def portions(described: Mapping[str, Any]) -> list[Portion]:
    """Every variant of both fleets with its share; the shares sum to 1, or all are 0 where nothing is routed.

    CurrentWeight is the desired weight times the part of the traffic that the fleet holds, so that the weights of two
    fleets compare only as parts of their own fleet's.
    """
    pending = described.get("PendingDeploymentSummary", {}).get("ProductionVariants", ())
    fleets = [(OLD if pending else "", described.get("ProductionVariants", ())), (NEW, pending)]
    parts = [(fleet, variant, part) for fleet, variants in fleets for variant, part in _parts(variants)]
    whole = sum(part for _, _, part in parts) or 1.0
    return [Portion(str(variant["VariantName"]), fleet, part / whole, variant) for fleet, variant, part in parts]


def _parts(variants: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """Each variant of one fleet, and its current weight as a part of the fleet's desired ones."""
    whole = sum(float(v.get("DesiredWeight", v.get("CurrentWeight", 0.0))) for v in variants) or 1.0
    return [(v, float(v.get("CurrentWeight", 0.0)) / whole) for v in variants]


def percents(shares: Sequence[float]) -> list[float]:
    """Shares in percent with one decimal, rounded so that shares that sum to 1 become numbers that sum to 100."""
    exact = [share * _TENTHS for share in shares]
    tenths = [int(value) for value in exact]
    missing = round(sum(exact)) - sum(tenths)
    by_rest = sorted(range(len(exact)), key=lambda at: tenths[at] - exact[at])
    for at in by_rest[: max(missing, 0)]:
        tenths[at] += 1
    return [value / 10 for value in tenths]
