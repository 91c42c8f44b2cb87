"""Logs Insights: StartQuery and what follows it, and queries kept under a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eyrie.control.context import DOCUMENTS_MAX, Context, Operation, Params
from eyrie.control.log_calls import (
    bad_token,
    decoded,
    encoded,
    group_called,
    group_name,
    invalid,
    missing,
    page,
    with_token,
)
from eyrie.control.log_queries import Running, TooManyQueries
from eyrie.decide.query_run import BadQuery, Query, Row
from eyrie.domain.logs import LogGroup, Place
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError

GROUPS_MAX = 50  # of one query
KIND = "LogQueryDefinition"
_PAGE = 10_000


def operations() -> Mapping[str, Operation]:
    """The operations of Logs Insights."""
    return {
        "StartQuery": start_query,
        "GetQueryResults": get_query_results,
        "StopQuery": stop_query,
        "DescribeQueries": describe_queries,
        "GetLogRecord": get_log_record,
        "PutQueryDefinition": put_query_definition,
        "DescribeQueryDefinitions": describe_query_definitions,
        "DeleteQueryDefinition": delete_query_definition,
    }


def start_query(context: Context, params: Params) -> dict[str, Any]:
    """Begin a query over groups and a span of time (seconds since the epoch, both ends included)."""
    groups = _groups(context, params)
    if params.get("queryLanguage", "CWLI") != "CWLI":
        raise invalid(f"queryLanguage {params['queryLanguage']} is not supported by this Eyrie; CWLI is.")
    if params["startTime"] > params["endTime"]:
        raise invalid("startTime must not be after endTime.")
    query = _query(params["queryString"], min(params.get("limit", _PAGE), _PAGE))
    running = Running(
        query_id=_identifier(context),
        scope=context.scope,
        text=params["queryString"],
        groups=groups,
        span=(_milliseconds(params["startTime"]), _milliseconds(params["endTime"]) + 1000),
        created_ms=context.now_ms,
        query=query,
    )
    try:
        context.queries.start(running)
    except TooManyQueries:
        raise ApiError("LimitExceededException", "Too many queries run or wait already. Try again.") from None
    return {"queryId": running.query_id}


def _groups(context: Context, params: Params) -> list[LogGroup]:
    given = [name for name in ("logGroupName", "logGroupNames", "logGroupIdentifiers") if params.get(name)]
    if len(given) != 1:
        raise invalid("Exactly one of logGroupName, logGroupNames and logGroupIdentifiers is needed.")
    named = params[given[0]]
    names = list(dict.fromkeys([named] if isinstance(named, str) else named))
    if len(names) > GROUPS_MAX:
        raise invalid(f"A query is over at most {GROUPS_MAX} log groups, not {len(names)}.")
    return [group_called(context, name) for name in names]


def _milliseconds(moment: int) -> int:
    """Of a time in seconds; the real API takes milliseconds too, as clients send them."""
    return moment if moment > 99_999_999_999 else moment * 1000


def _query(text: str, limit: int) -> Query:
    try:
        return Query(text, limit)
    except BadQuery as error:
        location = {"startCharOffset": error.start, "endCharOffset": error.end}
        told = f"{error} (characters {error.start} to {error.end})"
        fields = {"queryCompileError": {"location": location, "message": str(error)}}
        raise ApiError("MalformedQueryException", told, fields=fields) from None


def _identifier(context: Context) -> str:
    digits = context.identity.token(32)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def get_query_results(context: Context, params: Params) -> dict[str, Any]:
    """What a query has found; nothing of it before it is over."""
    running = _running(context, params)
    start = 0
    if "nextToken" in params:
        read = decoded(params["nextToken"])
        if not isinstance(read, list) or len(read) != 2 or read[0] != running.query_id or type(read[1]) is not int:
            raise bad_token()
        start = max(read[1], 0)
    stop = start + (params.get("maxItems") or _PAGE)
    rows = [_row(running, row) for row in running.rows[start:stop]]
    reply: dict[str, Any] = {
        "queryLanguage": "CWLI",
        "results": rows,
        "statistics": {
            "recordsMatched": float(running.query.matched),
            "recordsScanned": float(running.scanned),
            "estimatedRecordsSkipped": 0.0,
            "bytesScanned": float(running.bytes_scanned),
            "estimatedBytesSkipped": 0.0,
            "logGroupsScanned": float(len(running.groups)),
            "resultCount": float(len(running.rows)),
        },
        "status": str(running.status),
    }
    return with_token(reply, encoded([running.query_id, stop]) if stop < len(running.rows) else "")


def _row(running: Running, row: Row) -> list[dict[str, str]]:
    fields = [{"field": name, "value": value} for name, value in row.fields]
    if row.record is not None:
        record = row.record
        pointer = encoded([record.log.partition(":")[2], record.stream, record.at_ms, record.ordinal])
        fields.append({"field": "@ptr", "value": pointer})
    return fields


def _running(context: Context, params: Params) -> Running:
    found = context.queries.get(context.scope, params["queryId"])
    if found is None:
        raise missing("The specified query does not exist.")
    return found


def stop_query(context: Context, params: Params) -> dict[str, Any]:
    """Stop a query that is not over."""
    if not context.queries.stop(_running(context, params)):
        raise invalid("Query is not in progress.")
    return {"success": True}


def describe_queries(context: Context, params: Params) -> dict[str, Any]:
    """The queries of late, the newest first."""
    found = {
        running.query_id: running
        for running in context.queries.all(context.scope)
        if params.get("status", running.status) == running.status
        and params.get("logGroupName") in (None, *(group.name for group in running.groups))
    }
    shown, token = page(list(found), params, "maxResults", 1000)
    return with_token({"queries": [_described(found[query_id]) for query_id in shown]}, token)


def _described(running: Running) -> dict[str, Any]:
    return {
        "queryLanguage": "CWLI",
        "queryId": running.query_id,
        "queryString": running.text,
        "status": str(running.status),
        "createTime": running.created_ms,
        "logGroupName": running.groups[0].name,
        "queryDuration": running.took_ms,
        "bytesScanned": float(running.bytes_scanned),
    }


def get_log_record(context: Context, params: Params) -> dict[str, Any]:
    """The event that a result's @ptr names, with all its fields."""
    read = decoded(params["logRecordPointer"])
    if not isinstance(read, list) or [type(part) for part in read] != [str, str, int, int]:
        raise invalid("The specified logRecordPointer is invalid.")
    group_text, stream, at_ms, ordinal = read
    if not (0 <= at_ms < 1 << 62 and 0 <= ordinal < 1 << 62):
        raise invalid("The specified logRecordPointer is invalid.")
    group = group_called(context, group_text)
    entries = context.logs.read(group, stream, context.now_ms, (at_ms, at_ms + 1), Place(at_ms, ordinal - 1), page=1)
    entry = next((e for e in entries if e.ordinal == ordinal), None)
    if entry is None:
        raise missing("The specified log record does not exist.")
    return {
        "logRecord": {
            "@message": entry.text,
            "@timestamp": str(entry.at_ms),
            "@ingestionTime": str(entry.ingested_ms),
            "@logStream": entry.stream,
            "@log": f"{context.scope.account}:{group.name}",
            "@ptr": params["logRecordPointer"],
        }
    }


