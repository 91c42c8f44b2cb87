"""A candidate's endpoint: made, waited for, and removed, by the public API.

Everything that a run makes has a name that its id tells, so that whoever comes after a crash finds it without having
been told: `sm-epc-RUN-N` is the endpoint, its config, and where it needs one the model of the N-th test.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from eyrie.domain.recommendation import Candidate
from eyrie.recommender.api import Api, Away, Refused

log = logging.getLogger("eyrie.recommender")

TAG = "eyrie:recommendations-job"
LOOK_S = 0.2
REMOVED_WITHIN_S = 180.0
COMPILE_BEGINS_WITHIN_S = 5.0
COMPILING, COMPILED, NOT_COMPILED = "compiling the model", "serving the compiled model", "is not compiled"
ONLY_ROWS = "only models of rows are compiled"
_MODEL_MEMBERS = ("PrimaryContainer", "Containers", "InferenceExecutionConfig", "ExecutionRoleArn", "VpcConfig")


class NotHosted(Exception):
    """A candidate did not come into service; the message is for people."""


def prefix(run_id: str) -> str:
    """How the names of all begin that a run makes."""
    return f"sm-epc-{run_id.partition('-')[2][:15]}-"


def names(run_id: str, number: int) -> tuple[str, str]:
    """Endpoint and variant of a test."""
    return f"{prefix(run_id)}{number}", f"sm-epv-{number}"


class Hosting:
    """Makes and removes the endpoints of one run."""

    def __init__(self, api: Api, run_id: str, job: str, startup_s: int) -> None:
        """`startup_s`: ContainerStartupHealthCheckTimeoutInSeconds."""
        self._api, self._run_id, self._job, self._startup_s = api, run_id, job, startup_s

    def host(self, candidate: Candidate, number: int, model: str, wait_s: float) -> float:
        """Create it and wait until it is in service: after how many seconds it was. Raises NotHosted, Refused, Away,
        Stopped.
        """
        endpoint, variant = names(self._run_id, number)
        tags = [{"Key": TAG, "Value": self._job}]
        begun = time.monotonic()
        name = self._model(model, endpoint, candidate.environment, tags) if candidate.environment else model
        hosted: dict[str, Any] = {"VariantName": variant, "ModelName": name, **self._size(candidate)}
        ask = self._api.ask
        with self._made_before():
            ask(
                "sagemaker",
                "create_endpoint_config",
                EndpointConfigName=endpoint,
                ProductionVariants=[hosted],
                Tags=tags,
            )
        with self._made_before():
            ask("sagemaker", "create_endpoint", EndpointName=endpoint, EndpointConfigName=endpoint, Tags=tags)
        self._in_service(endpoint, begun + wait_s)
        return time.monotonic() - begun

    def _size(self, candidate: Candidate) -> dict[str, Any]:
        size = candidate.serverless
        if size is not None:
            more = {"ProvisionedConcurrency": size.provisioned} if size.provisioned else {}
            given = {"MemorySizeInMB": size.memory_mb, "MaxConcurrency": size.concurrency, **more}
            return {"ServerlessConfig": given}
        return {
            "InstanceType": candidate.instance_type,
            "InitialInstanceCount": 1,
            "InitialVariantWeight": 1.0,
            "ContainerStartupHealthCheckTimeoutInSeconds": self._startup_s,
        }

    def _model(self, model: str, name: str, environment: Mapping[str, str], tags: list[dict[str, str]]) -> str:
        """A copy of the model whose containers have these variables besides; its name."""
        described = self._api.ask("sagemaker", "describe_model", ModelName=model)
        copied = {member: described[member] for member in _MODEL_MEMBERS if member in described}
        if "PrimaryContainer" in copied:
            copied["PrimaryContainer"] = _with(copied["PrimaryContainer"], environment)
        if "Containers" in copied:
            copied["Containers"] = [_with(container, environment) for container in copied["Containers"]]
        with self._made_before():
            self._api.ask("sagemaker", "create_model", ModelName=name, Tags=tags, **copied)
        return name

    def _in_service(self, endpoint: str, deadline: float) -> None:
        while True:
            found = self._api.ask("sagemaker", "describe_endpoint", EndpointName=endpoint)
            status = found["EndpointStatus"]
            if status == "InService":
                return
            if status == "Failed":
                raise NotHosted(found.get("FailureReason") or "the endpoint failed and says no reason")
            if time.monotonic() > deadline:
                raise NotHosted(f"the endpoint was still {status} when the job's time for it was over")
            self._api.pause(LOOK_S)

    def compiled(self, endpoint: str, deadline: float) -> None:
        """Wait until the model that was to be compiled at load serves as such. Raises NotHosted where it never does."""
        begun = time.monotonic()
        while True:
            said = self._said(endpoint)
            if refused := next((line for line in said if NOT_COMPILED in line or ONLY_ROWS in line), None):
                raise NotHosted(refused.rpartition("WARNING ")[2] or refused)
            asked, done = (sum(word in line for line in said) for word in (COMPILING, COMPILED))
            if (asked and done >= asked) or (not asked and time.monotonic() - begun > COMPILE_BEGINS_WITHIN_S):
                return
            if time.monotonic() > deadline:
                raise NotHosted("the model was still being compiled when the job's time for it was over")
            self._api.pause(LOOK_S)

    def _said(self, endpoint: str) -> list[str]:
        """What its instances have logged until now."""
        with contextlib.suppress(Refused):  # nothing yet
            group = f"/aws/sagemaker/Endpoints/{endpoint}"
            return [
                event["message"] for event in self._api.ask("logs", "filter_log_events", logGroupName=group)["events"]
            ]
        return []

    def remove(self, number: int | None = None) -> None:
        """Remove what a test made, or what all tests of the run did; returns when it is gone. Raises Away."""
        deadline = time.monotonic() + REMOVED_WITHIN_S
        named = prefix(self._run_id) if number is None else names(self._run_id, number)[0]
        while left := [e for e in self._listed("endpoints", "Endpoints", "EndpointName") if _is(e, named, number)]:
            for endpoint in left:
                with contextlib.suppress(Refused):  # it is being created, or on its way out
                    self._api.ask("sagemaker", "delete_endpoint", EndpointName=endpoint)
            if time.monotonic() > deadline:
                raise Away(f"InternalError: endpoints are still there: {', '.join(left)}")
            time.sleep(LOOK_S)
        for kind, member, field in (
            ("endpoint_config", "EndpointConfigs", "EndpointConfigName"),
            ("model", "Models", "ModelName"),
        ):
            for name in self._listed(f"{kind}s", member, field):
                if _is(name, named, number):
                    with contextlib.suppress(Refused):
                        self._api.ask("sagemaker", f"delete_{kind}", **{field: name})

    def _listed(self, what: str, member: str, field: str) -> list[str]:
        found = self._api.pages(f"list_{what}", member, NameContains=prefix(self._run_id))
        return [str(one[field]) for one in found]

    @contextlib.contextmanager
    def _made_before(self) -> Any:
        """A repeated Create whose first reply was lost has done its work."""
        try:
            yield
        except Refused as error:
            if "already exist" not in str(error):
                raise


def _is(name: str, named: str, number: int | None) -> bool:
    return name.startswith(named) if number is None else name == named


def _with(container: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    return {**container, "Environment": {**container.get("Environment", {}), **environment}}
