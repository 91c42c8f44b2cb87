"""`eyrie delete ENDPOINT`: the endpoint, and what `eyrie deploy` made for it, told by its tag."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from eyrie.cli.deploy import LOOK_S, PREFIX, TAG
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.options import confirmed
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public, Refused

OBJECTS_A_TIME = 1_000
WAIT_S = 300.0


def run(data: Path, name: str, sure: bool, keep: bool, as_json: bool) -> None:
    """Delete and wait until it is gone. Raises CommandError; nothing is deleted unless the user is sure."""
    public = Public.of(data)
    found = public.endpoint(name)
    if found is None and not _ours(public, name):
        raise CommandError(f"there is no endpoint {name!r}")
    confirmed(sure, f"Delete the endpoint {name}?")
    gone: list[str] = []
    with Progress(quiet=as_json) as progress:
        if found is not None:
            _delete_endpoint(public, name, progress)
            gone.append(f"endpoint/{name}")
        gone += [] if keep else _delete_rest(public, name)
        progress.step(
            "gone" + (f", with {len(gone) - 1} things that eyrie deploy made for it" if len(gone) > 1 else "")
        )
    if as_json:
        print_document({"deleted": gone})


def _delete_endpoint(public: Public, name: str, progress: Progress) -> None:
    public.ask("sagemaker", "delete_endpoint", EndpointName=name)
    deadline = time.monotonic() + WAIT_S
    while (described := public.endpoint(name)) is not None:
        progress.now(f"{described['EndpointStatus']}: its requests are answered first")
        if time.monotonic() > deadline:
            raise CommandError(f"endpoint {name} is still {described['EndpointStatus']} after {WAIT_S:g} s")
        time.sleep(LOOK_S)


def _ours(public: Public, name: str) -> list[tuple[str, str]]:
    """Kind and name of every model and config that deployments of this endpoint made."""
    return [
        (kind, found)
        for kind, listed, key, field in (
            ("endpoint-config", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
            ("model", "list_models", "Models", "ModelName"),
        )
        for found, arn in _named(public, listed, key, field, name)
        if _tagged(public, arn, name)
    ]


def _named(public: Public, listed: str, key: str, field: str, name: str) -> Iterator[tuple[str, str]]:
    for entry in list(public.pages("sagemaker", listed, key, NameContains=name[:40])):
        yield str(entry[field]), str(entry[field.replace("Name", "Arn")])


def _tagged(public: Public, arn: str, name: str) -> bool:
    tags = public.ask("sagemaker", "list_tags", ResourceArn=arn)["Tags"]
    return {"Key": TAG, "Value": name} in tags


def _delete_rest(public: Public, name: str) -> list[str]:
    """Configs and models first, then the archives; what another still uses stays and is not counted."""
    gone = []
    for kind, found in _ours(public, name):
        operation, field = {
            "endpoint-config": ("delete_endpoint_config", "EndpointConfigName"),
            "model": ("delete_model", "ModelName"),
        }[kind]
        try:
            public.ask("sagemaker", operation, **{field: found})
        except Refused as refused:
            print(f"eyrie: {kind} {found} stays: {refused}", file=sys.stderr)
        else:
            gone.append(f"{kind}/{found}")
    return gone + _delete_archives(public, name)


def _delete_archives(public: Public, name: str) -> list[str]:
    account = public.ask("sts", "get_caller_identity")["Account"]
    bucket, gone = f"sagemaker-{public.where.region}-{account}", []
    try:
        listed = public.ask("s3", "list_objects_v2", Bucket=bucket, Prefix=f"{PREFIX}/{name}/", MaxKeys=OBJECTS_A_TIME)
    except Refused:
        return []
    for entry in listed.get("Contents", []):
        if str(entry["Key"]).endswith("/model.tar.gz"):
            public.ask("s3", "delete_object", Bucket=bucket, Key=entry["Key"])
            gone.append(f"s3://{bucket}/{entry['Key']}")
    return gone
