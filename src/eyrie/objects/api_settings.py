"""What buckets and objects answer about features that Eyrie's S3 does not have: the truth, in S3's own words.

Reading a setting answers its default, or the error that says that it was never set; changing one answers
NotImplemented.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from eyrie.http1.handlers import Response
from eyrie.objects import catalogue
from eyrie.objects.api_buckets import owner
from eyrie.objects.call import Call, xml_reply
from eyrie.objects.conditions import http_date
from eyrie.objects.errors import invalid_argument, refuse
from eyrie.objects.xml import Element, element

Handler = Callable[[Call], Awaitable[Response]]

# Settings of a bucket that were never set, and what asking for them answers.
_NEVER_SET = {
    "cors": "NoSuchCORSConfiguration",
    "encryption": "ServerSideEncryptionConfigurationNotFoundError",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "object-lock": "ObjectLockConfigurationNotFoundError",
    "ownershipControls": "OwnershipControlsNotFoundError",
    "policy": "NoSuchBucketPolicy",
    "policyStatus": "NoSuchBucketPolicy",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
    "replication": "ReplicationConfigurationNotFoundError",
    "website": "NoSuchWebsiteConfiguration",
}

# Settings of a bucket whose default is an (almost) empty document.
_DEFAULTS = {
    "accelerate": Element("AccelerateConfiguration"),
    "logging": Element("BucketLoggingStatus"),
    "notification": Element("NotificationConfiguration"),
    "requestPayment": element("RequestPaymentConfiguration", Payer="BucketOwner"),
    "versioning": Element("VersioningConfiguration"),
}

# Subresources that stand in a query; whatever else stands there does not change what a request asks for.
BUCKET_SETTINGS = frozenset(
    _NEVER_SET.keys()
    | _DEFAULTS.keys()
    | {
        "abac",
        "acl",
        "analytics",
        "intelligent-tiering",
        "inventory",
        "metadataConfiguration",
        "metadataTable",
        "metrics",
        "session",
    }
    | {"metadataAnnotationTable", "metadataInventoryTable", "metadataJournalTable"}
)
OBJECT_SETTINGS = frozenset(
    {
        "acl",
        "annotation",
        "attributes",
        "encryption",
        "legal-hold",
        "renameObject",
        "restore",
        "retention",
        "select",
        "torrent",
    }
)


def bucket_settings() -> Mapping[tuple[str, str], Handler]:
    """(method, subresource) to handler, for what a bucket can tell of its settings."""
    table: dict[tuple[str, str], Handler] = {("GET", "acl"): get_bucket_acl, ("PUT", "acl"): put_acl}
    for name, code in _NEVER_SET.items():
        table["GET", name] = _never_set(code)
    for name, document in _DEFAULTS.items():
        table["GET", name] = _default(document)
    return table


def _never_set(code: str) -> Handler:
    async def handler(call: Call) -> Response:
        raise refuse(code, BucketName=call.owned_bucket().name)

    return handler


def _default(document: Element) -> Handler:
    async def handler(call: Call) -> Response:
        call.owned_bucket()
        return xml_reply(document)

    return handler


async def not_implemented(call: Call) -> Response:
    """Any subresource that is not served."""
    raise refuse("NotImplemented", f"{call.method} of this subresource is not implemented.")


async def put_acl(call: Call) -> Response:
    """PUT ?acl of a bucket or an object."""
    call.owned_bucket()
    raise refuse("AccessControlListNotSupported")


async def get_bucket_acl(call: Call) -> Response:
    """GET /BUCKET?acl: the owner has full control, nobody else has any."""
    return xml_reply(_owner_only(call.owned_bucket().account))


async def get_object_acl(call: Call) -> Response:
    """GET /BUCKET/KEY?acl: as its bucket's."""
    call.object()
    return xml_reply(_owner_only(call.identity.account))


def _owner_only(account: str) -> Element:
    kind = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"'
    grantee = Element("Grantee", children=owner(account).children, attributes=kind)
    grant = Element("Grant", children=[grantee, Element("Permission", "FULL_CONTROL")])
    return element(
        "AccessControlPolicy", Owner=owner(account), AccessControlList=Element("AccessControlList", children=[grant])
    )


_ATTRIBUTES = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")


async def get_object_attributes(call: Call) -> Response:
    """GET /BUCKET/KEY?attributes: what x-amz-object-attributes names."""
    found = call.object()
    wanted = {name.strip() for name in (call.header("x-amz-object-attributes") or "").split(",")}
    if not wanted or wanted - set(_ATTRIBUTES):
        raise invalid_argument("x-amz-object-attributes", ",".join(sorted(wanted)), "Invalid attribute name specified.")
    result = Element("GetObjectAttributesResponse")
    if "ETag" in wanted:
        result.add("ETag", found.etag)
    if "Checksum" in wanted and found.details.checksums:
        sums = Element("Checksum")
        for algorithm, value in found.details.checksums.items():
            sums.add(f"Checksum{algorithm}", value.partition("-")[0])
        sums.add("ChecksumType", found.details.checksum_type)
        result.add("Checksum", sums)
    if "ObjectParts" in wanted and "-" in found.etag:
        count = catalogue.count_parts(call.store.index.db, found.version)
        result.add("ObjectParts", element("ObjectParts", PartsCount=count))
    if "StorageClass" in wanted:
        result.add("StorageClass", "STANDARD")
    if "ObjectSize" in wanted:
        result.add("ObjectSize", found.size)
    return xml_reply(result, headers={"last-modified": http_date(found.modified_ms)})
