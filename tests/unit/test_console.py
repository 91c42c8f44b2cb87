"""The console's pure parts: numbers in words, HTML that escapes, charts that do not lie, sessions, dashboards."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eyrie.adapters.model_files import Recognised
from eyrie.adapters.model_pack import Packed, Unpackable
from eyrie.console import (
    assets,
    charts,
    dashboard_bodies,
    deploy_page,
    desk,
    door,
    endpoint_views,
    login_page,
    measures,
    overview_page,
    recommendation_views,
    shown,
    views,
)
from eyrie.console.charts import Series, Span
from eyrie.console.client import AWAY, Client, Keys, Trouble
from eyrie.console.markup import Html, bar, chip, href, link, table, tag
from eyrie.console.sessions import LIFETIME_S, SESSIONS_MAX, Sessions, opened, signed
from eyrie.settings import Settings

NASTY = "<script>alert('x')</script>&\"'"
SPAN = Span(0.0, 900_000.0, 10_000.0)
NOBODY = cast(Client, SimpleNamespace())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0, "0"),
        (0.01234, "0.0123"),
        (4.567, "4.57"),
        (12.0, "12"),
        (99.96, "100"),
        (12345, "12\u202f345"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_have_three_digits(value: float | None, said: str) -> None:
    assert shown.number(value) == said


def test_a_share_that_is_not_none_is_never_shown_as_none() -> None:
    assert [shown.percent(x) for x in (0, 0.0002, 0.5, 0.9999, 1)] == ["0 %", "<0.1 %", "50 %", ">99.9 %", "100 %"]


@pytest.mark.parametrize(
    ("microseconds", "said"), [(12, "12 µs"), (2_500, "2.5 ms"), (1_500_000, "1.5 s"), (None, "–")]
)
def test_latencies_have_their_unit(microseconds: float | None, said: str) -> None:
    assert shown.latency(microseconds) == said


def test_ages_sizes_and_times() -> None:
    assert [shown.age(s * 1000) for s in (0, 119, 120, 7_199, 7_200, 200_000)] == [
        "0 s",
        "119 s",
        "2 min",
        "119 min",
        "2 h",
        "2 d",
    ]
    assert [shown.size(n) for n in (None, 12, 2048, 5 * 1024**3)] == ["–", "12 B", "2 KiB", "5 GiB"]
    assert shown.clock(1_234) == "00:00:01.234"
    assert [shown.plural(1, "instance"), shown.plural(2, "instance")] == ["1 instance", "2 instances"]


# ---- HTML ----


def test_whatever_comes_from_outside_is_escaped() -> None:
    event = {"at_ms": 1.0, "kind": "Endpoint", "name": NASTY, "what": NASTY, "why": NASTY}
    instance = {"id": NASTY, "variant": NASTY, "zone": NASTY, "state": NASTY, "reason": NASTY, "started_ms": 1}
    alarm = {"AlarmName": NASTY, "StateValue": NASTY, "StateReason": NASTY, "MetricName": NASTY}
    line = {"timestamp": 1, "message": NASTY, "logStreamName": NASTY}
    pages = [
        views.lately([event], 2.0),
        endpoint_views.timeline([event], 2.0),
        endpoint_views.by_zone([instance], 2.0, {}),
        views.alarms_table([alarm], 2.0),
        endpoint_views.log_lines([line], "script"),
        endpoint_views.subnav(NASTY, ""),
        endpoint_views.reply("200", 1.0, NASTY, {NASTY: NASTY}),
        views.endpoints_table([{"name": NASTY, "status": NASTY, "reason": NASTY, "variants": []}], {}),
        dashboard_bodies.markdown(f"# {NASTY}\n- {NASTY}\n{NASTY}"),
        Html(login_page.page(NASTY, NASTY, NASTY, NASTY).split("<form", 1)[1].rsplit("</form>", 1)[0]),
    ]
    assert [str(page) for page in pages if "<script" in page or "'x'" in page] == []


def test_attributes_and_links_are_escaped() -> None:
    assert tag("i", title='"><b>') == '<i title="&quot;&gt;&lt;b&gt;"></i>'
    assert href("endpoints", "a/b?c") == "/console/endpoints/a%2Fb%3Fc"
    assert link("<x>", "models", "m") == '<a href="/console/models/m">&lt;x&gt;</a>'


def test_a_table_has_a_caption_headings_and_words_where_it_is_empty() -> None:
    found = table("Things", ("Name", "Count"), [("a", 1)], numbers=(1,))
    assert '<caption class="unseen">Things</caption>' in found
    assert '<th scope="row" data-label="Name">a</th>' in found
    assert '<td class="right" data-label="Count">1</td>' in found
    assert table("Things", ("Name",), [], empty="None yet.") == '<p class="note empty">None yet.</p>'


def test_a_state_is_a_word_beside_its_colour() -> None:
    assert chip("InService") == '<span class="chip good"><i aria-hidden="true"></i>InService</span>'
    assert 'class="chip plain"' in chip("Whatever")


def test_a_split_says_its_shares_in_words() -> None:
    found = bar([("blue", 3.0), ("green", 1.0)], "Traffic")
    assert 'aria-label="Traffic: blue 75 %, green 25 %"' in found
    assert "width:75.00%" in found


def test_the_words_of_a_search_are_marked_where_they_stand() -> None:
    found = endpoint_views.log_lines([{"timestamp": 0, "message": "a&amp b not amp"}], "amp")
    assert found.count("<mark>amp</mark>") == 2
    assert "a&amp;<mark>amp</mark> b" in found
    assert "<mark>" not in endpoint_views.log_lines([{"timestamp": 0, "message": "x"}], "%x%")


# ---- charts ----


def test_a_value_axis_begins_at_zero_and_a_time_axis_spans_what_was_asked() -> None:
    options = charts.chart("Latency", "ms", [Series("p99", [(100_000, 90.0), (110_000, 95.0)])], SPAN)
    assert options["yAxis"]["min"] == 0
    assert (options["xAxis"]["min"], options["xAxis"]["max"]) == (0.0, 900_000.0)
    below = charts.chart("Change", "", [Series("x", [(0, -4.0)])], SPAN)
    assert below["yAxis"]["min"] is None


def test_a_top_is_kept_only_while_nothing_exceeds_it() -> None:
    low, high = ([Series("cpu", [(0, value)])] for value in (40.0, 180.0))
    assert charts.chart("CPU", "%", low, SPAN, top=100.0)["yAxis"]["max"] == 100.0
    assert "max" not in charts.chart("CPU", "%", high, SPAN, top=100.0)["yAxis"]


def test_a_gap_in_the_data_is_a_gap_in_the_line() -> None:
    drawn = charts.with_gaps([(0, 1.0), (10_000, 2.0), (90_000, 3.0)], 10_000)
    assert drawn == [[0, 1.0], [10_000, 2.0], [20_000, None], [90_000, 3.0]]
    assert charts.alone(drawn)
    assert not charts.alone(drawn[:3])


@pytest.mark.parametrize("kind", ["bar", "area"])
def test_what_is_stacked_has_the_same_moments(kind: str) -> None:
    """ECharts stacks by place in the list: a series without a moment would stand upon another one."""
    both = [Series("a", [(0, 1), (20_000, 1)], kind, stack="s")]
    both.append(Series("b", [(10_000, 5), (90_000, 2)], kind, stack="s"))
    alone = Series("c", [(50_000, 9)], kind)
    rows = [one["data"] for one in charts.chart("x", "", [*both, alone], SPAN)["series"]]
    times = [ms for ms, _ in rows[0]]
    assert times == [ms for ms, _ in rows[1]] == [0, 10_000, 20_000, 30_000, 90_000]
    assert [value for _, value in rows[0]] == [1, None, 1, None, None]
    assert [value for _, value in rows[1]] == [None, 5, None, None, 2]
    assert rows[2] == [[50_000, 9]]


def test_a_chart_is_told_in_words() -> None:
    said = charts.described("CPU", "percent", [Series("a", [(0, 1.0), (1, 3.0)]), Series("b", ())])
    assert said == "CPU. a: last 3, lowest 1, highest 3 percent; b: nothing measured percent."
    assert charts.described("CPU", "percent", []) == "CPU. Nothing was measured."


def test_marks_outside_of_the_time_are_left_out() -> None:
    options = charts.chart(
        "x", "", [Series("a", [(1, 1.0)])], SPAN, marks=[charts.Mark(5.0, "in"), charts.Mark(1e9, "out")]
    )
    assert [line["name"] for line in options["series"][0]["markLine"]["data"]] == ["in"]


def test_a_span_has_few_enough_points_and_ends_with_a_whole_period() -> None:
    for minutes, period_s in ((5, 1), (15, 5), (60, 30), (180, 60), (1440, 300), (10_080, 3600)):
        span = measures.span_of(minutes, 1_763_750_123_456.0)
        assert (span.end_ms - span.start_ms, span.period_ms) == (minutes * 60_000, period_s * 1000)
        assert span.end_ms % span.period_ms == 0


def test_series_come_back_in_the_order_they_were_asked_for() -> None:
    asked = [measures.invoked("Invocations", "Sum", "e", per_second=True), measures.Said("SUM(m0)")]
    sent = measures.queries(asked, SPAN)
    assert [query["Id"] for query in sent] == ["m0", "m1"]
    assert sent[0]["MetricStat"]["Metric"]["Dimensions"] == [{"Name": "EndpointName", "Value": "e"}]
    times = [datetime.fromtimestamp(s, UTC) for s in (20, 10)]
    reply = {
        "MetricDataResults": [
            {"Id": "m1", "Timestamps": [times[0]], "Values": [7.0]},
            {"Id": "m0", "Timestamps": times, "Values": [50.0, 30.0]},
        ]
    }
    assert measures.found(reply, asked, SPAN) == [((10_000.0, 3.0), (20_000.0, 5.0)), ((20_000.0, 7.0),)]


def test_what_was_measured_long_ago_is_not_now() -> None:
    assert measures.latest([(880_000.0, 5.0)], SPAN) == 5.0
    assert measures.latest([(100_000.0, 5.0)], SPAN) is None
    assert measures.latest([], SPAN) is None


# ---- sessions and the door ----


def table_of_sessions() -> Sessions:
    names = iter(range(10**9))
    return Sessions(b"k" * 32, lambda digits: f"{next(names):0{digits}x}")


def test_a_session_is_found_by_its_cookie_alone() -> None:
    sessions = table_of_sessions()
    session, cookie = sessions.open(NOBODY, 0.0)
    assert sessions.find(cookie, 1.0) is session
    forged = [
        None,
        "",
        "x" * 129,
        cookie[:-1] + ("0" if cookie[-1] != "0" else "1"),
        signed(b"other", session.name),
        cookie.upper() + "é",
    ]
    assert [sessions.find(one, 1.0) for one in forged] == [None] * len(forged)
    assert opened(b"k" * 32, cookie) == session.name


def test_a_session_ends_by_its_time_by_logging_out_and_by_too_many_others() -> None:
    sessions = table_of_sessions()
    _, cookie = sessions.open(NOBODY, 0.0)
    assert sessions.find(cookie, LIFETIME_S) is None
    session, cookie = sessions.open(NOBODY, 0.0)
    sessions.close(session)
    assert sessions.find(cookie, 1.0) is None
    _, first = sessions.open(NOBODY, 0.0)
    for _ in range(SESSIONS_MAX):
        sessions.open(NOBODY, 1.0)
    assert sessions.find(first, 1.0) is None
    assert len(sessions) == SESSIONS_MAX


@pytest.mark.parametrize(
    "wanted",
    [
        "https://elsewhere/",
        "//elsewhere/console",
        "/console//elsewhere",
        "/consolex",
        "/console/logout",
        "/console\\x",
        "/console/\n",
    ],
)
def test_after_the_log_in_one_stays_here(wanted: str) -> None:
    assert door.inside(wanted) == "/console"
    assert door.inside("/console/endpoints/a?x=1") == "/console/endpoints/a?x=1"


class Answer:
    """What the door said to one request."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message.get("body", b"")


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a page"})


