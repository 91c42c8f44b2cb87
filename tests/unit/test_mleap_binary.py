"""MLeap's binary form: bundles written by the protocol buffers' own library, with MLeap's schema, answer as in JSON."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_mleap import bundle, node

from eyrie.modelserver.frameworks import mleap_binary, spark
from eyrie.modelserver.frameworks.interface import LoadError, Source

protobuf = pytest.importorskip("google.protobuf")
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: E402

F = descriptor_pb2.FieldDescriptorProto
ONE, MANY = F.LABEL_OPTIONAL, F.LABEL_REPEATED
KINDS = {"b": F.TYPE_BOOL, "s": F.TYPE_STRING, "i": F.TYPE_INT32, "l": F.TYPE_INT64}
KINDS |= {"f": F.TYPE_FLOAT, "d": F.TYPE_DOUBLE}
VALUES = [("b", 1, "b"), ("s", 2, "s"), ("i", 3, "i"), ("l", 4, "l"), ("f", 5, "f"), ("d", 6, "d"), ("t", 8, "Tensor")]
JSON_NAMES = {"boolean": "b", "string": "s", "int": "i", "long": "l", "float": "f", "double": "d", "tensor": "t"}
MESSAGES: dict[str, list[tuple[str, int, str, int]]] = {
    "Dimension": [("size", 1, "i", ONE), ("name", 2, "s", ONE)],
    "Shape": [("dimensions", 1, "Dimension", MANY)],
    "Tensor": [("base", 1, "i", ONE), ("shape", 2, "Shape", ONE), ("value", 3, "bytes", ONE)],
    "Scalar": [(name, number, kind, ONE) for name, number, kind in VALUES],
    "List": [(name, number, kind, MANY) for name, number, kind in VALUES],
    "Value": [("s", 1, "Scalar", ONE), ("l", 2, "List", ONE), ("t", 3, "Tensor", ONE)],
    "Entry": [("key", 1, "s", ONE), ("value", 2, "Value", ONE)],
    "Attributes": [("list", 1, "Entry", MANY)],
    "Model": [("op", 1, "s", ONE), ("attributes", 2, "Attributes", ONE)],
    "Socket": [("port", 1, "s", ONE), ("name", 2, "s", ONE)],
    "NodeShape": [("inputs", 1, "Socket", MANY), ("outputs", 2, "Socket", MANY)],
    "Node": [("name", 1, "s", ONE), ("shape", 2, "NodeShape", ONE)],
    "Categorical": [("feature", 1, "i", ONE), ("left", 2, "b", ONE), ("count", 3, "i", ONE), ("found", 4, "d", MANY)],
    "Continuous": [("feature", 1, "i", ONE), ("threshold", 2, "d", ONE)],
    "Split": [("categorical", 1, "Categorical", ONE), ("continuous", 2, "Continuous", ONE)],
    "Inner": [("split", 1, "Split", ONE)],
    "Leaf": [("values", 1, "d", MANY)],
    "Branch": [("internal", 1, "Inner", ONE), ("leaf", 2, "Leaf", ONE)],
}
DOUBLE = 7


def made() -> Any:
    """A class a message."""
    file = descriptor_pb2.FileDescriptorProto(name="bundle.proto", package="b", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            added = message.field.add(name=field, number=number, label=label)
            if kind in KINDS or kind == "bytes":
                added.type = KINDS.get(kind, F.TYPE_BYTES)
            else:
                added.type, added.type_name = F.TYPE_MESSAGE, f".b.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"b.{name}")) for name in MESSAGES}


CLASSES = made()


def tensor(told: Any) -> Any:
    found = CLASSES["Tensor"](base=DOUBLE, value=struct.pack(f">{len(told['double'])}d", *told["double"]))
    sizes = [d["size"] for d in told.get("shape", {}).get("dimensions", [])] or [len(told["double"])]
    for size in sizes:
        found.shape.dimensions.add(size=size)
    return found


def value(told: Any) -> Any:
    """An attribute of the JSON form, as a message."""
    found = CLASSES["Value"]()
    if told.get("type") == "tensor":
        found.t.CopyFrom(tensor(told))
        return found
    part = found.l if told.get("type") == "list" else found.s
    part.SetInParent()
    for name, given in told.items():
        if name != "type":
            field = JSON_NAMES[name]
            if told.get("type") != "list":
                setattr(part, field, given)
            elif field == "t":
                part.t.extend(map(tensor, given))
            else:
                getattr(part, field).extend(given)
    return found


def branch(line: Any) -> bytes:
    found = CLASSES["Branch"]()
    if line["type"] == "leaf":
        found.leaf.values.extend(line["values"])
    elif line["split"]["type"] == "continuous":
        split = line["split"]
        found.internal.split.continuous.feature = split["featureIndex"]
        found.internal.split.continuous.threshold = split["threshold"]
    else:
        split, to = line["split"], found.internal.split.categorical
        to.feature, to.left, to.count = split["featureIndex"], split["isLeft"], split["numCategories"]
        to.found.extend(split["categories"])
    data: bytes = found.SerializeToString()
    return len(data).to_bytes(4, "big") + data


def binary(root: Path) -> Path:
    """A JSON bundle, made a binary one in its place."""
    (root / "bundle.json").write_text(json.dumps({"format": "protobuf"}))
    for path in [p for p in root.rglob("*.json") if p.name != "bundle.json"]:
        if path.name == "tree.json":
            data = b"".join(branch(json.loads(line)) for line in path.read_text().splitlines())
        else:
            told = json.loads(path.read_text())
            message = CLASSES["Model" if path.name == "model.json" else "Node"]()
            if path.name == "model.json":
                message.op = told["op"]
                for name, given in told["attributes"].items():
                    message.attributes.list.add(key=name, value=value(given))
            else:
                message.name = told["name"]
                for side in ("inputs", "outputs"):
                    for port in told["shape"][side]:
                        getattr(message.shape, side).add(**port)
            data = message.SerializeToString()
        path.with_suffix(".pb").write_bytes(data)
        path.unlink()
    return root


def results(path: Path, **columns: Any) -> dict[str, Any]:
    found = dict(columns)
    for stage in spark.read(path, Source(path, {})).stages:
        stage(found)
    return {name: np.asarray(values).tolist() for name, values in found.items()}


def test_pipelines_of_features_and_models_answer_as_their_json_form(tmp_path: Path) -> None:
    labels = {"labels": {"type": "list", "string": ["y", "x"]}, "handle_invalid": {"string": "keep"}}
    matrix = {"type": "tensor", "double": [1.0, 2, 3, 4, 5, -6], "shape": {"dimensions": [{"size": 3}, {"size": 2}]}}
    vector = {"type": "tensor", "double": [0.5, 0, -1]}
    classes = {"num_classes": {"long": 3}, "coefficient_matrix": matrix, "intercept_vector": vector}
    scaled = {"mean": {"type": "tensor", "double": [1.0, 2.0]}, "std": {"type": "tensor", "double": [2.0, 0.5]}}
    nodes = [
        node("string_indexer", labels, {"input": "c"}, {"output": "i"}),
        node("vector_assembler", {"input_shapes": {"type": "list"}}, {"input0": "i", "input1": "n"}, {"output": "v"}),
        node("standard_scaler", scaled, {"input": "v"}, {"output": "f"}),
        node("logistic_regression", classes, {"features": "f"}, {"prediction": "p", "raw_prediction": "r"}),
    ]
    columns = {"c": np.array(["x", "y", "new"], dtype=object), "n": np.array([0.5, -1.0, 7.0], dtype=object)}
    plain = results(bundle(tmp_path / "json", nodes), **columns)
    assert results(binary(bundle(tmp_path / "pb", nodes)), **columns) == plain
    assert len(set(map(tuple, plain["r"]))) == 3


def test_trees_answer_as_their_json_form(tmp_path: Path) -> None:
    categories: dict[str, Any] = {"type": "categorical", "featureIndex": 0, "isLeft": True, "numCategories": 3}
    categories |= {"categories": [1.0, 2.0]}
    tree: list[dict[str, Any]] = [
        {"type": "internal", "split": categories},
        {"type": "internal", "split": {"type": "continuous", "featureIndex": 1, "threshold": -0.5}},
        {"type": "leaf", "values": [-1.0]},
        {"type": "leaf", "values": [2.0]},
        {"type": "leaf", "values": [5.0]},
    ]
    attributes = {
        "num_classes": {"long": 2},
        "trees": {"type": "list", "string": ["tree0"]},
        "tree_weights": {"type": "list", "double": [0.5]},
    }
    ports = {"prediction": "p", "probability": "q", "rawPrediction": "r"}
    nodes = [node("gbt_classifier", attributes, {"features": "f"}, ports)]
    columns = {"f": np.array([[0.0, 0.0], [2.0, 1.0], [1.0, -2.0]])}
    plain = results(bundle(tmp_path / "json", nodes, {"tree0": tree}), **columns)
    assert results(binary(bundle(tmp_path / "pb", nodes, {"tree0": tree})), **columns) == plain
    assert [raw[1] for raw in plain["r"]] == [2.5, 1.0, -0.5]


AGES = [(6, "d"), (7, "d"), (5, "f"), (6, "f"), (4, "q"), (5, "q"), (3, "i"), (4, "i")]


@pytest.mark.parametrize(("base", "form"), AGES)
def test_tensors_of_both_ages_of_the_schema(base: int, form: str) -> None:
    message = CLASSES["Model"](op="o")
    content = CLASSES["Tensor"](base=base, value=struct.pack(f">2{form}", 3, -4))
    content.shape.dimensions.add(size=2)
    message.attributes.list.add(key="a", value=CLASSES["Value"](t=content))
    assert mleap_binary.model(message.SerializeToString())["attributes"]["a"]["double"].tolist() == [3.0, -4.0]


def test_numbers_below_zero_and_long_ones() -> None:
    message = CLASSES["Model"](op="o")
    many = CLASSES["List"](i=[-1, 300], l=[-(2**40)])
    message.attributes.list.add(key="a", value=CLASSES["Value"](l=many))
    message.attributes.list.add(key="b", value=CLASSES["Value"](s=CLASSES["Scalar"](l=-7)))
    told = mleap_binary.model(message.SerializeToString())["attributes"]
    assert told == {"a": {"type": "list", "int": [-1, 300], "long": [-(2**40)]}, "b": {"long": -7}}


def test_bytes_that_are_cut_anywhere_are_refused_or_read_as_less(tmp_path: Path) -> None:
    whole = branch({"type": "leaf", "values": [1.0, 2.0]})
    for end in range(1, len(whole)):
        with pytest.raises(ValueError, match=r"cut|end"):
            mleap_binary.tree(whole[:end])
    root = binary(bundle(tmp_path / "b", [node("k_means", {}, {"features": "f"}, {"prediction": "p"})]))
    (root / "root" / "model.pb").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(LoadError, match=r"model\.pb of the MLeap bundle cannot be read"):
        spark.read(root, Source(root, {}))
