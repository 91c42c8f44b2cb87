"""A transform job's work over a Ray cluster, by Ray Data: the same definition, the same outputs, byte for byte.

    from eyrie.raydata import transform
    transform(job, model_data_url="s3://models/churn.tar.gz")      # `job`: what CreateTransformJob takes

The driver finds the payloads of every object, cut as a job's run cuts them; portions of some become rows of a Ray
dataset; actors that hold the model fetch their portion's bytes and answer it in process; the driver writes what comes
back, in order, as one upload an object. Every node reaches the bucket as boto3 does. Needs `eyrie[ray]`, and the
model's framework on the nodes.

It is the runner alone: it is called by hand, or from a Ray job. It keeps no marks, so one that dies begins again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyrie.decide.transform_join import JoinError, Sieve, assembled, shaped, sieve
from eyrie.decide.transform_plan import agreed, output_key, output_name, part_bytes
from eyrie.decide.transform_split import SplitError, splitter
from eyrie.domain.transform import Agreed, Assemble, InputObject, Processing, Split, Strategy, TransformSpec

PIECE_BYTES = 8 << 20
PORTION_BYTES = 1 << 20  # or one payload, where that is longer
OK = 200
ACTORS = 2
_PASSED = (
    "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION",
    "AWS_REGION",
)  # fmt: skip


class TransformFailed(RuntimeError):
    """An object has no output; the message says why."""


@dataclass(frozen=True)
class Portion:
    """Payloads that follow each other: where they are."""

    number: int  # of its object
    start: int
    end: int
    line: int  # records of the object before it


def spec_of(job: Mapping[str, Any]) -> TransformSpec:
    """What a CreateTransformJob request asks for. Raises ValueError for what runs only on instances."""
    given, output = job["TransformInput"], job["TransformOutput"]
    source, processing = given["DataSource"]["S3DataSource"], job.get("DataProcessing", {})
    if source["S3DataType"] != "S3Prefix" or given.get("CompressionType", "None") != "None":
        raise ValueError("over Ray Data an input is an S3Prefix that is not compressed")
    if job.get("MaxPayloadInMB") == 0:
        raise ValueError("over Ray Data a payload has a limit")
    strategy = job.get("BatchStrategy")
    return TransformSpec(
        input_url=source["S3Uri"],
        output_url=output["S3OutputPath"],
        content_type=given.get("ContentType", ""),
        accept=output.get("Accept", ""),
        split=Split(given.get("SplitType", "None")),
        assemble=Assemble(output.get("AssembleWith", "None")),
        strategy=Strategy(strategy) if strategy else None,
        max_payload_mb=job.get("MaxPayloadInMB"),
        processing=Processing(
            processing.get("InputFilter", "$"),
            processing.get("OutputFilter", "$"),
            processing.get("JoinSource") == "Input",
        ),
    )


def transform(job: Mapping[str, Any], model_data_url: str, *, image: str = "", actors: int = ACTORS) -> list[str]:
    """Work a job off over the cluster that Ray is connected to; the URLs of its outputs. Raises TransformFailed."""
    import ray

    spec = spec_of(job)
    s3, holds = client(_environment()), agreed(spec, {})
    env = {"SAGEMAKER_BATCH": "true", **job.get("Environment", {})}
    objects = list(listed(s3, spec))
    portions = [
        {"number": one.number, "start": one.start, "end": one.end, "line": one.line}
        for number, found in enumerate(objects)
        for one in cut(s3, spec, holds, number, found)
    ]
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    answered = iter(())
    if portions:
        dataset = ray.data.from_items(portions, override_num_blocks=len(portions)).map(
            Answering,
            fn_constructor_args=[spec, holds, objects, model_data_url, image, env, _environment()],
            concurrency=actors,
        )
        answered = dataset.iter_rows()
    return list(_written(s3, spec, objects, answered))


class Answering:
    """An actor: the model, loaded once, and the bucket."""

    def __init__(
        self,
        spec: TransformSpec,
        holds: Agreed,
        objects: list[InputObject],
        model_data_url: str,
        image: str,
        env: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> None:
        from eyrie.modelserver.inside import InsideModel, unpacked

        s3 = client(environment)
        folder = Path(tempfile.mkdtemp(prefix="eyrie-package-"))
        bucket, key = _place(model_data_url)
        with (folder / "model.tar.gz").open("wb") as file:
            for piece in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
                file.write(piece)
        model = InsideModel(unpacked(folder / "model.tar.gz", folder), env, image)
        self._answerer = Answerer(spec, holds, objects, s3, model)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A portion's results, or why there are none."""
        return self._answerer.answer(row)