async def ask(stand: desk.Desk, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
    answer = Answer()
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": method, "query_string": b"", "headers": lines}

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    await door.Door(behind, stand)(scope, receive, answer)
    return answer


@pytest.fixture
def stand() -> Any:
    made = SimpleNamespace(desk=desk.new_desk(Settings()))
    yield made.desk
    made.desk.close()


async def run_door(stand: desk.Desk) -> None:
    page = await ask(stand, "/console/endpoints/x", accept="text/html")
    assert (page.status, page.headers[b"location"]) == (303, b"/console/login?next=%2Fconsole%2Fendpoints%2Fx")
    assert (await ask(stand, "/console/_nicegui_ws/socket.io/")).status == 401
    assert (await ask(stand, "/console/_nicegui/client/1/upload/2", "POST")).status == 401
    assert (await ask(stand, "/console/_nicegui/3.0/static/x.js")).status == 200
    assert (await ask(stand, "/console/login", "POST", sec_fetch_site="cross-site")).status == 403
    assert b"Access key" in (await ask(stand, "/console/login")).body
    assert (await ask(stand, "/console/login", "POST", b"key=a")).status == 400
    style = await ask(stand, assets.url("style.css").partition("?")[0])
    assert (style.status, style.headers[b"content-type"]) == (200, b"text/css; charset=utf-8")
    assert (await ask(stand, "/console/assets/../app.py")).status != 200


def test_the_door_lets_nobody_in_without_a_session(stand: desk.Desk) -> None:
    import asyncio

    asyncio.run(run_door(stand))


def test_two_log_ins_of_one_key_share_what_calls_the_api(stand: desk.Desk) -> None:
    keys = Keys("A", "s")
    first = stand.client(keys, "us-east-1")
    assert stand.client(Keys("A", "s"), "us-east-1") is first
    assert stand.client(Keys("A", "other"), "us-east-1") is not first
    assert stand.client(keys, "eu-west-1") is not first


def test_cookies_of_a_request() -> None:
    assert desk.cookies("a=1; eyrie-session=x.y; a=2; junk") == {"a": "1", "eyrie-session": "x.y"}
    assert desk.address(Settings(host="0.0.0.0", port=1)) == "http://127.0.0.1:1"
    assert desk.address(Settings(host="::", port=1)) == "http://[::1]:1"


# ---- deployments, policies, dashboards ----

STORY = [
    {"at_ms": 1, "kind": "Endpoint", "name": "e", "what": "endpoint Creating", "why": "CreateEndpoint with a: v x 1"},
    {
        "at_ms": 2,
        "kind": "Endpoint",
        "name": "e",
        "what": "endpoint Updating",
        "why": "UpdateEndpoint from a to b: v x 1, CANARY in 2 steps",
    },
    {"at_ms": 3, "kind": "Endpoint", "name": "e", "what": "instance i-1 READY", "why": "pinged"},
    {"at_ms": 4, "kind": "Endpoint", "name": "e", "what": "deployment SHIFTING", "why": "step 1"},
    {"at_ms": 5, "kind": "Endpoint", "name": "e", "what": "deployment BAKING", "why": "acknowledged"},
]


def test_a_deployment_is_told_from_its_update_on() -> None:
    assert [event["at_ms"] for event in endpoint_views.last_deployment(STORY)] == [2, 4, 5]
    assert endpoint_views.last_deployment(STORY[:1]) == []
    found = endpoint_views.steps(["PROVISIONING", "SHIFTING", "BAKING"])
    assert '<li class="now" aria-current="step">Watched</li>' in found
    assert found.count('class="done"') == 3
    back = endpoint_views.steps(["PROVISIONING", "SHIFTING", "ROLLING_BACK"])
    assert '<li class="back" aria-current="step">Rolls back</li>' in back
    assert "Done" not in back


def test_the_config_before_is_in_the_story() -> None:
    assert endpoint_views.previous_config({"EndpointConfigName": "b"}, STORY) == "a"
    assert endpoint_views.previous_config({"EndpointConfigName": "a"}, STORY) is None


def test_both_fleets_share_the_bar_while_traffic_shifts() -> None:
    described = {
        "ProductionVariants": [
            {"VariantName": "a", "CurrentWeight": 2.25, "DesiredWeight": 3.0},
            {"VariantName": "b", "CurrentWeight": 0.75, "DesiredWeight": 1.0},
        ],
        "PendingDeploymentSummary": {
            "ProductionVariants": [{"VariantName": "v", "CurrentWeight": 1.25, "DesiredWeight": 5.0}]
        },
    }
    assert "a (old) 56.3 %, b (old) 18.7 %, v (new) 25 %" in endpoint_views.split(described)
    nothing = {"ProductionVariants": [{"VariantName": "v", "CurrentWeight": 0.0}]}
    assert "No instance is routed yet" in endpoint_views.split(nothing)


def test_a_policy_in_words() -> None:
    tracking = {
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 20.0,
            "CustomizedMetricSpecification": {"MetricName": "RequestRate"},
        }
    }
    assert endpoint_views.policy_in_words(tracking) == "keeps RequestRate at 20"


