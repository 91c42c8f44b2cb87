"""SNS, as much of it as brings a message to an http(s) address or to a queue: topics, subscriptions, Publish.

A subscriber is confirmed when it answers the confirmation request with 2xx, or by ConfirmSubscription with its token; a
queue of the same account is confirmed at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from eyrie.control import deliveries
from eyrie.control.api_alarm_lists import page_of
from eyrie.control.context import Context, Operation, Params
from eyrie.control.records import Tag, kept_tags, new_tags, tag_operations, tags_document
from eyrie.control.topics import (
    SUBSCRIPTION,
    TOPIC,
    TopicMissing,
    confirmation,
    find_topic,
    publications,
    subscription_document,
    subscription_of,
    subscriptions,
    topic_of,
    topic_scope,
    uuid,
)
from eyrie.decide.event_patterns import PatternError, parse_pattern
from eyrie.domain.events import Subscription, Topic
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, throttled

TOPICS_MAX = 1_000
SUBSCRIPTIONS_MAX = 100  # of one topic
MESSAGE_BYTES_MAX = 262_144
BATCH_MAX = 10
PAGE = 100
ARN_TYPE = "topic"
PENDING = "PendingConfirmation"
PROTOCOLS = ("http", "https", "sqs")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_KEPT = {"DisplayName", "Policy", "DeliveryPolicy", "TracingConfig", "KmsMasterKeyId", "SignatureVersion"}


def operations() -> Mapping[str, Operation]:
    """The operations on topics."""
    return {
        "CreateTopic": create_topic,
        "DeleteTopic": delete_topic,
        "ListTopics": list_topics,
        "GetTopicAttributes": get_topic_attributes,
        "SetTopicAttributes": set_topic_attributes,
        "Subscribe": subscribe,
        "ConfirmSubscription": confirm_subscription,
        "Unsubscribe": unsubscribe,
        "ListSubscriptions": list_subscriptions,
        "ListSubscriptionsByTopic": list_subscriptions_by_topic,
        "GetSubscriptionAttributes": get_subscription_attributes,
        "SetSubscriptionAttributes": set_subscription_attributes,
        "Publish": publish,
        "PublishBatch": publish_batch,
        **tag_operations(_tagged),
    }


def invalid(message: str) -> ApiError:
    """InvalidParameter."""
    return ApiError("InvalidParameter", f"Invalid parameter: {message}")


# --- topics ---------------------------------------------------------------------------------------------------------


def create_topic(context: Context, params: Params) -> dict[str, Any]:
    """Make a topic; one of that name is given back."""
    name, attributes = params["Name"], dict(params.get("Attributes", {}))
    if not _NAME.fullmatch(name):
        raise invalid("Topic Name")
    for attribute in attributes:
        _check_attribute(attribute)
    topic = Topic(context.scope, name, attributes.get("DisplayName", ""), attributes)
    if context.get(TOPIC, name) is not None:
        return {"TopicArn": topic.arn}
    if len(context.store.scan(TOPIC, context.scope)) >= TOPICS_MAX:
        raise ApiError("TopicLimitExceeded", f"There are {TOPICS_MAX} topics already.", 403)
    puts = [context.new(TOPIC, name, msgspec.to_builtins(topic))]
    if params.get("Tags"):
        puts += new_tags(context, ARN_TYPE, name, params)
    context.store.commit(Commit(puts=puts))
    return {"TopicArn": topic.arn}


def _check_attribute(name: str) -> None:
    if name not in _KEPT:
        raise invalid(f"AttributeName Reason: {name} is not supported by this Eyrie")


def _topic(context: Context, arn: str) -> tuple[Document, Topic]:
    try:
        document = find_topic(context.store, context.scope, arn)
    except TopicMissing:
        raise ApiError("NotFound", "Topic does not exist", 404) from None
    return document, topic_of(document)


def delete_topic(context: Context, params: Params) -> dict[str, Any]:
    """Forget a topic with its subscriptions; one that is not there is no error."""
    try:
        document = find_topic(context.store, context.scope, params["TopicArn"])
    except TopicMissing:
        return {}
    of_it = [d for d in context.store.scan(SUBSCRIPTION, context.scope) if subscription_of(d).topic == document.name]
    tags = tags_document(context, ARN_TYPE, document.name)
    context.store.commit(Commit(deletes=[document, *of_it, *([tags] if tags else [])]))
    return {}


def list_topics(context: Context, params: Params) -> dict[str, Any]:
    """The topics, in pages."""
    found = [{"TopicArn": topic_of(d).arn} for d in context.store.scan(TOPIC, context.scope)]
    return _paged("Topics", found, params)


def _paged(member: str, found: list[Any], params: Params) -> dict[str, Any]:
    page, token = page_of(found, params, PAGE)
    return {member: page, **({"NextToken": token} if token else {})}


def get_topic_attributes(context: Context, params: Params) -> dict[str, Any]:
    """What is known of a topic."""
    _, topic = _topic(context, params["TopicArn"])
    known = subscriptions(context.store, context.scope, topic.name)
    confirmed = sum(one.confirmed for one in known)
    return {
        "Attributes": {
            **topic.attributes,
            "TopicArn": topic.arn,
            "Owner": context.scope.account,
            "DisplayName": topic.display_name,
            "SubscriptionsConfirmed": str(confirmed),
            "SubscriptionsPending": str(len(known) - confirmed),
            "SubscriptionsDeleted": "0",
        }
    }


def set_topic_attributes(context: Context, params: Params) -> dict[str, Any]:
    """Change one of a topic's attributes."""
    document, topic = _topic(context, params["TopicArn"])
    name, value = params["AttributeName"], params.get("AttributeValue", "")
    _check_attribute(name)
    display = value if name == "DisplayName" else topic.display_name
    changed = replace(topic, display_name=display, attributes={**topic.attributes, name: value})
    context.store.commit(Commit(puts=[replace(document, body=msgspec.to_builtins(changed))]))
    return {}


