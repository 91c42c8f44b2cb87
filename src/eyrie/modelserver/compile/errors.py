"""Why a model is not compiled, and why a job fails."""

from __future__ import annotations


class CannotConvert(Exception):
    """There is no ONNX graph for this model; the message is one plain line for its owner."""


class ClientError(Exception):
    """The job cannot be done as it was asked for; the message is one plain line."""
