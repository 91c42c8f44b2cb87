"""`eyrie recommend MODEL --payload FILE`: an inference recommendations job from the command line: its payload packed
and uploaded, the job followed, and at its end a table of what was measured, and a proposal for how to run the model.

All by the public API: what it prints any client can ask for.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eyrie.cli import payload, upload
from eyrie.cli.deploy import fresh_name
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.decide.recommendation import weights
from eyrie.domain.recommendation import UTILISATION

ENDED = ("COMPLETED", "FAILED", "STOPPED")
LOOK_S = 1.0
RANGES_MAX = 5
NOTE = "EYRIE_NOTE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    model: str
    payload: str
    each_line: bool
    content_type: str | None
    minutes: float
    types: Sequence[str]
    environment: Sequence[str]
    latency: int | None  # P95, milliseconds
    rps: float | None  # expected, at most
    name: str | None
    as_json: bool


def run(data: Path, asked: Asked) -> None:
    """Start a job, follow it, print what it found. Raises CommandError."""
    request = _request(asked)
    public = Public.of(data)
    with Progress(quiet=asked.as_json) as progress:
        kind, url = _uploaded(public, asked)
        request["InputConfig"]["ContainerConfig"]["PayloadConfig"] = {
            "SamplePayloadUrl": url,
            "SupportedContentTypes": [kind],
        }
        account = public.ask("sts", "get_caller_identity")["Account"]
        role = f"arn:aws:iam::{account}:role/eyrie-recommend"
        name = request["JobName"]
        public.ask("sagemaker", "create_inference_recommendations_job", RoleArn=role, **request)
        progress.step(f"job {name} is created; Ctrl-C stops it")
        try:
            job = _followed(public, name, progress)
        except KeyboardInterrupt:
            public.ask("sagemaker", "stop_inference_recommendations_job", JobName=name)
            raise CommandError(f"{name} is being stopped: what it made is removed", code=130) from None
    if job["Status"] != "COMPLETED":
        raise CommandError(f"{name}: {job['Status']}. {job.get('FailureReason', '')}".strip())
    found = found_of(public, job, asked.rps)
    if asked.as_json:
        print_document(found)
    else:
        print(_shown(found))


def _request(asked: Asked) -> dict[str, Any]:
    """CreateInferenceRecommendationsJob, without the payload. Raises CommandError."""
    if not 0 < asked.minutes <= 300:
        raise CommandError(f"--minutes is more than 0 and at most 300, not {asked.minutes:g}", code=2)
    ranges = _ranges(asked.environment)
    config: dict[str, Any] = {
        "ModelName": asked.model,
        "JobDurationInSeconds": max(1, int(asked.minutes * 60)),
        "ContainerConfig": {},
    }
    if ranges:
        if not asked.types:
            raise CommandError("--env tries variables on instance types: name one with --type", code=2)
        tried = {"EnvironmentParameterRanges": {"CategoricalParameterRanges": ranges}}
        config["EndpointConfigurations"] = [{"InstanceType": one, **tried} for one in asked.types]
    elif asked.types:
        config["EndpointConfigurations"] = [{"InstanceType": one} for one in asked.types]
    stopping: dict[str, Any] = {}
    if asked.rps is not None and asked.rps <= 0:
        raise CommandError(f"--rps is more than 0, not {asked.rps:g}", code=2)
    if asked.latency is not None:
        stopping["ModelLatencyThresholds"] = [{"Percentile": "P95", "ValueInMilliseconds": asked.latency}]
    return {
        "JobName": asked.name or fresh_name(asked.model[:40]),
        "JobType": "Advanced" if ranges else "Default",
        "InputConfig": config,
        **({"StoppingConditions": stopping} if stopping else {}),
    }


def _ranges(given: Sequence[str]) -> list[dict[str, Any]]:
    """NAME=a,b,c as CategoricalParameterRanges. Raises CommandError."""
    found = []
    for text in given:
        name, equals, values = text.partition("=")
        if not name or not equals or not values:
            raise CommandError(f"--env is NAME=VALUE,VALUE, not {text!r}", code=2)
        found.append({"Name": name, "Value": values.split(",")})
    if len(found) > RANGES_MAX:
        raise CommandError(f"--env names at most {RANGES_MAX} variables, not {len(found)}", code=2)
    return found


def _uploaded(public: Public, asked: Asked) -> tuple[str, str]:
    """The payload in the default bucket: its content type and URL. Raises CommandError."""
    bodies, kind = payload.bodies(asked.payload, asked.each_line, asked.content_type)
    packed = packed_of(bodies)
    account = public.ask("sts", "get_caller_identity")["Account"]
    bucket = f"sagemaker-{public.where.region}-{account}"
    key = f"eyrie-recommend/{hashlib.sha256(packed).hexdigest()[:32]}/payload.tar.gz"
    upload.ensure_bucket(public, bucket)
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        file.write(packed)
        file.flush()
        upload.upload(public, Path(file.name), bucket, key, lambda got: None)
    return kind, f"s3://{bucket}/{key}"


def packed_of(bodies: Sequence[bytes]) -> bytes:
    """Bodies as the archive that SamplePayloadUrl names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number, body in enumerate(bodies):
            entry = tarfile.TarInfo(f"payload-{number:04}")
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def _followed(public: Public, name: str, progress: Progress) -> dict[str, Any]:
    """The job, once it is over; each test is told when it is."""
    told = 0
    while True:
        job = public.ask("sagemaker", "describe_inference_recommendations_job", JobName=name)
        steps = list(public.pages("sagemaker", "list_inference_recommendations_job_steps", "Steps", JobName=name))
        for step in itertools.islice((one for one in steps if one["Status"] != "IN_PROGRESS"), told, None):
            told += 1
            progress.step(_step_words(step))
        if job["Status"] in ENDED:
            return job
        now = next((one for one in steps if one["Status"] == "IN_PROGRESS"), None)
        progress.now(f"{job['Status']}: {_title(now['InferenceBenchmark']) if now else 'nothing is under test'}")
        time.sleep(LOOK_S)


