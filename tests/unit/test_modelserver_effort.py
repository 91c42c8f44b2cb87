"""What a worker tells of the cost of its messages."""

from __future__ import annotations

from eyrie.modelserver.effort import WINDOW_S, Effort


class Times:
    """A process's CPU time and a clock, both set by the test."""

    def __init__(self) -> None:
        self.cpu_s = 5.0
        self.now_s = 100.0

    def effort(self) -> Effort:
        return Effort(lambda: self.cpu_s, lambda: self.now_s)


def told(line: bytes) -> tuple[int, int]:
    name, cost_us, share = line.split()
    assert name == b"x-eyrie-effort:"
    assert line.endswith(b"\r\n")
    return round(int(cost_us), -1), int(share)


def test_a_message_costs_the_cpu_time_from_its_coming_to_its_answer() -> None:
    times = Times()
    effort = times.effort()
    times.cpu_s += 2.0  # something else
    began = effort.begin()
    times.cpu_s += 0.0004001
    assert told(effort.line(began)) == (400, 0)


def test_what_two_messages_cost_together_is_told_once() -> None:
    times = Times()
    effort = times.effort()
    first = effort.begin()
    times.cpu_s += 0.0003001
    second = effort.begin()
    times.cpu_s += 0.0002
    assert told(effort.line(first)) == (500, 0)
    times.cpu_s += 0.0001001
    assert told(effort.line(second)) == (100, 0)


def test_the_share_is_that_of_a_window() -> None:
    times = Times()
    effort = times.effort()
    times.now_s += WINDOW_S / 2
    times.cpu_s += WINDOW_S / 2
    assert told(effort.line(effort.begin()))[1] == 0, "too short a time to tell"
    times.now_s += WINDOW_S * 1.5
    assert told(effort.line(effort.begin()))[1] in (249, 250)
    times.now_s += 2 * WINDOW_S
    times.cpu_s += WINDOW_S
    assert told(effort.line(effort.begin()))[1] in (499, 500)
