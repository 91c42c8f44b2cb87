"""Records: storing, and forgetting, a resource together with its tags.

Tags are a document of their own beside each resource, named by the resource part of its ARN, because a resource has
one writer (an endpoint's is its reconciler) and its tags have another: the client. A commit that lost a race raises
Conflict; the handler chain runs the operation again, which then sees what the other one did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.control import quotas
from eyrie.control.context import DOCUMENTS_MAX, Context, Operation, Params, first_duplicate
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, already_exists, validation

TAGS_KIND = "Tags"
TAGS_MAX = 50

Tag = dict[str, str]


def put_new(context: Context, arn_type: str, noun: str, document: Document, params: Params) -> str:
    """Store a new resource with its tags; its ARN. Raises ValidationException when the name is taken."""
    arn = context.arn(arn_type, document.name)
    refuse_beyond_quota(context, document.kind)
    if context.get(document.kind, document.name) is not None:
        raise already_exists(noun, arn)
    context.store.commit(Commit(puts=[document, *new_tags(context, arn_type, document.name, params)]))
    return arn


def delete_with_tags(context: Context, arn_type: str, document: Document) -> None:
    """Forget a resource and its tags in one commit."""
    tags = tags_document(context, arn_type, document.name)
    context.store.commit(Commit(deletes=[document, *([tags] if tags else [])]))


def new_tags(context: Context, arn_type: str, name: str, params: Params) -> list[Document]:
    """What is to be put beside a resource about to be created: its tags, over those of an earlier one of its name."""
    tags = merge([], params.get("Tags", []))
    found = tags_document(context, arn_type, name)
    if found is not None:
        return [replace(found, body={"Tags": tags}, modified_ms=context.now_ms)]
    return [context.new(TAGS_KIND, f"{arn_type}/{name}", {"Tags": tags})] if tags else []


def tags_document(context: Context, arn_type: str, name: str) -> Document | None:
    """The tags of a resource as stored, if it ever had any."""
    return context.get(TAGS_KIND, f"{arn_type}/{name}")


def kept_tags(context: Context, arn_type: str, name: str) -> tuple[list[Tag], Document]:
    """The tags of a resource, and the document that they are kept in, which may be new."""
    document = tags_document(context, arn_type, name)
    if document is None:
        return [], context.new(TAGS_KIND, f"{arn_type}/{name}", {"Tags": []})
    return document.body["Tags"], document


def keep_tags(context: Context, document: Document, tags: list[Tag]) -> None:
    """Keep these tags, and no others."""
    context.store.commit(Commit(puts=[replace(document, body={"Tags": tags}, modified_ms=context.now_ms)]))


def merge(kept: Sequence[Tag], added: Sequence[Tag]) -> list[Tag]:
    """The tags with `added` over `kept`. Raises ValidationException for a bad key, or more than 50."""
    twice = first_duplicate([tag["Key"] for tag in added])
    if twice is not None:
        raise validation(f"Duplicate tag key: {twice}.")
    for tag in added:
        if tag["Key"].lower().startswith("aws:"):
            raise validation(f"The tag key {tag['Key']} is reserved: keys that start with aws: belong to AWS.")
    merged = {tag["Key"]: tag["Value"] for tag in [*kept, *added]}
    if len(merged) > TAGS_MAX:
        raise validation(f"A resource has at most {TAGS_MAX} tags; with these it would have {len(merged)}.")
    return [{"Key": key, "Value": value} for key, value in merged.items()]


def tag_operations(
    tagged: Callable[[Context, Params], tuple[list[Tag], Document]],
    merged: Callable[[Sequence[Tag], Sequence[Tag]], list[Tag]] = merge,
) -> Mapping[str, Operation]:
    """TagResource, UntagResource and ListTagsForResource, as several services have them. `tagged`: `kept_tags` of the
    resource that the request names, or its own error.
    """

    def tag_resource(context: Context, params: Params) -> dict[str, Any]:
        kept, document = tagged(context, params)
        keep_tags(context, document, merged(kept, params["Tags"]))
        return {}

    def untag_resource(context: Context, params: Params) -> dict[str, Any]:
        kept, document = tagged(context, params)
        keep_tags(context, document, [tag for tag in kept if tag["Key"] not in params["TagKeys"]])
        return {}

    def list_tags_for_resource(context: Context, params: Params) -> dict[str, Any]:
        return {"Tags": tagged(context, params)[0]}

    return {
        "TagResource": tag_resource,
        "UntagResource": untag_resource,
        "ListTagsForResource": list_tags_for_resource,
    }


def refuse_beyond_quota(context: Context, kind: str) -> None:
    """Raise ResourceLimitExceeded when the account has as many of a kind in this region as it may have."""
    name, count = quotas.OF_KIND.format(kind), len(context.store.scan(kind, context.scope))
    if count >= DOCUMENTS_MAX:
        most = quotas.limit(context.store, context.scope, name, DOCUMENTS_MAX)
        if count >= most:
            text = f"The account-level service limit '{name}' is {most}, all are in use."
            raise ApiError("ResourceLimitExceeded", text)
