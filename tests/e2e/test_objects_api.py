"""The S3 API as boto3 sees it, against a real server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import io
import random
import urllib.error
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from eyrie.objects.body import Body
from eyrie.wire.errors import ApiError

from .objects_world import OTHER, ROOT, World, serving

MB = 1 << 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("objects")) as made:
        yield made


@pytest.fixture(scope="module")
def s3(world: World) -> Iterator[Any]:
    client = world.client()
    yield client
    client.close()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    s3.create_bucket(Bucket=name)
    return name


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    reply = caught.value.response
    assert reply["ResponseMetadata"]["RequestId"]
    return reply["Error"]["Code"], reply["ResponseMetadata"]["HTTPStatusCode"]


def read(s3: Any, bucket: str, key: str, **arguments: Any) -> bytes:
    with s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"] as body:
        found: bytes = body.read()
    return found


# --- buckets


def test_a_bucket_lives_and_dies(s3: Any) -> None:
    assert refused(s3.head_bucket, Bucket="lifecycle") == ("404", 404)
    assert s3.create_bucket(Bucket="lifecycle")["Location"] == "/lifecycle"
    assert "lifecycle" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket="lifecycle")["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket="lifecycle")["LocationConstraint"] is None
    s3.put_object(Bucket="lifecycle", Key="k", Body=b"x")
    assert refused(s3.delete_bucket, Bucket="lifecycle") == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket="lifecycle", Key="k")
    s3.delete_bucket(Bucket="lifecycle")
    assert refused(s3.delete_bucket, Bucket="lifecycle") == ("NoSuchBucket", 404)
    assert refused(s3.list_objects_v2, Bucket="lifecycle") == ("NoSuchBucket", 404)


def test_location_constraints(world: World, s3: Any) -> None:
    west = world.client(region="us-west-2")
    inside = {"LocationConstraint": "us-west-2"}
    code = "IllegalLocationConstraintException"
    assert refused(west.create_bucket, Bucket="region-west") == (code, 400)
    wrong = {"LocationConstraint": "eu-central-1"}
    assert refused(west.create_bucket, Bucket="region-west", CreateBucketConfiguration=wrong) == (code, 400)
    west.create_bucket(Bucket="region-west", CreateBucketConfiguration=inside)
    assert s3.get_bucket_location(Bucket="region-west")["LocationConstraint"] == "us-west-2"
    again = refused(west.create_bucket, Bucket="region-west", CreateBucketConfiguration=inside)
    assert again == ("BucketAlreadyOwnedByYou", 409)
    s3.create_bucket(Bucket="region-home")
    s3.create_bucket(Bucket="region-home")  # as in the real us-east-1
    for bad in ("us-east-1", "nowhere"):
        arguments = {"Bucket": "region-bad", "CreateBucketConfiguration": {"LocationConstraint": bad}}
        assert refused(s3.create_bucket, **arguments) == ("InvalidLocationConstraint", 400)
    west.close()


def test_names_that_would_shadow_our_paths_are_refused(s3: Any) -> None:
    for name in ("endpoints", "console", "metrics"):
        assert refused(s3.create_bucket, Bucket=name) == ("InvalidBucketName", 400)


def test_buckets_belong_to_their_account(world: World, s3: Any, bucket: str) -> None:
    other = world.client(OTHER)
    s3.put_object(Bucket=bucket, Key="k", Body=b"mine")
    assert refused(other.head_bucket, Bucket=bucket) == ("403", 403)
    assert refused(other.get_object, Bucket=bucket, Key="k") == ("AccessDenied", 403)
    assert refused(other.put_object, Bucket=bucket, Key="k", Body=b"x") == ("AccessDenied", 403)
    assert refused(other.create_bucket, Bucket=bucket) == ("BucketAlreadyExists", 409)
    assert bucket not in [found["Name"] for found in other.list_buckets()["Buckets"]]
    other.create_bucket(Bucket="others")
    source = {"Bucket": bucket, "Key": "k"}
    assert refused(other.copy_object, Bucket="others", Key="k", CopySource=source) == ("AccessDenied", 403)
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=ROOT)
    assert refused(s3.head_bucket, Bucket=bucket, ExpectedBucketOwner=OTHER) == ("403", 403)
    assert refused(s3.head_bucket, Bucket="not-there", ExpectedBucketOwner=ROOT) == ("404", 404)
    other.close()


def test_what_is_not_served_says_so(s3: Any, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert refused(s3.get_bucket_policy, Bucket=bucket) == ("NoSuchBucketPolicy", 404)
    assert refused(s3.get_bucket_cors, Bucket=bucket) == ("NoSuchCORSConfiguration", 404)
    versioned = {"Status": "Enabled"}
    arguments = {"Bucket": bucket, "VersioningConfiguration": versioned}
    assert refused(s3.put_bucket_versioning, **arguments) == ("NotImplemented", 501)
    assert refused(s3.put_bucket_policy, Bucket=bucket, Policy="{}") == ("NotImplemented", 501)
    assert refused(s3.restore_object, Bucket=bucket, Key="k") == ("NotImplemented", 501)


def test_promises_that_are_not_kept_are_not_made(s3: Any, bucket: str) -> None:
    place = {"Bucket": bucket, "Key": "k", "Body": b"x"}
    assert refused(s3.put_object, **place, ACL="public-read") == ("AccessControlListNotSupported", 400)
    assert refused(s3.put_object_acl, Bucket=bucket, Key="k", ACL="private") == ("AccessControlListNotSupported", 400)
    assert refused(s3.put_object, **place, StorageClass="GLACIER") == ("InvalidStorageClass", 400)
    assert refused(s3.put_object, **place, ObjectLockLegalHoldStatus="ON") == ("NotImplemented", 501)
    assert refused(s3.put_object, **place, ServerSideEncryption="aws:kms", SSEKMSKeyId="k")[0] == "NotImplemented"
    arguments = {"Bucket": "locked", "ObjectLockEnabledForBucket": True}
    assert refused(s3.create_bucket, **arguments) == ("NotImplemented", 501)
    s3.put_object(**place, ACL="bucket-owner-full-control", StorageClass="STANDARD")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_bucket_tags(s3: Any, bucket: str) -> None:
    assert refused(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)
    tags = [{"Key": "a", "Value": "1"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    assert refused(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)


# --- objects


ODD_KEYS = [
    "a",
    "a/b",
    "a/",
    "a//b",
    "/",
    "//",
    "../x",
    "./y",
    "é\u0301",
    "\U0001f600",
    " ",
    "a b+c%2F",
    "?q&=",
    "a" * 1024,
    "x\ty",
]


def test_keys_that_a_file_system_cannot_hold(s3: Any, bucket: str) -> None:
    for key in ODD_KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in ODD_KEYS:
        assert read(s3, bucket, key) == key.encode()
    listed = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert listed == sorted(ODD_KEYS, key=str.encode)
    assert refused(s3.put_object, Bucket=bucket, Key="a" * 1025, Body=b"") == ("KeyTooLongError", 400)


def test_an_object_keeps_what_it_was_given(s3: Any, bucket: str) -> None:
    given = {
        "ContentType": "text/csv",
        "ContentEncoding": "gzip",
        "ContentDisposition": 'attachment; filename="x.csv"',
        "CacheControl": "max-age=60",
        "ContentLanguage": "de",
        "Metadata": {"owner": "me", "n": "1", "a.b_c!": "2"},
        "Tagging": "a=1&b=x%20y",
    }
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", **given)
    assert put["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    head = s3.head_object(Bucket=bucket, Key="k")
    for name in given.keys() - {"Tagging"}:
        assert head[name] == given[name]
    assert (head["ContentLength"], head["ETag"]) == (5, put["ETag"])
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [
        {"Key": "a", "Value": "1"},
        {"Key": "b", "Value": "x y"},
    ]
    found = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/plain", ResponseExpires="0")
    assert (found["ContentType"], found["Body"].read()) == ("text/plain", b"hello")
    assert s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag", "ObjectSize"])["ObjectSize"] == 5
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["Metadata"], head["ContentType"]) == (0, {}, "binary/octet-stream")
    assert read(s3, bucket, "k") == b""


def test_object_tags(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    tags = [{"Key": "a", "Value": "ü"}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"]
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    many = [{"Key": f"k{n}", "Value": ""} for n in range(11)]
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging={"TagSet": many}) == ("InvalidTag", 400)


def test_metadata_is_bounded(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Metadata={"a": "x" * 2047})
    assert refused(s3.put_object, Bucket=bucket, Key="k", Metadata={"a": "x" * 2048}) == ("MetadataTooLarge", 400)


def test_ranges(s3: Any, bucket: str) -> None:
    body = bytes(range(256)) * 20_000  # above what is read at once
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    for asked, span in (("0-0", (0, 1)), ("100-", (100, None)), ("-7", (-7, None)), ("5-99999999", (5, None))):
        found = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={asked}")
        assert found["Body"].read() == body[slice(*span)]
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert found["ContentRange"] == f"bytes 5-{len(body) - 1}/{len(body)}"
    assert s3.head_object(Bucket=bucket, Key="k", Range="bytes=1-4")["ContentLength"] == 4
    assert refused(s3.get_object, Bucket=bucket, Key="k", Range=f"bytes={len(body)}-") == ("InvalidRange", 416)


def test_conditional_reads_and_writes(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"no"') == ("PreconditionFailed", 412)
    assert refused(s3.put_object, Bucket=bucket, Key="z", Body=b"2", IfMatch='"no"') == ("NoSuchKey", 404)
    assert read(s3, bucket, "k", IfMatch=etag) == b"1"
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag) == ("304", 304)
    assert refused(s3.head_object, Bucket=bucket, Key="k", IfMatch='"no"') == ("412", 412)
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfModifiedSince=modified) == ("304", 304)
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
    assert refused(s3.delete_object, Bucket=bucket, Key="k", IfMatch=etag) == ("PreconditionFailed", 412)
    assert read(s3, bucket, "k") == b"2"


def test_missing_things(s3: Any, bucket: str) -> None:
    assert refused(s3.get_object, Bucket=bucket, Key="k") == ("NoSuchKey", 404)
    assert refused(s3.head_object, Bucket=bucket, Key="k") == ("404", 404)
    assert refused(s3.get_object, Bucket="not-there", Key="k") == ("NoSuchBucket", 404)
    assert refused(s3.put_object, Bucket="not-there", Key="k", Body=b"x") == ("NoSuchBucket", 404)
    s3.delete_object(Bucket=bucket, Key="k")
    assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId="v1") == ("NoSuchVersion", 404)


def test_delete_many(s3: Any, bucket: str) -> None:
    for key in ("a", "a/b", "é&<>"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    keys = [{"Key": key} for key in ("a", "é&<>", "missing")]
    found = s3.delete_objects(Bucket=bucket, Delete={"Objects": [*keys, {"Key": "a/b", "VersionId": "v9"}]})
    assert [one["Key"] for one in found["Deleted"]] == ["a", "é&<>", "missing"]
    assert [(one["Key"], one["Code"]) for one in found["Errors"]] == [("a/b", "NoSuchVersion")]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a/b"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    many = {"Objects": [{"Key": f"{n}"} for n in range(1001)]}
    assert refused(s3.delete_objects, Bucket=bucket, Delete=many) == ("MalformedXML", 400)


# --- checksums


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("name", ["CRC32", "SHA1", "SHA256"])
def test_checksums_are_checked_and_kept(s3: Any, bucket: str, name: str) -> None:
    right = {
        "CRC32": b64(zlib.crc32(b"hello").to_bytes(4, "big")),
        "SHA1": b64(hashlib.sha1(b"hello").digest()),
        "SHA256": b64(hashlib.sha256(b"hello").digest()),
    }[name]
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm=name)
    found = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (found[f"Checksum{name}"], found["ChecksumType"]) == (right, "FULL_OBJECT")
    found["Body"].read()
    wrong = {f"Checksum{name}": b64(b"\0" * len(base64.b64decode(right)))}
    assert refused(s3.put_object, Bucket=bucket, Key="bad", Body=b"hello", **wrong) == ("BadDigest", 400)
    assert refused(s3.head_object, Bucket=bucket, Key="bad") == ("404", 404)


def test_crc32c_and_crc64nvme(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="c", Body=b"123456789", ChecksumCRC32C=b64(bytes.fromhex("e3069283")))
    s3.put_object(Bucket=bucket, Key="n", Body=b"123456789", ChecksumCRC64NVME=b64(bytes.fromhex("ae8b14860a799888")))
    wrong = {"ChecksumCRC64NVME": b64(b"12345678")}
    assert refused(s3.put_object, Bucket=bucket, Key="n", Body=b"1", **wrong) == ("BadDigest", 400)


@pytest.mark.parametrize("size", [100, 3 * MB])
def test_a_wrong_checksum_leaves_the_old_object(s3: Any, world: World, bucket: str, size: int) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    arguments = {"Bucket": bucket, "Key": "k", "Body": b"n" * size, "ChecksumCRC32": "AAAAAA=="}
    assert refused(s3.put_object, **arguments) == ("BadDigest", 400)
    assert read(s3, bucket, "k") == b"old"
    arguments = {"Bucket": bucket, "Key": "k", "Body": b"n" * size, "IfNoneMatch": "*"}
    assert refused(s3.put_object, **arguments) == ("PreconditionFailed", 412)
    assert read(s3, bucket, "k") == b"old"


def test_content_md5(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5=b64(hashlib.md5(b"x").digest()))
    wrong = b64(hashlib.md5(b"y").digest())
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5=wrong) == ("BadDigest", 400)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5="abc") == ("InvalidDigest", 400)


# --- copies


def test_copies(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k é", Body=b"data", Metadata={"a": "1"}, ContentType="text/csv", Tagging="t=1")
    source = {"Bucket": bucket, "Key": "k é"}
    done = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    assert done["CopyObjectResult"]["ETag"] == s3.head_object(Bucket=bucket, Key="k é")["ETag"]
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert (head["Metadata"], head["ContentType"]) == ({"a": "1"}, "text/csv")
    s3.copy_object(Bucket=bucket, Key="new", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="new")["Metadata"] == {"b": "2"}
    assert s3.get_object_tagging(Bucket=bucket, Key="new")["TagSet"] == [{"Key": "t", "Value": "1"}]
    s3.delete_object(Bucket=bucket, Key="k é")
    assert (read(s3, bucket, "copy"), read(s3, bucket, "new")) == (b"data", b"data")


def test_a_copy_onto_itself(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"data")["ETag"]
    source = {"Bucket": bucket, "Key": "k"}
    assert refused(s3.copy_object, Bucket=bucket, Key="k", CopySource=source) == ("InvalidRequest", 400)
    arguments = {"Bucket": bucket, "Key": "k", "CopySource": source, "MetadataDirective": "REPLACE"}
    s3.copy_object(**arguments, Metadata={"x": "y"})
    assert (read(s3, bucket, "k"), s3.head_object(Bucket=bucket, Key="k")["Metadata"]) == (b"data", {"x": "y"})
    assert refused(s3.copy_object, **arguments, CopySourceIfMatch='"no"') == ("PreconditionFailed", 412)
    assert refused(s3.copy_object, **arguments, CopySourceIfNoneMatch=etag) == ("PreconditionFailed", 412)
    arguments["CopySource"] = {"Bucket": bucket, "Key": "missing"}
    assert refused(s3.copy_object, **arguments) == ("NoSuchKey", 404)


# --- listings


def test_2500_keys_page_by_page(s3: Any, world: World, bucket: str) -> None:
    random.seed(7)
    alphabet = ["a", "b", "/", "é", " ", "%", "\U0001f600", "+", "&", "."]
    keys = {"".join(random.choices(alphabet, k=random.randint(1, 9))) for _ in range(4000)}
    keys = set(sorted(keys)[:2500])
    assert len(keys) == 2500
    from eyrie.objects import catalogue
    from eyrie.objects.records import StoredObject

    def fill(change: Any) -> None:
        for key in keys:
            catalogue.put_object(change, StoredObject(bucket, key.encode(), f"v{key}", 0, "e", 1), ())

    world.run(lambda: world.store.index.write(fill))
    expected = sorted(keys, key=str.encode)
    for version in ("list_objects", "list_objects_v2"):
        for size in (1000, 999):
            pages = list(s3.get_paginator(version).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}))
            assert [found["Key"] for page in pages for found in page["Contents"]] == expected
            assert len(pages) == -(-2500 // size)
        pages = list(
            s3.get_paginator(version).paginate(
                Bucket=bucket, Delimiter="/", Prefix="a", PaginationConfig={"PageSize": 100}
            )
        )
        shown = [found["Key"] for page in pages for found in page.get("Contents", [])]
        rolled = [found["Prefix"] for page in pages for found in page.get("CommonPrefixes", [])]
        below = [key for key in expected if key.startswith("a")]
        assert shown == [key for key in below if "/" not in key[1:]]
        assert rolled == sorted({key[: key.index("/", 1) + 1] for key in below if "/" in key[1:]}, key=str.encode)
    after = expected[1234]
    found = s3.list_objects_v2(Bucket=bucket, StartAfter=after, MaxKeys=3, FetchOwner=True)
    assert [one["Key"] for one in found["Contents"]] == expected[1235:1238]
    assert found["Contents"][0]["Owner"]["DisplayName"] == ROOT
    assert found["IsTruncated"]


def test_listings_refuse_nonsense(s3: Any, bucket: str) -> None:
    assert refused(s3.list_objects_v2, Bucket=bucket, ContinuationToken="é!") == ("InvalidArgument", 400)
    assert refused(s3.list_objects, Bucket=bucket, MaxKeys=-1) == ("InvalidArgument", 400)
    assert s3.list_objects(Bucket=bucket, MaxKeys=5000)["MaxKeys"] == 1000
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0
    assert s3.list_object_versions(Bucket=bucket).get("Versions", []) == []


# --- multipart


def test_multipart(s3: Any, bucket: str) -> None:
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k", ContentType="x/y", Metadata={"a": "b"})["UploadId"]
    bodies = {1: b"1" * (5 * MB), 2: b"2" * (5 * MB), 7: b"7" * 10}
    etags = {
        n: s3.upload_part(Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=n, Body=body)["ETag"]
        for n, body in bodies.items()
    }
    etags[1] = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=1, Body=bodies[1])["ETag"]
    assert refused(s3.head_object, Bucket=bucket, Key="k") == ("404", 404)
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload_id, MaxParts=2)
    assert [part["PartNumber"] for part in listed["Parts"]] == [1, 2]
    assert listed["NextPartNumberMarker"] == 2
    assert [one["Key"] for one in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["k"]
    parts = [{"PartNumber": n, "ETag": etag} for n, etag in etags.items()]
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload_id, MultipartUpload={"Parts": parts}, MpuObjectSize=10 * MB + 10
    )
    md5s = b"".join(hashlib.md5(body).digest() for body in bodies.values())
    assert done["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-3"'
    whole = b"".join(bodies.values())
    assert read(s3, bucket, "k") == whole
    assert read(s3, bucket, "k", Range=f"bytes={5 * MB - 3}-{5 * MB + 2}") == b"111222"
    second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)
    assert (second["Body"].read(), second["PartsCount"]) == (bodies[2], 3)
    assert refused(s3.get_object, Bucket=bucket, Key="k", PartNumber=3) == ("InvalidPartNumber", 416)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentType"], head["Metadata"], head["ContentLength"]) == ("x/y", {"a": "b"}, len(whole))
    place = {"Bucket": bucket, "Key": "k", "UploadId": upload_id}
    assert refused(s3.list_parts, **place) == ("NoSuchUpload", 404)
    again = s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert again["ETag"] == done["ETag"]  # the first answer may have been lost
    s3.put_object(Bucket=bucket, Key="k", Body=b"other")
    arguments = {**place, "MultipartUpload": {"Parts": parts}}
    assert refused(s3.complete_multipart_upload, **arguments) == ("NoSuchUpload", 404)


def test_multipart_refusals(s3: Any, bucket: str) -> None:
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    place = {"Bucket": bucket, "Key": "k", "UploadId": upload_id}
    small = s3.upload_part(**place, PartNumber=1, Body=b"small")["ETag"]
    last = s3.upload_part(**place, PartNumber=2, Body=b"last")["ETag"]

    def complete(*parts: tuple[int, str], **more: Any) -> tuple[str, int]:
        named = [{"PartNumber": n, "ETag": etag} for n, etag in parts]
        return refused(s3.complete_multipart_upload, **place, MultipartUpload={"Parts": named}, **more)

    assert complete((1, small), (2, last)) == ("EntityTooSmall", 400)
    assert complete((2, last), (1, small)) == ("InvalidPartOrder", 400)
    assert complete((1, last)) == ("InvalidPart", 400)
    assert complete((3, last)) == ("InvalidPart", 400)
    assert complete((1, small), MpuObjectSize=4) == ("InvalidRequest", 400)
    assert complete() == ("MalformedXML", 400)
    assert refused(s3.upload_part, **place, PartNumber=10_001, Body=b"")[0] == "InvalidArgument"
    assert refused(s3.upload_part, **{**place, "Key": "other"}, PartNumber=1, Body=b"") == ("NoSuchUpload", 404)
    s3.abort_multipart_upload(**place)
    assert refused(s3.abort_multipart_upload, **place) == ("NoSuchUpload", 404)
    assert refused(s3.upload_part, **place, PartNumber=1, Body=b"") == ("NoSuchUpload", 404)


def test_parts_by_copy(s3: Any, bucket: str) -> None:
    body = bytes(range(256)) * (6 * MB // 256)
    s3.put_object(Bucket=bucket, Key="source", Body=body)
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    place = {"Bucket": bucket, "Key": "k", "UploadId": upload_id}
    source = {"Bucket": bucket, "Key": "source"}
    parts = []
    for number, span in ((1, f"bytes=100-{5 * MB + 99}"), (2, "bytes=0-255")):
        done = s3.upload_part_copy(**place, PartNumber=number, CopySource=source, CopySourceRange=span)
        parts.append({"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]})
    arguments = {**place, "PartNumber": 3, "CopySource": source, "CopySourceRange": f"bytes=0-{len(body)}"}
    assert refused(s3.upload_part_copy, **arguments) == ("InvalidArgument", 400)
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    s3.delete_object(Bucket=bucket, Key="source")
    assert read(s3, bucket, "k") == body[100 : 5 * MB + 100] + body[:256]


@pytest.mark.parametrize("kind", ["COMPOSITE", "FULL_OBJECT"])
def test_multipart_checksums(s3: Any, bucket: str, kind: str) -> None:
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32", ChecksumType=kind)
    place = {"Bucket": bucket, "Key": "k", "UploadId": begun["UploadId"]}
    bodies = [b"a" * (5 * MB), b"b" * 100]
    parts = []
    for number, body in enumerate(bodies, 1):
        done = s3.upload_part(**place, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32": done["ChecksumCRC32"]})
    wrong = [{**parts[0], "ChecksumCRC32": "AAAAAA=="}, parts[1]]
    arguments = {**place, "MultipartUpload": {"Parts": wrong}}
    assert refused(s3.complete_multipart_upload, **arguments) == ("InvalidPart", 400)
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    found = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    sums = [zlib.crc32(body).to_bytes(4, "big") for body in bodies]
    composite = b64(zlib.crc32(b"".join(sums)).to_bytes(4, "big")) + "-2"
    whole = b64(zlib.crc32(b"".join(bodies)).to_bytes(4, "big"))
    assert found["ChecksumCRC32"] == (composite if kind == "COMPOSITE" else whole)
    assert found["ChecksumType"] == kind


def test_the_transfer_manager(s3: Any, bucket: str) -> None:
    body = random.Random(1).randbytes(20 * MB)
    s3.upload_fileobj(io.BytesIO(body), bucket, "big", ExtraArgs={"ContentType": "x/y"})
    into = io.BytesIO()
    s3.download_fileobj(bucket, "big", into)
    assert into.getvalue() == body
    s3.copy({"Bucket": bucket, "Key": "big"}, bucket, "copied")
    assert s3.head_object(Bucket=bucket, Key="copied")["ContentLength"] == len(body)


# --- addressing and signatures


@pytest.mark.parametrize("signature", ["s3v4", "s3"])
def test_presigned_urls(world: World, bucket: str, signature: str) -> None:
    s3 = world.client(signature_version=signature)
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a/b c"}, ExpiresIn=60)
    request = urllib.request.Request(url, data=b"by url", method="PUT", headers={"Content-Type": ""})
    urllib.request.urlopen(request).close()
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a/b c"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as reply:
        assert reply.read() == b"by url"
    later = url.replace("X-Amz-Expires=60", "X-Amz-Expires=61").replace("&Expires=1", "&Expires=2")
    for bad in (url.replace("a/b", "a/c"), later, url.partition("?")[0]):
        assert bad != url
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(bad)
        assert error.value.code == 403
        error.value.close()
    s3.close()


def test_host_style(world: World, s3: Any, bucket: str) -> None:
    hosted = world.client(url=f"http://localhost:{world.port}", s3={"addressing_style": "virtual"})
    connection = http.client.HTTPConnection("127.0.0.1", world.port)
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"hosted")
    url = hosted.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a/b"})
    assert url.startswith(f"http://{bucket}.localhost:{world.port}/a/b?")
    connection.request("GET", url[url.index("/a/b") :], headers={"Host": f"{bucket}.localhost:{world.port}"})
    assert connection.getresponse().read() == b"hosted"
    connection.close()
    hosted.close()


def test_strangers_and_forgers_are_refused(world: World, bucket: str) -> None:
    import boto3

    for key_id, secret, code in (
        ("AKIAROOT", "wrong", "SignatureDoesNotMatch"),
        ("AKIANOBODY", "x", "InvalidAccessKeyId"),
    ):
        client = boto3.client(
            "s3",
            endpoint_url=world.url,
            region_name="us-east-1",
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
        )
        assert refused(client.list_objects_v2, Bucket=bucket) == (code, 403)
        client.close()


def test_errors_are_s3s_xml_and_head_has_no_body(world: World, bucket: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", world.port)
    connection.request("GET", f"/{bucket}/x")
    reply = connection.getresponse()
    body = reply.read()
    assert reply.status == 403
    assert b"<Error><Code>AccessDenied</Code>" in body
    assert b"<RequestId>" + reply.headers["x-amz-request-id"].encode() in body
    connection.request("HEAD", f"/{bucket}/x")
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (403, b"")
    connection.close()


def test_a_body_that_is_not_the_signed_one_is_refused(world: World, s3: Any, bucket: str) -> None:
    request = AWSRequest(
        "PUT",
        f"{world.url}/{bucket}/k",
        data=b"signed",
        headers={"x-amz-content-sha256": hashlib.sha256(b"signed").hexdigest()},
    )
    S3SigV4Auth(Credentials("AKIAROOT", "root-secret"), "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", world.port)
    for body, status, code in ((b"forged", 400, b"XAmzContentSHA256Mismatch"), (b"signed", 200, b"")):
        connection.request("PUT", f"/{bucket}/k", body=body, headers=dict(request.headers.items()))
        reply = connection.getresponse()
        assert (reply.status, code in reply.read()) == (status, True)
    connection.close()
    assert read(s3, bucket, "k") == b"signed"


def test_hostile_documents_do_no_harm(world: World, s3: Any, bucket: str) -> None:
    bomb = b'<!DOCTYPE d [<!ENTITY a "' + b"a" * 100 + b'">]><Delete><Object><Key>&a;</Key></Object></Delete>'
    url = s3.generate_presigned_url("delete_objects", Params={"Bucket": bucket, "Delete": {"Objects": [{"Key": "x"}]}})
    # The presigned URL signs no body: whatever comes must be looked at with care.
    for body in (bomb, b"<Delete>" * 5000, b"\0" * 1000):
        digest = b64(hashlib.md5(body).digest())
        request = urllib.request.Request(
            url, data=body, method="POST", headers={"Content-Type": "", "Content-MD5": digest}
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code in (400, 403)
        error.value.close()


def test_without_auth_twelve_digits_are_the_account(tmp_path: Any) -> None:
    import boto3

    with serving(tmp_path, auth=False) as world:
        client = boto3.client(
            "s3",
            endpoint_url=world.url,
            region_name="us-east-1",
            aws_access_key_id="999988887777",
            aws_secret_access_key="x",
        )
        client.create_bucket(Bucket="open")
        client.put_object(Bucket="open", Key="k", Body=b"x")
        assert (
            client.list_objects_v2(Bucket="open", FetchOwner=True)["Contents"][0]["Owner"]["DisplayName"]
            == "999988887777"
        )
        client.close()
        mine = world.client()
        assert refused(mine.head_bucket, Bucket="open") == ("403", 403)
        mine.close()


# --- aws-chunked bodies


class Chunks:
    """Writes an aws-chunked PUT as a client would."""

    def __init__(self, world: World, bucket: str, payload: str, decoded: int, trailer: str = "") -> None:
        headers = {
            "x-amz-decoded-content-length": str(decoded),
            "content-encoding": "aws-chunked,gzip",
        }
        if trailer:
            headers["x-amz-trailer"] = trailer
        request = AWSRequest("PUT", f"{world.url}/{bucket}/chunked", headers=headers)
        auth = S3SigV4Auth(Credentials("AKIAROOT", "root-secret"), "s3", "us-east-1")
        auth.payload = lambda _: payload  # it would sign the (empty) body's hash
        auth.add_auth(request)
        self.world, self.path, self.headers = world, f"/{bucket}/chunked", dict(request.headers.items())
        self.scope = auth.credential_scope(request)
        self.previous = self.headers["Authorization"].rpartition("=")[2]
        self.body = b""

    def _sign(self, kind: str, digests: str) -> str:
        text = f"AWS4-HMAC-SHA256-{kind}\n{self.headers['X-Amz-Date']}\n{self.scope}\n{self.previous}\n{digests}"
        key = b"AWS4root-secret"
        for part in self.scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        self.previous = hmac.digest(key, text.encode(), "sha256").hex()
        return self.previous

    def add(self, data: bytes, signed: bool) -> None:
        extension = ""
        if signed:
            empty = hashlib.sha256(b"").hexdigest()
            extension = ";chunk-signature=" + self._sign("PAYLOAD", f"{empty}\n{hashlib.sha256(data).hexdigest()}")
        self.body += f"{len(data):x}{extension}\r\n".encode() + data + (b"\r\n" if data else b"")

    def end(self, trailer: dict[str, str] | None = None, signed: bool = False) -> None:
        lines = [f"{name}:{value}" for name, value in (trailer or {}).items()]
        self.body += "".join(line + "\r\n" for line in lines).encode()
        if signed:
            digest = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
            self.body += f"x-amz-trailer-signature:{self._sign('TRAILER', digest)}\r\n".encode()
        self.body += b"\r\n"

    def send(self) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.world.port)
        connection.request("PUT", self.path, body=self.body, headers=self.headers)
        reply = connection.getresponse()
        found = (reply.status, reply.read())
        connection.close()
        return found


def test_a_body_longer_than_announced_is_not_read_to_its_end() -> None:
    taken: list[int] = []

    class Endless:
        content_length = 10

        async def stream(self) -> AsyncIterator[bytes]:
            while True:
                taken.append(8)
                yield b"12345678"

    claim = SimpleNamespace(payload=b"UNSIGNED-PAYLOAD")
    call: Any = SimpleNamespace(request=Endless(), claim=claim, headers={}, header=lambda name: None)
    with pytest.raises(ApiError, match="IncompleteBody"):
        asyncio.run(Body(call).whole())
    assert len(taken) == 2


HELLO_CRC = b64(zlib.crc32(b"hello world").to_bytes(4, "big"))


@pytest.mark.parametrize("kind", ["signed", "signed trailer", "unsigned trailer"])
def test_chunked_bodies(world: World, s3: Any, bucket: str, kind: str) -> None:
    def put(
        crc: str = HELLO_CRC, decoded: int = 11, spoil: bytes = b"", announced: str = "x-amz-checksum-crc32"
    ) -> tuple[int, bytes]:
        payload = {
            "signed": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "signed trailer": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            "unsigned trailer": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        }[kind]
        with_trailer = "trailer" in kind
        signed = not kind.startswith("unsigned")
        chunks = Chunks(world, bucket, payload, decoded, announced if with_trailer else "")
        for piece in (b"hello", b" world", b""):
            chunks.add(piece, signed)
        chunks.end({"x-amz-checksum-crc32": crc} if with_trailer else None, signed and with_trailer)
        chunks.body = chunks.body.replace(b"world", spoil or b"world")
        return chunks.send()

    status, body = put()
    assert (status, body) == (200, b""), body
    found = s3.get_object(Bucket=bucket, Key="chunked", ChecksumMode="ENABLED")
    assert (found["ContentEncoding"], found["ETag"]) == ("gzip", f'"{hashlib.md5(b"hello world").hexdigest()}"')
    assert found["Body"].read() == b"hello world"
    assert found.get("ChecksumCRC32") == (HELLO_CRC if "trailer" in kind else None)
    status, body = put(spoil=b"wOrld")
    code = b"BadDigest" if kind == "unsigned trailer" else b"SignatureDoesNotMatch"
    assert (status, code in body) == (400 if kind == "unsigned trailer" else 403, True)
    assert b"IncompleteBody" in put(decoded=12)[1]
    assert b"IncompleteBody" in put(decoded=10)[1]
    if "trailer" in kind:
        assert b"BadDigest" in put(crc="AAAAAA==")[1]
        assert b"InvalidRequest" in put(announced="x-amz-checksum-sha1")[1]
    assert read(s3, bucket, "chunked") == b"hello world"


# --- nonsense

ODD = ["", "0", "-1", "9" * 40, "é", "null", "a/b", "%zz", "*", '"', "bytes=0-", "true", "s3://", "=", "1,2"]
ODD_HEADERS = [
    "x-amz-copy-source",
    "x-amz-copy-source-range",
    "x-amz-metadata-directive",
    "x-amz-tagging",
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "x-amz-checksum-crc32",
    "x-amz-checksum-algorithm",
    "x-amz-trailer",
    "content-md5",
    "x-amz-checksum-type",
    "x-amz-acl",
    "x-amz-mp-object-size",
    "x-amz-object-attributes",
]
ODD_QUERIES = [
    "uploads",
    "uploadId",
    "partNumber",
    "tagging",
    "delete",
    "acl",
    "list-type",
    "max-keys",
    "versions",
    "location",
    "encoding-type",
    "policy",
    "select",
    "continuation-token",
    "attributes",
    "versionId",
    "key-marker",
    "max-parts",
]
ODD_BODIES = [
    b"",
    b"x",
    b"<Delete/>",
    b"<Tagging><TagSet><Tag/></TagSet></Tagging>",
    b"<CompleteMultipartUpload><Part/>",
    b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber></Part></CompleteMultipartUpload>",
    b"<CreateBucketConfiguration><LocationConstraint>\n</LocationConstraint></CreateBucketConfiguration>",
    b"\xff" * 99,
]


def test_nonsense_is_answered_with_a_modelled_error(world: World, s3: Any, bucket: str) -> None:
    """Every method and subresource, odd values in query, headers and body: an answer of S3's, never a 500."""
    pick = random.Random(11)
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    connection = http.client.HTTPConnection("127.0.0.1", world.port)
    auth = S3SigV4Auth(Credentials("AKIAROOT", "root-secret"), "s3", "us-east-1")
    seen: dict[int, int] = {}
    for _ in range(600):
        pairs = [f"{pick.choice(ODD_QUERIES)}={quote(pick.choice(ODD))}" for _ in range(pick.randint(0, 3))]
        path = pick.choice(["/", f"/{bucket}", f"/{bucket}/k", f"/{bucket}/new", "/other/k"])
        path += f"?{'&'.join(pairs)}" if pairs else ""
        headers = {name: pick.choice(ODD) for name in pick.sample(ODD_HEADERS, pick.randint(0, 3))}
        method = pick.choice(["GET", "PUT", "POST", "DELETE", "HEAD"])
        request = AWSRequest(method, world.url + path, data=pick.choice(ODD_BODIES), headers=headers)
        auth.add_auth(request)
        connection.request(method, path, body=request.data, headers=dict(request.headers.items()))
        reply = connection.getresponse()
        body = reply.read()
        seen[reply.status] = seen.get(reply.status, 0) + 1
        assert reply.status < 500 or reply.status == 501, (method, path, headers, request.data, body)
        if reply.status >= 400 and method != "HEAD":
            assert b"<Error><Code>" in body, (method, path, body)
    connection.close()
    assert seen.keys() >= {200, 400, 404, 501}, seen
