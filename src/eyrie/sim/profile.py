"""What an instance is like, as the wind tunnel sees it: how long a request takes, how many at once, how it starts."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

SPREAD_MAX = 5.0


class ProfileError(ValueError):
    """A profile that makes no sense; the message names the field and its value."""


@dataclass(frozen=True, slots=True)
class InstanceProfile:
    """One instance under load. A spread is a standard deviation over its mean; times are lognormal."""

    service_ms: float = 50.0  # a request's mean time in the model, alone
    service_spread: float = 0.5
    slots: int = 2  # requests that are worked on at once: workers, or vCPUs
    overhead_ms: float = 1.0  # gateway and sockets, beside the model
    startup_s: float = 20.0  # from the decision to the first request that it may answer
    startup_spread: float = 0.2
    drain_s: float = 1.0  # from the last request to the end of its process
    queue_max: int = 1000  # requests that wait for one instance; more are refused
    timeout_s: float = 60.0  # a request that waited longer has failed
    usd_per_hour: float = 0.0
    instance_type: str = "ml.m5.large"

    @property
    def rate(self) -> float:
        """Requests a second that it answers with all slots busy."""
        return 1000.0 * self.slots / self.service_ms

    def startup_ms(self, chance: random.Random) -> int:
        """How long one start takes."""
        return max(1, round(1000 * lognormal(chance, self.startup_s, self.startup_spread)))


def lognormal(chance: random.Random, mean: float, spread: float) -> float:
    """A lognormal number of that mean and spread."""
    if mean <= 0 or spread <= 0:
        return max(mean, 0.0)
    sigma2 = math.log1p(spread * spread)
    return chance.lognormvariate(math.log(mean) - sigma2 / 2, math.sqrt(sigma2))


def checked(profile: InstanceProfile) -> InstanceProfile:
    """The profile itself. Raises ProfileError naming the field that is out of range."""
    ranges: Mapping[str, tuple[float, float]] = {
        "service_ms": (0.001, 3_600_000),
        "service_spread": (0, SPREAD_MAX),
        "slots": (1, 4096),
        "overhead_ms": (0, 60_000),
        "startup_s": (0, 86_400),
        "startup_spread": (0, SPREAD_MAX),
        "drain_s": (0, 3600),
        "queue_max": (0, 1_000_000),
        "timeout_s": (0.01, 3600),
        "usd_per_hour": (0, 100_000),
    }
    for name, (low, high) in ranges.items():
        value = getattr(profile, name)
        if not low <= value <= high:
            raise ProfileError(f"{name} must lie between {low:g} and {high:g}, and is {value!r}")
    return profile


def from_json(text: str, base: InstanceProfile | None = None) -> InstanceProfile:
    """A profile from a JSON object of its fields; what it leaves out is as in `base`. Raises ProfileError."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ProfileError(f"an instance profile is a JSON object: {error}") from None
    if not isinstance(given, dict):
        raise ProfileError("an instance profile is a JSON object")
    return changed(base or InstanceProfile(), given)


def changed(profile: InstanceProfile, given: Mapping[str, Any]) -> InstanceProfile:
    """The profile with some fields set; their values may be text. Raises ProfileError."""
    kinds = {f.name: type(getattr(profile, f.name)) for f in fields(profile)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in kinds:
            raise ProfileError(f"an instance profile has no {str(name)[:40]!r}: it has {', '.join(kinds)}")
        try:
            values[name] = kinds[name](value)
        except (TypeError, ValueError):
            raise ProfileError(f"{name} must be a {kinds[name].__name__}, and is {value!r}") from None
    return checked(replace(profile, **values))
