"""MLeap bundles, as a folder or a zip, without MLeap: their nodes become the stages of `spark_stages`.

A bundle is `bundle.json` and `root/`: each node has `model.json` (op and attributes) and `node.json` (name, and which
column is at which port), or both as `.pb` in MLeap's binary form (`mleap_binary`); a pipeline's nodes lie in folders
NAME.node beside its model.json, an ensemble's trees in folders of their own. What MLeap's op names and attributes say
is said here in Spark's, so that one set of stages does the arithmetic. Reached from `spark` when a model is loaded.
"""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from eyrie.modelserver.frameworks import mleap_binary
from eyrie.modelserver.frameworks.interface import LoadError
from eyrie.modelserver.frameworks.spark_stages import Saved

Folder: TypeAlias = Path | zipfile.Path
Json: TypeAlias = dict[str, Any]

BUNDLE = "bundle.json"
FORMATS = ("json", "protobuf")
DEPTH_MAX = 8  # of pipelines within pipelines
BASES = ("double", "float", "long", "int", "short", "byte", "boolean", "string")
DTYPES = {"double": ">f8", "float": ">f4", "long": ">i8", "int": ">i4", "short": ">i2", "byte": "i1", "boolean": "i1"}
RAW_PORTS = ("raw_prediction", "rawPrediction")


class Node:
    """One node of a bundle: its op, its attributes as plain values, and its columns by port."""

    def __init__(self, folder: Folder) -> None:
        """Raises LoadError for files that are missing or hold something else."""
        model = _told(folder, "model", mleap_binary.model)
        node = _told(folder, "node", mleap_binary.node) if _has(folder, "node") else {}
        shape = node.get("shape") or {}
        self.folder = folder
        self.op = str(model.get("op"))
        self.name = str(node.get("name", ""))
        self.attributes = {name: plain(value) for name, value in (model.get("attributes") or {}).items()}
        self.inputs = _ports(shape.get("inputs"))
        self.outputs = _ports(shape.get("outputs"))

    def get(self, name: str, otherwise: Any) -> Any:
        """An attribute; a number, text or truth of zero is written as nothing at all."""
        found = self.attributes.get(name, otherwise)
        return type(otherwise)() if found is None else found

    def vector(self, name: str) -> Json:
        """An attribute that is a vector, in Spark's form. Raises KeyError."""
        return {"type": 1, "values": [float(value) for value in np.ravel(self.attributes[name])]}

    @property
    def columns(self) -> Json:
        """Parameters that name its columns: one at `input` and `output`, or many at `input0` ..."""
        if set(self.inputs) == {"input"}:
            return {"inputCol": self.inputs["input"], "outputCol": self.outputs["output"]}
        many = {"inputCols": list(self.inputs.values())}
        if set(self.outputs) == {"output"}:
            return {**many, "outputCol": self.outputs["output"]}
        return {**many, "outputCols": list(self.outputs.values())}

    @property
    def predicts(self) -> Json:
        """Parameters that name a model's columns."""
        raw = next((self.outputs[port] for port in RAW_PORTS if port in self.outputs), None)
        return {
            "featuresCol": self.inputs["features"],
            "predictionCol": self.outputs.get("prediction"),
            "probabilityCol": self.outputs.get("probability"),
            "rawPredictionCol": raw,
        }


def found_at(path: Path) -> bool:
    """Whether a bundle lies there: a folder with bundle.json, or a zip of one."""
    if path.is_dir():
        return (path / BUNDLE).is_file()
    if path.suffix != ".zip" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return BUNDLE in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def stages(path: Path) -> list[Saved]:
    """What each stage of a bundle was saved with, in order. Raises LoadError."""
    if path.is_dir():
        return _bundle(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _bundle(zipfile.Path(archive))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, RuntimeError) as error:
        raise LoadError(f"{path.name} cannot be read as a zip: {error}") from error


def _bundle(folder: Folder) -> list[Saved]:
    told = _json(folder / BUNDLE)
    if told.get("format", "json") not in FORMATS:
        raise LoadError(f"the MLeap bundle is in the format {told['format']!r}; there are {' and '.join(FORMATS)}")
    return _stages(folder / "root", DEPTH_MAX)


