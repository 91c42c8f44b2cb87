"""What dispatch tells becomes CloudWatch's metrics of asynchronous endpoints; and what no update makes of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from toyworld import KEY, wish

from eyrie.control.backlogs import measurements
from eyrie.decide import endpoint as decide
from eyrie.domain.async_inference import AsyncRoute
from eyrie.domain.errors import KindChanged
from eyrie.domain.metrics import Summary
from eyrie.domain.names import EndpointKey

SLUG = EndpointKey("123456789012", "us-east-1", "birds").slug


def told(backlog: int, instances: int, **measured: Any) -> dict[tuple[str, ...], float]:
    """The averages of a second, by metric and names of dimensions."""
    said = {"endpoints": {SLUG: {"backlog": backlog, "instances": instances, "age_s": 4.5}}, "measured": measured}
    found = measurements(said, 1_000)
    return {
        (m.metric.name, *(name for name, _ in m.metric.dimensions)): m.summary.total / m.summary.count for m in found
    }


def test_a_backlog_has_the_dimension_of_its_endpoint_alone() -> None:
    assert told(10, 4) == {
        ("ApproximateBacklogSize", "EndpointName"): 10.0,
        ("ApproximateBacklogSizePerInstance", "EndpointName"): 2.5,
        ("HasBacklogWithoutCapacity", "EndpointName"): 0.0,
        ("ApproximateAgeOfOldestRequest", "EndpointName"): 4.5,
    }


def test_a_backlog_without_an_instance_is_told_and_shared_by_nobody() -> None:
    found = told(10, 0)
    assert found["HasBacklogWithoutCapacity", "EndpointName"] == 1.0
    assert ("ApproximateBacklogSizePerInstance", "EndpointName") not in found
    idle = told(0, 0)
    assert idle["HasBacklogWithoutCapacity", "EndpointName"] == 0.0
    assert idle["ApproximateBacklogSizePerInstance", "EndpointName"] == 0.0


def test_invocations_are_told_by_variant_and_for_the_whole_endpoint() -> None:
    one, two = Summary(), Summary()
    one.add(100.0)
    two.add(300.0)
    variants = {"a": {"TimeInBacklog": list(one.parts())}, "b": {"TimeInBacklog": list(two.parts())}}
    found = measurements({"endpoints": {}, "measured": {SLUG: variants}}, 1_000)
    by = {dict(m.metric.dimensions).get("VariantName", ""): (m.summary.total, m.unit) for m in found}
    assert by == {
        "a": (100.0, "Milliseconds"),
        "b": (300.0, "Milliseconds"),
        "": (400.0, "Milliseconds"),
    }


def test_an_update_does_not_change_the_kind_of_an_endpoint() -> None:
    now = replace(decide.create(KEY, "u", wish(("A", 1)), 1_000).endpoint, status=decide.EndpointStatus.IN_SERVICE)
    other = replace(wish(("A", 1)), asynchronous=AsyncRoute("s3://b/o"))
    with pytest.raises(KindChanged, match="has an AsyncInferenceConfig, and it is a real-time endpoint"):
        decide.update(now, decide.Update(other), 2_000)
    turned = replace(now, fleet=replace(now.fleet, asynchronous=AsyncRoute("s3://b/o")))
    with pytest.raises(KindChanged, match="has no AsyncInferenceConfig, and it is an asynchronous endpoint"):
        decide.update(turned, decide.Update(wish(("A", 1))), 2_000)
    assert decide.update(turned, decide.Update(other), 2_000).endpoint.deployment is not None
