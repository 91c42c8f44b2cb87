"""Infer requests that are not of the protocol: each is answered with 400 and a line that says what is wrong.

(name, body, Inference-Header-Content-Length or None, what the message holds)
"""

from __future__ import annotations

import json
from typing import Any

INPUT = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


def of(**changes: Any) -> bytes:
    """A request with one input, changed."""
    return json.dumps({"inputs": [{**INPUT, **changes}]}).encode()


def raw(size: Any, rest: bytes, **changes: Any) -> tuple[bytes, bytes]:
    """A request with one raw input, and the length of its JSON."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}, **changes}
    text = json.dumps({"inputs": [entry]}).encode()
    return text + rest, str(len(text)).encode()


def wanting(**output: Any) -> bytes:
    return json.dumps({"inputs": [INPUT], "outputs": [output]}).encode()


MALFORMED: list[tuple[str, bytes, bytes | None, str]] = [
    ("empty", b"", None, "not JSON"),
    ("not json", b"1,2", None, "not JSON"),
    ("cut", b'{"inputs": [', None, "not JSON"),
    ("not utf-8", b'{"id": "\xff"}', None, "not JSON"),
    ("deep", b"[" * 100_000, None, "not JSON"),
    ("nan", b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}', None, "not JSON"),
    ("a list", b"[]", None, "must be a JSON object"),
    ("text", b'"x"', None, "must be a JSON object"),
    ("no inputs", b"{}", None, "at least one tensor"),
    ("no input", b'{"inputs": []}', None, "at least one tensor"),
    ("inputs an object", b'{"inputs": {}}', None, '"inputs" must be a list'),
    ("many inputs", json.dumps({"inputs": [INPUT] * 1_025}).encode(), None, "at most 1024"),
    ("input a number", b'{"inputs": [1]}', None, "an input must be a JSON object"),
    ("id a number", b'{"id": 1, "inputs": []}', None, '"id"'),
    ("id long", json.dumps({"id": "x" * 1_025}).encode(), None, '"id"'),
    ("parameters a list", b'{"parameters": [], "inputs": []}', None, '"parameters" of the request'),
    ("no name", of(name=None), None, '"name"'),
    ("empty name", of(name=""), None, '"name"'),
    ("long name", of(name="x" * 257), None, '"name"'),
    ("no datatype", of(datatype=None), None, "datatype 'None' is none of"),
    ("unknown datatype", of(datatype="FP8"), None, "datatype 'FP8' is none of"),
    ("datatype a list", of(datatype=[]), None, "is none of"),
    ("no shape", of(shape=None), None, '"shape" must be a list'),
    ("empty shape", of(shape=[]), None, '"shape" must be a list'),
    ("shape of 33", of(shape=[1] * 33), None, '"shape" must be a list'),
    ("negative shape", of(shape=[-1, 2]), None, "is not made of sizes"),
    ("fractional shape", of(shape=[1.5]), None, "is not made of sizes"),
    ("boolean shape", of(shape=[True, 2]), None, "is not made of sizes"),
    ("large shape", of(shape=[2**31]), None, "is not made of sizes"),
    ("wrong count", of(shape=[1, 3]), None, "2 elements, but its shape [1, 3] has 3"),
    ("huge count", of(shape=[2**30] * 8), None, "2 elements, but its shape"),
    ("data null", of(data=None), None, '"data" must be a list'),
    ("data text", of(data="1,2"), None, '"data" must be a list'),
    ("data of text", of(data=["1", "2"]), None, "not all FP32"),
    ("data of objects", of(data=[{}, {}]), None, "not all FP32"),
    ("data ragged", of(data=[[1], [2]]), None, "does not have the shape"),
    ("data out of range", of(datatype="INT8", data=[1, 200]), None, "not all INT8"),
    ("data null for integers", of(datatype="INT32", data=[1, None]), None, "not all INT32"),
    ("no data", b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}', None, 'has neither "data" nor'),
    ("two of one name", json.dumps({"inputs": [INPUT, INPUT]}).encode(), None, "two inputs have the same name"),
    ("input parameters", of(parameters=1), None, "\"parameters\" of input 'x'"),
    ("shared memory", of(parameters={"shared_memory_region": "r"}), None, "shared memory"),
    ("length not a number", of(), b"x", "Inference-Header-Content-Length"),
    ("length negative", of(), b"-1", "Inference-Header-Content-Length"),
    ("length too long", of(), b"10000", "Inference-Header-Content-Length"),
    ("length huge", of(), b"9" * 5_000, "Inference-Header-Content-Length"),
    ("length short", of(), b"3", "not JSON"),
    ("length zero", of(), b"0", "not JSON"),
    ("bytes of nobody", of() + b"12", str(len(of())).encode(), "2 bytes of the body belong to no input"),
    ("raw too short", *raw(8, b"1234567"), "passes the end"),
    ("raw too long", *raw(8, b"123456789"), "1 bytes of the body belong to no input"),
    ("raw of another size", *raw(7, b"1234567"), "7 bytes, but FP32 of shape [1, 2] has 8"),
    ("raw negative", *raw(-8, b""), "passes the end"),
    ("raw text", *raw("8", b"12345678"), "passes the end"),
    ("raw true", *raw(True, b"1"), "passes the end"),
    ("raw and data", *raw(8, b"12345678", data=[1, 2]), "has both"),
    ("raw without length", raw(8, b"12345678")[0], None, "not JSON"),
    ("raw text cut", *raw(6, b"\x09\x00\x00\x00ab", datatype="BYTES", shape=[1]), "in the middle"),
    ("outputs an object", b'{"inputs": [], "outputs": {}}', None, "must hold at least one"),
    ("output a number", json.dumps({"inputs": [INPUT], "outputs": [1]}).encode(), None, "an output must be"),
    ("output without name", wanting(), None, 'an output must have a "name"'),
    ("output binary", wanting(name="y", parameters={"binary_data": "yes"}), None, "must be true or false"),
    ("classification", wanting(name="y", parameters={"classification": 3}), None, "classification"),
    (
        "two outputs of one name",
        json.dumps({"inputs": [INPUT], "outputs": [{"name": "y"}, {"name": "y"}]}).encode(),
        None,
        "two outputs have the same name",
    ),
    (
        "binary output",
        json.dumps({"inputs": [INPUT], "parameters": {"binary_data_output": 1}}).encode(),
        None,
        "must be true or false",
    ),
    (
        "content type a number",
        json.dumps({"inputs": [INPUT], "parameters": {"content_type": 1}}).encode(),
        None,
        "must be content types",
    ),
    (
        "a header in a content type",
        json.dumps({"inputs": [INPUT], "parameters": {"accept": "a\r\nb: c"}}).encode(),
        None,
        "must be content types",
    ),
]
