"""The errors that InvokeEndpoint answers, as sagemaker-runtime spells them: the code in x-amzn-errortype, the text in
JSON.

ModelError carries the container's status and message (HTTP 424); the other codes say whose limit or mistake it was.
"""

from __future__ import annotations

from json import dumps, loads
from typing import Any
from xml.sax.saxutils import escape

from eyrie.domain.names import EndpointKey
from eyrie.wire.errors import ApiError

Reply = tuple[int, bytes, bytes]  # status, header lines, body

MODEL_MESSAGE_BYTES_MAX = 65_536  # of a container's error that is shown to the client

_XML_SERVICES = frozenset(("sts", "iam", "sns", "cloudformation"))


def error(code: str, message: str, status: int) -> Reply:
    """An error of sagemaker-runtime."""
    return _reply(status, code, {"Message": message})


def from_api_error(refused: ApiError) -> Reply:
    """An error that a lower floor raised."""
    return error(refused.code, refused.message, refused.status)


def validation(message: str, status: int = 400) -> Reply:
    """ValidationError: the request cannot be sent to any model as it is."""
    return error("ValidationError", message, status)


def unavailable(message: str) -> Reply:
    """ServiceUnavailable: worth trying again."""
    return error("ServiceUnavailable", message, 503)


def model_not_ready(model: str) -> Reply:
    """ModelNotReadyException: the model of a multi-model endpoint is on its way."""
    said = f"The target model {model} is still being downloaded or loaded. Wait and try again."
    return error("ModelNotReadyException", said, 429)


def serverless_not_ready(name: str) -> Reply:
    """ModelNotReadyException: no instance of a serverless endpoint came up while the request waited."""
    said = f"The resources of serverless endpoint {name} are still being provisioned. Wait and try again."
    return error("ModelNotReadyException", said, 429)


def throttled(message: str) -> Reply:
    """ThrottlingException: more requests at once than a serverless endpoint may have."""
    return error("ThrottlingException", message, 429)


def unknown_endpoint(name: str, account: str) -> Reply:
    """The endpoint does not exist in this account and region."""
    return validation(f"Endpoint {name} of account {account} not found.")


def body_too_large(limit: int) -> Reply:
    """The body passes the endpoint's limit."""
    return validation(f"The request body is longer than the limit of {limit} bytes.", 413)


def model_error(key: EndpointKey, container: str, status: int, message: bytes, whole: bool = True) -> Reply:
    """The container answered with an error (or, status 0, not at all)."""
    text = message[:MODEL_MESSAGE_BYTES_MAX].decode("utf-8", "replace")
    client = 400 <= status < 500
    group = f"/aws/sagemaker/Endpoints/{key.name}"
    page = f"https://{key.region}.console.aws.amazon.com/cloudwatch/home?region={key.region}"
    console = f"{page}#logEventViewer:group={group}"
    cut = "" if whole and len(message) <= MODEL_MESSAGE_BYTES_MAX else " and could not load the entire response body"
    return _reply(
        424,
        "ModelError",
        {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if client else "SERVER_ERROR_FROM_MODEL",
            "LogStreamArn": f"arn:aws:logs:{key.region}:{key.account}:log-group:{group}",
            "Message": f"Received {'client' if client else 'server'} error ({status}) from {container} with message "
            f'"{text}"{cut}. See {console} in account {key.account} for more information.',
            "OriginalMessage": text,
            "OriginalStatusCode": status,
        },
    )


def timed_out(key: EndpointKey, container: str) -> Reply:
    """The container did not answer in time."""
    said = (
        f"Your invocation timed out while waiting for a response from container {container}. Review the latency "
        "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
    )
    return model_error(key, container, 0, said.encode())


def as_inference(reply: Reply) -> Reply:
    """An error of sagemaker-runtime in the Open Inference Protocol's form. A container's own 4xx keeps its status; one
    that did not answer at all is 504.
    """
    status, _, body = reply
    said = loads(body)
    if "OriginalStatusCode" in said:
        original = said["OriginalStatusCode"]
        status = original if 400 <= original < 500 else 500 if original else 504
    return inference_error(str(said.get("OriginalMessage") or said["Message"]), status)


def inference_error(message: str, status: int) -> Reply:
    """An error of the Open Inference Protocol."""
    return status, b"content-type: application/json\r\n", dumps({"error": message}).encode()


def console_missing() -> Reply:
    """There is no console here; for the person before the browser."""
    return _page(404, "There is no console here. Install it with pip install 'eyrie[console]', then start Eyrie again.")


def _page(status: int, said: str) -> Reply:
    lines = b"content-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n"
    return status, lines, f"{said}\n".encode()


def for_service(service: str, code: str, message: str, status: int) -> Reply:
    """An error in the shape that a service's clients read, for what could not be forwarded to it."""
    if service == "console":
        return _page(status, message)
    if service == "s3" or service in _XML_SERVICES:
        inner = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
        if service == "s3":
            text = f"<Error>{inner}</Error>"
        else:
            text = f"<ErrorResponse><Error><Type>Receiver</Type>{inner}</Error></ErrorResponse>"
        return status, b"content-type: application/xml\r\n", f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
    return _reply(status, code, {"__type": code, "message": message, "Message": message})


def _reply(status: int, code: str, body: dict[str, Any]) -> Reply:
    lines = b"content-type: application/json\r\nx-amzn-errortype: %b\r\n" % code.encode()
    return status, lines, dumps(body).encode()
