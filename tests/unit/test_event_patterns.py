"""Event patterns as EventBridge documents them, and what a target is given of an event."""

from __future__ import annotations

import fnmatch
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide.event_patterns import PatternError, parse_pattern
from eyrie.decide.events import PathError, at_path, event, input_of, steps_of
from eyrie.domain.events import Target, Transformer
from eyrie.domain.names import Scope

EVENT = event(
    Scope(),
    "id-1",
    "aws.sagemaker",
    "SageMaker Endpoint State Change",
    {"EndpointName": "Shop-1", "EndpointStatus": "FAILED", "Count": 3, "Tags": {}, "Nothing": None, "Up": True},
    1_795_273_200_000,
    ["arn:aws:sagemaker:us-east-1:123456789012:endpoint/shop-1"],
)


@pytest.mark.parametrize(
    ("wanted", "picked"),
    [
        ({"source": ["aws.sagemaker"]}, True),
        ({"source": ["aws.ec2", "aws.sagemaker"], "detail": {"EndpointStatus": ["FAILED"]}}, True),
        ({"source": ["aws.sagemaker"], "detail": {"EndpointStatus": ["IN_SERVICE"]}}, False),
        ({"detail": {"EndpointName": [{"prefix": "Shop"}]}}, True),
        ({"detail": {"EndpointName": [{"prefix": "shop"}]}}, False),
        ({"detail": {"EndpointName": [{"prefix": {"equals-ignore-case": "shop"}}]}}, True),
        ({"detail": {"EndpointName": [{"suffix": "-1"}]}}, True),
        ({"detail": {"EndpointName": [{"suffix": {"equals-ignore-case": "P-1"}}]}}, True),
        ({"detail": {"EndpointName": [{"equals-ignore-case": "SHOP-1"}]}}, True),
        ({"detail": {"EndpointName": [{"wildcard": "S*p-*"}]}}, True),
        ({"detail": {"EndpointName": [{"wildcard": "S*p"}]}}, False),
        ({"detail": {"EndpointStatus": [{"anything-but": "FAILED"}]}}, False),
        ({"detail": {"EndpointStatus": [{"anything-but": ["IN_SERVICE", "CREATING"]}]}}, True),
        ({"detail": {"EndpointName": [{"anything-but": {"prefix": "Shop"}}]}}, False),
        ({"detail": {"EndpointName": [{"anything-but": {"suffix": ["-2", "-3"]}}]}}, True),
        ({"detail": {"EndpointName": [{"anything-but": {"wildcard": "*op*"}}]}}, False),
        ({"detail": {"Missing": [{"anything-but": "x"}]}}, False),
        ({"detail": {"Count": [3]}}, True),
        ({"detail": {"Count": [3.0]}}, True),
        ({"detail": {"Count": ["3"]}}, False),
        ({"detail": {"Count": [{"numeric": [">", 0, "<=", 3]}]}}, True),
        ({"detail": {"Count": [{"numeric": ["=", 4]}]}}, False),
        ({"detail": {"EndpointName": [{"numeric": [">", 0]}]}}, False),
        ({"detail": {"Up": [True]}}, True),
        ({"detail": {"Up": [1]}}, False),
        ({"detail": {"Nothing": [None]}}, True),
        ({"detail": {"Missing": [{"exists": False}]}}, True),
        ({"detail": {"Missing": [{"exists": True}]}}, False),
        ({"detail": {"Count": [{"exists": True}]}}, True),
        ({"detail": {"Missing": [{"exists": False}, "x"]}}, True),
        ({"resources": [{"suffix": "endpoint/shop-1"}]}, True),
        ({"detail": {"$or": [{"EndpointStatus": ["X"]}, {"Count": [{"numeric": [">=", 3]}]}]}}, True),
        ({"detail": {"$or": [{"EndpointStatus": ["X"]}, {"Count": [4]}]}}, False),
        ({"$or": [{"source": ["x"]}, {"detail-type": ["SageMaker Endpoint State Change"]}]}, True),
        ({"detail": {"Missing": {"Deeper": ["x"]}}}, False),
        ({"detail": {"Missing": {"Deeper": [{"exists": False}]}}}, True),
    ],
)
def test_a_pattern_picks_what_it_says(wanted: dict[str, Any], picked: bool) -> None:
    assert parse_pattern(json.dumps(wanted)).matches(EVENT) is picked


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
        ("{}", "must not be empty"),
        ('{"source": "x"}', "source must be an object or an array"),
        ('{"source": []}', "source must not be an empty array"),
        ('{"detail": {"a": {}}}', "detail.a must not be empty"),
        ('{"detail": {"a": [{"nearly": "x"}]}}', "detail.a: unrecognized match type nearly"),
        ('{"detail": {"a": [{"prefix": 1}]}}', "detail.a: prefix must be a text"),
        ('{"detail": {"a": [{"prefix": "x", "suffix": "y"}]}}', "exactly one key, not 2"),
        ('{"detail": {"a": [{"numeric": [">"]}]}}', "numeric must be as"),
        ('{"detail": {"a": [{"numeric": ["~", 3]}]}}', "numeric must be as"),
        ('{"detail": {"a": [{"exists": "yes"}]}}', "exists must be true or false"),
        ('{"detail": {"a": [{"anything-but": []}]}}', "anything-but must name"),
        ('{"detail": {"a": [{"wildcard": "a**b"}]}}', "consecutive wildcard"),
        ('{"detail": {"$or": [{"a": ["x"]}]}}', "at least two objects"),
        ('{"detail": {"a": [["x"]]}}', "must not hold an array"),
    ],
)
def test_what_is_no_pattern_is_told(text: str, told: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse_pattern(text)
    assert told in str(caught.value)


@given(st.lists(st.sampled_from(["a", "b", "ab", "*"]), max_size=8), st.text("ab", max_size=12))
def test_wildcards_are_those_of_a_shell(parts: list[str], text: str) -> None:
    told = re.sub(r"[*]+", "*", "".join(parts))
    if told:
        pattern = parse_pattern(json.dumps({"x": [{"wildcard": told}]}))
        assert pattern.matches({"x": text}) is fnmatch.fnmatchcase(text, told)


def test_many_wildcards_take_no_time() -> None:
    pattern = parse_pattern(json.dumps({"x": [{"wildcard": "*a" * 40 + "b"}]}))
    assert not pattern.matches({"x": "a" * 5_000})


def test_a_target_gets_the_event_a_part_of_it_or_what_its_template_says() -> None:
    def given(**how: Any) -> str:
        return input_of(Target("t", "http://x", **how), EVENT, "arn:rule", "watch", 0)

    assert json.loads(given()) == EVENT
    assert given(input='{"a": 1}') == '{"a": 1}'
    assert given(input_path="$.detail.EndpointStatus") == '"FAILED"'
    assert given(input_path="$.nothing") == "null"
    paths = {"name": "$.detail.EndpointName", "all": "$.detail", "count": "$.detail.Count"}
    text = given(transformer=Transformer('"<name> failed, <count> times by <aws.events.rule-name>"', paths))
    assert text == '"Shop-1 failed, 3 times by watch"'
    made = given(transformer=Transformer('{"n": <name>, "c": <count>, "t": "is <name>", "d": <all>}', paths))
    assert json.loads(made) == {"n": "Shop-1", "c": 3, "t": "is Shop-1", "d": EVENT["detail"]}


def test_paths_are_read_or_refused() -> None:
    assert steps_of("$.a['b c'][2]") == ["a", "b c", 2]
    assert at_path("$.resources[0]", EVENT) == EVENT["resources"][0]
    for path in ("a.b", "$..a", "$.a[x]"):
        with pytest.raises(PathError):
            steps_of(path)
