"""Where a request goes: variant by weight, instance by load, and what may be tried again. Pure: chance and time are
arguments.

On the InvokeEndpoint path: `gateway/invocation` asks here, and keeps these objects one set a worker.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

SAMPLED_ABOVE = 8  # instances; up to here all are compared, beyond two are drawn and compared


K = TypeVar("K", bound=Hashable)


class Wheel(Generic[K]):
    """Deals requests to variants by weight so that after every request each has had its exact share, less than one off.

    Tijdeman's rule for the chairman assignment problem: among those far enough behind their share, the one that would
    soonest fall a whole request behind. (Plain smooth round-robin can drift further off with three or more variants.)
    """

    __slots__ = ("_behind", "_floor", "_shares", "names")

    def __init__(self, weights: Mapping[K, float], behind: Mapping[K, float] | None = None) -> None:
        """Weights by variant, those of 0 are never dealt to; `behind` is `place()` of the wheel that this one
        replaces.
        """
        self.names = tuple(name for name, weight in weights.items() if weight > 0)
        total = sum(weights[name] for name in self.names)
        self._shares = [weights[name] / total for name in self.names]
        self._floor = 1 / (2 * len(self.names) - 2) if len(self.names) > 1 else 0.0
        kept = [(behind or {}).get(name, 0.0) for name in self.names]
        surplus = sum(kept)
        self._behind = [k - surplus * share for k, share in zip(kept, self._shares, strict=True)]

    def place(self) -> dict[K, float]:
        """How many requests each variant is behind its share; a wheel with other weights goes on from here."""
        return dict(zip(self.names, self._behind, strict=True))

    def deal(self) -> int:
        """The index in `names` of the variant that gets the next request. Raises IndexError when there is none."""
        if len(self.names) < 2:
            if not self.names:
                raise IndexError("no variant has weight")
            return 0
        behind, shares, floor = self._behind, self._shares, self._floor
        if len(shares) == 2:  # the rule comes down to: whoever is further behind
            first, second = behind[0] + shares[0], behind[1] + shares[1]
            if first >= second:
                behind[0], behind[1] = first - 1, second
                return 0
            behind[0], behind[1] = first, second - 1
            return 1
        chosen, soonest = -1, 0.0
        for index, share in enumerate(shares):
            due = behind[index] + share
            behind[index] = due
            if due >= floor:
                patience = (1 - floor - due) / share
                if chosen < 0 or patience < soonest:
                    chosen, soonest = index, patience
        if chosen < 0:  # only rounding leads here
            chosen = max(range(len(shares)), key=behind.__getitem__)
        behind[chosen] -= 1
        return chosen


def least_outstanding(loads: Sequence[int], draw: float) -> int:
    """The index of the least loaded instance, ties broken by `draw` in [0, 1); above eight the better of two drawn
    ones.
    """
    count = len(loads)
    if count > SAMPLED_ABOVE:
        return _better_of_two(loads, draw)
    lowest = min(loads)
    ties = loads.count(lowest)
    if ties == 1:
        return loads.index(lowest)
    skip = int(draw * ties)
    index = loads.index(lowest)
    while skip:
        index = loads.index(lowest, index + 1)
        skip -= 1
    return index


def _better_of_two(loads: Sequence[int], draw: float) -> int:
    count = len(loads)
    scaled = draw * count
    first = int(scaled)
    second = int((scaled - first) * (count - 1))  # the fraction is a second draw, independent of the first
    if second >= first:
        second += 1
    return first if loads[first] <= loads[second] else second


def at_random(count: int, draw: float) -> int:
    """An index below `count`, for the strategy RANDOM."""
    return int(draw * count)


def rendezvous(names: Sequence[str], key: str) -> list[int]:
    """The indexes of `names` in the order in which they are to hold `key`, the same for whoever asks: each pair has its
    own rank, so that one name more or less moves only the keys that it holds.
    """
    ranks = [hashlib.blake2b(f"{name}\n{key}".encode(), digest_size=8).digest() for name in names]
    return sorted(range(len(names)), key=ranks.__getitem__, reverse=True)


def assigned(weights: Mapping[str, float], key: str) -> str | None:
    """Which of `weights` a key belongs to: over many keys each gets its share, and one key always the same.

    Weighted rendezvous: every name draws a lot for the key, exponential at the rate of its weight; the first one wins.
    A weight that changes moves only the keys that must move: from the others to a name that grew, from one that shrank
    to the others. None where no name has weight.
    """
    winner, soonest = None, math.inf
    for name, weight in weights.items():
        if weight > 0:
            drawn = int.from_bytes(hashlib.blake2b(f"{name}\n{key}".encode(), digest_size=8).digest(), "big")
            when = -math.log((drawn + 1) / 2.0**64) / weight
            if when < soonest or winner is None:
                winner, soonest = name, when
    return winner


def spread(outstanding: int, at_once: int, targets: int) -> int:
    """How many targets a model is worth that has so many requests outstanding: one more for every `at_once` of them."""
    return max(1, min(targets, 1 + outstanding // at_once))


class RetryBudget:
    """How many requests may be sent a second time: a fifth of the traffic, above a reserve that time refills.

    The reserve is what moves all requests of an instance that dies under light traffic; the share keeps an outage of
    many
    instances from doubling the load on the rest.
    """

    __slots__ = ("_at_s", "_left", "most", "per_request", "per_second")

    def __init__(self, now_s: float, most: float = 2_000.0, per_request: float = 0.2, per_second: float = 20.0) -> None:
        self.most = most
        self.per_request = per_request
        self.per_second = per_second
        self._left = most
        self._at_s = now_s

    def request(self) -> None:
        """A request came in."""
        if self._left < self.most:
            self._left = min(self.most, self._left + self.per_request)

    def withdraw(self, now_s: float) -> bool:
        """Take one retry; False when there is none left."""
        self._left = min(self.most, self._left + (now_s - self._at_s) * self.per_second)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class PoisonMemory:
    """Requests, by a hash, that instances died under. One that was there twice is refused for a while; an answer
    clears it.
    """

    __slots__ = ("_deaths", "_refused_until_s", "empty", "most", "refused_s")

    def __init__(self, most: int = 4_096, refused_s: float = 60.0) -> None:
        self.most = most
        self.refused_s = refused_s
        self.empty = True  # nothing is remembered: no request need be hashed
        self._deaths: dict[int, tuple[str, float]] = {}
        self._refused_until_s: dict[int, float] = {}

    def died(self, request: int, instance_id: str, now_s: float) -> bool:
        """An instance died with this request on it; True when it was the second one, and the request is refused from
        now on.
        """
        self.empty = False
        before = self._deaths.get(request)
        if before is not None and before[0] != instance_id and now_s - before[1] <= self.refused_s:
            del self._deaths[request]
            _bound(self._refused_until_s, self.most)
            self._refused_until_s[request] = now_s + self.refused_s
            return True
        _bound(self._deaths, self.most)
        self._deaths[request] = (instance_id, now_s)
        return False

    def answered(self, request: int) -> None:
        """It was not this one: some instance lived to answer it."""
        self._deaths.pop(request, None)
        self.empty = not (self._deaths or self._refused_until_s)

    def refused(self, request: int, now_s: float) -> bool:
        """Whether the request may not be sent now."""
        until_s = self._refused_until_s.get(request)
        if until_s is None:
            return False
        if now_s >= until_s:
            del self._refused_until_s[request]
            return False
        return True

    def forget(self, now_s: float) -> None:
        """Drop what is too old to matter."""
        for request, (_, at_s) in list(self._deaths.items()):
            if now_s - at_s > self.refused_s:
                del self._deaths[request]
        for request, until_s in list(self._refused_until_s.items()):
            if now_s >= until_s:
                del self._refused_until_s[request]
        self.empty = not (self._deaths or self._refused_until_s)


def _bound(memory: dict[int, float] | dict[int, tuple[str, float]], most: int) -> None:
    """Make room for one more: the oldest entry goes."""
    if len(memory) >= most:
        del memory[next(iter(memory))]


def silence_limit_s(floor_s: float, slowest_s: float, answered: int) -> float:
    """How long an instance may answer nothing before it is asked whether it lives: the floor where the model is known
    to be
    quick, three times its slowest recent answer where it is slow, five floors where nothing is known yet.
    """
    if answered == 0:
        return 5 * floor_s
    return max(floor_s, 3 * slowest_s)


def may_eject_silent(silent: int, routed: int) -> bool:
    """Whether one more instance of a variant may leave the route for mere silence: never the last that answers, and not
    when more than half are silent together, for then whoever listens is the suspect. Counts include the one in
    question.
    """
    return routed - silent >= 1 and silent * 2 <= max(routed, 2)
