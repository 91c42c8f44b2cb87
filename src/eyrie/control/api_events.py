"""EventBridge: rules on the default bus and their targets, PutEvents, TestEventPattern. `api_destinations.py` has
connections and API destinations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.adapters.schedules import BadSchedule
from eyrie.control import announcements, event_table
from eyrie.control.announcements import announced
from eyrie.control.context import Context, Operation, Params
from eyrie.control.events import next_fire_ms
from eyrie.control.listing import milliseconds
from eyrie.control.records import Tag, kept_tags, new_tags, tag_operations, tags_document
from eyrie.control.topics import TopicMissing, topic_scope, uuid
from eyrie.decide.event_patterns import PatternError, parse_pattern
from eyrie.decide.events import PathError, event, steps_of
from eyrie.domain.events import DEFAULT_BUS, ApiDestination, EventRule, Target, Transformer
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, validation

RULES_MAX = 300
TARGETS_MAX = 5
PAGE = 100
DETAIL_BYTES_MAX = 262_144
WAITING_MAX = 10_000  # announcements; beyond it PutEvents takes no more
ARN_TYPE = "rule"
_TARGETS_NOT_BUILT = (
    *("KinesisParameters", "RunCommandParameters", "EcsParameters", "BatchParameters", "SqsParameters"),
    *("RedshiftDataParameters", "SageMakerPipelineParameters", "DeadLetterConfig", "AppSyncParameters"),
)


def operations() -> Mapping[str, Operation]:
    """The operations on rules, targets and events."""
    return {
        "PutRule": put_rule,
        "DescribeRule": describe_rule,
        "DeleteRule": delete_rule,
        "EnableRule": lambda context, params: _enable(context, params, True),
        "DisableRule": lambda context, params: _enable(context, params, False),
        "ListRules": list_rules,
        "ListRuleNamesByTarget": list_rule_names_by_target,
        "PutTargets": put_targets,
        "RemoveTargets": remove_targets,
        "ListTargetsByRule": list_targets_by_rule,
        "PutEvents": put_events,
        "TestEventPattern": test_event_pattern,
        "ListEventBuses": lambda context, params: {"EventBuses": [_bus(context)]},
        "DescribeEventBus": describe_event_bus,
        **tag_operations(_tagged),
    }


def missing(message: str) -> ApiError:
    """ResourceNotFoundException."""
    return ApiError("ResourceNotFoundException", message)


# --- rules ----------------------------------------------------------------------------------------------------------


def put_rule(context: Context, params: Params) -> dict[str, Any]:
    """Make a rule, or change one: its targets stay."""
    _check_bus(context, params)
    name = params["Name"]
    pattern, schedule = params.get("EventPattern", ""), params.get("ScheduleExpression", "")
    if not pattern and not schedule:
        raise validation("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    if pattern:
        _parse(pattern)
    before = event_table.find(context.store, EventRule, context.scope, name)
    if before is None and len(context.store.scan(event_table.RULE, context.scope)) >= RULES_MAX:
        raise ApiError("LimitExceededException", f"The requested resource exceeds the limit of {RULES_MAX} rules.")
    rule = EventRule(
        scope=context.scope,
        name=name,
        pattern=pattern,
        schedule=schedule,
        enabled=params.get("State", "ENABLED") != "DISABLED",
        description=params.get("Description"),
        role=params.get("RoleArn"),
        targets=before.targets if before is not None else (),
        next_ms=_first_fire(schedule, context.now_ms) if schedule else 0,
    )
    document = event_table.document_of(context.store, rule, context.now_ms)
    context.store.commit(Commit(puts=[document, *_new_tags(context, name, params, before is None)]))
    context.wake_events()
    return {"RuleArn": rule.arn}


def _parse(pattern: str) -> Any:
    try:
        return parse_pattern(pattern)
    except PatternError as error:
        raise ApiError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {error}") from None


def _first_fire(schedule: str, now_ms: int) -> int:
    try:
        return next_fire_ms(schedule, now_ms, now_ms)
    except BadSchedule as error:
        raise validation(f"Parameter ScheduleExpression is not valid: {error}.") from None


def _found(context: Context, name: str) -> EventRule:
    rule = event_table.find(context.store, EventRule, context.scope, name)
    if rule is None:
        raise missing(f"Rule {name} does not exist on EventBus default.")
    return rule


def _check_bus(context: Context, params: Params) -> None:
    told = params.get("EventBusName", DEFAULT_BUS)
    if told not in (DEFAULT_BUS, _bus(context)["Arn"]):
        raise missing(f"Event bus {told} does not exist.")


def _bus(context: Context) -> dict[str, Any]:
    scope = context.scope
    return {"Name": DEFAULT_BUS, "Arn": f"arn:aws:events:{scope.region}:{scope.account}:event-bus/{DEFAULT_BUS}"}


def describe_event_bus(context: Context, params: Params) -> dict[str, Any]:
    """The default bus."""
    _check_bus(context, {"EventBusName": params.get("Name", DEFAULT_BUS)})
    return _bus(context)


def describe_rule(context: Context, params: Params) -> dict[str, Any]:
    """A rule without its targets."""
    _check_bus(context, params)
    return {**_described(_found(context, params["Name"])), "CreatedBy": context.scope.account}


def _described(rule: EventRule) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Name": rule.name,
        "Arn": rule.arn,
        "State": "ENABLED" if rule.enabled else "DISABLED",
        "EventBusName": DEFAULT_BUS,
        "EventPattern": rule.pattern,
        "ScheduleExpression": rule.schedule,
        "Description": rule.description,
        "RoleArn": rule.role,
    }
    return {name: value for name, value in found.items() if value}


def delete_rule(context: Context, params: Params) -> dict[str, Any]:
    """Forget a rule that has no targets; one that is not there is no error."""
    _check_bus(context, params)
    document = context.get(event_table.RULE, params["Name"])
    if document is None:
        return {}
    if event_table.read(EventRule, document).targets:
        raise validation("Rule can't be deleted since it has targets.")
    tags = tags_document(context, ARN_TYPE, params["Name"])
    context.store.commit(Commit(deletes=[document, *([tags] if tags else [])]))
    context.wake_events()
    return {}


def _enable(context: Context, params: Params, enabled: bool) -> dict[str, Any]:
    _check_bus(context, params)
    rule = _found(context, params["Name"])
    next_ms = _first_fire(rule.schedule, context.now_ms) if rule.schedule and enabled else rule.next_ms
    _store(context, replace(rule, enabled=enabled, next_ms=next_ms))
    return {}


def _store(context: Context, rule: EventRule) -> None:
    context.store.commit(Commit(puts=[event_table.document_of(context.store, rule, context.now_ms)]))
    context.wake_events()


def list_rules(context: Context, params: Params) -> dict[str, Any]:
    """Rules by the beginning of their names, in pages."""
    _check_bus(context, params)
    rules = event_table.every(context.store, EventRule, context.scope)
    found = [_described(rule) for rule in rules if rule.name.startswith(params.get("NamePrefix", ""))]
    return paged("Rules", found, params, [one["Name"] for one in found])


def list_rule_names_by_target(context: Context, params: Params) -> dict[str, Any]:
    """The names of the rules that have a target."""
    _check_bus(context, params)
    rules = event_table.every(context.store, EventRule, context.scope)
    names = [rule.name for rule in rules if any(target.arn == params["TargetArn"] for target in rule.targets)]
    return paged("RuleNames", names, params, names)


def paged(member: str, found: Sequence[Any], params: Params, keys: Sequence[str]) -> dict[str, Any]:
    """A page of a list that is sorted by `keys`; its token is the last key of the page before."""
    after, limit = params.get("NextToken"), params.get("Limit", PAGE)
    first = next((n for n, key in enumerate(keys) if after is None or key > after), len(keys))
    reply: dict[str, Any] = {member: list(found[first : first + limit])}
    if first + limit < len(found):
        reply["NextToken"] = keys[first + limit - 1]
    return reply


# --- targets --------------------------------------------------------------------------------------------------------


def put_targets(context: Context, params: Params) -> dict[str, Any]:
    """Give a rule targets, in place of those of the same ids."""
    _check_bus(context, params)
    rule = _found(context, params["Rule"])
    added = {told["Id"]: _target(context, told) for told in params["Targets"]}
    targets = {target.target_id: target for target in rule.targets} | added
    if len(targets) > TARGETS_MAX:
        raise ApiError("LimitExceededException", f"The requested resource exceeds the limit of {TARGETS_MAX} targets.")
    _store(context, replace(rule, targets=tuple(targets.values())))
    return {"FailedEntryCount": 0, "FailedEntries": []}


def _target(context: Context, told: Params) -> Target:
    for name in _TARGETS_NOT_BUILT:
        if name in told:
            raise validation(f"Parameter {name} of target {told['Id']} is not supported by this Eyrie.")
    _check_arn(context, told)
    inputs = [name for name in ("Input", "InputPath", "InputTransformer") if name in told]
    if len(inputs) > 1:
        raise validation(f"Only one of Input, InputPath, or InputTransformer must be provided for target {told['Id']}.")
    http, retry = told.get("HttpParameters", {}), told.get("RetryPolicy", {})
    return Target(
        target_id=told["Id"],
        arn=told["Arn"],
        input=_json(told, "Input") if "Input" in told else None,
        input_path=_path(told["InputPath"], told) if "InputPath" in told else None,
        transformer=_transformer(told) if "InputTransformer" in told else None,
        headers=dict(http.get("HeaderParameters", {})),
        query=dict(http.get("QueryStringParameters", {})),
        path_values=tuple(http.get("PathParameterValues", ())),
        role=told.get("RoleArn"),
        retries_max=retry.get("MaximumRetryAttempts"),
        age_max_s=retry.get("MaximumEventAgeInSeconds"),
    )


def _check_arn(context: Context, told: Params) -> None:
    """A topic, a log group, an API destination that is there, or a URL."""
    arn, where = told["Arn"], f"of target {told['Id']}"
    if arn.startswith(("http://", "https://")):
        return
    if arn.startswith("arn:aws:sns:"):
        try:
            scope, _ = topic_scope(arn)
        except TopicMissing:
            raise validation(f"Parameter Arn {where} is not valid: {arn}.") from None
        if scope != context.scope:
            raise validation(f"Parameter Arn {where} is not valid: the topic is of another account or region.")
        return
    beginning = f":{context.scope.region}:{context.scope.account}:"
    if arn.startswith(f"arn:aws:logs{beginning}log-group:"):
        return
    if arn.startswith(f"arn:aws:events{beginning}api-destination/"):
        name = arn.split("/")[1]
        known = event_table.find(context.store, ApiDestination, context.scope, name)
        if known is None or known.arn != arn:
            raise validation(f"Parameter Arn {where} is not valid: API destination {name} does not exist.")
        return
    kinds = "API destinations, topics, log groups, and http or https addresses"
    raise validation(
        f"Parameter Arn {where} is not valid: {arn} is not supported by this Eyrie, whose targets are {kinds}."
    )


def _json(told: Params, name: str) -> str:
    try:
        json.loads(told[name])
    except (ValueError, RecursionError):
        raise validation(f"{name} for target {told['Id']} is not valid JSON text.") from None
    return str(told[name])


def _path(path: str, told: Params) -> str:
    try:
        steps_of(path)
    except PathError as error:
        raise validation(f"Invalid InputPath for target {told['Id']}: {error}.") from None
    return path


def _transformer(told: Params) -> Transformer:
    transformer = told["InputTransformer"]
    paths = {name: _path(path, told) for name, path in transformer.get("InputPathsMap", {}).items()}
    return Transformer(transformer["InputTemplate"], paths)


def remove_targets(context: Context, params: Params) -> dict[str, Any]:
    """Take targets from a rule; those that are not there are told as failed."""
    _check_bus(context, params)
    rule = _found(context, params["Rule"])
    known = {target.target_id for target in rule.targets}
    failed = [
        {"TargetId": one, "ErrorCode": "ResourceNotFoundException", "ErrorMessage": f"Target {one} does not exist."}
        for one in params["Ids"]
        if one not in known
    ]
    _store(context, replace(rule, targets=tuple(t for t in rule.targets if t.target_id not in params["Ids"])))
    return {"FailedEntryCount": len(failed), "FailedEntries": failed}


def list_targets_by_rule(context: Context, params: Params) -> dict[str, Any]:
    """A rule's targets, by id, in pages."""
    _check_bus(context, params)
    targets = sorted(_found(context, params["Rule"]).targets, key=lambda target: target.target_id)
    return paged("Targets", [_shown(one) for one in targets], params, [one.target_id for one in targets])


