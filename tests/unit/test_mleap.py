"""MLeap bundles as its Java library writes them: ports of many columns, what JSON leaves out, tensors, trees."""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyrie.modelserver.frameworks import mleap, spark
from eyrie.modelserver.frameworks.interface import LoadError, Source

Json = dict[str, Any]


def node(op: str, attributes: Json, inputs: Json, outputs: Json) -> tuple[Json, Json]:
    shape = {
        side: [{"port": port, "name": name} for port, name in ports.items()]
        for side, ports in (("inputs", inputs), ("outputs", outputs))
    }
    return {"op": op, "attributes": attributes}, {"name": f"{op}_1", "shape": shape}


def bundle(root: Path, nodes: list[tuple[Json, Json]], trees: dict[str, list[Json]] | None = None) -> Path:
    """A pipeline of nodes; `trees` of the last one, by folder in it ("": it is a tree itself)."""
    root.mkdir()
    (root / "bundle.json").write_text(json.dumps({"name": "b", "format": "json", "version": "0.23.0"}))
    names = [f"n{place}" for place in range(len(nodes))]
    pipeline = {"op": "pipeline", "attributes": {"nodes": {"type": "list", "string": names}}}
    folders = {"root": (pipeline, {"name": "p", "shape": {"inputs": [], "outputs": []}})}
    folders |= {f"root/{name}.node": one for name, one in zip(names, nodes, strict=True)}
    for folder, (model, told) in folders.items():
        (root / folder).mkdir(parents=True)
        (root / folder / "model.json").write_text(json.dumps(model))
        (root / folder / "node.json").write_text(json.dumps(told))
    for name, lines in (trees or {}).items():
        place = root / f"root/{names[-1]}.node" / name
        place.mkdir(exist_ok=True)
        (place / "tree.json").write_text("\n".join(map(json.dumps, lines)))
    return root


def transformed(path: Path, **columns: list[Any]) -> Json:
    pipeline = spark.read(path, Source(path, {}))
    found = {name: np.array(values, dtype=object) for name, values in columns.items()}
    for stage in pipeline.stages:
        stage(found)
    return {name: values.tolist() for name, values in found.items()}


def test_columns_by_port_and_what_json_leaves_out(tmp_path: Path) -> None:
    labels = {
        "labels_length": {"int": 2},
        "labels_array_0": {"type": "list", "string": ["x", "y"]},
        "labels_array_1": {"type": "list", "string": ["p"]},
        "handle_invalid": {"string": "keep"},
    }
    sizes = {"category_sizes": {"type": "list", "int": [3, 2]}, "handle_invalid": {"string": "error"}, "drop_last": {}}
    splits = {"splits": {"type": "list", "double": [None, 0.0, None]}, "handle_invalid": {"string": "keep"}}
    many = {f"input{place}": f"c{place}" for place in (0, 1)}
    indexed = {f"output{place}": f"i{place}" for place in (0, 1)}
    hot = {f"output{place}": f"h{place}" for place in (0, 1)}
    ports = {"input10": "z", "input2": "bucket", "input0": "h0", "input1": "h1"}
    path = bundle(
        tmp_path / "b",
        [
            node("string_indexer", labels, many, indexed),
            node("one_hot_encoder", sizes, {f"input{p}": f"i{p}" for p in (0, 1)}, hot),
            node("bucketizer", splits, {"input": "n"}, {"output": "bucket"}),
            node("vector_assembler", {"input_shapes": {"type": "list"}}, ports, {"output": "features"}),
        ],
    )
    found = transformed(path, c0=["y", "new"], c1=["p", "p"], n=[-1.0, float("nan")], z=[7.0, 8.0])
    assert found["features"] == [[0, 1, 0, 1, 0, 0, 7], [0, 0, 1, 1, 0, 2, 8]]


