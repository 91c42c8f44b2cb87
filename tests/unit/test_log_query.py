"""The language of Logs Insights over made-up records: each command, values, and what is refused with its place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.decide import query_run, query_totals
from eyrie.decide.query_run import BadQuery, Query, Record, TooMuch
from eyrie.decide.query_values import moment_text

BASE_MS = 1_700_000_000_000  # 2023-11-14 22:13:20


def asked(text: str, messages: Iterable[Any], step_ms: int = 1_000) -> list[dict[str, str]]:
    """The rows that a query makes of messages (texts, or what is JSON), one each `step_ms`."""
    query = Query(text)
    for n, message in enumerate(messages):
        told = message if isinstance(message, str) else json.dumps(message)
        query.feed(Record(BASE_MS + n * step_ms, told, f"s{n % 2}", "1:/g", BASE_MS, n))
    return [dict(row.fields) for row in query.rows()]


def values(text: str, messages: Iterable[Any]) -> list[str]:
    """The only column of a query's rows; "-" where a row has none."""
    return [next(iter(row.values()), "-") for row in asked(text, messages)]


def test_without_a_sort_the_newest_come_first() -> None:
    assert values("fields @message", "abc") == ["c", "b", "a"]
    assert values("fields @message | limit 2", "abc") == ["c", "b"]
    assert values("fields @message | sort @timestamp asc | limit 2", "abc") == ["a", "b"]
    assert asked("limit 1", "a") == [{"@timestamp": "2023-11-14 22:13:20.000", "@message": "a"}]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("n > 2", [3, 4]),
        ("n >= 2 and n != 3", [2, 4]),
        ("n = 1 or n = 4", [1, 4]),
        ("not n < 3", [3, 4]),
        ("n in [1, '3']", [1, 3]),
        ("n not in [1, 3]", [2, 4]),
        ("name like 'a-'", [1, 2]),
        ("name not like /^a/", [3, 4]),
        ("name =~ /(?i)A-[2]/", [2]),
        ("deep.list.1.x = 'v3'", [3]),
        ("ok = true", [2, 4]),
        ("ok = 1", [2, 4]),
        ("absent = 1", []),
        ("absent != 1", []),
        ("ispresent(absent)", []),
        ("not ispresent(odd) and n > 0", [2, 4]),
        ("`with-dash` = 'd2'", [2]),
        ('@message like /"n": 3/', [3]),
        ("strlen(name) = 3 && n % 2 = 0", [2, 4]),
        ("(n + 1) * 2 ^ 2 - 4 / 2 > 17", [4]),
        ("-n < -3", [4]),
        ("n < 10 / 0", []),
        ("coalesce(odd, 'even') = 'even'", [2, 4]),
        ("text > 'b'", [3, 4]),
    ],
)
def test_filter(condition: str, kept: list[int]) -> None:
    records = [
        {
            "n": n,
            "name": f"{'a' if n < 3 else 'b'}-{n}",
            "deep": {"list": [0, {"x": f"v{n}"}]},
            "ok": n % 2 == 0,
            "with-dash": f"d{n}",
            "text": "abcd"[n - 1],
            **({"odd": n} if n % 2 else {}),
        }
        for n in range(1, 5)
    ]
    assert values(f"filter {condition} | fields n | sort n asc", records) == [str(n) for n in kept]


def test_filter_by_an_expression_is_about_the_message() -> None:
    assert values("filter /b+/ | fields @message", ["abbc", "ac"]) == ["abbc"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("concat(s, '-', n)", "Hi -7"),
        ("trim(s)", "Hi"),
        ("toupper(s)", "HI "),
        ("substr(s, 1)", "i "),
        ("substr(s, 0, 1)", "H"),
        ("replace(s, 'H', 'h')", "hi "),
        ("abs(0 - n)", "7"),
        ("floor(n / 2)", "3"),
        ("ceil(n / 2)", "4"),
        ("n / 2", "3.5"),
        ("n / 3", "2.3333"),
        ("greatest(n, 3, 9)", "9"),
        ("sqrt(n * n)", "7"),
        ("log(0)", "-"),
        ("strcontains(s, 'i')", "1"),
        ("isempty(absent)", "1"),
        ("datefloor(@timestamp, 1h)", "2023-11-14 22:00:00.000"),
        ("dateceil(@timestamp, 1h)", "2023-11-14 23:00:00.000"),
        ("bin(5m)", "2023-11-14 22:10:00.000"),
        ("tomillis(@timestamp)", str(BASE_MS)),
        ("fromMillis(n * 1000)", "1970-01-01 00:00:07.000"),
        ("deep", '{"a":[1,2]}'),
        ("s like 'H' and n > 3", "1"),
    ],
)
def test_expressions(expression: str, value: str) -> None:
    assert values(f"fields {expression} as x", [{"s": "Hi ", "n": 7, "deep": {"a": [1, 2]}}]) == [value]


