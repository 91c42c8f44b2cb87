"""The local table of images of the user's own: registry names -> digests. A repository is one document; images come in
by `eyrie image add` and by nothing else, and CreateModel, CreateEndpoint and the ecr API look here.

A name is `123456789012.dkr.ecr.REGION.amazonaws.com/NAME:TAG` (or `@sha256:DIGEST`), or `NAME:TAG` alone, which is in
the caller's registry. Whoever runs this Eyrie adds images, so every account may use them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from eyrie.control.context import Context
from eyrie.control.images import FRAMEWORK_OF_REPOSITORY
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Document, Store

KIND = "EcrRepository"
REPOSITORIES_MAX = 10_000  # of one account in one region
IMAGES_MAX = 10_000  # of one repository
_REGISTRY = re.compile(
    r"(?P<account>[0-9]{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]{1,64})\.amazonaws\.com(?:\.cn)?/(?P<rest>.+)"
)
_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_WORD}(?:/{_WORD})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class BadName(ValueError):
    """A text that is no image's name; it says why."""


@dataclass(frozen=True, slots=True)
class ImageName:
    """An image's name, taken apart. It has a tag or a digest."""

    scope: Scope
    repository: str
    tag: str | None
    digest: str | None  # sha256, hex

    @property
    def uri(self) -> str:
        """The whole name."""
        version = f"@sha256:{self.digest}" if self.digest else f":{self.tag}"
        return f"{repository_uri(self.scope, self.repository)}{version}"


def repository_uri(scope: Scope, repository: str) -> str:
    """What images of a repository are named by."""
    return f"{registry(scope)}/{repository}"


def registry(scope: Scope) -> str:
    """The registry of an account in a region."""
    return f"{scope.account}.dkr.ecr.{scope.region}.amazonaws.com"


def parse(text: str, default: Scope) -> ImageName:
    """Take a name apart; one without a registry is in that of `default`. Raises BadName."""
    found = _REGISTRY.fullmatch(text)
    scope = Scope(found["account"], found["region"]) if found else default
    rest = found["rest"] if found else text
    repository, at, digest = rest.partition("@")
    if at:
        if not _DIGEST.fullmatch(digest):
            raise BadName(f"{digest[:80]!r} is no digest (sha256: and 64 hex digits)")
        return ImageName(scope, _checked(repository.partition(":")[0]), None, digest.removeprefix("sha256:"))
    repository, _, tag = rest.partition(":")
    tag = tag or "latest"
    if not _TAG.fullmatch(tag):
        raise BadName(f"{tag[:140]!r} is no tag (letters, digits and _ . -)")
    return ImageName(scope, _checked(repository), tag, None)


def _checked(repository: str) -> str:
    if not 2 <= len(repository) <= 256 or not _REPOSITORY.fullmatch(repository):
        rule = "2 to 256 lower-case letters and digits, with single . _ - / between them"
        raise BadName(f"{repository[:80]!r} is no repository's name ({rule})")
    return repository


def resolve(context: Context, image: str) -> str | None:
    """The digest of an image of the user's own, sha256 hex; None where the table has no such name."""
    try:
        name = parse(image, context.scope)
    except BadName:
        return None
    return digest_of(context.store.get(KIND, name.scope, name.repository), name)


def digest_of(repository: Document | None, name: ImageName) -> str | None:
    """What a name means in its repository, if anything."""
    if repository is None:
        return None
    if name.digest is not None:
        return name.digest if name.digest in repository.body["Images"] else None
    found: str | None = repository.body["Tags"].get(name.tag)
    return found


def by_digest(image: str, digest: str) -> str:
    """The name of an image with the digest that it meant when it was resolved."""
    repository = image.partition("@")[0]
    head, slash, last = repository.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@sha256:{digest}"


def refusal(context: Context, image: str) -> str:
    """Why an image that there is not is refused, and what to do."""
    try:
        name = parse(image, context.scope).uri
    except BadName as error:
        return f'Requested image "{image[:256]}" not found: {error}.'
    short = sorted(known for known in FRAMEWORK_OF_REPOSITORY if known.startswith("eyrie/"))
    return (
        f"Requested image {name} not found. Add an image of your own with `eyrie image add {image} PATH`, or use one "
        f"of Eyrie's: {', '.join(short)}, and the SageMaker images that stand for these."
    )


def new_repository(scope: Scope, name: str, now_ms: int, settings: dict[str, Any]) -> Document:
    """An empty repository. `settings`: what CreateRepository was given besides."""
    return Document(KIND, scope, name, 0, now_ms, now_ms, {"Tags": {}, "Images": {}, **settings})


def add(store: Store, name: ImageName, image: dict[str, Any], now_ms: int) -> None:
    """Let a name mean an image: {"digest", "size_bytes", "kind", "source"}. Raises ValueError beyond the bounds,
    Conflict.
    """
    document = store.get(KIND, name.scope, name.repository)
    if document is None:
        if len(store.scan(KIND, name.scope)) >= REPOSITORIES_MAX:
            raise ValueError(f"there are {REPOSITORIES_MAX} repositories in {registry(name.scope)}: remove some")
        document = new_repository(name.scope, name.repository, now_ms, {})
    digest = str(image["digest"])
    images = dict(document.body["Images"])
    images[digest] = {**image, "pushed_ms": images.get(digest, {}).get("pushed_ms", now_ms)}
    if len(images) > IMAGES_MAX:
        raise ValueError(f"there are {IMAGES_MAX} images in {name.repository}: remove some")
    before = document.body["Tags"].get(name.tag)
    if document.body.get("imageTagMutability") == "IMMUTABLE" and before not in (None, digest):
        raise ValueError(f"the tag {name.tag} of {name.repository} exists, and the repository's tags are immutable")
    tags = {**document.body["Tags"], **({name.tag: digest} if name.tag else {})}
    body = {**document.body, "Tags": tags, "Images": images}
    store.commit(Commit(puts=[replace(document, body=body, modified_ms=now_ms)]))


def remove(store: Store, name: ImageName, now_ms: int) -> str | None:
    """Let a name mean nothing any more; the digest that it meant. An image goes with its last tag, or by its digest."""
    document = store.get(KIND, name.scope, name.repository)
    digest = digest_of(document, name)
    if document is None or digest is None:
        return None
    store.commit(Commit(puts=[replace(document, body=without(document.body, name, digest), modified_ms=now_ms)]))
    return digest


def without(body: dict[str, Any], name: ImageName, digest: str) -> dict[str, Any]:
    """A repository's body without a tag, or without an image and all its tags."""
    gone = {name.tag} if name.tag else {tag for tag, other in body["Tags"].items() if other == digest}
    tags = {tag: other for tag, other in body["Tags"].items() if tag not in gone}
    images = {d: image for d, image in body["Images"].items() if d != digest or digest in tags.values()}
    return {**body, "Tags": tags, "Images": images}


def rows(store: Store) -> Iterator[dict[str, Any]]:
    """Every image of every registry, a row a tag."""
    for document in sorted(store.scan(KIND), key=lambda d: (d.scope.account, d.scope.region, d.name)):
        for digest, image in document.body["Images"].items():
            tags = sorted(tag for tag, other in document.body["Tags"].items() if other == digest)
            for tag in tags or [None]:
                name = ImageName(document.scope, document.name, tag, None if tag else digest)
                yield {"name": name.uri, **image, "digest": digest}


def named(store: Store) -> set[str]:
    """The digests that some name means."""
    return {digest for document in store.scan(KIND) for digest in document.body["Images"]}
