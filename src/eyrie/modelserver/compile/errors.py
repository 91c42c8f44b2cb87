"""Why a model is not compiled."""

from __future__ import annotations


class CannotConvert(Exception):
    """There is no ONNX graph for this model; the message is one plain line for its owner."""
