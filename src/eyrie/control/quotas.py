"""Service limits: the table, what holds in an account and region, and how much of it endpoints use.

A limit is its default until `service-quotas` raised it (`api_quotas`); then it is a document of kind "ServiceQuota".
The defaults are generous: the machine is the user's own, and EYRIE_INSTANCES_MAX is what protects it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eyrie.control.context import DOCUMENTS_MAX
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.fleet import VariantSpec
from eyrie.domain.names import Scope
from eyrie.domain.serverless import CONCURRENCY_MAX
from eyrie.ports import Store

KIND = "ServiceQuota"
SERVICE, SERVICE_NAME = "sagemaker", "Amazon SageMaker"
INSTANCES = "Number of instances across active endpoints"
SERVERLESS = "Total concurrency across serverless endpoints"
ENDPOINT_TYPE = "{} for endpoint usage"
TRANSFORM_TYPE = "{} for transform job usage"
OF_KIND = "Number of resources of type {}"
INSTANCES_MAX = 500
SERVERLESS_MAX = 10_000
TRANSFORM_MAX = 100  # instances of a type in transform jobs that are not over
KINDS = ("Model", "EndpointConfig", "Endpoint", "TransformJob", "CompilationJob", "InferenceExperiment")
_MB = 1 << 20
_FIXED: Mapping[str, tuple[int, str]] = {  # what no request changes: value and unit
    "Maximum concurrency of a serverless endpoint": (CONCURRENCY_MAX, "None"),
    "Maximum payload of a request to a serverless endpoint": (4, "Megabytes"),
    "Maximum payload of an asynchronous request": (1_024, "Megabytes"),
    "Maximum payload of a record in a transform job": (100, "Megabytes"),
    "Maximum processing time of a real-time request": (60, "Seconds"),
    "Maximum processing time of an asynchronous request": (3_600, "Seconds"),
}


@dataclass(frozen=True, slots=True)
class Quota:
    """A service limit."""

    name: str
    default: int
    unit: str = "None"
    adjustable: bool = True

    @property
    def code(self) -> str:
        """What the API calls it: of the form that AWS's codes have, made of the name."""
        return "L-" + hashlib.sha256(self.name.encode()).hexdigest()[:8].upper()


def table(instance_types: Iterable[str], body_bytes_max: int) -> dict[str, Quota]:
    """Every quota of the service by its code, those by instance type for the types of the table."""
    found = [
        Quota(INSTANCES, INSTANCES_MAX),
        Quota(SERVERLESS, SERVERLESS_MAX),
        *(Quota(OF_KIND.format(kind), DOCUMENTS_MAX) for kind in KINDS),
        *(Quota(name, value, unit, adjustable=False) for name, (value, unit) in _FIXED.items()),
        Quota("Maximum payload of a real-time request", body_bytes_max // _MB, "Megabytes", adjustable=False),
    ]
    for name in sorted(instance_types):
        found += [Quota(ENDPOINT_TYPE.format(name), INSTANCES_MAX), Quota(TRANSFORM_TYPE.format(name), TRANSFORM_MAX)]
    return {quota.code: quota for quota in found}


def limit(store: Store, scope: Scope, name: str, default: int) -> int:
    """What holds now."""
    raised = store.get(KIND, scope, name)
    return int(raised.body["value"]) if raised is not None else default


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that what is asked for would go beyond."""

    name: str
    limit: int
    used: int
    wanted: int

    @property
    def unit(self) -> str:
        """What is counted."""
        return "Units" if self.name == SERVERLESS else "Instances"


def needed(variants: Iterable[tuple[VariantSpec, int, int]]) -> Counter[str]:
    """What variants need, by quota. Each with its number of instances, and MaxConcurrency of a serverless one."""
    found: Counter[str] = Counter()
    for spec, count, concurrency in variants:
        found[INSTANCES] += count
        if spec.serverless is None:
            found[ENDPOINT_TYPE.format(spec.instance_type)] += count
        else:
            found[SERVERLESS] += concurrency
    return found


def of_wish(variants: Iterable[VariantSpec]) -> Counter[str]:
    """What a new fleet needs."""
    return needed((v, v.initial_count, v.serverless.max_concurrency if v.serverless else 0) for v in variants)


def used(endpoints: Iterable[Endpoint]) -> Counter[str]:
    """What endpoints take up, both fleets of those that change."""
    return needed(
        (v.spec, v.desired_count, v.serverless.max_concurrency if v.serverless else 0)
        for endpoint in endpoints
        for fleet in endpoint.fleets
        for v in fleet.variants
    )


def excess(store: Store, scope: Scope, others: Iterable[Endpoint], wanted: Counter[str]) -> Excess | None:
    """The first limit that `wanted` beside what others use would go beyond."""
    there = used(others)
    for name, more in wanted.items():
        most = limit(store, scope, name, SERVERLESS_MAX if name == SERVERLESS else INSTANCES_MAX)
        if more > 0 and there[name] + more > most:
            return Excess(name, most, there[name], more)
    return None