def test_the_shorthands_of_a_dashboard() -> None:
    rows: list[Any] = [
        ["AWS/SageMaker", "Invocations", "EndpointName", "e", "VariantName", "a", {"stat": "Sum", "id": "m1"}],
        [".", ".", ".", ".", ".", "b"],
        ["...", "c"],
        [{"expression": "m1 * 2", "label": "twice"}],
    ]
    lines = dashboard_bodies.lines_of(rows, "Average", 60)
    variants = [line.query["MetricStat"]["Metric"]["Dimensions"][1]["Value"] for line in lines[:3]]
    assert variants == ["a", "b", "c"]
    assert [line.query["MetricStat"]["Stat"] for line in lines[:3]] == ["Sum", "Average", "Average"]
    assert lines[3].query == {"Id": "line3", "Expression": "m1 * 2", "Period": 60}


def test_a_dashboards_widgets() -> None:
    body = {
        "widgets": [
            {
                "type": "text",
                "x": 0,
                "y": 6,
                "width": 24,
                "height": 2,
                "properties": {"markdown": "# Hello\n**bold** `x`"},
            },
            {
                "type": "metric",
                "x": 0,
                "y": 0,
                "width": 12,
                "height": 6,
                "properties": {"metrics": [["A", "B"]], "stacked": True, "title": "T"},
            },
            {
                "type": "log",
                "x": 12,
                "y": 0,
                "width": 12,
                "height": 6,
                "properties": {"query": "SOURCE 'g' | fields @message | limit 1"},
            },
            {"type": "alarm", "x": 0, "y": 9, "properties": {"alarms": ["arn:aws:cloudwatch:us-east-1:1:alarm:hot"]}},
        ]
    }
    found = dashboard_bodies.widgets(json.dumps(body))
    assert [(w.kind, w.title) for w in found] == [("metric", "T"), ("log", "Query"), ("text", ""), ("alarm", "Alarms")]
    assert (found[1].query, found[1].groups, found[3].alarms) == ("fields @message | limit 1", ["g"], ["hot"])
    assert (
        dashboard_bodies.markdown("# Hello\n**bold** `x`")
        == '<div class="markdown"><h2>Hello</h2><p><b>bold</b> <code>x</code></p></div>'
    )
    assert dashboard_bodies.widgets("no json") == []


