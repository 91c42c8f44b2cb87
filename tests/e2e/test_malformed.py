"""Malformed API requests by the thousand, signed like good ones, against an Eyrie that runs: each gets a modelled 4xx,
none a 5xx, and Eyrie still serves."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from malformed import MalformedRequest, malformed_requests

from eyrie.wire.model import Models

from .conftest import RealEyrie

REQUESTS = 2_400


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def code(self) -> str:
        """The error code that a client of the protocol reads."""
        if "xml" in self.headers.get("content-type", ""):
            root = ElementTree.fromstring(self.body)
            return next(str(node.text) for node in root.iter() if node.tag.endswith("Code"))
        body = json.loads(self.body)
        assert body.get("message", body.get("Message"))
        return str(self.headers.get("x-amzn-errortype") or body["__type"])


class Sender:
    """Signs with botocore, sends over one kept-alive connection, opens another when that one was closed."""

    def __init__(self, eyrie: RealEyrie) -> None:
        exports = eyrie.exports()
        self.keys = Credentials(exports["AWS_ACCESS_KEY_ID"], exports["AWS_SECRET_ACCESS_KEY"])
        self.connection = http.client.HTTPConnection("127.0.0.1", eyrie.port, timeout=30)
        self.models = Models()

    def send(self, case: MalformedRequest) -> Reply:
        """The reply to one request."""
        made = case.request
        target = made.path + (f"?{made.query}" if made.query else "")
        headers = {**made.headers, "host": f"127.0.0.1:{self.connection.port}"}
        signed = AWSRequest(made.method, f"http://{headers['host']}{target}", headers, made.body)
        SigV4Auth(self.keys, self.models.service(case.service).signing_name, "us-east-1").add_auth(signed)
        self.connection.request(made.method, target, body=made.body, headers=dict(signed.headers.items()))
        reply = self.connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read())


@pytest.fixture(scope="module")
def sender(eyrie: RealEyrie) -> Iterator[Sender]:
    """One client."""
    found = Sender(eyrie)
    yield found
    found.connection.close()


def test_every_malformed_api_request_gets_a_modelled_4xx(sender: Sender) -> None:
    cases = malformed_requests(sender.models, REQUESTS)
    assert len(cases) >= 2_000
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    for case in cases:
        reply = sender.send(case)
        if not 400 <= reply.status < 500:
            wrong.append(f"{case.service}.{case.operation} ({case.wrong}): {reply.status} {reply.body[:200]!r}")
        else:
            codes[reply.code()] += 1
    assert not wrong, f"{len(wrong)} of {len(cases)}: " + "\n".join(wrong[:20])
    assert len(codes) > 1
    assert boto3.client("sagemaker").list_endpoints()["Endpoints"] == []
