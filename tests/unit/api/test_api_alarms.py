"""CloudWatch's alarms through boto3: made, changed, described, set, told apart; and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eyrie.control.context import Context
from eyrie.control.story import story
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope

HIGH = {
    "AlarmName": "high",
    "MetricName": "Invocation5XXErrors",
    "Namespace": "AWS/SageMaker",
    "Statistic": "Average",
    "Dimensions": [{"Name": "VariantName", "Value": "AllTraffic"}, {"Name": "EndpointName", "Value": "shop"}],
    "Period": 60,
    "EvaluationPeriods": 3,
    "DatapointsToAlarm": 2,
    "Threshold": 0.05,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
}
MATH: dict[str, Any] = {
    "AlarmName": "rate",
    "Metrics": [
        {"Id": "rate", "Expression": "100 * errors / FILL(all, 1)", "Label": "error rate"},
        *(
            {
                "Id": name,
                "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": name}, "Period": 60, "Stat": "Sum"},
                "ReturnData": False,
            }
            for name in ("errors", "all")
        ),
    ],
    "EvaluationPeriods": 1,
    "Threshold": 1.0,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
}


def band(expression: str = "ANOMALY_DETECTION_BAND(m1, 2)", **more: Any) -> dict[str, Any]:
    metric = {"Namespace": "Shop", "MetricName": "Orders", "Dimensions": [{"Name": "Site", "Value": "x"}]}
    return {
        "AlarmName": "odd",
        "Metrics": [
            {"Id": "m1", "MetricStat": {"Metric": metric, "Period": 300, "Stat": "Average"}},
            {"Id": "band", "Expression": expression},
        ],
        "EvaluationPeriods": 2,
        "ThresholdMetricId": "band",
        "ComparisonOperator": "LessThanLowerOrGreaterThanUpperThreshold",
        **more,
    }


@pytest.fixture
def cw(door: Any) -> Iterator[Any]:
    client = door.client("cloudwatch")
    yield client
    client.close()


def names(found: dict[str, Any]) -> list[str]:
    return [alarm["AlarmName"] for group in ("MetricAlarms", "CompositeAlarms") for alarm in found[group]]


def test_an_alarm_is_given_back_as_it_was_put(cw: Any) -> None:
    actions = ["arn:aws:sns:us-east-1:123456789012:people"]
    cw.put_metric_alarm(**HIGH, AlarmActions=actions, AlarmDescription="too many errors")
    (alarm,) = cw.describe_alarms()["MetricAlarms"]
    pairs = [("EndpointName", "shop"), ("VariantName", "AllTraffic")]
    assert [(d["Name"], d["Value"]) for d in alarm["Dimensions"]] == pairs
    assert {name: alarm[name] for name in HIGH if name != "Dimensions"} == {
        name: value for name, value in HIGH.items() if name != "Dimensions"
    }
    assert alarm["AlarmArn"] == "arn:aws:cloudwatch:us-east-1:123456789012:alarm:high"
    assert (alarm["StateValue"], alarm["StateReason"]) == ("INSUFFICIENT_DATA", "Unchecked: Initial alarm creation")
    assert (alarm["AlarmActions"], alarm["OKActions"], alarm["ActionsEnabled"]) == (actions, [], True)
    cw.get_waiter("alarm_exists").wait(AlarmNames=["high"], WaiterConfig={"Delay": 1, "MaxAttempts": 1})
    assert cw.describe_alarms_for_metric(**{k: HIGH[k] for k in ("MetricName", "Namespace", "Dimensions")})[
        "MetricAlarms"
    ] == [alarm]
    assert not cw.describe_alarms_for_metric(MetricName="Invocation5XXErrors", Namespace="AWS/SageMaker")[
        "MetricAlarms"
    ]


def test_math_and_bands_are_given_back_and_bands_have_a_detector(cw: Any) -> None:
    cw.put_metric_alarm(**MATH)
    cw.put_metric_alarm(**band())
    odd, rate = cw.describe_alarms()["MetricAlarms"]
    assert rate["Metrics"][0]["Expression"] == "100 * errors / FILL(all, 1)"
    assert [query["ReturnData"] for query in rate["Metrics"]] == [True, False, False]
    assert "Threshold" not in odd
    assert odd["ThresholdMetricId"] == "band"
    (detector,) = cw.describe_anomaly_detectors(Namespace="Shop")["AnomalyDetectors"]
    assert (detector["MetricName"], detector["Stat"]) == ("Orders", "Average")
    assert detector["StateValue"] == "TRAINED_INSUFFICIENT_DATA"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"Period": 45}, "The parameter Period must be 10, 20, 30 or a multiple of 60, not 45."),
        ({"DatapointsToAlarm": 4}, "The parameter DatapointsToAlarm (4) must be less than or equal to Evaluation"),
        ({"EvaluationPeriods": 1441}, "Metrics cannot be checked across more than a day (EvaluationPeriods * Period"),
        ({"TreatMissingData": "guess"}, "Option guess is not supported for TreatMissingData parameter. Supported"),
        ({"EvaluateLowSampleCountPercentile": "x"}, "Option x is not supported for EvaluateLowSampleCountPercentile"),
        ({"ComparisonOperator": "LessThanLowerThreshold"}, "ComparisonOperator needs a ThresholdMetricId."),
        (
            {"ComparisonOperator": "Above"},
            "'comparisonOperator' failed to satisfy constraint: Member must satisfy enum",
        ),
        ({"Threshold": None}, "Exactly one of the parameters Threshold and ThresholdMetricId is required."),
        ({"Statistic": None}, "Exactly one of the parameters Statistic and ExtendedStatistic is required."),
        ({"Statistic": None, "ExtendedStatistic": "p101"}, "The value p101 for parameter ExtendedStatistic is not"),
        ({"MetricName": None}, "The parameter MetricName is required."),
        ({"EvaluationPeriods": None}, "The parameter EvaluationPeriods is required."),
        ({"AlarmActions": ["call me"]}, "Invalid arn syntax: call me"),
        ({"AlarmActions": ["arn:aws:lambda:us-east-1:1:function:f"]}, "AlarmActions is invalid: arn:aws:lambda"),
        ({"OKActions": ["arn:aws:sns:us-west-2:1:t"]}, "Invalid region us-west-2 specified. Only us-east-1 is"),
        ({"WarmUpConfiguration": {"WarmUpPeriodDurationInMinutes": 5}}, "WarmUpConfiguration is not supported"),
        ({"Metrics": MATH["Metrics"]}, "The parameters Metrics and MetricName are mutually exclusive."),
    ],
)
def test_what_is_wrong_with_an_alarm_is_named(cw: Any, refused: Any, change: dict[str, Any], told: str) -> None:
    params = {name: value for name, value in {**HIGH, **change}.items() if value is not None}
    code, message = refused(cw.put_metric_alarm, **params)
    assert code == "ValidationError"
    assert told in message
    assert not cw.describe_alarms()["MetricAlarms"]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (band("ANOMALY_DETECTION_BAND(m2)"), "there is no query with the id 'm2'"),
        (band("m1 +"), "Error in expression 'm1 +' (Metrics.member.2.Expression): a value is expected"),
        (band("m1 * 2"), "ThresholdMetricId is no ANOMALY_DETECTION_BAND"),
        (band(Threshold=1.0), "Exactly one of the parameters Threshold and ThresholdMetricId is required."),
        (band(ThresholdMetricId="other"), "other for parameter ThresholdMetricId is not the Id of any member"),
        ({**MATH, "Metrics": MATH["Metrics"][1:]}, "exactly one member whose ReturnData is true"),
        ({**MATH, "Metrics": [MATH["Metrics"][0]]}, "must have 1 to 10 members with a MetricStat"),
        ({**MATH, "Metrics": [*MATH["Metrics"], MATH["Metrics"][1]]}, "Id in Metrics are not unique: errors"),
    ],
)
def test_what_is_wrong_with_math_is_named(cw: Any, refused: Any, params: dict[str, Any], told: str) -> None:
    code, message = refused(cw.put_metric_alarm, **params)
    assert code == "ValidationError"
    assert told in message


def test_alarms_are_found_by_name_prefix_state_and_type_in_pages(cw: Any) -> None:
    for n in range(5):
        cw.put_metric_alarm(**{**HIGH, "AlarmName": f"a{n}"})
    cw.put_metric_alarm(**{**HIGH, "AlarmName": "b0"}, OKActions=["arn:aws:sns:us-east-1:123456789012:t"])
    cw.put_composite_alarm(AlarmName="both", AlarmRule="ALARM(a0) AND NOT OK(b0)")
    cw.set_alarm_state(AlarmName="a1", StateValue="ALARM", StateReason="a drill")
    assert names(cw.describe_alarms(AlarmNamePrefix="a")) == ["a0", "a1", "a2", "a3", "a4"]
    assert names(cw.describe_alarms(AlarmNames=["b0", "a3", "none"])) == ["a3", "b0"]
    assert names(cw.describe_alarms(StateValue="ALARM")) == ["a1"]
    assert names(cw.describe_alarms(ActionPrefix="arn:aws:sns:")) == ["b0"]
    assert names(cw.describe_alarms(AlarmTypes=["CompositeAlarm"])) == ["both"]
    assert names(cw.describe_alarms(ChildrenOfAlarmName="both")) == ["a0", "b0"]
    assert names(cw.describe_alarms(ParentsOfAlarmName="a0")) == ["both"]
    pages = list(cw.get_paginator("describe_alarms").paginate(PaginationConfig={"PageSize": 2}))
    assert [names(page) for page in pages] == [["a0", "a1"], ["a2", "a3"], ["a4", "b0"]]
    cw.get_waiter("composite_alarm_exists").wait(
        AlarmNames=["both"], AlarmTypes=["CompositeAlarm"], WaiterConfig={"Delay": 1, "MaxAttempts": 1}
    )


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"AlarmRule": "ALARM(none)"}, "as alarms [none] in the alarm rule do not exist"),
        ({"AlarmRule": "ALARM(high) AND"}, "The parameter AlarmRule is invalid: ALARM(…), OK(…)"),
        ({"AlarmRule": "ALARM(all)"}, "the alarm would depend on itself"),
        (
            {"ActionsSuppressor": "high"},
            "ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod are required",
        ),
        ({"ActionsSuppressorWaitPeriod": 3}, "need an ActionsSuppressor"),
        ({"AlarmActions": ["arn:aws:autoscaling:us-east-1:1:x"]}, "composite alarms cannot perform arn:aws:auto"),
    ],
)
def test_what_is_wrong_with_a_composite_is_named(cw: Any, refused: Any, params: dict[str, Any], told: str) -> None:
    cw.put_metric_alarm(**HIGH)
    cw.put_composite_alarm(AlarmName="all", AlarmRule="ALARM(high)")
    code, message = refused(cw.put_composite_alarm, **{"AlarmName": "all", "AlarmRule": "ALARM(high)", **params})
    assert code == "ValidationError"
    assert told in message


def test_a_state_that_is_set_is_told_with_its_history(cw: Any, door: Any) -> None:
    cw.put_metric_alarm(**HIGH)
    door.clock.at_ms += 1_000
    data = json.dumps({"why": "because"})
    cw.set_alarm_state(AlarmName="high", StateValue="ALARM", StateReason="a drill", StateReasonData=data)
    (alarm,) = cw.describe_alarms()["MetricAlarms"]
    assert (alarm["StateValue"], alarm["StateReason"], alarm["StateReasonData"]) == ("ALARM", "a drill", data)
    door.clock.at_ms += 1_000
    cw.disable_alarm_actions(AlarmNames=["high"])
    assert cw.describe_alarms()["MetricAlarms"][0]["ActionsEnabled"] is False
    items = cw.describe_alarm_history(AlarmName="high")["AlarmHistoryItems"]
    assert [(item["HistoryItemType"], item["HistorySummary"]) for item in items] == [
        ("ConfigurationUpdate", 'Alarm "high" actions disabled'),
        ("StateUpdate", "Alarm updated from INSUFFICIENT_DATA to ALARM"),
        ("ConfigurationUpdate", 'Alarm "high" created'),
    ]
    told = json.loads(items[1]["HistoryData"])
    assert told["newState"] == {"stateValue": "ALARM", "stateReason": "a drill", "stateReasonData": {"why": "because"}}
    only = cw.describe_alarm_history(HistoryItemType="StateUpdate", ScanBy="TimestampAscending")
    assert len(only["AlarmHistoryItems"]) == 1


def test_putting_again_keeps_the_state(cw: Any) -> None:
    cw.put_metric_alarm(**HIGH)
    cw.set_alarm_state(AlarmName="high", StateValue="OK", StateReason="fine")
    cw.put_metric_alarm(**{**HIGH, "Threshold": 0.5})
    (alarm,) = cw.describe_alarms()["MetricAlarms"]
    assert (alarm["StateValue"], alarm["Threshold"]) == ("OK", 0.5)


def test_alarms_are_deleted_all_or_none(cw: Any, refused: Any) -> None:
    for name in ("a", "b"):
        cw.put_metric_alarm(**{**HIGH, "AlarmName": name})
    assert refused(cw.delete_alarms, AlarmNames=["a", "none"])[0] == "ResourceNotFound"
    assert names(cw.describe_alarms()) == ["a", "b"]
    cw.delete_alarms(AlarmNames=["a", "b"])
    assert names(cw.describe_alarms()) == []
    assert cw.describe_alarm_history(AlarmName="a")["AlarmHistoryItems"][0]["HistorySummary"] == 'Alarm "a" deleted'


def test_alarms_have_tags(cw: Any, refused: Any) -> None:
    cw.put_metric_alarm(**HIGH, Tags=[{"Key": "team", "Value": "shop"}])
    arn = cw.describe_alarms()["MetricAlarms"][0]["AlarmArn"]
    cw.tag_resource(ResourceARN=arn, Tags=[{"Key": "pager", "Value": "yes"}])
    cw.untag_resource(ResourceARN=arn, TagKeys=["team"])
    assert cw.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "pager", "Value": "yes"}]
    assert refused(cw.list_tags_for_resource, ResourceARN=arn + "x")[0] == "ResourceNotFoundException"


def test_detectors_are_kept_and_forgotten(cw: Any, refused: Any) -> None:
    metric = {"Namespace": "Shop", "MetricName": "Orders", "Stat": "Sum"}
    span = {"StartTime": 1_700_000_000, "EndTime": 1_700_003_600}
    told = {"ExcludedTimeRanges": [span], "MetricTimezone": "Europe/Berlin"}
    cw.put_anomaly_detector(SingleMetricAnomalyDetector=metric, Configuration=told)
    (found,) = cw.describe_anomaly_detectors()["AnomalyDetectors"]
    assert found["SingleMetricAnomalyDetector"]["Stat"] == "Sum"
    assert found["Configuration"]["MetricTimezone"] == "Europe/Berlin"
    assert int(found["Configuration"]["ExcludedTimeRanges"][0]["EndTime"].timestamp()) == span["EndTime"]
    bad = {"ExcludedTimeRanges": [{"StartTime": 2, "EndTime": 1}]}
    assert "StartTime must be before EndTime" in refused(cw.put_anomaly_detector, **metric, Configuration=bad)[1]
    cw.delete_anomaly_detector(**metric)
    assert cw.describe_anomaly_detectors()["AnomalyDetectors"] == []
    assert refused(cw.delete_anomaly_detector, **metric)[0] == "ResourceNotFoundException"


@pytest.mark.parametrize("protocol", ["json", "query", "smithy-rpc-v2-cbor"])
def test_every_protocol_of_cloudwatch_makes_and_describes(door: Any, protocol: str) -> None:
    client = door.client("cloudwatch")
    client.meta.service_model.metadata["protocol"] = protocol
    client.put_metric_alarm(**HIGH)
    (alarm,) = client.describe_alarms(AlarmNames=["high"])["MetricAlarms"]
    assert (alarm["Threshold"], alarm["ActionsEnabled"]) == (0.05, True)
    assert alarm["StateUpdatedTimestamp"].timestamp() == 1_700_000_000
    client.put_composite_alarm(AlarmName="all", AlarmRule='OK("high")')
    assert client.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"][0]["AlarmRule"] == 'OK("high")'
    client.close()


def test_the_story_of_an_alarm_tells_its_reasons(cw: Any, door: Any) -> None:
    cw.put_metric_alarm(**HIGH)
    door.clock.at_ms += 1_000
    cw.set_alarm_state(AlarmName="high", StateValue="ALARM", StateReason="a drill")
    context = SimpleNamespace(store=door.store, scope=Scope("123456789012", "us-east-1"))
    told = story(cast(Context, context), "/eyrie/story/high")["events"]
    assert [(line["what"], line["why"]) for line in told] == [
        ('ConfigurationUpdate: Alarm "high" created', ""),
        ("StateUpdate: Alarm updated from INSUFFICIENT_DATA to ALARM", "a drill"),
    ]


def test_a_band_is_shown_as_alarms_see_it(cw: Any, door: Any) -> None:
    now_ms, half_hour_ms = door.clock.at_ms, 1_800_000
    start_ms = now_ms - now_ms % half_hour_ms

    def value(at_ms: int) -> float:
        return (100.0 if at_ms // 43_200_000 % 2 else 10.0) + at_ms // 300_000 % 3  # a level for each half of a day

    measured = []
    for at_ms in range(start_ms - 5 * 86_400_000, start_ms + half_hour_ms, 300_000):
        summary = Summary()
        summary.add(value(at_ms))
        measured.append(Measured(Metric(Scope("123456789012", "us-east-1"), "Shop", "Wave"), at_ms, summary))
    door.app._with.metrics.record(measured)
    stat = {"Metric": {"Namespace": "Shop", "MetricName": "Wave"}, "Period": 300, "Stat": "Average"}
    found = cw.get_metric_data(
        MetricDataQueries=[
            {"Id": "m1", "MetricStat": stat},
            {"Id": "band", "Expression": "ANOMALY_DETECTION_BAND(m1, 3)"},
        ],
        StartTime=start_ms / 1000,
        EndTime=start_ms / 1000 + 1_800,
    )["MetricDataResults"]
    values, upper, lower = (series["Values"] for series in found)
    assert len(values) == 6
    assert all(low < seen < high < low + 30 for low, seen, high in zip(lower, values, upper, strict=True))
    assert value(start_ms + 43_200_000) > max(upper) or value(start_ms + 43_200_000) < min(lower)
