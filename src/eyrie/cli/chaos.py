"""`eyrie chaos ENDPOINT`: break one thing of this host's own Eyrie under load, and tell what that cost.

Failed requests are counted on the wire, without any client's retries. Each fault's means and its reversal are in
`chaos_faults`.
"""

from __future__ import annotations

import json
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from eyrie.cli import calls, chaos_faults, load, payload
from eyrie.cli import data as datadir
from eyrie.cli.chaos_faults import Fault, Place
from eyrie.cli.errors import CommandError
from eyrie.cli.load_view import ms
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.cli.screen import show
from eyrie.decide.load import quantile
from eyrie.domain.load import Second, Stage, stages
from eyrie.domain.metrics import merged
from eyrie.load.gathering import Gathering

WARM_S = 2.0
COOL_S = 2.0
LOOK_S = 0.02
KEEP_S = 0.2
LOAD_SECONDS_MAX = 3_600.0
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    endpoint: str
    kill_instance: bool
    hang: bool
    slow: bool
    kill_gateway: bool
    kill_control: bool
    zone_outage: str | None
    seconds: float
    share: float
    rps: float
    data: str | None
    runs: int
    within_s: float
    as_json: bool


@dataclass(frozen=True, slots=True)
class Run:
    """What one fault cost."""

    fault: str
    requests: int
    failed: int
    errors: dict[str, int]
    whole_s: float | None  # from the fault until all was whole; None: not within the time
    p99_before_ms: float | None
    p99_during_ms: float | None
    worst_ms: float | None


def run(data: Path, asked: Asked) -> None:
    """Each fault that was asked for, one after the other. Exit code 1 where something did not become whole."""
    running = datadir.running_env(data)
    place = Place(data, str(running["region"]), asked.endpoint)
    faults = _faults(place, asked)
    public = Public.of(data)
    body, kind = _body(public, asked)
    place.wanted()
    signal.signal(signal.SIGTERM, _stopped)  # so that what is reverted at the end is reverted then too
    found: list[Run] = []
    with Progress(quiet=asked.as_json) as progress:
        for inject in faults:
            for _ in range(asked.runs):
                _settled(place, asked.within_s, progress)
                found.append(_one(place, public, asked, inject, (body, kind), progress))
    _print(found, asked)
    if any(one.whole_s is None for one in found):
        raise CommandError(f"{asked.endpoint} was not whole again within {asked.within_s:g} s: eyrie story tells why")