def test_links_in_a_text_widget_lead_to_the_web_alone() -> None:
    assert dashboard_bodies.markdown("[Run & book](https://a.example/?x=1&y=2)") == (
        '<div class="markdown"><p><a href="https://a.example/?x=1&amp;y=2" rel="noreferrer">Run &amp; book</a>'
        "</p></div>"
    )
    for other in ("[x](javascript:alert(1))", '[x](https://a"onclick=b)'):
        assert "<a href=\"javascript" not in dashboard_bodies.markdown(other)
        assert 'a"onclick' not in dashboard_bodies.markdown(other)


def metric_widget(**properties: Any) -> dashboard_bodies.Widget:
    one = {"type": "metric", "properties": {"region": "us-east-1", **properties}}
    (found,) = dashboard_bodies.widgets(json.dumps({"widgets": [one]}))
    return found


def test_annotations_that_cannot_be_read_are_left_out_and_a_band_is_two_levels() -> None:
    assert metric_widget(metrics=[["A", "B"]], annotations={"horizontal": 5, "alarms": "x"}).levels == []
    band = [{"value": 1, "label": "low"}, {"value": 3}]
    assert metric_widget(annotations={"horizontal": [band, {"value": 9}]}).levels == [
        ("low", 1.0),
        ("level", 3.0),
        ("level", 9.0),
    ]


