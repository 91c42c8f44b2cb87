"""Kinds of warm slots: which frameworks a slot has imported before it is claimed.

A kind is the names of its frameworks in order, joined by "+": "xgboost", "sklearn+xgboost"; PLAIN has none. XGBoost's
own model files need "xgboost" alone; its scikit-learn interface (pickles, user code) is "sklearn+xgboost".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Framework:
    """What is known of a framework outside of the model server."""

    library: str  # the module to import ahead
    distribution: str  # that brings it
    images: tuple[str, ...]  # words in an image's name that mean this framework
    files: tuple[str, ...]  # endings of its model files


FRAMEWORKS: Mapping[str, Framework] = {
    "xgboost": Framework("xgboost", "xgboost", ("xgboost",), (".ubj", "xgboost-model", "xgboost-model.json")),
    "lightgbm": Framework("lightgbm", "lightgbm", ("lightgbm",), ("model.txt",)),
    "onnx": Framework("onnxruntime", "onnxruntime", ("onnx",), (".onnx",)),
    "huggingface": Framework("transformers", "transformers", ("huggingface",), (".safetensors",)),
    "torch": Framework("torch", "torch", ("pytorch", "eyrie/torch"), (".pt", ".pth", ".pt2")),
    "tensorflow": Framework("tensorflow", "tensorflow", ("tensorflow",), ("saved_model.pb",)),
    "spark": Framework("pyarrow", "pyarrow", ("sparkml", "eyrie/spark"), ()),
    "sklearn": Framework("sklearn", "scikit-learn", ("sklearn", "scikit"), (".joblib", ".pkl", ".pickle", ".skops")),
}


def kind_of(frameworks: Iterable[str]) -> str:
    """The kind of a slot that has these frameworks."""
    return "+".join(sorted(set(frameworks))) or PLAIN


def frameworks_of(kind: str) -> tuple[str, ...]:
    """The frameworks of a kind, in the order in which they are to be imported."""
    return () if kind == PLAIN else tuple(kind.split("+"))