def _step_words(step: Mapping[str, Any]) -> str:
    benchmark = step["InferenceBenchmark"]
    title, metrics = _title(benchmark), benchmark.get("Metrics")
    if metrics is None:
        return f"{title}: {step['Status']}. {benchmark.get('FailureReason', '')}"
    return f"{title}: {metrics['MaxInvocations']:,} invocations a minute, {metrics['ModelLatency']} ms"


def _title(one: Mapping[str, Any]) -> str:
    """A configuration in a few words."""
    hosted = one["EndpointConfiguration"]
    where = hosted.get("InstanceType") or hosted["EndpointName"]
    if "ServerlessConfig" in hosted:
        where = f"serverless {hosted['ServerlessConfig']['MemorySizeInMB']} MB"
    return " ".join([where, *(f"{name}={value}" for name, value in _variables(one).items())])


def _variables(one: Mapping[str, Any]) -> dict[str, str]:
    given = one["ModelConfiguration"].get("EnvironmentParameters", [])
    return {entry["Key"]: entry["Value"] for entry in given if entry["Key"] != NOTE}


# ---------------------------------------------------------------------------------------------------------- the result
def found_of(public: Public, job: Mapping[str, Any], rps: float | None) -> dict[str, Any]:
    """What a completed job found, and how to run it; as plain values."""
    best = job.get("InferenceRecommendations", [])
    rows = [
        {
            "id": one["RecommendationId"],
            "title": _title(one),
            "instance_type": one["EndpointConfiguration"].get("InstanceType"),
            "environment": _variables(one),
            "metrics": one["Metrics"],
        }
        for one in best
    ]
    notes = {
        entry["Value"]
        for one in best
        for entry in one["ModelConfiguration"].get("EnvironmentParameters", [])
        if entry["Key"] == NOTE
    }
    found = {"job": job["JobName"], "recommendations": rows, "notes": sorted(notes), "proposal": None}
    hosted = [row for row in rows if row["instance_type"]]
    if hosted:
        found["proposal"] = _proposal(public, str(job["JobName"]), hosted, rps)
    return found