# --- subscriptions --------------------------------------------------------------------------------------------------


def subscribe(context: Context, params: Params) -> dict[str, Any]:
    """Subscribe an address: it is asked to confirm."""
    _, topic = _topic(context, params["TopicArn"])
    protocol, url = params["Protocol"], params.get("Endpoint", "")
    if protocol not in PROTOCOLS:
        raise invalid(f"Protocol Reason: {protocol} is not supported by this Eyrie; it does http, https and sqs")
    _check_address(context, protocol, url)
    known = subscriptions(context.store, context.scope, topic.name)
    same = next((one for one in known if (one.protocol, one.url) == (protocol, url)), None)
    if same is None and len(known) >= SUBSCRIPTIONS_MAX:
        raise ApiError("SubscriptionLimitExceeded", f"There are {SUBSCRIPTIONS_MAX} subscriptions already.", 403)
    token = context.identity.token
    one = same or Subscription(
        *(context.scope, topic.name, uuid(token), protocol, url, token(64)), confirmed=protocol == "sqs"
    )
    for name, value in params.get("Attributes", {}).items():
        one = _with_attribute(one, name, value)
    puts = [subscription_document(context.store, one, context.now_ms)]
    if not one.confirmed:
        puts.append(confirmation(topic, one, context.now_ms, token))
    context.store.commit(Commit(puts=puts))
    context.wake_events()
    shown = one.confirmed or params.get("ReturnSubscriptionArn")
    return {"SubscriptionArn": one.arn if shown else "pending confirmation"}


def _check_address(context: Context, protocol: str, url: str) -> None:
    if protocol == "sqs":
        prefix = f"arn:aws:sqs:{context.scope.region}:{context.scope.account}:"
        if not url.startswith(prefix) or not _NAME.fullmatch(url.removeprefix(prefix)):
            raise invalid(f"SQS endpoint ARN Reason: {url!r} is not the ARN of a queue of this account and region")
    elif not url.startswith(f"{protocol}://"):
        raise invalid(f"Endpoint Reason: {url!r} must begin with {protocol}://")


