"""Errors as each protocol writes them. Nothing in here may fail, whatever the error holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from eyrie.wire import cbor, plain, xml
from eyrie.wire.errors import ApiError
from eyrie.wire.messages import HttpReply
from eyrie.wire.model import Models, Service, Shape, UnknownService
from eyrie.wire.rest import header_value, write_envelope
from eyrie.wire.speech import CBOR, QUERY, REST_JSON, REST_XML, Speech

# Codes for broken constraints and for bodies of the wrong form, where a service has its own.
_VALIDATION_CODES = {
    "sagemaker-runtime": "ValidationError",
    "sts": "ValidationError",
    "iam": "ValidationError",
    "sns": "InvalidParameter",
    "cloudformation": "ValidationError",
    "cloudwatch": "ValidationError",
    "logs": "InvalidParameterException",
    "s3": "InvalidArgument",
}
# What clients of the old query protocol know some exceptions by, where the model does not say it.
_QUERY_CODES = {
    "QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue",
    "QueueNameExists": "QueueAlreadyExists",
    **{
        name: f"AWS.SimpleQueueService.{name}"
        for name in (
            "BatchEntryIdsNotDistinct",
            "BatchRequestTooLong",
            "EmptyBatchRequest",
            "InvalidBatchEntryId",
            "MessageNotInflight",
            "PurgeQueueInProgress",
            "TooManyEntriesInBatchRequest",
            "UnsupportedOperation",
        )
    },
}
_MALFORMED_CODES = {QUERY: "MalformedInput", REST_XML: "MalformedXML"}


def validation_code(service: str) -> str:
    """The code of a broken constraint."""
    return _VALIDATION_CODES.get(service, "ValidationException")


def malformed_code(speech: Speech) -> str:
    """The code of a body that cannot be read."""
    return _MALFORMED_CODES.get(speech.protocol, "SerializationException")


def unknown_operation(speech: Speech, named: str) -> ApiError:
    """The refusal of an operation that the service does not have."""
    if speech.protocol == REST_XML:
        return ApiError("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)
    service = speech.service or "any service of this Eyrie"
    if speech.protocol == QUERY:
        return ApiError("InvalidAction", f"Could not find operation {named[:128] or '(none)'} of {service}.")
    status = 404 if speech.protocol in (REST_JSON, CBOR) else 400
    return ApiError(
        "UnknownOperationException", f"There is no operation {named[:128] or '(none)'} of {service}.", status
    )


def refuse(models: Models, speech: Speech, method: str, request_id: str, error: ApiError) -> HttpReply:
    """The reply that tells an error in the client's protocol."""
    service = _service(models, speech.service)
    shape = service.exception(error.code) if service else None
    status = error.status
    if shape is not None and status == 400:
        status = int(shape.error.get("httpStatusCode", 400))
    if speech.protocol == REST_XML:
        return _rest_xml(method, request_id, status, error)
    if speech.protocol == QUERY:
        return _query(service, shape, request_id, status, error)
    name = shape.name if shape is not None else error.code
    body = _body(shape, error, binary=speech.protocol == CBOR)
    headers = [("x-amzn-RequestId", request_id)]
    if speech.query_mode and service is not None and service.query_compatible:
        known = _QUERY_CODES.get(name, name) if service.name == "sqs" else name
        old = str(shape.error.get("code", known)) if shape is not None else error.code
        headers.append(("x-amzn-query-error", header_value(f"{old};{error.fault}")))
    if speech.protocol == CBOR:
        headers += [("smithy-protocol", "rpc-v2-cbor"), ("Content-Type", "application/cbor")]
        return HttpReply(status, headers, cbor.dumps({"__type": name, **body}))
    if speech.protocol == REST_JSON:
        headers += [("x-amzn-ErrorType", header_value(name)), ("Content-Type", "application/json")]
        if shape is not None:
            headers += write_envelope(shape, error.fields)[1]
        return HttpReply(status, headers, _json(body))
    headers.append(("Content-Type", f"application/x-amz-json-{speech.json_version}"))
    return HttpReply(status, headers, _json({"__type": name, **body}))


def _service(models: Models, name: str) -> Service | None:
    try:
        return models.service(name) if name else None
    except UnknownService:
        return None


def _body(shape: Shape | None, error: ApiError, binary: bool) -> dict[str, Any]:
    """The error's members; the message goes by the name that the shape has for it."""
    named = "Message" if shape is not None and "Message" in shape.members else "message"
    body: dict[str, Any] = {named: error.message}
    for name, value in error.fields.items():
        member = shape.members.get(name) if shape is not None else None
        if member is None:
            body[name] = value
        elif member.location is None:
            body[member.wire_name or name] = plain.write(member, value, binary)
    return body


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, default=str, separators=(",", ":")).encode("utf-8", "replace")


def _query(service: Service | None, shape: Shape | None, request_id: str, status: int, error: ApiError) -> HttpReply:
    code = str(shape.error.get("code", error.code)) if shape is not None else error.code
    fields = {"Type": error.fault, "Code": code, "Message": error.message}
    out = [f"<ErrorResponse xmlns={xml.quote(service.xml_namespace if service else '')}><Error>"]
    out += [f"<{name}>{xml.escape(text)}</{name}>" for name, text in fields.items()]
    if shape is not None:
        xml.write_members(out, shape, {name: value for name, value in error.fields.items() if name not in fields})
    out.append(f"</Error><RequestId>{xml.escape(request_id)}</RequestId></ErrorResponse>")
    headers = [("x-amzn-RequestId", request_id), ("Content-Type", "text/xml")]
    return HttpReply(status, headers, "".join(out).encode())


def _rest_xml(method: str, request_id: str, status: int, error: ApiError) -> HttpReply:
    headers = [("x-amz-request-id", request_id), ("x-amz-id-2", request_id), ("x-amzn-RequestId", request_id)]
    if method == "HEAD" or status == 304:
        return HttpReply(status, headers)
    fields = {
        "Code": error.code,
        "Message": error.message,
        **error.fields,
        "RequestId": request_id,
        "HostId": request_id,
    }
    out = ['<?xml version="1.0" encoding="UTF-8"?>\n<Error>']
    out += [f"<{name}>{xml.escape(str(value))}</{name}>" for name, value in fields.items() if value is not None]
    out.append("</Error>")
    headers.append(("Content-Type", "application/xml"))
    return HttpReply(status, headers, "".join(out).encode())