def _proposal(public: Public, job: str, hosted: Sequence[Mapping[str, Any]], rps: float | None) -> dict[str, Any]:
    """Instances, target, policy and weights for the best that has instances."""
    best = hosted[0]
    objective = {} if rps is None else {"ScalingPolicyObjective": {"MaxInvocationsPerMinute": max(1, round(rps * 60))}}
    told = public.ask(
        "sagemaker",
        "get_scaling_configuration_recommendation",
        InferenceRecommendationsJobName=job,
        RecommendationId=best["id"],
        **objective,
    )
    scaling = told["DynamicScalingConfiguration"]
    needed = scaling["MaxCapacity"] if rps is not None else 1
    beside = hosted[:2] if len(hosted) > 1 else []
    shares = weights([float(row["metrics"]["MaxInvocations"]) for row in beside])
    instances = max(2, needed + (rps is not None))  # one may be lost
    scaling["MaxCapacity"] = max(instances, scaling["MaxCapacity"])
    return {
        "instance_type": best["instance_type"],
        "environment": best["environment"],
        "instances": instances,
        "expected_rps": rps,
        "utilisation_percent": UTILISATION,
        "target_invocations_per_instance": told["Metric"]["InvocationsPerInstance"],
        "scaling": scaling,
        "variant_weights": [
            {"title": row["title"], "weight": share} for row, share in zip(beside, shares, strict=True)
        ],
    }


def _shown(found: Mapping[str, Any]) -> str:
    """For people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(
        ("configuration", "invocations/min", "P95 ms", "CPU %", "memory %", "USD/h", "USD/million")
    ):
        table.add_column(title, justify="left" if number == 0 else "right")
    for row in found["recommendations"]:
        table.add_row(row["title"], *_cells(row["metrics"]))
    console = Console(file=io.StringIO(), width=140)
    console.print(table)
    text = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    lines = [line.rstrip() for line in text.splitlines()]
    if found["proposal"]:
        lines += ["", *_proposed(found["proposal"])]
    return "\n".join([*lines, *(f"note: {note}" for note in found["notes"])])


def _cells(metrics: Mapping[str, Any]) -> list[str]:
    def cell(name: str, form: str, times: float = 1.0) -> str:
        return form.format(metrics[name] * times) if name in metrics else "?"

    return [
        cell("MaxInvocations", "{:,.0f}"),
        cell("ModelLatency", "{:.0f}"),
        cell("CpuUtilization", "{:.0f}"),
        cell("MemoryUtilization", "{:.1f}"),
        cell("CostPerHour", "{:.3f}"),
        cell("CostPerInference", "{:.3f}", 1e6),
    ]


def _proposed(proposal: Mapping[str, Any]) -> list[str]:
    scaling, target = proposal["scaling"], proposal["target_invocations_per_instance"]
    variables = " ".join(f"{name}={value}" for name, value in proposal["environment"].items())
    expected = proposal["expected_rps"]
    why = f"{expected:g} requests/s, and one to lose" if expected else "one to lose; say --rps for what is expected"
    lines = [
        f"Proposal: {proposal['instances']} x {proposal['instance_type']}{' with ' if variables else ''}{variables} "
        f"({why})",
        f"  scaling   SageMakerVariantInvocationsPerInstance at {target:,} a minute: "
        f"{proposal['utilisation_percent']:.0f} % of what an instance can do",
        f"  between   {scaling['MinCapacity']} and {scaling['MaxCapacity']} instances, "
        f"out after {scaling['ScaleOutCooldown']} s, in after {scaling['ScaleInCooldown']} s",
    ]
    weighed = [f"{one['weight']:g} for {one['title']}" for one in proposal["variant_weights"]]
    if weighed:
        lines.append(f"  weights   of the two best beside each other: {', '.join(weighed)}")
    return lines