def _shown(target: Target) -> dict[str, Any]:
    http = {
        "HeaderParameters": target.headers,
        "QueryStringParameters": target.query,
        "PathParameterValues": list(target.path_values),
    }
    retry = {"MaximumRetryAttempts": target.retries_max, "MaximumEventAgeInSeconds": target.age_max_s}
    transformer = target.transformer
    found: dict[str, Any] = {
        "Id": target.target_id,
        "Arn": target.arn,
        "RoleArn": target.role,
        "Input": target.input,
        "InputPath": target.input_path,
        "HttpParameters": {name: value for name, value in http.items() if value} or None,
        "RetryPolicy": {name: value for name, value in retry.items() if value is not None} or None,
    }
    if transformer is not None:
        found["InputTransformer"] = {"InputPathsMap": transformer.paths, "InputTemplate": transformer.template}
    return {name: value for name, value in found.items() if value is not None}


# --- events ---------------------------------------------------------------------------------------------------------


def put_events(context: Context, params: Params) -> dict[str, Any]:
    """Announce events of one's own: each is taken, or told as failed."""
    waiting = len(context.store.scan(announcements.KIND))
    replies: list[dict[str, Any]] = []
    puts: list[Document] = []
    for entry in params["Entries"]:
        if waiting + len(puts) >= WAITING_MAX:
            replies.append(_failed("ThrottlingException", f"{WAITING_MAX} events wait already."))
            continue
        made = _event(context, entry)
        if isinstance(made, str):
            replies.append(_failed("MalformedDetail" if "malformed" in made else "InvalidArgument", made))
            continue
        puts.append(announced(context.scope, made, context.now_ms))
        replies.append({"EventId": made["id"]})
    if puts:
        context.store.commit(Commit(puts=puts))
        context.wake_events()
    return {"FailedEntryCount": sum("ErrorCode" in reply for reply in replies), "Entries": replies}


