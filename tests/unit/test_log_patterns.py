"""Filter patterns of the logs API: the four forms, what they extract, what is refused."""

from __future__ import annotations

import time

import pytest

from eyrie.decide.log_metrics import measurements
from eyrie.decide.log_pattern import UnreadablePattern, parse_pattern, property_of
from eyrie.domain.logs import MetricFilter
from eyrie.domain.names import Scope

SCOPE = Scope("123456789012", "us-east-1")
DOCUMENT = '{"a": 1, "b": {"c": ["x", {"d": "deep"}]}, "t": true, "n": null, "s": "hello world", "x.y": "dotted"}'


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("{ $.a = 1 }", True),
        ("{ $.a = 1.0 }", True),
        ("{ $.a != 1 }", False),
        ("{ $.a >= 1 && $.a < 2 }", True),
        ('{ $.s = "hello*" }', True),
        ('{ $.s = "*lo wo*" }', True),
        ('{ $.s = "hell" }', False),
        ("{ $.s = %w.rld% }", True),
        ("{ $.s != %w.rld% }", False),
        ("{ $.b.c[0] = x }", True),
        ("{ $.b.c[1].d = deep }", True),
        ("{ $.b.c[9] = x }", False),
        ('{ $["x.y"] = dotted }', True),
        ("{ $.t IS TRUE }", True),
        ("{ $.t IS FALSE }", False),
        ("{ $.n IS NULL }", True),
        ("{ $.none NOT EXISTS }", True),
        ("{ $.n NOT EXISTS }", False),
        ("{ $.none = 1 || ($.a = 1 && $.t IS TRUE) }", True),
        ("{ $.none != 1 }", False),
        ("{ $.n != 1 }", False),
        ("{ $.s > 3 }", False),
    ],
)
def test_properties_of_json(pattern: str, matches: bool) -> None:
    assert (parse_pattern(pattern).match(DOCUMENT) is not None) is matches


def test_what_is_not_json_has_no_properties() -> None:
    pattern = parse_pattern("{ $.a NOT EXISTS }")
    assert pattern.match("plain text") is None
    assert pattern.match('{"broken": ') is None
    assert pattern.match("[" * 100_000) is None
    assert pattern.match("{}") == {}


LINE = '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("[ip, id, user, at, request, status, bytes]", True),
        ("[ip, id, user, at, request, status]", False),
        ("[..., status = 404, bytes > 1000]", True),
        ("[ip, ..., status = 4*, bytes]", True),
        ("[ip, ..., status = 5*, bytes]", False),
        ("[ip, id, user, at, request = *html*, status = 404 || status = 410, bytes]", True),
        ("[ip, id, user, at, request, status != 404, bytes]", False),
        ("[ip != 127.0.0.1, ...]", False),
        ("[ip = %127.*%, ...]", True),
    ],
)
def test_columns_of_a_line(pattern: str, matches: bool) -> None:
    assert (parse_pattern(pattern).match(LINE) is not None) is matches


def test_columns_are_extracted_by_name_and_by_number() -> None:
    found = parse_pattern("[ip, , user, at, request, status, bytes]").match(LINE)
    assert found is not None
    assert found["$request"] == "GET /index.html HTTP/1.0"
    assert found["$at"] == "10/Oct/2000:13:25:15 -0700"
    assert found["$2"] == "-"


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ('"open', "quote"),
        ("{ $.a = 1", "not closed"),
        ("{ a = 1 }", "'a' is not expected"),
        ("{ $.a = }", "ends too early"),
        ("{ $.a > x }", "compares with numbers"),
        ("{ $.a IS BLUE }", "IS BLUE"),
        ("{ ($.a = 1 }", "ends too early"),
        ("{ $.a = 1 } extra", "not closed"),
        ("[a, a]", "names of their own"),
        ("[..., ...]", "..."),
        ("[a = 1 b]", "'b' is not expected"),
        ("[a = 1 && b = 2]", "must be about it"),
        ("%(%", "missing )"),
        (r"%(a)\1%", "invalid escape"),
        ("{ " + "(" * 100 + "$.a = 1", "not closed"),
        ("{ " + "(" * 100 + "$.a = 1 }", "at most 32 deep"),
    ],
)
def test_patterns_without_meaning_are_refused(pattern: str, words: str) -> None:
    with pytest.raises(UnreadablePattern, match=words.replace("(", "\\(").replace(")", "\\)").replace(".", "\\.")):
        parse_pattern(pattern)


def test_an_expression_cannot_take_for_ever() -> None:
    began = time.perf_counter()
    assert parse_pattern("%(a+)+$%").match("a" * 50_000 + "b") is None
    assert time.perf_counter() - began < 2


def test_a_property_by_its_path() -> None:
    assert property_of(DOCUMENT, "$.b.c[1]") == '{"d":"deep"}'
    assert property_of(DOCUMENT, "$.none") is None
    assert property_of("text", "$.a") is None


def test_filters_make_one_measurement_a_metric_and_second() -> None:
    made = {"metricName": "Errors", "metricNamespace": "App", "metricValue": "1", "defaultValue": 0.0}
    put = MetricFilter("/g", "f", "ERROR", (made,), 0)
    events = [(1_000, "ERROR a"), (1_900, "ERROR b"), (2_000, "ERROR c"), (2_001, "fine"), (70_000, "fine")]
    found = {m.at_ms: (m.summary.total, m.summary.count) for m in measurements(SCOPE, [put], events)}
    assert found == {1_000: (2, 2), 2_000: (1, 1), 60_000: (0, 1)}
