"""EventBridge's connections and API destinations: addresses outside that rules may tell, and how they know us.

A connection's secrets are kept in Eyrie's own store, and never given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eyrie.control import event_table
from eyrie.control.api_events import missing, paged
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.domain.events import ApiDestination, Connection
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, validation


def operations() -> Mapping[str, Operation]:
    """The operations on connections and destinations."""
    return {
        "CreateConnection": create_connection,
        "UpdateConnection": update_connection,
        "DescribeConnection": describe_connection,
        "ListConnections": list_connections,
        "DeleteConnection": delete_connection,
        "CreateApiDestination": create_api_destination,
        "UpdateApiDestination": update_api_destination,
        "DescribeApiDestination": describe_api_destination,
        "ListApiDestinations": list_api_destinations,
        "DeleteApiDestination": delete_api_destination,
    }


# --- connections ----------------------------------------------------------------------------------------------------


def create_connection(context: Context, params: Params) -> dict[str, Any]:
    """Keep how an address authenticates us."""
    _refuse_taken(context, event_table.CONNECTION, "Connection", params["Name"])
    kind, secrets = _secrets(params["AuthorizationType"], params["AuthParameters"])
    headers, hidden = _headers(params["AuthParameters"])
    connection = Connection(
        *(context.scope, params["Name"], context.identity.token(32), kind, secrets, headers, hidden),
        description=params.get("Description"),
        modified_ms=context.now_ms,
    )
    return _connection_reply(_stored(context, connection), connection)


def update_connection(context: Context, params: Params) -> dict[str, Any]:
    """Change how an address authenticates us."""
    _, before = _connection(context, params["Name"])
    kind, secrets, headers, hidden = before.kind, before.secrets, before.headers, before.hidden_headers
    if "AuthParameters" in params:
        kind, secrets = _secrets(params.get("AuthorizationType", kind), params["AuthParameters"])
        headers, hidden = _headers(params["AuthParameters"])
    description = params.get("Description", before.description)
    connection = replace(
        before, kind=kind, secrets=secrets, headers=headers, hidden_headers=hidden, description=description
    )
    return _connection_reply(_stored(context, connection), connection)


def _secrets(kind: str, told: Params) -> tuple[str, dict[str, str]]:
    if kind == "OAUTH_CLIENT_CREDENTIALS":
        raise validation("AuthorizationType OAUTH_CLIENT_CREDENTIALS is not supported by this Eyrie.")
    member = "ApiKeyAuthParameters" if kind == "API_KEY" else "BasicAuthParameters"
    if member not in told:
        raise validation(f"Parameter AuthParameters must have {member} for the AuthorizationType {kind}.")
    if kind == "API_KEY":
        return kind, {told[member]["ApiKeyName"]: told[member]["ApiKeyValue"]}
    return kind, {"Username": told[member]["Username"], "Password": told[member]["Password"]}


def _headers(told: Params) -> tuple[dict[str, str], tuple[str, ...]]:
    http = told.get("InvocationHttpParameters", {})
    for name in ("QueryStringParameters", "BodyParameters"):
        if http.get(name):
            raise validation(f"InvocationHttpParameters.{name} is not supported by this Eyrie.")
    found = http.get("HeaderParameters", [])
    hidden = tuple(one["Key"] for one in found if one.get("IsValueSecret"))
    return {one["Key"]: one.get("Value", "") for one in found}, hidden


def _connection(context: Context, name: str) -> tuple[Document, Connection]:
    document = context.get(event_table.CONNECTION, name)
    if document is None:
        raise missing(f"Connection '{name}' does not exist.")
    return document, event_table.read(Connection, document)


def _connection_reply(document: Document, connection: Connection) -> dict[str, Any]:
    return {
        "ConnectionArn": connection.arn,
        "ConnectionState": "AUTHORIZED",
        "CreationTime": seconds(document.created_ms),
        "LastModifiedTime": seconds(document.modified_ms),
        "LastAuthorizedTime": seconds(document.modified_ms),
    }


def describe_connection(context: Context, params: Params) -> dict[str, Any]:
    """A connection without its secrets."""
    document, connection = _connection(context, params["Name"])
    if connection.kind == "API_KEY":
        shown: dict[str, Any] = {"ApiKeyAuthParameters": {"ApiKeyName": next(iter(connection.secrets))}}
    else:
        shown = {"BasicAuthParameters": {"Username": connection.secrets["Username"]}}
    if connection.headers:
        shown["InvocationHttpParameters"] = {"HeaderParameters": _shown_headers(connection)}
    found = {**_connection_reply(document, connection), "Name": connection.name, "AuthParameters": shown}
    found["AuthorizationType"] = connection.kind
    if connection.description is not None:
        found["Description"] = connection.description
    return found


def _shown_headers(connection: Connection) -> list[dict[str, Any]]:
    return [
        {"Key": name, "IsValueSecret": name in connection.hidden_headers}
        | ({} if name in connection.hidden_headers else {"Value": value})
        for name, value in connection.headers.items()
    ]


def list_connections(context: Context, params: Params) -> dict[str, Any]:
    """Connections by the beginning of their names, in pages."""
    documents = _named(context, event_table.CONNECTION, params)
    found = [
        {**_connection_reply(d, c), "Name": c.name, "AuthorizationType": c.kind}
        for d in documents
        for c in (event_table.read(Connection, d),)
    ]
    return paged("Connections", found, params, [d.name for d in documents])


def delete_connection(context: Context, params: Params) -> dict[str, Any]:
    """Forget a connection. Destinations that have it fail from now on."""
    document, connection = _connection(context, params["Name"])
    context.store.commit(Commit(deletes=[document]))
    return {**_connection_reply(document, connection), "ConnectionState": "DELETING"}


# --- API destinations -----------------------------------------------------------------------------------------------


def create_api_destination(context: Context, params: Params) -> dict[str, Any]:
    """Keep an address."""
    _refuse_taken(context, event_table.DESTINATION, "ApiDestination", params["Name"])
    destination = ApiDestination(
        context.scope,
        params["Name"],
        context.identity.token(32),
        _connection_arn(context, params["ConnectionArn"]),
        _url(params["InvocationEndpoint"]),
        params["HttpMethod"],
        params.get("InvocationRateLimitPerSecond", 300),
        params.get("Description"),
    )
    return _destination_reply(_stored(context, destination), destination)


def update_api_destination(context: Context, params: Params) -> dict[str, Any]:
    """Change an address."""
    _, before = _destination(context, params["Name"])
    destination = replace(
        before,
        connection_arn=_connection_arn(context, params.get("ConnectionArn", before.connection_arn)),
        url=_url(params.get("InvocationEndpoint", before.url)),
        method=params.get("HttpMethod", before.method),
        rate_max=params.get("InvocationRateLimitPerSecond", before.rate_max),
        description=params.get("Description", before.description),
    )
    return _destination_reply(_stored(context, destination), destination)


def _url(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise validation(f"Parameter InvocationEndpoint is not valid: {url} is neither https nor http.")
    return url


def _connection_arn(context: Context, arn: str) -> str:
    name = arn.split(":connection/", 1)[-1].split("/")[0]
    known = event_table.find(context.store, Connection, context.scope, name)
    if known is None or known.arn != arn:
        raise missing(f"Connection '{arn}' does not exist.")
    return arn


def _destination(context: Context, name: str) -> tuple[Document, ApiDestination]:
    document = context.get(event_table.DESTINATION, name)
    if document is None:
        raise missing(f"An api-destination '{name}' does not exist.")
    return document, event_table.read(ApiDestination, document)


def _destination_reply(document: Document, destination: ApiDestination) -> dict[str, Any]:
    return {
        "ApiDestinationArn": destination.arn,
        "ApiDestinationState": "ACTIVE",
        "CreationTime": seconds(document.created_ms),
        "LastModifiedTime": seconds(document.modified_ms),
    }


def _destination_shown(document: Document) -> dict[str, Any]:
    destination = event_table.read(ApiDestination, document)
    return {
        **_destination_reply(document, destination),
        "Name": destination.name,
        "ConnectionArn": destination.connection_arn,
        "InvocationEndpoint": destination.url,
        "HttpMethod": destination.method,
        "InvocationRateLimitPerSecond": destination.rate_max,
    }


def describe_api_destination(context: Context, params: Params) -> dict[str, Any]:
    """An address."""
    document, destination = _destination(context, params["Name"])
    told = {} if destination.description is None else {"Description": destination.description}
    return {**_destination_shown(document), **told}


def list_api_destinations(context: Context, params: Params) -> dict[str, Any]:
    """Addresses by the beginning of their names, in pages."""
    documents = _named(context, event_table.DESTINATION, params)
    found = [_destination_shown(document) for document in documents]
    return paged("ApiDestinations", found, params, [document.name for document in documents])


def delete_api_destination(context: Context, params: Params) -> dict[str, Any]:
    """Forget an address. Rules that have it fail from now on."""
    document, _ = _destination(context, params["Name"])
    context.store.commit(Commit(deletes=[document]))
    return {}


# --- both -----------------------------------------------------------------------------------------------------------


def _refuse_taken(context: Context, kind: str, noun: str, name: str) -> None:
    if context.get(kind, name) is not None:
        raise ApiError("ResourceAlreadyExistsException", f"{noun} {name} already exists.")


def _stored(context: Context, thing: Connection | ApiDestination) -> Document:
    document = event_table.document_of(context.store, thing, context.now_ms)
    context.store.commit(Commit(puts=[document]))
    return document


def _named(context: Context, kind: str, params: Params) -> list[Document]:
    documents = context.store.scan(kind, context.scope)
    return [document for document in documents if document.name.startswith(params.get("NamePrefix", ""))]