class Answerer:
    """Answers portions with a model."""

    def __init__(self, spec: TransformSpec, holds: Agreed, objects: list[InputObject], s3: Any, model: Any) -> None:
        self._spec, self._holds, self._objects = spec, holds, objects
        self._sieve = sieve(spec.processing, spec.content_type, spec.accept)
        self._s3, self._model = s3, model

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        """A portion's results, or why there are none."""
        one = self._objects[row["number"]]
        got = self._s3.get_object(Bucket=one.bucket, Key=one.key, Range=f"bytes={row['start']}-{row['end'] - 1}")
        cutter = _cutter(self._spec, self._holds, self._sieve, row["start"], row["line"])
        results, error = b"", ""
        try:
            for payload in (*cutter.feed(got["Body"].read()), *cutter.finish()):
                results += self._answered(payload)
        except (SplitError, JoinError, TransformFailed) as failed:
            error = str(failed)
        return {"number": row["number"], "results": results, "error": error}

    def _answered(self, payload: Any) -> bytes:
        status, body = self._model.answer(payload.body, self._spec.content_type, self._spec.accept)
        if status != OK:
            text = body[:300].decode("utf-8", "replace")
            raise TransformFailed(f'records from {payload.first_line} on: the model answered {status}: "{text}"')
        results = [body]
        if self._sieve is not None and self._spec.processing.shapes_output:
            results = shaped(body, [record for _, record, _ in payload.pieces()], self._sieve.written)
        return assembled(results, len(results) > 1 or self._spec.assemble is Assemble.LINE)


def listed(s3: Any, spec: TransformSpec) -> Iterator[InputObject]:
    """The objects below the input prefix, in order."""
    bucket, prefix = _place(spec.input_url)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):
                yield InputObject(
                    bucket, entry["Key"], output_name(entry["Key"], prefix), entry["Size"], entry.get("ETag", "")
                )


def cut(s3: Any, spec: TransformSpec, holds: Agreed, number: int, one: InputObject) -> Iterator[Portion]:
    """The portions of an object, by their places: it is read once, a piece at a time. Raises TransformFailed."""
    cutter = _cutter(spec, holds, sieve(spec.processing, spec.content_type, spec.accept), 0, 0)
    start = end = line = 0
    body = s3.get_object(Bucket=one.bucket, Key=one.key)["Body"]
    try:
        for piece in _ended(body.iter_chunks(PIECE_BYTES)):
            for payload in cutter.feed(piece) if piece is not None else cutter.finish():
                end, done = payload.end, payload.first_line + payload.lines - 1
                if end - start >= PORTION_BYTES:
                    yield Portion(number, start, end, line)
                    start, line = end, done
    except SplitError as error:
        raise TransformFailed(f"{one.url}, record {error.line}: {error.why}") from None
    if end > start:
        yield Portion(number, start, end, line)


def _ended(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    yield from pieces
    yield None


def _cutter(spec: TransformSpec, holds: Agreed, used: Sieve | None, offset: int, line: int) -> Any:
    return splitter(
        spec.split,
        holds.payload_bytes,
        holds.strategy is Strategy.SINGLE_RECORD,
        sent=used.sent if used is not None and not used.input_path.whole else None,
        looked_at=spec.processing.shapes_output,
        offset=offset,
        line=line,
    )


def _written(
    s3: Any, spec: TransformSpec, objects: list[InputObject], answered: Iterator[dict[str, Any]]
) -> Iterator[str]:
    """Write the outputs, object after object, as their results come."""
    row = next(answered, None)
    for number, one in enumerate(objects):
        bucket, prefix = _place(spec.output_url)
        upload = _Upload(s3, bucket, output_key(prefix, one.name), spec.accept or spec.content_type)
        while row is not None and row["number"] == number:
            if row["error"]:
                upload.abort()
                raise TransformFailed(f"{one.url}, {row['error']}")
            upload.write(row["results"])
            row = next(answered, None)
        upload.finish()
        yield f"s3://{bucket}/{upload.key}"


class _Upload:
    """An output object: in one piece where it is small, else in parts of which one is held at a time."""

    def __init__(self, s3: Any, bucket: str, key: str, content_type: str) -> None:
        self._s3, self._where, self.key = s3, {"Bucket": bucket, "Key": key}, key
        self._type = content_type or "application/octet-stream"
        self._held, self._upload_id, self._parts = bytearray(), "", list[dict[str, Any]]()

    def write(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= part_bytes(len(self._parts)):
            self._part(part_bytes(len(self._parts)))

    def finish(self) -> None:
        if not self._parts:
            self._s3.put_object(**self._where, Body=bytes(self._held), ContentType=self._type)
            return
        if self._held:
            self._part(len(self._held))
        self._s3.complete_multipart_upload(
            **self._where, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
        )

    def abort(self) -> None:
        if self._upload_id:
            self._s3.abort_multipart_upload(**self._where, UploadId=self._upload_id)

    def _part(self, size: int) -> None:
        if not self._upload_id:
            begun = self._s3.create_multipart_upload(**self._where, ContentType=self._type)
            self._upload_id = begun["UploadId"]
        number, body = len(self._parts) + 1, bytes(self._held[:size])
        stored = self._s3.upload_part(**self._where, UploadId=self._upload_id, PartNumber=number, Body=body)
        self._parts.append({"PartNumber": number, "ETag": stored["ETag"]})
        del self._held[:size]


def client(environment: Mapping[str, str]) -> Any:
    """A client of the bucket, for this process."""
    from botocore.session import get_session

    return get_session().create_client(
        "s3",
        endpoint_url=environment.get("AWS_ENDPOINT_URL"),
        region_name=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
    )


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


def _place(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
