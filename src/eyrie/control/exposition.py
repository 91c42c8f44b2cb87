"""`GET /metrics`: who may see what, and all that there is to see.

Sources give families of numbers; those with an `account` label belong to it, the others are of this Eyrie itself.
An API key sees its own account and region (and endpoints, where it is limited to some), and what is of Eyrie itself
unless it is limited. Without a key nothing is seen, unless the setting says that everybody may see everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from eyrie.control.endpoints import Endpoints
from eyrie.decide.host_metrics import host_metrics
from eyrie.decide.rollout import shares
from eyrie.domain.credits import Credits
from eyrie.domain.exposition import Family, Labels, Sample, counter, gauge
from eyrie.domain.usage import HostUsage, InstanceUsage
from eyrie.wire.api_keys import ApiKey, KeyRing

PATH = "/metrics"
_LEVELS = ("cpu_", "mem_", "swap_", "disk_")  # of a host; what it counts is told as counters

Source = Callable[[], Iterable[Family]]


class Exposition:
    """All sources together."""

    def __init__(self, sources: Sequence[Source], keys: KeyRing, *, everybody: bool) -> None:
        self._sources = sources
        self._keys = keys
        self._everybody = everybody

    def families(self) -> list[Family]:
        """Everything."""
        return [family for source in self._sources for family in source()]

    def seen_by(self, authorization: bytes | None, now_ms: int) -> list[Family]:
        """What a scrape with this Authorization header gets. Raises KeyRefused."""
        if self._everybody:
            return self.families()
        self._keys.refresh()
        key = self._keys.check(authorization, now_ms)
        return [seen for family in self.families() if (seen := _of_key(family, key))]


def _of_key(family: Family, key: ApiKey) -> Family | None:
    samples = [one for one in family.samples if _visible(one.labels, key)]
    spreads = [one for one in family.distributions if _visible(one.labels, key)]
    return replace(family, samples=samples, distributions=spreads) if samples or spreads else None


def _visible(labels: Labels, key: ApiKey) -> bool:
    if "account" not in labels:
        return not key.endpoints
    if (labels["account"], labels.get("region")) != (key.account, key.region):
        return False
    return not key.endpoints or labels.get("endpoint") in key.endpoints


def of_instances(
    used: Mapping[str, tuple[InstanceUsage, Mapping[str, float]]], credits: Mapping[str, Credits]
) -> list[Family]:
    """What each instance uses: its usage and its utilisation by name."""
    labels = {
        i: {
            "account": usage.endpoint.account,
            "region": usage.endpoint.region,
            "endpoint": usage.endpoint.name,
            "variant": usage.variant,
            "instance": i,
        }
        for i, (usage, _) in used.items()
    }
    names = {"CPUUtilization": "cpu", "MemoryUtilization": "memory", "DiskUtilization": "disk",
             "GPUUtilization": "gpu", "GPUMemoryUtilization": "gpu_memory"}  # fmt: skip
    shares = [
        gauge(
            f"eyrie_instance_{short}_percent",
            f"{name} of an instance",
            [Sample(labels[i], found[name]) for i, (_, found) in used.items() if name in found],
            "%",
        )
        for name, short in names.items()
    ]
    seconds = [Sample(labels[i], usage.cpu_us / 1e6) for i, (usage, _) in used.items()]
    memory = [Sample(labels[i], float(usage.memory_bytes)) for i, (usage, _) in used.items()]
    balances = [Sample(labels[i], credits[i].balance) for i in used if i in credits]
    return [
        *shares,
        counter("eyrie_instance_cpu_seconds", "CPU time of an instance", seconds, "s"),
        gauge("eyrie_instance_memory_bytes", "Memory of an instance", memory, "By"),
        gauge("eyrie_instance_cpu_credits", "CPU credits of a burstable instance", balances),
    ]


def of_host(before: HostUsage | None, after: HostUsage | None) -> list[Family]:
    """What the host uses: shares and levels by CWAgent's names, and its counters."""
    if before is None or after is None:
        return []
    levels: dict[str, list[Sample]] = {}
    for metric in host_metrics(before, after):
        if metric.name.startswith(_LEVELS):
            levels.setdefault(metric.name, []).append(Sample(dict(metric.dimensions), metric.value))
    made = [gauge(f"eyrie_host_{name}", f"{name} of the host", samples) for name, samples in levels.items()]
    for kind, label, counted in (("diskio", "device", after.disks), ("net", "interface", after.networks)):
        for name in sorted({name for told in counted.values() for name in told}):
            samples = [
                Sample({"host": after.host, label: one}, float(t[name])) for one, t in counted.items() if name in t
            ]
            level = name == "iops_in_progress"
            made.append(
                (gauge if level else counter)(f"eyrie_host_{kind}_{name}", f"{kind} {name} of the host", samples)
            )
    return made


def of_endpoints(endpoints: Endpoints) -> list[Family]:
    """How many instances each variant has by state, and how many are wanted."""
    states: dict[tuple[str, str, str, str, str], int] = {}
    wanted = []
    for endpoint in endpoints.list():
        key = endpoint.key
        for instance in endpoint.instances:
            place = (key.account, key.region, key.name, instance.variant, str(instance.state))
            states[place] = states.get(place, 0) + 1
        for variant in shares(endpoint)[-1][0].variants:
            labels = {"account": key.account, "region": key.region, "endpoint": key.name, "variant": variant.name}
            wanted.append(Sample(labels, float(variant.desired_count)))
    names = ("account", "region", "endpoint", "variant", "state")
    counted = [Sample(dict(zip(names, place, strict=True)), float(count)) for place, count in states.items()]
    return [
        gauge("eyrie_endpoint_instances", "Instances of a variant, by state", counted),
        gauge("eyrie_endpoint_instances_desired", "Instances that a variant is to have", wanted),
    ]
