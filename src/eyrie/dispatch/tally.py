"""What dispatch counts and measures, by endpoint and variant, for control; names and units are CloudWatch's."""

from __future__ import annotations

from collections import Counter
from typing import Any

from eyrie.domain.metrics import Summary


class Tally:
    """Measurements of the second that goes on, and counts since the start."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # bounds that were hit, retries: for `eyrie status` and the log
        self._found: dict[str, dict[str, dict[str, Summary]]] = {}

    def add(self, slug: str, variant: str, name: str, value: float = 1.0) -> None:
        """One measurement of a variant's metric; of an endpoint as a whole where `variant` is empty."""
        of_variant = self._found.setdefault(slug, {}).setdefault(variant, {})
        of_variant.setdefault(name, Summary()).add(max(value, 0.0))

    def count(self, what: str) -> None:
        """One more of something."""
        self.counts[what] += 1

    def take(self) -> dict[str, dict[str, dict[str, list[Any]]]]:
        """What was measured since the last time, by slug, variant and metric: count, sum, minimum, maximum, buckets."""
        found, self._found = self._found, {}
        return {
            slug: {
                variant: {name: list(summary.parts()) for name, summary in metrics.items()}
                for variant, metrics in variants.items()
            }
            for slug, variants in found.items()
        }
