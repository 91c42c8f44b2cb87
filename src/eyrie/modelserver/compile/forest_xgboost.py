"""XGBoost boosters as forests, read from their own JSON form.

XGBoost compares and sums in float32 and goes left when a value is less than the threshold. Its intercept has moved
about between versions, so it is not read but measured: what the margin has beyond the sum of the leaves.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array
from eyrie.modelserver.compile.errors import CannotConvert
from eyrie.modelserver.compile.forest import LEAF, Forest, Scores, Tree

LINKS = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "multi:softmax": "argmax",
    "binary:hinge": "step",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
    "binary:logitraw": "identity",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
}


def scores_of(booster: Any, rounds: tuple[int, int]) -> Scores:
    """What a booster computes; `rounds` as iteration_range has it, (0, 0) for all. Raises CannotConvert."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    objective = str(learner["objective"]["name"])
    link = LINKS.get(objective)
    if link is None:
        raise CannotConvert(f"XGBoost's objective {objective} has no ONNX form here")
    name = learner["gradient_booster"]["name"]
    if name == "gblinear":
        raise CannotConvert("a linear booster is as quick as it is")
    model = learner["gradient_booster"]["gbtree" if name == "dart" else "model"]
    weights = learner["gradient_booster"].get("weight_drop")
    model = model["model"] if name == "dart" else model
    width = int(learner["learner_model_param"]["num_feature"])
    trees, targets = _trees(model, weights, rounds, learner)
    forest = Forest(trees, targets, "BRANCH_LT", "float32")
    return Scores(forest, _intercept(booster, rounds, trees, targets, width), link, width)


def _trees(model: Any, weights: Any, rounds: tuple[int, int], learner: Any) -> tuple[list[Tree], int]:
    """The trees of the chosen rounds, each with its leaves in the column of its class."""
    targets = max(1, int(learner["learner_model_param"].get("num_class", "0")))
    targets = max(targets, int(learner["learner_model_param"].get("num_target", "1")))
    chosen = range(len(model["trees"]))
    if rounds[1]:
        indptr = model.get("iteration_indptr") or list(range(0, len(model["trees"]) + 1, targets))
        chosen = range(indptr[rounds[0]], indptr[rounds[1]])
    kinds = model["tree_info"]
    return [_tree(model["trees"][i], kinds[i], targets, weights[i] if weights else 1.0) for i in chosen], targets


def _tree(given: Any, target: int, targets: int, weight: float) -> Tree:
    if int(given["tree_param"].get("size_leaf_vector", "1") or 1) > 1:
        raise CannotConvert("XGBoost trees with several values a leaf have no ONNX form here")
    if any(given.get("split_type") or []):
        raise CannotConvert("XGBoost's categorical splits have no ONNX form here")
    left = np.array(given["left_children"], dtype=np.int64)
    leaf = left == -1
    conditions = np.array(given["split_conditions"], dtype=np.float32)
    value = np.zeros((len(left), targets), dtype=np.float32)
    value[:, target] = np.where(leaf, conditions * np.float32(weight), 0.0)
    return Tree(
        feature=np.where(leaf, LEAF, np.array(given["split_indices"], dtype=np.int64)),
        threshold=np.where(leaf, np.float32(0.0), conditions),
        left=left,
        right=np.array(given["right_children"], dtype=np.int64),
        missing_left=np.array(given["default_left"]).astype(bool),
        value=value,
    )


def _intercept(booster: Any, rounds: tuple[int, int], trees: list[Tree], targets: int, width: int) -> Array:
    """The margin of a row without any value, less what the trees say to it."""
    import xgboost

    empty = xgboost.DMatrix(np.full((1, width), np.nan, dtype=np.float32))
    margin = booster.predict(empty, output_margin=True, iteration_range=rounds, validate_features=False)
    said = np.zeros(targets, dtype=np.float64)
    for tree in trees:
        node = 0
        while tree.feature[node] != LEAF:
            node = int(tree.left[node] if tree.missing_left[node] else tree.right[node])
        said += tree.value[node]
    return np.asarray(np.asarray(margin, dtype=np.float64).reshape(targets) - said, dtype=np.float32)
