"""Requests that were sent twice: a metric of the variant, and lines of its endpoint's story, not one a second."""

from __future__ import annotations

import asyncio
import contextlib

from eyrie.control import replays
from eyrie.control.recurring import TELL_EVERY_S, Recurring
from eyrie.control.replays import REPLAYED, Replays
from eyrie.domain.metrics import Measured
from eyrie.domain.names import EndpointKey
from eyrie.ports import Commit, Event

KEY = EndpointKey("123456789012", "us-east-1", "iris")


class Book:
    """The store, the metrics and the clock."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.measured: list[Measured] = []
        self.fails = 0

    def commit(self, commit: Commit) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("no room")
        self.events += commit.events

    def record(self, measured: list[Measured]) -> None:
        self.measured += measured

    def now_ms(self) -> int:
        return 5


def told(**instances: int) -> dict[str, object]:
    return {"replays": {KEY.slug: {"main": {name.replace("_", "-"): count for name, count in instances.items()}}}}


def test_they_are_counted_by_variant_and_told_by_instance() -> None:
    book, now = Book(), [0.0]
    replays = Replays(book, book, book, lambda: now[0])  # type: ignore[arg-type]
    replays.take({})
    replays.take(told(i_1=2, i_2=1))
    (one,) = book.measured
    assert (one.metric.name, one.metric.dimensions, one.summary.total) == (
        REPLAYED, (("EndpointName", "iris"), ("VariantName", "main")), 3.0,
    )  # fmt: skip
    first, second = replays.events()
    assert (first.kind, first.name, first.what) == ("Endpoint", "iris", "2 requests of main sent twice")
    assert "their connections to i-1 ended" in first.why
    assert second.what == "a request of main sent twice"
    replays.take(told(i_1=4))
    assert replays.events() == []
    now[0] = TELL_EVERY_S
    assert [event.what for event in replays.events()] == ["4 requests of main sent twice"]


def test_the_story_is_written_also_after_a_store_that_failed(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(replays, "EVERY_S", 0.001)
    book = Book()
    book.fails = 1

    async def main() -> None:
        made = Replays(book, book, book)  # type: ignore[arg-type]
        task = asyncio.create_task(made.run())
        made.take(told(i_1=1))
        async with asyncio.timeout(30):
            while book.fails:
                await asyncio.sleep(0.001)
            made.take(told(i_2=1))
            while not book.events:
                await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert "i-2" in book.events[0].why


def test_what_goes_on_is_told_once_a_minute_and_forgotten_when_it_is_over() -> None:
    counted: Recurring[str] = Recurring()
    counted.add("a", 1)
    assert counted.due(0.0) == [("a", 1)]
    counted.add("a", 2)
    assert counted.due(TELL_EVERY_S - 1) == []
    assert counted.due(TELL_EVERY_S) == [("a", 2)]
    assert counted.due(3 * TELL_EVERY_S) == []
    counted.add("a", 5)
    assert counted.due(3 * TELL_EVERY_S + 1) == [("a", 5)]