def test_a_metric_widget_of_an_alarm_draws_what_it_watches() -> None:
    widget = metric_widget(annotations={"alarms": ["arn:aws:cloudwatch:us-east-1:123456789012:alarm:hot"]})
    alarm = {"AlarmName": "hot", "Namespace": "N", "MetricName": "M", "Statistic": "Sum", "Period": 60, "Threshold": 2}
    whole = dashboard_bodies.with_alarms(widget, [{**alarm, "AlarmName": "other"}, alarm, {"AlarmName": "composite"}])
    (line,) = whole.lines
    assert (widget.title, line.label, whole.levels) == ("hot", "M Sum", [("hot", 2.0)])
    assert line.query["MetricStat"] == {
        "Metric": {"Namespace": "N", "MetricName": "M", "Dimensions": []},
        "Period": 60,
        "Stat": "Sum",
    }


def test_every_series_that_a_search_finds_is_drawn_by_itself() -> None:
    at = datetime.fromtimestamp(60, UTC)
    found = [("a Invocations", 1.0), ("b Invocations", 9.0)]
    results = [{"Id": "line0", "Label": label, "Timestamps": [at], "Values": [v]} for label, v in found]
    told = measures.labelled({"MetricDataResults": [*results, {"Id": "line1", "Timestamps": [], "Values": []}]})
    assert told == [
        ("line0", "a Invocations", [(60_000.0, 1.0)]),
        ("line0", "b Invocations", [(60_000.0, 9.0)]),
        ("line1", "", []),
    ]
    lines = dashboard_bodies.lines_of([[{"expression": "SEARCH(x)"}], [{"expression": "m * 2"}]], "Sum", 60)
    assert [dashboard_bodies.told(lines[0], label) for _, label, _ in told[:2]] == ["a Invocations", "b Invocations"]
    assert dashboard_bodies.told(lines[1], "line1") == "m * 2"
    (labelled,) = dashboard_bodies.lines_of([[{"expression": "SEARCH(x)", "label": "all"}]], "Sum", 60)
    assert dashboard_bodies.told(labelled, "a Invocations") == "all a Invocations"


