"""The Open Inference Protocol's bodies: read, translated for a model, translated back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from malformed_v2 import INPUT, MALFORMED

from eyrie.wire import openinference as v2
from eyrie.wire.tensors import Tensor


def request(*inputs: dict[str, Any], **more: Any) -> v2.Request:
    return v2.read_request(json.dumps({"inputs": inputs or [INPUT], **more}).encode(), None)


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


@pytest.mark.parametrize(("body", "length", "said"), [case[1:] for case in MALFORMED], ids=[m[0] for m in MALFORMED])
def test_what_is_not_of_the_protocol_is_refused(body: bytes, length: bytes | None, said: str) -> None:
    with pytest.raises(v2.ProtocolError) as refused:
        v2.read_request(body, length)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400


def test_one_tensor_of_numbers_travels_as_its_own_bytes() -> None:
    raw = np.array([[1, 2, 3]], np.float32).tobytes()
    head = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
    text = json.dumps({"id": "7", "inputs": [head]}).encode()
    found = v2.read_request(text + raw, str(len(text)).encode())
    assert found.request_id == "7"
    kind, body = v2.model_input(found)
    assert kind == "application/x-npy"
    assert body.endswith(raw)
    assert v2.model_input(request(tensor("x", "FP32", [1, 3], [1, 2, 3]))) == (kind, body)
    assert v2.model_input(request(tensor("x", "FP32", [1, 3], [[1, 2, 3]]))) == (kind, body)


@pytest.mark.parametrize(
    ("inputs", "document"),
    [
        ([tensor("t", "BYTES", [2], ["a", "b"])], {"inputs": ["a", "b"]}),
        ([tensor("t", "BYTES", [2, 1], ["a", "b"])], {"inputs": [["a"], ["b"]]}),
        (
            [tensor("age", "INT64", [2], [1, 2]), tensor("job", "BYTES", [2, 1], ["a", "b"])],
            {"columns": ["age", "job"], "data": [[1, "a"], [2, "b"]]},
        ),
        (
            [tensor("ids", "INT64", [1, 2], [1, 2]), tensor("mask", "INT64", [1, 2], [1, 1])],
            {"inputs": {"ids": [[1, 2]], "mask": [[1, 1]]}},
        ),
    ],
)
def test_text_columns_and_several_tensors_travel_as_json(inputs: list[Any], document: Any) -> None:
    kind, body = v2.model_input(request(*inputs))
    assert kind == "application/json"
    assert json.loads(body) == document


def test_bytes_that_are_no_text_travel_as_base64() -> None:
    text = b'{"inputs": [{"name": "i", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}]}'
    found = v2.read_request(text + b"\x02\x00\x00\x00\xff\xd8", str(len(text)).encode())
    assert json.loads(v2.model_input(found)[1]) == {"inputs": [{"b64": "/9g="}]}


@pytest.mark.parametrize(
    ("parameters", "inputs", "expected"),
    [
        ({"content_type": "text/csv"}, [tensor("x", "FP64", [2, 2], [1, None, 3.5, -4])], b"1.0,\n3.5,-4.0\n"),
        ({"content_type": "text/csv"}, [tensor("x", "BYTES", [2], ['a "b", c', "d"])], b'"a ""b"", c"\nd\n'),
        (
            {"content_type": "text/csv"},
            [tensor("a", "BOOL", [2], [True, False]), tensor("b", "INT8", [2], [1, 2])],
            b"1,1\n0,2\n",
        ),
        ({"content_type": "application/json"}, [tensor("x", "INT8", [1, 2], [1, 2])], b'{"instances": [[1, 2]]}'),
    ],
)
def test_a_client_may_say_what_the_model_is_given(parameters: Any, inputs: list[Any], expected: bytes) -> None:
    assert v2.model_input(request(*inputs, parameters=parameters)) == (parameters["content_type"], expected)


def test_only_rows_are_csv() -> None:
    with pytest.raises(v2.ProtocolError, match="only rows"):
        v2.model_input(request(tensor("x", "INT8", [1, 1, 1], [1]), parameters={"content_type": "text/csv"}))


def shown(found: list[Tensor]) -> list[tuple[str, str, list[int], list[Any]]]:
    text = v2.encode_reply(request(), found, "m", "v")[1]
    return [(o["name"], o["datatype"], o["shape"], o["data"]) for o in json.loads(text)["outputs"]]


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b"[1, 2]", [("output", "INT64", [2], [1, 2])]),
        ("application/json; charset=utf-8", b"[[0.5, 1]]", [("output", "FP64", [1, 2], [0.5, 1.0])]),
        ("application/json", b'{"predictions": [0.5]}', [("output", "FP64", [1], [0.5])]),
        ("application/json", b'{"predictions": [{"score": 0.5}, {"score": 1}]}', [("score", "FP64", [2], [0.5, 1])]),
        (
            "application/json",
            b'[{"label": "A", "score": 0.9}]',
            [("label", "BYTES", [1], ["A"]), ("score", "FP64", [1], [0.9])],
        ),
        (
            "application/json",
            b'{"outputs": [{"name": "y", "datatype": "INT8", "shape": [1], "data": [3]}]}',
            [("y", "INT8", [1], [3])],
        ),
        ("application/json", b'{"outputs": {"a": [[1]]}}', [("a", "INT64", [1, 1], [1])]),
        ("application/json", b'{"a": [1], "b": "x"}', [("a", "INT64", [1], [1]), ("b", "BYTES", [1], ["x"])]),
        ("application/json", b"0.5", [("output", "FP64", [1], [0.5])]),
        ("application/json", b"null", [("output", "BYTES", [1], ["null"])]),
        ("application/json", b"[[1], [1, 2]]", [("output", "BYTES", [1], ["[[1], [1, 2]]"])]),
        ("application/json", b'{"a": {"b": 1}}', [("output", "BYTES", [1], ['{"a": {"b": 1}}'])]),
        ("application/jsonlines", b"1\n2\n", [("output", "INT64", [2], [1, 2])]),
        ("text/csv", b"0\n1\n", [("output", "FP64", [2], [0, 1])]),
        ("text/csv; charset=utf-8", b"0.5,1\n", [("output", "FP64", [2], [0.5, 1])]),
        ("text/csv", b"1,2\n3,4\n", [("output", "FP64", [2, 2], [1, 2, 3, 4])]),
        ("text/csv", b"a,b\n", [("output", "BYTES", [1], ["a,b\n"])]),
        ("text/plain", b"hello", [("output", "BYTES", [1], ["hello"])]),
        ("", b"hello", [("output", "BYTES", [1], ["hello"])]),
    ],
)
def test_a_models_reply_becomes_tensors(kind: str, body: bytes, expected: Any) -> None:
    assert shown(v2.model_output(kind, body)) == expected


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/x-npy", b"x"),
        ("application/jsonlines", b"1\n{"),
        ("text/csv", b"\xff"),
        ("application/json", b'{"outputs": [{"datatype": "FP32"}]}'),
        ("application/json", b'{"outputs": [{"name": "y", "datatype": "INT8", "shape": [2], "data": [3]}]}'),
    ],
)
def test_a_reply_that_is_not_what_it_says_is_told(kind: str, body: bytes) -> None:
    with pytest.raises(v2.UnreadableReply):
        v2.model_output(kind, body)


ONE = Tensor("output", "INT16", (2,), b"\x01\x00\x02\x00")
TWO = Tensor("label", "BYTES", (1,), [b"ab"])


def test_an_only_output_has_the_name_it_is_asked_for_by() -> None:
    asked = request(outputs=[{"name": "y", "parameters": {"binary_data": True}}], id="9")
    length, body = v2.encode_reply(asked, [ONE], "m", "v")
    assert length is not None
    assert json.loads(body[:length]) == {
        "model_name": "m",
        "model_version": "v",
        "id": "9",
        "outputs": [{"name": "y", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}}],
    }
    assert body[length:] == b"\x01\x00\x02\x00"


def test_outputs_are_chosen_and_each_is_sent_as_asked() -> None:
    asked = request(
        outputs=[{"name": "label", "parameters": {"binary_data": True}}, {"name": "output"}],
    )
    length, body = v2.encode_reply(asked, [ONE, TWO], "m", "v")
    assert length is not None
    outputs = json.loads(body[:length])["outputs"]
    assert [o["name"] for o in outputs] == ["label", "output"]
    assert outputs[1]["data"] == [1, 2]
    assert body[length:] == b"\x02\x00\x00\x00ab"
    with pytest.raises(v2.ProtocolError, match="no output 'z', it has output, label"):
        v2.encode_reply(request(outputs=[{"name": "z"}]), [ONE, TWO], "m", "v")


def test_all_outputs_may_be_asked_for_raw() -> None:
    length, body = v2.encode_reply(request(parameters={"binary_data_output": True}), [ONE, TWO], "m", "v")
    assert length is not None
    assert body[length:] == b"\x01\x00\x02\x00\x02\x00\x00\x00ab"


def test_bytes_that_are_no_text_must_be_asked_for_raw() -> None:
    with pytest.raises(v2.ProtocolError, match="ask for it with binary_data"):
        v2.encode_reply(request(), [Tensor("y", "BYTES", (1,), [b"\xff"])], "m", "v")


def test_not_a_number_is_null() -> None:
    found = Tensor("y", "FP32", (2,), np.array([np.nan, 1], np.float32).tobytes())
    assert json.loads(v2.encode_reply(request(), [found], "m", "v")[1])["outputs"][0]["data"] == [None, 1.0]
