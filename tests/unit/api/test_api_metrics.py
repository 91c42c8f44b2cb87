"""CloudWatch's metrics through boto3: what is put is found, in all three protocols, and what is wrong is named."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope

NOW = datetime.fromtimestamp(1_700_000_000, UTC)
HOUR = timedelta(hours=1)
SPAN = {"StartTime": NOW - HOUR, "EndTime": NOW + HOUR}
MEASURED = {"Namespace": "Shop", "MetricName": "Latency"}


@pytest.fixture
def cw(door: Any) -> Iterator[Any]:
    """A client of an empty CloudWatch."""
    metrics = door.app._with.metrics
    with metrics._lock:
        metrics._series.clear()
        metrics._open.clear()
        metrics._dirty.clear()
    client = door.client("cloudwatch")
    yield client
    client.close()


def put(cw: Any, name: str, *values: float, **more: Any) -> None:
    """Values a minute apart."""
    data = [
        {"MetricName": name, "Value": float(value), "Timestamp": NOW + timedelta(minutes=n), **more}
        for n, value in enumerate(values)
    ]
    cw.put_metric_data(Namespace="Shop", MetricData=data)


def test_what_is_put_is_found_with_every_statistic(cw: Any) -> None:
    data = {"MetricName": "Latency", "Values": [1.0, 2.0, 10.0], "Counts": [1.0, 2.0, 1.0], "Unit": "Milliseconds"}
    cw.put_metric_data(Namespace="Shop", MetricData=[{**data, "Timestamp": NOW}])
    names = ["SampleCount", "Sum", "Average", "Minimum", "Maximum"]
    found = cw.get_metric_statistics(**MEASURED, **SPAN, Period=60, Statistics=names)
    (point,) = found["Datapoints"]
    assert found["Label"] == "Latency"
    assert {name: point[name] for name in names} == {
        "SampleCount": 4, "Sum": 15, "Average": 3.75, "Minimum": 1, "Maximum": 10
    }  # fmt: skip
    assert point["Unit"] == "Milliseconds"
    assert point["Timestamp"] == NOW.replace(second=0)
    extended = cw.get_metric_statistics(**MEASURED, **SPAN, Period=3600, ExtendedStatistics=["p50", "tm75"])
    values = extended["Datapoints"][0]["ExtendedStatistics"]
    assert math.isclose(values["p50"], 2, rel_tol=0.01)
    assert math.isclose(values["tm75"], 5 / 3, rel_tol=0.01)
    assert cw.get_metric_statistics(**MEASURED, **SPAN, Period=60, Statistics=names, Unit="Bytes")["Datapoints"] == []


@pytest.mark.parametrize("protocol", ["query", "json", "smithy-rpc-v2-cbor"])
def test_every_protocol_of_cloudwatch_puts_and_gets(door: Any, cw: Any, protocol: str) -> None:
    client = door.client("cloudwatch")
    client.meta.service_model.metadata["protocol"] = protocol
    put(client, "m", 1, 2)
    found = client.get_metric_statistics(Namespace="Shop", MetricName="m", **SPAN, Period=3600, Statistics=["Sum"])
    assert [point["Sum"] for point in found["Datapoints"]] == [3]
    client.close()


@pytest.mark.parametrize("protocol", ["query", "json", "smithy-rpc-v2-cbor"])
def test_large_puts_come_compressed(door: Any, cw: Any, protocol: str) -> None:
    client = door.client("cloudwatch")
    client.meta.service_model.metadata["protocol"] = protocol
    sent: list[Any] = []
    client.meta.events.register("before-send.cloudwatch", lambda request, **_: sent.append(request.headers))
    pairs = [{"Name": f"dimension{n}", "Value": "v" * 100} for n in range(30)]
    data = [{"MetricName": f"m{n}", "Value": float(n), "Timestamp": NOW, "Dimensions": pairs} for n in range(100)]
    client.put_metric_data(Namespace="Large", MetricData=data)
    assert sent[0]["Content-Encoding"] in ("gzip", b"gzip")
    assert len(cw.list_metrics(Namespace="Large")["Metrics"]) == 100
    client.close()


def test_a_form_as_curl_and_old_clients_write_it(door: Any, cw: Any) -> None:
    form = (
        "Action=PutMetricData&Version=2010-08-01&Namespace=Shop&MetricData.member.1.MetricName=sold"
        "&MetricData.member.1.Value=3&MetricData.member.1.Unit=Count&MetricData.member.1.Timestamp=2023-11-14T22%3A13%3A20Z"
        "&MetricData.member.1.Dimensions.member.1.Name=Shop&MetricData.member.1.Dimensions.member.1.Value=north"
    )
    session = botocore.session.get_session()
    session.set_credentials(door.keys[0].access_key_id, door.keys[0].secret_access_key)
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", door.url, headers, form)
    SigV4Auth(session.get_credentials(), "monitoring", "us-east-1").add_auth(request)
    asked = urllib.request.Request(door.url, form.encode(), dict(request.headers))
    with urllib.request.urlopen(asked, timeout=10) as reply:
        assert b"<PutMetricDataResponse" in reply.read()
    (metric,) = cw.list_metrics(Namespace="Shop")["Metrics"]
    assert metric == {"Namespace": "Shop", "MetricName": "sold", "Dimensions": [{"Name": "Shop", "Value": "north"}]}


def test_statistic_sets_merge(cw: Any) -> None:
    four = {"SampleCount": 2.0, "Sum": 10.0, "Minimum": 4.0, "Maximum": 6.0}
    cw.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "m", "StatisticValues": four, "Timestamp": NOW}])
    put(cw, "m", 20)
    query = {"Namespace": "Shop", "MetricName": "m", **SPAN, "Period": 60}
    asked = {"Statistics": ["Average", "Maximum"], "ExtendedStatistics": ["p50"]}
    (point,) = cw.get_metric_statistics(**query, **asked)["Datapoints"]
    assert (point["Average"], point["Maximum"]) == (10, 20)
    assert "p50" not in point.get("ExtendedStatistics", {})


def queries(*given: tuple[str, str], hidden: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Queries by id: a metric of Shop (`=name`) or an expression."""
    made: list[dict[str, Any]] = []
    for name, text in given:
        stat = {"Metric": {"Namespace": "Shop", "MetricName": text[1:]}, "Period": 60, "Stat": "Sum"}
        what: dict[str, Any] = {"MetricStat": stat} if text.startswith("=") else {"Expression": text}
        made.append({"Id": name, **what, "ReturnData": name not in hidden})
    return made


