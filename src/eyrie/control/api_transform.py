"""SageMaker's TransformJob: checks what is asked for, resolves the model whole, and stores it as a job; `control/jobs`
brings it to its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from eyrie.control import jobs, quotas
from eyrie.control.api_endpoints import model_of
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.job_requests import store_job
from eyrie.control.listing import Row, page
from eyrie.control.records import refuse_beyond_quota
from eyrie.control.unsupported import refuse_unsupported, unsupported
from eyrie.decide.transform_join import CSV, form_of, media_type, sieve
from eyrie.decide.transform_path import PathError
from eyrie.decide.transform_plan import PAYLOAD_MB_TOTAL, container_environment
from eyrie.decide.workers import workers
from eyrie.domain.fleet import ContainerSpec, ModelSpec
from eyrie.domain.instance_types import UnknownInstanceType
from eyrie.domain.jobs import Job, JobKey, JobSpec, JobState
from eyrie.domain.transform import Assemble, Processing, Split, Strategy, TransformSpec
from eyrie.ports import Commit, Document
from eyrie.wire.errors import resource_in_use, resource_limit_exceeded, resource_not_found, validation

KIND = "TransformJob"
ARN_TYPE = "transform-job"
NOUN = "transform job"
RUNTIME_MAX_S = 28 * 86_400
STARTUP_S = 600
PROGRESS = "EYRIE_PROGRESS"  # of DescribeTransformJob's Environment
BAD_RECORDS, IN_PROCESS = "EYRIE_BAD_RECORDS_MAX", "EYRIE_IN_PROCESS"
OWN = "EYRIE_"  # variables of a job that are Eyrie's, not the container's
BAD_RECORDS_ALL = 1 << 40
UNSUPPORTED = {
    "TransformOutput.KmsKeyId": "there are no keys",
    "TransformResources.VolumeKmsKeyId": "there are no keys",
    "DataCaptureConfig.KmsKeyId": "there are no keys",
    "DataCaptureConfig.GenerateInferenceId": "a job that is taken up again could not give the same ids",
}

STATUS: Mapping[JobState, str] = {
    JobState.QUEUED: "InProgress",
    JobState.FETCHING: "InProgress",
    JobState.RUNNING: "InProgress",
    JobState.UPLOADING: "InProgress",
    JobState.STOPPING: "Stopping",
    JobState.COMPLETED: "Completed",
    JobState.FAILED: "Failed",
    JobState.STOPPED: "Stopped",
}


def operations() -> Mapping[str, Operation]:
    """The operations on transform jobs."""
    return {
        "CreateTransformJob": create_transform_job,
        "DescribeTransformJob": describe_transform_job,
        "ListTransformJobs": list_transform_jobs,
        "StopTransformJob": stop_transform_job,
    }


def create_transform_job(context: Context, params: Params) -> dict[str, Any]:
    """Store a job, which begins as soon as there is room."""
    name = params["TransformJobName"]
    arn = context.arn(ARN_TYPE, name)
    spec = _spec(params)
    model = model_of(context, params["ModelName"])
    made = _job_spec(context, params, spec, model)
    refuse_beyond_quota(context, KIND)
    if context.get(KIND, name) is not None:
        raise resource_in_use(
            f"Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})"
        )
    key = JobKey(KIND, context.scope.account, context.scope.region, name)
    store_job(context, params, key, ARN_TYPE, "t", made)
    return {"TransformJobArn": arn}


def describe_transform_job(context: Context, params: Params) -> dict[str, Any]:
    """A job as it is now."""
    return described(jobs.job_of(_find(context, params)), context.arn(ARN_TYPE, params["TransformJobName"]))


def described(job: Job, arn: str) -> dict[str, Any]:
    """What DescribeTransformJob answers."""
    given = job.request
    reply: dict[str, Any] = {
        **{name: given[name] for name in _ECHOED if name in given},
        "TransformJobArn": arn,
        "TransformJobStatus": STATUS[job.state],
        "CreationTime": seconds(job.created_ms),
        **_times(job),
    }
    if job.progress:
        told = json.dumps(dict(job.progress), separators=(",", ":"))
        reply["Environment"] = {**given.get("Environment", {}), PROGRESS: told}
    if job.state is JobState.FAILED:
        reply["FailureReason"] = job.reason[:1024]
    return reply


_ECHOED = (
    *("TransformJobName", "ModelName", "MaxConcurrentTransforms", "ModelClientConfig", "MaxPayloadInMB"),
    *("BatchStrategy", "Environment", "TransformInput", "TransformOutput", "DataCaptureConfig", "TransformResources"),
    *("DataProcessing", "ExperimentConfig"),
)


def list_transform_jobs(context: Context, params: Params) -> dict[str, Any]:
    """Transform jobs, newest first."""
    rows = [_row(context, jobs.job_of(d)) for d in context.store.scan(KIND, context.scope)]
    return page("ListTransformJobs", params, rows).reply("TransformJobSummaries")


def stop_transform_job(context: Context, params: Params) -> dict[str, Any]:
    """Ask for the end of a job. Raises ValidationException for one that is over."""
    document = _find(context, params)
    job = jobs.job_of(document)
    if job.ended:
        raise validation(
            "The request was rejected because the transform job is in status "
            f"{STATUS[job.state]}: only one that is InProgress can be stopped."
        )
    if not job.stop_asked:
        asked = replace(job, stop_asked=True, modified_ms=context.now_ms)
        context.store.commit(Commit(puts=[replace(document, body=jobs.encode(asked), modified_ms=context.now_ms)]))
        context.wake_jobs()
    return {}


# ------------------------------------------------------------------------------------------------------------- checks
def _spec(params: Params) -> TransformSpec:
    """What is asked for. Raises ValidationException for what cannot be done, naming the member and the reason."""
    refuse_unsupported(params, UNSUPPORTED)
    given, output = params["TransformInput"], params["TransformOutput"]
    source = given["DataSource"]["S3DataSource"]
    if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise unsupported(f"S3DataType {source['S3DataType']}", "inputs are an S3Prefix or a ManifestFile")
    environment, client = params.get("Environment", {}), params.get("ModelClientConfig", {})
    strategy, capture = params.get("BatchStrategy"), params.get("DataCaptureConfig", {})
    spec = TransformSpec(
        input_url=_s3("TransformInput.DataSource.S3DataSource.S3Uri", source["S3Uri"]),
        output_url=_s3("TransformOutput.S3OutputPath", output["S3OutputPath"]),
        manifest=source["S3DataType"] == "ManifestFile",
        content_type=given.get("ContentType", ""),
        accept=output.get("Accept", ""),
        gzip=given.get("CompressionType") == "Gzip",
        split=Split(given.get("SplitType", "None")),
        assemble=Assemble(output.get("AssembleWith", "None")),
        strategy=Strategy(strategy) if strategy else None,
        max_payload_mb=params.get("MaxPayloadInMB"),
        max_concurrent=params.get("MaxConcurrentTransforms") or None,
        timeout_s=client.get("InvocationsTimeoutInSeconds", 600),
        retries=client.get("InvocationsMaxRetries", 3),
        processing=_processing(params.get("DataProcessing", {})),
        instances=params["TransformResources"]["InstanceCount"],
        startup_s=STARTUP_S,
        bad_records_max=_bad_records(environment.get(BAD_RECORDS, "0")),
        in_process=_in_process(environment.get(IN_PROCESS, "on")),
        capture_url=_s3("DataCaptureConfig.DestinationS3Uri", capture["DestinationS3Uri"]) if capture else "",
    )
    _check_payload(spec)
    _check_processing(spec)
    return spec


def _s3(member: str, url: str) -> str:
    if not url.startswith("s3://"):
        raise validation(f'{member} must be an s3:// URL: "{url}" is none.')
    return url


def _processing(given: Mapping[str, Any]) -> Processing:
    return Processing(
        input_filter=given.get("InputFilter") or "$",
        output_filter=given.get("OutputFilter") or "$",
        join=given.get("JoinSource") == "Input",
    )


def _bad_records(text: str) -> int:
    if text == "all":
        return BAD_RECORDS_ALL
    if not text.isdecimal() or len(text) > 12:
        raise validation(f'Environment {BAD_RECORDS} must be a number of records, or "all": {text[:40]!r} is neither.')
    return int(text)


def _in_process(text: str) -> bool:
    if text not in ("on", "off"):
        raise validation(f"Environment {IN_PROCESS} must be on or off: {text[:40]!r} is neither.")
    return text == "on"


def _check_payload(spec: TransformSpec) -> None:
    size, concurrent = spec.max_payload_mb, spec.max_concurrent or 1
    if size is not None and size * concurrent > PAYLOAD_MB_TOTAL:
        raise validation(
            f"MaxConcurrentTransforms * MaxPayloadInMB must not exceed {PAYLOAD_MB_TOTAL} MB: {concurrent} * {size} is "
            f"{concurrent * size}."
        )
    if size == 0 and (spec.processing != Processing() or spec.split is not Split.NONE):
        raise unsupported("MaxPayloadInMB 0 with a SplitType or DataProcessing", "an object is sent whole, in chunks")
    if spec.strategy is Strategy.SINGLE_RECORD and spec.split is Split.NONE:
        raise validation("BatchStrategy SingleRecord needs a SplitType: with None there are no records.")


def _check_processing(spec: TransformSpec) -> None:
    """Whether records can be taken apart, and results joined with them."""
    try:
        wanted = sieve(spec.processing, spec.content_type, spec.accept)
    except PathError as error:
        raise validation(str(error)) from None
    if wanted is None:
        return
    if spec.split not in (Split.NONE, Split.LINE):
        raise validation(f"DataProcessing is for text: SplitType {spec.split} has records of another kind.")
    if media_type(spec.content_type) == CSV and spec.split is not Split.LINE:
        raise validation(
            f"DataProcessing of text/csv needs SplitType Line, not {spec.split}: each row is a record of its own."
        )
    if spec.processing.join and (spec.split is Split.LINE) is not (spec.assemble is Assemble.LINE):
        raise validation(
            f"JoinSource Input needs the same SplitType and AssembleWith: {spec.split} and {spec.assemble} differ."
        )
    assert form_of(spec.content_type) is not None  # `sieve` has seen to that


# -------------------------------------------------------------------------------------------------------- what it runs
def _check_quota(context: Context, instance_type: str, wanted: int) -> None:
    """Raise ResourceLimitExceeded where jobs that are not over would have too many instances of the type."""
    name, used = quotas.TRANSFORM_TYPE.format(instance_type), 0
    for document in context.store.scan(KIND, context.scope):
        job = jobs.decode(document.body)
        asked = job.request.get("TransformResources", {})
        if not job.ended and asked.get("InstanceType") == instance_type:
            used += int(asked["InstanceCount"])
    most = quotas.limit(context.store, context.scope, name, quotas.TRANSFORM_MAX)
    if used + wanted > most:
        raise resource_limit_exceeded(name, most, used, wanted)


def _job_spec(context: Context, params: Params, spec: TransformSpec, model: ModelSpec) -> JobSpec:
    """The job. Raises ValidationException for a type or a model that cannot be had."""
    try:
        size = context.instance_types.get(params["TransformResources"]["InstanceType"])
    except UnknownInstanceType as error:
        raise validation(str(error)) from None
    refusal = size.refusal()
    if refusal:
        raise validation(refusal)
    _check_quota(context, size.name, spec.instances)
    if any(container.multi_model for container in model.containers):
        raise unsupported("a model with Mode MultiModel in a transform job", "a request could not name its model")
    if str(model.execution) == "Direct":
        raise unsupported("a model with InferenceExecutionConfig.Mode Direct", "a request could not name its container")
    own = {name: value for name, value in params.get("Environment", {}).items() if not name.startswith(OWN)}
    told = container_environment(spec)
    containers = [_with(container, {**own, **told}) for container in model.containers]
    foreign = any(container.foreign for container in containers)
    environments = [container.environment for container in containers]
    return JobSpec(
        program="transform",
        inputs={},
        arguments={
            "transform": _fields(spec),
            "containers": [_fields(container) for container in containers],
            "execution": str(model.execution),
            "instance_type": size.name,
            "workers": workers(size.vcpu_milli, context.instance_types.host_cpus, environments, foreign),
        },
        output_url=spec.output_url,
        max_runtime_ms=RUNTIME_MAX_S * 1000,
        vcpu_milli=size.vcpu_milli,
        memory_mb=size.memory_mb,
        resumable=True,
    )


def _with(container: ContainerSpec, more: Mapping[str, str]) -> ContainerSpec:
    return replace(container, environment={**container.environment, **more})


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as a document holds it."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


# --------------------------------------------------------------------------------------------------------------- views
def _find(context: Context, params: Params) -> Document:
    name = params["TransformJobName"]
    found = context.get(KIND, name)
    if found is None:
        raise resource_not_found(f'Could not find {NOUN} "{context.arn(ARN_TYPE, name)}".')
    return found


def _times(job: Job) -> dict[str, float]:
    times = {"TransformStartTime": job.started_ms, "TransformEndTime": job.ended_ms}
    return {name: seconds(at_ms) for name, at_ms in times.items() if at_ms}


def _row(context: Context, job: Job) -> Row:
    summary: dict[str, Any] = {
        "TransformJobName": job.key.name,
        "TransformJobArn": context.arn(ARN_TYPE, job.key.name),
        "CreationTime": seconds(job.created_ms),
        "LastModifiedTime": seconds(job.modified_ms),
        "TransformJobStatus": STATUS[job.state],
    }
    if job.ended_ms:
        summary["TransformEndTime"] = seconds(job.ended_ms)
    if job.state is JobState.FAILED:
        summary["FailureReason"] = job.reason[:1024]
    return Row(job.key.name, job.created_ms, job.modified_ms, summary, STATUS[job.state])
