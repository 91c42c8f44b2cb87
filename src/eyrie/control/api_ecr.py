"""ECR, as much as deploying takes: repositories, and what the local table of images has in them (`image_table`).

Nothing is pushed or pulled: there is no registry behind these names, and GetAuthorizationToken says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from eyrie.control import image_table
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.image_table import KIND, ImageName
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError

PAGE_DEFAULT = 100
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
KEPT = ("imageTagMutability", "imageTagMutabilityExclusionFilters", "imageScanningConfiguration",
        "encryptionConfiguration")  # fmt: skip
NO_REGISTRY = (
    "There is no registry to log in to: this Eyrie resolves image names through a local table. Add an image with "
    "`eyrie image add NAME PATH`."
)
T = TypeVar("T")


def operations() -> Mapping[str, Operation]:
    """The operations of ECR."""
    return {
        "CreateRepository": create_repository,
        "DescribeRepositories": describe_repositories,
        "DeleteRepository": delete_repository,
        "DescribeImages": describe_images,
        "ListImages": list_images,
        "BatchDeleteImage": batch_delete_image,
        "ListTagsForResource": list_tags_for_resource,
        "GetAuthorizationToken": get_authorization_token,
    }


def create_repository(context: Context, params: Params) -> dict[str, Any]:
    """An empty repository. Its settings are kept; images are neither scanned nor encrypted."""
    scope, name = _scope(context, params), params["repositoryName"]
    if context.store.get(KIND, scope, name) is not None:
        text = f"The repository with name '{name}' already exists in the registry with id '{scope.account}'"
        raise ApiError("RepositoryAlreadyExistsException", text)
    if len(context.store.scan(KIND, scope)) >= image_table.REPOSITORIES_MAX:
        raise ApiError("LimitExceededException", f"There are {image_table.REPOSITORIES_MAX} repositories already.")
    kept = {member: params[member] for member in (*KEPT, "tags") if member in params}
    document = image_table.new_repository(scope, name, context.now_ms, kept)
    context.store.commit(Commit(puts=[document]))
    return {"repository": _repository(document)}


def describe_repositories(context: Context, params: Params) -> dict[str, Any]:
    """Repositories by name."""
    scope, names = _scope(context, params), params.get("repositoryNames")
    if names:
        return {"repositories": [_repository(_find(context, scope, name)) for name in names]}
    found = sorted(context.store.scan(KIND, scope), key=lambda d: d.name)
    page, token = _page(found, params, lambda d: d.name)
    return {"repositories": [_repository(d) for d in page], **token}


def delete_repository(context: Context, params: Params) -> dict[str, Any]:
    """Forget a repository; with `force` also one that has images. Endpoints that run them go on."""
    scope, name = _scope(context, params), params["repositoryName"]
    found = _find(context, scope, name)
    if found.body["Images"] and not params.get("force"):
        text = (
            f"The repository with name '{name}' in registry with id '{scope.account}' cannot be deleted because it "
            "still contains images"
        )
        raise ApiError("RepositoryNotEmptyException", text)
    context.store.commit(Commit(deletes=[found]))
    return {"repository": _repository(found)}


def describe_images(context: Context, params: Params) -> dict[str, Any]:
    """Images of a repository with their tags and sizes."""
    scope, name = _scope(context, params), params["repositoryName"]
    repository = _find(context, scope, name)
    asked = params.get("imageIds")
    if asked:
        digests = list(dict.fromkeys(_asked(repository, given) for given in asked))
        return {"imageDetails": [_detail(repository, digest) for digest in digests]}
    wanted = [d for d in sorted(repository.body["Images"]) if _passes(repository, d, params)]
    page, token = _page(wanted, params, str)
    return {"imageDetails": [_detail(repository, digest) for digest in page], **token}


def list_images(context: Context, params: Params) -> dict[str, Any]:
    """Image ids of a repository: one a tag, and one for an image without any."""
    repository = _find(context, _scope(context, params), params["repositoryName"])
    ids = [
        {"imageDigest": f"sha256:{digest}", **({"imageTag": tag} if tag else {})}
        for digest in sorted(repository.body["Images"])
        if _passes(repository, digest, params)
        for tag in _tags(repository, digest) or [""]
    ]
    page, token = _page(ids, params, lambda i: f"{i['imageDigest']} {i.get('imageTag', '')}")
    return {"imageIds": page, **token}


def batch_delete_image(context: Context, params: Params) -> dict[str, Any]:
    """Take tags, or images with all their tags, from a repository. Endpoints that run them go on."""
    scope, name = _scope(context, params), params["repositoryName"]
    repository = _find(context, scope, name)
    body, gone, failures = repository.body, [], []
    for given in params["imageIds"]:
        tag = None if "imageDigest" in given and "imageTag" not in given else given.get("imageTag")
        asked = ImageName(scope, name, tag, None if tag else str(given.get("imageDigest", "")).removeprefix("sha256:"))
        digest = image_table.digest_of(replace(repository, body=body), asked)
        if digest is None or given.get("imageDigest", f"sha256:{digest}") != f"sha256:{digest}":
            reason = "Requested image not found"
            failures.append({"imageId": given, "failureCode": "ImageNotFound", "failureReason": reason})
            continue
        body = image_table.without(body, asked, digest)
        gone.append({"imageDigest": f"sha256:{digest}", **({"imageTag": tag} if tag else {})})
    context.store.commit(Commit(puts=[replace(repository, body=body, modified_ms=context.now_ms)]))
    return {"imageIds": gone, "failures": failures}


def list_tags_for_resource(context: Context, params: Params) -> dict[str, Any]:
    """The tags that a repository was created with."""
    arn = params["resourceArn"]
    head, _, name = arn.partition(":repository/")
    if head != f"arn:aws:ecr:{context.scope.region}:{context.scope.account}":
        raise ApiError("InvalidParameterException", f"{arn} is no repository of this registry.")
    return {"tags": _find(context, context.scope, name).body.get("tags", [])}


def get_authorization_token(context: Context, params: Params) -> dict[str, Any]:
    """Refused: there is nothing to log in to."""
    raise ApiError("InvalidParameterException", NO_REGISTRY)


def _scope(context: Context, params: Params) -> Scope:
    """The registry that a call is about: the caller's own, since there are no policies that would open another."""
    account = params.get("registryId", context.scope.account)
    if account != context.scope.account:
        raise ApiError("InvalidParameterException", f"The registry {account} belongs to another account.")
    return context.scope


