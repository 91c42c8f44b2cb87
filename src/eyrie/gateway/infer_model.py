"""An infer request for one model of many: it waits for its model as any such request does, and speaks tensors."""

from __future__ import annotations

from eyrie.gateway.infer import InferInvocation
from eyrie.gateway.model_invocation import ModelInvocation


class InferModelInvocation(ModelInvocation, InferInvocation):
    """One POST /v2/models/ENDPOINT/infer with X-Amzn-SageMaker-Target-Model."""
