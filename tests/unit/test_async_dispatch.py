"""Which instance gets the next asynchronous request, when one is given up, and where results go."""

from __future__ import annotations

import pytest

from eyrie.decide.async_dispatch import (
    CONCURRENCY,
    RETRY_MAX_MS,
    Load,
    choose,
    concurrency,
    given_up,
    locations,
    per_instance,
    retry_ms,
    topic_of,
)
from eyrie.domain.async_inference import AsyncRoute

ROUTE = AsyncRoute("s3://b/out/", "s3://b/bad")


def test_the_least_loaded_instance_with_room_is_chosen() -> None:
    loads = [Load("a", 2, 1.0), Load("b", 1, 1.0), Load("c", 3, 1.0)]
    assert choose(loads, 4, alone=False, draw=0.0) == 1
    assert choose(loads, 1, alone=False, draw=0.0) is None
    assert choose([], 4, alone=False, draw=0.0) is None


def test_the_limit_is_an_instances_and_its_workers_share_it() -> None:
    loads = [Load("a", 2, 1.0), Load("a", 1, 1.0), Load("b", 3, 1.0)]
    assert choose(loads, 3, alone=False, draw=0.0) is None
    assert choose(loads, 4, alone=False, draw=0.0) == 1  # of the equally loaded the worker with the least


def test_a_suspect_needs_an_empty_instance_and_keeps_it_for_itself() -> None:
    assert choose([Load("a", 1, 1.0), Load("b", 0, 1.0)], 4, alone=True, draw=0.0) == 1
    assert choose([Load("a", 1, 1.0), Load("b", 1, 1.0)], 4, alone=True, draw=0.0) is None
    kept = [Load("a", 1, 1.0, alone=True), Load("a", 0, 1.0), Load("b", 3, 1.0)]
    assert choose(kept, 4, alone=False, draw=0.0) == 2


def test_variants_share_by_weight() -> None:
    loads = [Load("a", 0, 1.0), Load("b", 0, 3.0)]
    drawn = [choose(loads, 4, alone=False, draw=n / 100) for n in range(100)]
    assert drawn.count(0) == 25
    assert drawn.count(1) == 75
    assert choose([Load("a", 4, 1.0), Load("b", 0, 3.0)], 4, alone=False, draw=0.0) == 1


def test_a_request_is_never_sent_to_a_third_instance() -> None:
    assert [given_up(n) for n in (0, 1, 2, 3)] == [False, False, True, True]


def test_waits_grow_to_a_bound() -> None:
    assert [retry_ms(n) for n in (0, 1, 2, 3)] == [100, 100, 200, 400]
    assert retry_ms(10_000) == RETRY_MAX_MS


@pytest.mark.parametrize(
    ("extension", "filename", "good", "bad"),
    [
        ("", "", "s3://b/out/id.out", "s3://b/bad/id-error.out"),
        ("x/y", "", "s3://b/out/x/y/id.out", "s3://b/bad/x/y/id-error.out"),
        ("/x/", "f.csv", "s3://b/out/x/f.csv", "s3://b/bad/x/f-error.csv"),
        ("", "plain", "s3://b/out/plain", "s3://b/bad/plain-error"),
    ],
)
def test_where_results_and_failures_go(extension: str, filename: str, good: str, bad: str) -> None:
    assert locations(ROUTE, "id", extension, filename) == (good, bad)


def test_a_failure_never_has_the_name_of_a_result() -> None:
    same = AsyncRoute("s3://b/p", "s3://b/p")
    for filename in ("", "f", "f.csv"):
        good, bad = locations(same, "id", "", filename)
        assert good != bad
    assert locations(AsyncRoute("s3://b/p"), "id", "", "") == ("s3://b/p/id.out", "")


def test_a_backlog_is_shared_by_instances() -> None:
    assert per_instance(10, 4) == 2.5
    assert per_instance(0, 0) == 0.0
    assert per_instance(10, 0) is None


def test_who_is_told() -> None:
    route = AsyncRoute("s3://b/p", "", "arn:good", "arn:bad", ("ERROR_NOTIFICATION_TOPIC",), 7)
    assert topic_of(route, completed=True) == ("arn:good", False)
    assert topic_of(route, completed=False) == ("arn:bad", True)
    assert (concurrency(route), concurrency(ROUTE)) == (7, CONCURRENCY)
