"""scikit-learn estimators and pipelines to ONNX by skl2onnx, with converters of our own for what it gets wrong.

skl2onnx computes in float32 and its trees round their thresholds, so rows near a threshold go the other way. Here the
whole graph computes in float64, as scikit-learn does; trees are nodes of `forest`; imputers, for which ONNX Runtime
has no float64, are spelled out. What this cannot convert is tried once more in skl2onnx's own way, in float32: whether
that is good enough, `compare` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array
from eyrie.modelserver.compile import forest_lightgbm, forest_sklearn, forest_xgboost
from eyrie.modelserver.compile.errors import CannotConvert
from eyrie.modelserver.compile.forest_sklearn import Summed
from eyrie.modelserver.compile.graph import ML_OPSET, OPSET

AVERAGED = (
    ("sklearn.tree", ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")),
    (
        "sklearn.ensemble",
        ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"),
    ),
)
BOOSTED = (("sklearn.ensemble", ("GradientBoostingClassifier", "GradientBoostingRegressor")),)
HISTOGRAM = (("sklearn.ensemble", ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")),)
XGBOOST = (("xgboost", ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor")),)
LIGHTGBM = (("lightgbm", ("LGBMClassifier", "LGBMRegressor")),)


@dataclass(frozen=True, slots=True)
class Column:
    """One input of a graph that takes its columns one by one."""

    name: str
    text: bool


def convert(
    estimator: Any, width: int, text_columns: Sequence[int], precise: bool
) -> tuple[bytes, tuple[Column, ...], list[str]]:
    """A graph, its columns (none where it takes all of them as one matrix `X`), and its outputs. Raises CannotConvert.

    `precise`: in float64 with our own converters; else in float32, in skl2onnx's own way.
    """
    import skl2onnx
    from skl2onnx.common import data_types, exceptions

    number = data_types.DoubleTensorType if precise else data_types.FloatTensorType
    columns: tuple[Column, ...] = ()
    if text_columns:
        columns = tuple(Column(f"c{i}", i in text_columns) for i in range(width))
        types = [(c.name, (data_types.StringTensorType if c.text else number)([None, 1])) for c in columns]
    else:
        types = [("X", number([None, width]))]
    _register_others()
    ours = _converters(estimator) if precise else {}
    known = (exceptions.MissingConverter, exceptions.MissingShapeCalculator, CannotConvert)
    try:
        model = skl2onnx.convert_sklearn(
            estimator,
            initial_types=types,
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options={id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None,
            custom_conversion_functions={kind: emit for kind, (emit, _) in ours.items()},
            custom_shape_calculators={kind: shapes for kind, (_, shapes) in ours.items()},
        )
    except known as error:
        raise CannotConvert(_plain(error)) from error
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError) as error:
        raise CannotConvert(f"skl2onnx failed: {_plain(error)}") from error
    return bytes(model.SerializeToString()), columns, [output.name for output in model.graph.output]


def _register_others() -> None:
    """Tell skl2onnx of the estimators of XGBoost and LightGBM, which it does not know."""
    from skl2onnx import update_registered_converter

    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for table, read in ((XGBOOST, _xgboost), (LIGHTGBM, _lightgbm)):
        for kind in _kinds(table):
            own = options if hasattr(kind, "predict_proba") else None
            update_registered_converter(
                kind, f"Eyrie{kind.__name__}", _shapes, _forest_emitter(read), overwrite=True, options=own
            )


Emit = Callable[[Any, Any, Any], None]
Shapes = Callable[[Any], None]


def _converters(estimator: Any) -> dict[type, tuple[Emit, Shapes]]:
    """Our own converters, of the kinds whose library is loaded already: others cannot be in the estimator."""
    found: dict[type, tuple[Emit, Shapes]] = {}
    for table, read in (
        (AVERAGED, forest_sklearn.averaged),
        (BOOSTED, forest_sklearn.boosted),
        (HISTOGRAM, forest_sklearn.histogram_boosted),
    ):
        for kind in _kinds(table):
            found[kind] = (_forest_emitter(read), _shapes)
    imputers = [part for part in parts(estimator) if type(part).__name__ == "SimpleImputer"]
    if imputers and all(map(_fills_numbers, imputers)):
        found[type(imputers[0])] = (_emit_imputer, _same_shape)
    return found


def _kinds(table: Sequence[tuple[str, Sequence[str]]]) -> Iterator[type]:
    import sys

    for module, names in table:
        if module in sys.modules:
            yield from (kind for name in names if (kind := getattr(import_module(module), name, None)) is not None)


def parts(estimator: Any) -> Iterator[Any]:
    """An estimator and everything that pipelines, unions, column transformers and ensembles of named ones hold."""
    yield estimator
    for attribute in ("steps", "transformer_list", "transformers_", "estimators"):
        for part in getattr(estimator, attribute, None) or ():
            inner = part[1] if isinstance(part, tuple) else part
            if inner is not None and not isinstance(inner, str):
                yield from parts(inner)


def _xgboost(estimator: Any) -> Summed:
    booster = estimator.get_booster()
    best = booster.attr("best_iteration")
    scores = forest_xgboost.scores_of(booster, (0, int(best) + 1) if best is not None else (0, 0))
    link = "softmax" if scores.link == "argmax" else scores.link
    return Summed(scores.forest, 1.0, scores.intercept, link, narrow=True)


def _lightgbm(estimator: Any) -> Summed:
    scores = forest_lightgbm.scores_of(estimator.booster_)
    return Summed(scores.forest, 1.0, scores.intercept, scores.link, narrow=False)


# ------------------------------------------------------------------------------------------------ shapes for skl2onnx
def _shapes(operator: Any) -> None:
    """Outputs of a forest: labels and probabilities of a classifier, one number of a regressor."""
    from skl2onnx.common import data_types

    rows = operator.inputs[0].get_first_dimension()
    classes = getattr(operator.raw_operator, "classes_", None)
    if classes is None:
        operator.outputs[0].set_type(data_types.DoubleTensorType([rows, 1]))
        return
    text = _labels(classes).dtype.kind == "U"
    label = data_types.StringTensorType if text else data_types.Int64TensorType
    operator.outputs[0].set_type(label([rows]))
    if len(operator.outputs) > 1:
        operator.outputs[1].set_type(data_types.DoubleTensorType([rows, len(classes)]))


def _same_shape(operator: Any) -> None:
    from skl2onnx.common import data_types

    rows = operator.inputs[0].get_first_dimension()
    width = sum(given.type.shape[1] for given in operator.inputs)
    operator.outputs[0].set_type(data_types.DoubleTensorType([rows, width]))


def _labels(classes: Any) -> Array:
    """Classes as ONNX can hold them: text or whole numbers. Raises CannotConvert."""
    if isinstance(classes, list):
        raise CannotConvert("a classifier of several outputs has no ONNX form here")
    found = np.asarray(classes)
    if found.dtype.kind in "US" or (found.dtype == object and all(isinstance(c, str) for c in found)):
        return found.astype(str)
    try:
        whole = found.astype(np.int64)
    except (TypeError, ValueError):
        whole = np.zeros(0, dtype=np.int64)
    if len(whole) != len(found) or not np.array_equal(whole, found):
        raise CannotConvert("classes that are neither text nor whole numbers have no ONNX form here")
    return whole


# ------------------------------------------------------------------------------------------------------------- nodes
def _forest_emitter(read: Callable[[Any], Summed]) -> Emit:
    def emit(scope: Any, operator: Any, container: Any) -> None:
        _Forest(scope, operator, container).emit(read(operator.raw_operator))

    return emit


@dataclass(frozen=True, slots=True)
class _Forest:
    """Writes the nodes of one forest estimator."""

    scope: Any
    operator: Any
    container: Any

    def emit(self, summed: Summed) -> None:
        """From the input variable to the output variables."""
        from onnx import TensorProto

        rows = self.operator.inputs[0].full_name
        if summed.narrow:
            rows = self._node("Cast", [rows], to=TensorProto.FLOAT)
        if summed.forest.dtype == "float64":
            rows = self._node("Cast", [rows], to=TensorProto.DOUBLE)
        attributes = summed.forest.attributes()
        total = self._node("TreeEnsembleRegressor", [rows], domain="ai.onnx.ml", version=ML_OPSET, **attributes)
        total = self._node("Cast", [total], to=TensorProto.DOUBLE)
        if summed.scale != 1.0:
            total = self._node("Mul", [total, self._constant(np.array([[summed.scale]]))])
        if np.any(summed.intercept):
            total = self._node("Add", [total, self._constant(summed.intercept.astype(np.float64).reshape(1, -1))])
        linked = self._link(summed.link, total)
        if hasattr(self.operator.raw_operator, "classes_"):
            self._classes(linked, summed)
        else:
            self._node("Identity", [linked], self.operator.outputs[0].full_name)

    def _link(self, link: str, total: str) -> str:
        if link == "softmax":
            return self._node("Softmax", [total], axis=1)
        nodes = {"sigmoid": "Sigmoid", "exp": "Exp"}
        return self._node(nodes[link], [total]) if link in nodes else total

    def _classes(self, linked: str, summed: Summed) -> None:
        """Probabilities of every class, and the label of the first of the best."""
        classes = _labels(self.operator.raw_operator.classes_)
        if len(classes) < 2:
            raise CannotConvert("a classifier that knows one class only has no ONNX form here")
        if summed.forest.targets == 1:
            other = self._node("Sub", [self._constant(np.ones((1, 1))), linked])
            linked = self._node("Concat", [other, linked], axis=1)
        best = self._node("ArgMax", [linked], axis=1, keepdims=0)
        label, *probabilities = (variable.full_name for variable in self.operator.outputs)
        self._node("Gather", [self._constant(classes), best], label, axis=0)
        for name in probabilities:
            self._node("Identity", [linked], name)

    def _node(self, kind: str, given: list[str], out: str = "", domain: str = "", version: int = 0, **more: Any) -> str:
        out = out or self.scope.get_unique_variable_name(kind.lower())
        name = self.scope.get_unique_operator_name(kind)
        self.container.add_node(kind, given, out, name=name, op_domain=domain, op_version=version or None, **more)
        return out

    def _constant(self, value: Array) -> str:
        from onnx import TensorProto

        kinds = {"f": TensorProto.DOUBLE, "i": TensorProto.INT64, "U": TensorProto.STRING}
        flat = [text.encode() for text in value.ravel()] if value.dtype.kind == "U" else value.ravel().tolist()
        name: str = self.scope.get_unique_variable_name("constant")
        self.container.add_initializer(name, kinds[value.dtype.kind], list(value.shape), flat)
        return name


def _fills_numbers(imputer: Any) -> bool:
    """An imputer that puts a number where one is missing, and does nothing else."""
    statistics = np.asarray(imputer.statistics_)
    nan = isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values)
    return bool(nan and not imputer.add_indicator and statistics.dtype.kind == "f" and not np.isnan(statistics).any())


def _emit_imputer(scope: Any, operator: Any, container: Any) -> None:
    from onnx import TensorProto

    nodes = _Forest(scope, operator, container)
    given = [variable.full_name for variable in operator.inputs]
    rows = given[0] if len(given) == 1 else nodes._node("Concat", given, axis=1)
    rows = nodes._node("Cast", [rows], to=TensorProto.DOUBLE)
    missing = nodes._node("IsNaN", [rows])
    fill = nodes._constant(np.asarray(operator.raw_operator.statistics_, dtype=np.float64).reshape(1, -1))
    nodes._node("Where", [missing, fill, rows], operator.outputs[0].full_name)


def _plain(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]
