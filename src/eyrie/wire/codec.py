"""The one codec: HTTP requests become calls and results become HTTP replies, in whatever protocol the client speaks.

On the path of every API call but InvokeEndpoint: `Wire.decode` reads and validates, a handler answers, `Wire.encode`
writes the result or `Wire.refuse` the error. All field names, types, places and bounds come from the models.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from eyrie.wire import cbor, plain, query, refusal, rest, xml
from eyrie.wire.dispatch import SERVICE_OF_VERSION
from eyrie.wire.errors import ApiError, constraint_violations, too_large
from eyrie.wire.messages import Call, HttpReply, HttpRequest
from eyrie.wire.model import Models, Operation, Service, Shape, UnknownService
from eyrie.wire.speech import CBOR, QUERY, REST_JSON, REST_XML, Speech, speech_of
from eyrie.wire.validate import violations
from eyrie.wire.values import Malformed

BODY_BYTES_MAX = 32 * 1024 * 1024

# Roots of S3 replies that are not called what their shapes are; all others go by the shape's name without "Output".
_S3_ROOTS = {
    "ListBuckets": "ListAllMyBucketsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListParts": "ListPartsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketTagging": "Tagging",
    "GetObjectTagging": "Tagging",
    "GetBucketAcl": "AccessControlPolicy",
    "GetObjectAcl": "AccessControlPolicy",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
}
_S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_XML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


class Wire:
    """Reads requests and writes replies. One a process; not for several threads at once."""

    def __init__(self, models: Models, new_id: Callable[[], str], *, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self.models = models
        self._new_id = new_id  # a fresh request id
        self._body_bytes_max = body_bytes_max
        self._routers: dict[str, rest.Router] = {}

    def decode(self, request: HttpRequest, request_id: str = "") -> Call:
        """The call that a request makes, validated against the model. Raises ApiError, and nothing else."""
        speech = speech_of(request)
        try:
            operation, params, unknown = self._read(speech, request)
        except Malformed as problem:
            raise ApiError(refusal.malformed_code(speech), problem.text) from None
        if unknown:
            names = ", ".join(f"'{name[:64]}'" for name in unknown[:10])
            raise ApiError(refusal.validation_code(operation.service), f"{operation.name} has no parameter {names}.")
        problems = violations(operation.input, params)
        if problems:
            raise constraint_violations(problems, refusal.validation_code(operation.service))
        return Call(
            service=operation.service,
            operation=operation.name,
            protocol=speech.protocol,
            params=params,
            request_id=request_id or self._new_id(),
            json_version=speech.json_version,
            query_mode=speech.query_mode,
            method=request.method,
        )

    def locate(self, request: HttpRequest) -> Operation:
        """The operation that a request's head names, its body unread (empty). Raises ApiError.

        For REST services and X-Amz-Target; a form's operation is in its body.
        """
        speech = speech_of(request)
        try:
            return self._locate(speech, request)[0]
        except Malformed as problem:
            raise ApiError(refusal.malformed_code(speech), problem.text) from None

    def encode(self, call: Call, result: Mapping[str, Any]) -> HttpReply:
        """The reply of a call that went well. `result` is spelled as boto3 returns it; what the output does not have
        is left out.
        """
        operation = self.models.operation(call.service, call.operation)
        if call.protocol == QUERY:
            return self._encode_query(operation, call, result)
        if call.protocol in (REST_JSON, REST_XML):
            return _encode_rest(operation, call, result)
        headers = [("x-amzn-RequestId", call.request_id)]
        output = operation.output
        if call.protocol == CBOR:
            headers += [("smithy-protocol", "rpc-v2-cbor"), ("Content-Type", "application/cbor")]
            body = cbor.dumps(plain.write_structure(output, result, binary=True)) if output else b""
            return HttpReply(operation.status, headers, body)
        headers.append(("Content-Type", f"application/x-amz-json-{call.json_version}"))
        body = msgspec.json.encode(plain.write_structure(output, result)) if output else b""
        return HttpReply(operation.status, headers, body)

    def refuse(self, what: HttpRequest | Call, error: ApiError, request_id: str = "") -> HttpReply:
        """The reply that tells an error, in the protocol of the request (even of one that could not be decoded) or
        call.
        """
        if isinstance(what, Call):
            speech = Speech(what.service, what.protocol, what.json_version, what.query_mode)
            return refusal.refuse(self.models, speech, what.method, request_id or what.request_id, error)
        speech = speech_of(what)
        return refusal.refuse(self.models, speech, what.method, request_id or self._new_id(), error)

    def _read(self, speech: Speech, request: HttpRequest) -> tuple[Operation, dict[str, Any], list[str]]:
        """The operation, its parameters and the names of parameters that it does not have."""
        if len(request.body) > self._body_bytes_max:
            raise too_large(self._body_bytes_max)
        if speech.protocol == QUERY:
            return self._read_query(speech, request)
        operation, labels, parameters = self._locate(speech, request)
        if operation.input is None:
            return operation, {}, []
        if speech.protocol in (REST_JSON, REST_XML):
            params = rest.read_envelope(operation.input, labels, parameters, request.headers)
            unknown = _read_rest_body(speech, operation.input, self._body(request), params)
            return operation, params, unknown
        body = self._body(request)
        parse = cbor.loads if speech.protocol == CBOR else _parse_json
        value = parse(body) if body else {}
        params = plain.read_structure(operation.input, value)
        return operation, params, plain.unknown_members(operation.input, value)

    def _locate(self, speech: Speech, request: HttpRequest) -> tuple[Operation, dict[str, str], dict[str, list[str]]]:
        service = self._service(speech)
        if speech.protocol in (REST_JSON, REST_XML):
            path = _with_bucket(request.path, speech.bucket)
            parameters = rest.parse_query(request.query)
            found = self._router(service).find(request.method, path, parameters, request.headers)
            if found is None:
                raise refusal.unknown_operation(speech, f"{request.method} {request.path}")
            return found[0], found[1], parameters
        operation = service.operation(speech.target)
        if operation is None or request.method != "POST" or not _names(request, service):
            raise refusal.unknown_operation(speech, speech.target)
        return operation, {}, {}

    def _read_query(self, speech: Speech, request: HttpRequest) -> tuple[Operation, dict[str, Any], list[str]]:
        tree = query.parse_form(request.query) | query.parse_form(self._body(request))
        action = query.text_of(tree, "Action")
        name = speech.service or SERVICE_OF_VERSION.get(query.text_of(tree, "Version"), "")
        named = Speech(name, QUERY)
        operation = self._service(named).operation(action)
        if operation is None:
            raise refusal.unknown_operation(named, action)
        if operation.input is None:
            return operation, {}, query.unknown_names(None, tree)
        return operation, query.read_structure(operation.input, tree), query.unknown_names(operation.input, tree)

    def _service(self, speech: Speech) -> Service:
        try:
            return self.models.service(speech.service)
        except UnknownService:
            raise refusal.unknown_operation(speech, speech.target) from None

    def _router(self, service: Service) -> rest.Router:
        router = self._routers.get(service.name)
        if router is None:
            router = self._routers[service.name] = rest.Router(service)
        return router

    def _body(self, request: HttpRequest) -> bytes:
        """The body, inflated where a client compressed it (boto3 does so with large PutMetricData)."""
        if request.headers.get("content-encoding") != "gzip":
            return request.body
        inflater = zlib.decompressobj(wbits=31)
        try:
            body = inflater.decompress(request.body, self._body_bytes_max)
        except zlib.error:
            raise Malformed("The body is not gzip") from None
        if inflater.unconsumed_tail:
            raise too_large(self._body_bytes_max)
        if not inflater.eof:
            raise Malformed("The gzip body ends early")
        return body

    def _encode_query(self, operation: Operation, call: Call, result: Mapping[str, Any]) -> HttpReply:
        service = self.models.service(call.service)
        name = call.operation
        out = [f"<{name}Response xmlns={xml.quote(service.xml_namespace)}>"]
        if operation.output is not None:
            wrapper = operation.result_wrapper or f"{name}Result"
            out.append(f"<{wrapper}>")
            xml.write_members(out, operation.output, result)
            out.append(f"</{wrapper}>")
        out.append(f"<ResponseMetadata><RequestId>{xml.escape(call.request_id)}</RequestId></ResponseMetadata>")
        out.append(f"</{name}Response>")
        headers = [("x-amzn-RequestId", call.request_id), ("Content-Type", "text/xml")]
        return HttpReply(operation.status, headers, "".join(out).encode("utf-8", "replace"))


def _with_bucket(path: str, bucket: str) -> str:
    """An S3 path with the bucket that the host names in front: path style."""
    return f"/{bucket}{path}" if bucket else path


def _names(request: HttpRequest, service: Service) -> bool:
    """Whether what names the operation names it as one of this service: X-Amz-Target, or CBOR's path."""
    target = request.headers.get("x-amz-target")
    if target is None:
        return request.path.split("/")[2:3] == [service.target_prefix]
    return target.rpartition(".")[0] == service.target_prefix