def _stages(folder: Folder, depth: int) -> list[Saved]:
    node = Node(folder)
    if node.op == "pipeline":
        if depth == 0:
            raise LoadError(f"the MLeap bundle has pipelines more than {DEPTH_MAX} deep")
        inner = [_stages(folder / f"{name}.node", depth - 1) for name in node.get("nodes", [])]
        return [saved for one in inner for saved in one]
    maker = OPS.get(node.op)
    if maker is None:
        raise LoadError(f"the MLeap stage {node.op!r} has no converted form here; there are {', '.join(sorted(OPS))}")
    try:
        return [maker(node)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LoadError(f"the MLeap stage {node.op!r} was not saved as expected: {error!r}") from error


def _has(folder: Folder, name: str) -> bool:
    return any((folder / f"{name}.{suffix}").is_file() for suffix in ("json", "pb"))


def _told(folder: Folder, name: str, read: Callable[[bytes], Json]) -> Json:
    """A node's file in either form. Raises LoadError."""
    path = folder / f"{name}.pb"
    if not path.is_file():
        return _json(folder / f"{name}.json")
    try:
        return read(path.read_bytes())
    except (OSError, ValueError, struct.error) as error:
        raise LoadError(f"{path.name} of the MLeap bundle cannot be read: {error}") from error


def _json(path: Folder) -> Json:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, KeyError, ValueError) as error:
        raise LoadError(f"the MLeap bundle has no {path.name} that can be read: {error}") from error
    if not isinstance(found, dict):
        raise LoadError(f"{path.name} of the MLeap bundle is no JSON object")
    return found


def _ports(sockets: Any) -> dict[str, str]:
    """Columns by port, `input2` before `input10`."""
    given = [sockets] if isinstance(sockets, dict) else sockets or []
    ports = {str(socket["port"]): str(socket["name"]) for socket in given}
    return {port: ports[port] for port in sorted(ports, key=lambda port: (len(port), port))}


# ------------------------------------------------------------------------------------------------------------ values
def plain(value: Any) -> Any:
    """An attribute as a number, text, a list, or an array; None for what is written as nothing."""
    if not isinstance(value, dict):
        return value
    form = value.get("type")
    if form == "tensor":
        return _tensor(value)
    if form == "list":
        if "tensor" in value:
            return [_tensor(one) for one in value["tensor"]]
        return next((value[base] for base in BASES if base in value), [])
    return next((value[base] for base in BASES if base in value), None)


def _tensor(value: Mapping[str, Any]) -> Any:
    """A tensor: numbers in a list, or in base64 with the highest byte first."""
    if value.get("indices"):
        raise ValueError("a sparse tensor")
    shape = value.get("shape") or {}
    sizes = [int(size["size"]) for size in shape.get("dimensions", [])]
    found = next((np.array(value[base], dtype=np.float64) for base in BASES if base in value), None)
    if found is None:
        found = np.frombuffer(base64.b64decode(value["value"]), DTYPES[value["base"]]).astype(np.float64)
    return found.reshape(sizes) if sizes and int(np.prod(sizes)) == found.size else found


# ------------------------------------------------------------------------------------------------------------ features
def _saved(kind: str, params: Json, row: Json | None = None) -> Saved:
    return Saved(kind, params, {}, [row] if row is not None else [])


def _handle_invalid(node: Node, otherwise: str) -> Json:
    return {"handleInvalid": node.get("handle_invalid", otherwise) or otherwise}


def _string_indexer(node: Node) -> Saved:
    count = node.get("labels_length", 0)
    lists = [node.attributes[f"labels_array_{place}"] for place in range(count)] or [node.attributes["labels"]]
    row = {"labelsArray": [[str(label) for label in labels] for labels in lists]}
    return _saved("StringIndexerModel", node.columns | _handle_invalid(node, "error"), row)


def _one_hot(node: Node) -> Saved:
    sizes = node.attributes["category_sizes"] if "category_sizes" in node.attributes else [node.attributes["size"]]
    params = {**node.columns, **_handle_invalid(node, "error"), "dropLast": bool(node.get("drop_last", True))}
    return _saved("OneHotEncoderModel", params, {"categorySizes": list(sizes)})


