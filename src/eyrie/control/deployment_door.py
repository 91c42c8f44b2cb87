"""`/eyrie/deployments/ENDPOINT` on control's socket: what `eyrie deployment` asks for. GET shows the deployment that is
on its way, with the verdict as it is now; POST promotes, aborts or pauses it, or plans one without doing anything.
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from eyrie.adapters.described import described
from eyrie.control import quotas
from eyrie.control.api_endpoints import update_of
from eyrie.control.context import Context
from eyrie.control.deployment_config import held_to_the_model
from eyrie.control.evidence import EvidenceOf
from eyrie.decide import analysis, rollout
from eyrie.decide import endpoint as decide
from eyrie.decide.rehearsal import Rehearsal, Stage, rehearse
from eyrie.decide.steering import Steer
from eyrie.domain.analysis import Analysis
from eyrie.domain.deployment import Deployment
from eyrie.domain.endpoint import Endpoint
from eyrie.domain.errors import NoDeployment, Refused
from eyrie.domain.fleet import InstanceState
from eyrie.domain.names import EndpointKey
from eyrie.wire.errors import ApiError, resource_not_found, validation
from eyrie.wire.model import Models

PATH = "/eyrie/deployments/"
STARTUP_MS = 10_000  # assumed of an endpoint that has started nothing yet
_STARTED = re.compile(r"answered (\d+) ms after it was asked for")
_GONE = frozenset({InstanceState.STOPPED, InstanceState.LOST, InstanceState.FAILED})


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a POST."""

    do: str
    why: str = ""
    config: str = ""  # and the rest for `plan`, as UpdateEndpoint has them
    deployment_config: dict[str, Any] | None = None
    retain_deployment_config: bool = False
    retain_all_variant_properties: bool = False


described(_Asked)  # it is read into in several threads


