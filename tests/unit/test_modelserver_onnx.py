"""ONNX graphs: converted from models that were really trained, and general tensors; answers are the originals'."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import predict_each
from eyrie.modelserver.codecs import CSV, JSON, NPY, BadPayload
from eyrie.modelserver.frameworks.interface import CallModel, Invocation, LoadError, RowModel, Source
from eyrie.modelserver.loader import load

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
skl2onnx = pytest.importorskip("skl2onnx")

ROWS = np.random.default_rng(5).normal(size=(150, 4)).astype(np.float32)
CLASSES = np.digitize(ROWS.sum(axis=1), (-1, 1))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "model").mkdir()
    return Source(tmp_path, {})


@pytest.fixture(scope="module")
def classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, CLASSES)


def put(source: Source, graph: Any, name: str = "model.onnx") -> None:
    (source.model_dir / name).write_bytes(graph.SerializeToString())


def rows_of(source: Source, env: Mapping[str, str] | None = None) -> RowModel:
    model = load(replace(source, env=env or {}))
    assert isinstance(model, RowModel)
    return model


def ask(model: RowModel, body: bytes, kind: str, accept: str = "") -> Any:
    wanted = codecs.negotiate(accept, model.offers, model.default_accept)
    (outcome,) = predict_each(model.predict, model.shape, [codecs.decode(body, kind, model.shape)])
    if isinstance(outcome, Exception):
        raise outcome
    return json.loads(model.encode(outcome, wanted))


def csv_of(rows: Any) -> bytes:
    return "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()


@pytest.mark.parametrize("zipmap", [True, False], ids=["maps", "matrix"])
def test_a_converted_classifier_gives_its_labels_and_its_chances(source: Source, classifier: Any, zipmap: bool) -> None:
    put(source, skl2onnx.to_onnx(classifier, ROWS[:1], options={"zipmap": zipmap}))
    assert ask(rows_of(source), csv_of(ROWS), CSV) == classifier.predict(ROWS).tolist()
    chosen = rows_of(source, {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probabilities,labels"})
    found = ask(chosen, csv_of(ROWS[:5]), CSV, JSON)["predictions"]
    assert [one["predicted_label"] for one in found] == classifier.predict(ROWS[:5]).tolist()
    assert [one["labels"] for one in found] == [[0, 1, 2]] * 5
    assert np.allclose([one["probabilities"] for one in found], classifier.predict_proba(ROWS[:5]), atol=1e-5)


def test_a_converted_regression_gives_a_value_a_row(source: Source) -> None:
    regression = LinearRegression().fit(ROWS, ROWS.sum(axis=1))
    put(source, skl2onnx.to_onnx(regression, ROWS[:1]), "sums.onnx")
    model = rows_of(source)
    assert model.shape.width == 4
    assert np.allclose(ask(model, csv_of(ROWS[:7]), CSV), regression.predict(ROWS[:7]), atol=1e-5)
    with pytest.raises(BadPayload, match="Feature size of inference data 2 "):
        ask(model, b"1,2", CSV)


def test_columns_of_numbers_and_text_come_by_name(source: Source) -> None:
    colours = np.array(["red", "green", "blue"])[CLASSES]
    frame = np.column_stack([ROWS[:, 0].astype(object), colours])
    picked = make_column_transformer((StandardScaler(), [0]), (OneHotEncoder(), [1]))
    pipeline = make_pipeline(picked, LogisticRegression()).fit(frame, CLASSES)
    types = skl2onnx.common.data_types
    inputs = [("size", types.FloatTensorType([None, 1])), ("colour", types.StringTensorType([None, 1]))]
    put(source, skl2onnx.convert_sklearn(pipeline, initial_types=inputs))
    model = rows_of(source)
    assert model.shape.names == ("size", "colour")
    told = json.dumps([{"colour": str(c), "size": float(s)} for s, c in frame[:9]]).encode()
    assert ask(model, told, JSON) == pipeline.predict(frame[:9]).tolist()
    assert ask(model, b"0.5,red\n0.5,blue", CSV) == pipeline.predict([[0.5, "red"], [0.5, "blue"]]).tolist()
    with pytest.raises(BadPayload, match="size: could not convert"):
        ask(model, b"huge,red", CSV)


def graph(nodes: Any, inputs: Any, outputs: Any) -> Any:
    """A model of a few nodes; ports are (name, type, dims)."""
    ports = [[onnx.helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)]
    made = onnx.helper.make_graph(nodes, "test", *ports)
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


FLOAT = onnx.TensorProto.FLOAT
INT64 = onnx.TensorProto.INT64


def tensors_of(source: Source) -> CallModel:
    model = load(source)
    assert isinstance(model, CallModel)
    return model


def call(model: CallModel, body: bytes | Any, kind: str = JSON, accept: str = "") -> Any:
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = model.call(Invocation(given, kind, accept))
    assert answer.status == 200
    return json.loads(answer.body) if answer.content_type == JSON else answer.body


def test_general_tensors_in_every_form(source: Source) -> None:
    nodes = [onnx.helper.make_node("GlobalAveragePool", ["pixels"], ["mean"])]
    put(source, graph(nodes, [("pixels", FLOAT, ["n", 1, 2, 2])], [("mean", FLOAT, ["n", 1, 1, 1])]))
    model = tensors_of(source)
    image = [[[1.0, 2.0], [3.0, 6.0]]]
    assert call(model, {"instances": [image, image]}) == {"predictions": [[[[3.0]]], [[[3.0]]]]}
    assert call(model, {"instances": [{"pixels": image}]}) == {"predictions": [[[[3.0]]]]}
    assert call(model, {"inputs": {"pixels": [image]}}) == {"outputs": [[[[3.0]]]]}
    assert call(model, [image]) == [[[[3.0]]]]
    stream = io.BytesIO()
    np.save(stream, np.array([image], dtype=np.float64))
    reply = call(model, stream.getvalue(), NPY, NPY)
    assert np.array_equal(np.load(io.BytesIO(reply)), np.full((1, 1, 1, 1), 3.0, np.float32))


def test_several_inputs_and_outputs_by_name(source: Source) -> None:
    nodes = [onnx.helper.make_node("Add", ["a", "b"], ["sum"]), onnx.helper.make_node("Mul", ["a", "b"], ["product"])]
    ports = [("a", INT64, ["n", 2]), ("b", INT64, ["n", 2])], [("sum", INT64, ["n", 2]), ("product", INT64, ["n", 2])]
    put(source, graph(nodes, *ports))
    model = tensors_of(source)
    item = {"a": [1, 2], "b": [3, 4]}
    assert call(model, {"instances": [item]}) == {"predictions": [{"sum": [4, 6], "product": [3, 8]}]}
    whole = {"a": [[1, 2]], "b": [[3, 4]]}
    assert call(model, {"inputs": whole}) == {"outputs": {"sum": [[4, 6]], "product": [[3, 8]]}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is not JSON"),
        (b"{}", 'neither "instances" nor "inputs"'),
        (b'{"instances": []}', '"instances" must be a list that is not empty'),
        (b'{"instances": [{"a": [1, 2]}]}', "instance 1 lacks the input 'b'"),
        (b'{"inputs": {"a": [[1, 2]], "c": [[1, 2]]}}', "no input 'c'; it has 'a', 'b'"),
        (b'{"inputs": {"a": [[1, 2]], "b": [[1], [2, 3]]}}', "b: the lists do not make a tensor"),
        (b'{"inputs": {"a": [[1, 2, 3]], "b": [[1, 2]]}}', r"a: a tensor of shape \[1, 3\] came where \[any, 2\]"),
        (b'{"inputs": {"a": [[1.5, 2]], "b": [[1, 2]]}}', "a: whole numbers are wanted"),
        (b'{"inputs": {"a": [["x", "y"]], "b": [[1, 2]]}}', "a: numbers are wanted"),
        (b"[[1, 2]]", "this model has the inputs 'a', 'b'"),
    ],
)
def test_what_is_refused(source: Source, body: bytes, message: str) -> None:
    nodes = [onnx.helper.make_node("Add", ["a", "b"], ["sum"])]
    put(source, graph(nodes, [("a", INT64, ["n", 2]), ("b", INT64, ["n", 2])], [("sum", INT64, ["n", 2])]))
    with pytest.raises(BadPayload, match=message):
        call(tensors_of(source), body)


def test_files_that_cannot_be_served(source: Source, classifier: Any) -> None:
    (source.model_dir / "model.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(LoadError, match=r"ONNX Runtime .* cannot read model\.onnx"):
        load(source)
    (source.model_dir / "model.onnx").unlink()
    for name in ("a.onnx", "b.onnx"):
        put(source, skl2onnx.to_onnx(classifier, ROWS[:1]), name)
    with pytest.raises(LoadError, match="several ONNX models"):
        load(source)
