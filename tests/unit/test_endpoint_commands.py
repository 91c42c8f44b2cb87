"""The commands about endpoints, in the parts that need no Eyrie: names, requests, tables, what was told already."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from eyrie.adapters.clock import SystemClock
from eyrie.cli import calls, deploy, endpoints, payload, tail, watch
from eyrie.cli.errors import CommandError
from eyrie.cli.invoke import _told
from eyrie.cli.public import LINE_CHARS_MAX, Where, one_line, where
from eyrie.cli.watch import Row, Variant

WHERE = Where("http://h:1", "us-east-1", "A", "s")


def text(shown: object) -> str:
    console = Console(width=240, file=io.StringIO(), record=True)
    console.print(shown)
    return console.export_text()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/price model_2.joblib", "price-model-2"),
        ("model.tar.gz", "model"),
        ("folder", "folder"),
        ("x" * 80, "x" * 63),
    ],
)
def test_an_endpoint_is_named_after_its_file(path: str, name: str) -> None:
    assert deploy.endpoint_name(None, Path(path)) == name
    fresh = deploy.fresh_name(name)
    assert fresh.startswith(name[:30])
    assert len(fresh) <= deploy.NAME_CHARS_MAX


@pytest.mark.parametrize("wrong", ["a_b", "-a", "", "x" * 64, "a b"])
def test_what_is_no_name_is_refused(wrong: str) -> None:
    with pytest.raises(CommandError, match="--name"):
        deploy.endpoint_name(wrong, Path("m"))


def test_variables_have_names() -> None:
    assert deploy.variables(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    for wrong in ("A", "=1", "1A=2"):
        with pytest.raises(CommandError, match="NAME=VALUE"):
            deploy.variables([wrong])


def test_a_request_is_made_up_only_where_the_endpoint_tells_enough() -> None:
    matrix = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    made = calls.request_for([matrix])
    assert made == {"csv": "0,0,0", "v2": {"inputs": [{**matrix, "shape": [1, 3], "data": [0.0, 0.0, 0.0]}]}}
    for other in ([], [{**matrix, "shape": [-1, -1]}], [{**matrix, "datatype": "BYTES"}], [matrix, matrix]):
        assert calls.request_for(other) is None
    told = {
        "endpoint": "e", "status": "InService", "image": "i", "type": "real-time", "instances": 1, "seconds": 1.0,
        "updated": False, "sample": made, **calls.addresses(WHERE, "e"),
    }  # fmt: skip
    shown = "\n".join(calls.lines(WHERE, told))
    assert "1 instance," in shown
    assert "--data-binary 0,0,0 http://h:1/endpoints/e/invocations" in shown
    assert "/my" not in shown
    elsewhere = "\n".join(calls.lines(replace(WHERE, data=Path("/my data")), told))
    for command in ("eyrie invoke e --data 0,0,0 --eyrie", "eyrie key create --endpoint e --data", "eyrie env --data"):
        assert f"{command} '/my data'" in elsewhere


def test_data_is_a_file_or_the_text_itself(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert payload.bodies(str(rows), each_line=True, kind=None) == ([b'{"a": 1}', b'{"a": 2}'], "application/jsonlines")
    assert payload.bodies(str(rows), each_line=False, kind=None)[1] == "application/jsonlines"
    assert payload.bodies(str(tmp_path), each_line=False, kind=None) == ([rows.read_bytes()], "application/jsonlines")
    for given, kind in (("1,2", "text/csv"), ('{"a": 1}', "application/json"), ("[[1]]", "application/json")):
        assert payload.content_type(payload.body(given)[0], "") == kind
    for wrong in ("./none", "none.csv", f"@{tmp_path / 'none'}"):
        with pytest.raises(CommandError):
            payload.body(wrong)
    with pytest.raises(CommandError, match="is empty"):
        payload.bodies("", each_line=False, kind=None)


def test_a_row_a_variant_and_what_is_unknown_is_not_zero() -> None:
    row = Row(
        "e", "Updating", "c", [Variant("a", 1.0, 1, 2, "1-4"), Variant("b", 0.5, 1, 1)], {"x": 1, "y": 1}, 12.25, 0, 1.5
    )
    shown = text(endpoints.table([row]))
    assert shown.count("Updating") == 1
    assert "x:1 y:1" in shown
    assert "1-4" in shown
    assert "1.5" in shown
    far = text(endpoints.table([Row("e", "Failed", "c", failure="no such model")]))
    assert "?" in far
    assert "-" in far
    assert "no such model" in far
    assert "no endpoints" in text(endpoints.live_view([], None))
    assert "nothing answers" in text(endpoints.live_view([], "nothing answers"))


class Asked:
    """The public API, which remembers when metrics were asked for, and tells one value for each."""

    def __init__(self, data: Path) -> None:
        self.where = replace(WHERE, data=data)
        self.spans: dict[str, tuple[datetime, datetime, int]] = {}

    def pages(self, service: str, operation: str, member: str, **params: Any) -> list[dict[str, Any]]:
        if operation != "get_metric_data":
            return []
        queries = params["MetricDataQueries"]
        for query in queries:
            told = query["MetricStat"]
            self.spans[told["Metric"]["MetricName"]] = (params["StartTime"], params["EndTime"], told["Period"])
        return [{"Id": query["Id"], "Values": [120.0]} for query in queries]

    def endpoint(self, name: str) -> dict[str, Any]:
        return {"EndpointStatus": "InService", "ProductionVariants": []}


@pytest.mark.parametrize(("scale", "seconds", "period"), [(1.0, 60, 1), (10.0, 600, 1), (60.0, 3_600, 60)])
def test_metrics_are_asked_for_by_the_clock_of_decisions(
    scale: float, seconds: int, period: int, tmp_path: Path
) -> None:
    (tmp_path / "env.json").write_text(json.dumps({"settings": {"EYRIE_TIME_SCALE": str(scale)}}))
    (tmp_path / "credentials.json").write_text('[{"access_key_id": "A", "secret_access_key": "s", "account": "1"}]')
    asked = Asked(tmp_path)
    row = watch.Watch(asked, 60).rows("e")[0]  # type: ignore[arg-type]
    assert (row.rps, row.p50_ms) == (2.0, 0.12)  # of real seconds
    now_s = SystemClock(scale).now_ms() / 1000
    start, end, by = asked.spans["Invocations"]
    assert ((end - start).total_seconds(), by) == (seconds, period)
    assert now_s - 60 - 600 * scale <= end.timestamp() <= now_s
    start, end, by = asked.spans["ModelLatency"]
    assert (start.second, by) == (0, 60)
    assert end - start >= timedelta(seconds=seconds)


def test_while_a_deployment_shifts_traffic_both_fleets_are_rows_that_sum_to_100() -> None:
    described = {
        "EndpointStatus": "Updating",
        "ProductionVariants": [{"VariantName": "v", "CurrentWeight": 20.0, "DesiredWeight": 30.0}],
        "PendingDeploymentSummary": {
            "ProductionVariants": [{"VariantName": "v", "CurrentWeight": 1 / 3, "DesiredWeight": 1.0}]
        },
    }
    row = watch._row("e", described)
    assert [(v.fleet, v.traffic_percent) for v in row.variants] == [("old", 66.7), ("new", 33.3)]
    shown = text(endpoints.table([row]))
    assert "v (old)" in shown
    assert "66.7 %" in shown
    assert "v (new)" in shown
    assert "33.3 %" in shown


def test_nothing_is_told_twice_though_each_look_reaches_back() -> None:
    follower = tail.Follower()
    first = [{"eventId": "1", "timestamp": 5}, {"eventId": "2", "timestamp": 3}]
    assert [event["eventId"] for event in follower.new(first)] == ["2", "1"]
    assert [e["eventId"] for e in follower.new([*first, {"eventId": "3", "timestamp": 4}])] == ["3"]  # it came late
    assert follower.newest_ms == 5
    assert tail.span_ms("10m") == 600_000
    with pytest.raises(CommandError, match="--since"):
        tail.span_ms("soon")


def test_a_models_own_words_are_what_is_told() -> None:
    fields = {
        "Error": {"Code": "ModelError", "Message": "long"},
        "OriginalStatusCode": 415,
        "OriginalMessage": "no\n csv",
    }
    assert str(_told(ClientError(fields, "InvokeEndpoint"))) == "the model answered 415: no csv"
    plain = ClientError({"Error": {"Code": "ValidationError", "Message": "Endpoint x not found"}}, "InvokeEndpoint")
    assert str(_told(plain)) == "Endpoint x not found"
    assert len(one_line("x " * 5_000)) < LINE_CHARS_MAX + 10


def test_an_eyrie_elsewhere_is_found_by_the_environment(tmp_path: Path) -> None:
    environ = {
        "AWS_ENDPOINT_URL": "http://far:9/",
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "r",
    }
    found = where(tmp_path, environ)
    assert (found.url, found.region, found.data) == ("http://far:9", "r", None)
    with pytest.raises(CommandError, match="eyrie up"):
        where(tmp_path, {})


@pytest.mark.parametrize("url", ["foo", "127.0.0.1:7777", "http://", "ftp://h:1"])
def test_an_address_of_the_environment_that_is_none_is_told(tmp_path: Path, url: str) -> None:
    """It was a traceback of botocore's."""
    environ = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s"}
    with pytest.raises(CommandError, match="AWS_ENDPOINT_URL is no http") as told:
        where(tmp_path, environ)
    assert told.value.code == 2
