"""EventBridge and SNS through boto3: rules, targets, destinations, topics, subscriptions; what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from eyrie.control import announcements, deliveries
from eyrie.domain.names import Scope

HOOK = {"Id": "hook", "Arn": "https://example.test/hook"}
PATTERN = json.dumps({"source": ["shop"]})
EVENT = {
    "id": "1",
    "account": "123456789012",
    "source": "shop",
    "time": "2026-11-21T15:00:00Z",
    "region": "us-east-1",
    "resources": [],
    "detail-type": "Order",
    "detail": {"total": 5},
}


@pytest.fixture
def events(door: Any) -> Iterator[Any]:
    client = door.client("events")
    yield client
    client.close()


@pytest.fixture
def sns(door: Any) -> Iterator[Any]:
    client = door.client("sns")
    yield client
    client.close()


def test_a_rule_lives(events: Any) -> None:
    arn = events.put_rule(Name="orders", EventPattern=PATTERN, Description="ours")["RuleArn"]
    events.put_targets(Rule="orders", Targets=[HOOK, {**HOOK, "Id": "two", "RetryPolicy": {"MaximumRetryAttempts": 3}}])
    found = events.describe_rule(Name="orders")
    assert (found["Arn"], found["State"], found["EventPattern"]) == (arn, "ENABLED", PATTERN)
    events.put_rule(Name="orders", EventPattern=PATTERN, State="DISABLED")  # its targets stay
    assert [target["Id"] for target in events.list_targets_by_rule(Rule="orders")["Targets"]] == ["hook", "two"]
    assert events.describe_rule(Name="orders")["State"] == "DISABLED"
    events.enable_rule(Name="orders")
    assert events.list_rule_names_by_target(TargetArn=HOOK["Arn"])["RuleNames"] == ["orders"]
    gone = events.remove_targets(Rule="orders", Ids=["hook", "two", "none"])
    assert [entry["TargetId"] for entry in gone["FailedEntries"]] == ["none"]
    events.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": "b"}])
    assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    events.delete_rule(Name="orders")
    assert events.list_rules()["Rules"] == []
    events.delete_rule(Name="orders")


def test_rules_come_in_pages(events: Any) -> None:
    for n in range(5):
        events.put_rule(Name=f"r{n}", ScheduleExpression="rate(5 minutes)")
    first = events.list_rules(NamePrefix="r", Limit=3)
    rest = events.list_rules(NamePrefix="r", NextToken=first["NextToken"])
    assert [rule["Name"] for rule in [*first["Rules"], *rest["Rules"]]] == ["r0", "r1", "r2", "r3", "r4"]


@pytest.mark.parametrize(
    ("params", "code", "told"),
    [
        ({}, "ValidationException", "EventPattern or ScheduleExpression must be specified"),
        ({"EventPattern": "{"}, "InvalidEventPatternException", "not valid JSON"),
        ({"EventPattern": '{"source": "x"}'}, "InvalidEventPatternException", "source must be an object or an array"),
        ({"ScheduleExpression": "sometimes"}, "ValidationException", "Parameter ScheduleExpression is not valid"),
        ({"ScheduleExpression": "cron(0 25 * * ? *)"}, "ValidationException", "ScheduleExpression is not valid: cron"),
        ({"ScheduleExpression": "rate(1 minutes)"}, "ValidationException", "ScheduleExpression is not valid: rate"),
        ({"ScheduleExpression": "at(2030-01-01T00:00:00)"}, "ValidationException", "neither rate(value unit) nor cron"),
        ({"EventPattern": PATTERN, "EventBusName": "mine"}, "ResourceNotFoundException", "Event bus mine does not"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(
    events: Any, refused: Any, params: dict[str, Any], code: str, told: str
) -> None:
    found, message = refused(events.put_rule, Name="r", **params)
    assert found == code
    assert told in message


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"Arn": "arn:aws:lambda:us-east-1:123456789012:function:f"}, "Arn of target t is not valid: arn:aws:lambda"),
        ({"Arn": "arn:aws:sns:us-east-1:210987654321:t"}, "the topic is of another account"),
        ({"Arn": "arn:aws:events:us-east-1:123456789012:api-destination/x/1"}, "API destination x does not exist"),
        ({"Arn": HOOK["Arn"], "Input": "{"}, "Input for target t is not valid JSON"),
        ({"Arn": HOOK["Arn"], "InputPath": "detail"}, "Invalid InputPath for target t"),
        ({"Arn": HOOK["Arn"], "Input": "{}", "InputPath": "$"}, "Only one of Input, InputPath, or InputTransformer"),
        ({"Arn": HOOK["Arn"], "SqsParameters": {"MessageGroupId": "g"}}, "Parameter SqsParameters of target t is not"),
    ],
)
def test_what_is_wrong_with_a_target_is_named(events: Any, refused: Any, target: dict[str, Any], told: str) -> None:
    events.put_rule(Name="r", EventPattern=PATTERN)
    code, message = refused(events.put_targets, Rule="r", Targets=[{"Id": "t", **target}])
    assert code == "ValidationException"
    assert told in message
    assert refused(events.put_targets, Rule="none", Targets=[HOOK])[0] == "ResourceNotFoundException"


def test_events_are_announced_or_told_as_failed(events: Any, door: Any) -> None:
    good = {"Source": "shop", "DetailType": "Order", "Detail": '{"total": 5}', "Resources": ["r1"]}
    entries = [good, {**good, "Detail": "5"}, {**good, "Source": "aws.ec2"}, {"Source": "shop", "DetailType": "x"}]
    reply = events.put_events(Entries=entries)
    assert reply["FailedEntryCount"] == 3
    assert [entry.get("ErrorCode") for entry in reply["Entries"]] == [
        None,
        "MalformedDetail",
        "InvalidArgument",
        "InvalidArgument",
    ]
    (document,) = door.store.scan(announcements.KIND)
    made = document.body["event"]
    assert (made["id"], made["detail"], made["resources"]) == (reply["Entries"][0]["EventId"], {"total": 5}, ["r1"])


def test_patterns_are_tried_out(events: Any, refused: Any) -> None:
    for pattern, picked in (({"source": ["shop"]}, True), ({"detail": {"total": [{"numeric": [">", 5]}]}}, False)):
        found = events.test_event_pattern(EventPattern=json.dumps(pattern), Event=json.dumps(EVENT))
        assert found["Result"] is picked
    short = json.dumps({"source": "shop"})
    assert "it has no id" in refused(events.test_event_pattern, EventPattern=PATTERN, Event=short)[1]


def test_destinations_and_connections_live_and_keep_their_secrets(events: Any, refused: Any) -> None:
    key = {"ApiKeyAuthParameters": {"ApiKeyName": "X-Key", "ApiKeyValue": "s3cret"}}
    connection = events.create_connection(Name="pager", AuthorizationType="API_KEY", AuthParameters=key)
    told = events.describe_connection(Name="pager")
    assert told["AuthParameters"] == {"ApiKeyAuthParameters": {"ApiKeyName": "X-Key"}}
    assert "s3cret" not in json.dumps(told, default=str)
    where = {"InvocationEndpoint": "https://pager.test/*", "HttpMethod": "POST"}
    made = events.create_api_destination(Name="call", ConnectionArn=connection["ConnectionArn"], **where)
    assert refused(events.create_api_destination, Name="call", ConnectionArn=connection["ConnectionArn"], **where)[
        0
    ] == ("ResourceAlreadyExistsException")
    assert events.describe_api_destination(Name="call")["InvocationEndpoint"] == "https://pager.test/*"
    events.put_rule(Name="r", EventPattern=PATTERN)
    target = {"Id": "t", "Arn": made["ApiDestinationArn"], "HttpParameters": {"PathParameterValues": ["me"]}}
    events.put_targets(Rule="r", Targets=[target])
    (shown,) = events.list_targets_by_rule(Rule="r")["Targets"]
    assert shown["HttpParameters"] == {"PathParameterValues": ["me"]}
    events.update_api_destination(Name="call", HttpMethod="PUT")
    assert [one["HttpMethod"] for one in events.list_api_destinations()["ApiDestinations"]] == ["PUT"]
    events.delete_api_destination(Name="call")
    events.delete_connection(Name="pager")
    assert events.list_connections()["Connections"] == []
    wrong = refused(
        events.create_connection,
        Name="x",
        AuthorizationType="BASIC",
        AuthParameters={"ApiKeyAuthParameters": key["ApiKeyAuthParameters"]},
    )
    assert "must have BasicAuthParameters" in wrong[1]


def test_a_topic_lives(sns: Any, refused: Any) -> None:
    arn = sns.create_topic(Name="people", Tags=[{"Key": "a", "Value": "b"}])["TopicArn"]
    assert arn == "arn:aws:sns:us-east-1:123456789012:people"
    assert sns.create_topic(Name="people")["TopicArn"] == arn
    sns.set_topic_attributes(TopicArn=arn, AttributeName="DisplayName", AttributeValue="People")
    assert sns.get_topic_attributes(TopicArn=arn)["Attributes"]["DisplayName"] == "People"
    assert sns.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    assert [one["TopicArn"] for one in sns.list_topics()["Topics"]] == [arn]
    sns.delete_topic(TopicArn=arn)
    sns.delete_topic(TopicArn=arn)
    assert refused(sns.get_topic_attributes, TopicArn=arn) == ("NotFound", "Topic does not exist")
    assert refused(sns.create_topic, Name="a b")[1] == "Invalid parameter: Topic Name"


def owed(door: Any) -> list[dict[str, Any]]:
    documents = sorted(door.store.scan(deliveries.KIND, Scope("123456789012", "us-east-1")), key=lambda d: d.name)
    return [document.body for document in documents]


def test_only_confirmed_subscribers_get_what_they_want(sns: Any, door: Any) -> None:
    arn = sns.create_topic(Name="people")["TopicArn"]
    told = sns.subscribe(TopicArn=arn, Protocol="https", Endpoint="https://a.test/x")
    assert told["SubscriptionArn"] == "pending confirmation"
    assert sns.list_subscriptions()["Subscriptions"][0]["SubscriptionArn"] == "PendingConfirmation"
    (asked,) = owed(door)
    body = json.loads(asked["body"])
    assert (body["Type"], asked["to"]) == ("SubscriptionConfirmation", "https://a.test/x")
    sns.publish(TopicArn=arn, Message="too early")
    assert len(owed(door)) == 1
    one = sns.confirm_subscription(TopicArn=arn, Token=body["Token"])["SubscriptionArn"]
    attributes = {"kind": {"DataType": "String", "StringValue": "alarm"}}
    message_id = sns.publish(TopicArn=arn, Message="hello", Subject="hi", MessageAttributes=attributes)["MessageId"]
    (sent,) = [body for body in owed(door) if not body["confirms"]]
    assert json.loads(sent["body"])["MessageAttributes"] == {"kind": {"Type": "String", "Value": "alarm"}}
    assert sent["headers"]["x-amz-sns-message-id"] == message_id
    for name, value in (("RawMessageDelivery", "true"), ("FilterPolicy", '{"kind": ["deploy"]}')):
        sns.set_subscription_attributes(SubscriptionArn=one, AttributeName=name, AttributeValue=value)
    sns.publish(TopicArn=arn, Message="again", MessageAttributes=attributes)
    assert len(owed(door)) == 2
    attributes["kind"]["StringValue"] = "deploy"
    sns.publish_batch(
        TopicArn=arn,
        PublishBatchRequestEntries=[
            {"Id": "1", "Message": "raw", "MessageAttributes": attributes},
            {"Id": "2", "Message": ""},
        ],
    )
    assert [body["body"] for body in owed(door)].count("raw") == 1
    sns.unsubscribe(SubscriptionArn=one)
    assert sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"] == []


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"Protocol": "email", "Endpoint": "a@b.test"}, "Protocol Reason: email is not supported"),
        ({"Protocol": "https", "Endpoint": "http://a.test"}, "Endpoint Reason: 'http://a.test' must begin with https"),
        ({"Attributes": {"FilterPolicy": "{"}}, "FilterPolicy: it is not valid JSON"),
        ({"Attributes": {"RedrivePolicy": "{}"}}, "AttributeName Reason: RedrivePolicy is not supported"),
    ],
)
def test_what_is_wrong_with_a_subscription_is_named(sns: Any, refused: Any, params: dict[str, Any], told: str) -> None:
    arn = sns.create_topic(Name="people")["TopicArn"]
    given = {"TopicArn": arn, "Protocol": "https", "Endpoint": "https://a.test", **params}
    code, message = refused(sns.subscribe, **given)
    assert code == "InvalidParameter"
    assert told in message
    assert refused(sns.publish, TopicArn=arn + "x", Message="m")[0] == "NotFound"
    assert refused(sns.publish, TopicArn=arn, Message="m", Subject="x" * 101)[1] == "Invalid parameter: Subject"