def _with_attribute(one: Subscription, name: str, value: str) -> Subscription:
    if name == "RawMessageDelivery":
        if value.lower() not in ("true", "false"):
            raise invalid(f"Attributes Reason: RawMessageDelivery: {value!r} is neither true nor false")
        return replace(one, raw=value.lower() == "true")
    if name == "FilterPolicyScope":
        if value not in ("MessageAttributes", "MessageBody"):
            raise invalid(f"Attributes Reason: FilterPolicyScope: Invalid value [{value}]")
        return replace(one, filter_scope=value)
    if name != "FilterPolicy":
        raise invalid(f"AttributeName Reason: {name} is not supported by this Eyrie")
    if value and json_object(value) != {}:
        try:
            parse_pattern(value)
        except PatternError as error:
            raise invalid(f"Attributes Reason: FilterPolicy: {error}") from None
        return replace(one, filter_policy=value)
    return replace(one, filter_policy="")


def json_object(text: str) -> Any:
    """What a JSON text holds; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _subscription(context: Context, arn: str) -> tuple[Document, Subscription]:
    try:
        scope, name = topic_scope(arn)
    except TopicMissing:
        raise invalid("SubscriptionArn") from None
    document = context.get(SUBSCRIPTION, name) if scope == context.scope else None
    if document is None:
        raise ApiError("NotFound", "Subscription does not exist", 404)
    return document, subscription_of(document)


def confirm_subscription(context: Context, params: Params) -> dict[str, Any]:
    """Confirm a subscription by its token."""
    _, topic = _topic(context, params["TopicArn"])
    for one in subscriptions(context.store, context.scope, topic.name):
        if one.token == params["Token"]:
            confirmed = replace(one, confirmed=True)
            context.store.commit(Commit(puts=[subscription_document(context.store, confirmed, context.now_ms)]))
            return {"SubscriptionArn": one.arn}
    raise invalid("Token")


def unsubscribe(context: Context, params: Params) -> dict[str, Any]:
    """Forget a subscription; one that is not there is no error."""
    try:
        document, _ = _subscription(context, params["SubscriptionArn"])
    except ApiError as error:
        if error.code == "NotFound":
            return {}
        raise
    context.store.commit(Commit(deletes=[document]))
    return {}


def list_subscriptions(context: Context, params: Params) -> dict[str, Any]:
    """All subscriptions, in pages."""
    found = [_listed(context, one) for one in subscriptions(context.store, context.scope)]
    return _paged("Subscriptions", found, params)


def list_subscriptions_by_topic(context: Context, params: Params) -> dict[str, Any]:
    """A topic's subscriptions, in pages."""
    _, topic = _topic(context, params["TopicArn"])
    found = [_listed(context, one) for one in subscriptions(context.store, context.scope, topic.name)]
    return _paged("Subscriptions", found, params)


def _listed(context: Context, one: Subscription) -> dict[str, Any]:
    return {
        "SubscriptionArn": one.arn if one.confirmed else PENDING,
        "Owner": context.scope.account,
        "Protocol": one.protocol,
        "Endpoint": one.url,
        "TopicArn": Topic(one.scope, one.topic).arn,
    }


def get_subscription_attributes(context: Context, params: Params) -> dict[str, Any]:
    """What is known of a subscription."""
    _, one = _subscription(context, params["SubscriptionArn"])
    found = {
        **_listed(context, one),
        "SubscriptionArn": one.arn,
        "PendingConfirmation": str(not one.confirmed).lower(),
        "ConfirmationWasAuthenticated": "false",
        "RawMessageDelivery": str(one.raw).lower(),
    }
    if one.filter_policy:
        found |= {"FilterPolicy": one.filter_policy, "FilterPolicyScope": one.filter_scope}
    return {"Attributes": found}


