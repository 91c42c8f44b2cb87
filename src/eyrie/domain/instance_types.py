"""Instance types: how much CPU and memory an instance may use, what it costs at AWS, whether this host can run it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from eyrie.domain.costs import ServerlessPrice
from eyrie.domain.credits import BurstRule

_NAME = re.compile(r"ml\.([a-z]+)(\d+[a-z]*)\.(medium|large|(\d*)xlarge)")
_MEMORY_MB_PER_VCPU = {"c": 2048, "m": 4096, "r": 8192}  # the same over all generations of a family


class UnknownInstanceType(ValueError):
    """Neither in the table nor of a family whose sizes are known; the message is for people."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One row. vCPU and memory are caps of an instance, not reservations: one host may overcommit."""

    name: str  # "ml.m5.large"
    vcpu: int
    memory_mb: int
    usd_per_hour: float | None = None  # on demand, us-east-1, approximate; None: not known
    accelerators: int = 0
    accelerator_kind: str = ""
    cpu_baseline_percent: float = 100.0  # of each vCPU, what a burstable type earns credits for
    cpu_credits_max: float | None = None  # None: what a day earns
    launch_credits: float = 0.0
    credits_unlimited: bool = False  # goes on beyond its credits
    cpu_percent: float = 100.0  # of a core, what each vCPU is on this host
    derived: bool = False  # not in the table: worked out from the family's ratio

    @property
    def vcpu_milli(self) -> int:
        """The CPU cap in thousandths of a core."""
        return round(self.vcpu * 10 * self.cpu_percent)

    @property
    def burst(self) -> BurstRule | None:
        """What holds for its CPU credits; None for a type that has none."""
        if self.cpu_baseline_percent >= 100:
            return None
        per_hour = self.cpu_baseline_percent * self.vcpu_milli * 60 / 100_000
        most = 24 * per_hour if self.cpu_credits_max is None else self.cpu_credits_max
        baseline = int(self.vcpu_milli * self.cpu_baseline_percent / 100)
        return BurstRule(self.vcpu_milli, baseline, per_hour, most, self.launch_credits, self.credits_unlimited)

    def refusal(self) -> str | None:
        """Why this host cannot run the type, or None where it can."""
        if not self.accelerators:
            return None
        return (
            f"{self.name} has {self.accelerators} accelerator(s) of kind {self.accelerator_kind}, "
            "and this host offers none; choose a type without accelerators"
        )


@dataclass(frozen=True, slots=True)
class InstanceTypes:
    """The table, by name, and what of it this host has."""

    rows: Mapping[str, InstanceType]
    host_cpus: int = 1  # CPUs that instances may run on here
    serverless: ServerlessPrice = field(default_factory=ServerlessPrice)

    def get(self, name: str) -> InstanceType:
        """The row, or one derived from the family's ratio of memory to vCPU. Raises UnknownInstanceType."""
        return self.rows.get(name) or derive(name)


def derive(name: str) -> InstanceType:
    """A c, m or r type from its size alone: `large` is 2 vCPU, `Nxlarge` 4 N. Raises UnknownInstanceType."""
    parts = _NAME.fullmatch(name)
    ratio = _MEMORY_MB_PER_VCPU.get(parts[1]) if parts else None
    if parts is None or ratio is None:
        raise UnknownInstanceType(
            f"instance type {name} is not in the table of instance types, and its size cannot be told from its name; "
            "add it to instance_types.json in the data directory"
        )
    vcpu = {"medium": 1, "large": 2}.get(parts[3]) or 4 * int(parts[4] or 1)
    return InstanceType(name, vcpu, vcpu * ratio, derived=True)
