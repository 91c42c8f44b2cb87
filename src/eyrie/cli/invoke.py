"""`eyrie invoke ENDPOINT`: one InvokeEndpoint, its reply on standard output as it is, the rest on standard error."""

from __future__ import annotations

import base64
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from eyrie.cli import payload
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public, one_line

_HEADERS = {"target_variant": "TargetVariant", "target_model": "TargetModel", "accept": "Accept"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    endpoint: str
    data: str
    content_type: str | None
    accept: str | None
    target_variant: str | None
    target_model: str | None
    as_json: bool


def run(data: Path, asked: Asked) -> None:
    """Invoke and print. Raises CommandError: the model's own words where it refused."""
    body, name = payload.body(asked.data)
    kind = asked.content_type or payload.content_type(body, name)
    public = Public.of(data)
    given: dict[str, Any] = {"EndpointName": asked.endpoint, "ContentType": kind, "Body": body}
    given |= {api: value for field, api in _HEADERS.items() if (value := getattr(asked, field)) is not None}
    began = time.perf_counter()
    reply = public.ask_plainly("sagemaker-runtime", "invoke_endpoint", _told, **given)
    answer = reply["Body"].read()
    took_ms = (time.perf_counter() - began) * 1000
    if asked.as_json:
        print_document(_document(reply, answer, took_ms))
        return
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    if sys.stdout.isatty():
        end = "" if answer.endswith(b"\n") or not answer else "\n"
        told = f"{reply.get('InvokedProductionVariant', '')}, {reply.get('ContentType', '')}, {took_ms:.1f} ms"
        print(f"{end}({told})", file=sys.stderr)


def _document(reply: dict[str, Any], answer: bytes, took_ms: float) -> dict[str, Any]:
    """The reply for programs: its body as text, or in base64 where it is none."""
    found = {
        "variant": reply.get("InvokedProductionVariant", ""),
        "content_type": reply.get("ContentType", ""),
        "milliseconds": round(took_ms, 3),
    }
    try:
        return {**found, "body": answer.decode()}
    except UnicodeDecodeError:
        return {**found, "body_base64": base64.b64encode(answer).decode()}


def _told(error: ClientError) -> CommandError:
    """A refusal in one line; a model's own error with its status and words, which the API has in fields apart."""
    told, response = error.response.get("Error", {}), error.response
    if told.get("Code") == "ModelError" and response.get("OriginalMessage") is not None:
        said = one_line(response["OriginalMessage"])
        return CommandError(f"the model answered {response.get('OriginalStatusCode', '?')}: {said}")
    return CommandError(one_line(told.get("Message") or error))
