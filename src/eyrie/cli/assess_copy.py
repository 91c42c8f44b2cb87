"""What `eyrie assess` loads and breaks: a copy of the endpoint from the same config, or the endpoint itself; and how
all of it is put back whatever becomes of the command.

A guard (`assess_guard`), a process of its own, deletes the copy, or restores the numbers of instances, when the command
is over in any way. Should the guard be killed too, `eyrie up` starts another by what lies in the journal
(`chaos_journal`); where that is lost, the copy's tag tells the next `eyrie assess` that it is nobody's.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eyrie.cli import assess_guard
from eyrie.cli.chaos_processes import started
from eyrie.cli.deploy import LOOK_S, NAME_CHARS_MAX, standing
from eyrie.cli.errors import CommandError
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public, Refused, one_line

TAG = "eyrie:assess"
MARK = "-assess-"
GUARD_WITHIN_S = 400.0


@dataclass(slots=True)
class Subject:
    """The endpoint that is assessed: how it is now, and the config that it has."""

    name: str
    config: str
    variants: dict[str, int]  # name -> instances to begin with
    types: dict[str, str]  # name -> instance type
    described: dict[str, Any] = field(default_factory=dict)

    @property
    def instances(self) -> int:
        """Of all variants together."""
        return sum(self.variants.values())


def subject_of(public: Public, endpoint: str) -> Subject:
    """The endpoint as the API describes it. Raises CommandError for one that cannot be assessed."""
    found = public.endpoint(endpoint)
    if found is None:
        raise CommandError(f"there is no endpoint {endpoint!r}")
    if found["EndpointStatus"] != "InService":
        raise CommandError(f"endpoint {endpoint} is {found['EndpointStatus']}: it is assessed once it is InService")
    name = str(found["EndpointConfigName"])
    try:
        config = public.ask("sagemaker", "describe_endpoint_config", EndpointConfigName=name)
    except Refused:
        raise CommandError(f"the config {name} of endpoint {endpoint} is gone, so what it is cannot be told") from None
    variants = config["ProductionVariants"]
    if "AsyncInferenceConfig" in config or any("ServerlessConfig" in variant for variant in variants):
        raise CommandError("only real-time endpoints with instances are assessed: not serverless or asynchronous ones")
    now = {str(v["VariantName"]): int(v.get("DesiredInstanceCount") or 0) for v in found["ProductionVariants"]}
    first = {str(v["VariantName"]): int(v.get("InitialInstanceCount") or 1) for v in variants}
    types = {str(v["VariantName"]): str(v.get("InstanceType", "")) for v in variants}
    return Subject(endpoint, name, {one: now.get(one) or count for one, count in first.items()}, types, dict(config))


class Undo:
    """The guard of a copy, or of an endpoint's numbers of instances."""

    def __init__(self, public: Public, told: Mapping[str, Any]) -> None:
        where = public.where
        key = {"url": where.url, "region": where.region, "key": where.access_key_id, "secret": where.secret_access_key}
        self._told = dict(told)
        self._public = public
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eyrie.cli.assess_guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        data = {"data": str(where.data)}
        self._process.stdin.write(json.dumps({**key, **data, "token": where.token, **told}) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        self._process.stdout.close()
        if said != assess_guard.READY:
            self._process.stdin.close()
            self._process.wait(GUARD_WITHIN_S)
            raise CommandError("nothing was begun: what would take it away again cannot be written down")

    @property
    def owners(self) -> str:
        """The two processes that look after it, as a tag's value."""
        return "/".join(_process(pid) for pid in (os.getpid(), self._process.pid))

    def end(self) -> None:
        """Undo now, and wait until that is done. Raises CommandError where it is not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(GUARD_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code != 0:  # it was killed: this does its work
            assess_guard.undone(self._public, self._told)


def copied(public: Public, subject: Subject, progress: Progress, within_s: float) -> tuple[Subject, Undo]:
    """A new endpoint from the same config, in service, and what takes it away again. Raises CommandError."""
    stem = subject.name[: NAME_CHARS_MAX - len(MARK) - 6].rstrip("-")
    name = f"{stem}{MARK}{secrets.token_hex(3)}"
    undo = Undo(public, {"undo": "delete", "endpoint": name})
    try:
        public.ask(
            "sagemaker",
            "create_endpoint",
            EndpointName=name,
            EndpointConfigName=subject.config,
            Tags=[{"Key": TAG, "Value": undo.owners}],
        )
        progress.step(f"a copy, {name}, from the config {subject.config}; it is deleted at the end")
        found = subject_in_service(public, name, progress, within_s)
    except BaseException:
        undo.end()
        raise
    copy = Subject(name, subject.config, dict.fromkeys(subject.variants, 0), subject.types, subject.described)
    copy.variants = {str(v["VariantName"]): int(v["DesiredInstanceCount"]) for v in found["ProductionVariants"]}
    return copy, undo


def in_place(public: Public, subject: Subject) -> Undo:
    """The guard of an endpoint that is assessed itself: it puts the numbers of instances back."""
    return Undo(public, {"undo": "counts", "endpoint": subject.name, "counts": subject.variants})


def scaled(public: Public, subject: Subject, count: int, progress: Progress, within_s: float) -> float:
    """Let each variant have so many instances; seconds until all of them served. Raises CommandError."""
    began = time.monotonic()
    assess_guard.capacities(public, subject.name, dict.fromkeys(subject.variants, count))
    while True:
        found = subject_in_service(public, subject.name, progress, within_s)
        if all(int(v["CurrentInstanceCount"]) == count for v in found["ProductionVariants"]):
            return time.monotonic() - began
        if time.monotonic() - began > within_s:
            raise CommandError(f"{subject.name} has not {count} instances a variant after {within_s:g} s")
        time.sleep(LOOK_S)


def subject_in_service(public: Public, name: str, progress: Progress, within_s: float) -> dict[str, Any]:
    """DescribeEndpoint of an endpoint that is InService by then. Raises CommandError."""
    deadline = time.monotonic() + within_s
    while True:
        found = public.endpoint(name)
        status = "gone" if found is None else str(found["EndpointStatus"])
        if found is not None and status == "InService":
            return found
        if found is None or status == "Failed":
            why = "" if found is None else f": {one_line(found.get('FailureReason', 'it says no reason'))}"
            raise CommandError(f"endpoint {name} is {status}{why}")
        progress.now(f"{status}: {standing(found)}")
        if time.monotonic() > deadline:
            raise CommandError(f"endpoint {name} is still {status} after {within_s:g} s")
        time.sleep(LOOK_S)


def swept(public: Public, progress: Progress) -> None:
    """Delete copies that an assessment left whose command and guard were both killed."""
    for entry in list(public.pages("sagemaker", "list_endpoints", "Endpoints", NameContains=MARK)):
        tags = public.ask("sagemaker", "list_tags", ResourceArn=entry["EndpointArn"])["Tags"]
        owners = next((str(tag["Value"]) for tag in tags if tag["Key"] == TAG), None)
        if owners is not None and not any(_lives(one) for one in owners.split("/")):
            progress.step(f"deleting {entry['EndpointName']}, which a killed assessment left")
            assess_guard.undone(public, {"undo": "delete", "endpoint": str(entry["EndpointName"])})


def _process(pid: int) -> str:
    """A process beyond doubt: its pid, and when it was started."""
    return f"{pid}:{started(pid)}"


def _lives(owner: str) -> bool:
    pid, _, born = owner.partition(":")
    return pid.isdigit() and started(int(pid)) == born