def test_metric_math_over_what_was_put(cw: Any) -> None:
    put(cw, "errors", 1, 0, 3)
    put(cw, "requests", 10, 20, 30)
    asked = queries(("e", "=errors"), ("r", "=requests"), ("rate", "100 * e / r"), hidden=("e", "r"))
    (result,) = cw.get_metric_data(MetricDataQueries=asked, **SPAN, ScanBy="TimestampAscending")["MetricDataResults"]
    assert result["Values"] == [10, 0, 10]
    assert (result["Id"], result["Label"], result["StatusCode"]) == ("rate", "rate", "Complete")
    assert result["Timestamps"][0] == NOW.replace(second=0)


def test_searches_find_by_schema_name_and_value(cw: Any) -> None:
    for shop in ("north", "south"):
        put(cw, "sold", 1, 2, Dimensions=[{"Name": "Shop", "Value": shop}])
    put(cw, "sold", 5)
    put(cw, "returned", 9, Dimensions=[{"Name": "Shop", "Value": "north"}])

    def found(search: str) -> list[list[float]]:
        asked = queries(("s", f"SEARCH('{search}', 'Sum', 60)"))
        return [r["Values"] for r in cw.get_metric_data(MetricDataQueries=asked, **SPAN)["MetricDataResults"]]

    assert found("{Shop,Shop} sold") == [[2, 1], [2, 1]]
    assert found("{Shop,Shop} sold north") == [[2, 1]]
    assert found('{Shop} MetricName="sold"') == [[5]]
    assert found('Shop="north" NOT returned') == [[2, 1]]
    assert found("{Shop,Shop} (returned OR south)") == [[9], [2, 1]]
    assert found("{Other} sold") == []
    total = queries(("t", "SUM(SEARCH('{Shop,Shop} sold', 'Sum', 60))"))
    assert cw.get_metric_data(MetricDataQueries=total, **SPAN)["MetricDataResults"][0]["Values"] == [4, 2]