def _find(context: Context, scope: Scope, name: str) -> Document:
    found = context.store.get(KIND, scope, name)
    if found is None:
        text = f"The repository with name '{name}' does not exist in the registry with id '{scope.account}'"
        raise ApiError("RepositoryNotFoundException", text)
    return found


def _repository(document: Document) -> dict[str, Any]:
    scope, name = document.scope, document.name
    return {
        "repositoryArn": f"arn:aws:ecr:{scope.region}:{scope.account}:repository/{name}",
        "registryId": scope.account,
        "repositoryName": name,
        "repositoryUri": image_table.repository_uri(scope, name),
        "createdAt": seconds(document.created_ms),
        "imageTagMutability": "MUTABLE",
        **{member: document.body[member] for member in KEPT if member in document.body},
    }


def _asked(repository: Document, given: Mapping[str, str]) -> str:
    """The digest that an image id means. Raises ImageNotFoundException."""
    tag = given.get("imageTag")
    digest = given.get("imageDigest", "").removeprefix("sha256:") or None
    name = ImageName(repository.scope, repository.name, tag, None if tag else digest)
    found = image_table.digest_of(repository, name)
    if found is None or digest not in (None, found):
        told = ", ".join(f"{name}:'{value}'" for name, value in sorted(given.items()))
        text = (
            f"The image with imageId {{{told}}} does not exist within the repository with name '{repository.name}' in "
            f"the registry with id '{repository.scope.account}'"
        )
        raise ApiError("ImageNotFoundException", text)
    return found


def _detail(repository: Document, digest: str) -> dict[str, Any]:
    image, tags = repository.body["Images"][digest], _tags(repository, digest)
    return {
        "registryId": repository.scope.account,
        "repositoryName": repository.name,
        "imageDigest": f"sha256:{digest}",
        **({"imageTags": tags} if tags else {}),
        "imageSizeInBytes": image["size_bytes"],
        "imagePushedAt": seconds(image["pushed_ms"]),
        "imageManifestMediaType": MEDIA_TYPE,
    }


def _tags(repository: Document, digest: str) -> list[str]:
    return sorted(tag for tag, other in repository.body["Tags"].items() if other == digest)


def _passes(repository: Document, digest: str, params: Params) -> bool:
    status: str = params.get("filter", {}).get("tagStatus", "ANY")
    return status == "ANY" or (status == "TAGGED") == bool(_tags(repository, digest))


def _page(rows: Sequence[T], params: Params, key: Callable[[T], str]) -> tuple[list[T], dict[str, str]]:
    """The rows after the token, and the next one's token where more follow."""
    after = params.get("nextToken", "")
    left = [row for row in rows if key(row) > after]
    size = int(params.get("maxResults", PAGE_DEFAULT))
    page = left[:size]
    return page, {"nextToken": key(page[-1])} if len(left) > size else {}
