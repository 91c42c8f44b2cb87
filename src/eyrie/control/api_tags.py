"""AddTags, ListTags and DeleteTags over every taggable SageMaker resource.

How they are kept: `records.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eyrie.control.context import Context, Operation, Params
from eyrie.control.listing import bad_token
from eyrie.control.records import Tag, keep_tags, kept_tags, merge
from eyrie.ports import Document
from eyrie.wire.errors import could_not_find, validation

_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:([a-z0-9-]*):([0-9]{12}):([a-z-]+)/(.+)", re.IGNORECASE)


def operations(taggable: Mapping[str, tuple[str, str]]) -> Mapping[str, Operation]:
    """The operations on tags. `taggable`: type in the ARN -> kind of the document, and its words in error texts."""

    def add_tags(context: Context, params: Params) -> dict[str, Any]:
        kept, document = _of_resource(context, params["ResourceArn"], taggable)
        merged = merge(kept, params["Tags"])
        keep_tags(context, document, merged)
        return {"Tags": merged}

    def list_tags(context: Context, params: Params) -> dict[str, Any]:
        kept, _ = _of_resource(context, params["ResourceArn"], taggable)
        if params.get("NextToken"):
            raise bad_token()
        return {"Tags": kept}  # all of the 50 at the most: SDK v2 never asks for a second page

    def delete_tags(context: Context, params: Params) -> dict[str, Any]:
        kept, document = _of_resource(context, params["ResourceArn"], taggable)
        left = [tag for tag in kept if tag["Key"] not in params["TagKeys"]]
        if len(left) != len(kept):
            keep_tags(context, document, left)
        return {}

    return {"AddTags": add_tags, "ListTags": list_tags, "DeleteTags": delete_tags}


def _of_resource(context: Context, arn: str, taggable: Mapping[str, tuple[str, str]]) -> tuple[list[Tag], Document]:
    """The tags of the resource that an ARN names, and their document. ARNs are compared without regard to case."""
    found = _ARN.fullmatch(arn)
    kind, noun = taggable.get(found[3].lower(), ("", "")) if found else ("", "")
    if found is None or not kind:
        raise validation(f'Could not find resource "{arn}".')
    if (found[1].lower(), found[2]) != (context.scope.region, context.scope.account):
        raise could_not_find(noun, arn)
    name = _stored_name(context, kind, found[4])
    if name is None:
        raise could_not_find(noun, arn)
    return kept_tags(context, found[3].lower(), name)


def _stored_name(context: Context, kind: str, name: str) -> str | None:
    if context.get(kind, name) is not None:
        return name
    lowered = name.lower()
    return next((d.name for d in context.store.scan(kind, context.scope) if d.name.lower() == lowered), None)
