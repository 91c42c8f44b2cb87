"""Thousands of random calls, well formed and malformed: every answer is a result that encodes or a modelled 4xx.

Shapes come from the models, names from a small set so that calls meet each other's resources. Seeds are fixed.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from eyrie.control import dispatch
from eyrie.control.context import Caller, Context, Operation
from eyrie.control.coverage_lists import ACTS, STORED
from eyrie.domain.names import Scope
from eyrie.settings import Settings
from eyrie.wire.codec import Wire
from eyrie.wire.errors import ApiError
from eyrie.wire.messages import Call, HttpRequest
from eyrie.wire.model import Models, Shape

WORDS = (
    "a",
    "b",
    "m",
    "e",
    "AllTraffic",
    "eyrie/xgboost",
    "s3://b/k",
    "arn:aws:sagemaker:us-east-1:123456789012:model/a",
    "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e",
    "arn:aws:iam::123456789012:role/Eyrie",
    "/aws/sagemaker/Endpoints/e",
    '{"Statement": []}',
    "{}",
    "1",
)


def value(shape: Shape, rng: random.Random, depth: int = 0) -> Any:
    """A value that fits the shape's types and lengths; patterns it meets by luck."""
    match shape.kind:
        case "structure":
            chance = 0.5 if depth < 2 else 0.2
            names = [n for n in shape.members if n in shape.required or rng.random() < chance]
            return {n: value(shape.members[n], rng, depth + 1) for n in names}
        case "list":
            assert shape.element is not None
            size = max(int(shape.minimum or 0), rng.choice((0, 1, 1, 2)))
            return [value(shape.element, rng, depth + 1) for _ in range(size)]
        case "map":
            assert shape.key is not None
            assert shape.value is not None
            return {value(shape.key, rng): value(shape.value, rng, depth + 1) for _ in range(rng.choice((0, 1, 2)))}
        case "string":
            return rng.choice(shape.enum) if shape.enum else rng.choice(WORDS)
        case "integer" | "long":
            return rng.choice((int(shape.minimum or 0), int(shape.maximum or 7), 3))
        case "float" | "double":
            return rng.choice((0.0, 1.5, float(shape.maximum or 2)))
        case "boolean":
            return rng.random() < 0.5
        case "timestamp":
            return datetime.fromtimestamp(rng.choice((0, 1_700_000_000, 4_000_000_000)), UTC)
    return b"x"


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


@pytest.fixture
def context(door: Any) -> Context:
    surroundings = door.app._with
    return Context(
        Scope(), Caller("AKIAEYRIE", "123456789012"), 1_700_000_000_000, door.store, surroundings.identity,
        surroundings.logs, surroundings.queries, door.endpoints, surroundings.instance_types, surroundings.metrics
    )  # fmt: skip


@pytest.mark.parametrize("service", ["sagemaker", "iam", "sts", "logs"])
def test_well_formed_calls_give_results_or_modelled_refusals(models: Models, context: Context, service: str) -> None:
    rng = random.Random(f"well formed {service}")
    wire = Wire(models, lambda: "r")
    table = dispatch.table(models, Settings())
    names = sorted(n for s, n in table if s == service and (s != "sagemaker" or n in ACTS | STORED))
    answered = dict.fromkeys(names, 0)
    for n in range(len(names) * 12):
        name = names[n % len(names)] if n >= len(names) else rng.choice([x for x in names if "Create" in x] or names)
        operation = models.operation(service, name)
        params = value(operation.input, rng) if operation.input else {}
        status = outcome(wire, table[service, name], context, made_call(service, name, params))
        assert status == operation.status or 400 <= status < 500, (name, params)
        answered[name] += status == operation.status
    assert sum(answered.values()) > len(names)


def outcome(wire: Wire, operation: Operation, context: Context, call: Call) -> int:
    """The status of a call's answer."""
    try:
        return wire.encode(call, operation(context, call.params)).status
    except ApiError as error:
        return wire.refuse(call, error).status


def made_call(service: str, name: str, params: dict[str, Any]) -> Call:
    protocol = "query" if service in ("iam", "sts") else "json"
    return Call(service=service, operation=name, protocol=protocol, params=params, request_id="r")


def request_of(service: str, name: str, body: Any) -> HttpRequest:
    headers = {"x-amz-target": f"SageMaker.{name}", "content-type": "application/x-amz-json-1.1", "host": "h"}
    return HttpRequest("POST", "/", "", headers, json.dumps(body, default=str).encode())


def spoil(given: Any, rng: random.Random) -> Any:
    """The parameters with one thing wrong somewhere."""
    if isinstance(given, dict) and given and rng.random() < 0.7:
        name = rng.choice(list(given))
        kind = rng.random()
        if kind < 0.2:
            return {k: v for k, v in given.items() if k != name}
        if kind < 0.4:
            return {**given, "Unheard": 1}
        return {**given, name: spoil(given[name], rng)}
    if isinstance(given, list) and given and rng.random() < 0.7:
        return [spoil(given[0], rng), *given[1:]]
    wrong = (None, [], {}, "x" * 100_000, -1, 10**30, 1e400, "\u0000", True, [[[]]], {"": {}}, " ", "\ud800")
    return rng.choice([w for w in wrong if w != given])


def test_malformed_calls_of_every_operation_are_modelled_4xx(models: Models, context: Context) -> None:
    rng = random.Random("malformed")
    wire = Wire(models, lambda: "r")
    table = dispatch.table(models, Settings())
    refused = 0
    for name in models.service("sagemaker").operation_names:
        shape = models.operation("sagemaker", name).input
        for _ in range(5):
            body = spoil(value(shape, rng) if shape else {}, rng)
            request = request_of("sagemaker", name, body)
            try:
                call = wire.decode(request, "r")
                wire.encode(call, table["sagemaker", name](context, call.params))
            except ApiError as error:
                refused += 1
                reply = wire.refuse(request, error)
                assert 400 <= reply.status < 500, (name, body)
                assert json.loads(reply.body)["__type"]
    assert refused > 1900