def _imputer(node: Node) -> Saved:
    names = ("surrogate_value", "imputeValue")
    name = next(name for name in names if name in node.attributes)
    missing = next((node.get(name, 0.0) for name in ("missing_value", "missingValue") if name in node.attributes), None)
    params = node.columns | {"missingValue": "nan" if missing is None else missing}
    return _saved("ImputerModel", params, {params["inputCol"]: node.get(name, 0.0)})


def _assembler(node: Node) -> Saved:
    params = {"inputCols": list(node.inputs.values()), "outputCol": node.outputs["output"]}
    return _saved("VectorAssembler", params | _handle_invalid(node, "keep"))


def _standard_scaler(node: Node) -> Saved:
    """Each half is there where it is applied."""
    has = {name: node.attributes.get(name) is not None for name in ("mean", "std")}
    other = node.vector("std" if has["std"] else "mean")
    row = {name: node.vector(name) if has[name] else other for name in has}
    return _saved("StandardScalerModel", node.columns | {"withMean": has["mean"], "withStd": has["std"]}, row)


def _min_max_scaler(node: Node) -> Saved:
    params = node.columns | {"min": node.get("min_value", 0.0), "max": node.get("max_value", 1.0)}
    return _saved("MinMaxScalerModel", params, {"originalMin": node.vector("min"), "originalMax": node.vector("max")})


def _max_abs_scaler(node: Node) -> Saved:
    return _saved("MaxAbsScalerModel", node.columns, {"maxAbs": node.vector("maxAbs")})


def _bucketizer(node: Node) -> Saved:
    """Splits at the ends that are no number are infinite: JSON has no word for it."""
    splits = list(node.attributes["splits"])
    splits[0] = -np.inf if splits[0] is None else splits[0]
    splits[-1] = np.inf if splits[-1] is None else splits[-1]
    return _saved("Bucketizer", node.columns | {"splits": splits} | _handle_invalid(node, "error"))


# -------------------------------------------------------------------------------------------------------------- models
def _logistic(node: Node) -> Saved:
    """One row of coefficients and a threshold, or a matrix with a row a class."""
    params = node.predicts | {"thresholds": node.attributes.get("thresholds")}
    if "coefficient_matrix" not in node.attributes:
        weights = node.vector("coefficients")
        matrix = {"type": 1, "numRows": 1, "numCols": len(weights["values"]), "isTransposed": True, **weights}
        row = {"interceptVector": {"type": 1, "values": [node.get("intercept", 0.0)]}, "isMultinomial": False}
        params |= {"threshold": node.get("threshold", 0.5)}
        return _saved("LogisticRegressionModel", params, row | {"coefficientMatrix": matrix})
    # Spark's matrices are written column by column. Those of scikit-learn, whose nodes are named after their op and
    # have no column of probabilities, row by row.
    by_rows = node.name.startswith(f"{node.op}_") and "probability" not in node.outputs
    values = np.asarray(node.attributes["coefficient_matrix"])
    flat = {"type": 1, "values": values.ravel(), "numRows": values.shape[0], "numCols": values.shape[1]}
    row = {"interceptVector": node.vector("intercept_vector"), "isMultinomial": True}
    return _saved("LogisticRegressionModel", params, row | {"coefficientMatrix": flat | {"isTransposed": by_rows}})


def _linear(node: Node) -> Saved:
    row = {"coefficients": node.vector("coefficients"), "intercept": node.get("intercept", 0.0)}
    return _saved("LinearRegressionModel", node.predicts, row)


def _kmeans(node: Node) -> Saved:
    centres = [{"type": 1, "values": np.ravel(centre).tolist()} for centre in node.attributes["cluster_centers"]]
    columns = {"featuresCol": node.inputs.get("features", ""), "predictionCol": node.outputs.get("prediction")}
    rows = [{"clusterIdx": place, "clusterCenter": centre} for place, centre in enumerate(centres)]
    return Saved("KMeansModel", columns | {"distanceMeasure": "euclidean"}, {}, rows)


