"""Does a request say which model or container it is for, where its endpoint wants to know, and only there? SageMaker's
sentences for those that do not.

On the path of an invocation with headers of the runtime's own, before its body is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eyrie.domain import target_models
from eyrie.gateway import errors
from eyrie.gateway.errors import Reply
from eyrie.gateway.headers import SESSION, TARGET_CONTAINER, TARGET_MODEL
from eyrie.gateway.routes import Endpoint, Variant


def refusal(endpoint: Endpoint, variant: str, fields: Mapping[bytes, bytes], request_id: str) -> Reply | None:
    """Why a request is refused, or None. `variant`: the one that it names; "" where it names none."""
    variants = [v for v in endpoint.variants.values() if not variant or v.name == variant]
    name = endpoint.key.name
    if endpoint.asynchronous:
        said = "has an AsyncInferenceConfig: it takes InvokeEndpointAsync only, and not this operation."
        return errors.validation(f"Endpoint {name} {said}")
    if TARGET_MODEL in fields:
        reply = _model_refusal(name, variants, fields)
        if reply is not None:
            return reply
    if TARGET_CONTAINER in fields and not any(v.direct for v in variants):
        said = f"Endpoint {name} is not configured for direct invocation and does not support target container hostname"
        return errors.validation(f"{said} header.")
    if not variants:
        return None
    if TARGET_MODEL not in fields and all(v.multi_model for v in variants):
        return errors.validation(f"Request {request_id} is missing a target model header.")
    if TARGET_CONTAINER not in fields and all(v.direct for v in variants):
        return errors.validation(f"Request {request_id} is missing a target container hostname header.")
    if TARGET_CONTAINER in fields:
        wanted = fields[TARGET_CONTAINER].decode("latin-1")
        if not any(wanted in v.route.containers for v in variants if v.direct):
            return errors.validation(f'Target container hostname "{wanted[:63]}" does not exist in endpoint {name}.')
    return None


def _model_refusal(name: str, variants: Sequence[Variant], fields: Mapping[bytes, bytes]) -> Reply | None:
    if not any(v.multi_model for v in variants):
        said = f"Endpoint {name} is not a multi-model endpoint and does not support target model header."
        return errors.validation(said)
    if SESSION in fields:
        return errors.validation(f"Endpoint {name} is a multi-model endpoint and does not support sessions.")
    try:
        model = fields[TARGET_MODEL].decode()
    except UnicodeDecodeError:
        return errors.validation("The TargetModel is not valid: it is not UTF-8.")
    why = target_models.refusal(model)
    return None if why is None else errors.validation(f'The TargetModel "{model[:200]}" is not valid: {why}.')
