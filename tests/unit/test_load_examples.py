"""The examples for those who have a load tester: what Locust's user and Artillery's scenario send is understood."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FOLDER = Path(__file__).parents[2] / "examples" / "load"


class User:
    """Stands in for Locust's."""

    host = "http://127.0.0.1:7777"

    def __init__(self, client: Any) -> None:
        self.client = client


def test_locust_signs_what_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    locust = ModuleType("locust")
    locust.FastHttpUser, locust.task = User, lambda one: one  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "locust", locust)
    given = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-west-1"}
    for name, value in {**given, "EYRIE_ENDPOINT": "iris", "EYRIE_ROW": "1,2"}.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("locustfile", FOLDER / "locustfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sent: list[tuple[str, dict[str, Any]]] = []
    post: Callable[..., None] = lambda path, **more: sent.append((path, more))  # noqa: E731
    module.Caller(SimpleNamespace(post=post)).invoke()
    ((path, more),) = sent
    assert path == "/endpoints/iris/invocations"
    headers = {name.lower(): value for name, value in more["headers"].items()}
    signed = re.search(r"Credential=AK/\d{8}/eu-west-1/sagemaker/aws4_request, .*Signature=([0-9a-f]{64})$",
                       headers["authorization"])  # fmt: skip
    assert signed is not None
    again = AWSRequest("POST", User.host + path, headers={"Content-Type": headers["content-type"]}, data=more["data"])
    again.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AK", "s"), "sagemaker", "eu-west-1")
    again.headers["X-Amz-Date"] = headers["x-amz-date"]
    text = signer.string_to_sign(again, signer.canonical_request(again))
    assert signer.signature(text, again) == signed[1]  # of the bytes, the path and the type that are sent


def test_artillery_posts_an_inference_request_with_a_key() -> None:
    text = (FOLDER / "artillery.yml").read_text()
    assert 'url: "/v2/models/{{ $processEnvironment.EYRIE_ENDPOINT }}/infer"' in text
    assert 'authorization: "Bearer {{ $processEnvironment.EYRIE_KEY }}"' in text
    shape = json.loads(re.search(r"shape: (\[.*\])", text)[1])  # type: ignore[index]
    data = json.loads(re.search(r"data: (\[.*\])", text)[1])  # type: ignore[index]
    assert shape == [1, len(data)]
