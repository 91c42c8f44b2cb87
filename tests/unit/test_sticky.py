"""Sticky assignment: one client, one variant; shares are those of the weights, and little moves when they change."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from gateway_world import World, world

from eyrie.decide.routing import assigned
from eyrie.domain.sticky import is_rule, key_of

SM = "X-Amzn-SageMaker-"
KEYS = [f"user-{n}" for n in range(6_000)]


def test_shares_are_those_of_the_weights() -> None:
    weights = {"a": 0.7, "b": 0.2, "c": 0.1, "none": 0.0}
    counts = Counter(assigned(weights, key) for key in KEYS)
    for name, weight in weights.items():
        assert abs(counts[name] - weight * len(KEYS)) <= 4 * (len(KEYS) * weight * (1 - weight)) ** 0.5
    assert assigned({}, "k") is None
    assert assigned({"a": 0.0}, "k") is None


def test_a_change_of_weights_moves_only_what_must_move() -> None:
    before = {key: assigned({"a": 1.0, "b": 1.0, "c": 2.0}, key) for key in KEYS}
    after = {key: assigned({"a": 1.0, "b": 3.0, "c": 2.0}, key) for key in KEYS}
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {"b"}  # only to the one that grew: from 1/4 to 1/2
    assert abs(len(moved) - len(KEYS) / 4) < 4 * (len(KEYS) * 0.25 * 0.75) ** 0.5
    without = {key: assigned({"a": 1.0, "c": 2.0}, key) for key in KEYS}
    assert {before[key] for key in KEYS if before[key] != without[key]} == {"b"}


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ("inference-id", "i-1"),
        ("custom-attributes", "tier=gold; user = 42,x"),
        ("custom-attributes:user", "42"),
        ("custom-attributes:tier", "gold"),
        ("custom-attributes:none", ""),
        ("header:X-User", "u"),
        ("header:x-none", ""),
    ],
)
def test_where_a_key_is_found(rule: str, key: str) -> None:
    fields = {
        b"x-amzn-sagemaker-inference-id": b"i-1 ",
        b"x-amzn-sagemaker-custom-attributes": b"tier=gold; user = 42,x",
        b"x-user": b"u",
    }
    assert is_rule(rule)
    assert key_of(rule, fields) == key


@pytest.mark.parametrize("rule", ["", "user", "header:", "header:a b", "custom-attributes:", "inference-id:x"])
def test_what_is_no_rule(rule: str) -> None:
    assert not is_rule(rule)


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), world() as made:
            await test(made)

    asyncio.run(main())


async def variant_of(w: World, user: str, **more: str) -> str:
    got = await w.invoke(**{f"{SM}Custom-Attributes": f"user={user}", **more})
    assert got.status == 200
    return got.headers["x-amzn-invoked-production-variant"]


def test_a_client_stays_with_its_variant_and_goes_elsewhere_only_while_that_has_no_instance() -> None:
    async def test(w: World) -> None:
        one, two = await w.instance("i-1"), await w.instance("i-2")
        both = {"a": (1.0, [one]), "b": (1.0, [two])}
        w.publish(both, sticky="custom-attributes:user")
        users = [str(n) for n in range(12)]
        first = {user: await variant_of(w, user) for user in users}
        assert set(first.values()) == {"a", "b"}
        for _ in range(2):
            assert {user: await variant_of(w, user) for user in users} == first
        loyal = next(user for user in users if first[user] == "b")
        assert await variant_of(w, loyal, **{f"{SM}Target-Variant": "a"}) == "a"
        assert {(await w.invoke()).headers["x-amzn-invoked-production-variant"] for _ in range(4)} == {"a", "b"}
        await two.kill()
        assert {await variant_of(w, user) for user in users} == {"a"}
        three = await w.instance("i-3")
        w.publish({"a": (1.0, [one]), "b": (1.0, [three])}, sticky="custom-attributes:user")
        assert {user: await variant_of(w, user) for user in users} == first

    run(test)


def test_headers_that_look_alike_are_told_apart_by_their_key() -> None:
    async def test(w: World) -> None:
        w.publish(
            {"a": (1.0, [await w.instance("i-1")]), "b": (1.0, [await w.instance("i-2")])}, sticky="header:X-User"
        )
        first: dict[str, str] = {}
        for user in [str(n) for n in range(10)] * 4:
            got = await w.invoke(**{"X-User": user})
            assert got.headers["x-amzn-invoked-production-variant"] == first.setdefault(
                user, got.headers["x-amzn-invoked-production-variant"]
            )
        assert set(first.values()) == {"a", "b"}

    run(test)