def test_no_part_of_an_instance_stands_on_an_axis() -> None:
    counts = charts.chart("Instances", "", (charts.Series("a", ((1.0, 2.0), (2.0, 1.0))),), charts.Span(0, 2, 1))
    shares = charts.chart("CPU", "", (charts.Series("a", ((1.0, 0.4), (2.0, 1.0))),), charts.Span(0, 2, 1))
    assert counts["yAxis"]["minInterval"] == 1
    assert "minInterval" not in shares["yAxis"]


def test_what_is_too_much_to_draw_is_drawn_together() -> None:
    rates = {f"e{at:02}": [(0.0, float(at)), (10.0, 1.0)] for at in range(1, 31)}
    drawn = overview_page.drawn_of({**rates, "idle": []})
    assert len(drawn) == overview_page.DRAWN_MAX
    assert drawn[-1].name == "21 others"
    assert sum(value for one in drawn for _, value in one.points) == sum(range(1, 31)) + 30
    assert [one.name for one in overview_page.drawn_of({"a": [(0.0, 1.0)], "b": []})] == ["a"]


class Pages:
    """A logs client that has so many lines, one a millisecond, the newest now."""

    def __init__(self, count: int, a_page: int = 1_000) -> None:
        self._now, self._count, self._a_page = time.time() * 1000, count, a_page
        self.asked: list[float] = []

    def get_paginator(self, operation: str) -> Any:
        assert operation == "filter_log_events"
        return self

    def paginate(self, startTime: float, **more: Any) -> Any:
        self.asked.append(startTime)
        times = [self._now - back for back in range(self._count, 0, -1) if self._now - back >= startTime]
        for at in range(0, len(times), self._a_page):
            yield {"events": [{"timestamp": ms, "message": str(ms)} for ms in times[at : at + self._a_page]]}