def test_points_come_in_pages(cw: Any) -> None:
    put(cw, "a", *range(7))
    put(cw, "b", *range(4))
    asked = queries(("a", "=a"), ("none", "=none"), ("b", "=b"))
    pages = list(
        cw.get_paginator("get_metric_data").paginate(
            MetricDataQueries=asked, **SPAN, ScanBy="TimestampAscending", PaginationConfig={"PageSize": 3}
        )
    )
    values: dict[str, list[float]] = {}
    for page in pages:
        assert sum(len(r["Values"]) for r in page["MetricDataResults"]) <= 3
        for result in page["MetricDataResults"]:
            values.setdefault(result["Id"], []).extend(result["Values"])
    assert values == {"a": list(range(7)), "none": [], "b": list(range(4))}
    assert [r["StatusCode"] for r in pages[0]["MetricDataResults"]] == ["PartialData"]


def test_metrics_are_listed_by_name_dimension_and_activity(cw: Any, door: Any) -> None:
    put(cw, "a", 1, Dimensions=[{"Name": "Shop", "Value": "north"}])
    put(cw, "a", 1, Dimensions=[{"Name": "Shop", "Value": "south"}])
    put(cw, "b", 1)

    def listed(**filters: Any) -> list[str]:
        found = cw.list_metrics(**filters)["Metrics"]
        return [m["MetricName"] + "".join(d["Value"] for d in m["Dimensions"]) for m in found]

    assert listed() == ["anorth", "asouth", "b"]
    assert listed(MetricName="a", Dimensions=[{"Name": "Shop"}]) == ["anorth", "asouth"]
    assert listed(Dimensions=[{"Name": "Shop", "Value": "south"}]) == ["asouth"]
    assert listed(Namespace="Other") == []
    assert listed(RecentlyActive="PT3H") == ["anorth", "asouth", "b"]
    door.clock.at_ms += 4 * 3_600_000
    assert listed(RecentlyActive="PT3H") == []
    for n in range(6):
        data = [{"MetricName": f"m{n}-{i:03}", "Value": 1.0} for i in range(100)]
        cw.put_metric_data(Namespace="Many", MetricData=data)
    pages = list(cw.get_paginator("list_metrics").paginate(Namespace="Many"))
    assert [len(page["Metrics"]) for page in pages] == [500, 100]


def test_accounts_see_their_own_metrics_only(cw: Any, door: Any) -> None:
    put(cw, "mine", 1)
    other = door.client("cloudwatch", key=door.keys[1])
    assert other.list_metrics()["Metrics"] == []
    other.close()


def test_what_eyrie_measures_is_found_beside_it(cw: Any, door: Any) -> None:
    summary = Summary()
    summary.add(120)
    pairs = (("EndpointName", "e"), ("VariantName", "v"))
    metric = Metric(Scope(), "AWS/SageMaker", "ModelLatency", pairs)
    door.app._with.metrics.record([Measured(metric, door.clock.at_ms, summary, "Microseconds")])
    named = [{"Name": name, "Value": value} for name, value in pairs]
    query = {"Namespace": "AWS/SageMaker", "MetricName": "ModelLatency", "Dimensions": named}
    (point,) = cw.get_metric_statistics(**query, **SPAN, Period=60, Statistics=["Average"])["Datapoints"]
    assert (point["Average"], point["Unit"]) == (120, "Microseconds")


def datum(**more: Any) -> dict[str, Any]:
    return {"Namespace": "N", "MetricData": [{"MetricName": "m", **more}]}


NAMED = {"Namespace": "N", "MetricName": "m"}
ASKED = {**NAMED, "StartTime": NOW - HOUR, "EndTime": NOW, "Period": 60, "Statistics": ["Sum"]}
FOUR = {"SampleCount": 1.0, "Sum": 1.0, "Minimum": 1.0, "Maximum": 1.0}
TWICE = [{"Name": "a", "Value": "b"}] * 2
VALUE, COMBINATION, MISSING = "InvalidParameterValue", "InvalidParameterCombination", "MissingParameter"


def stat(**more: Any) -> list[dict[str, Any]]:
    return [{"Id": "a", "MetricStat": {"Metric": NAMED, "Period": 60, "Stat": "Sum", **more}}]


