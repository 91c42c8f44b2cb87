"""CPU credits: what a burstable instance earns and spends, and how much CPU it may use. Pure.

An instance earns all the time, at the rate that pays for its baseline. What it uses is spent: launch credits first,
then earned ones; one that is `unlimited` goes on with surplus credits, which later earnings pay back.
"""

from __future__ import annotations

from dataclasses import replace

from eyrie.domain.credits import BurstRule, Credits
from eyrie.domain.usage import InstanceUsage

MINUTE_MS = 60_000
FADE_MINUTES = 5.0  # credits are to last so long: near their end an instance slows down, and does not stop short


def first(rule: BurstRule, usage: InstanceUsage, now_ms: int) -> Credits:
    """What an instance has that was never seen before."""
    return Credits(now_ms, usage.at_us, usage.cpu_us, rule.launch_credits, 0.0)


def spent(before: Credits, usage: InstanceUsage, now_ms: int) -> float:
    """Credits that were used since the last look. CPU time is real; minutes are those of the clock of decisions."""
    real_us = usage.at_us - before.at_us
    if real_us <= 0:
        return 0.0
    cores = min(max(usage.cpu_us - before.cpu_us, 0) / real_us, usage.vcpu_milli / 1000)
    return cores * max(now_ms - before.at_ms, 0) / MINUTE_MS


def after(rule: BurstRule, before: Credits, usage: InstanceUsage, now_ms: int) -> Credits:
    """What it has now. Of a host that was started again meanwhile only the time is known: it earned."""
    minutes = max(now_ms - before.at_ms, 0) / MINUTE_MS
    seen = replace(before, at_ms=now_ms, at_us=usage.at_us, cpu_us=usage.cpu_us)
    return settled(rule, seen, rule.credits_per_hour * minutes / 60, spent(before, usage, now_ms))


def settled(rule: BurstRule, credits: Credits, earned: float, used: float) -> Credits:
    """After earning and spending so many."""
    launch = min(credits.launch, used)
    net = earned - (used - launch)
    if net >= 0:
        paid = min(credits.surplus, net)
        kept = min(credits.earned + net - paid, rule.credits_max)
        return replace(credits, launch=credits.launch - launch, earned=kept, surplus=credits.surplus - paid)
    taken = min(credits.earned, -net)
    surplus = credits.surplus + (-net - taken if rule.unlimited else 0.0)
    beyond = max(surplus - rule.credits_max, 0.0)
    return replace(
        credits,
        launch=credits.launch - launch,
        earned=credits.earned - taken,
        surplus=surplus - beyond,
        charged=credits.charged + beyond,
    )


def allowed_milli(rule: BurstRule, credits: Credits) -> int:
    """How much CPU it may use until the next look, thousandths of a core: all of it, down to its baseline."""
    if rule.unlimited:
        return rule.vcpu_milli
    extra = 1000 * credits.balance / FADE_MINUTES
    return min(rule.vcpu_milli, rule.baseline_milli + int(extra))
