"""Floor 6: what control is made of, and in which order it starts and ends.

A newcomer's list: the files that control alone writes, the parts that decide and act (a root kind each), the doors.
A new part is made in `_parts`, and where it works on its own it is one line in `_works`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

from eyrie.adapters import own_processes
from eyrie.adapters.artifacts import S3Artifacts
from eyrie.adapters.availability_file import AvailabilityFile
from eyrie.adapters.capture_buckets import CaptureBuckets
from eyrie.adapters.capture_keys import CaptureKeys
from eyrie.adapters.capture_spool import Spool
from eyrie.adapters.clock import RandomIdentity, SystemClock
from eyrie.adapters.compute_docker import EngineUnavailable, engine_of
from eyrie.adapters.compute_process import ProcessCompute
from eyrie.adapters.endpoint_probe import EndpointProbe
from eyrie.adapters.feed import Feed
from eyrie.adapters.host_usage import HostReader
from eyrie.adapters.instance_logs import InstanceLogs
from eyrie.adapters.instance_types import load_instance_types
from eyrie.adapters.job_runs import ProcessJobRuns
from eyrie.adapters.log_file import LogFile
from eyrie.adapters.metric_file import MetricFile
from eyrie.adapters.model_rooms import SlotRooms
from eyrie.adapters.otlp import OtlpExport, ReceiverUnusable, receiver
from eyrie.adapters.queue_client import QueueClient
from eyrie.adapters.recommendation_runs import RecommendationRuns
from eyrie.adapters.shared_archives import SharedArchives
from eyrie.adapters.sqlite_file import FileUnusable
from eyrie.adapters.store_sql import SqlStore, StoreVersionError
from eyrie.adapters.target_models import TargetCache
from eyrie.adapters.transform_runs import AllRuns, EndpointInstances, TransformRuns
from eyrie.adapters.usage import HostUsages
from eyrie.control.access_log import AccessLog
from eyrie.control.alarms import Alarms
from eyrie.control.announcements import AnnouncingStore
from eyrie.control.anomaly_table import training_of
from eyrie.control.app import ControlApp, Surroundings
from eyrie.control.audit import Audit
from eyrie.control.availability import Availability
from eyrie.control.availability_door import AvailabilityDoor
from eyrie.control.backlogs import Backlogs
from eyrie.control.captures import Captures
from eyrie.control.container_times import ContainerTimes
from eyrie.control.cost_meter import CostMeter
from eyrie.control.credits import BurstCredits
from eyrie.control.deliveries import Deliveries
from eyrie.control.deployment_door import DeploymentDoor
from eyrie.control.events import Events
from eyrie.control.evidence import EvidenceBook
from eyrie.control.exposition import Exposition, of_endpoints, of_host, of_instances
from eyrie.control.inference_experiments import InferenceExperiments
from eyrie.control.jobs import Jobs
from eyrie.control.log_book import LogBook
from eyrie.control.log_follower import LogFollower
from eyrie.control.log_queries import LogQueries
from eyrie.control.loop import Loop
from eyrie.control.metering import Metering
from eyrie.control.model_door import ModelDoor
from eyrie.control.model_loads import ModelLoads
from eyrie.control.outgoing import Outgoing
from eyrie.control.replays import Replays
from eyrie.control.sampling import Sampling
from eyrie.control.scaler import Scaler
from eyrie.control.serverless_meter import ServerlessMeter
from eyrie.control.shadow_meter import ShadowMeter
from eyrie.control.story import Observation
from eyrie.control.tally import Tally
from eyrie.control.vitals import LoopLag, TimedStore
from eyrie.decide.alarms import AlarmActions
from eyrie.domain.fleet import InstanceSpec
from eyrie.domain.names import Scope
from eyrie.http1.handlers import serve as serve_http
from eyrie.http1.limits import Limits
from eyrie.http1.unix import listen_unix
from eyrie.settings import Settings
from eyrie.wire.api_keys import KeyRing
from eyrie.wire.credentials import Credentials

UNCAPPED = "CPU caps of instance types are not enforced on this host: types differ by their price and memory only"
_UNUSABLE = (StoreVersionError, EngineUnavailable, FileUnusable, ReceiverUnusable)


async def control(settings: Settings) -> None:
    """Run control until SIGTERM."""
    await Control(settings).run()


class Control:
    """The process that decides, made within its event loop. Raises SystemExit with one line where a file or an engine
    cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run = settings.data / "run"
        self._clock, self._identity = SystemClock(settings.time_scale), RandomIdentity()
        try:
            self._database = SqlStore(settings.store_url)
            self._receiver = receiver(settings.otlp, os.environ)
            self._engine = engine_of(settings)
            self._metrics = MetricFile(settings.data / "metrics.db", self._clock)
            self._minutes = AvailabilityFile(settings.data / "availability.db")
            self._log_file = LogFile(settings.data / "logs.db", self._clock, settings.logs_bytes_max)
        except _UNUSABLE as error:  # one line in the log, no traceback
            raise SystemExit(str(error)) from None
        self._store = TimedStore(self._database)
        self._parts()
        self._api()

    def _parts(self) -> None:
        """The parts, lower ones first."""
        settings, clock = self._settings, self._clock
        store = AnnouncingStore(self._store, self._identity)
        keys = settings.data / "credentials.json" if settings.auth else None
        objects = self._run / "objects.sock"
        artifacts = S3Artifacts(settings.data, objects, keys)
        self._feed = Feed(settings.data)
        self._compute = ProcessCompute(settings, artifacts, clock, self._look_around, engine=self._engine)
        archives = SharedArchives(artifacts, lambda: transforms.held())
        transforms = TransformRuns(settings, self._compute, archives, keys, clock)
        mine = EndpointInstances(self._compute)
        self._evidence = EvidenceBook(self._metrics)
        world = (mine, archives, self._feed)
        self._loop = Loop(store, *world, clock, self._identity, settings, self._evidence.of)
        targets = TargetCache(settings.data, objects, keys, settings.target_models_bytes_max)
        self._rooms = SlotRooms()
        self._loads = ModelLoads(self._loop.endpoints, targets, self._rooms)
        self._models = ModelDoor(self._loads)
        programs = ProcessJobRuns(settings, self._compute.isolation, artifacts, keys, clock)
        caps = "" if "cpu" in self._compute.groups.controllers else UNCAPPED
        runs = AllRuns({"j": programs, "t": transforms, "r": RecommendationRuns(settings, keys, clock, caps)})
        self._jobs = Jobs(store, runs, clock, settings.jobs_max)
        buckets = CaptureBuckets(objects, keys, CaptureKeys(settings.data))
        self._captures = Captures(Spool(settings.data), buckets, store, self._metrics, clock)
        self._replays = Replays(store, self._metrics, clock)
        self._backlogs = Backlogs(self._metrics, clock)
        self._metering = Metering(self._metrics, clock, self._feed.size, config_of=self._feed.config_of)
        self._serverless = ServerlessMeter(
            self._metrics, clock, self._loop.serverless, self._loop.uses, settings.time_scale
        )
        self._shadows = ShadowMeter(self._metrics, clock)
        self._experiments = InferenceExperiments(store, self._loop.endpoints, clock, settings.time_scale)
        self._logs = LogBook(self._log_file, InstanceLogs(settings.data), store, self._metrics)
        self._queries = LogQueries(self._logs)
        self._access = AccessLog(self._logs, clock, wall_ms)
        self._audit = Audit(self._logs, clock)
        self._follower = LogFollower(self._logs, clock, wall_ms)
        self._watching()
        self._scaler = Scaler(
            *(store, self._metrics, clock, self._identity, self._loop.endpoints, self._all_watched),
            scale=settings.time_scale,
            idle_is_zero=settings.scale_in_when_idle,
        )
        self._alarm_actions: AlarmActions = {  # by how an action's ARN begins, besides topics
            "arn:aws:autoscaling:": self._scaler.alarmed,
        }
        self._alarms = Alarms(
            *(store, self._metrics, clock, self._identity, self._alarm_actions, training_of(store)),
            wake_events=self._wake_events,
        )
        outgoing = Outgoing(store, clock, self._logs, QueueClient(self._run / "dispatch.sock", keys))
        self._deliveries = Deliveries(store, clock, self._metrics, outgoing.send)
        self._events = Events(store, clock, self._identity, self._metrics, self._deliveries.wake)

    def _watching(self) -> None:
        """What looks at instances, at the host and at Eyrie itself, and tells of it."""
        settings, clock = self._settings, self._clock
        usages = HostUsages(settings.data)
        credits = BurstCredits(usages, load_instance_types(settings.data))
        own = Scope(settings.account, settings.region)
        hears = (credits.hear, ContainerTimes(self._rooms).hear)
        self._costs = CostMeter(
            *(self._metrics, self._store, clock, self._loop.standing, load_instance_types(settings.data), own)
        )
        self._sampling = Sampling(self._metrics, clock, usages, HostReader(), own, self._loads.count, hears)
        keys = settings.data / "credentials.json" if settings.auth else None
        self._availability = Availability(
            *(self._minutes, EndpointProbe(settings.host, settings.port, keys), self._metrics, self._store, clock),
            settings,
            self._loop.standing,
            lambda: any(name.startswith("gateway-") for name in self._feed.workers()),
        )
        self._tally, self._lag = Tally(clock), LoopLag()
        self._exposition = Exposition(
            (
                *(self._tally.families, self._lag.families, self._store.families, self._metrics.families),
                lambda: of_endpoints(self._loop.endpoints),
                lambda: of_instances(self._sampling.used(), credits.known()),
                lambda: of_host(*self._sampling.host()),
                lambda: own_processes.families(settings.data),
                self._backlogs.families,
            ),
            KeyRing(settings.data / "keys.json"),
            everybody=settings.metrics_open or not settings.auth,
        )

    def _export(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Sending metrics on, where a receiver is named."""
        return (OtlpExport(self._receiver, self._exposition.families).run(),) if self._receiver else ()

    def _heard(self, told: dict[str, Any]) -> None:
        """A second of a gateway worker, or of dispatch."""
        if "backlog" in told:
            self._backlogs.take(told["backlog"])
            return
        self._metering.take(told)
        self._availability.take(told)
        self._evidence.hear(told)
        self._tally.take(told)
        self._shadows.take(told)
        self._access.take(told)
        self._captures.take(told)
        self._replays.take(told)

    def _look_around(self, spec: InstanceSpec) -> None:
        """Compute saw that something of this instance changed."""
        self._loop.look_around()

    def _wake_events(self) -> None:
        """There is something to announce or to deliver."""
        self._events.wake()
        self._deliveries.wake()

    def _all_watched(self) -> bool:
        """Whether every gateway worker tells what it answers: without one of them numbers would be too low."""
        return sum(name.startswith("gateway-") for name in self._feed.workers()) >= self._settings.gateways

    def _works(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on until control ends."""
        return (
            self._loop.run(),
            self._models.survey(),
            self._jobs.run(),
            self._experiments.run(),
            self._metering.run(),
            self._serverless.run(),
            self._access.run(),
            self._audit.run(),
            self._captures.run(),
            self._replays.run(),
            self._follower.run(),
            self._sampling.run(),
            self._costs.run(),
            self._availability.run(),
            self._lag.run(),
            *self._export(),
            self._alarms.run(),
            self._events.run(),
            self._deliveries.run(),
            self._scaler.run(),
        )

    def _api(self) -> None:
        settings = self._settings
        surroundings = Surroundings(
            settings=settings,
            store=self._store,
            clock=self._clock,
            identity=self._identity,
            endpoints=self._loop.endpoints,
            logs=self._logs,
            queries=self._queries,
            instance_types=load_instance_types(settings.data),
            metrics=self._metrics,
            observe=self._observe,
            scrape=self._scrape,
            wake_jobs=self._jobs.wake,
            wake_experiments=self._experiments.wake,
            wake_alarms=self._alarms.wake,
            wake_events=self._wake_events,
            alarm_actions=self._alarm_actions,
            wake_scaling=self._scaler.wake,
            audit=self._audit.take,
            availability=AvailabilityDoor(self._minutes, self._availability),
            deployments=DeploymentDoor(self._evidence.of, settings.instances_max),
        )
        known = Credentials.load(settings.data / "credentials.json") if settings.auth else Credentials()
        self._app = ControlApp(surroundings, known)

    def _observe(self) -> Observation:
        stats = self._compute.stats()
        slots = {"warm": stats["pool_waiting"], "starting": stats["pool_starting"], "missed": stats["pool_claims_cold"]}
        counts = {"alarms": self._alarms.counts, "deliveries": self._deliveries.counts}
        return Observation(self._compute.inventory(), slots, self._loads.count, self._compute.warm_kinds(), counts)

    def _scrape(self, authorization: bytes | None, now_ms: int) -> bytes:
        from eyrie.adapters import prometheus_text  # whose library a start need not wait for

        return prometheus_text.text(self._exposition.seen_by(authorization, now_ms))

    async def run(self) -> None:
        """Start everything, serve until SIGTERM, and end in the opposite order."""
        self._compute.start()
        self._metrics.start()
        self._log_file.start()
        feed = listen_unix(str(self._run / "feed.sock"), mode=0o600)
        await self._feed.start(self._loop, feed, self._heard)
        api = await serve_http(self._app.handle, listen_unix(str(self._run / "control.sock")), Limits())
        door = listen_unix(str(self._run / "models.sock"), mode=0o600)
        models = await serve_http(self._models.handle, door, Limits())
        tasks = [asyncio.create_task(work) for work in self._works()]
        await _told_to_stop(tasks)
        await api.close(self._settings.drain_ms)
        await models.close(self._settings.drain_ms)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._models.close()
        await self._feed.close()
        self._access.write()
        self._audit.write()
        await asyncio.to_thread(self._captures.finish)
        await asyncio.to_thread(self._availability.finish)
        files = (self._log_file, self._minutes, self._metrics, self._database)
        for part in (self._app, self._queries, self._compute, *files):
            part.close()


def wall_ms() -> int:
    """Real time, by which other processes stamp what they say: milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


async def _told_to_stop(works: list[asyncio.Task[None]]) -> None:
    """Until SIGTERM or SIGINT, or until a work ended by itself, which is a defect: it raises here, and the process
    is started anew.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({told, *works}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    for work in works:
        if work.done():
            work.result()