def _failed(code: str, message: str) -> dict[str, Any]:
    return {"ErrorCode": code, "ErrorMessage": message}


def _event(context: Context, entry: Params) -> dict[str, Any] | str:
    """The event of an entry, or what is wrong with it."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            return f"Parameter {name} is not valid. Reason: {name} is a required argument."
    if entry["Source"].startswith("aws."):
        return "Parameter Source is not valid. Reason: aws. is for what Eyrie itself announces."
    if entry.get("EventBusName", DEFAULT_BUS) not in (DEFAULT_BUS, _bus(context)["Arn"]):
        return f"Parameter EventBusName is not valid. Reason: {entry['EventBusName']} does not exist."
    if len(entry["Detail"].encode()) > DETAIL_BYTES_MAX:
        return f"Parameter Detail is not valid. Reason: it is larger than {DETAIL_BYTES_MAX} bytes."
    try:
        detail = json.loads(entry["Detail"])
    except (ValueError, RecursionError):
        detail = None
    if not isinstance(detail, dict):
        return "Parameter Detail is not valid. Reason: Detail is malformed: it must be a JSON object."
    at_ms = milliseconds(entry["Time"]) if "Time" in entry else context.now_ms
    event_id = uuid(context.identity.token)
    return event(
        *(context.scope, event_id, entry["Source"], entry["DetailType"], detail, at_ms, entry.get("Resources", ()))
    )


_EVENT_FIELDS = ("id", "account", "source", "time", "region", "resources", "detail-type")


def test_event_pattern(context: Context, params: Params) -> dict[str, Any]:
    """Whether a pattern picks an event."""
    pattern = _parse(params["EventPattern"])
    try:
        found = json.loads(params["Event"])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise validation("Parameter Event is not valid: it must be a JSON object.")
    lacking = [name for name in _EVENT_FIELDS if name not in found]
    if lacking:
        raise validation(f"Parameter Event is not valid: it has no {lacking[0]}.")
    return {"Result": pattern.matches(found)}


# --- tags -----------------------------------------------------------------------------------------------------------


def _new_tags(context: Context, name: str, params: Params, new: bool) -> list[Document]:
    if not new or not params.get("Tags"):
        return []
    return new_tags(context, ARN_TYPE, name, params)


def _tagged(context: Context, params: Params) -> tuple[list[Tag], Document]:
    arn = params["ResourceARN"]
    name = arn.rsplit("/", 1)[-1]
    rule = event_table.find(context.store, EventRule, context.scope, name)
    if rule is None or rule.arn != arn:
        raise missing(f"Rule {arn} does not exist on EventBus default.")
    return kept_tags(context, ARN_TYPE, name)
