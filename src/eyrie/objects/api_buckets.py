"""Buckets: create, head, list, delete, location and tags."""

from __future__ import annotations

import re
from dataclasses import replace

from eyrie.http1.handlers import Response
from eyrie.objects import catalogue
from eyrie.objects.api_objects import refuse_grants
from eyrie.objects.api_tagging import read_tags, tagging_document, tags_in
from eyrie.objects.body import read_document
from eyrie.objects.call import Call, reply, xml_reply
from eyrie.objects.conditions import iso_date
from eyrie.objects.errors import no_such_bucket, refuse
from eyrie.objects.index import Change
from eyrie.objects.names import check_new_bucket
from eyrie.objects.records import Bucket
from eyrie.objects.xml import Element, element
from eyrie.wire.errors import ApiError

BUCKETS_MAX = 10_000  # an account's, as in the real service
BUCKET_TAGS_MAX = 50
_HOME_REGION = "us-east-1"  # the one region that has no location constraint
_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-\d")


async def list_buckets(call: Call) -> Response:
    """GET /: the caller's buckets, in pages where max-buckets is given."""
    limit = call.integer("max-buckets", BUCKETS_MAX, 1, BUCKETS_MAX)
    prefix, after = call.query.get("prefix", ""), call.query.get("continuation-token", "")
    region = call.query.get("bucket-region", "")
    found = catalogue.buckets_of(call.store.index.db, call.identity.account, prefix, after, region, limit + 1)
    listed = Element("Buckets")
    for bucket in found[:limit]:
        listed.add(
            "Bucket",
            element("Bucket", Name=bucket.name, CreationDate=iso_date(bucket.created_ms), BucketRegion=bucket.region),
        )
    root = element("ListAllMyBucketsResult", Owner=owner(call.identity.account), Buckets=listed)
    if len(found) > limit:
        root.add("ContinuationToken", found[limit - 1].name)
    root.add("Prefix", prefix or None)
    return xml_reply(root)


def owner(account: str, name: str = "Owner") -> Element:
    """Who owns a thing: its account, as canonical user id and as name."""
    return element(name, ID=account.rjust(64, "0"), DisplayName=account)


async def create_bucket(call: Call) -> Response:
    """PUT /BUCKET."""
    check_new_bucket(call.bucket)
    if (call.header("x-amz-bucket-object-lock-enabled") or "false").lower() == "true":
        raise refuse("NotImplemented", Header="x-amz-bucket-object-lock-enabled")
    refuse_grants(call)
    document = await read_document(call, "CreateBucketConfiguration", optional=True)
    region = _region_of(document, call.identity.region)
    made = Bucket(call.bucket, call.identity.account, region, call.now_ms, _tags_of(document))

    def create(change: Change) -> None:
        known = catalogue.bucket(change.db, made.name)
        if known is None:
            if catalogue.count_buckets(change.db, made.account) >= BUCKETS_MAX:
                raise refuse("TooManyBuckets")
            catalogue.put_bucket(change, made)
        elif known.account != made.account:
            raise refuse("BucketAlreadyExists", BucketName=made.name)
        elif known.region != _HOME_REGION or region != _HOME_REGION:
            raise refuse("BucketAlreadyOwnedByYou", BucketName=made.name)
        # The real service answers 200 to whoever creates their own bucket once more in us-east-1, and there only.

    await call.store.index.write(create)
    return reply(200, {"location": f"/{call.bucket}", "x-amz-bucket-arn": f"arn:aws:s3:::{call.bucket}"})


def _tags_of(document: Element | None) -> dict[str, str]:
    tags = document.find("Tags") if document is not None else None
    if document is not None and (document.find("Location") or document.find("Bucket")):
        raise refuse("NotImplemented", "Directory buckets are not implemented.")
    return {} if tags is None else tags_in(tags, BUCKET_TAGS_MAX)


def _region_of(document: Element | None, region: str) -> str:
    """Where the new bucket lives: the location constraint must suit the region that the request is signed for."""
    constraint = "" if document is None else document.get("LocationConstraint").strip()
    if constraint == "EU":
        constraint = "eu-west-1"
    if not constraint:
        if region not in (_HOME_REGION, "aws-global"):
            raise _incompatible("unspecified")
        return _HOME_REGION
    if constraint != region:
        if constraint == _HOME_REGION or not _REGION.fullmatch(constraint):
            raise refuse("InvalidLocationConstraint", LocationConstraint=constraint[:255])
        if region not in (_HOME_REGION, "aws-global"):
            raise _incompatible(constraint)
    elif constraint == _HOME_REGION:
        raise refuse("InvalidLocationConstraint", LocationConstraint=constraint)
    return constraint


def _incompatible(constraint: str) -> ApiError:
    where = "the region specific endpoint this request was sent to."
    what = f"The {constraint} location constraint is incompatible for {where}"
    return refuse("IllegalLocationConstraintException", what)


async def head_bucket(call: Call) -> Response:
    """HEAD /BUCKET."""
    bucket = call.owned_bucket()
    headers = {
        "x-amz-bucket-region": bucket.region,
        "x-amz-access-point-alias": "false",
        "content-type": "application/xml",
    }
    return reply(200, headers)


async def delete_bucket(call: Call) -> Response:
    """DELETE /BUCKET, which must hold no object; uploads begun in it are aborted."""
    bucket = call.owned_bucket()

    def delete(change: Change) -> None:
        if not catalogue.is_empty(change.db, bucket.name):
            raise refuse("BucketNotEmpty", BucketName=bucket.name)
        catalogue.drop_bucket(change, bucket.name)

    await call.store.index.write(delete)
    return reply(204)


async def get_bucket_location(call: Call) -> Response:
    """GET /BUCKET?location."""
    region = call.owned_bucket().region
    return xml_reply(Element("LocationConstraint", "" if region == _HOME_REGION else region))


async def get_bucket_tagging(call: Call) -> Response:
    """GET /BUCKET?tagging."""
    bucket = call.owned_bucket()
    if not bucket.tags:
        raise refuse("NoSuchTagSet", BucketName=bucket.name)
    return xml_reply(tagging_document(bucket.tags))


async def put_bucket_tagging(call: Call) -> Response:
    """PUT /BUCKET?tagging."""
    call.owned_bucket()
    return await _set_tags(call, await read_tags(call, BUCKET_TAGS_MAX))


async def delete_bucket_tagging(call: Call) -> Response:
    """DELETE /BUCKET?tagging."""
    call.owned_bucket()
    return await _set_tags(call, {})


async def _set_tags(call: Call, tags: dict[str, str]) -> Response:
    def change_tags(change: Change) -> None:
        bucket = catalogue.bucket(change.db, call.bucket)
        if bucket is None:
            raise no_such_bucket(call.bucket)
        catalogue.put_bucket(change, replace(bucket, tags=tags))

    await call.store.index.write(change_tags)
    return reply(204)
