"""`eyrie chaos ENDPOINT`: break one thing of this host's own Eyrie under load, and tell what that cost.

Failed requests are counted on the wire, without any client's retries. Each fault's means and its reversal are in
`chaos_faults`.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from eyrie.cli import calls, chaos_faults, chaos_journal, chaos_shortages, load, payload
from eyrie.cli import data as datadir
from eyrie.cli.chaos_faults import Fault
from eyrie.cli.chaos_place import Place
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.load_view import ms
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.cli.screen import show
from eyrie.decide.load import quantile
from eyrie.domain.load import Second, Stage, stages
from eyrie.domain.metrics import merged
from eyrie.load.gathering import Gathering, ProcessDied

WARM_S = 2.0
COOL_S = 2.0
LOOK_S = 0.01
SETTLE_LOOK_S = 0.1
KEEP_S = 0.2
LOAD_SECONDS_MAX = 3_600.0
TIMEOUT_S = 60.0


FAULTS = (
    "kill-instance",
    "hang",
    "slow",
    "memory",
    "crash-loop",
    "fill-box",
    "kill-gateway",
    "kill-control",
    "stop-control",
    "lock-store",
    "full-disk",
)  # each a flag of `eyrie chaos`; "zone" is one that needs a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    endpoint: str
    faults: Sequence[str]  # keys of FAULTS, and "zone"
    zone: str | None
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
    tidied(data)
    place = Place(data, str(running["region"]), asked.endpoint)
    faults = _faults(place, asked)
    public = Public.of(data)
    place.wanted()
    body, kind = request_of(public, asked.endpoint, asked.data)
    signal.signal(signal.SIGTERM, _stopped)  # so that what is reverted at the end is reverted then too
    found: list[Run] = []
    try:
        with Progress(quiet=asked.as_json) as progress:
            for inject in faults:
                for _ in range(asked.runs):
                    settled(place, asked.within_s, progress)
                    found.append(_one(place, public, asked, inject, (body, kind), progress))
    except ProcessDied as error:
        raise CommandError(str(error)) from None
    _print(found, asked)
    if any(one.whole_s is None for one in found):
        raise CommandError(f"{asked.endpoint} was not whole again within {asked.within_s:g} s: eyrie story tells why")


def tidied(data: Path) -> None:
    """Put back what an earlier command left that was killed with its guards, should no `eyrie up` have done it. Raises
    CommandError.
    """
    try:
        chaos_journal.reverted(data)
        for path in chaos_journal.endpoints(data):
            chaos_journal.run_guard(data, path)
    except OSError as error:
        raise CommandError(f"what an earlier fault left cannot be reverted: {error}") from None


def _stopped(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _faults(place: Place, asked: Asked) -> list[Callable[[], Fault]]:
    """What was asked for, to be injected when its turn comes. Raises CommandError for nothing."""
    if not asked.faults:
        raise CommandError(f"say what is to break: {', '.join(f'--{name}' for name in FAULTS)}, --zone-outage ZONE", 2)
    return [
        lambda name=name: injected(place, name, asked.seconds, asked.share, asked.zone or "")  # type: ignore[misc]
        for name in asked.faults
    ]


def injected(place: Place, name: str, seconds: float, share: float, zone: str) -> Fault:
    """Break one thing now; `seconds`, `share` and `zone` where they mean something. Raises CommandError where it
    cannot, and nothing is broken then.
    """
    known: dict[str, Callable[[], Fault]] = {
        "kill-instance": lambda: chaos_faults.kill_instance(place),
        "hang": lambda: chaos_faults.hang(place, seconds),
        "slow": lambda: chaos_faults.slow(place, seconds, share),
        "memory": lambda: chaos_shortages.memory(place, seconds),
        "crash-loop": lambda: chaos_faults.crash_loop(place, seconds, time.monotonic),
        "fill-box": lambda: chaos_shortages.fill_box(place, seconds),
        "kill-gateway": lambda: chaos_faults.kill_process(place, _first(place.gateways())),
        "kill-control": lambda: chaos_faults.kill_process(place, "control"),
        "stop-control": lambda: chaos_faults.stop_control(place, seconds),
        "lock-store": lambda: chaos_shortages.lock_store(place, seconds),
        "full-disk": lambda: chaos_shortages.full_disk(place, seconds),
        "zone": lambda: chaos_faults.zone_outage(place, zone, seconds, time.monotonic),
    }
    return known[name]()


def _first(names: list[str]) -> str:
    if not names:
        raise CommandError("no gateway worker runs")
    return names[0]


def request_of(public: Public, endpoint: str, data: str | None) -> tuple[bytes, str]:
    """What is sent meanwhile: what was given, else a row as the endpoint itself describes it. Raises CommandError."""
    if data is not None:
        body, name = payload.body(data)
        return body, payload.content_type(body, name)
    sampled = calls.sample(public.where, endpoint)
    if sampled is None:
        raise CommandError(f"{endpoint} does not tell what a request looks like: say --send FILE|TEXT", code=2)
    return str(sampled["csv"]).encode(), "text/csv"


def settled(place: Place, within_s: float, progress: Progress) -> None:
    """Until the endpoint is whole, before anything is broken. Raises CommandError."""
    deadline = time.monotonic() + within_s
    while not chaos_faults.whole(place):
        progress.now("waiting until it is whole before anything is broken")
        if time.monotonic() > deadline:
            raise CommandError(f"{place.endpoint} is not whole, so nothing was broken: eyrie status tells more")
        time.sleep(SETTLE_LOOK_S)


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
            public.where,
            load.Asked(endpoint=asked.endpoint, timeout_s=TIMEOUT_S),
            open_shape(asked.rps),
            [request[0]],
            request[1],
        )
    )
    fault: Fault | None = None
    try:
        time.sleep(max(0.0, gathering.begin_s + WARM_S - time.monotonic()))
        fault = inject()
        at = time.monotonic()
        progress.step(fault.what)
        _, whole_s = until_whole(place, fault, asked.within_s, at)
        time.sleep(COOL_S)
    finally:
        with suppress(KeyboardInterrupt):
            if fault is not None:
                fault.end()
        gathering.stop()
    progress.step("whole again" if whole_s is not None else "not whole")
    return _summed(fault.what, gathering.look(), int(at - gathering.begin_s), whole_s)


def until_whole(place: Place, fault: Fault, within_s: float, at: float) -> tuple[float | None, float | None]:
    """Seconds from `at` (CLOCK_MONOTONIC) until Eyrie itself noticed, and until all was whole; None: not in time.

    A look takes time, of a busy host above all, so where the route table was written since the last look that found it
    wanting, the moment is the one at which it was written, not the one at which that was seen.
    """
    kept = looked = at
    noticed_s: float | None = None
    while True:
        since, looked = looked, time.monotonic()
        if noticed_s is None and fault.noticed is not None and fault.noticed():
            noticed_s = _moment(place, since) - at
        if fault.whole():
            whole_s = _moment(place, since) - at
            if noticed_s is None and fault.noticed is not None and not fault.seconds:
                noticed_s = whole_s  # what was healed was noticed, between two looks
            return noticed_s, whole_s
        if looked - at > within_s:
            return noticed_s, None
        if looked - kept > KEEP_S:
            kept = looked
            fault.keep()
        time.sleep(LOOK_S)


def _moment(place: Place, since: float) -> float:
    """When what is seen now became so, which it was not at `since`: when the route table was written, if it was."""
    now = time.monotonic()
    written = now - (time.time() - place.routed().written)
    return written if since < written < now else now


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


def open_shape(rps: float) -> load.Shape:
    """An open load that outlasts the fault; it is stopped when all is whole."""
    return load.Shape("", stages([Stage(LOAD_SECONDS_MAX, rps, rps)]), (), 0, LOAD_SECONDS_MAX)


def _print(found: list[Run], asked: Asked) -> None:
    if asked.as_json:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        runs = [asdict(one) for one in found]
        print_document({"endpoint": asked.endpoint, "at": at, "rps": asked.rps, "runs": runs})
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
