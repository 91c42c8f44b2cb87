"""Tags of objects, and how tags are read and written; `api_buckets` has those of buckets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from eyrie.http1.handlers import Response
from eyrie.objects import catalogue
from eyrie.objects.body import read_document
from eyrie.objects.call import Call, reply, xml_reply
from eyrie.objects.errors import no_such_key, refuse
from eyrie.objects.index import Change
from eyrie.objects.xml import Element, element

OBJECT_TAGS_MAX = 10


async def get_object_tagging(call: Call) -> Response:
    """GET /BUCKET/KEY?tagging."""
    return xml_reply(tagging_document(call.object().details.tags))


async def put_object_tagging(call: Call) -> Response:
    """PUT /BUCKET/KEY?tagging."""
    call.object()
    await _set_tags(call, await read_tags(call, OBJECT_TAGS_MAX))
    return reply(200)


async def delete_object_tagging(call: Call) -> Response:
    """DELETE /BUCKET/KEY?tagging."""
    call.object()
    await _set_tags(call, {})
    return reply(204)


async def _set_tags(call: Call, tags: dict[str, str]) -> None:
    def change_tags(change: Change) -> None:
        found = catalogue.stored_object(change.db, call.bucket, call.key)
        if found is None:
            raise no_such_key(call.key)
        catalogue.put_details(change, replace(found, details=replace(found.details, tags=tags)))

    await call.store.index.write(change_tags)


async def read_tags(call: Call, limit: int) -> dict[str, str]:
    """The tags in a request's document. Raises ApiError."""
    document = await read_document(call, "Tagging")
    tag_set = document.find("TagSet") if document is not None else None
    if tag_set is None:
        raise refuse("MalformedXML")
    return tags_in(tag_set, limit)


def tags_in(tag_set: Element, limit: int) -> dict[str, str]:
    """The tags that an element holds. Raises ApiError (InvalidTag)."""
    return checked_tags([(tag.get("Key"), tag.get("Value")) for tag in tag_set.all("Tag")], limit)


def header_tags(value: str | None) -> dict[str, str]:
    """The tags of an x-amz-tagging header, `k=v&k2=v2`. Raises ApiError."""
    if not value:
        return {}
    try:
        pairs = parse_qsl(value, keep_blank_values=True, strict_parsing=False, max_num_fields=OBJECT_TAGS_MAX + 1)
    except ValueError:
        raise refuse("InvalidTag") from None
    return checked_tags(pairs, OBJECT_TAGS_MAX)


def checked_tags(pairs: list[tuple[str, str]], limit: int) -> dict[str, str]:
    """Tags within S3's bounds. Raises ApiError (InvalidTag)."""
    tags = dict(pairs)
    if len(tags) != len(pairs):
        raise refuse("InvalidTag", "Cannot provide multiple Tags with the same key")
    if len(tags) > limit:
        raise refuse("InvalidTag", f"Tags cannot be more than {limit}")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128:
            raise refuse("InvalidTag", "The TagKey you have provided is invalid", TagKey=key[:256])
        if len(value) > 256:
            raise refuse("InvalidTag", "The TagValue you have provided is invalid", TagKey=key)
    return tags


def tagging_document(tags: Mapping[str, str]) -> Element:
    """Tags as S3 writes them."""
    tag_set = Element("TagSet")
    for key, value in tags.items():
        tag_set.add("Tag", element("Tag", Key=key, Value=value))
    return element("Tagging", TagSet=tag_set)
