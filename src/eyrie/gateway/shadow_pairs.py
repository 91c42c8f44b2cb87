"""What the answers of shadows say beside production's, gathered in bounded sums and told to control once a second.

Every pair counts: whether one of the two failed. Of as many as a fiftieth of the worker's time allows, the bodies are
compared too (`decide/shadow`). Told beside the meter's rollups:
`{"shadows": {SLUG: {SHADOW: {"sent", "outcomes": [both answered, only production failed, only the shadow, both],
"dropped": {WHY: N}, "skipped": {WHY: N}, "latency": SUMMARY, "agreement": SUMMARY, "difference": SUMMARY,
"features": {NAME: {"every": {BUCKET: N}, "off": {BUCKET: N}, "values": {VALUE: [N, OFF]}}}}}}}`, a SUMMARY being
`[count, sum, lowest, highest, {BUCKET: N}]` with the buckets of `domain.metrics`.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from eyrie.decide.shadow import FEATURES_MAX, Compared, Feature, compared
from eyrie.domain.metrics import Summary, bucket_of
from eyrie.gateway.routes import Variant
from eyrie.gateway.taps import Exchange

PART = 50  # comparing takes at most one of so many parts of the worker's time
VALUES_MAX = 16  # of a text feature, in one second; the others are OTHER
OTHER = "(other)"


class FeatureCounts:
    """The compared rows of one second by one feature: how many there were, and how many of them disagree."""

    __slots__ = ("every", "off", "values")

    def __init__(self) -> None:
        self.every: dict[int, int] = {}
        self.off: dict[int, int] = {}
        self.values: dict[str, list[int]] = {}

    def add(self, value: Feature, agrees: bool) -> None:
        """A row."""
        if isinstance(value, float):
            bucket = bucket_of(value)
            self.every[bucket] = self.every.get(bucket, 0) + 1
            if not agrees:
                self.off[bucket] = self.off.get(bucket, 0) + 1
            return
        if value not in self.values and len(self.values) >= VALUES_MAX:
            value = OTHER
        counts = self.values.setdefault(value, [0, 0])
        counts[0] += 1
        counts[1] += not agrees

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        return {"every": self.every, "off": self.off, "values": self.values}


class PairCounts:
    """One shadow's second."""

    __slots__ = ("agreement", "difference", "dropped", "features", "latency", "outcomes", "skipped")

    def __init__(self) -> None:
        self.outcomes = [0, 0, 0, 0]
        self.dropped: dict[str, int] = {}
        self.skipped: dict[str, int] = {}
        self.latency = Summary()  # microseconds: the shadow's less production's
        self.agreement = Summary()  # part of a request's rows that agree
        self.difference = Summary()
        self.features: dict[str, FeatureCounts] = {}

    def take(self, found: Compared) -> None:
        """A request whose replies were compared."""
        self.agreement.add(found.share)
        for difference in found.differences:
            self.difference.add(difference)
        for row, agrees in zip(found.features, found.agree, strict=False):
            for name, value in row.items():
                counts = self.features.get(name)
                if counts is None:
                    if len(self.features) >= FEATURES_MAX:
                        continue
                    counts = self.features[name] = FeatureCounts()
                counts.add(value, agrees)

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "sent": sum(self.outcomes),
            "outcomes": self.outcomes,
            "dropped": self.dropped,
            "skipped": self.skipped,
            "latency": _told(self.latency),
            "agreement": _told(self.agreement),
            "difference": _told(self.difference),
            "features": {name: counts.as_json() for name, counts in self.features.items()},
        }


class Pairs:
    """The pairs of one worker's second."""

    def __init__(self, within: float) -> None:
        """`within`: as `decide.shadow.compared` takes it."""
        self._within = within
        self._not_before = 0.0
        self._counts: dict[tuple[str, str], PairCounts] = {}
        self._last: tuple[Variant | None, PairCounts] = (None, PairCounts())  # whose pair came last, and its counts

    def add(self, shadow: Variant, production_failed: bool, shadow_failed: bool, now: float) -> PairCounts | None:
        """Both have answered, or failed. Where their bodies are to be compared too, what to `compare` into. `now` is
        `perf_counter`'s.
        """
        counts = self._of(shadow)
        failed = production_failed + 2 * shadow_failed
        counts.outcomes[failed] += 1
        return counts if not failed and now >= self._not_before else None

    def compare(self, counts: PairCounts, production: Exchange, shadow: Exchange) -> None:
        """Compare what both answered, and rest as long as this is to be a small part of the worker's time."""
        began = perf_counter()
        self._compare(counts, production, shadow)
        now = perf_counter()
        self._not_before = now + PART * (now - began)

    def dropped(self, shadow: Variant, why: str, copies: int = 1) -> None:
        """Copies that were due were not sent."""
        counts = self._of(shadow).dropped
        counts[why] = counts.get(why, 0) + copies

    def take(self) -> dict[str, dict[str, Any]]:
        """The second that ends, by slug and shadow; a new one begins."""
        found: dict[str, dict[str, Any]] = {}
        for (slug, name), counts in self._counts.items():
            found.setdefault(slug, {})[name] = counts.as_json()
        self._counts = {}
        self._last = (None, PairCounts())
        return found

    def _of(self, shadow: Variant) -> PairCounts:
        if self._last[0] is shadow:
            return self._last[1]
        counts = self._counts.setdefault((shadow.endpoint.slug, shadow.name), PairCounts())
        self._last = (shadow, counts)
        return counts

    def _compare(self, counts: PairCounts, production: Exchange, shadow: Exchange) -> None:
        counts.latency.add(float(shadow.model_us - production.model_us))
        if production.reply_body is None or shadow.reply_body is None:
            found: Compared | str = "streamed"
        else:
            asked = (production.content_type, production.body)
            first = (production.reply_type, production.reply_body)
            found = compared(asked, first, (shadow.reply_type, shadow.reply_body), self._within)
        if isinstance(found, str):
            counts.skipped[found] = counts.skipped.get(found, 0) + 1
        else:
            counts.take(found)


def _told(summary: Summary) -> list[Any]:
    if not summary.count:
        return []
    return [summary.count, summary.total, summary.lowest, summary.highest, summary.buckets]
