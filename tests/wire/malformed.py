"""Thousands of malformed API requests, made from the service models: the same ones every time, unsigned, each with
what is wrong with it.

Used here against the codec, and by the end-to-end tests against an Eyrie that runs (they sign them first).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import samples

from eyrie.wire import patterns, plain
from eyrie.wire.messages import HttpRequest
from eyrie.wire.model import Models, Operation, Service, Shape

JSON_SERVICES = ("sagemaker", "logs", "application-autoscaling", "cloudwatch", "events", "sqs")
QUERY_SERVICES = ("sts", "iam", "sns")
SITES_MAX = 1  # of each kind of defect, an operation


@dataclass(frozen=True)
class MalformedRequest:
    """One request that has to be answered with a 4xx of AWS's form."""

    service: str
    operation: str
    request: HttpRequest
    wrong: str


@dataclass(frozen=True)
class _Site:
    """A place in a body that a defect can be put in."""

    shape: Shape
    holder: Any  # the dict or list that holds the value
    key: Any
    path: str


def malformed_requests(models: Models, at_most: int | None = None) -> list[MalformedRequest]:
    """All of them, or `at_most` of them evenly spread over services, operations and defects."""
    found = [case for name in JSON_SERVICES for case in _of_json_service(models.service(name))]
    found += [case for name in QUERY_SERVICES for case in _of_query_service(models.service(name))]
    found += list(_of_runtime(models.service("sagemaker-runtime")))
    if at_most is None or at_most >= len(found):
        return found
    return [found[i * len(found) // at_most] for i in range(at_most)]


# --- json


def _of_json_service(service: Service) -> Iterator[MalformedRequest]:
    for operation in service.operations():
        rng = random.Random(f"malformed.{service.name}.{operation.name}")
        body: dict[str, Any] = {}
        if operation.input is not None:
            body = plain.write_structure(operation.input, samples.sample(operation.input, rng, optional=0.4))
        for wrong, raw in _bodies(operation, body, rng):
            yield MalformedRequest(service.name, operation.name, _json_request(service, operation.name, raw), wrong)
    ok = b"{}"
    for target in ("", "Nothing", ".", "SageMaker.", "\xff", "x" * 500):
        yield MalformedRequest(service.name, target, _json_request(service, target, ok), "no such operation")


def _json_request(service: Service, operation: str, body: bytes) -> HttpRequest:
    headers = {
        "host": "127.0.0.1:7777",
        "content-type": f"application/x-amz-json-{service.json_version}",
        "x-amz-target": f"{service.target_prefix}.{operation}",
    }
    return HttpRequest("POST", "/", "", headers, body)


def _bodies(operation: Operation, body: dict[str, Any], rng: random.Random) -> Iterator[tuple[str, bytes]]:
    text = json.dumps(body)
    broken = _broken_json(text)
    yield from rng.sample(broken, 3)
    if operation.input is None:
        return
    yield "an extra member", json.dumps({**body, "NoSuchMember": {"a": [1]}}).encode()
    for name in operation.input.required[:2]:
        wire_name = operation.input.members[name].wire_name or name
        yield f"{name} is missing", json.dumps({k: v for k, v in body.items() if k != wire_name}).encode()
    yield from _changed(operation.input, body, rng)


def _broken_json(text: str) -> list[tuple[str, bytes]]:
    return [
        ("truncated", text[:-1].encode() or b"{"),
        ("trailing text", text.encode() + b"}"),
        ("a list", b"[" + text.encode() + b"]"),
        ("a string", b'"text"'),
        ("a number", b"12"),
        ("not UTF-8", b'{"Name": "\xff\xfe"}'),
        ("half a surrogate pair", b'{"NoSuchMember": "\\ud800"}'),
        ("NaN", b'{"NoSuchMember": NaN}'),
        ("nested deeply", b'{"NoSuchMember": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        ("a huge number", b'{"NoSuchMember": ' + b"9" * 5_000 + b"}"),
        ("control characters", b'{"Name": "\x00\x01"}'),
        ("single quotes", b"{'Name': 'x'}"),
        ("a form", b"Action=CreateModel&Version=1"),
        ("XML", b"<CreateModel/>"),
        ("binary", bytes(range(256))),
    ]


def _changed(shape: Shape, body: dict[str, Any], rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """The body with one thing wrong, for each kind of defect at up to SITES_MAX places."""
    everywhere = list(_sites(shape, body, ""))
    for name, defect in _DEFECTS.items():
        sites = [site for site in everywhere if defect(site, rng) is not _NOT_HERE]
        for site in rng.sample(sites, min(SITES_MAX, len(sites))):
            kept = site.holder[site.key]
            site.holder[site.key] = defect(site, rng)
            yield f"{name} at {site.path}", json.dumps(body).encode()
            site.holder[site.key] = kept


def _sites(shape: Shape, value: Any, path: str) -> Iterator[_Site]:
    if shape.kind == "structure":
        for name, member in shape.members.items():
            wire_name = member.wire_name or name
            if wire_name in value:
                yield _Site(member, value, wire_name, f"{path}{name}")
                yield from _sites(member, value[wire_name], f"{path}{name}.")
    elif shape.kind == "list" and shape.element is not None:
        for i, item in enumerate(value):
            yield _Site(shape.element, value, i, f"{path}{i}")
            yield from _sites(shape.element, item, f"{path}{i}.")
    elif shape.kind == "map" and shape.value is not None:
        for key, item in value.items():
            yield _Site(shape.value, value, key, f"{path}{key}")
            yield from _sites(shape.value, item, f"{path}{key}.")


_NOT_HERE = object()


def _wrong_type(site: _Site, rng: random.Random) -> Any:
    wrong: dict[str, list[Any]] = {
        "string": [1, True, ["x"], {"x": "y"}, 1.5],
        "integer": ["1", True, [1], 1.5, 2**40],
        "long": ["1", False, {}, 1.5, 2**70],
        "float": ["1", True, [1.0]],
        "double": ["1", True, [1.0]],
        "boolean": ["true", 1, [True]],
        "timestamp": ["yesterday", True, [1], 1e300],
        "blob": [1, "not base64!", ["x"]],
        "list": ["x", 1, {"a": 1}],
        "map": ["x", 1, ["a"]],
        "structure": ["x", 1, ["a"]],
    }
    return _NOT_HERE if site.shape.document else rng.choice(wrong[site.shape.kind])


def _too_long(site: _Site, _rng: random.Random) -> Any:
    shape = site.shape
    if shape.maximum is None or shape.maximum > 100_000:
        return _NOT_HERE
    value = site.holder[site.key]
    if shape.kind == "string" and not shape.enum:
        return "a" * (int(shape.maximum) + 1)
    if shape.kind == "list" and value:
        return [value[0]] * (int(shape.maximum) + 1)
    return _NOT_HERE


def _too_short(site: _Site, _rng: random.Random) -> Any:
    if not site.shape.minimum or site.shape.minimum < 1:
        return _NOT_HERE
    return {"string": "", "list": [], "map": {}}.get(site.shape.kind, _NOT_HERE)


def _bad_pattern(site: _Site, _rng: random.Random) -> Any:
    shape = site.shape
    if shape.kind != "string" or shape.pattern is None or shape.enum:
        return _NOT_HERE
    low, high = int(shape.minimum or 0), int(shape.maximum or 1000)
    for text in ("!", "\u65e5\u672c", " ", "a\nb", "-", "/x y/", "\\", "a" * low + "!", "!" * max(1, low)):
        if low <= len(text) <= high and not patterns.matches(shape.pattern, text):
            return text
    return _NOT_HERE


def _bad_enum(site: _Site, rng: random.Random) -> Any:
    if not site.shape.enum:
        return _NOT_HERE
    return rng.choice(["NoSuchValue", "", site.shape.enum[0].swapcase() + " "])


def _out_of_range(site: _Site, rng: random.Random) -> Any:
    shape = site.shape
    if shape.kind not in ("integer", "long", "float", "double"):
        return _NOT_HERE
    beyond = [] if shape.maximum is None else [shape.maximum + 1]
    beyond += [] if shape.minimum is None else [shape.minimum - 1]
    beyond = [int(v) if shape.kind in ("integer", "long") else v for v in beyond if abs(v) < 2**31]
    return rng.choice(beyond) if beyond else _NOT_HERE


def _null_inside(site: _Site, _rng: random.Random) -> Any:
    return None if isinstance(site.holder, list) else _NOT_HERE


_DEFECTS: dict[str, Callable[[_Site, random.Random], Any]] = {
    "wrong type": _wrong_type,
    "too long": _too_long,
    "too short": _too_short,
    "bad pattern": _bad_pattern,
    "bad enum": _bad_enum,
    "out of range": _out_of_range,
    "null": _null_inside,
}


# --- query


def _of_query_service(service: Service) -> Iterator[MalformedRequest]:
    for operation in service.operations():
        rng = random.Random(f"malformed.{service.name}.{operation.name}")
        form = {"Action": operation.name, "Version": service.api_version}
        shape = operation.input
        for name in shape.required[:1] if shape is not None else ():
            yield _form_case(service, operation.name, form, f"{name} is missing")
        if not shape or not shape.required:
            yield _form_case(service, operation.name, {**form, "NoSuchParameter": "1"}, "an extra parameter")
            continue
        for name, member in shape.members.items():
            if member.kind in ("integer", "long", "boolean", "timestamp", "list", "structure"):
                yield _form_case(service, operation.name, {**form, name: "x y"}, f"wrong type at {name}")
                break
        name = rng.choice(shape.required)
        if shape.members[name].kind == "string" and shape.members[name].maximum:
            text = "a" * (int(shape.members[name].maximum or 0) + 1)
            if len(text) < 100_000:
                yield _form_case(service, operation.name, {**form, name: text}, f"too long at {name}")
    yield _form_case(service, "Nothing", {"Action": "Nothing", "Version": service.api_version}, "no such operation")
    yield _form_case(service, "", {"Version": service.api_version}, "no operation")
    first = service.operation_names[0]
    for raw in (
        b"%ff%fe",
        b"Action=%zz&Version",
        b"&&&",
        b"{}",
        b"a" * 1000,
        b"Action=" + first.encode() + b"&a.b.c.=1",
    ):
        yield MalformedRequest(service.name, first, _form_request(raw), "not a form")


def _form_case(service: Service, operation: str, form: dict[str, str], wrong: str) -> MalformedRequest:
    return MalformedRequest(service.name, operation, _form_request(urlencode(form).encode()), wrong)


def _form_request(body: bytes) -> HttpRequest:
    headers = {"host": "127.0.0.1:7777", "content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    return HttpRequest("POST", "/", "", headers, body)


# --- rest-json


def _of_runtime(service: Service) -> Iterator[MalformedRequest]:
    base = {"host": "127.0.0.1:7777", "content-type": "text/csv"}
    for operation in service.operations():
        action = operation.path.rpartition("/")[2]
        assert operation.input is not None
        for name in ("a" * 64, "-a", "a_b", "a b", "\u65e5", "a.b", "%"):
            path = f"/endpoints/{quote(name)}/{action}"
            yield _runtime_case(operation, path, base, f"bad endpoint name {name[:10]}")
        path = f"/endpoints/churn/{action}"
        for name, member in operation.input.members.items():
            if member.location != "header" or not member.wire_name or not member.maximum:
                continue
            value = "a" * (int(member.maximum) + 1) if member.kind == "string" else str(int(member.maximum) + 1)
            yield _runtime_case(operation, path, {**base, member.wire_name.lower(): value}, f"too long at {name}")
    for path in ("/endpoints/churn", "/endpoints/churn/nothing", "/endpoints//invocations", "/endpoints/churn/a/b/c"):
        yield _runtime_case(operation, path, base, "no such path")


def _runtime_case(operation: Operation, path: str, headers: dict[str, str], wrong: str) -> MalformedRequest:
    return MalformedRequest(operation.service, operation.name, HttpRequest("POST", path, "", headers, b"1,2"), wrong)
