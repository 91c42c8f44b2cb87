"""The parts of the Ray Data runner without a cluster: portions are cut, answered by themselves, and put together."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie import raydata
from eyrie.decide.transform_plan import agreed
from eyrie.domain.transform import Agreed, Strategy

JOB = {
    "TransformInput": {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}},
        "ContentType": "text/csv",
        "SplitType": "Line",
    },
    "TransformOutput": {"S3OutputPath": "s3://b/out", "AssembleWith": "Line"},
}


class Body(io.BytesIO):
    def iter_chunks(self, size: int) -> Any:
        while piece := self.read(7):
            yield piece


class Bucket:
    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.parts: list[bytes] = []

    def get_paginator(self, name: str) -> Bucket:
        return self

    def paginate(self, Bucket: str, Prefix: str) -> Any:
        found = sorted(key for key in self.objects if key.startswith(Prefix))
        yield {"Contents": [{"Key": key, "Size": len(self.objects[key])} for key in found]}

    def get_object(self, Bucket: str, Key: str, Range: str = "") -> dict[str, Any]:
        first, last = Range.removeprefix("bytes=").split("-") if Range else ("0", str(1 << 30))
        return {"Body": Body(self.objects[Key][int(first) : int(last) + 1])}

    def put_object(self, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        self.objects[Key] = Body

    def create_multipart_upload(self, **given: Any) -> dict[str, str]:
        self.parts = []
        return {"UploadId": "u"}

    def upload_part(self, Body: bytes, **given: Any) -> dict[str, str]:
        self.parts.append(Body)
        return {"ETag": "e"}

    def complete_multipart_upload(self, Key: str, **given: Any) -> None:
        self.objects[Key] = b"".join(self.parts)

    def abort_multipart_upload(self, **given: Any) -> None:
        self.parts = []


class Lengths:
    """Answers each line with its length; refuses what says so."""

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[int, bytes]:
        if b"bad" in body:
            return 400, b"no"
        return 200, b"".join(b"%d\n" % len(line) for line in body.split(b"\n") if line)


def run(bucket: Bucket, holds: Agreed) -> list[str]:
    spec = raydata.spec_of(JOB)
    objects = list(raydata.listed(bucket, spec))
    portions = [p for number, one in enumerate(objects) for p in raydata.cut(bucket, spec, holds, number, one)]
    answerer = raydata.Answerer(spec, holds, objects, bucket, Lengths())
    rows = ({"number": p.number, "start": p.start, "end": p.end, "line": p.line} for p in portions)
    return list(raydata._written(bucket, spec, objects, map(answerer.answer, rows)))


@settings(max_examples=30, deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"1,2", b"", b"33,4", b"x" * 20]), max_size=30),
    strategy=st.sampled_from(list(Strategy)),
    portion=st.integers(1, 60),
)
def test_portions_together_are_the_object(lines: list[bytes], strategy: Strategy, portion: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raydata, "PORTION_BYTES", portion)
        patch.setattr(raydata, "part_bytes", lambda number: 16)
        bucket = Bucket({"in/a": b"\n".join(lines), "in/b/c": b"12345\n"})
        assert run(bucket, Agreed(strategy, 24, 1)) == ["s3://b/out/a.out", "s3://b/out/b/c.out"]
        assert bucket.objects["out/a.out"] == b"".join(b"%d\n" % len(line) for line in lines if line)
        assert bucket.objects["out/b/c.out"] == b"5\n"


def test_a_refusal_is_told() -> None:
    holds = agreed(raydata.spec_of(JOB), {})
    with pytest.raises(raydata.TransformFailed, match=r'in/a, records from 1 on: the model answered 400: "no"'):
        run(Bucket({"in/a": b"good\nbad\n"}), holds)
    with pytest.raises(ValueError, match="not compressed"):
        raydata.spec_of({**JOB, "TransformInput": {**JOB["TransformInput"], "CompressionType": "Gzip"}})  # type: ignore[dict-item]
