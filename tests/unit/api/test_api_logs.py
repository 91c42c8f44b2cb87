"""CloudWatch Logs through boto3, over log files as instances write them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eyrie.decide.log_pattern import UnreadablePattern, parse_pattern
from eyrie.domain.names import Scope

GROUP = "/aws/sagemaker/Endpoints/e"
BASE_MS = 1_700_000_000_000


def stamp(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def lines(*entries: tuple[int, str]) -> str:
    return "".join(f"{stamp(BASE_MS + offset)} {text}\n" for offset, text in entries)


def live(data: Path, instance: str, text: str, older: str = "", variant: str = "AllTraffic", name: str = "e") -> Path:
    """A claimed slot with its log, as docs/concepts/processes.md has it."""
    slot = data / "slots" / f"s-{instance}"
    (slot / "box").mkdir(parents=True)
    endpoint = {"account": "123456789012", "region": "us-east-1", "name": name}
    spec = {"instance_id": instance, "endpoint": endpoint, "variant": variant}
    (slot / "spec.json").write_text(json.dumps(spec))
    (slot / "box" / "log").write_text(text)
    if older:
        (slot / "box" / "log.1").write_text(older)
    return slot


def gone(data: Path, instance: str, text: str, variant: str = "AllTraffic", name: str = "e") -> None:
    folder = data / "logs" / "endpoints" / f"123456789012.us-east-1.{name}" / variant
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{instance}.log").write_text(text)


@pytest.fixture(scope="session")
def _logs(running: Any) -> Iterator[Any]:
    client = running.client("logs")
    yield client
    client.close()


@pytest.fixture
def logs(door: Any, _logs: Any) -> Iterator[Any]:
    yield _logs
    for folder in ("slots", "logs"):
        shutil.rmtree(door.data / folder, ignore_errors=True)


def texts(reply: Any) -> list[str]:
    return [event["message"] for event in reply["events"]]


def test_a_missing_group_or_stream_is_resource_not_found(logs: Any, door: Any, refused: Any) -> None:
    group = ("ResourceNotFoundException", "The specified log group does not exist.")
    assert refused(logs.filter_log_events, logGroupName=GROUP, logStreamNamePrefix="AllTraffic/") == group
    assert refused(logs.describe_log_streams, logGroupName="/aws/lambda/x") == group
    assert refused(logs.get_log_events, logGroupName=GROUP, logStreamName="a/b") == group
    live(door.data, "i-1", lines((0, "hello")))
    stream = ("ResourceNotFoundException", "The specified log stream does not exist.")
    assert refused(logs.get_log_events, logGroupName=GROUP, logStreamName="a/b") == stream


def test_an_endpoint_has_its_group_before_anything_is_printed(logs: Any, deployed: Any) -> None:
    deployed("e")
    assert logs.describe_log_streams(logGroupName=GROUP)["logStreams"] == []
    assert logs.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="AllTraffic/")["events"] == []
    group = logs.describe_log_groups(logGroupNamePrefix="/aws/sagemaker")["logGroups"][0]
    assert group["logGroupName"] == GROUP
    assert group["arn"] == f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}:*"


def test_streams_of_the_living_and_the_gone(logs: Any, door: Any) -> None:
    live(door.data, "i-2", lines((10, "new"), (20, "newer")), older=lines((5, "old")))
    gone(door.data, "i-1", lines((1, "before"), (2, "the end")))
    gone(door.data, "i-9", lines((50, "x")), variant="other")
    (door.data / "slots" / "warm").mkdir()  # a slot that nobody claimed
    found = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert [s["logStreamName"] for s in found] == ["AllTraffic/i-1", "AllTraffic/i-2", "other/i-9"]
    assert (found[1]["firstEventTimestamp"], found[1]["lastEventTimestamp"]) == (BASE_MS + 5, BASE_MS + 20)
    prefixed = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix="other/")["logStreams"]
    assert [s["logStreamName"] for s in prefixed] == ["other/i-9"]
    latest = logs.describe_log_streams(logGroupName=GROUP, orderBy="LastEventTime", descending=True)["logStreams"]
    assert [s["logStreamName"] for s in latest] == ["other/i-9", "AllTraffic/i-2", "AllTraffic/i-1"]
    pages = logs.get_paginator("describe_log_streams").paginate(logGroupName=GROUP, PaginationConfig={"PageSize": 2})
    assert [len(page["logStreams"]) for page in pages] == [2, 1]


def test_events_read_forward_to_the_end_and_on(logs: Any, door: Any) -> None:
    slot = live(door.data, "i-1", lines((1, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")))
    stream = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1"}
    first = logs.get_log_events(**stream, startFromHead=True, limit=2)
    assert texts(first) == ["a", "b"]
    second = logs.get_log_events(**stream, startFromHead=True, limit=2, nextToken=first["nextForwardToken"])
    assert texts(second) == ["c", "d"]
    third = logs.get_log_events(**stream, startFromHead=True, limit=2, nextToken=second["nextForwardToken"])
    assert texts(third) == ["e"]
    end = logs.get_log_events(**stream, startFromHead=True, nextToken=third["nextForwardToken"])
    assert (texts(end), end["nextForwardToken"]) == ([], third["nextForwardToken"])
    box = slot / "box"
    (box / "log").rename(box / "log.1")  # it rotates, and goes on
    (box / "log").write_text(lines((5, "f")))
    assert texts(logs.get_log_events(**stream, startFromHead=True, nextToken=end["nextForwardToken"])) == ["f"]
    back = logs.get_log_events(**stream, nextToken=second["nextBackwardToken"])
    assert texts(back) == ["a", "b"]


def test_without_a_token_the_latest_events_come(logs: Any, door: Any) -> None:
    live(door.data, "i-1", lines(*((n, str(n)) for n in range(6))))
    stream = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1"}
    last = logs.get_log_events(**stream, limit=2)
    assert texts(last) == ["4", "5"]
    before = logs.get_log_events(**stream, limit=3, nextToken=last["nextBackwardToken"])
    assert texts(before) == ["1", "2", "3"]
    ranged = logs.get_log_events(**stream, startTime=BASE_MS + 2, endTime=BASE_MS + 4)
    assert texts(ranged) == ["2", "3"]


def test_unstamped_lines_belong_to_the_one_before(logs: Any, door: Any) -> None:
    live(door.data, "i-1", lines((1, "Traceback:")) + "  File x\nValueError\n" + lines((2, "next")))
    found = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1")
    assert texts(found) == ["Traceback:\n  File x\nValueError", "next"]
    assert found["events"][0]["timestamp"] == BASE_MS + 1


def test_lines_before_the_first_stamp_have_its_time(logs: Any, door: Any) -> None:
    live(door.data, "i-1", "starting\nup\n" + lines((7, "serving")))
    live(door.data, "i-2", "no stamp at all\n")
    found = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1")["events"]
    assert [(e["timestamp"], e["message"]) for e in found] == [
        (BASE_MS + 7, "starting\nup"),
        (BASE_MS + 7, "serving"),
    ]
    now = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-2")["events"][0]
    assert now["timestamp"] > BASE_MS


def test_an_instance_cannot_make_its_log_another_file(logs: Any, door: Any) -> None:
    """The log's folder is the instance's own to write: a link or a pipe in it reads as empty."""
    box = live(door.data, "i-1", "") / "box"
    (box / "log").unlink()
    (box / "log").symlink_to(door.data / "eyrie.db")
    os.mkfifo(box / "log.1")
    assert logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1")["events"] == []
    assert logs.describe_log_streams(logGroupName=GROUP)["logStreams"][0]["logStreamName"] == "AllTraffic/i-1"


def test_events_of_all_streams_are_filtered_in_order_of_time(logs: Any, door: Any) -> None:
    live(door.data, "i-1", lines((1, "ERROR one"), (4, "fine")))
    live(door.data, "i-2", lines((2, "ERROR two"), (3, "ERROR ignored")), variant="other")

    def found(**params: Any) -> list[str]:
        return texts(logs.filter_log_events(logGroupName=GROUP, **params))

    assert found() == ["ERROR one", "ERROR two", "ERROR ignored", "fine"]
    assert found(filterPattern="ERROR -ignored") == ["ERROR one", "ERROR two"]
    assert found(logStreamNamePrefix="other/") == ["ERROR two", "ERROR ignored"]
    assert found(logStreamNames=["AllTraffic/i-1"]) == ["ERROR one", "fine"]
    assert found(startTime=BASE_MS + 2, endTime=BASE_MS + 3) == ["ERROR two", "ERROR ignored"]
    assert found(startFromHead=False, limit=1) == ["fine"]
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=GROUP, filterPattern="ERROR", PaginationConfig={"PageSize": 2}
    )
    assert [texts(page) for page in pages] == [["ERROR one", "ERROR two"], ["ERROR ignored"]]
    event = logs.filter_log_events(logGroupName=GROUP)["events"][0]
    assert event["logStreamName"] == "AllTraffic/i-1"
    assert event["eventId"].startswith(str(BASE_MS + 1))


def test_a_reply_is_bounded_in_bytes(logs: Any, door: Any) -> None:
    live(door.data, "i-1", lines(*((n, "x" * 400_000) for n in range(4))))
    first = logs.filter_log_events(logGroupName=GROUP)
    assert len(first["events"]) == 2
    rest = logs.filter_log_events(logGroupName=GROUP, nextToken=first["nextToken"])
    assert len(rest["events"]) == 2
    assert "nextToken" not in rest


def test_bad_tokens_and_contradictions_are_refused(logs: Any, door: Any, refused: Any) -> None:
    live(door.data, "i-1", lines((1, "a"), (2, "b")))
    token = logs.filter_log_events(logGroupName=GROUP, limit=1)["nextToken"]
    invalid = ("InvalidParameterException", "The specified nextToken is invalid.")
    assert refused(logs.filter_log_events, logGroupName=GROUP, filterPattern="a", nextToken=token) == invalid
    for bad in ("x", "f/1", "z/1:2", "f/a:b", "W10="):
        assert refused(logs.filter_log_events, logGroupName=GROUP, nextToken=bad) == invalid
        assert (
            refused(logs.get_log_events, logGroupName=GROUP, logStreamName="AllTraffic/i-1", nextToken=bad) == invalid
        )
        assert refused(logs.describe_log_streams, logGroupName=GROUP, nextToken=bad) == invalid
    for operation, params in (
        (logs.describe_log_streams, {}),
        (logs.describe_log_streams, {"logGroupName": GROUP, "logGroupIdentifier": GROUP}),
        (logs.describe_log_streams, {"logGroupName": GROUP, "orderBy": "LastEventTime", "logStreamNamePrefix": "a"}),
        (logs.filter_log_events, {"logGroupName": GROUP, "logStreamNames": ["a"], "logStreamNamePrefix": "a"}),
        (logs.filter_log_events, {"logGroupName": GROUP, "filterPattern": "{ $.x = }"}),
        (logs.filter_log_events, {"logGroupName": GROUP, "filterPattern": '"open'}),
        (logs.describe_log_groups, {"logGroupNamePrefix": "a", "logGroupNamePattern": "a"}),
    ):
        assert refused(operation, **params)[0] == "InvalidParameterException"


def test_a_group_may_be_named_by_its_arn(logs: Any, door: Any) -> None:
    live(door.data, "i-1", lines((1, "a")))
    arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}"
    assert len(logs.describe_log_streams(logGroupIdentifier=arn)["logStreams"]) == 1
    assert [g["logGroupName"] for g in logs.describe_log_groups(logGroupIdentifiers=[arn])["logGroups"]] == [GROUP]


def test_other_accounts_see_no_logs(logs: Any, door: Any, refused: Any) -> None:
    live(door.data, "i-1", lines((1, "secret")))
    other = door.client("logs", key=door.keys[1])
    assert refused(other.filter_log_events, logGroupName=GROUP)[0] == "ResourceNotFoundException"
    assert other.describe_log_groups()["logGroups"] == []
    other.close()


@pytest.mark.parametrize("name", ["../..", "e/AllTraffic", "..", "a.b"])
def test_a_group_name_is_no_way_to_other_files(logs: Any, door: Any, refused: Any, name: str) -> None:
    gone(door.data, "i-1", lines((1, "a")))
    missing = refused(logs.filter_log_events, logGroupName=f"/aws/sagemaker/Endpoints/{name}")
    assert missing[0] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("", "anything", True),
        ("a b", "b then a", True),
        ("a b", "only a", False),
        ('"a b"', "b a", False),
        ('"a b"', "x a b y", True),
        ('a -"b c"', "a b c", False),
        ("?x ?y", "has y", True),
        ("?x ?y", "has z", False),
        ("A", "a", False),
        ('"say \\"hi\\""', 'I say "hi" now', True),
    ],
)
def test_filter_patterns_of_terms(pattern: str, text: str, matches: bool) -> None:
    assert (parse_pattern(pattern).match(text) is not None) is matches


def test_a_pattern_has_bounds() -> None:
    with pytest.raises(UnreadablePattern, match="at most 100 terms"):
        parse_pattern("a " * 101)


SAID = lines((0, "starting"), (1, "[prepare] read 3 columns"), (2, "[score] warm"), (3, "[other] not a container"))


@pytest.mark.parametrize("alive", [True, False])
def test_every_container_of_several_has_its_own_stream(logs: Any, door: Any, alive: bool) -> None:
    said = SAID + f"{stamp(BASE_MS + 4)} [score] failed\nTraceback\n"
    if alive:
        slot = live(door.data, "i-1", said)
        spec = json.loads((slot / "spec.json").read_text())
        spec["containers"] = [{"hostname": "prepare"}, {"hostname": "score"}]
        (slot / "spec.json").write_text(json.dumps(spec))
    else:
        gone(door.data, "i-1", said)
        folder = door.data / "logs" / "endpoints" / "123456789012.us-east-1.e" / "AllTraffic"
        (folder / "i-1.containers").write_text('["prepare","score"]')
    found = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert [stream["logStreamName"] for stream in found] == ["AllTraffic/i-1/prepare", "AllTraffic/i-1/score"]
    first = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1/prepare")
    assert texts(first) == ["starting", "read 3 columns", "[other] not a container"]
    second = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1/score")
    assert texts(second) == ["warm", "failed\nTraceback"]
    assert len(logs.filter_log_events(logGroupName=GROUP)["events"]) == 5


def test_brackets_mean_nothing_where_there_is_one_container(logs: Any, door: Any) -> None:
    live(door.data, "i-1", SAID)
    read = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1")
    assert "[score] warm" in texts(read)


def test_an_endpoints_group_has_retention_and_can_be_emptied(logs: Any, door: Any, deployed: Any) -> None:
    deployed("e")
    live(door.data, "i-1", lines((-2 * 86_400_000, "old"), (0, "new")))
    gone(door.data, "i-0", lines((-86_400_000, "gone")))

    def found() -> list[str]:
        return texts(logs.filter_log_events(logGroupName=GROUP))

    assert found() == ["old", "gone", "new"]
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=1)
    assert found() == ["gone", "new"]
    logs.delete_retention_policy(logGroupName=GROUP)
    logs.delete_log_group(logGroupName=GROUP)
    assert found() == ["new"]  # of this very millisecond; what was before is hidden, or removed
    door.clock.at_ms += 1
    logs.delete_log_group(logGroupName=GROUP)
    assert found() == []
    assert not (door.data / "logs" / "endpoints" / "123456789012.us-east-1.e").exists()
    assert logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"][0]["logGroupName"] == GROUP
    door.app._with.logs.file.delete_group(Scope(), GROUP)


def test_users_may_add_streams_to_an_endpoints_group_but_not_write_in_an_instances(
    logs: Any, door: Any, refused: Any
) -> None:
    live(door.data, "i-1", lines((0, "printed")))
    logs.create_log_stream(logGroupName=GROUP, logStreamName="mine")
    event = {"timestamp": BASE_MS, "message": "put"}
    logs.put_log_events(logGroupName=GROUP, logStreamName="mine", logEvents=[event])
    assert texts(logs.filter_log_events(logGroupName=GROUP)) == ["printed", "put"]
    own = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1"}
    assert "instance's own" in refused(logs.put_log_events, **own, logEvents=[event])[1]
    assert "instance's own" in refused(logs.delete_log_stream, **own)[1]
    assert refused(logs.create_log_stream, **own)[0] == "ResourceAlreadyExistsException"
    logs.delete_log_stream(logGroupName=GROUP, logStreamName="mine")
    door.app._with.logs.file.delete_group(Scope(), GROUP)


def test_numbers_beyond_any_time_are_no_defect(logs: Any, door: Any) -> None:
    live(door.data, "i-1", lines((0, "x")))
    far = 2**62 + 1
    assert texts(logs.filter_log_events(logGroupName=GROUP, startTime=0, endTime=2**63 - 1)) == ["x"]
    assert logs.filter_log_events(logGroupName=GROUP, startTime=far)["events"] == []
    stream = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1"}
    assert logs.get_log_events(**stream, startTime=far, endTime=far)["events"] == []
    assert logs.get_log_events(**stream, nextToken=f"f/{2**63 - 1}:0")["events"] == []
