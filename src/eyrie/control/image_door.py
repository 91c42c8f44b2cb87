"""`/eyrie/images` on control's socket: what `eyrie image add`, `list` and `remove` ask for. The files of an image are
written by the command; control only names them, and removes those that nobody names.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from eyrie.adapters.described import described
from eyrie.adapters.image_store import ImageStore
from eyrie.control import image_table
from eyrie.control.context import Context
from eyrie.control.image_table import BadName
from eyrie.wire.errors import ApiError, validation

PATH = "/eyrie/images"
REMOVE = "/eyrie/images/remove"


class _Named(msgspec.Struct):
    name: str
    digest: str = ""


described(_Named)  # it is read into in several threads


def answer(context: Context, data: Path, method: str, path: str, body: bytes) -> dict[str, Any]:
    """The reply to a request of the command's. Raises ApiError, Conflict."""
    images = ImageStore(data)
    if (method, path) == ("GET", PATH):
        return {"images": list(image_table.rows(context.store))}
    if method == "POST" and path in (PATH, REMOVE):
        try:
            given = msgspec.json.decode(body, type=_Named)
            name = image_table.parse(given.name, context.scope)
        except (msgspec.DecodeError, BadName) as error:
            raise validation(str(error)) from None
        found = _remove(context, images, name) if path == REMOVE else _add(context, images, name, given.digest)
        images.sweep(in_use(context), time.time())
        return found
    raise ApiError("UnknownOperationException", f"There is no {method} {path[:200]} here.", 404)


def in_use(context: Context) -> set[str]:
    """The digests that a name means or an endpoint runs."""
    run = {
        container.image_digest
        for endpoint in context.endpoints.list()
        for fleet in endpoint.fleets
        for variant in fleet.variants
        for container in variant.spec.model.containers
        if container.image_digest is not None
    }
    return image_table.named(context.store) | run


def _add(context: Context, images: ImageStore, name: image_table.ImageName, digest: str) -> dict[str, Any]:
    found = images.find(digest)
    if found is None:
        raise validation(f"There is no image {digest[:80]!r} in the data directory of this Eyrie: add it again.")
    if name.digest not in (None, digest):
        raise validation(f"The image has the digest sha256:{digest}, not sha256:{name.digest}.")
    image = {"digest": digest, "size_bytes": found.size_bytes, "kind": found.kind, "source": found.source}
    try:
        image_table.add(context.store, name, image, context.now_ms)
    except ValueError as error:
        raise validation(str(error)) from None
    return {"name": name.uri, "digest": digest}


def _remove(context: Context, images: ImageStore, name: image_table.ImageName) -> dict[str, Any]:
    digest = image_table.remove(context.store, name, context.now_ms)
    if digest is None:
        raise validation(f"There is no image {name.uri}.")
    images.touch(digest)  # an endpoint that is being created with it may be about to name it
    return {"name": name.uri, "digest": digest}