def _tree_rows(folder: Folder, classes: bool) -> list[Json]:
    """The nodes of a tree, each before its left branch and that before its right one, as Spark saves them."""
    lines = _tree_lines(folder)
    width = max(len(line.get("values", ())) for line in lines)
    rows: list[Json] = []
    waiting: list[tuple[Json, str]] = []  # inner nodes whose branch of that name is to come
    for place, line in enumerate(lines):
        if place:
            parent, branch = waiting.pop()
            parent[branch] = place
        row = _tree_row(place, line, classes, width)
        rows.append(row)
        if line["type"] == "internal":
            waiting += [(row, "rightChild"), (row, "leftChild")]
    if waiting or not rows:
        raise ValueError("the file of a tree ends before its tree does")
    return rows


def _tree_lines(folder: Folder) -> list[Json]:
    binary = folder / "tree.pb"
    if binary.is_file():
        return mleap_binary.tree(binary.read_bytes())
    text = (folder / "tree.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _tree_row(place: int, line: Json, classes: bool, width: int) -> Json:
    """One node; an inner one has no counts of its own, and gets as many zeros as leaves have counts."""
    split: Json = {"featureIndex": -1, "numCategories": -1, "leftCategoriesOrThreshold": []}
    values: Sequence[float] = [0.0] * width
    if line["type"] == "internal":
        split = _split(line["split"])
    else:
        values = line["values"]
    prediction = float(np.argmax(values)) if classes else float(values[0])
    row = {"id": place, "leftChild": -1, "rightChild": -1, "split": split}
    return row | {"prediction": prediction, "impurityStats": values}


def _split(split: Json) -> Json:
    feature = {"featureIndex": split["featureIndex"]}
    if split["type"] == "continuous":
        return feature | {"numCategories": -1, "leftCategoriesOrThreshold": [split["threshold"]]}
    count, named = int(split["numCategories"]), {float(one) for one in split["categories"]}
    left = sorted(named if split["isLeft"] else {float(one) for one in range(count)} - named)
    return feature | {"numCategories": count, "leftCategoriesOrThreshold": left}


def _tree(kind: str, classes: bool) -> Callable[[Node], Saved]:
    def made(node: Node) -> Saved:
        return Saved(kind, node.predicts | _thresholds(node), {}, _tree_rows(node.folder, classes))

    return made


def _thresholds(node: Node) -> Json:
    return {"thresholds": node.attributes.get("thresholds")}


def _ensemble(kind: str, classes: bool) -> Callable[[Node], Saved]:
    def made(node: Node) -> Saved:
        names = node.attributes["trees"]
        weights = node.get("tree_weights", []) or [1.0] * len(names)
        rows = [
            {"treeID": place, "nodeData": row}
            for place, name in enumerate(names)
            for row in _tree_rows(node.folder / name, classes)
        ]
        trees = [{"treeID": place, "weights": weight} for place, weight in enumerate(weights)]
        return Saved(kind, node.predicts | _thresholds(node), {}, rows, trees)

    return made


OPS: Mapping[str, Callable[[Node], Saved]] = {
    "string_indexer": _string_indexer,
    "one_hot_encoder": _one_hot,
    "one_hot_encoder_v23": _one_hot,
    "imputer": _imputer,
    "vector_assembler": _assembler,
    "standard_scaler": _standard_scaler,
    "min_max_scaler": _min_max_scaler,
    "max_abs_scaler": _max_abs_scaler,
    "bucketizer": _bucketizer,
    "logistic_regression": _logistic,
    "linear_regression": _linear,
    "k_means": _kmeans,
    "decision_tree_classifier": _tree("DecisionTreeClassificationModel", True),
    "random_forest_classifier": _ensemble("RandomForestClassificationModel", True),
    "gbt_classifier": _ensemble("GBTClassificationModel", False),
    "decision_tree_regression": _tree("DecisionTreeRegressionModel", False),
    "random_forest_regression": _ensemble("RandomForestRegressionModel", False),
    "gbt_regression": _ensemble("GBTRegressionModel", False),
}
