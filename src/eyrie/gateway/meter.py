"""What a worker counts: one-second rollups an instance, and plain counters. Nothing here may delay a reply.

A rollup goes to control over the feed once a second, what changed only:
`{"meter": {"at_s": 1763712000, "endpoints": {SLUG: {VARIANT: {INSTANCE: ROLLUP}}}, "counters": {NAME: N}}}` with ROLLUP
`{"n": requests, "e4": answered 4xx, "e5": answered 5xx, "em": model errors, "peak": most at once, "model": {BUCKET: N},
"model_us": their sum, "overhead": {BUCKET: N}, "overhead_us", "generation": of the route table by which they went}`,
where others went by another table also `"generations": {GENERATION: N}` of those, and of a multi-model endpoint
`"models": {"hits", "misses", "loaded", "wait", "download", "load", "unload"}`, the last four {BUCKET: N} too; of
streams `"streams": {"streams", "broken", "model", "overhead", "whole"}`, likewise the last three; `"predictions"` while
a canary is analysed (`predictions.PredictionCounts`). A rollup of a shadow has `"shadow": true`: it answered copies.
Beside the rollups is what others tell each second, by name (`sources`): `shadows`, and `replays`, `{SLUG: {VARIANT:
{INSTANCE: requests that were sent to it a second time}}}`.
Buckets are those of `domain.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import Any

from eyrie.domain.metrics import bucket_of
from eyrie.gateway.predictions import PredictionCounts

Histogram = dict[int, int]


_BUCKETS = tuple(map(bucket_of, range(8_192)))  # most durations are found here


def _add(histogram: Histogram, us: int) -> None:
    index = _BUCKETS[us] if us < 8_192 else bucket_of(us)
    histogram[index] = histogram.get(index, 0) + 1


class ModelCounts:
    """What one instance of a multi-model endpoint did with its models in a second. Durations are microseconds."""

    __slots__ = ("download", "hits", "load", "loaded", "misses", "unload", "wait")

    def __init__(self) -> None:
        self.hits = 0  # requests whose model was loaded: ModelCacheHit is hits of both
        self.misses = 0
        self.loaded = 0  # LoadedModelCount, as last heard; 0: not heard
        self.wait: Histogram = {}  # ModelLoadingWaitTime, of the requests that missed
        self.download: Histogram = {}  # ModelDownloadingTime
        self.load: Histogram = {}  # ModelLoadingTime
        self.unload: Histogram = {}  # ModelUnloadingTime

    def add_request(self, hit: bool, waited_us: int) -> None:
        """An answered request: whether its model was there, and how long it waited for it."""
        if hit:
            self.hits += 1
        else:
            self.misses += 1
            _add(self.wait, waited_us)

    def add_load(self, told: dict[str, Any]) -> None:
        """A load, as control told of it."""
        self.loaded = int(told.get("models") or 0)
        if told.get("already"):
            return
        _add(self.load, int(told.get("load_us") or 0))
        if told.get("download_us"):
            _add(self.download, int(told["download_us"]))
        self.add_unloads([int(us) for us in told.get("unload_us") or ()])

    def add_unloads(self, durations_us: list[int]) -> None:
        """Models that had to go."""
        for us in durations_us:
            _add(self.unload, us)

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        return {name: getattr(self, name) for name in self.__slots__}


class StreamCounts:
    """Streams of one instance that ended in a second. Durations are microseconds, of their first bytes."""

    __slots__ = ("broken", "model", "overhead", "streams", "whole")

    def __init__(self) -> None:
        self.streams = 0
        self.broken = 0  # in the middle: MidStreamErrors is broken of all
        self.model: Histogram = {}  # FirstChunkModelLatency
        self.overhead: Histogram = {}  # FirstChunkOverheadLatency
        self.whole: Histogram = {}  # FirstChunkLatency

    def add(self, model_us: int, overhead_us: int, broken: bool) -> None:
        """A stream that had begun."""
        self.streams += 1
        self.broken += broken
        _add(self.model, model_us)
        _add(self.overhead, overhead_us)
        _add(self.whole, model_us + overhead_us)

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        return {name: getattr(self, name) for name in self.__slots__}


class Rollup:
    """One instance's second."""

    __slots__ = (
        "client_errors",
        "generation",
        "generations",
        "model",
        "model_errors",
        "model_us",
        "models",
        "overhead",
        "overhead_us",
        "peak",
        "predictions",
        "recorded",
        "records",
        "requests",
        "server_errors",
        "shadow",
        "streams",
        "taken",
    )

    def __init__(self, recorded: int = 0, shadow: bool = False) -> None:
        self.shadow = shadow
        self.taken = False  # its second has ended: count in another
        self.recorded = recorded  # requests that are told one by one, and as many errors beyond them
        # milliseconds since the epoch, status, model and gateway us, generation of the route table
        self.records: list[tuple[int, int, int, int, int]] = []
        self.requests = 0
        self.generation = 0  # of the table that routed them, the first one's; 0: of nothing routed
        self.generations: dict[int, int] = {}  # how many of them were routed by other tables than that
        self.client_errors = 0
        self.server_errors = 0
        self.model_errors = 0  # among both kinds of errors
        self.model_us = 0  # in all
        self.overhead_us = 0
        self.peak = 0
        self.model: Histogram = {}
        self.models: ModelCounts | None = None  # of a multi-model endpoint
        self.overhead: Histogram = {}
        self.streams: StreamCounts | None = None  # where there were any
        self.predictions: PredictionCounts | None = None  # where a canary is analysed

    def add(
        self, status: int, model_us: int, overhead_us: int, outstanding: int, origin: int = 0, generation: int = 0
    ) -> None:
        """An answered request: what the client's wire saw, and how long the model and the gateway took. `origin`: the
        status that the container answered, 0 where it answered none; a ModelError (424) counts as what it was there.
        `generation`: of the route table by which it went where it was answered.
        """
        self.requests += 1
        if generation != self.generation:
            self._by_another(generation)
        if self.requests <= self.recorded or (status >= 400 and len(self.records) < 2 * self.recorded):
            self.records.append((time_ns() // 1_000_000, status, model_us, overhead_us, generation))
        if status >= 400:
            if status == 424:  # Failed Dependency: what the model itself answered, or failed to
                self.model_errors += 1
                status = origin if origin >= 400 else 500
            if status >= 500:
                self.server_errors += 1
            else:
                self.client_errors += 1
        if outstanding > self.peak:
            self.peak = outstanding
        self.model_us += model_us
        self.overhead_us += overhead_us
        index = _BUCKETS[model_us] if model_us < 8_192 else bucket_of(model_us)
        self.model[index] = self.model.get(index, 0) + 1
        index = _BUCKETS[overhead_us] if overhead_us < 8_192 else bucket_of(overhead_us)
        self.overhead[index] = self.overhead.get(index, 0) + 1

    def _by_another(self, generation: int) -> None:
        """The second's first request, or one that another table routed than the first."""
        if self.requests == 1:
            self.generation = generation
        else:
            self.generations[generation] = self.generations.get(generation, 0) + 1

    def at_once(self, outstanding: int) -> None:
        """So many requests are outstanding."""
        if outstanding > self.peak:
            self.peak = outstanding

    def of_models(self) -> ModelCounts:
        """The counts of target models, from now on among these."""
        if self.models is None:
            self.models = ModelCounts()
        return self.models

    def of_streams(self) -> StreamCounts:
        """The counts of streams, from now on among these."""
        if self.streams is None:
            self.streams = StreamCounts()
        return self.streams

    def of_predictions(self) -> PredictionCounts:
        """The counts of predictions, from now on among these."""
        if self.predictions is None:
            self.predictions = PredictionCounts()
        return self.predictions

    def as_json(self) -> dict[str, Any]:
        """As it travels."""
        predictions = {"predictions": self.predictions.as_json()} if self.predictions is not None else {}
        streams = {"streams": self.streams.as_json()} if self.streams is not None else {}
        models = {"models": self.models.as_json()} if self.models is not None else {}
        records = {"records": self.records} if self.records else {}
        shadow = {"shadow": True} if self.shadow else {}
        generation: dict[str, Any] = {"generation": self.generation} if self.generation else {}
        if self.generations:
            generation["generations"] = self.generations
        return {
            **generation,
            **shadow,
            **models,
            **streams,
            **predictions,
            **records,
            "n": self.requests,
            "e4": self.client_errors,
            "e5": self.server_errors,
            "em": self.model_errors,
            "peak": self.peak,
            "model": self.model,
            "model_us": self.model_us,
            "overhead": self.overhead,
            "overhead_us": self.overhead_us,
        }


class Meter:
    """All counts of one worker."""

    def __init__(self, recorded: int = 0) -> None:
        """`recorded`: requests of an instance and second that are told one by one."""
        self._recorded = recorded
        self.counters: dict[str, int] = {}
        self.sources: dict[str, Callable[[], dict[str, Any]]] = {}  # what is told of a second besides, if anything
        self.gauges: dict[str, float] = {}  # levels of the worker itself, set before each second is taken
        self._gauges_told: dict[str, float] = {}
        self._told: dict[str, int] = {}
        self._rollups: dict[tuple[str, str, str], Rollup] = {}
        self._captured: dict[tuple[str, str], dict[str, int]] = {}  # by slug and variant

    def count(self, name: str, by: int = 1) -> None:
        """Raise a counter of the worker: a retry, an ejection, a limit that was hit."""
        self.counters[name] = self.counters.get(name, 0) + by

    def rollup(self, slug: str, variant: str, instance_id: str, shadow: bool = False) -> Rollup:
        """The current second of an instance; "" as instance for requests that reached none. Copies that a shadow
        answers are not told one by one.
        """
        key = (slug, variant, instance_id)
        found = self._rollups.get(key)
        if found is None:
            found = self._rollups[key] = Rollup(0 if shadow else self._recorded, shadow)
        return found

    def captured(self, slug: str, variant: str, records: int) -> None:
        """So many captured records are on disk."""
        counts = self._captured.setdefault((slug, variant), {})
        counts["records"] = counts.get("records", 0) + records

    def capture_dropped(self, slug: str, variant: str, why: str, records: int = 1) -> None:
        """So many exchanges were not captured for want of room: `why` says where."""
        counts = self._captured.setdefault((slug, variant), {})
        counts[why] = counts.get(why, 0) + records
        self.counters["capture_dropped"] = self.counters.get("capture_dropped", 0) + records

    def tell_again(self) -> None:
        """Whoever listens is new: counters and levels go to them whole."""
        self._told.clear()
        self._gauges_told = {}

    def take(self, at_s: int) -> dict[str, Any] | None:
        """The second that ends, to be sent; None where nothing changed. A new second begins."""
        changed = {name: n for name, n in self.counters.items() if self._told.get(name) != n}
        rollups, self._rollups = self._rollups, {}
        gauges = self.gauges if self.gauges != self._gauges_told else {}
        captured, self._captured = self._captured, {}
        besides = {name: found for name, take in self.sources.items() if (found := take())}
        if not rollups and not changed and not gauges and not captured and not besides:
            return None
        self._gauges_told = dict(self.gauges)
        self._told.update(changed)
        endpoints: dict[str, dict[str, dict[str, Any]]] = {}
        for (slug, variant, instance_id), rollup in rollups.items():
            rollup.taken = True
            endpoints.setdefault(slug, {}).setdefault(variant, {})[instance_id] = rollup.as_json()
        told: dict[str, Any] = {"at_s": at_s, "endpoints": endpoints, "counters": changed, **besides}
        for (slug, variant), counts in captured.items():
            told.setdefault("capture", {}).setdefault(slug, {})[variant] = counts
        return {**told, "gauges": self._gauges_told} if gauges else told
