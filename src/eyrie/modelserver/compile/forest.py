"""A forest of decision trees, whichever library grew it, and its ONNX node.

`forest_xgboost`, `forest_lightgbm` and `forest_sklearn` read theirs into a `Forest`; `graph` and `convert_sklearn` make
nodes of it. The thresholds keep the precision in which the library compares: a threshold that is rounded sends the
rows that lie on it the other way, which is what most converters get wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array

LEAF = -1


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree as arrays with an entry a node; the first node is the root."""

    feature: Array  # int; LEAF at a leaf
    threshold: Array
    left: Array  # int: the node to go to when the comparison holds
    right: Array
    missing_left: Array  # bool: where a missing value goes
    value: Array  # nodes x targets; what a leaf adds to each target


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees whose leaves are summed, target by target."""

    trees: Sequence[Tree]
    targets: int
    mode: str  # BRANCH_LEQ: left when value <= threshold; BRANCH_LT: left when value < threshold
    dtype: str  # "float32" or "float64": of the values when they are compared

    def attributes(self) -> dict[str, Any]:
        """Attributes of a TreeEnsembleRegressor (ai.onnx.ml 3) that sums these trees."""
        from onnx import numpy_helper

        table = [_nodes(number, tree) for number, tree in enumerate(self.trees)]
        whole = {name: np.concatenate([part[name] for part in table]) for name in table[0]}
        leaves = whole["feature"] == LEAF
        given: dict[str, Any] = {
            "n_targets": self.targets,
            "nodes_treeids": whole["tree"].tolist(),
            "nodes_nodeids": whole["node"].tolist(),
            "nodes_featureids": np.where(leaves, 0, whole["feature"]).tolist(),
            "nodes_modes": ["LEAF" if leaf else self.mode for leaf in leaves.tolist()],
            "nodes_truenodeids": np.where(leaves, 0, whole["left"]).tolist(),
            "nodes_falsenodeids": np.where(leaves, 0, whole["right"]).tolist(),
            "nodes_missing_value_tracks_true": np.where(leaves, 0, whole["missing_left"]).astype(int).tolist(),
        }
        values = np.where(leaves, 0.0, whole["threshold"])
        weights = self._weights()
        given |= {name: weights[name].tolist() for name in ("target_treeids", "target_nodeids", "target_ids")}
        if self.dtype == "float32":
            return given | {"nodes_values": values.tolist(), "target_weights": weights["weights"].tolist()}
        return given | {
            "nodes_values_as_tensor": numpy_helper.from_array(values.astype(np.float64), "thresholds"),
            "target_weights_as_tensor": numpy_helper.from_array(weights["weights"].astype(np.float64), "weights"),
        }

    def thresholds(self) -> Mapping[int, Array]:
        """The distinct thresholds of every feature that is asked for, ascending."""
        feature = np.concatenate([tree.feature for tree in self.trees])
        threshold = np.concatenate([tree.threshold for tree in self.trees])
        return {int(f): np.unique(threshold[feature == f]) for f in np.unique(feature) if f != LEAF}

    def _weights(self) -> dict[str, Array]:
        """What leaves add: the entries that are not zero, and at least one a leaf, as ONNX Runtime wants it."""
        parts = []
        for number, tree in enumerate(self.trees):
            wanted = (tree.feature == LEAF)[:, None] & (tree.value != 0.0)
            wanted[:, 0] |= (tree.feature == LEAF) & ~wanted.any(axis=1)
            node, target = np.nonzero(wanted)
            parts.append((np.full(len(node), number), node, target, tree.value[node, target]))
        names = ("target_treeids", "target_nodeids", "target_ids", "weights")
        return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class Scores:
    """A booster's scores: the sum of a forest, an intercept, and a link function over both."""

    forest: Forest
    intercept: Array  # a value a target
    link: str
    width: int


def _nodes(number: int, tree: Tree) -> dict[str, Array]:
    count = len(tree.feature)
    return {
        "tree": np.full(count, number),
        "node": np.arange(count),
        "feature": tree.feature,
        "threshold": tree.threshold,
        "left": tree.left,
        "right": tree.right,
        "missing_left": tree.missing_left,
    }