def test_parse_by_glob_and_by_expression() -> None:
    line = "user=joe, method:GET, latency := 12.5 ms"
    glob = 'parse @message "user=*, method:*, latency := * ms" as user, method, latency | display user, method, latency'
    assert asked(glob, [line, "other"]) == [{}, {"user": "joe", "method": "GET", "latency": "12.5"}]
    regex = r"parse @message /user=(?<who>\w+).*:= (?<ms>[\d.]+)/ | filter ms > 12 | fields who"
    assert values(regex, [line, "user=x := 1"]) == ["joe"]
    assert values('parse @message "a*" as rest | fields rest', ["abc def"]) == ["bc def"]


def test_stats_by_field_and_time() -> None:
    records = [{"instance": f"i-{n % 2}", "requests": n} for n in range(6)]
    found = asked("stats sum(requests) as rps, count(*) by bin(2s), instance", records)
    assert found[0] == {"bin(2s)": "2023-11-14 22:13:24.000", "instance": "i-0", "rps": "4", "count(*)": "1"}
    assert len(found) == 6
    by_instance = asked("stats sum(requests) by instance | sort instance desc", records)
    assert by_instance == [
        {"instance": "i-1", "sum(requests)": "9"},
        {"instance": "i-0", "sum(requests)": "6"},
    ]


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("count(v)", "4"),
        ("count(*)", "6"),
        ("count_distinct(v)", "4"),
        ("sum(v)", "8"),
        ("avg(v)", "2.6667"),
        ("min(v)", "1"),
        ("max(v)", "5"),
        ("median(v)", "2"),
        ("pct(v, 100)", "5"),
        ("stddev(v)", "2.0817"),
        ("earliest(v)", "1"),
        ("latest(v)", "word"),
        ("sortsFirst(v)", "1"),
        ("sortsLast(v)", "word"),
        ("sum(v) / count(*)", "1.3333"),
        ("avg(absent)", "-"),
        ("ceil(avg(v))", "3"),
        ("max(@timestamp)", "2023-11-14 22:13:25.000"),
    ],
)
def test_functions_of_stats(function: str, value: str) -> None:
    records = [{"v": 1}, {"v": 2}, {"v": 5}, {"v": "word"}, {}, "no JSON"]
    assert values(f"stats {function} as x", records) == [value]


def test_what_comes_after_stats_sees_its_columns() -> None:
    records = [{"k": k} for k in "aabbbc"]
    found = asked("stats count(*) by k | filter `count(*)` > 1 | sort count(*) desc | limit 1", records)
    assert found == [{"k": "b", "count(*)": "3"}]
    twice = "stats count(*) as n by k | stats max(n) as most, count(*) as kinds"
    assert asked(twice, records) == [{"most": "3", "kinds": "3"}]
    assert asked("filter k = 'z' | stats count(*) as n", records) == [{"n": "0"}]
    assert asked("filter k = 'z' | stats count(*) as n by k", records) == []


def test_dedup_keeps_the_first_of_the_order() -> None:
    records = [{"k": k, "n": n} for n, k in enumerate("abab")]
    assert values("dedup k | fields n", records) == ["3", "2"]
    assert values("sort n asc | dedup k | fields n", records) == ["0", "1"]


def test_display_hides_what_fields_showed() -> None:
    assert asked("fields @message, strlen(@message) as n | display n", ["abc"]) == [{"n": "3"}]


