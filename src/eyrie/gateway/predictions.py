"""Counting predictions for a canary's analysis: a Tap of the variants whose route says `analysis`.

It takes sampled replies after they have gone out; on a turn of the sweep one prediction of each is read
(decide/predictions) and added to the second of its instance; the counts travel to control with the meter's line. What
it costs is bounded: READ_MAX replies an instance and second, of BODY_BYTES_MAX each, read a slice at a time.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from eyrie.decide.predictions import Row, cell_of, rows, signal
from eyrie.domain.analysis import CELLS
from eyrie.domain.metrics import bucket_of
from eyrie.domain.routing import EndpointRoute, VariantRoute

if TYPE_CHECKING:
    from eyrie.gateway.meter import Meter, Rollup
    from eyrie.gateway.routes import Instance
    from eyrie.gateway.taps import Exchange

READ_MAX = 100  # replies of an instance, a second and worker
BODY_BYTES_MAX = 65_536  # of a reply that is read
WAITING_MAX = 4_096  # replies of a worker that wait to be read
WAITING_BYTES_MAX = 8_388_608
SLICE_S = 0.002  # reading at a turn
NAME_CHARS_MAX = 40


class PredictionCounts:
    """Predictions of one instance in a second: `{"labels": {CELL: N}, "names": {CELL: A_LABEL}, "numbers": {BUCKET: N},
    "unread": N}`.
    """

    __slots__ = ("labels", "names", "numbers", "read", "taken", "unread")

    def __init__(self) -> None:
        self.taken = 0  # replies that are to be read
        self.read = 0  # those that were
        self.labels: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.numbers: dict[int, int] = {}
        self.unread = 0

    def add(self, content_type: str, body: bytes | None) -> None:
        """A reply; None where it was too large to keep, or streamed."""
        self.read += 1
        found = rows(content_type, body) if body is not None and len(body) <= BODY_BYTES_MAX else None
        if not found:
            self.unread += 1
        else:
            self._count(found[self.read % len(found)])  # of several rows another one each time: they belong together

    def _count(self, row: Row) -> None:
        said = signal(row)
        if isinstance(said, float):
            bucket = bucket_of(said)
            self.numbers[bucket] = self.numbers.get(bucket, 0) + 1
        else:
            cell = cell_of(said, CELLS)
            self.labels[cell] = self.labels.get(cell, 0) + 1
            self.names.setdefault(cell, said[:NAME_CHARS_MAX])

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        return {"labels": self.labels, "names": self.names, "numbers": self.numbers, "unread": self.unread}


class PredictionTap:
    """Samples the replies of one variant: so many percent of them, evenly."""

    __slots__ = ("__weakref__", "_owed", "_percent", "_predictions")

    def __init__(self, predictions: Predictions, percent: float) -> None:
        self._predictions = predictions
        self._percent = percent
        self._owed = 0.0

    def answered(self, exchange: Exchange) -> None:
        """A reply: whether it is read is decided here, it is read later."""
        if not 200 <= exchange.status < 300:
            return
        self._owed += self._percent
        if self._owed >= 100:
            self._owed -= 100
            self._predictions.put(exchange)


class Predictions:
    """What all taps of a worker share: replies that wait to be read, within a bound, and the turns that read them."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._waiting: deque[tuple[Instance, str, bytes | None]] = deque()
        self._bytes = 0

    def tap(self, table: EndpointRoute, variant: VariantRoute) -> PredictionTap | None:
        """The tap of a variant; None where nothing is analysed."""
        return PredictionTap(self, variant.analysis.sampling) if variant.analysis is not None else None

    def put(self, exchange: Exchange) -> None:
        """A reply that is to be read, if its instance's second and the worker have room for it."""
        instance = exchange.instance
        counts = self._rollup(instance).of_predictions()
        if counts.taken >= READ_MAX:
            return
        body = exchange.reply_body
        size = len(body) if body is not None and len(body) <= BODY_BYTES_MAX else 0
        if self._bytes + size > WAITING_BYTES_MAX or len(self._waiting) >= WAITING_MAX:
            self._meter.count("predictions_dropped")
            return
        counts.taken += 1
        self._bytes += size
        self._waiting.append((instance, exchange.reply_type, body if size else None))

    def turn(self) -> None:
        """Read some of what waits: no reply is held up for longer than a slice."""
        until = perf_counter() + SLICE_S
        while self._waiting and perf_counter() < until:
            instance, kind, body = self._waiting.popleft()
            self._bytes -= len(body) if body is not None else 0
            self._rollup(instance).of_predictions().add(kind, body)

    def _rollup(self, instance: Instance) -> Rollup:
        """The present second of an instance."""
        if instance.rollup.taken:
            slug = instance.endpoint.slug
            instance.rollup = self._meter.rollup(slug, instance.variant.name, instance.instance_id)
        return instance.rollup
