"""What a transform job is going to do, before it reads a byte: which objects, in which share, under which names, in
requests of which size. Pure.

A share's order never changes, so a run that takes up another's work finds it where it was left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eyrie.domain.fleet import ContainerSpec
from eyrie.domain.transform import Agreed, InputObject, Mark, Progress, Strategy, TransformSpec

PAYLOAD_MB_DEFAULT, CONCURRENT_DEFAULT = 6, 1
PAYLOAD_MB_TOTAL = 100  # MaxConcurrentTransforms times MaxPayloadInMB
CONCURRENT_MAX = 100
MEBIBYTE = 1_048_576
PART_BYTES = 8 * MEBIBYTE
PARTS_STEP = 1_000  # parts of one size; the next thousand are larger, so that 10,000 hold 440 GB
FAILURES_TOLD = 20
STRATEGIES = {"MULTI_RECORD": Strategy.MULTI_RECORD, "SINGLE_RECORD": Strategy.SINGLE_RECORD}
STRATEGY_WORDS = {strategy: word for word, strategy in STRATEGIES.items()}


class PlanError(ValueError):
    """What was asked for cannot be done; the message is the reason for people."""


def agreed(spec: TransformSpec, told: Mapping[str, Any]) -> Agreed:
    """What holds: the request, then what the container says of itself at /execution-parameters, then the defaults."""
    strategy = spec.strategy or STRATEGIES.get(str(told.get("BatchStrategy", "")), Strategy.MULTI_RECORD)
    payload_mb = spec.max_payload_mb
    if payload_mb is None:
        payload_mb = _whole(told.get("MaxPayloadInMB"), PAYLOAD_MB_TOTAL) or PAYLOAD_MB_DEFAULT
    concurrent = spec.max_concurrent or _whole(told.get("MaxConcurrentTransforms"), CONCURRENT_MAX)
    return Agreed(strategy, payload_mb * MEBIBYTE, concurrent or CONCURRENT_DEFAULT)


def _whole(value: Any, most: int) -> int:
    """A whole number that a container gave, of 1 to `most`; 0 for anything else."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    return min(value, most) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def container_environment(spec: TransformSpec) -> dict[str, str]:
    """What a container is told of the job; of three only what the request gave."""
    told = {"SAGEMAKER_BATCH": "true"}
    if spec.max_payload_mb is not None:
        told["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(spec.max_payload_mb)
    if spec.strategy is not None:
        told["SAGEMAKER_BATCH_STRATEGY"] = STRATEGY_WORDS[spec.strategy]
    if spec.max_concurrent:
        told["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(spec.max_concurrent)
    return told


def kept_from_cluster(spec: TransformSpec, containers: Sequence[ContainerSpec], requirements: bool) -> str:
    """Why instances of this host have to do a job, although there is a cluster; "": they have not. `requirements`: a
    model brings a requirements.txt.
    """
    if len(containers) > 1:
        return "the model is a pipeline"
    if containers[0].foreign:
        return "the model is a container of somebody's own"
    if not containers[0].model_data_url and containers[0].artifact is None:
        return "the model has no archive"
    if requirements:
        return "the model has a requirements.txt, which is built for instances"
    if spec.max_payload_mb == 0:
        return "MaxPayloadInMB is 0: objects go out in chunks"
    return ""


def shares(objects: Sequence[InputObject], count: int) -> list[list[InputObject]]:
    """The objects of each instance: dealt out in the order of their keys."""
    ordered = sorted(objects, key=lambda one: (one.bucket, one.key))
    return [ordered[number::count] for number in range(count)]


def output_name(key: str, prefix: str) -> str:
    """The name of an object's output, without ".out": its key below the folder that the prefix names."""
    folder = prefix[: prefix.rfind("/") + 1]
    return key[len(folder) :] if key.startswith(folder) else key


def output_key(prefix: str, name: str, ending: str = ".out") -> str:
    """The key of an output below the output path."""
    return "/".join(part for part in (prefix.strip("/"), name + ending) if part)


def manifest_urls(text: bytes) -> list[tuple[str, str]]:
    """URL and output name of every object of a manifest: `[{"prefix": "s3://b/p/"}, "a.csv", "b/c.csv"]`.

    Raises PlanError.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise PlanError("the manifest is not JSON") from None
    if not isinstance(given, list) or not given:
        raise PlanError('the manifest is not a list that begins with {"prefix": "s3://..."}')
    first, *rest = given
    if not isinstance(first, dict) or not isinstance(first.get("prefix"), str):
        raise PlanError('the manifest does not begin with {"prefix": "s3://..."}')
    if not first["prefix"].startswith("s3://"):
        raise PlanError(f"the manifest's prefix is no s3:// URL: {first['prefix'][:200]!r}")
    for entry in rest:
        if not isinstance(entry, str) or not entry:
            raise PlanError(f"the manifest has an entry that is no key: {str(entry)[:200]!r}")
    if len(set(rest)) < len(rest):
        raise PlanError("the manifest names an object twice")
    return [(first["prefix"] + entry, entry.lstrip("/")) for entry in rest]


def refuse_twins(objects: Sequence[InputObject]) -> None:
    """Two objects may not have one output. Raises PlanError."""
    seen: dict[str, str] = {}
    for one in objects:
        other = seen.setdefault(one.name, one.url)
        if other != one.url:
            raise PlanError(f"{other} and {one.url} would have the same output, {one.name}.out")


def part_bytes(number: int) -> int:
    """The size of the part with this number, from 0: 8 MiB, more in later thousands."""
    return PART_BYTES * (1 + number // PARTS_STEP)


def progress(share_marks: Sequence[Mark], share_sizes: Sequence[Sequence[int]], phase: str, resumed: int) -> Progress:
    """How far a job is, from where its shares stand. `share_sizes`: the sizes of each share's objects."""
    return Progress(
        objects=sum(map(len, share_sizes)),
        objects_done=sum(min(mark.index, len(sizes)) for mark, sizes in zip(share_marks, share_sizes, strict=True)),
        bytes_total=sum(map(sum, share_sizes)),
        bytes_read=sum(mark.bytes_read for mark in share_marks),
        bytes_written=sum(mark.bytes_written for mark in share_marks),
        records=sum(mark.records for mark in share_marks),
        bad_records=sum(mark.bad_records for mark in share_marks),
        objects_failed=sum(mark.failed_count for mark in share_marks),
        phase=phase,
        resumed=resumed,
    )


def verdict(share_marks: Sequence[Mark]) -> str:
    """Why a job whose shares are all worked off has failed; "": it has not."""
    reasons = [reason for mark in share_marks for reason in mark.failed]
    count = sum(mark.failed_count for mark in share_marks)
    if not count:
        return ""
    more = f" (and {count - 1} more input objects without an output)" if count > 1 else ""
    first = reasons[0] if reasons[0].startswith(("ClientError: ", "InternalError: ")) else f"ClientError: {reasons[0]}"
    return f"{first}{more}. See the job's log for more information."
