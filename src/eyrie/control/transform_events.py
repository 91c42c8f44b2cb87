"""What the change of a transform job's document is announced as: SageMaker's transform job state changes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eyrie.control import jobs
from eyrie.control.api_transform import STATUS, described
from eyrie.domain.jobs import Job

STATE_CHANGE = "SageMaker Transform Job State Change"
ARN_TYPE = "transform-job"
_TIMES = ("CreationTime", "TransformStartTime", "TransformEndTime")


def transform_changes(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Detail type, detail and ARN of each change that is announced: of another status, and of a job that was made."""
    job = jobs.decode(dict(after))
    if before is not None and STATUS[jobs.decode(dict(before)).state] == STATUS[job.state]:
        return
    arn = job.key.scope.arn(ARN_TYPE, job.key.name)
    yield STATE_CHANGE, _detail(job, arn, tags), arn


def _detail(job: Job, arn: str, tags: Mapping[str, str]) -> dict[str, Any]:
    found = described(job, arn)
    return {**found, **{name: round(found[name] * 1000) for name in _TIMES if name in found}, "Tags": dict(tags)}