def _stopped(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _faults(place: Place, asked: Asked) -> list[Callable[[], Fault]]:
    """What was asked for, to be injected when its turn comes. Raises CommandError for nothing."""
    found: list[Callable[[], Fault]] = []
    if asked.kill_instance:
        found.append(lambda: chaos_faults.kill_instance(place))
    if asked.hang:
        found.append(lambda: chaos_faults.hang(place, asked.seconds))
    if asked.slow:
        found.append(lambda: chaos_faults.slow(place, asked.seconds, asked.share))
    if asked.kill_gateway:
        found.append(lambda: chaos_faults.kill_process(place, _first(place.gateways())))
    if asked.kill_control:
        found.append(lambda: chaos_faults.kill_process(place, "control"))
    if asked.zone_outage is not None:
        zone = asked.zone_outage
        found.append(lambda: chaos_faults.zone_outage(place, zone, asked.seconds, time.monotonic))
    if not found:
        raise CommandError(
            "say what is to break: --kill-instance, --hang, --slow, --kill-gateway, --kill-control, --zone-outage ZONE",
            2,
        )
    return found


def _first(names: list[str]) -> str:
    if not names:
        raise CommandError("no gateway worker runs")
    return names[0]


def _body(public: Public, asked: Asked) -> tuple[bytes, str]:
    """What is sent meanwhile: what was given, else a row as the endpoint itself describes it."""
    if asked.data is not None:
        body, name = payload.body(asked.data)
        return body, payload.content_type(body, name)
    sampled = calls.sample(public.where, asked.endpoint)
    if sampled is None:
        raise CommandError(f"{asked.endpoint} does not tell what a request looks like: say --send FILE|TEXT", code=2)
    return str(sampled["csv"]).encode(), "text/csv"


def _settled(place: Place, within_s: float, progress: Progress) -> None:
    """Until the endpoint is whole, before anything is broken. Raises CommandError."""
    deadline = time.monotonic() + within_s
    while not chaos_faults.whole(place):
        progress.now("waiting until it is whole before anything is broken")
        if time.monotonic() > deadline:
            raise CommandError(f"{place.endpoint} is not whole, so nothing was broken: eyrie status tells more")
        time.sleep(LOOK_S * 5)


def _one(
    place: Place,
    public: Public,
    asked: Asked,
    inject: Callable[[], Fault],
    request: tuple[bytes, str],
    progress: Progress,
) -> Run:
    """One fault under load."""
    gathering = Gathering(
        load.plans_of(
            public.where, load.Asked(asked.endpoint, timeout_s=TIMEOUT_S), _shape(asked.rps), [request[0]], request[1]
        )
    )
    fault: Fault | None = None
    try:
        time.sleep(max(0.0, gathering.begin_s + WARM_S - time.monotonic()))
        fault = inject()
        at = time.monotonic()
        progress.step(fault.what)
        whole_s = _until_whole(fault, asked.within_s, at)
        time.sleep(COOL_S)
    finally:
        with suppress(KeyboardInterrupt):
            if fault is not None:
                fault.end()
        gathering.stop()
    progress.step("whole again" if whole_s is not None else "not whole")
    return _summed(fault.what, gathering.look(), int(at - gathering.begin_s), whole_s)


def _until_whole(fault: Fault, within_s: float, at: float) -> float | None:
    kept = at
    while not fault.whole():
        now = time.monotonic()
        if now - at > within_s:
            return None
        if now - kept > KEEP_S:
            kept = now
            fault.keep()
        time.sleep(LOOK_S)
    return time.monotonic() - at


def _summed(what: str, seconds: dict[int, Second], fault_at: int, whole_s: float | None) -> Run:
    errors: dict[str, int] = {}
    for second in seconds.values():
        for kind, count in second.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    last = max(seconds, default=0) if whole_s is None else fault_at + int(whole_s) + 1
    before = merged(second.response for at, second in seconds.items() if at < fault_at)
    during = merged(second.response for at, second in seconds.items() if fault_at <= at <= last)
    return Run(
        what,
        sum(second.intended for second in seconds.values()),
        sum(errors.values()),
        errors,
        None if whole_s is None else round(whole_s, 3),
        _ms(quantile(before, 0.99)),
        _ms(quantile(during, 0.99)),
        _ms(during.highest if during.count else None),
    )


def _shape(rps: float) -> load.Shape:
    """An open load that outlasts the fault; it is stopped when all is whole."""
    return load.Shape("", stages([Stage(LOAD_SECONDS_MAX, rps, rps)]), (), 0, LOAD_SECONDS_MAX)


def _print(found: list[Run], asked: Asked) -> None:
    if asked.as_json:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        print(
            json.dumps({"endpoint": asked.endpoint, "at": at, "rps": asked.rps, "runs": [asdict(one) for one in found]})
        )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("fault", "requests", "failed", "whole after", "p99 before", "p99 during", "worst"):
        table.add_column(name, justify="left" if name == "fault" else "right", no_wrap=True)
    for one in found:
        whole = "not whole" if one.whole_s is None else f"{one.whole_s:.2f} s"
        latencies = [ms(None if v is None else v * 1000) for v in (one.p99_before_ms, one.p99_during_ms, one.worst_ms)]
        table.add_row(one.fault, str(one.requests), str(one.failed), whole, *latencies)
    show(table, whole=True)
    for one in found:
        for kind, count in one.errors.items():
            show(Text(f"  {count:>7,}  {kind}  ({one.fault})", style="red"))
    if asked.runs > 1:
        show(Text(_spread(found, asked)))
    show(Text(f"at {asked.rps:g} requests/s, counted on the wire without any client's retries"))


def _spread(found: list[Run], asked: Asked) -> str:
    """Median and worst of the runs of each fault."""
    told = []
    for first in range(0, len(found), asked.runs):
        part = found[first : first + asked.runs]
        known = [one.whole_s for one in part if one.whole_s is not None]
        failed = [one.failed for one in part]
        whole = f"{statistics.median(known):.2f} / {max(known):.2f} s" if known else "never"
        told.append(f"failed {statistics.median(failed):g} / {max(failed)}, whole after {whole} (median / worst)")
    return "; ".join(told)


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else round(value_us / 1000, 3)