def test_what_is_counted_as_matched() -> None:
    query = Query("filter n > 1 | stats count(*) by n | filter n > 2")
    for n in range(4):
        query.feed(Record(BASE_MS, json.dumps({"n": n}), "s", "1:/g"))
    query.rows()
    assert query.matched == 2


@pytest.mark.parametrize(
    ("text", "words", "at"),
    [
        ("", "one command at least", 0),
        ("fields", "needs something", 0),
        ("fields @message | wrong x", "commands are dedup", 18),
        ("fields @message | pattern @message", "not supported by this Eyrie", 18),
        ("filter status >= ", "unexpected end", 17),
        ("filter a = 1 b", "'b'", 13),
        ("filter (a = 1", "')' is expected", 13),
        ("filter a like /(/", "is not one", 14),
        ("filter a in 3", "'[' is expected", 12),
        ("limit 0", "1 to 10000", 6),
        ("limit 10001", "1 to 10000", 6),
        ("stats a by b", "no function of stats", 6),
        ("filter count(*) > 1", "is a function of stats", 7),
        ("stats pct(a) by b", "percent", 6),
        ("stats pct(a, 101)", "percent", 6),
        ("fields nothing(a)", "no function nothing", 7),
        ("fields substr(a)", "2 to 3 arguments", 7),
        ("stats count(*) by bin()", "span of time", 18),
        ("stats count(*) by bin(5x)", "no unit of time", 22),
        ('parse @message "a*b" as x, y', "2 names follow", 15),
        ("parse @message /abc/", "no named groups", 15),
        ("fields \x01", "unexpected symbol", 7),
        ("fields " + "(" * 100 + "a", "64 deep", None),
    ],
)
def test_queries_without_meaning_are_refused_with_their_place(text: str, words: str, at: int | None) -> None:
    with pytest.raises(BadQuery) as caught:
        Query(text)
    assert words in str(caught.value)
    assert at is None or caught.value.start == at
    assert caught.value.start <= caught.value.end


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="fieldsstatby @message|,()=<>'/\"*[]`0123.#-+^ \n", max_size=60))
def test_any_text_is_a_query_or_is_refused(text: str) -> None:
    refused = None
    try:
        query = Query("fields " + text)
    except BadQuery as error:
        refused = error
    if refused is not None:
        assert 0 <= refused.start <= refused.end <= len(text) + 8
        return
    query.feed(Record(BASE_MS, '{"a": 1}', "s", "1:/g"))
    query.rows()


def test_a_comment_ends_with_its_line() -> None:
    assert values("fields @message # this | and that\n| limit 1", "ab") == ["b"]


def test_a_query_holds_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_run, "GROUPS_MAX", 3)
    with pytest.raises(TooMuch, match="3 groups"):
        asked("stats count(*) by @message", "abcd")
    monkeypatch.setattr(query_totals, "HELD_MAX", 3)
    with pytest.raises(TooMuch, match="3 values"):
        asked("stats count_distinct(@message)", "abcd")


def test_a_sort_with_a_limit_holds_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_run, "ROWS_HELD_MAX", 2_000)
    records = [{"n": n % 97} for n in range(3_000)]
    assert values("fields n | sort n desc | limit 2", records) == ["96", "96"]
    with pytest.raises(TooMuch, match="sorts more than 2000"):
        asked("sort n desc | dedup n | limit 2", records)


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01 00:00:00.000"),
        (951_827_696_789, "2000-02-29 12:34:56.789"),
        (1_709_164_800_000, "2024-02-29 00:00:00.000"),
        (4_102_444_799_999, "2099-12-31 23:59:59.999"),
        (-1, "1969-12-31 23:59:59.999"),
    ],
)
def test_moments_are_shown_as_dates(at_ms: int, text: str) -> None:
    assert moment_text(at_ms) == text


def test_events_of_one_moment_keep_their_order() -> None:
    """Streams are read one after the other; of one moment the last stream's last event is the newest."""
    query = Query("fields @message")
    for stream, ordinal, text in (("b", 0, "3"), ("b", 1, "4"), ("a", 0, "1"), ("a", 1, "2")):
        query.feed(Record(BASE_MS, text, stream, "1:/g", BASE_MS, ordinal))
    assert [dict(row.fields)["@message"] for row in query.rows()] == ["4", "3", "2", "1"]
