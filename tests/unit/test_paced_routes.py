"""Publications: a few at once, then ten a second; whoever comes in between goes out together, the newest of each."""

from __future__ import annotations

import threading

import pytest
from test_feed import KEY, route

from eyrie.control.routes import AT_ONCE, PacedRoutes
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute


class Written:
    """A Routes that notes what is published."""

    def __init__(self) -> None:
        self.out: list[int] = []
        self.error: Exception | None = None

    def publish(self, route: EndpointRoute) -> None:
        if self.error is not None:
            raise self.error
        self.out.append(route.generation)

    def withdraw(self, key: EndpointKey, generation: int) -> None: ...

    def served(self, key: EndpointKey) -> int:
        return 0

    def idle(self, instance_id: str) -> bool:
        return True

    def published(self) -> dict[EndpointKey, int]:
        return {}


def test_the_first_ones_go_out_at_once_and_the_next_ones_together() -> None:
    written, slept = Written(), []
    time_s, asleep, wake = [100.0], threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        asleep.set()
        assert wake.wait(30)
        time_s[0] += seconds

    paced = PacedRoutes(written, 0.1, lambda: time_s[0], sleep)
    for generation in range(1, AT_ONCE + 1):  # an instance dies, is replaced, and the next one serves
        paced.publish(route(generation, "i-1"))
    assert written.out == [1, 2, 3, 4]
    time_s[0] += 0.03
    threads = [threading.Thread(target=paced.publish, args=(route(5),))]
    threads[0].start()
    assert asleep.wait(30)
    for generation in (8, 6, 7):  # whatever their order, one table of this endpoint goes out: the newest
        threads.append(threading.Thread(target=paced.publish, args=(route(generation),)))
        threads[-1].start()
    while not _gathered(paced, 8):
        pass
    assert written.out == [1, 2, 3, 4]
    wake.set()
    for thread in threads:
        thread.join(30)
    assert slept == [0.07]
    assert written.out[:5] == [1, 2, 3, 4, 8]


def test_in_the_long_run_there_are_ten_a_second() -> None:
    written, time_s = Written(), [100.0]

    def sleep(seconds: float) -> None:
        time_s[0] += seconds

    paced = PacedRoutes(written, 0.1, lambda: time_s[0], sleep)
    for generation in range(1, 105):
        paced.publish(route(generation))
    assert len(written.out) == 104
    assert time_s[0] == pytest.approx(110.0)


def _gathered(paced: PacedRoutes, generation: int) -> bool:
    batch = paced._gathering
    return batch is not None and batch.routes[KEY].generation == generation


def test_everyone_of_a_batch_hears_of_its_failure() -> None:
    written = Written()
    written.error = OSError("no space left")
    paced = PacedRoutes(written, 0.0)
    with pytest.raises(OSError, match="no space"):
        paced.publish(route(1))
    written.error = None
    paced.publish(route(2))
    assert written.out == [2]
