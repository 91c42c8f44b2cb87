"""Costs: who they are counted for, and what an hour, or a gigabyte-second, is reckoned at.

Nothing is paid here: the prices are those of the table of instance types, so that what runs can be weighed as it would
be elsewhere, or charged within a house by rows of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from eyrie.domain.metrics import Dimensions
from eyrie.domain.names import Scope


@dataclass(frozen=True, slots=True)
class ServerlessPrice:
    """What serverless variants are reckoned at. Approximate, us-east-1; DATA/instance_types.json replaces them."""

    usd_per_gb_second: float = 0.000_02  # while a request is worked on
    usd_per_provisioned_gb_second: float = 0.000_005  # of concurrency that is kept ready


@dataclass(frozen=True, slots=True)
class Payer:
    """What a cost is counted for: a variant of an endpoint, or a job."""

    scope: Scope
    endpoint: str = ""
    variant: str = ""
    job: str = ""  # TransformJobName; then the two above are empty

    @property
    def dimensions(self) -> tuple[Dimensions, ...]:
        """What its cost is told under: the account, the endpoint and the variant; or the account and the job."""
        if self.job:
            return (), (("TransformJobName", self.job),)
        endpoint = ("EndpointName", self.endpoint)
        return (), (endpoint,), (endpoint, ("VariantName", self.variant))


@dataclass(frozen=True, slots=True)
class Life:
    """Something that costs by the hour, and from when until when it was there for certain (ms since the epoch)."""

    payer: Payer
    usd_per_hour: float
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Served:
    """What a variant did in a step of time."""

    requests: float = 0.0
    busy_us: float = 0.0  # that its model worked, of all requests together
