"""ONNX graphs of boosters: one node for the forest, one for the intercept, one for the link.

The input is `X`, rows in the precision of the forest; the output is `scores`, a column a target.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eyrie.modelserver.compile.forest import Scores

OPSET, ML_OPSET, IR_VERSION = 17, 3, 9  # what every onnxruntime of the last years reads
INPUT, SCORES = "X", "scores"
_LINK_NODES = {"sigmoid": "Sigmoid", "exp": "Exp", "identity": "Identity"}


def booster_graph(scores: Scores) -> bytes:
    """The serialised ONNX model of a booster."""
    from onnx import TensorProto, helper, numpy_helper

    wide = scores.forest.dtype == "float64"
    element = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    given = helper.make_tensor_value_info(INPUT, element, [None, scores.width])
    columns = 1 if scores.link == "argmax" else scores.forest.targets
    out = helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [None, columns])
    constants = [numpy_helper.from_array(scores.intercept.astype(np.float32).reshape(1, -1), "intercept")]
    forest = helper.make_node(
        "TreeEnsembleRegressor", [INPUT], ["sum"], domain="ai.onnx.ml", **scores.forest.attributes()
    )
    nodes = [forest, helper.make_node("Add", ["sum", "intercept"], ["margin"]), *_link(scores.link)]
    if scores.link == "step":
        constants.append(numpy_helper.from_array(np.zeros((1, 1), dtype=np.float32), "zero"))
    return serialised(helper.make_graph(nodes, "booster", [given], [out], initializer=constants))


def serialised(graph: Any) -> bytes:
    """A graph as a model file."""
    from onnx import helper

    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="eyrie")
    return bytes(model.SerializeToString())


def _link(link: str) -> list[Any]:
    """The nodes from `margin` to `scores`."""
    from onnx import TensorProto, helper

    if link == "softmax":
        return [helper.make_node("Softmax", ["margin"], [SCORES], axis=1)]
    if link == "argmax":
        best = helper.make_node("ArgMax", ["margin"], ["best"], axis=1, keepdims=1)
        return [best, helper.make_node("Cast", ["best"], [SCORES], to=TensorProto.FLOAT)]
    if link == "step":
        above = helper.make_node("Greater", ["margin", "zero"], ["above"])
        return [above, helper.make_node("Cast", ["above"], [SCORES], to=TensorProto.FLOAT)]
    return [helper.make_node(_LINK_NODES[link], ["margin"], [SCORES])]
