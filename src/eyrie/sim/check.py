"""What must hold in any run, looked at after every second: safety while anything may happen, convergence afterwards.

Safety: the wanted count lies within its bounds, whatever the faults; a policy takes no two decisions to shrink within
one cool-down; the lint accepts every plan, and the world sees no double start, no early stop and no end of the last
healthy instance by a decision (sim/fleet raises for those). Convergence: under a steady load, when the last fault is
over, the fleet comes to rest: whole, as many as are wanted, and the wish no longer changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from eyrie.domain.scaling import FastTracking, StepScaling, TargetTracking
from eyrie.sim.faults import last_s
from eyrie.sim.ours import Ours
from eyrie.sim.policy import Policy
from eyrie.sim.run import Experiment, Run, ScalingAction, Tunnel
from eyrie.sim.traffic import traffic

SETTLE_S = 1800  # the longest that a fleet may take: a back-off of five minutes, a cool-down of five, and room
CALM_S = 600


def safe(experiment: Experiment, policy: Policy) -> Run:
    """A whole run with its safety checked. Raises Unsafe or AssertionError at the first thing that is wrong."""
    tunnel = Tunnel(experiment, policy)
    while not tunnel.over:
        tunnel.step()
        _bounded(tunnel)
    if isinstance(policy, Ours):
        cooled(tunnel.run.actions, policy)
    return tunnel.run


def converges(experiment: Experiment, policy: Policy) -> Run:
    """The run, then its last rate for as long as settling may take. Raises AssertionError where it does not rest."""
    rates = list(experiment.traffic.rates)
    quiet = max(0, round(last_s(experiment.faults)) - len(rates)) + SETTLE_S + CALM_S
    steady = traffic(experiment.traffic.name, [*rates, *[rates[-1]] * quiet], even=True)
    tunnel = Tunnel(replace(experiment, traffic=steady), policy)
    while not tunnel.over:
        tunnel.step()
        _bounded(tunnel)
    _at_rest(tunnel)
    return tunnel.run


def _bounded(tunnel: Tunnel) -> None:
    wanted, experiment = tunnel.fleet.desired, tunnel.experiment
    low, high = experiment.minimum, experiment.maximum
    assert low <= wanted <= high, f"{wanted} are wanted, outside {low} to {high}"
    counted, silent = tunnel.fleet.counted()  # one beside a silent one replaces what may be dead (law 13)
    assert counted <= high + bool(silent), f"{counted} instances are counted on, and {high} are allowed"


def _at_rest(tunnel: Tunnel) -> None:
    fleet, run = tunnel.fleet, tunnel.run
    late = [a for a in run.actions if a.at_s > len(run.arrived) - CALM_S]
    assert not late, f"the wish still changes: {late[-3:]}"
    assert not fleet.busy_changing, f"the endpoint is {fleet.endpoint.status}"
    assert fleet.serving() == fleet.desired == fleet.existing(), (
        f"{fleet.serving()} serve and {fleet.existing()} exist where {fleet.desired} are wanted"
    )


def cooled(actions: Sequence[ScalingAction], policy: Ours) -> None:
    """No two decisions of one direction within a cool-down; where several policies scale, the shortest counts.

    AWS lets a larger demand scale out within the cool-down of a smaller one; that is no second decision for the same.
    """
    inward = min((_in_cooldown_ms(p) for p in policy.policies), default=0) // 1000
    shrunk = [a for a in actions if a.after < a.before and a.reason and not a.reason.startswith(("maximum", "minimum"))]
    for earlier, later in pairwise(shrunk):
        assert later.at_s - earlier.at_s >= inward, f"{earlier} and {later} lie within one cool-down of {inward} s"


def _in_cooldown_ms(policy: TargetTracking | StepScaling | FastTracking) -> int:
    return policy.cooldown_ms if isinstance(policy, StepScaling) else policy.in_cooldown_ms
