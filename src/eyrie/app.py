"""Floor 6, the door of each part: `python -m eyrie.app control|objects|gateway --index N --listen-fd FD`.

Settings come from the EYRIE_ variables that the supervisor gave. The part takes its lock, sends what it says to its
log, and runs on uvloop until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from eyrie.adapters import process_lock, process_log
from eyrie.settings import Settings, SettingsError

_LOCK_WAIT_S = 10.0  # an earlier process of this name may still be leaving


def main(argv: list[str]) -> int:
    """Run one part until it is told to stop. Returns the exit code."""
    options = _options(argv)
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    name = f"{options.part}-{options.index}" if options.part == "gateway" else options.part
    try:
        process_lock.take(settings.data / "run" / f"{name}.lock", _LOCK_WAIT_S)
    except process_lock.Held as error:
        print(error, file=sys.stderr)
        return 1
    process_log.log_to(settings.data / "logs" / f"{name}.log")
    import uvloop  # here, so that a wrong flag or a held lock is told without loading anything

    uvloop.run(_part(options, settings))
    return 0


def _part(options: argparse.Namespace, settings: Settings) -> Coroutine[Any, Any, None]:
    """The coroutine of a part; each imports only what it needs."""
    if options.part != "control":  # whose children would inherit it
        _allow_many_files()
    if options.part == "gateway":
        from eyrie.gateway import app as gateway

        return gateway.serve(settings, options.index, socket.socket(fileno=options.listen_fd))
    if options.part == "objects":
        from eyrie.objects import app as objects

        return objects.serve(settings)
    return _control(settings)


def _allow_many_files() -> None:
    """As many connections as the host allows: shells and services start with a soft limit of 1,024 files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _control(settings: Settings) -> None:
    """Wire control and run it: the reconcilers' loop, the feed to the gateways, the APIs. Until SIGTERM."""
    from eyrie.adapters.artifacts import S3Artifacts
    from eyrie.adapters.clock import RandomIdentity, SystemClock
    from eyrie.adapters.compute_docker import EngineUnavailable, engine_of
    from eyrie.adapters.compute_process import ProcessCompute
    from eyrie.adapters.feed import Feed
    from eyrie.adapters.instance_logs import InstanceLogs
    from eyrie.adapters.instance_types import load_instance_types
    from eyrie.adapters.job_runs import ProcessJobRuns
    from eyrie.adapters.metric_file import MetricFile, MetricsUnusable
    from eyrie.adapters.model_rooms import SlotRooms
    from eyrie.adapters.store_sql import SqlStore, StoreVersionError
    from eyrie.adapters.target_models import TargetCache
    from eyrie.control.app import ControlApp, Surroundings
    from eyrie.control.jobs import Jobs
    from eyrie.control.loop import Loop
    from eyrie.control.metering import Metering
    from eyrie.control.model_door import ModelDoor
    from eyrie.control.model_loads import ModelLoads
    from eyrie.control.story import Observation
    from eyrie.http1.handlers import serve as serve_http
    from eyrie.http1.limits import Limits
    from eyrie.http1.unix import listen_unix
    from eyrie.wire.credentials import Credentials

    clock, identity = SystemClock(settings.time_scale), RandomIdentity()
    try:
        store = SqlStore(settings.store_url)
        engine = engine_of(settings)
        metrics = MetricFile(settings.data / "metrics.db", clock)
    except (StoreVersionError, EngineUnavailable, MetricsUnusable) as error:  # one line in the log, and no traceback
        raise SystemExit(str(error)) from None
    run, keys = settings.data / "run", settings.data / "credentials.json"
    objects, keys_used = run / "objects.sock", keys if settings.auth else None
    artifacts = S3Artifacts(settings.data, objects, keys_used)
    feed = Feed(settings.data)
    compute = ProcessCompute(settings, artifacts, clock, lambda spec: loop.look_around(), engine=engine)
    loop = Loop(store, compute, artifacts, feed, clock, identity, settings)
    targets = TargetCache(settings.data, objects, keys_used, settings.target_models_bytes_max)
    loads = ModelLoads(loop.endpoints, targets, SlotRooms())
    runs = ProcessJobRuns(settings, compute.isolation, artifacts, keys_used, clock)
    jobs = Jobs(store, runs, clock, settings.jobs_max)
    logs, types = InstanceLogs(settings.data), load_instance_types(settings.data)
    surroundings = Surroundings(
        *(settings, store, clock, identity, loop.endpoints, logs, types, metrics),
        lambda: Observation(compute.inventory(), _slots(compute.stats()), loads.count),
        jobs.wake,
    )
    app = ControlApp(surroundings, Credentials.load(keys) if settings.auth else Credentials())
    compute.start()
    metrics.start()
    metered = Metering(metrics, clock, feed.size).take
    await feed.start(loop, listen_unix(str(run / "feed.sock"), mode=0o600), metered)
    server = await serve_http(app.handle, listen_unix(str(run / "control.sock")), Limits())
    door = ModelDoor(loads)
    models = await serve_http(door.handle, listen_unix(str(run / "models.sock"), mode=0o600), Limits())
    tasks = [asyncio.create_task(work) for work in (loop.run(), door.survey(), jobs.run())]
    await _told_to_stop(tasks[0])
    await server.close(settings.drain_ms)
    await models.close(settings.drain_ms)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    door.close()
    await feed.close()
    for part in (app, compute, metrics, store):
        part.close()


def _slots(stats: dict[str, int]) -> dict[str, int]:
    """What people want to know of the warm pool: what waits, what is coming, how often nothing was ready."""
    return {"warm": stats["pool_waiting"], "starting": stats["pool_starting"], "missed": stats["pool_claims_cold"]}


async def _told_to_stop(driving: asyncio.Task[None]) -> None:
    """Until SIGTERM or SIGINT, or until the loop ended by itself, which is a defect and raises here."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    told = asyncio.create_task(stop.wait())
    await asyncio.wait({told, driving}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if driving.done():
        driving.result()


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eyrie.app", description="One process of Eyrie; `eyrie up` starts it.")
    parser.add_argument("part", choices=("control", "objects", "gateway"))
    parser.add_argument("--index", type=int, default=0, help="number of the gateway worker")
    parser.add_argument("--listen-fd", type=int, default=3, help="descriptor of the inherited listening socket")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