def test_tensors_in_base64_and_a_threshold_of_zero(tmp_path: Path) -> None:
    weights = {
        "type": "tensor",
        "base": "double",
        "shape": {"dimensions": [{"size": 2, "name": ""}]},
        "value": base64.b64encode(struct.pack(">2d", 1.0, -2.0)).decode(),
    }
    attributes = {"num_classes": {"long": 2}, "coefficients": weights, "intercept": {}, "threshold": {}}
    ports = {"prediction": "p", "probability": "q", "raw_prediction": "r"}
    path = bundle(tmp_path / "b", [node("logistic_regression", attributes, {"features": "f"}, ports)])
    pipeline = spark.read(path, Source(path, {}))
    columns = {"f": np.array([[1.0, 2.0]])}
    pipeline.stages[0](columns)
    assert columns["r"].tolist() == [[3.0, -3.0]]
    assert columns["p"].tolist() == [1.0]  # every probability is above 0


def test_a_matrix_of_sparks_is_written_column_by_column(tmp_path: Path) -> None:
    matrix = {"type": "tensor", "double": [1, 2, 3, 4, 5, 6], "shape": {"dimensions": [{"size": 3}, {"size": 2}]}}
    vector = {"type": "tensor", "double": [0, 0, 0], "shape": {"dimensions": [{"size": 3}]}}
    attributes = {"num_classes": {"long": 3}, "coefficient_matrix": matrix, "intercept_vector": vector}
    ports = {"prediction": "p", "probability": "q", "raw_prediction": "r"}
    path = bundle(tmp_path / "b", [node("logistic_regression", attributes, {"features": "f"}, ports)])
    columns = {"f": np.array([[1.0, 10.0]])}
    spark.read(path, Source(path, {})).stages[0](columns)
    assert columns["r"].tolist() == [[41.0, 52.0, 63.0]]


def test_trees_with_categories_and_clusters(tmp_path: Path) -> None:
    categories = {"type": "categorical", "featureIndex": 0, "isLeft": False, "numCategories": 3, "categories": [1.0]}
    tree = [
        {"type": "internal", "split": categories},
        {"type": "internal", "split": {"type": "continuous", "featureIndex": 1, "threshold": 0.5}},
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
    path = bundle(tmp_path / "b", [node("gbt_classifier", attributes, {"features": "f"}, ports)], {"tree0": tree})
    columns = {"f": np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 0.0]])}
    spark.read(path, Source(path, {})).stages[0](columns)
    assert columns["r"][:, 1].tolist() == [-0.5, 1.0, 2.5]
    assert columns["p"].tolist() == [0.0, 1.0, 1.0]
    centres = {"type": "list", "tensor": [{"double": [0.0, 0.0]}, {"double": [9.0, 9.0]}]}
    nearest = node("k_means", {"cluster_centers": centres}, {"features": "f"}, {"prediction": "p"})
    other = bundle(tmp_path / "k", [nearest])
    spark.read(other, Source(other, {})).stages[0](columns)
    assert columns["p"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("nodes", "trees", "message"),
    [
        ([node("lda", {}, {}, {})], {}, "'lda' has no converted form"),
        ([node("bucketizer", {}, {"input": "a"}, {"output": "b"})], {}, "'bucketizer' was not saved as expected"),
        (
            [node("decision_tree_regression", {}, {"features": "f"}, {"prediction": "p"})],
            {"": [{"type": "internal", "split": {"type": "continuous", "featureIndex": 0, "threshold": 1.0}}]},
            "not saved as expected",
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, nodes: list[tuple[Json, Json]], trees: dict[str, list[Json]], message: str
) -> None:
    path = bundle(tmp_path / "b", nodes, trees)
    with pytest.raises(LoadError, match=message):
        spark.read(path, Source(path, {}))


def test_a_bundle_in_an_unknown_format_and_a_broken_zip(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps({"format": "mixed"}))
    with pytest.raises(LoadError, match="'mixed'; there are json and protobuf"):
        mleap.stages(tmp_path)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("bundle.json", json.dumps({"format": "json"}))
    assert mleap.found_at(tmp_path / "b.zip")
    with pytest.raises(LoadError, match=r"no model\.json"):
        mleap.stages(tmp_path / "b.zip")
    (tmp_path / "c.zip").write_bytes(b"PK")
    assert not mleap.found_at(tmp_path / "c.zip")
