"""DeploymentConfig of CreateEndpoint and UpdateEndpoint in the house's words, and what contradicts itself in it.

What depends on the number of instances (a size that is more than half of the fleet, waits beyond the time limit) is
refused by `decide/rollout.check`, which knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from eyrie.control import alarm_table
from eyrie.control.context import Context
from eyrie.decide.rollout import MEMBERS
from eyrie.domain.deployment import CapacitySize, SizeKind, Strategy, TrafficPolicy
from eyrie.wire import plain
from eyrie.wire.errors import constraint_violations, validation
from eyrie.wire.model import Models
from eyrie.wire.validate import violations
from eyrie.wire.values import Malformed

Given = Mapping[str, Any]


def traffic_policy(config: Given | None) -> TrafficPolicy:
    """The policy of a DeploymentConfig, all at once where there is none. Raises ValidationException."""
    given = config or {}
    blue_green, rolling = given.get("BlueGreenUpdatePolicy"), given.get("RollingUpdatePolicy")
    if blue_green is not None and rolling is not None:
        raise validation("A DeploymentConfig has either a BlueGreenUpdatePolicy or a RollingUpdatePolicy, not both.")
    alarms = _alarms(given)
    if rolling is not None:
        return _rolling(rolling, alarms)
    return _blue_green(blue_green, alarms) if blue_green is not None else TrafficPolicy(alarms=alarms)


def held_to_the_model(models: Models, given: Given) -> Given:
    """A DeploymentConfig that no client has checked, as UpdateEndpoint would get it. Raises ValidationException, also
    for a member that there is not: it would be left out, and another policy planned than was meant.
    """
    parameters = models.operation("sagemaker", "UpdateEndpoint").input
    assert parameters is not None
    shape = parameters.members["DeploymentConfig"]
    try:
        read: Given = plain.read_structure(shape, given)
    except Malformed as problem:
        raise validation(f"The DeploymentConfig is not as UpdateEndpoint has it: {problem.text}"[:512]) from None
    unknown = [name[:128] for name in islice(plain.strays(shape, given), 3)]
    if unknown:
        raise validation(f"A DeploymentConfig has no {', '.join(unknown)}.")
    broken = violations(shape, read)
    if broken:
        raise constraint_violations(broken)
    return read


def check_alarms(context: Context, policy: TrafficPolicy) -> None:
    """Raise ValidationException for an alarm that is not there."""
    known = alarm_table.states(context.store, context.scope, policy.alarms)
    missing = [name for name in policy.alarms if name not in known]
    if missing:
        raise validation(f"AutoRollbackConfiguration names alarms that do not exist: {', '.join(missing)}.")


def _alarms(given: Given) -> tuple[str, ...]:
    names = [alarm.get("AlarmName", "") for alarm in given.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
    if not all(names):
        raise validation("Each of AutoRollbackConfiguration.Alarms needs an AlarmName.")
    if len(names) != len(set(names)):
        raise validation(f"AutoRollbackConfiguration.Alarms names an alarm twice: {', '.join(sorted(names))}.")
    return tuple(names)


def _blue_green(given: Given, alarms: tuple[str, ...]) -> TrafficPolicy:
    routing = given["TrafficRoutingConfiguration"]
    strategy = Strategy(routing["Type"])
    own = MEMBERS.get(strategy)
    for member in (MEMBERS[Strategy.CANARY], MEMBERS[Strategy.LINEAR]):
        if member == own and member not in routing:
            raise validation(f"TrafficRoutingConfiguration of Type {strategy} needs {member}.")
        if member != own and member in routing:
            raise validation(f"TrafficRoutingConfiguration of Type {strategy} has no {member}.")
    return TrafficPolicy(
        strategy=strategy,
        size=_size(routing[own]) if own else None,
        bake_ms=1000 * int(routing.get("WaitIntervalInSeconds", 0)),
        termination_wait_ms=1000 * int(given.get("TerminationWaitInSeconds", 0)),
        limit_ms=1000 * int(given.get("MaximumExecutionTimeoutInSeconds", 0)),
        alarms=alarms,
    )


def _rolling(given: Given, alarms: tuple[str, ...]) -> TrafficPolicy:
    back = given.get("RollbackMaximumBatchSize")
    return TrafficPolicy(
        strategy=Strategy.ROLLING,
        size=_size(given["MaximumBatchSize"]),
        bake_ms=1000 * int(given.get("WaitIntervalInSeconds", 0)),
        limit_ms=1000 * int(given.get("MaximumExecutionTimeoutInSeconds", 0)),
        alarms=alarms,
        rollback_size=_size(back) if back else None,
    )


def _size(given: Given) -> CapacitySize:
    return CapacitySize(SizeKind(given["Type"]), int(given["Value"]))
