"""What is wrong with a dashboard's body is told with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.decide.dashboards import COLUMNS, WIDGETS_MAX, faults


def metric(*rows: Any, **more: Any) -> dict[str, Any]:
    properties = {"region": "us-east-1", "metrics": list(rows) or [["N", "m"]], **more}
    return {"type": "metric", "properties": properties}


def told(*widgets: Any, **more: Any) -> dict[str, str]:
    return {fault.path: fault.message for fault in faults({"widgets": list(widgets), **more})}


def test_whole_dashboards_have_no_faults() -> None:
    rows = [
        ["AWS/SageMaker", "Invocations", "EndpointName", "e", "VariantName", "v", {"stat": "Sum", "id": "m1"}],
        [".", "ModelLatency", ".", ".", ".", "."],
        ["...", "w", {"yAxis": "right"}],
        [{"expression": "m1 / 60", "label": "rate", "id": "e1"}],
    ]
    widgets = [
        {**metric(*rows, view="timeSeries", period=300, yAxis={"left": {"min": 0}}), "x": 0, "y": 0, "width": COLUMNS},
        {"type": "text", "properties": {"markdown": "# Hi", "background": "solid"}},
        {"type": "log", "properties": {"query": "SOURCE 'g' | fields @message", "region": "us-east-1"}},
        {"type": "alarm", "properties": {"alarms": ["arn:aws:cloudwatch:us-east-1:123456789012:alarm:a"]}},
        {"type": "metric", "properties": {"region": "r", "annotations": {"alarms": ["arn"]}}},
        metric(view="gauge", yAxis={"left": {"min": 0, "max": 100}}),
    ]
    assert told(*widgets, start="-PT3H", periodOverride="auto") == {}


@pytest.mark.parametrize(
    ("widget", "path", "part"),
    [
        ("nothing", "", "Should be object"),
        ({"properties": {}}, "", "required property 'type'"),
        ({"type": "chart", "properties": {}}, "/type", "metric, text"),
        ({"type": "text", "properties": {}}, "/properties", "'markdown'"),
        ({"type": "text", "properties": {"markdown": 3}}, "/properties/markdown", "string"),
        ({**metric(), "x": 24, "y": 0}, "/x", "<= 23"),
        ({**metric(), "x": 1}, "", "'y'"),
        ({**metric(), "width": True}, "/width", "integer"),
        ({**metric(), "height": 0}, "/height", ">= 1"),
        (metric(period=61), "/properties/period", "multiple of 60"),
        (metric(view="circle"), "/properties/view", "gauge"),
        (metric(view="gauge"), "/properties/yAxis", "min and max"),
        (metric(timezone="Berlin"), "/properties/timezone", "HHMM"),
        (metric(["N"]), "/properties/metrics/0", "namespace"),
        (metric([".", "m"]), "/properties/metrics/0", "above it"),
        (metric(["..."]), "/properties/metrics/0", "above it"),
        (metric(["N", "m", {"id": "1x"}]), "/properties/metrics/0/2/id", "lower case"),
        (metric(["N", "m", {"id": "a"}], ["N", "o", {"id": "a"}]), "/properties/metrics/1/2/id", "unique"),
        (metric([{"label": "x"}]), "/properties/metrics/0/0", "'expression'"),
        (metric([3, "m"]), "/properties/metrics/0", "strings"),
        (metric([]), "/properties/metrics/0", "non-empty"),
        (metric(end="2026-01-01"), "/properties", "'start'"),
        ({"type": "metric", "properties": {"region": "r"}}, "/properties", "'metrics'"),
        ({"type": "alarm", "properties": {"alarms": ["x"]}}, "/properties/alarms/0", "ARN"),
        ({"type": "alarm", "properties": {"alarms": []}}, "/properties/alarms", "1 to 100"),
    ],
)
def test_each_fault_has_its_place(widget: Any, path: str, part: str) -> None:
    found = told(widget)
    assert part in found[f"/widgets/0{path}"], found


def test_what_has_no_meaning_is_only_warned_of() -> None:
    widget = metric(colour="red")
    (fault,) = faults({"widgets": [widget]})
    assert (fault.path, fault.fatal) == ("/widgets/0/properties/colour", False)


def test_the_body_itself() -> None:
    assert faults([])[0].message == "The dashboard body must be a JSON object"
    assert told(*([metric()] * (WIDGETS_MAX + 1)))["/widgets"] == f"Should NOT have more than {WIDGETS_MAX} items"
    assert "required property 'widgets'" in faults({})[0].message
    assert told(start="yesterday")["/start"].startswith("Should be a time")
    assert told(start="-PT")["/start"].startswith("Should be a time")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["widgets", "type", "properties", "metrics", "yAxis", "left", "id", "alarms"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(ANYTHING, st.sampled_from(["metric", "text", "log", "alarm", "explorer", "custom"]))
@settings(max_examples=150, deadline=None)
def test_any_json_is_judged(anything: Any, kind: str) -> None:
    for body in (anything, {"widgets": [{"type": kind, "properties": anything}]}, {"widgets": anything}):
        json.dumps([fault.path for fault in faults(body)])
