"""Users' own logs through boto3: groups, streams, PutLogEvents and its limits, retention, metric filters, queries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

HOUR, DAY = 3_600_000, 86_400_000
GROUP = "/app/one"


@pytest.fixture(scope="session")
def _client(running: Any) -> Iterator[Any]:
    client = running.client("logs")
    yield client
    client.close()


@pytest.fixture
def logs(door: Any, _client: Any) -> Iterator[Any]:
    yield _client
    for group in _client.describe_log_groups()["logGroups"]:
        _client.delete_log_group(logGroupName=group["logGroupName"])


@pytest.fixture
def put(logs: Any, door: Any) -> Any:
    """Put events, (milliseconds from now, text), into a stream of a group that is made for them."""
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="s")

    def call(*events: tuple[int, str], stream: str = "s") -> Any:
        told = [{"timestamp": door.clock.at_ms + at, "message": text} for at, text in events]
        return logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=told)

    return call


def read(logs: Any, **params: Any) -> list[str]:
    found = logs.filter_log_events(logGroupName=GROUP, **params)
    return [event["message"] for event in found["events"]]


def test_what_is_put_is_read_in_both_directions(logs: Any, put: Any, door: Any) -> None:
    put((0, "a"), (1, "b"), (1, "c"))
    put((2, "d"), (3, "e"))
    stream = {"logGroupName": GROUP, "logStreamName": "s"}
    first = logs.get_log_events(**stream, startFromHead=True, limit=2)
    assert [e["message"] for e in first["events"]] == ["a", "b"]
    assert first["events"][0]["ingestionTime"] == door.clock.at_ms
    second = logs.get_log_events(**stream, limit=2, nextToken=first["nextForwardToken"])
    assert [e["message"] for e in second["events"]] == ["c", "d"]
    last = logs.get_log_events(**stream, limit=2)
    assert [e["message"] for e in last["events"]] == ["d", "e"]
    back = logs.get_log_events(**stream, limit=2, nextToken=last["nextBackwardToken"])
    assert [e["message"] for e in back["events"]] == ["b", "c"]
    described = logs.describe_log_streams(logGroupName=GROUP)["logStreams"][0]
    assert (described["firstEventTimestamp"], described["lastEventTimestamp"]) == (
        door.clock.at_ms,
        door.clock.at_ms + 3,
    )
    assert logs.describe_log_groups()["logGroups"][0]["storedBytes"] == 5 * 27


def test_pages_of_filtered_events_lose_and_repeat_nothing(logs: Any, put: Any) -> None:
    for name in ("r", "t"):
        logs.create_log_stream(logGroupName=GROUP, logStreamName=name)
    expected = []
    for n in range(6):
        for stream in ("r", "s", "t"):
            put((n, f"{n}{stream}"), stream=stream)
            expected.append(f"{n}{stream}")
    for from_head in (True, False):
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, startFromHead=from_head, PaginationConfig={"PageSize": 4}
        )
        found = [event["message"] for page in pages for event in page["events"]]
        assert found == (expected if from_head else expected[::-1])


def test_what_is_too_old_too_new_or_expired_is_left_out_and_told(logs: Any, put: Any, refused: Any) -> None:
    told = put((-14 * DAY - 5, "old"), (-14 * DAY + HOUR, "kept"))
    assert told["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    told = put((0, "now"), (2 * HOUR, "soon"), (2 * HOUR + 1, "far"))
    assert told["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 2}
    assert read(logs) == ["kept", "now", "soon"]
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=3)
    assert read(logs) == ["now", "soon"]
    told = put((-3 * DAY - 5, "expired"), (-3 * DAY + 5, "young"))
    assert told["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
    assert refused(logs.put_retention_policy, logGroupName=GROUP, retentionInDays=4)[0] == "InvalidParameterException"
    assert logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 3


def test_retention_removes_from_the_disk(logs: Any, put: Any, door: Any) -> None:
    put((-DAY - HOUR, "x" * 1000))
    put((0, "now"))
    file = door.app._with.logs.file
    file.sweep()
    assert len(read(logs)) == 2
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=1)
    file.sweep()
    logs.delete_retention_policy(logGroupName=GROUP)
    assert read(logs) == ["now"]
    assert logs.describe_log_groups()["logGroups"][0]["storedBytes"] == 3 + 26


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([(1, "b"), (0, "a")], "chronological order"),
        ([(-DAY - 1, "a"), (0, "b")], "24 hours"),
        ([(0, "x" * 1_048_551)], "Log event too large: 1048577 bytes"),
        ([(0, "é" * 300_000), (0, "é" * 300_000)], "Upload too large"),
        ([(0, "x")] * 10_001, "less than or equal to 10000"),
    ],
)
def test_a_batch_has_limits(put: Any, refused: Any, events: Any, words: str) -> None:
    code, text = refused(lambda: put(*events))
    assert code == "InvalidParameterException"
    assert words in text


def test_groups_and_streams_come_and_go(logs: Any, put: Any, refused: Any) -> None:
    put((0, "a"))
    assert refused(logs.create_log_group, logGroupName=GROUP)[0] == "ResourceAlreadyExistsException"
    stream = {"logGroupName": GROUP, "logStreamName": "s"}
    assert refused(logs.create_log_stream, **stream)[0] == "ResourceAlreadyExistsException"
    assert refused(lambda: put((0, "a"), stream="other")) == (
        "ResourceNotFoundException",
        "The specified log stream does not exist.",
    )
    logs.delete_log_stream(**stream)
    assert refused(logs.delete_log_stream, **stream)[0] == "ResourceNotFoundException"
    logs.create_log_stream(**stream)
    assert read(logs) == []  # a stream of the same name begins anew
    logs.delete_log_group(logGroupName=GROUP)
    missing = ("ResourceNotFoundException", "The specified log group does not exist.")
    assert refused(logs.delete_log_group, logGroupName=GROUP) == missing
    assert refused(lambda: put((0, "a"))) == missing


def test_sequence_tokens_are_tolerated(logs: Any, put: Any, door: Any) -> None:
    token = put((0, "a"))["nextSequenceToken"]
    event = {"timestamp": door.clock.at_ms, "message": "b"}
    for given in (token, "anything"):
        logs.put_log_events(logGroupName=GROUP, logStreamName="s", logEvents=[event], sequenceToken=given)
    assert read(logs) == ["a", "b", "b"]


def test_tags_of_a_group(logs: Any, put: Any) -> None:
    arn = logs.describe_log_groups()["logGroups"][0]["logGroupArn"]
    logs.tag_resource(resourceArn=arn, tags={"team": "x", "stage": "y"})
    logs.untag_resource(resourceArn=arn, tagKeys=["stage"])
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "x"}
    assert logs.list_tags_log_group(logGroupName=GROUP)["tags"] == {"team": "x"}


def test_other_accounts_see_nothing(put: Any, door: Any, refused: Any) -> None:
    put((0, "secret"))
    other = door.client("logs", key=door.keys[1])
    assert other.describe_log_groups()["logGroups"] == []
    assert refused(other.filter_log_events, logGroupName=GROUP)[0] == "ResourceNotFoundException"
    other.close()


# --- metric filters ---------------------------------------------------------------------------------------------------


def filtered(logs: Any, pattern: str, **made: Any) -> None:
    transformation = {"metricName": "M", "metricNamespace": "N", "metricValue": "1", **made}
    logs.put_metric_filter(
        logGroupName=GROUP, filterName="f", filterPattern=pattern, metricTransformations=[transformation]
    )


def total(door: Any, **dimensions: str) -> list[float]:
    client = door.client("cloudwatch")
    now = datetime.fromtimestamp(door.clock.at_ms / 1000, UTC)
    found = client.get_metric_statistics(
        Namespace="N",
        MetricName="M",
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now.timestamp() - 3600,
        EndTime=now.timestamp() + 60,
        Period=3600 * 2,
        Statistics=["Sum", "SampleCount"],
    )["Datapoints"]
    client.close()
    return [sum(p["Sum"] for p in found), sum(p["SampleCount"] for p in found)]


def test_matching_events_become_a_metric(logs: Any, put: Any, door: Any) -> None:
    put((0, "ERROR before the filter"))
    filtered(logs, "{ $.level = ERROR }", metricValue="$.took", dimensions={"Host": "$.host"})
    put((0, '{"level": "ERROR", "took": 3, "host": "a"}'), (1, '{"level": "INFO", "took": 9, "host": "a"}'))
    put((2, '{"level": "ERROR", "took": 4.5, "host": "a"}'), (3, '{"level": "ERROR", "took": 1, "host": "b"}'))
    put((4, '{"level": "ERROR", "took": "much", "host": "a"}'), (5, '{"level": "ERROR", "took": 1}'))
    assert total(door, Host="a") == [7.5, 2]
    assert total(door, Host="b") == [1, 1]
    described = logs.describe_metric_filters(logGroupName=GROUP)["metricFilters"][0]
    assert described["metricTransformations"][0]["metricValue"] == "$.took"
    assert logs.describe_log_groups()["logGroups"][0]["metricFilterCount"] == 1
    logs.delete_metric_filter(logGroupName=GROUP, filterName="f")
    put((6, '{"level": "ERROR", "took": 100, "host": "a"}'))
    assert total(door, Host="a") == [7.5, 2]


def test_a_minute_without_a_match_has_the_default(logs: Any, put: Any, door: Any) -> None:
    filtered(logs, "[host, status = 5*, ms]", metricValue="$ms", defaultValue=0, metricName="M2")
    put((0, "a 200 12"))
    client = door.client("cloudwatch")
    names = {m["MetricName"] for m in client.list_metrics(Namespace="N")["Metrics"]}
    client.close()
    assert "M2" in names


@pytest.mark.parametrize(
    ("pattern", "made", "words"),
    [
        ("{ $.x = }", {}, "Invalid filter pattern"),
        ("x", {"metricValue": "much"}, "metricValue"),
        ("[a, b]", {"metricValue": "$c"}, "$c"),
        ("x", {"metricValue": "$.a"}, "$.a"),
        ("{ $.x = 1 }", {"dimensions": {"D": "fixed"}}, "beginning with $"),
        ("{ $.x = 1 }", {"dimensions": {"D": "$.x"}, "defaultValue": 1}, "defaultValue"),
    ],
)
def test_wrong_filters_are_refused(logs: Any, put: Any, refused: Any, pattern: str, made: Any, words: str) -> None:
    code, text = refused(lambda: filtered(logs, pattern, **made))
    assert code == "InvalidParameterException"
    assert words in text


def test_a_filter_is_tried_on_messages(logs: Any) -> None:
    found = logs.test_metric_filter(
        filterPattern="[ip, user, ..., status = 4*]", logEventMessages=["1.2.3.4 joe x y 404", "1.2.3.4 joe 200"]
    )["matches"]
    assert [m["eventNumber"] for m in found] == [1]
    assert found[0]["extractedValues"] == {"$ip": "1.2.3.4", "$user": "joe", "$3": "x", "$4": "y", "$status": "404"}


# --- queries ----------------------------------------------------------------------------------------------------------


def asked(logs: Any, door: Any, text: str, **params: Any) -> Any:
    given = {"logGroupName": GROUP, **params} if "logGroupNames" not in params else params
    now_s = door.clock.at_ms // 1000
    query = logs.start_query(queryString=text, startTime=now_s - 3600, endTime=now_s + 3600, **given)["queryId"]
    deadline = time.monotonic() + 10
    while (found := logs.get_query_results(queryId=query))["status"] in ("Scheduled", "Running"):
        assert time.monotonic() < deadline
    return found


def rows(found: Any) -> list[dict[str, str]]:
    return [{cell["field"]: cell["value"] for cell in row} for row in found["results"]]


def test_a_query_counts_by_time_and_field(logs: Any, put: Any, door: Any) -> None:
    put(*((n * 400, f'{{"instance": "i-{n % 2}", "requests": {n}}}') for n in range(10)))
    found = asked(logs, door, "stats sum(requests) as rps by bin(1s), instance | sort rps desc | limit 2")
    assert found["status"] == "Complete"
    assert [(row["instance"], row["rps"]) for row in rows(found)] == [("i-1", "12"), ("i-1", "9")]
    assert sum(int(row["rps"]) for row in rows(asked(logs, door, "stats sum(requests) as rps by bin(1s)"))) == 45
    assert found["statistics"]["recordsScanned"] == found["statistics"]["recordsMatched"] == 10
    assert found["statistics"]["bytesScanned"] > 10 * 26


def test_rows_of_events_lead_back_to_them(logs: Any, put: Any, door: Any) -> None:
    put((0, "one"), (1, "two"), (1, "three"))
    found = rows(asked(logs, door, "fields @timestamp, @message, @logStream, @log | sort @timestamp desc | limit 1"))
    assert found[0]["@message"] == "three"
    assert found[0]["@timestamp"] == "2023-11-14 22:13:20.001"
    assert found[0]["@log"] == f"123456789012:{GROUP}"
    record = logs.get_log_record(logRecordPointer=found[0]["@ptr"])["logRecord"]
    assert (record["@message"], record["@logStream"]) == ("three", "s")


def test_a_query_without_meaning_is_refused_with_its_place(logs: Any, put: Any, door: Any) -> None:
    with pytest.raises(logs.exceptions.MalformedQueryException) as caught:
        asked(logs, door, "fields @message | filter status >= | limit 5")
    error = caught.value.response["queryCompileError"]
    assert error["location"] == {"startCharOffset": 35, "endCharOffset": 36}
    assert "unexpected symbol found '|'" in error["message"]


def test_queries_are_described_and_known_to_their_account_alone(logs: Any, put: Any, door: Any, refused: Any) -> None:
    put((0, "x"))
    asked(logs, door, "stats count(*) as known_by_me")
    newest = logs.describe_queries(logGroupName=GROUP, status="Complete")["queries"][0]
    assert newest["queryString"] == "stats count(*) as known_by_me"
    assert refused(logs.stop_query, queryId=newest["queryId"])[0] == "InvalidParameterException"
    other = door.client("logs", key=door.keys[1])
    assert other.describe_queries()["queries"] == []
    assert refused(other.get_query_results, queryId=newest["queryId"])[0] == "ResourceNotFoundException"
    other.close()
    now_s = door.clock.at_ms // 1000
    backwards = {"startTime": now_s, "endTime": now_s - 1, "queryString": "limit 1"}
    assert refused(logs.start_query, logGroupName=GROUP, **backwards)[0] == "InvalidParameterException"
    assert refused(logs.start_query, logGroupName="/none", **backwards)[0] == "ResourceNotFoundException"


def test_results_come_in_pages(logs: Any, put: Any, door: Any) -> None:
    put(*((n, str(n)) for n in range(5)))
    asked(logs, door, "fields @message")
    query = logs.describe_queries()["queries"][0]["queryId"]
    first = logs.get_query_results(queryId=query, maxItems=3)
    rest = logs.get_query_results(queryId=query, maxItems=3, nextToken=first["nextToken"])
    assert [row["@message"] for row in (*rows(first), *rows(rest))] == ["4", "3", "2", "1", "0"]
    assert "nextToken" not in rest


def test_queries_are_kept_under_a_name(logs: Any, refused: Any) -> None:
    kept = logs.put_query_definition(name="rps", queryString="stats count(*) by bin(1s)", logGroupNames=["/a"])
    logs.put_query_definition(queryDefinitionId=kept["queryDefinitionId"], name="rpm", queryString="limit 5")
    found = logs.describe_query_definitions(queryDefinitionNamePrefix="rp")["queryDefinitions"]
    assert [(d["name"], d["queryString"]) for d in found] == [("rpm", "limit 5")]
    assert refused(logs.put_query_definition, name="x", queryString="wrong")[0] == "MalformedQueryException"
    assert logs.delete_query_definition(queryDefinitionId=kept["queryDefinitionId"])["success"] is True
    assert refused(logs.delete_query_definition, **{"queryDefinitionId": kept["queryDefinitionId"]})[0] == (
        "ResourceNotFoundException"
    )