@dataclass(frozen=True, slots=True)
class DeploymentDoor:
    """Answers for all endpoints. `instances_max`: the setting; 0: no limit."""

    evidence_of: EvidenceOf
    instances_max: int = 0
    host_memory: Callable[[], int] = lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def answer(self, context: Context, models: Models, method: str, path: str, body: bytes) -> dict[str, Any]:
        """The reply to a request of the command's. Raises ApiError, Conflict."""
        name = unquote(path.removeprefix(PATH))
        key = EndpointKey(context.scope.account, context.scope.region, name)
        endpoint = context.endpoints.get(key)
        if endpoint is None:
            raise resource_not_found(f"There is no endpoint {name!r} here.")
        if method == "GET":
            return self._shown(context, endpoint)
        if method != "POST":
            raise ApiError("UnknownOperationException", f"There is no {method} {path[:200]} here.", 404)
        try:
            asked = msgspec.json.decode(body, type=_Asked)
        except msgspec.DecodeError as error:
            raise validation(str(error)) from None
        try:
            if asked.do == "plan":
                return self._planned(context, models, endpoint, asked)
            if asked.do not in frozenset(Steer):
                raise validation(f"do must be plan, {', '.join(Steer)}, and is {asked.do[:64]!r}.")
            return self._shown(context, context.endpoints.steer(key, Steer(asked.do), asked.why))
        except Refused as error:
            raise validation(str(error)) from None

    def _shown(self, context: Context, endpoint: Endpoint) -> dict[str, Any]:
        deployment = endpoint.deployment
        if deployment is None:
            raise validation(str(NoDeployment(endpoint.arn)))
        steps = rollout.steps(deployment.policy, deployment.green)
        found = _verdict(deployment, endpoint, self.evidence_of, context.now_ms)
        return {
            "endpoint": endpoint.key.name,
            "from": endpoint.config_name,
            "to": deployment.green.config_name,
            "phase": str(deployment.phase),
            "since_ms": deployment.phase_ms,
            "now_ms": context.now_ms,
            "strategy": str(deployment.policy.strategy),
            "step": deployment.step,
            "steps": steps,
            "green_share": max(rollout.share(deployment, v, deployment.step) for v in deployment.green.variants),
            "bake_ends_ms": deployment.phase_ms + deployment.policy.bake_ms,
            "aborted": deployment.aborted,
            "failure": deployment.failure,
            "pause": msgspec.to_builtins(deployment.pause) if deployment.pause else None,
            "analysis": msgspec.to_builtins(found) if found else None,
        }

    def _planned(self, context: Context, models: Models, endpoint: Endpoint, asked: _Asked) -> dict[str, Any]:
        if not asked.config:
            raise validation("plan needs the name of a config.")
        params = {
            "EndpointConfigName": asked.config,
            "RetainDeploymentConfig": asked.retain_deployment_config,
            "RetainAllVariantProperties": asked.retain_all_variant_properties,
        }
        if asked.deployment_config is not None:
            params["DeploymentConfig"] = held_to_the_model(models, asked.deployment_config)
        begun = decide.update(endpoint, update_of(context, endpoint, params), context.now_ms).endpoint
        assert begun is not None
        assert begun.deployment is not None
        starts = _starts(context, endpoint)
        startup_ms = round(statistics.median(starts)) if starts else STARTUP_MS
        plan = rehearse(begun, startup_ms)
        policy = begun.deployment.policy
        return {
            "endpoint": endpoint.key.name,
            "from": endpoint.config_name,
            "to": asked.config,
            "strategy": str(policy.strategy),
            "steps": plan.steps,
            "stages": [_stage(stage) for stage in plan.stages],
            "starts": plan.starts,
            "takes_ms": plan.takes_ms,
            "limit_ms": policy.limit_ms,
            "startup_ms": startup_ms,
            "startup_measured": len(starts),
            "analysis": msgspec.to_builtins(policy.analysis) if policy.analysis else None,
            "alarms": list(policy.alarms),
            **self._capacity(context, endpoint, plan),
        }

    def _capacity(self, context: Context, endpoint: Endpoint, plan: Rehearsal) -> dict[str, Any]:
        """What the peak needs beside everything else that runs here, and what there is."""
        others = _running(context.endpoints.list(), endpoint.key)
        mine = _running(context.endpoints.list(context.scope), endpoint.key)
        peak = plan.peak
        instances = others[0] + peak.blue + peak.green
        problems = []
        if self.instances_max and instances > self.instances_max:
            problems.append(
                f"{instances} instances where instances_max is {self.instances_max}: green cannot start whole"
            )
        most = quotas.limit(context.store, context.scope, quotas.INSTANCES, quotas.INSTANCES_MAX)
        if mine[0] + peak.blue + peak.green > most:
            problems.append(f"{mine[0] + peak.blue + peak.green} instances where an account may have {most}")
        host = {"vcpu_milli": 1000 * context.instance_types.host_cpus, "memory_mb": self.host_memory() // 1_000_000}
        needed = {"vcpu_milli": others[1] + peak.vcpu_milli, "memory_mb": others[2] + peak.memory_mb}
        notes = [
            f"{what}: {needed[name] / unit:g} may be used, the host has {host[name] / unit:g}; types are caps, and "
            "instances share what there is"
            for name, what, unit in (("vcpu_milli", "vCPU", 1000), ("memory_mb", "memory in GB", 1000))
            if needed[name] > host[name]
        ]
        return {
            "peak": {**_stage(peak), "others": others[0], "instances": instances, "needed": needed},
            "host": {**host, "instances_max": self.instances_max},
            "problems": problems,
            "notes": notes,
        }


def _verdict(deployment: Deployment, endpoint: Endpoint, evidence_of: EvidenceOf, now_ms: int) -> Analysis | None:
    """As it is now; where nothing is judged now, what something came of last."""
    policy = deployment.policy.analysis
    if policy is None or not rollout.judged(deployment):
        return deployment.analysis
    steps = rollout.judged_steps(deployment.policy, deployment.green)
    return analysis.judge(policy, evidence_of(endpoint, now_ms), deployment.step, steps, now_ms)


def _stage(stage: Stage) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(stage)
    return told


def _starts(context: Context, endpoint: Endpoint) -> list[int]:
    """Milliseconds that its instances took to start, as far as its story tells."""
    events = context.store.events("Endpoint", context.scope, endpoint.key.name, 1_000)
    return [int(match[1]) for match in (_STARTED.search(event.why) for event in events) if match]


def _running(endpoints: Sequence[Endpoint], but: EndpointKey) -> tuple[int, int, int]:
    """Instances of all endpoints but one, their vCPU in thousandths and their memory in MB."""
    count = vcpu_milli = memory_mb = 0
    for endpoint in endpoints:
        specs = {(f.generation, v.name): v.spec for f in endpoint.fleets for v in f.variants}
        for instance in endpoint.instances if endpoint.key != but else ():
            spec = specs.get((instance.fleet, instance.variant))
            if instance.state not in _GONE and spec is not None:
                count += 1
                vcpu_milli += spec.vcpu_milli
                memory_mb += spec.memory_mb
    return count, vcpu_milli, memory_mb