PUTS: list[tuple[dict[str, Any], str, str]] = [
    (datum(), COMBINATION, "MetricData.member.1"),
    (datum(Value=1.0, Values=[1.0]), COMBINATION, "Values"),
    (datum(Values=[1.0, 2.0], Counts=[1.0]), COMBINATION, "Counts"),
    (datum(Values=[1.0] * 151), VALUE, "150"),
    (datum(Value=1.0, Timestamp=NOW - 400 * HOUR), VALUE, "Timestamp"),
    (datum(Value=1.0, Timestamp=NOW + 3 * HOUR), VALUE, "Timestamp"),
    (datum(Value=1.0, StorageResolution=5), VALUE, "StorageResolution"),
    (datum(Value=math.nan), VALUE, "MetricData.member.1.Value"),
    (datum(Value=-1e200), VALUE, "-2^360"),
    (datum(Values=[1.0, math.inf]), VALUE, "MetricData.member.1.Values"),
    (datum(Values=[1.0], Counts=[-1.0]), VALUE, "MetricData.member.1.Counts"),
    (datum(StatisticValues=FOUR | {"Sum": math.nan}), VALUE, "StatisticValues.Sum"),
    (datum(StatisticValues=FOUR | {"Minimum": 9.0}), VALUE, "Minimum"),
    (datum(Value=1.0, Dimensions=[{"Name": ":a", "Value": "b"}]), VALUE, "Dimensions.member.1.Name"),
    (datum(Value=1.0, Dimensions=[{"Name": "a", "Value": "ä"}]), VALUE, "Dimensions.member.1.Value"),
    (datum(Value=1.0, Dimensions=[{"Name": "a", "Value": " "}]), VALUE, "Dimensions.member.1.Value"),
    ({"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1.0}] * 1001}, VALUE, "1000"),
    (datum(Value=1.0, Dimensions=TWICE), VALUE, "same"),
    ({"Namespace": "N"}, MISSING, "MetricData"),
    ({**datum(Value=1.0), "Namespace": "AWS/SageMaker"}, VALUE, "AWS/"),
]
STATISTICS: list[tuple[dict[str, Any], str, str]] = [
    ({k: v for k, v in ASKED.items() if k != "Statistics"}, MISSING, "Statistics"),
    ({**ASKED, "Period": 61}, VALUE, "61"),
    ({**ASKED, "StartTime": NOW}, VALUE, "StartTime"),
    ({**ASKED, "StartTime": NOW - 30 * HOUR}, COMBINATION, "1440"),
    ({**ASKED, "StartTime": NOW - 4 * HOUR, "Period": 10}, VALUE, "Period"),
    ({**ASKED, "ExtendedStatistics": ["p500"]}, VALUE, "p500"),
]
DATA: list[tuple[list[dict[str, Any]], str, str]] = [
    ([], VALUE, "MetricDataQueries"),
    ([{"Id": "a"}], COMBINATION, "a"),
    (queries(("a", "b")), VALUE, "'b'"),
    (queries(("a", "b"), ("b", "a")), VALUE, "itself"),
    (queries(("a", "1 +")), VALUE, "'a'"),
    (queries(("a", "1")), VALUE, "number"),
    (queries(("A", "=m")), VALUE, "A"),
    (queries(("a", "=m"), ("a", "=m")), VALUE, "unique"),
    (queries(("a", "=m"), hidden=("a",)), VALUE, "ReturnData"),
    (stat(Stat="x"), VALUE, "'x'"),
    (stat(Period=7), VALUE, "7"),
]
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    *(("put_metric_data", *case) for case in PUTS),
    *(("get_metric_statistics", *case) for case in STATISTICS),
    *(("get_metric_data", {"MetricDataQueries": asked, **SPAN}, *rest) for asked, *rest in DATA),
    ("get_metric_data", {"MetricDataQueries": stat(), **SPAN, "NextToken": "no"}, "InvalidNextToken", "NextToken"),
    ("get_metric_data", {"MetricDataQueries": stat(), **SPAN, "MaxDatapoints": 0}, VALUE, "0"),
    ("list_metrics", {"NextToken": "no"}, "InvalidNextToken", "NextToken"),
]


@pytest.mark.parametrize(("operation", "params", "code", "named"), WRONG)
def test_what_is_wrong_is_named(
    cw: Any, refused: Any, operation: str, params: dict[str, Any], code: str, named: str
) -> None:
    found, message = refused(getattr(cw, operation), **params)
    assert found in (code, code + "Exception")
    assert named in message
    assert cw.list_metrics()["Metrics"] == []
