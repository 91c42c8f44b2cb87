"""Requests that meet are run together, each gets its own answer or its own error, and a model that mixes them is found
out.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from eyrie.modelserver.codecs import BadPayload
from eyrie.modelserver.frameworks.gather import Gather, Tensors, worker_threads
from eyrie.modelserver.frameworks.interface import LoadError


class Held:
    """A model whose first call waits until it is let go, so that others gather behind it."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self.entered = threading.Event()
        self.go = threading.Event()
        self.sizes: list[int] = []

    def __call__(self, inputs: Tensors) -> Tensors:
        self.sizes.append(len(inputs["x"]))
        if not self.entered.is_set():
            self.entered.set()
            assert self.go.wait(30)
        return {"y": self._run(inputs["x"])}


def together(run: Any, values: list[Any], batch: bool = True) -> tuple[Held, list[Any]]:
    """The answers or errors of requests of which all but the first wait behind it, twice over."""
    held = Held(run)
    gather = Gather(held, batch)
    found: list[Any] = [None] * len(values)

    def one(number: int) -> None:
        try:
            found[number] = gather({"x": np.array(values[number])})["y"].tolist()
        except Exception as error:
            found[number] = error

    for _ in range(2):
        held.entered.clear()
        held.go.clear()
        held.sizes.clear()
        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(values))]
        threads[0].start()
        assert held.entered.wait(30)
        for thread in threads[1:]:
            thread.start()
        while len(gather._waiting) < len(values) - 1:
            assert all(thread.is_alive() for thread in threads)
        held.go.set()
        for thread in threads:
            thread.join(30)
    return held, found


def test_those_that_wait_are_run_in_one_call() -> None:
    held, found = together(lambda x: x * 2, [[1.0], [2.0, 3.0], [4.0]])
    assert found == [[2.0], [4.0, 6.0], [8.0]]
    assert held.sizes == [1, 3]


def test_a_model_that_mixes_its_batch_is_run_one_by_one() -> None:
    held, found = together(lambda x: x - x.mean(), [[1.0], [2.0, 4.0], [4.0]])
    assert found == [[0.0], [-1.0, 1.0], [0.0]]
    assert sorted(held.sizes) == [1, 1, 2]


def test_a_model_without_an_item_for_each_input_is_run_one_by_one() -> None:
    held, found = together(lambda x: np.array([x.sum()]), [[1.0], [2.0, 4.0], [4.0]])
    assert found == [[1.0], [6.0], [4.0]]
    assert sorted(held.sizes) == [1, 1, 2]


def test_a_bad_request_is_found_out_alone() -> None:
    def run(x: Any) -> Any:
        if (x < 0).any():
            raise BadPayload("negative")
        return x

    _, found = together(run, [[1.0], [-2.0], [4.0]])
    assert found[0] == [1.0]
    assert isinstance(found[1], BadPayload)
    assert found[2] == [4.0]


def test_shapes_that_differ_do_not_meet_and_a_fixed_batch_never_does() -> None:
    held, found = together(lambda x: x, [[[1.0]], [[2.0, 3.0]], [[4.0]]])
    assert found == [[[1.0]], [[2.0, 3.0]], [[4.0]]]
    assert held.sizes == [1, 1, 1]
    held, found = together(lambda x: x, [[1.0], [2.0], [4.0]], batch=False)
    assert held.sizes == [1, 1, 1]


def test_the_number_of_workers_is_checked() -> None:
    assert worker_threads({"SAGEMAKER_MODEL_SERVER_WORKERS": "3"}) == 3
    with pytest.raises(LoadError, match="SAGEMAKER_MODEL_SERVER_WORKERS is '0'"):
        worker_threads({"SAGEMAKER_MODEL_SERVER_WORKERS": "0"})