# --- queries under a name -------------------------------------------------------------------------------------------


def put_query_definition(context: Context, params: Params) -> dict[str, Any]:
    """Keep a query under a name, or change one by its id."""
    if params.get("queryLanguage", "CWLI") == "CWLI":
        _query(params["queryString"], _PAGE)
    for name in params.get("logGroupNames", ()):
        group_name(name)
    query_id = params.get("queryDefinitionId")
    document = context.get(KIND, query_id) if query_id else None
    if query_id and document is None:
        raise missing("The specified query definition does not exist.")
    if document is None:
        if len(context.store.scan(KIND, context.scope)) >= DOCUMENTS_MAX:
            raise ApiError("LimitExceededException", f"There are {DOCUMENTS_MAX} query definitions already.")
        query_id = _identifier(context)
        document = context.new(KIND, query_id, {})
    kept = ("name", "queryString", "logGroupNames", "queryLanguage", "parameters")
    body = {name: params[name] for name in kept if name in params}
    context.store.commit(Commit(puts=[replace(document, body=body, modified_ms=context.now_ms)]))
    return {"queryDefinitionId": query_id}


def describe_query_definitions(context: Context, params: Params) -> dict[str, Any]:
    """The queries that are kept, by name."""
    prefix = params.get("queryDefinitionNamePrefix", "")
    found = {
        f"{document.body['name']}\n{document.name}": document
        for document in context.store.scan(KIND, context.scope)
        if document.body["name"].startswith(prefix)
        and params.get("queryLanguage", "CWLI") == document.body.get("queryLanguage", "CWLI")
    }
    shown, token = page(sorted(found), params, "maxResults", 1000)
    return with_token({"queryDefinitions": [_definition(found[name]) for name in shown]}, token)


def _definition(document: Document) -> dict[str, Any]:
    return {"queryDefinitionId": document.name, "lastModified": document.modified_ms, **document.body}


def delete_query_definition(context: Context, params: Params) -> dict[str, Any]:
    """Forget a query."""
    document = context.get(KIND, params["queryDefinitionId"])
    if document is None:
        raise missing("The specified query definition does not exist.")
    context.store.commit(Commit(deletes=[document]))
    return {"success": True}
