"""DeploymentConfig of CreateEndpoint and UpdateEndpoint: what of it this Eyrie can do, which is all at once, and what
it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.control.unsupported import unsupported
from eyrie.wire.errors import validation


def check_deployment_config(config: Mapping[str, Any] | None) -> None:
    """Raise ValidationException for a config that contradicts itself or asks for what is not there yet."""
    if config is None:
        return
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green is not None and rolling is not None:
        raise validation("A DeploymentConfig has either a BlueGreenUpdatePolicy or a RollingUpdatePolicy, not both.")
    if rolling is not None:
        raise unsupported("RollingUpdatePolicy", "updates are all at once")
    if config.get("AutoRollbackConfiguration", {}).get("Alarms"):
        raise unsupported("AutoRollbackConfiguration.Alarms", "there are no alarms yet")
    if blue_green is None:
        return
    how = blue_green["TrafficRoutingConfiguration"]["Type"]
    if how != "ALL_AT_ONCE":
        raise unsupported(f"TrafficRoutingConfiguration.Type {how}", "updates are all at once")
    if "MaximumExecutionTimeoutInSeconds" in blue_green:
        raise unsupported("MaximumExecutionTimeoutInSeconds", "the start-up limit of the instances ends an update")


def termination_wait_ms(config: Mapping[str, Any] | None) -> int:
    """How long the old fleet is kept after the traffic has moved."""
    policy = (config or {}).get("BlueGreenUpdatePolicy") or {}
    return int(policy.get("TerminationWaitInSeconds", 0)) * 1000
