"""Keeps the CPU credits of burstable instances: hears what was used, decides by `decide/credits`, throttles, measures.

Part of the look that `sampling` takes each second. What an instance has lies beside it on disk, with the counters that
it was worked out from: a restarted control goes on as if it had never been away.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from eyrie.control.sampling import NAMESPACE, Watched, instance_metric, single
from eyrie.decide import credits as decide
from eyrie.domain.credits import BurstRule, Credits
from eyrie.domain.instance_types import InstanceTypes, UnknownInstanceType
from eyrie.domain.metrics import Measured, Metric
from eyrie.domain.usage import InstanceUsage
from eyrie.ports import Usages

log = logging.getLogger(__name__)

EC2_NAMESPACE = "AWS/EC2"  # where credits are found at AWS, by InstanceId
KEPT_EVERY_MS = 5_000  # real time; what was not written is worked out again
_STEP = 0.02  # of its CPU: a cap that changes by less stays


class BurstCredits:
    """The credits of every instance of a burstable type. Called from one thread at a time."""

    def __init__(self, usages: Usages, types: InstanceTypes) -> None:
        self._usages = usages
        self._types = types
        self._rules: dict[str, BurstRule | None] = {}  # by instance type
        self._credits: dict[str, Credits] = {}
        self._kept_us: dict[str, int] = {}
        self._caps: dict[str, int] = {}
        self._unheld: set[str] = set()  # instances that nothing here can throttle

    def hear(self, watched: Mapping[str, Watched], now_ms: int) -> list[Measured]:
        """Settle what each has, hold it to that; what is to be recorded."""
        for known in (self._credits, self._kept_us, self._caps):
            for gone in known.keys() - watched.keys():
                known.pop(gone)
        self._unheld &= watched.keys()
        measured: list[Measured] = []
        for seen in watched.values():
            rule = self._rule(seen.after.instance_type)
            if rule is not None:
                measured += self._one(rule, seen.after, now_ms)
        return measured

    def known(self) -> dict[str, Credits]:
        """What each burstable instance has, by its id."""
        return dict(self._credits)

    def _rule(self, instance_type: str) -> BurstRule | None:
        if instance_type not in self._rules:
            try:
                self._rules[instance_type] = self._types.get(instance_type).burst
            except UnknownInstanceType:
                self._rules[instance_type] = None
        return self._rules[instance_type]

    def _one(self, rule: BurstRule, usage: InstanceUsage, now_ms: int) -> Iterator[Measured]:
        name = usage.instance_id
        before = self._credits.get(name) or self._usages.recall(name) or decide.first(rule, usage, now_ms)
        now = self._credits[name] = decide.after(rule, before, usage, now_ms)
        if usage.at_us - self._kept_us.get(name, -(10**9)) >= KEPT_EVERY_MS * 1000:
            self._usages.remember(name, now)
            self._kept_us[name] = usage.at_us
        self._hold(rule, now, name)
        values = {
            "CPUCreditUsage": decide.spent(before, usage, now_ms),
            "CPUCreditBalance": now.balance,
            "CPUSurplusCreditBalance": now.surplus,
            "CPUSurplusCreditsCharged": now.charged - before.charged,
        }
        for metric, value in values.items():
            yield from instance_metric(usage, NAMESPACE, metric, value, "Count", now_ms)
            of_ec2 = Metric(usage.endpoint.scope, EC2_NAMESPACE, metric, (("InstanceId", name),))
            yield single(of_ec2, value, "Count", now_ms)

    def _hold(self, rule: BurstRule, credits: Credits, name: str) -> None:
        """Set its cap where that has changed."""
        cap = decide.allowed_milli(rule, credits)
        known = self._caps.get(name)
        if (
            known is not None
            and abs(cap - known) < _STEP * rule.vcpu_milli
            and cap
            not in (
                rule.baseline_milli,
                rule.vcpu_milli,
            )
        ):
            return
        if cap == known:
            return
        if self._usages.throttle(name, cap):
            self._caps[name] = cap
            self._unheld.discard(name)
            return
        if name not in self._unheld:
            log.warning("%s has %.1f CPU credits, and nothing here can hold it to them", name, credits.balance)
        self._unheld.add(name)
