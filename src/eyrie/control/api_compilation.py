"""SageMaker's CompilationJob (Neo): checks what is asked for, and stores it as a job; `control/jobs` brings it to its
end.

Nothing of a model is read here: that is the sandboxed program's work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eyrie.control import jobs
from eyrie.control.compilation_targets import (
    FRAMEWORKS,
    FRAMEWORKS_REFUSED,
    device_refusal,
    platform_refusal,
    target_name,
)
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.job_requests import store_job
from eyrie.control.listing import Row, page
from eyrie.control.records import delete_with_tags, refuse_beyond_quota
from eyrie.control.unsupported import unsupported
from eyrie.domain.jobs import Job, JobKey, JobSpec, JobState
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, resource_in_use, resource_not_found, validation

KIND = "CompilationJob"
ARN_TYPE = "compilation-job"
NOUN = "compilation job"
MAX_RUNTIME_S = 900  # where StoppingCondition does not say
VCPU_MILLI, MEMORY_MB = 2_000, 8_192  # of the sandbox that compiles
SHAPES_MAX = 64

STATUS: Mapping[JobState, str] = {
    JobState.QUEUED: "STARTING",
    JobState.FETCHING: "STARTING",
    JobState.RUNNING: "INPROGRESS",
    JobState.UPLOADING: "INPROGRESS",
    JobState.STOPPING: "STOPPING",
    JobState.COMPLETED: "COMPLETED",
    JobState.FAILED: "FAILED",
    JobState.STOPPED: "STOPPED",
}
IMAGES = {"XGBOOST": "xgboost-neo", "SKLEARN": "sagemaker-scikit-learn"}
IMAGE_ACCOUNT = "301217895009"  # one of those that the SDK names for them; any means the same here
_OBJECT = re.compile(r"s3://[^/]+/.+")
_PREFIX = re.compile(r"s3://[^/]+(/.*)?")


def operations() -> Mapping[str, Operation]:
    """The operations on compilation jobs."""
    return {
        "CreateCompilationJob": create_compilation_job,
        "DescribeCompilationJob": describe_compilation_job,
        "ListCompilationJobs": list_compilation_jobs,
        "StopCompilationJob": stop_compilation_job,
        "DeleteCompilationJob": delete_compilation_job,
    }


def create_compilation_job(context: Context, params: Params) -> dict[str, Any]:
    """Store a job, which begins as soon as there is room."""
    name = params["CompilationJobName"]
    _check(params)
    refuse_beyond_quota(context, KIND)
    arn = context.arn(ARN_TYPE, name)
    if context.get(KIND, name) is not None:
        raise resource_in_use(f"A compilation job with the name {name} already exists: {arn}.")
    key = JobKey(KIND, context.scope.account, context.scope.region, name)
    store_job(context, params, key, ARN_TYPE, "j", _spec(params))
    return {"CompilationJobArn": arn}


def describe_compilation_job(context: Context, params: Params) -> dict[str, Any]:
    """A job as it is now."""
    job = jobs.job_of(_find(context, params))
    given = job.request
    described: dict[str, Any] = {
        "CompilationJobName": job.key.name,
        "CompilationJobArn": context.arn(ARN_TYPE, job.key.name),
        "CompilationJobStatus": STATUS[job.state],
        "StoppingCondition": {"MaxRuntimeInSeconds": MAX_RUNTIME_S, **given.get("StoppingCondition", {})},
        "CreationTime": seconds(job.created_ms),
        "LastModifiedTime": seconds(job.modified_ms),
        "FailureReason": job.reason[:1024] if job.state is JobState.FAILED else "",
        "ModelArtifacts": {"S3ModelArtifacts": job.outputs.get("artifact", "")},
        "RoleArn": given["RoleArn"],
        "InputConfig": given["InputConfig"],
        "OutputConfig": given["OutputConfig"],
        **_times(job),
    }
    if "VpcConfig" in given:
        described["VpcConfig"] = given["VpcConfig"]
    if job.state is JobState.COMPLETED:
        described["ModelDigests"] = {"ArtifactDigest": f"sha256:{job.outputs['digest']}"}
        registry = f"{IMAGE_ACCOUNT}.dkr.ecr.{context.scope.region}.amazonaws.com"
        described["InferenceImage"] = f"{registry}/{IMAGES[given['InputConfig']['Framework']]}:latest"
    return described


def list_compilation_jobs(context: Context, params: Params) -> dict[str, Any]:
    """Compilation jobs, newest first."""
    rows = [_row(context, jobs.job_of(d)) for d in context.store.scan(KIND, context.scope)]
    return page("ListCompilationJobs", params, rows).reply("CompilationJobSummaries")


def stop_compilation_job(context: Context, params: Params) -> dict[str, Any]:
    """Ask for the end of a job; of one that is over already, nothing is asked."""
    document = _find(context, params)
    job = jobs.job_of(document)
    if not job.ended and not job.stop_asked:
        asked = replace(job, stop_asked=True, modified_ms=context.now_ms)
        context.store.commit(Commit(puts=[replace(document, body=jobs.encode(asked), modified_ms=context.now_ms)]))
        context.wake_jobs()
    return {}


def delete_compilation_job(context: Context, params: Params) -> dict[str, Any]:
    """Forget a job that is over; what it made stays in its bucket."""
    document = _find(context, params)
    job = jobs.job_of(document)
    if not job.ended:
        raise validation(
            f"The compilation job {job.key.name} is {STATUS[job.state]}: only one that is COMPLETED, FAILED or STOPPED "
            "can be deleted. Stop it first."
        )
    delete_with_tags(context, ARN_TYPE, document)
    context.wake_jobs()
    return {}


# ------------------------------------------------------------------------------------------------------------- checks
def _check(params: Params) -> None:
    """Refuse what cannot be done here, naming the member and the reason."""
    if "ModelPackageVersionArn" in params:
        raise unsupported("ModelPackageVersionArn", "there is no model registry yet")
    given = params.get("InputConfig")
    if given is None:
        raise validation("InputConfig is needed: it says where the model is and of which framework.")
    framework = given["Framework"]
    if framework not in FRAMEWORKS:
        raise unsupported(f"InputConfig.Framework {framework}", FRAMEWORKS_REFUSED[framework])
    if not _OBJECT.fullmatch(given["S3Uri"]):
        raise validation(f'InputConfig.S3Uri must be an s3:// URL of an archive: "{given["S3Uri"]}" is none.')
    _shapes(given.get("DataInputConfig"))
    _check_output(params["OutputConfig"])


def _check_output(given: Mapping[str, Any]) -> None:
    if not _PREFIX.fullmatch(given["S3OutputLocation"]):
        raise validation(f'OutputConfig.S3OutputLocation must be an s3:// URL: "{given["S3OutputLocation"]}" is none.')
    device, target = given.get("TargetDevice"), given.get("TargetPlatform")
    if (device is None) is (target is None):
        raise validation("OutputConfig needs either a TargetDevice or a TargetPlatform.")
    if given.get("KmsKeyId"):
        raise unsupported("OutputConfig.KmsKeyId", "there are no keys")
    if given.get("CompilerOptions"):
        raise unsupported("OutputConfig.CompilerOptions", "the compiler has none")
    if device is not None and (why := device_refusal(device)):
        raise unsupported(f"OutputConfig.TargetDevice {device}", why)
    if target is not None and (why := platform_refusal(target)):
        raise unsupported(f"OutputConfig.TargetPlatform {target_name(given)}", why)


def _shapes(text: str | None) -> dict[str, list[int]]:
    """DataInputConfig: a JSON object of input names and their shapes."""
    if text is None:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not 0 < len(given) <= SHAPES_MAX or not all(map(_is_shape, given.values())):
        raise validation(
            f"InputConfig.DataInputConfig must be a JSON object of inputs and their shapes, as in "
            f'{{"data": [1, 20]}}: {text[:200]!r} is none.'
        )
    return given


def _is_shape(value: object) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= 8
        and all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in value)
    )


def _spec(params: Params) -> JobSpec:
    given, output = params["InputConfig"], params["OutputConfig"]
    target = target_name(output)
    stem = re.sub(r"(\.tar)?(\.gz|\.tgz)?$", "", given["S3Uri"].rstrip("/").rpartition("/")[2]) or "model"
    return JobSpec(
        program="compile",
        inputs={"model": given["S3Uri"]},
        arguments={
            "framework": given["Framework"],
            "shapes": _shapes(given.get("DataInputConfig")),
            "target": target,
            "output": f"{stem}-{target}.tar.gz",
        },
        output_url=output["S3OutputLocation"],
        max_runtime_ms=params["StoppingCondition"].get("MaxRuntimeInSeconds", MAX_RUNTIME_S) * 1000,
        vcpu_milli=VCPU_MILLI,
        memory_mb=MEMORY_MB,
    )


# --------------------------------------------------------------------------------------------------------------- views
def _find(context: Context, params: Params) -> Document:
    name = params["CompilationJobName"]
    found = context.get(KIND, name)
    if found is None:
        raise _missing(context, name)
    return found


def _missing(context: Context, name: str) -> ApiError:
    return resource_not_found(f'Could not find {NOUN} "{context.arn(ARN_TYPE, name)}".')


def _times(job: Job) -> dict[str, float]:
    times = {"CompilationStartTime": job.started_ms, "CompilationEndTime": job.ended_ms}
    return {name: seconds(at_ms) for name, at_ms in times.items() if at_ms}


def _row(context: Context, job: Job) -> Row:
    output = job.request["OutputConfig"]
    target = output.get("TargetPlatform", {})
    summary: dict[str, Any] = {
        "CompilationJobName": job.key.name,
        "CompilationJobArn": context.arn(ARN_TYPE, job.key.name),
        "CreationTime": seconds(job.created_ms),
        "LastModifiedTime": seconds(job.modified_ms),
        "CompilationJobStatus": STATUS[job.state],
        **_times(job),
    }
    made_for = {"CompilationTargetDevice": output.get("TargetDevice")}
    made_for |= {f"CompilationTargetPlatform{member}": target.get(member) for member in ("Os", "Arch", "Accelerator")}
    summary |= {member: value for member, value in made_for.items() if value is not None}
    return Row(job.key.name, job.created_ms, job.modified_ms, summary, STATUS[job.state])