def _parse_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise Malformed("The JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as problem:
        raise Malformed(f"The body is not JSON: {problem}") from None


def _read_rest_body(speech: Speech, shape: Shape, body: bytes, params: dict[str, Any]) -> list[str]:
    """Add the members that the body holds; the names that the shape does not have."""
    if shape.payload is not None:
        member = shape.members[shape.payload]
        found = _read_payload(speech, member, body)
        if found is not None:
            params[shape.payload] = found
        return []
    if not body or not shape.body:
        return []
    if speech.protocol == REST_XML:
        params.update(xml.read_structure(shape, xml.parse(body)))
        return []
    value = _parse_json(body)
    params.update(plain.read_structure(shape, value))
    return plain.unknown_members(shape, value)


def _read_payload(speech: Speech, member: Shape, body: bytes) -> Any:
    if member.eventstream:
        return None
    if member.kind == "blob":
        return body
    if not body:
        return None
    if member.kind == "string":
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise Malformed("The body is not UTF-8") from None
    if speech.protocol == REST_JSON:
        return plain.read(member, _parse_json(body))
    root = xml.parse(body)
    if root.name != (member.wire_name or member.name):
        raise Malformed("The XML you provided was not well-formed or did not validate against our published schema")
    return xml.read(member, root)


def _encode_rest(operation: Operation, call: Call, result: Mapping[str, Any]) -> HttpReply:
    headers = [("x-amzn-RequestId", call.request_id)]
    if call.protocol == REST_XML:
        headers += [("x-amz-request-id", call.request_id), ("x-amz-id-2", call.request_id)]
    output = operation.output
    if output is None:
        return HttpReply(operation.status, headers)
    status, located = rest.write_envelope(output, result)
    headers += located
    body, content_type = _rest_body(operation, output, call, result)
    if content_type and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", content_type))
    return HttpReply(status or operation.status, headers, b"" if call.method == "HEAD" else body)


def _rest_body(operation: Operation, output: Shape, call: Call, result: Mapping[str, Any]) -> tuple[bytes, str]:
    """The body and its content type, "" where there is none to tell."""
    if output.payload is not None:
        member, value = output.members[output.payload], result.get(output.payload)
        if value is None or member.eventstream:
            return b"", ""
        if member.is_text:
            return (value.encode() if isinstance(value, str) else bytes(value)), ""
        if call.protocol == REST_JSON:
            return msgspec.json.encode(plain.write(member, value)), "application/json"
        return _xml_document(member.wire_name or member.name, member, value), "application/xml"
    if not output.body:
        return b"", ""
    if call.protocol == REST_JSON:
        return msgspec.json.encode(plain.write_structure(output, result)), "application/json"
    if operation.name == "GetBucketLocation":
        return _bucket_location(result.get("LocationConstraint")), "application/xml"
    root = _S3_ROOTS.get(operation.name, output.name.removesuffix("Output"))
    return _xml_document(root, output, result), "application/xml"


def _xml_document(root: str, shape: Shape, value: Mapping[str, Any]) -> bytes:
    out = [_XML_HEAD, f"<{root} xmlns={xml.quote(_S3_NAMESPACE)}>"]
    xml.write_members(out, shape, value)
    out.append(f"</{root}>")
    return "".join(out).encode("utf-8", "replace")


def _bucket_location(region: str | None) -> bytes:
    """The one reply whose root holds the text itself; us-east-1 is told as nothing."""
    text = f"<LocationConstraint xmlns={xml.quote(_S3_NAMESPACE)}>{xml.escape(region or '')}</LocationConstraint>"
    return (_XML_HEAD + text).encode()
