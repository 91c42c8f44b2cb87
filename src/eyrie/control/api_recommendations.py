"""SageMaker's InferenceRecommendationsJob: checks what is asked for, makes an order of it, and stores it as a job that
`control/jobs` brings to its end; what was measured is shown from the ledger that its program keeps (`progress`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from eyrie.control import jobs
from eyrie.control.api_endpoints import model_of
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.job_requests import store_job
from eyrie.control.listing import Row, page
from eyrie.control.recommendation_orders import order_of
from eyrie.control.records import refuse_beyond_quota
from eyrie.decide.recommendation import (
    instances_for,
    latency_whole_ms,
    proposal,
    ranked,
    usd_per_hour,
    usd_per_inference,
)
from eyrie.domain.jobs import Job, JobKey, JobSpec, JobState
from eyrie.domain.recommendation import BUDGET_MAX_S, UTILISATION, Candidate, Ledger, Measured, Order, Trial, TrialState
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, resource_in_use, resource_not_found, validation

KIND = "InferenceRecommendationsJob"
ARN_TYPE = "inference-recommendations-job"
NOUN = "inference recommendations job"
RECOMMENDATIONS_MAX = 10
WAITING_MAX_S = 6 * 3_600  # for other jobs that measure, and for what is slow to come and go
NOTE = "EYRIE_NOTE"  # of a recommendation's EnvironmentParameters: what to know of its figures
PREDEFINED = "SageMakerVariantInvocationsPerInstance"
STEP = "BENCHMARK"

STATUS: Mapping[JobState, str] = {
    JobState.QUEUED: "PENDING",
    JobState.FETCHING: "IN_PROGRESS",
    JobState.RUNNING: "IN_PROGRESS",
    JobState.UPLOADING: "IN_PROGRESS",
    JobState.STOPPING: "STOPPING",
    JobState.COMPLETED: "COMPLETED",
    JobState.FAILED: "FAILED",
    JobState.STOPPED: "STOPPED",
}


def operations() -> Mapping[str, Operation]:
    """The operations on inference recommendations jobs."""
    return {
        "CreateInferenceRecommendationsJob": create_job,
        "DescribeInferenceRecommendationsJob": describe_job,
        "ListInferenceRecommendationsJobs": list_jobs,
        "StopInferenceRecommendationsJob": stop_job,
        "ListInferenceRecommendationsJobSteps": list_steps,
        "GetScalingConfigurationRecommendation": scaling_configuration,
    }


def create_job(context: Context, params: Params) -> dict[str, Any]:
    """Store a job, which begins as soon as there is room."""
    name = params["JobName"]
    order = order_of(context, params, model_of)
    refuse_beyond_quota(context, KIND)
    arn = context.arn(ARN_TYPE, name)
    if context.get(KIND, name) is not None:
        raise resource_in_use(
            f"Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})"
        )
    spec = JobSpec(
        program="recommend",
        inputs={},
        arguments={"order": msgspec.to_builtins(order)},
        output_url="",
        max_runtime_ms=(min(order.budget_s, BUDGET_MAX_S) + WAITING_MAX_S) * 1000,
        vcpu_milli=1_000,
        memory_mb=512,
        resumable=True,
    )
    key = JobKey(KIND, context.scope.account, context.scope.region, name)
    store_job(context, params, key, ARN_TYPE, "r", spec)
    return {"JobArn": arn}


def describe_job(context: Context, params: Params) -> dict[str, Any]:
    """A job as it is now; with what it recommends, once it is complete."""
    job = jobs.job_of(_find(context, params["JobName"]))
    given = job.request
    reply: dict[str, Any] = {
        **{
            name: given[name]
            for name in ("JobName", "JobDescription", "JobType", "RoleArn", "InputConfig")
            if name in given
        },
        "JobArn": context.arn(ARN_TYPE, job.key.name),
        "Status": STATUS[job.state],
        "CreationTime": seconds(job.created_ms),
        "LastModifiedTime": seconds(job.modified_ms),
        **({"StoppingConditions": given["StoppingConditions"]} if "StoppingConditions" in given else {}),
    }
    if job.ended_ms:
        reply["CompletionTime"] = seconds(job.ended_ms)
    if job.state is JobState.FAILED:
        reply["FailureReason"] = job.reason[:1024]
    if job.state is JobState.COMPLETED:
        order = _order(job)
        best = [trial for trial in ranked(_ledger(job).tests, order) if not trial.candidate.endpoint]
        if best:
            reply["InferenceRecommendations"] = [_recommended(job, order, t) for t in best[:RECOMMENDATIONS_MAX]]
        if existing := _existing(job):
            reply["EndpointPerformances"] = existing
    return reply


def list_jobs(context: Context, params: Params) -> dict[str, Any]:
    """Jobs, newest first."""
    found = [jobs.job_of(d) for d in context.store.scan(KIND, context.scope)]
    for member, wanted in (
        ("ModelName", "ModelNameEquals"),
        ("ModelPackageVersionArn", "ModelPackageVersionArnEquals"),
    ):
        if wanted in params:
            found = [job for job in found if job.request["InputConfig"].get(member) == params[wanted]]
    rows = [_row(context, job) for job in found]
    return page("ListInferenceRecommendationsJobs", params, rows).reply("InferenceRecommendationsJobs")


def stop_job(context: Context, params: Params) -> dict[str, Any]:
    """Ask for the end of a job: its endpoints are removed first. Raises ValidationException for one that is over."""
    document = _find(context, params["JobName"])
    job = jobs.job_of(document)
    if job.ended:
        raise validation(
            f"The request was rejected because the {NOUN} is in status {STATUS[job.state]}: only one that is PENDING "
            "or IN_PROGRESS can be stopped."
        )
    if not job.stop_asked:
        asked = replace(job, stop_asked=True, modified_ms=context.now_ms)
        context.store.commit(Commit(puts=[replace(document, body=jobs.encode(asked), modified_ms=context.now_ms)]))
        context.wake_jobs()
    return {}


def list_steps(context: Context, params: Params) -> dict[str, Any]:
    """The tests of a job, a step each, in the order that they began; those of every state, unlike Describe."""
    job = jobs.job_of(_find(context, params["JobName"]))
    order = _order(job)
    rows = []
    for trial in _ledger(job).tests:
        status = _step_status(job, trial)
        if params.get("Status", status) == status:
            rows.append(Row(f"{trial.number:05}", trial.number, trial.number, _step(job, order, trial, status), status))
    wanted: Params = {name: params[name] for name in ("JobName", "MaxResults", "NextToken", "Status") if name in params}
    return page(
        "ListInferenceRecommendationsJobSteps", {**wanted, "SortBy": "Name", "SortOrder": "Ascending"}, rows
    ).reply("Steps")


def scaling_configuration(context: Context, params: Params) -> dict[str, Any]:
    """How to scale what a job recommends, or an endpoint that it measured."""
    name = params["InferenceRecommendationsJobName"]
    job = jobs.job_of(_find(context, name))
    if job.state is not JobState.COMPLETED:
        raise validation(
            f"The {NOUN} {name} is {STATUS[job.state]}: only one that is COMPLETED has a scaling configuration."
        )
    trial = _chosen(job, params)
    assert trial.measured is not None
    objective, share = params.get("ScalingPolicyObjective", {}), params.get("TargetCpuUtilizationPerCore")
    low, high = (objective.get(f"{end}InvocationsPerMinute") for end in ("Min", "Max"))
    _check_objective(low, high)
    made = proposal(trial.measured, low, high, float(share or UTILISATION))
    policy = {
        "TargetTracking": {
            "MetricSpecification": {"Predefined": {"PredefinedMetricType": PREDEFINED}},
            "TargetValue": float(made.invocations_per_instance),
        }
    }
    reply: dict[str, Any] = {
        "InferenceRecommendationsJobName": name,
        "TargetCpuUtilizationPerCore": int(share or UTILISATION),
        "Metric": {"InvocationsPerInstance": made.invocations_per_instance, "ModelLatency": made.latency_ms},
        "DynamicScalingConfiguration": {
            "MinCapacity": made.min_capacity,
            "MaxCapacity": made.max_capacity,
            "ScaleInCooldown": made.scale_in_cooldown_s,
            "ScaleOutCooldown": made.scale_out_cooldown_s,
            "ScalingPolicies": [policy],
        },
    }
    if trial.candidate.endpoint:
        reply["EndpointName"] = trial.candidate.endpoint
    else:
        reply["RecommendationId"] = _recommendation_id(job, trial)
    if objective:
        reply["ScalingPolicyObjective"] = objective
    return reply


def _check_objective(low: int | None, high: int | None) -> None:
    for member, value in (("Min", low), ("Max", high)):
        if value is not None and value < 1:
            raise validation(f"ScalingPolicyObjective.{member}InvocationsPerMinute must be at least 1, not {value}.")
    if low is not None and high is not None and low > high:
        raise validation(
            f"ScalingPolicyObjective.MinInvocationsPerMinute {low} is above MaxInvocationsPerMinute {high}."
        )


def _chosen(job: Job, params: Params) -> Trial:
    """The recommendation, or the endpoint, that is meant. Raises ValidationException, ResourceNotFound."""
    wanted, endpoint = params.get("RecommendationId"), params.get("EndpointName")
    if wanted and endpoint:
        raise validation("Give a RecommendationId or an EndpointName, not both.")
    for trial in ranked(_ledger(job).tests, _order(job)):
        if trial.candidate.serverless is not None and not wanted:
            continue
        mine = trial.candidate.endpoint == endpoint if endpoint else not trial.candidate.endpoint
        if mine if not wanted else _recommendation_id(job, trial) == wanted:
            return _with_instances(trial)
    what = f"EndpointName {endpoint}" if endpoint else f"RecommendationId {wanted}" if wanted else "recommendation"
    raise resource_not_found(f"Could not find {what} of the {NOUN} {job.key.name}.")


def _with_instances(trial: Trial) -> Trial:
    if trial.candidate.serverless is not None:
        raise validation("A serverless variant has no instances, and so no scaling configuration.")
    return trial


# --------------------------------------------------------------------------------------------------------------- views
def _recommended(job: Job, order: Order, trial: Trial) -> dict[str, Any]:
    """One of InferenceRecommendations."""
    assert trial.measured is not None
    return {
        "RecommendationId": _recommendation_id(job, trial),
        "Metrics": _metrics(order, trial.candidate, trial.measured),
        "EndpointConfiguration": _hosted(trial, _count(order, trial.measured)),
        "ModelConfiguration": _model(trial),
        **_invoked(trial),
    }


def _count(order: Order, measured: Measured) -> int:
    """Instances to begin with: for the invocations that are expected, where the job was told."""
    expected = order.stopping.max_invocations
    return instances_for(expected, measured) if expected else 1


def _recommendation_id(job: Job, trial: Trial) -> str:
    return f"{job.key.name}/{job.run_id[2:8]}{trial.number:02}"


def _metrics(order: Order, candidate: Candidate, measured: Measured) -> dict[str, Any]:
    told = {
        "CostPerHour": usd_per_hour(candidate, order.types),
        "CostPerInference": usd_per_inference(candidate, measured, order.types),
        "MaxInvocations": measured.max_invocations,
        "ModelLatency": latency_whole_ms(measured),
        "CpuUtilization": measured.cpu_percent,
        "MemoryUtilization": measured.memory_percent,
        "ModelSetupTime": None if measured.setup_s is None else round(measured.setup_s + 0.499),
    }
    return {name: value for name, value in told.items() if value is not None}


def _hosted(trial: Trial, count: int) -> dict[str, Any]:
    """EndpointConfiguration."""
    candidate = trial.candidate
    told: dict[str, Any] = {"EndpointName": trial.endpoint, "VariantName": trial.variant}
    if candidate.serverless is not None:
        size = candidate.serverless
        provisioned = {"ProvisionedConcurrency": size.provisioned} if size.provisioned else {}
        told["ServerlessConfig"] = {"MemorySizeInMB": size.memory_mb, "MaxConcurrency": size.concurrency, **provisioned}
    elif candidate.instance_type:
        told |= {"InstanceType": candidate.instance_type, "InitialInstanceCount": count}
    return told


def _model(trial: Trial) -> dict[str, Any]:
    """ModelConfiguration; what is to be known of the figures is among the variables, since nothing else is there."""
    variables = dict(trial.candidate.environment)
    if trial.note:
        variables[NOTE] = trial.note
    told = [{"Key": name, "ValueType": "String", "Value": value} for name, value in sorted(variables.items())]
    return {"EnvironmentParameters": told} if told else {}


def _invoked(trial: Trial) -> dict[str, float]:
    if not trial.began_ms:
        return {}
    return {"InvocationStartTime": seconds(trial.began_ms), "InvocationEndTime": seconds(trial.ended_ms)}


def _existing(job: Job) -> list[dict[str, Any]]:
    """EndpointPerformances."""
    return [
        {"Metrics": _endpoint_metrics(trial.measured), "EndpointInfo": {"EndpointName": trial.candidate.endpoint}}
        for trial in _ledger(job).tests
        if trial.candidate.endpoint and trial.measured is not None
    ]


def _endpoint_metrics(measured: Measured) -> dict[str, int]:
    return {"MaxInvocations": measured.max_invocations, "ModelLatency": latency_whole_ms(measured)}


def _step(job: Job, order: Order, trial: Trial, status: str) -> dict[str, Any]:
    benchmark: dict[str, Any] = {"ModelConfiguration": _model(trial), **_invoked(trial)}
    benchmark["EndpointConfiguration"] = _hosted(trial, 1)
    if trial.measured is not None:
        benchmark["Metrics"] = _metrics(order, trial.candidate, trial.measured)
        if trial.candidate.endpoint:
            benchmark["EndpointMetrics"] = _endpoint_metrics(trial.measured)
    if trial.state is TrialState.FAILED:
        benchmark["FailureReason"] = trial.reason[:1024]
    return {"StepType": STEP, "JobName": job.key.name, "Status": status, "InferenceBenchmark": benchmark}


def _step_status(job: Job, trial: Trial) -> str:
    """A test that was in the middle when its job ended has ended as the job did."""
    if trial.state is TrialState.IN_PROGRESS and job.ended:
        return "STOPPED" if job.state is JobState.STOPPED else "FAILED"
    return str(trial.state)


def _row(context: Context, job: Job) -> Row:
    given, config = job.request, job.request["InputConfig"]
    payload = config.get("ContainerConfig", {}).get("PayloadConfig", {})
    summary: dict[str, Any] = {
        "JobName": job.key.name,
        "JobDescription": given.get("JobDescription", ""),
        "JobType": given["JobType"],
        "JobArn": context.arn(ARN_TYPE, job.key.name),
        "Status": STATUS[job.state],
        "CreationTime": seconds(job.created_ms),
        "RoleArn": given["RoleArn"],
        "LastModifiedTime": seconds(job.modified_ms),
        **({"ModelName": config["ModelName"]} if "ModelName" in config else {}),
        **({"SamplePayloadUrl": payload["SamplePayloadUrl"]} if "SamplePayloadUrl" in payload else {}),
    }
    if job.ended_ms:
        summary["CompletionTime"] = seconds(job.ended_ms)
    if job.state is JobState.FAILED:
        summary["FailureReason"] = job.reason[:1024]
    return Row(job.key.name, job.created_ms, job.modified_ms, summary, STATUS[job.state])


def _order(job: Job) -> Order:
    return msgspec.convert(job.spec.arguments["order"], Order)


def _ledger(job: Job) -> Ledger:
    return msgspec.convert(job.progress, Ledger) if job.progress else Ledger()


def _find(context: Context, name: str) -> Document:
    found = context.get(KIND, name)
    if found is None:
        raise _missing(context, name)
    return found


def _missing(context: Context, name: str) -> ApiError:
    return resource_not_found(f'Could not find {NOUN} "{context.arn(ARN_TYPE, name)}".')
