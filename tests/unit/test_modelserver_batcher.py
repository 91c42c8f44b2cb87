"""Batches: who is stacked with whom, who gets which answer, and what happens when a model is slow, wrong or busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eyrie.modelserver.batcher import SLOW_BATCHES, SLOW_S, Batcher, Bounds, predict_each, stack
from eyrie.modelserver.codecs import NAN, BadPayload, RowShape
from eyrie.modelserver.measure import pace
from eyrie.modelserver.threads import Workers, threads_for

SHAPE = RowShape(width=1)


class Bench:
    """A batcher on a loop, a clock and a thread pool that only move when told to."""

    def __init__(self, threads: int = 0, bounds: Bounds | None = None, poison: float | None = None) -> None:
        self.now = 0.0
        self.cost = 0.0  # seconds that a prediction takes
        self.turns: list[Callable[[], None]] = []
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.room = 100
        self.sizes: list[int] = []
        self.left: set[str] = set()
        self.answers: dict[str, Any] = {}
        self.poison = poison
        self.batcher: Batcher[str] = Batcher(
            self.predict,
            SHAPE,
            self.deliver,
            soon=self.turns.append,
            off=self.off,
            clock=lambda: self.now,
            threads=threads,
            wanted=lambda ticket: ticket not in self.left,
            bounds=bounds,
        )

    def predict(self, rows: Any) -> Any:
        self.now += self.cost
        self.sizes.append(len(rows))
        if self.poison in rows[:, 0]:
            raise ValueError("poisoned")
        return rows[:, 0] * 2

    def deliver(self, ticket: str, outcome: Any) -> None:
        assert ticket not in self.answers, "answered twice"
        self.answers[ticket] = outcome.tolist() if isinstance(outcome, np.ndarray) else outcome

    def off(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        if len(self.jobs) >= self.room:
            return False
        self.jobs.append((work, done))
        return True

    def turn(self) -> None:
        turns, self.turns[:] = list(self.turns), []
        for call in turns:
            call()

    def work(self) -> None:
        work, done = self.jobs.pop(0)
        done(work())


def test_what_arrives_in_one_turn_is_one_call() -> None:
    bench = Bench()
    for i in range(5):
        assert bench.batcher.submit(f"r{i}", [[float(i)]])
    assert bench.answers == {}
    assert len(bench.turns) == 1
    bench.turn()
    assert bench.answers == {f"r{i}": [2.0 * i] for i in range(5)}
    assert bench.sizes == [5]


def test_requests_of_many_rows_get_theirs_back() -> None:
    bench = Bench()
    bench.batcher.submit("a", [[1.0], [2.0]])
    bench.batcher.submit("b", np.array([[3.0]]))
    bench.batcher.submit("c", [[4.0], [5.0], [6.0]])
    bench.turn()
    assert bench.answers == {"a": [2, 4], "b": [6], "c": [8, 10, 12]}
    assert bench.sizes == [6]


def test_a_bad_row_gets_its_own_error_and_nobody_else_does() -> None:
    bench = Bench(poison=13.0)
    for i in range(20):
        bench.batcher.submit(f"r{i}", [[float(i)]])
    bench.turn()
    error = bench.answers.pop("r13")
    assert isinstance(error, ValueError)
    assert bench.answers == {f"r{i}": [2.0 * i] for i in range(20) if i != 13}
    assert len(bench.sizes) < 12  # by halves, not one by one


def test_rows_of_different_widths_do_not_disturb_each_other() -> None:
    outcomes = predict_each(lambda rows: rows.sum(axis=1), RowShape(), [[[1.0]], [[1.0, 2.0]], [[5.0]], [[3.0, 4.0]]])
    assert [outcome.tolist() for outcome in outcomes if isinstance(outcome, np.ndarray)] == [[1], [3], [5], [7]]


def test_a_model_that_answers_too_little_is_an_error_for_each() -> None:
    outcomes = predict_each(lambda rows: np.array([]), SHAPE, [[[1.0]], [[2.0]]])
    assert ["0 predictions for 1 rows" in str(outcome) for outcome in outcomes] == [True, True]


def test_a_batch_is_bounded_and_the_loop_breathes_between_two() -> None:
    bench = Bench(bounds=Bounds(batch_rows_max=4))
    for i in range(10):
        bench.batcher.submit(f"r{i}", [[float(i)]])
    bench.turn()
    assert bench.sizes == [4]
    assert len(bench.answers) == 4
    while bench.turns:
        bench.turn()
    assert bench.sizes == [4, 4, 2]
    assert len(bench.answers) == 10


def test_a_request_larger_than_a_batch_goes_alone() -> None:
    bench = Bench(bounds=Bounds(batch_rows_max=4))
    bench.batcher.submit("small", [[1.0]])
    bench.batcher.submit("large", [[1.0]] * 9)
    bench.batcher.submit("last", [[1.0]])
    while bench.turns:
        bench.turn()
    assert bench.sizes == [1, 9, 1]


def test_a_full_queue_refuses() -> None:
    bench = Bench(bounds=Bounds(queue_requests_max=3))
    assert [bench.batcher.submit(f"r{i}", [[0.0]]) for i in range(4)] == [True, True, True, False]
    bench.turn()
    assert sorted(bench.answers) == ["r0", "r1", "r2"]
    assert bench.batcher.submit("again", [[0.0]])


def test_a_client_that_left_is_not_computed_for() -> None:
    bench = Bench()
    bench.batcher.submit("stays", [[1.0]])
    bench.batcher.submit("leaves", [[2.0]])
    bench.left.add("leaves")
    bench.turn()
    assert bench.answers == {"stays": [2.0]}
    assert bench.sizes == [1]
    bench.batcher.submit("gone too", [[1.0]])
    bench.left.add("gone too")
    bench.turn()
    assert bench.sizes == [1]


def test_slow_models_run_in_threads_and_gather_while_they_are_busy() -> None:
    bench = Bench(threads=1)
    assert bench.batcher.threaded
    bench.batcher.submit("a", [[1.0]])
    bench.turn()
    for name in "bcd":
        bench.batcher.submit(name, [[2.0]])
        bench.turn()
    assert len(bench.jobs) == 1
    assert bench.batcher.waiting == 3
    bench.work()
    assert bench.answers == {"a": [2.0]}
    bench.work()
    assert sorted(bench.answers) == ["a", "b", "c", "d"]
    assert bench.sizes == [1, 3]


def test_two_threads_run_two_batches() -> None:
    bench = Bench(threads=2)
    for name in "abc":
        bench.batcher.submit(name, [[1.0]])
        bench.turn()
    assert len(bench.jobs) == 2
    bench.work()
    bench.work()
    bench.work()
    assert sorted(bench.answers) == ["a", "b", "c"]


def test_when_no_thread_takes_the_batch_its_requests_hear_of_it() -> None:
    bench = Bench(threads=1)
    bench.room = 0
    bench.batcher.submit("a", [[1.0]])
    bench.turn()
    assert isinstance(bench.answers["a"], RuntimeError)
    bench.room = 1
    bench.batcher.submit("b", [[1.0]])
    bench.turn()
    bench.work()
    assert bench.answers["b"] == [2.0]


def test_a_model_that_turns_out_slow_moves_off_the_loop() -> None:
    bench = Bench()
    bench.cost = SLOW_S * 2
    for i in range(SLOW_BATCHES + 1):
        bench.batcher.submit(f"r{i}", [[1.0]])
        bench.turn()
    assert bench.batcher.threaded
    assert len(bench.answers) == SLOW_BATCHES
    bench.work()
    assert len(bench.answers) == SLOW_BATCHES + 1


def test_a_single_slow_batch_moves_nothing() -> None:
    bench = Bench()
    for i in range(3 * SLOW_BATCHES):
        bench.cost = SLOW_S * 2 if i % SLOW_BATCHES else 0.0
        bench.batcher.submit(f"r{i}", [[1.0]])
        bench.turn()
    assert not bench.batcher.threaded


def test_stacking_keeps_numbers_and_text_apart() -> None:
    assert stack([[[1.0]], [[2.0]]], RowShape(dtype="float32")).dtype == np.float32
    assert stack([[["red", 1.0]]], RowShape(strings=True)).dtype == object
    assert stack([[[1.0]]], RowShape(strings=True)).dtype == np.float64
    mixed = stack([np.array([[1, 2]]), [[3.0, NAN]]], RowShape())
    assert np.array_equal(mixed, [[1, 2], [3, NAN]], equal_nan=True)
    assert np.isinf(stack([[[1e300]]], RowShape(dtype="float32"))).all()


def test_measuring_chooses_by_the_best_of_a_few() -> None:
    now = [0.0]

    def predict(rows: Any) -> Any:
        now[0] += 0.0001 * len(rows)
        return rows

    speed = pace(predict, SHAPE, lambda: now[0])
    assert speed.one_s == pytest.approx(0.0001)
    assert speed.batch_s == pytest.approx(0.0032)
    assert not speed.quick(0.002)
    assert speed.quick(0.004)
    assert "us for 1 row" in str(speed)
    assert not pace(predict, RowShape(), lambda: now[0]).quick(1.0)


def test_a_model_that_refuses_zeros_is_not_quick_and_not_broken() -> None:
    def refuse(rows: Any) -> Any:
        raise ValueError

    speed = pace(refuse, SHAPE, lambda: 0.0)
    assert not speed.quick(1.0)
    assert "not measured" in str(speed)


def test_workers_are_bounded_and_survive_what_runs_in_them() -> None:
    finished = threading.Event()
    outcomes: list[Any] = []
    calls: list[Callable[[], None]] = []

    def soon(function: Callable[..., None], *arguments: Any) -> None:
        calls.append(lambda: function(*arguments))
        finished.set()

    def fail() -> None:
        raise SystemExit(3)

    workers = Workers(1, queue_max=1, soon=soon)
    for work in (fail, lambda: "well"):
        assert workers.run(work, outcomes.append)
        assert finished.wait(30)
        finished.clear()
        calls.pop()()
    assert isinstance(outcomes[0], SystemExit)
    assert outcomes[1] == "well"
    hold = threading.Event()
    assert workers.run(lambda: hold.wait(5), outcomes.append)
    assert workers.run(lambda: None, outcomes.append)
    assert not workers.run(lambda: None, outcomes.append)
    assert workers.outstanding == 2
    hold.set()


def test_threads_follow_the_share_of_the_machine() -> None:
    assert threads_for(100) == 1
    assert threads_for(1999) == 1
    assert 1 <= threads_for(10_000_000) <= 1024


def test_lines_are_read_together_and_a_bad_one_costs_only_itself() -> None:
    shape = RowShape(width=2)
    calls: list[int] = []

    def predict(rows: Any) -> Any:
        calls.append(len(rows))
        return rows.sum(axis=1)

    assert [outcome.tolist() for outcome in predict_each(predict, shape, [b"1,2", b"3,4"])] == [[3.0], [7.0]]
    outcomes = predict_each(predict, shape, [b"1,2", b"what?,4", b"5,,", [[1.0, 1.0], [2.0, 2.0]], b"nan,1", b"+1,2"])
    assert calls == [2, 5]  # whatever cannot be read is not predicted, and nobody is predicted twice
    good, unreadable, wide, two, missing, signed = outcomes
    assert (good.tolist(), two.tolist(), signed.tolist()) == ([3.0], [2.0, 4.0], [3.0])
    assert np.isnan(missing[0])
    assert isinstance(unreadable, BadPayload)
    assert isinstance(wide, BadPayload)


def test_a_line_that_the_model_chokes_on_is_alone_with_its_error() -> None:
    def predict(rows: Any) -> Any:
        if 13.0 in rows:
            raise ValueError("unlucky")
        return rows[:, 0]

    outcomes = predict_each(predict, SHAPE, [b"1", b"2", b"13", b"4"])
    assert [str(outcome) for outcome in outcomes] == ["[1.]", "[2.]", "unlucky", "[4.]"]


def test_lines_count_as_a_row_each() -> None:
    bench = Bench(bounds=Bounds(batch_rows_max=3))
    for ticket in "abcd":
        assert bench.batcher.submit(ticket, b"1")
    while bench.turns:
        bench.turns.pop(0)()
    assert bench.sizes == [3, 1]
