"""Topics and their subscriptions in the store, and what publishing to one owes to whom.

`publications` gives the documents of a commit, so that whoever publishes does so in the very commit that says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from eyrie.adapters.described import described
from eyrie.control.deliveries import delivery_document
from eyrie.decide.event_patterns import PatternError, parse_pattern
from eyrie.decide.moments import zulu
from eyrie.domain.events import Delivery, Subscription, Topic
from eyrie.domain.names import Scope
from eyrie.ports import Document, Store

described(Topic, Subscription, Delivery)  # it is read into in several threads

TOPIC = "Topic"
SUBSCRIPTION = "Subscription"
Token = Callable[[int], str]
Attributes = Mapping[str, Mapping[str, Any]]  # of a message: name -> DataType and StringValue


class TopicMissing(LookupError):
    """There is no such topic; the message is its ARN."""


def topic_scope(arn: str) -> tuple[Scope, str]:
    """Account and region, and the rest of the ARN of a topic or a subscription. Raises TopicMissing."""
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[2] != "sns" or not all(parts[3:]):
        raise TopicMissing(arn)
    return Scope(parts[4], parts[3]), parts[5]


def topic_of(document: Document) -> Topic:
    """The topic of a document."""
    return msgspec.convert(document.body, Topic)


def subscription_of(document: Document) -> Subscription:
    """The subscription of a document."""
    return msgspec.convert(document.body, Subscription)


def find_topic(store: Store, scope: Scope, arn: str) -> Document:
    """The document of a topic in this account and region. Raises TopicMissing."""
    own, name = topic_scope(arn)
    document = store.get(TOPIC, scope, name) if own == scope else None
    if document is None:
        raise TopicMissing(arn)
    return document


def subscriptions(store: Store, scope: Scope, topic: str | None = None) -> list[Subscription]:
    """Every subscription of a topic, or of all topics, in the order of their making."""
    documents = sorted(store.scan(SUBSCRIPTION, scope), key=lambda d: (d.created_ms, d.name))
    found = [subscription_of(document) for document in documents]
    return [one for one in found if topic in (None, one.topic)]


def subscription_document(store: Store, subscription: Subscription, now_ms: int) -> Document:
    """The document to put for a new subscription or a changed one."""
    name = f"{subscription.topic}:{subscription.subscription_id}"
    found = store.get(SUBSCRIPTION, subscription.scope, name)
    version, created_ms = (found.version, found.created_ms) if found else (0, now_ms)
    body = msgspec.to_builtins(subscription)
    return Document(SUBSCRIPTION, subscription.scope, name, version, created_ms, now_ms, body)


def publications(
    store: Store,
    scope: Scope,
    arn: str,
    message: str,
    now_ms: int,
    token: Token,
    *,
    subject: str = "",
    attributes: Attributes | None = None,
    message_id: str = "",
) -> list[Document]:
    """What a message to a topic owes: a delivery to each confirmed subscriber that wants it. Raises TopicMissing."""
    topic = topic_of(find_topic(store, scope, arn))
    envelope: dict[str, Any] = {
        "Type": "Notification",
        "MessageId": message_id or uuid(token),
        "TopicArn": topic.arn,
        **({"Subject": subject} if subject else {}),
        "Message": message,
        "Timestamp": zulu(now_ms, fraction=True),
    }
    if attributes:
        told = {name: {"Type": a["DataType"], "Value": a.get("StringValue", "")} for name, a in attributes.items()}
        envelope["MessageAttributes"] = told
    owed = [s for s in subscriptions(store, scope, topic.name) if s.confirmed and wants(s, message, attributes or {})]
    return [_notification(topic, one, envelope, message, now_ms, token) for one in owed]


def _notification(
    topic: Topic, one: Subscription, envelope: Mapping[str, Any], message: str, now_ms: int, token: Token
) -> Document:
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": str(envelope["MessageId"]),
        "x-amz-sns-topic-arn": topic.arn,
        "x-amz-sns-subscription-arn": one.arn,
    }
    if one.raw:
        headers["x-amz-sns-rawdelivery"] = "true"
    body = message if one.raw else json.dumps({**envelope, "UnsubscribeURL": ""}, indent=2)
    what = str(envelope.get("Subject") or f"message {envelope['MessageId']}")
    return delivery_document(
        Delivery(topic.scope, token(32), TOPIC, topic.name, what, one.url, body, headers, now_ms, now_ms)
    )


def confirmation(topic: Topic, one: Subscription, now_ms: int, token: Token) -> Document:
    """The request by which a subscriber is asked whether it is one: a 2xx answer confirms it, and so does its token."""
    message_id = uuid(token)
    body = {
        "Type": "SubscriptionConfirmation",
        "MessageId": message_id,
        "Token": one.token,
        "TopicArn": topic.arn,
        "Message": f"You have chosen to subscribe to the topic {topic.arn}. Answer this request with 200 to confirm, "
        "or call ConfirmSubscription with its token.",
        "Timestamp": zulu(now_ms, fraction=True),
    }
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": "SubscriptionConfirmation",
        "x-amz-sns-message-id": message_id,
        "x-amz-sns-topic-arn": topic.arn,
    }
    what = f"confirmation of {one.url}"
    made = Delivery(
        *(topic.scope, token(32), TOPIC, topic.name, what, one.url, json.dumps(body, indent=2), headers),
        created_ms=now_ms,
        next_ms=now_ms,
        confirms=f"{one.topic}:{one.subscription_id}",
    )
    return delivery_document(made)


def wants(one: Subscription, message: str, attributes: Attributes) -> bool:
    """Whether a subscriber's filter policy lets a message through."""
    if not one.filter_policy:
        return True
    try:
        pattern = parse_pattern(one.filter_policy)
        if one.filter_scope == "MessageBody":
            return pattern.matches(json.loads(message))
        return pattern.matches({name: _attribute(value) for name, value in attributes.items()})
    except (PatternError, ValueError):
        return False


def _attribute(value: Mapping[str, Any]) -> Any:
    kind, text = str(value["DataType"]), str(value.get("StringValue", ""))
    if kind.startswith("Number") or kind == "String.Array":
        return json.loads(text)
    return text


def uuid(token: Token) -> str:
    """An id in the form of a UUID."""
    digits = token(32)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
