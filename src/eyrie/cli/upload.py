"""Files into a bucket by the S3 API: whole, or in parts where they are large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eyrie.cli.public import Public, Refused

PART_BYTES = 64 * 1024 * 1024


def ensure_bucket(public: Public, bucket: str) -> bool:
    """Make a bucket that is not there; whether it was made. Raises CommandError."""
    try:
        public.ask("s3", "head_bucket", Bucket=bucket)
    except Refused as refused:
        if refused.error not in ("404", "NoSuchBucket", "NotFound"):
            raise
    else:
        return False
    region = public.where.region
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    public.ask("s3", "create_bucket", Bucket=bucket, **where)
    return True


def upload(public: Public, path: Path, bucket: str, key: str, told: Callable[[int], None]) -> None:
    """Put a file under a key; `told` hears how many bytes have arrived. Raises CommandError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= PART_BYTES:
            public.ask("s3", "put_object", Bucket=bucket, Key=key, Body=file)
            told(size)
            return
        begun = public.ask("s3", "create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
        same = {"Bucket": bucket, "Key": key, "UploadId": begun}
        done = False
        try:
            parts: list[dict[str, object]] = []
            while piece := file.read(PART_BYTES):
                number = len(parts) + 1
                reply = public.ask("s3", "upload_part", PartNumber=number, Body=piece, **same)
                parts.append({"PartNumber": number, "ETag": reply["ETag"]})
                told(min(size, number * PART_BYTES))
            public.ask("s3", "complete_multipart_upload", MultipartUpload={"Parts": parts}, **same)
            done = True
        finally:
            if not done:
                public.ask("s3", "abort_multipart_upload", **same)


def exists(public: Public, bucket: str, key: str) -> bool:
    """Whether an object is there already."""
    try:
        public.ask("s3", "head_object", Bucket=bucket, Key=key)
    except Refused:
        return False
    return True