def set_subscription_attributes(context: Context, params: Params) -> dict[str, Any]:
    """Change one of a subscription's attributes."""
    _, one = _subscription(context, params["SubscriptionArn"])
    changed = _with_attribute(one, params["AttributeName"], params.get("AttributeValue", ""))
    context.store.commit(Commit(puts=[subscription_document(context.store, changed, context.now_ms)]))
    return {}


# --- publishing -----------------------------------------------------------------------------------------------------


def publish(context: Context, params: Params) -> dict[str, Any]:
    """Send a message to every confirmed subscriber of a topic that wants it."""
    if "PhoneNumber" in params:
        raise invalid("PhoneNumber Reason: it is not supported by this Eyrie")
    arn = params.get("TopicArn") or params.get("TargetArn")
    if not arn:
        raise invalid("TopicArn or TargetArn Reason: no value for required parameter")
    _topic(context, arn)
    message_id = uuid(context.identity.token)
    owed = _owed(context, arn, params, message_id)
    _refuse_beyond_bound(context, len(owed))
    context.store.commit(Commit(puts=owed))
    context.wake_events()
    return {"MessageId": message_id}


def publish_batch(context: Context, params: Params) -> dict[str, Any]:
    """Send up to ten messages."""
    entries, arn = params["PublishBatchRequestEntries"], params["TopicArn"]
    _topic(context, arn)
    if not entries:
        raise ApiError("EmptyBatchRequest", "The batch request doesn't contain any entries.")
    if len(entries) > BATCH_MAX:
        raise ApiError("TooManyEntriesInBatchRequest", f"The batch request contains more than {BATCH_MAX} entries.")
    if len({entry["Id"] for entry in entries}) < len(entries):
        raise ApiError("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.")
    done, failed, owed = [], [], []
    for entry in entries:
        message_id = uuid(context.identity.token)
        try:
            owed += _owed(context, arn, entry, message_id)
            done.append({"Id": entry["Id"], "MessageId": message_id})
        except ApiError as error:
            told = {"Id": entry["Id"], "Code": error.code, "Message": error.message, "SenderFault": True}
            failed.append(told)
    _refuse_beyond_bound(context, len(owed))
    context.store.commit(Commit(puts=owed))
    context.wake_events()
    return {"Successful": done, "Failed": failed}


def _owed(context: Context, arn: str, params: Params, message_id: str) -> list[Document]:
    message = params["Message"]
    if not message:
        raise invalid("Empty message")
    if len(message.encode()) > MESSAGE_BYTES_MAX:
        raise invalid("Message too long")
    if params.get("MessageStructure") == "json":
        told = json_object(message)
        if not isinstance(told, dict) or not isinstance(told.get("default"), str):
            raise invalid("Message Structure - No default entry in JSON message body")
        message = told.get("http", told["default"])
    subject = params.get("Subject", "")
    if len(subject) > 100 or "\n" in subject:
        raise invalid("Subject")
    attributes = params.get("MessageAttributes", {})
    for name, value in attributes.items():
        if "BinaryValue" in value or not value.get("DataType"):
            raise invalid(f"MessageAttributes Reason: {name} must have a DataType and a StringValue")
    token = context.identity.token
    return publications(
        *(context.store, context.scope, arn, message, context.now_ms, token),
        subject=subject,
        attributes=attributes,
        message_id=message_id,
    )


def _refuse_beyond_bound(context: Context, count: int) -> None:
    if count and len(context.store.scan(deliveries.KIND)) + count > deliveries.WAITING_MAX:
        raise throttled(f"{deliveries.WAITING_MAX} deliveries wait already.")


# --- tags -----------------------------------------------------------------------------------------------------------


def _tagged(context: Context, params: Params) -> tuple[list[Tag], Document]:
    _, topic = _topic(context, params["ResourceArn"])
    return kept_tags(context, ARN_TYPE, topic.name)
