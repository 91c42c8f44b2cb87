"""LightGBM boosters as forests, read from `Booster.dump_model`.

LightGBM compares and sums in float64 and goes left when a value is not greater than the threshold. What a missing
value does depends on how the feature was trained: it has a side of its own, or counts as zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eyrie.modelserver.compile.errors import CannotConvert
from eyrie.modelserver.compile.forest import LEAF, Forest, Scores, Tree

TINY = float(np.float32(1e-35))
LINKS = {
    "binary": "sigmoid",
    "multiclassova": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
    "custom": "identity",
}


def scores_of(booster: Any) -> Scores:
    """What a booster computes, up to its best round where it knows one. Raises CannotConvert."""
    dump = booster.dump_model()
    objective, *parameters = str(dump.get("objective", "custom")).split(" ")
    link = LINKS.get(objective)
    if link is None or "sqrt" in parameters:
        raise CannotConvert(f"LightGBM's objective {' '.join([objective, *parameters])} has no ONNX form here")
    targets = int(dump["num_tree_per_iteration"])
    trees = [_tree(given, targets) for given in dump["tree_info"]]
    divisor = len(trees) / targets if dump.get("average_output") else 1.0
    steepness = float(next((p[8:] for p in parameters if p.startswith("sigmoid:")), 1.0))
    scale = (steepness if link == "sigmoid" else 1.0) / divisor
    if scale != 1.0:
        trees = [_scaled(tree, scale) for tree in trees]
    forest = Forest(trees, targets, "BRANCH_LEQ", "float64")
    return Scores(forest, np.zeros(targets), link, int(dump["max_feature_idx"]) + 1)


def _scaled(tree: Tree, scale: float) -> Tree:
    return Tree(tree.feature, tree.threshold, tree.left, tree.right, tree.missing_left, tree.value * scale)


def _tree(given: Any, targets: int) -> Tree:
    rows: list[tuple[int, float, int, int, bool, float]] = []
    _walk(given["tree_structure"], rows)
    feature, threshold, left, right, missing_left, leaf = (np.array(column) for column in zip(*rows, strict=True))
    value = np.zeros((len(rows), targets))
    value[:, int(given["tree_index"]) % targets] = leaf
    return Tree(feature, threshold, left, right, missing_left, value)


def _walk(node: Any, rows: list[tuple[int, float, int, int, bool, float]]) -> int:
    """Append a node and everything below it; its number."""
    number = len(rows)
    if "split_feature" not in node:
        rows.append((LEAF, 0.0, 0, 0, False, float(node["leaf_value"])))
        return number
    if node["decision_type"] != "<=":
        raise CannotConvert("LightGBM's categorical splits have no ONNX form here")
    rows.append((0, 0.0, 0, 0, False, 0.0))
    left = _walk(node["left_child"], rows)
    right = _walk(node["right_child"], rows)
    threshold = float(node["threshold"])
    missing_left = _missing_left(node, threshold)
    rows[number] = (int(node["split_feature"]), _beside_zero(threshold), left, right, missing_left, 0.0)
    return number


def _beside_zero(threshold: float) -> float:
    """A threshold for values as they are: LightGBM takes those within TINY of zero for zero."""
    if abs(threshold) > TINY:
        return threshold
    return TINY if threshold >= 0.0 else math.nextafter(-TINY, -math.inf)


def _missing_left(node: Any, threshold: float) -> bool:
    kind, default = node["missing_type"], bool(node["default_left"])
    if kind == "NaN":
        return default
    zero_left = threshold >= 0.0
    if kind == "Zero" and zero_left is not default:
        raise CannotConvert("a LightGBM model that takes zeros for missing has no ONNX form here")
    return zero_left