@pytest.mark.parametrize(("count", "looks"), [(20_000, 1), (3, 3), (0, 3)])
def test_the_newest_lines_of_a_log_are_shown_however_many_there_are(
    count: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(count)
    client = Client(cast(Any, None), "http://127.0.0.1:1", "us-east-1", Keys("k", "s"))
    monkeypatch.setattr(client, "_client", lambda service: pages)
    found = client.newest_lines("group", 400)
    assert len(found) == min(count, 400)
    assert len(pages.asked) == looks
    assert not found or found[-1]["timestamp"] == pytest.approx(pages._now - 1, abs=2)


def test_what_a_recommendation_says_arrives_where_it_is_deployed() -> None:
    one = {
        "EndpointConfiguration": {"InstanceType": "ml.c5.xlarge", "InitialInstanceCount": 3},
        "ModelConfiguration": {"EnvironmentParameters": [{"Key": "WORKERS", "Value": "2 & more"}]},
    }
    asked = deploy_page.asked_of(recommendation_views.way_on("churn", one))
    assert asked == deploy_page.Asked("churn", "ml.c5.xlarge", 3, {"WORKERS": "2 & more"})
    limits = {"EndpointConfiguration": {"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}}
    at_rest = deploy_page.asked_of(recommendation_views.way_on("churn", limits))
    assert at_rest.serverless == {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    nonsense = {"type": "rm -rf", "count": "-1", "env": "[", "serverless": "x"}
    assert deploy_page.asked_of(nonsense) == deploy_page.Asked()


def test_a_model_with_variables_of_its_own_is_made_of_the_one_that_is_there() -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def call(service: str, operation: str, **params: Any) -> dict[str, Any]:
        calls.append((operation, params))
        return {"ModelName": "churn", "PrimaryContainer": {"Image": "i", "Environment": {"A": "1"}}, "ModelArn": "a"}

    client = cast(Client, SimpleNamespace(call=call))
    asked = deploy_page.Asked("churn", "ml.c5.xlarge", 3, {"B": "2"})
    deploy_page.deploy(client, deploy_page.Wanted("e", "ml.c5.xlarge", 3, None, asked, False, None))
    made = dict(calls)["create_model"]
    assert made["PrimaryContainer"] == {"Image": "i", "Environment": {"A": "1", "B": "2"}}
    assert dict(calls)["create_endpoint_config"]["ProductionVariants"][0]["ModelName"] == made["ModelName"]


@pytest.mark.parametrize(("code", "left"), [("ValidationException", []), (AWAY, ["object", "model", "config"])])
def test_a_deployment_that_is_refused_leaves_nothing_behind(code: str, left: list[str], tmp_path: Path) -> None:
    there: list[str] = []

    def call(service: str, operation: str, **params: Any) -> dict[str, Any]:
        if operation == "create_endpoint":
            raise Trouble("refused", code)
        verb, _, noun = operation.partition("_")
        noun = {"endpoint_config": "config"}.get(noun, noun)
        if verb in ("put", "create") and noun != "bucket":
            there.append(noun)
        elif verb == "delete":
            there.remove(noun)
        return {}

    client = cast(Client, SimpleNamespace(call=call, who=lambda: "1"))
    (tmp_path / "model.tar.gz").write_bytes(b"")
    packed = Packed(tmp_path / "model.tar.gz", "", 0, Recognised("eyrie/sklearn", "it"))
    wanted = deploy_page.Wanted("e", "ml.c5.xlarge", 1, packed, deploy_page.Asked(), False, None)
    with pytest.raises(Trouble):
        deploy_page.deploy(client, wanted)
    assert there == left


def test_a_page_does_not_speak_of_options_of_the_command_line(tmp_path: Path) -> None:
    for content in (b"\x80\x04}\x94.", b"no model at all"):
        (tmp_path / "model.pkl").write_bytes(content)
        with pytest.raises(Unpackable) as refused:
            deploy_page.packed_of(tmp_path / "model.pkl")
        told = deploy_page.without_options(str(refused.value))
        assert told.startswith("model.pkl is ")
        assert "--" not in told
        assert "model.tar.gz" in told
    assert deploy_page.without_options("empty.json is empty") == "empty.json is empty"
