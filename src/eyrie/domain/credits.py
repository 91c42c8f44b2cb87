"""CPU credits of burstable instances. A credit is one vCPU at 100 % for a minute."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BurstRule:
    """What a burstable instance type earns, and what it may do without credits."""

    vcpu_milli: int  # all that it has, thousandths of a core
    baseline_milli: int  # what it may use for ever
    credits_per_hour: float
    credits_max: float  # beyond which none are earned: what a day earns
    launch_credits: float = 0.0  # given at the start, spent first, and not counted towards the maximum
    unlimited: bool = False  # goes on without credits, on surplus ones


@dataclass(frozen=True, slots=True)
class Credits:
    """What an instance has, as of one look at it."""

    at_ms: int  # of the clock of decisions
    at_us: int  # of a real, steady clock, as in `InstanceUsage`
    cpu_us: int  # CPU time that it had used by then
    launch: float
    earned: float
    surplus: float = 0.0  # spent without having them; earning pays them back
    charged: float = 0.0  # surplus that nothing will pay back: it would cost money

    @property
    def balance(self) -> float:
        """What CPUCreditBalance tells."""
        return self.launch + self.earned
