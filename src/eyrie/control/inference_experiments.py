"""The reconciler of inference experiments, and its driver: looks at every experiment that is not over, and commits what
`decide/inference_experiments` says.

A step that changes the endpoint is one commit with the endpoint's own command, so a control that dies leaves both or
neither; what the change came to is then seen at the endpoint. The API writes experiments and calls `wake`; all else is
seen by looking, so nothing has to be remembered.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec

from eyrie.adapters.described import described
from eyrie.control.deployment_config import traffic_policy
from eyrie.control.endpoints import Also, Endpoints
from eyrie.control.records import TAGS_KIND
from eyrie.control.wakeup import Wakeup
from eyrie.decide.endpoint import Update
from eyrie.decide.inference_experiments import Step, failed, plan
from eyrie.domain.deployment import TrafficPolicy
from eyrie.domain.endpoint import Endpoint, FleetSpec
from eyrie.domain.errors import EndpointBusy, Refused
from eyrie.domain.fleet import VariantSpec
from eyrie.domain.inference_experiments import KIND, Experiment, ExperimentStatus
from eyrie.domain.routing import RoutingStrategy
from eyrie.domain.sticky import TAG
from eyrie.ports import Clock, Commit, Conflict, Document, Event, Store

described(Experiment)  # it is read into in several threads

LOG = logging.getLogger(__name__)
LOOK_PERIOD_S = 0.2  # while one changes its endpoint
ROUND_PERIOD_S = 5.0
STEPS_MAX = 10  # of one experiment in one look
CONFIG_KIND = "EndpointConfig"
STARTUP_TIMEOUT_S = 240  # of a variant that does not say
_SETTLED = frozenset({ExperimentStatus.CREATED, ExperimentStatus.RUNNING})


def encode(experiment: Experiment) -> dict[str, Any]:
    """The document body of an experiment."""
    body: dict[str, Any] = msgspec.to_builtins(experiment)
    return body


def decode(body: dict[str, Any]) -> Experiment:
    """The experiment of a document body. Raises msgspec.ValidationError for anything else."""
    return msgspec.convert(body, Experiment)


def events(step: Step, now_ms: int) -> list[Event]:
    """The lines that a step adds to the stories of the experiment and of its endpoint."""
    experiment = step.experiment
    names = dict.fromkeys((experiment.key.name, experiment.endpoint.name))
    return [
        Event(KIND, experiment.scope, name, now_ms, f"{experiment.key.name}: {note.what}", note.why)
        for name in names
        for note in step.notes
    ]


class InferenceExperiments:
    """Brings every experiment to its end. One thread looks."""

    def __init__(self, store: Store, endpoints: Endpoints, clock: Clock, scale: float = 1.0) -> None:
        """`scale`: milliseconds of the clock in a real one."""
        self._store, self._endpoints, self._clock, self._scale = store, endpoints, clock, scale
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="experiments")
        self._wakeup = Wakeup()

    def wake(self) -> None:
        """An experiment was created or changed: look soon. From any thread."""
        self._wakeup.wake()

    async def run(self) -> None:
        """Drive until cancelled."""
        try:
            while True:
                self._wakeup.begin_round()
                wait_s = await self._round()
                await self._wakeup.wait(wait_s)
        finally:
            self._looks.shutdown(wait=True, cancel_futures=True)

    async def _round(self) -> float:
        """Look at all experiments once; seconds until the next look."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._looks, self.look)
        except Exception:  # the boundary of a round: the next one may go better
            LOG.exception("a look at the inference experiments failed")
            return ROUND_PERIOD_S

    def look(self) -> float:
        """Take every experiment as far as it goes now; real seconds after which to look again."""
        wait_s = ROUND_PERIOD_S
        for document in self._store.scan(KIND):
            experiment = decode(document.body)
            if experiment.over:
                continue
            try:
                step = self._take(document, experiment)
            except Conflict:  # it, or its endpoint, was changed meanwhile: the next look decides again
                wait_s = LOOK_PERIOD_S
                continue
            if not step.experiment.over and step.experiment.status not in _SETTLED:
                wait_s = LOOK_PERIOD_S
            elif step.wake_ms is not None:
                due_s = (step.wake_ms - self._clock.now_ms()) / 1000 / self._scale
                wait_s = min(wait_s, max(due_s, 0.01))
        return wait_s

    def _take(self, document: Document, experiment: Experiment) -> Step:
        """Step until nothing changes, each step committed. Raises Conflict."""
        step = Step(experiment)
        for _ in range(STEPS_MAX):
            endpoint = self._endpoints.get(experiment.endpoint)
            now_ms = self._clock.now_ms()
            step = plan(experiment, endpoint, now_ms)
            if step.experiment == experiment:
                return step
            document = self._do(document, step, endpoint, now_ms)
            experiment = decode(document.body)
        return step

    def _do(self, document: Document, step: Step, endpoint: Endpoint | None, now_ms: int) -> Document:
        """Commit a step, with the endpoint's change where one is due; the document as it is now. One that cannot be
        ends the experiment, one that cannot be now is left for later. Raises Conflict.
        """
        if endpoint is None or (step.wish is None and not step.changes):
            return self._store_alone(document, step, now_ms)
        try:
            return self._change(document, step, endpoint, now_ms)
        except EndpointBusy:
            raise Conflict("the endpoint is changing") from None
        except Refused as error:
            return self._store_alone(document, failed(step.experiment, str(error), now_ms), now_ms)

    def _store_alone(self, document: Document, step: Step, now_ms: int) -> Document:
        put = replace(document, body=encode(step.experiment), modified_ms=now_ms)
        self._store.commit(Commit(puts=[put], events=events(step, now_ms)))
        return replace(put, version=put.version + 1)

    def _change(self, document: Document, step: Step, endpoint: Endpoint, now_ms: int) -> Document:
        """The endpoint's command and the experiment's step in one commit. Raises Refused and Conflict."""
        experiment = step.experiment
        if experiment.status is ExperimentStatus.STARTING:
            experiment = replace(experiment, capture_before=endpoint.data_capture)
        put = replace(document, body=encode(experiment), modified_ms=now_ms)
        told = events(step, now_ms)
        if step.wish is None:
            self._endpoints.update_weights(experiment.endpoint, step.changes, Also([put], told))
            return replace(put, version=put.version + 1)
        capture = _capture(experiment, endpoint)
        config = self._config(experiment, step.wish.variants, capture, now_ms)
        asked = Update(
            step.wish,
            data_capture=capture,
            retain_deployment_config=True,
            policy=traffic_policy(endpoint.last_deployment_config) if step.guarded else TrafficPolicy(),
        )
        also = Also([put, config, *self._tags(experiment, step.wish, now_ms)], told)
        self._endpoints.update(experiment.endpoint, asked, also)
        return replace(put, version=put.version + 1)

    def _config(
        self, experiment: Experiment, variants: tuple[VariantSpec, ...], capture: dict[str, Any] | None, now_ms: int
    ) -> Document:
        """The EndpointConfig that the endpoint will name: a record for people and clients, since the endpoint holds
        all of it itself.
        """
        body: dict[str, Any] = {
            "EndpointConfigName": experiment.config,
            "ProductionVariants": [shown(v) for v in variants if not v.shadow_of],
        }
        shadows = [shown(v) for v in variants if v.shadow_of]
        if shadows:
            body["ShadowProductionVariants"] = shadows
        if capture:
            body["DataCaptureConfig"] = capture
        known = self._store.get(CONFIG_KIND, experiment.scope, experiment.config)
        if known is not None:
            return replace(known, body=body, modified_ms=now_ms)
        return Document(CONFIG_KIND, experiment.scope, experiment.config, 0, now_ms, now_ms, body)

    def _tags(self, experiment: Experiment, wish: FleetSpec, now_ms: int) -> list[Document]:
        """The tag of a config that ties clients to variants, where the endpoint's own config has it."""
        name = f"endpoint-config/{experiment.config}"
        if not wish.sticky or self._store.get(TAGS_KIND, experiment.scope, name) is not None:
            return []
        body = {"Tags": [{"Key": TAG, "Value": wish.sticky}]}
        return [Document(TAGS_KIND, experiment.scope, name, 0, now_ms, now_ms, body)]


def _capture(experiment: Experiment, endpoint: Endpoint) -> dict[str, Any] | None:
    """What is captured from the change on: as the experiment says while it runs, as before it afterwards."""
    if experiment.capture is None:
        return endpoint.data_capture
    if experiment.status is ExperimentStatus.STOPPING:
        return experiment.capture_before if experiment.started_ms else endpoint.data_capture
    return experiment.capture


def shown(spec: VariantSpec) -> dict[str, Any]:
    """A variant as an EndpointConfig has it."""
    variant: dict[str, Any] = {
        "VariantName": spec.name,
        "ModelName": spec.model.name,
        "InstanceType": spec.instance_type,
        "InitialInstanceCount": spec.initial_count,
        "InitialVariantWeight": spec.initial_weight,
    }
    if spec.strategy is not RoutingStrategy.LEAST_OUTSTANDING_REQUESTS:
        variant["RoutingConfig"] = {"RoutingStrategy": str(spec.strategy)}
    if spec.startup_timeout_s != STARTUP_TIMEOUT_S:
        variant["ContainerStartupHealthCheckTimeoutInSeconds"] = spec.startup_timeout_s
    return variant
