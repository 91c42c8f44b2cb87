"""scikit-learn's trees and forests as forests, each with what has to be done to its sum.

The trees of sklearn.tree compare float32 values with float64 thresholds; histogram gradient boosting compares float64.
All sum in float64. Leaves are kept as the library sums them (not divided by the number of trees), so that a tie
between classes stays one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array
from eyrie.modelserver.compile.errors import CannotConvert
from eyrie.modelserver.compile.forest import LEAF, Forest, Tree

TRIED_ROWS = 8
AGREEMENT = 1e-7


@dataclass(frozen=True, slots=True)
class Summed:
    """A forest estimator: link(sum * scale + intercept)."""

    forest: Forest
    scale: float
    intercept: Array
    link: str  # "identity", "sigmoid", "softmax", or "exp"
    narrow: bool  # values are rounded to float32 before they are compared


def averaged(estimator: Any) -> Summed:
    """DecisionTree*, RandomForest*, ExtraTrees*: the mean of what the trees say. Raises CannotConvert."""
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise CannotConvert("a forest with several outputs has no ONNX form here")
    members = getattr(estimator, "estimators_", None) or [estimator]
    trees = [_tree(member.tree_, _fractions(member)) for member in members]
    targets = trees[0].value.shape[1]
    return Summed(_forest(trees, targets), 1.0 / len(trees), np.zeros(targets), "identity", narrow=True)


def boosted(estimator: Any) -> Summed:
    """GradientBoosting*: steps from an intercept. Raises CannotConvert."""
    stages = np.asarray(estimator.estimators_)
    targets = stages.shape[1]
    rate = float(estimator.learning_rate)
    trees = [
        _tree(stages[i, k].tree_, _in_column(stages[i, k].tree_.value.reshape(-1) * rate, k, targets))
        for i in range(stages.shape[0])
        for k in range(targets)
    ]
    margin = estimator.decision_function if hasattr(estimator, "decision_function") else estimator.predict
    intercept = _measured(trees, targets, margin, estimator.n_features_in_, narrow=True)
    scale = 2.0 if getattr(estimator, "loss", "") == "exponential" else 1.0
    link = _link(estimator, targets)
    return Summed(_forest(trees, targets), scale, intercept * scale, link, narrow=True)


def histogram_boosted(estimator: Any) -> Summed:
    """HistGradientBoosting*: the same on float64 values. Raises CannotConvert."""
    stages = estimator._predictors
    targets = len(stages[0])
    trees = [_histogram_tree(stage[k].nodes, k, targets) for stage in stages for k in range(targets)]
    if hasattr(estimator, "decision_function"):
        margin, link = estimator.decision_function, _link(estimator, targets)
    else:
        logarithmic = estimator.loss in ("poisson", "gamma")
        link = "exp" if logarithmic else "identity"

        def margin(rows: Array) -> Array:
            found = estimator.predict(rows)
            return np.asarray(np.log(found) if logarithmic else found)

    intercept = _measured(trees, targets, margin, estimator.n_features_in_, narrow=False)
    return Summed(_forest(trees, targets), 1.0, intercept, link, narrow=False)


def _forest(trees: Sequence[Tree], targets: int) -> Forest:
    return Forest(trees, targets, "BRANCH_LEQ", "float64")


def _link(estimator: Any, targets: int) -> str:
    if not hasattr(estimator, "classes_"):
        return "identity"
    return "sigmoid" if targets == 1 else "softmax"


def _tree(tree: Any, value: Array) -> Tree:
    leaf = tree.children_left == -1
    missing = getattr(tree, "missing_go_to_left", np.zeros(len(leaf)))
    return Tree(
        feature=np.where(leaf, LEAF, tree.feature),
        threshold=np.where(leaf, 0.0, tree.threshold),
        left=tree.children_left,
        right=tree.children_right,
        missing_left=np.asarray(missing).astype(bool),
        value=value,
    )


def _fractions(member: Any) -> Array:
    """What the leaves of one tree say: fractions of the classes, or a number."""
    value = np.asarray(member.tree_.value[:, 0, :], dtype=np.float64)
    if not hasattr(member, "classes_"):
        return value
    whole = value.sum(axis=1, keepdims=True)
    return np.asarray(value / np.where(whole == 0.0, 1.0, whole))


def _in_column(leaf: Array, column: int, targets: int) -> Array:
    value = np.zeros((len(leaf), targets))
    value[:, column] = leaf
    return value


def _histogram_tree(nodes: Any, column: int, targets: int) -> Tree:
    if nodes["is_categorical"].any():
        raise CannotConvert("categorical splits of histogram gradient boosting have no ONNX form here")
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=np.where(leaf, LEAF, nodes["feature_idx"].astype(np.int64)),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=_in_column(np.where(leaf, nodes["value"], 0.0), column, targets),
    )


def _measured(trees: Sequence[Tree], targets: int, margin: Any, width: int, narrow: bool) -> Array:
    """The intercept: what the margins have beyond the trees, the same for every row. Raises CannotConvert."""
    rows = np.random.default_rng(0).normal(size=(TRIED_ROWS, width))
    said = np.array([_sum(trees, row.astype(np.float32) if narrow else row, targets) for row in rows])
    beyond = np.asarray(margin(rows)).reshape(TRIED_ROWS, targets) - said
    if np.ptp(beyond, axis=0).max() > AGREEMENT * max(1.0, float(np.abs(beyond).max())):
        raise CannotConvert("boosting that starts from another model than a constant has no ONNX form here")
    return np.asarray(np.median(beyond, axis=0))


def _sum(trees: Sequence[Tree], row: Array, targets: int) -> Array:
    total = np.zeros(targets)
    for tree in trees:
        node = 0
        while tree.feature[node] != LEAF:
            goes_left = row[tree.feature[node]] <= tree.threshold[node]
            node = int(tree.left[node] if goes_left else tree.right[node])
        total += tree.value[node]
    return total
