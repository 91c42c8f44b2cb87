"""`eyrie deploy MODEL`: from a model file to an endpoint in service, by the public API alone.

Recognise and pack (`model_pack`), upload, CreateModel, CreateEndpointConfig, then CreateEndpoint, or UpdateEndpoint
where the name is taken; wait; say how it is called. What it makes is tagged, so that `eyrie delete` can take it away.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eyrie.adapters.model_pack import Packed, Unpackable, enough_room, pack, scratch_folder
from eyrie.cli import calls, upload
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public, Refused, one_line

TAG = "eyrie:deploy"
VARIANT = "main"
INSTANCES = 2
INSTANCE_TYPE = "ml.m5.large"
SERVERLESS_MEMORY_MB = 2048
SERVERLESS_CONCURRENCY = 20
LOOK_S = 0.3
NAME_CHARS_MAX = 63
PREFIX = "eyrie-deploy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    model: Path
    name: str | None
    instances: int | None
    zones: int | None
    instance_type: str | None
    serverless: bool
    asynchronous: bool
    image: str | None
    code: Path | None
    environment: Sequence[str]
    replace: bool
    wait: bool
    timeout_s: float
    as_json: bool


def run(data: Path, asked: Asked) -> None:
    """Deploy, wait, and print how the endpoint is called. Raises CommandError."""
    if asked.serverless and asked.asynchronous:
        raise CommandError("--serverless and --async are two types of endpoint: say one of them", code=2)
    if asked.serverless and (asked.instances or asked.zones or asked.instance_type):
        raise CommandError("a serverless endpoint has no --instances, --zones or --type: it makes them as needed", 2)
    environment = variables(asked.environment)
    name = endpoint_name(asked.name, asked.model)
    public = Public.of(data)
    with Progress(quiet=asked.as_json) as progress, scratch_folder() as folder:
        packed = packed_of(asked, Path(folder))
        progress.step(f"{asked.model.name} is {packed.model.what}: image {packed.model.image}, {size(packed.bytes)}")
        deployment = Deployment(public, progress, asked, name)
        deployment.begin(packed, environment)
        if asked.wait:
            deployment.wait()
    found = deployment.told()
    if asked.as_json:
        print_document(found)
    else:
        print("\n".join(calls.lines(public.where, found)))


def packed_of(asked: Asked, folder: Path) -> Packed:
    """The archive of what is given. Raises CommandError."""
    try:
        if asked.model.exists():
            enough_room(folder, asked.model)
        return pack(asked.model, asked.code, asked.image, folder)
    except Unpackable as error:
        raise CommandError(str(error), code=2 if error.given else 1) from None


class Deployment:
    """One deployment of a model to an endpoint."""

    def __init__(self, public: Public, progress: Progress, asked: Asked, name: str) -> None:
        self._public, self._progress, self._asked, self._name = public, progress, asked, name
        self._before = public.endpoint(name)
        self._config = ""
        self._image = self._type = ""
        self._began = time.monotonic()

    def begin(self, packed: Packed, environment: Mapping[str, str]) -> None:
        """Upload and create everything; the endpoint begins to come up, or to change. Raises CommandError."""
        before = self._settled()
        account = self._public.ask("sts", "get_caller_identity")["Account"]
        bucket = f"sagemaker-{self._public.where.region}-{account}"
        key = f"{PREFIX}/{self._name}/{packed.digest[:16]}/model.tar.gz"
        self._upload(packed, bucket, key)
        self._image = packed.model.image
        self._config = fresh_name(self._name)
        tags = [{"Key": TAG, "Value": self._name}]
        container = {"Image": self._image, "ModelDataUrl": f"s3://{bucket}/{key}", "Environment": dict(environment)}
        had = self._config_of(before)
        config: dict[str, Any] = {"ProductionVariants": [self._variant(before, had)], "Tags": tags}
        if self._asked.asynchronous:
            output = f"s3://{bucket}/{PREFIX}/{self._name}/output/"
            config["AsyncInferenceConfig"] = {"OutputConfig": {"S3OutputPath": output}}
        elif "AsyncInferenceConfig" in had and not self._asked.serverless:
            config["AsyncInferenceConfig"] = had["AsyncInferenceConfig"]
        role = f"arn:aws:iam::{account}:role/eyrie-deploy"
        operation = "create_endpoint" if before is None else "update_endpoint"
        ask = self._public.ask
        undo = ExitStack()  # what was made goes away again where the rest is refused
        with undo:
            ask(
                "sagemaker",
                "create_model",
                ModelName=self._config,
                PrimaryContainer=container,
                ExecutionRoleArn=role,
                Tags=tags,
            )
            undo.callback(self._forget, "delete_model", ModelName=self._config)
            ask("sagemaker", "create_endpoint_config", EndpointConfigName=self._config, **config)
            undo.callback(self._forget, "delete_endpoint_config", EndpointConfigName=self._config)
            ask("sagemaker", operation, EndpointName=self._name, EndpointConfigName=self._config)
            undo.pop_all()
        self._type = _type_of(config)
        self._progress.step(f"endpoint {self._name} is {'created' if before is None else 'updated'}")

    def wait(self) -> None:
        """Until it is in service with this model. Raises CommandError with the reason where it does not get there."""
        deadline = time.monotonic() + self._asked.timeout_s
        while True:
            found = self._public.endpoint(self._name)
            if found is None:
                raise CommandError(f"endpoint {self._name} was deleted meanwhile")
            status = str(found["EndpointStatus"])
            if status == "InService" and found["EndpointConfigName"] == self._config:
                self._progress.step("in service")
                return
            if status in ("InService", "Failed", "UpdateRollbackFailed"):
                why = one_line(found.get("FailureReason", "it says no reason"))
                kept = f"; it serves {found['EndpointConfigName']} as before" if status == "InService" else ""
                raise CommandError(f"endpoint {self._name} did not take the model: {why}{kept}")
            self._progress.now(f"{status}: {standing(found)}")
            if time.monotonic() > deadline:
                raise CommandError(
                    f"endpoint {self._name} is still {status} after {self._asked.timeout_s:g} s "
                    f"(eyrie story {self._name} tells why; it goes on)"
                )
            time.sleep(LOOK_S)

    def told(self) -> dict[str, Any]:
        """The endpoint as it stands now, for people and programs."""
        found = self._public.endpoint(self._name) or {}
        variants = found.get("ProductionVariants", [])
        return {
            "endpoint": self._name,
            "status": found.get("EndpointStatus", ""),
            "config": self._config,
            "image": self._image,
            "instances": sum(int(v.get("CurrentInstanceCount", 0)) for v in variants),
            "type": self._type,
            "updated": self._before is not None,
            "seconds": round(time.monotonic() - self._began, 2),
            "sample": calls.sample(self._public.where, self._name) if self._asked.wait else None,
            **calls.addresses(self._public.where, self._name),
        }

    def _settled(self) -> dict[str, Any] | None:
        """The endpoint of this name, where there is one that can be updated. Raises CommandError for any other."""
        before = self._before
        if before is None:
            return None
        status = before["EndpointStatus"]
        if status != "InService":
            hint = f"`eyrie delete {self._name}` first" if status == "Failed" else "wait, or choose another --name"
            raise CommandError(f"endpoint {self._name} is {status}: {hint}")
        variants = [str(v["VariantName"]) for v in before.get("ProductionVariants", [])]
        if len(variants) > 1 and not self._asked.replace:
            raise CommandError(
                f"endpoint {self._name} has {len(variants)} variants ({', '.join(variants)}), which one would replace: "
                "say --replace where that is meant, or choose another --name"
            )
        return before

    def _upload(self, packed: Packed, bucket: str, key: str) -> None:
        if upload.ensure_bucket(self._public, bucket):
            self._progress.step(f"made the bucket {bucket}")
        if upload.exists(self._public, bucket, key):
            self._progress.step("these very bytes were uploaded before")
            return
        whole = size(packed.bytes)
        upload.upload(
            self._public,
            packed.archive,
            bucket,
            key,
            lambda got: self._progress.now(f"uploading: {size(got)} of {whole}") if got < packed.bytes else None,
        )
        self._progress.step(f"uploaded to s3://{bucket}/{key}")

    def _forget(self, operation: str, **named: str) -> None:
        with suppress(CommandError):
            self._public.ask("sagemaker", operation, **named)

    def _config_of(self, before: dict[str, Any] | None) -> dict[str, Any]:
        """The config that the endpoint has; {} of a new one."""
        if before is None:
            return {}
        name = str(before["EndpointConfigName"])
        try:
            return self._public.ask("sagemaker", "describe_endpoint_config", EndpointConfigName=name)
        except Refused:  # it was deleted, which does not keep the endpoint from serving
            return {}

    def _variant(self, before: dict[str, Any] | None, config: Mapping[str, Any]) -> dict[str, Any]:
        """The one variant: as the command line says, else as the endpoint has it, else the usual."""
        asked = self._asked
        now: Mapping[str, Any] = before["ProductionVariants"][0] if before is not None else {}
        old: Mapping[str, Any] = next(
            (v for v in config.get("ProductionVariants", []) if v["VariantName"] == now["VariantName"]), {}
        )
        variant: dict[str, Any] = {"VariantName": now.get("VariantName", VARIANT), "ModelName": self._config}
        if asked.serverless or (
            "ServerlessConfig" in old and not (asked.instances or asked.instance_type or asked.zones)
        ):
            usual = {"MemorySizeInMB": SERVERLESS_MEMORY_MB, "MaxConcurrency": SERVERLESS_CONCURRENCY}
            return {**variant, "ServerlessConfig": old.get("ServerlessConfig", usual)}
        kept = now.get("DesiredInstanceCount") or INSTANCES
        return {
            **variant,
            "InstanceType": asked.instance_type or old.get("InstanceType") or INSTANCE_TYPE,
            "InitialInstanceCount": max(asked.instances or kept, asked.zones or 0),
            "InitialVariantWeight": 1.0,
        }


def _type_of(config: Mapping[str, Any]) -> str:
    """Which of the ways to infer a config means."""
    if "ServerlessConfig" in config["ProductionVariants"][0]:
        return "serverless"
    return "async" if "AsyncInferenceConfig" in config else "real-time"


def standing(described: Mapping[str, Any]) -> str:
    """How many of the wanted instances are there, of a DescribeEndpoint."""
    pending = (described.get("PendingDeploymentSummary") or {}).get("ProductionVariants")
    rows = pending or described.get("ProductionVariants", [])
    ready = sum(int(v.get("CurrentInstanceCount", 0)) for v in rows)
    wanted = sum(int(v.get("DesiredInstanceCount", 0)) for v in rows)
    return f"{ready} of {wanted} instances" if wanted else "its instances are asked for"


def endpoint_name(asked: str | None, model: Path) -> str:
    """The name that was asked for, or one of the file's. Raises CommandError for what is no name."""
    if asked is not None:
        if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", asked) or len(asked) > NAME_CHARS_MAX:
            raise CommandError(f"--name {asked!r}: letters, digits and hyphens between them, at most 63", code=2)
        return asked
    stem = re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", model.resolve().name) or model.name
    name = re.sub(r"[^a-zA-Z0-9]+", "-", stem).strip("-")[:NAME_CHARS_MAX].strip("-")
    if not name:
        raise CommandError(f"{model.name!r} gives no name for an endpoint: say --name", code=2)
    return name


def fresh_name(endpoint: str) -> str:
    """A name for the model and the config of one deployment."""
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return f"{endpoint[: NAME_CHARS_MAX - len(stamp) - 1].rstrip('-')}-{stamp}"


def variables(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words as a mapping. Raises CommandError for one without its name."""
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
            raise CommandError(f"--env {word!r} is not NAME=VALUE", code=2)
        found[name] = value
    return found


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
