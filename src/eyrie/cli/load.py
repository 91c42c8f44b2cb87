"""`eyrie load ENDPOINT`: the load test from the command line: what is asked, a live view, and the report.

The work is in `eyrie.load`; this says where requests go, and whose key signs them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from eyrie.cli import load_view, payload
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public, Where
from eyrie.cli.recorded import RecordedEndpoint
from eyrie.domain.load import LoadError, Stage, Step, stages, stairs
from eyrie.load.gathering import Gathering, ProcessDied
from eyrie.load.plan import Plan, Target
from eyrie.load.report import page
from eyrie.load.result import Described, Result, document
from eyrie.sim import words
from eyrie.sim.traffic import Traffic, TrafficError, from_csv

PROCESS_RPS = 4_000.0  # one process is enough up to here
PROCESS_USERS = 64
PROCESSES_MAX = 64
CONNECTIONS = 256  # of an open load, all processes together
WAITING_MAX = 100_000
USERS_MAX = 50_000
TRACE_BYTES_MAX = 64 * 1024 * 1024
LOOK_S = 0.25
ENDED_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    endpoint: str
    rps: float | None = None
    users: int | None = None
    ramp: str | None = None
    stairs: str | None = None
    trace: str | None = None
    scale: float = 1.0
    duration: str | None = None
    data: str = "-"
    each_line: bool = False
    content_type: str | None = None
    accept: str | None = None
    target_variant: str | None = None
    target_models: Sequence[str] = ()
    poisson: bool = False
    think_ms: float = 0.0
    processes: int | None = None
    connections: int | None = None
    timeout_s: float = 60.0
    objective: str | None = None
    seed: int = 1
    html: Path | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The load that is meant: stages of an open one, or users."""

    what: str
    stages: tuple[Stage, ...]
    steps: tuple[Step, ...]
    users: int
    seconds: float


def run(data: Path, asked: Asked) -> None:
    """Load the endpoint, and print what came of it. Raises CommandError."""
    public = Public.of(data)
    try:
        shape = shape_of(data, asked)
        objective_us = None if asked.objective is None else _objective_us(asked.objective)
    except (LoadError, TrafficError, ValueError) as error:
        raise CommandError(str(error), code=2) from None
    bodies, kind = payload.bodies(asked.data, asked.each_line, asked.content_type)
    if public.endpoint(asked.endpoint) is None:
        raise CommandError(f"there is no endpoint {asked.endpoint!r}")
    plans = plans_of(public.where, asked, shape, bodies, kind)
    described = Described(
        endpoint=asked.endpoint,
        url=f"{public.where.url}{plans[0].target.path}",
        what=shape.what,
        open=bool(shape.stages),
        seconds=shape.seconds,
        processes=len(plans),
        connections=sum(plan.connections for plan in plans),
        content_type=kind,
        body_bytes=round(sum(len(body) for body in bodies) / len(bodies)),
        bodies=len(bodies),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        variant=asked.target_variant or "",
    )
    result = _loaded(plans, Result(described, {}, shape.stages, shape.steps, {}, objective_us), asked)
    if asked.html is not None:
        try:
            asked.html.write_text(page(result))
        except OSError as error:
            raise CommandError(f"--html {asked.html}: {error.strerror}") from None
    if asked.as_json:
        print_document(document(result))
    else:
        load_view.show_result(result, asked.html)
    if not result.answered:
        raise CommandError(f"not one of {result.intended} requests was answered well: {_commonest(result)}")
    if result.stopped:
        raise CommandError("stopped before its end", code=130)


def _loaded(plans: Sequence[Plan], result: Result, asked: Asked) -> Result:
    """Run the plans, drawing meanwhile; Ctrl-C ends them early, and what was seen counts."""
    try:
        gathering = Gathering(plans)
    except ProcessDied as error:
        raise CommandError(str(error)) from None
    deadline = gathering.begin_s + result.described.seconds + asked.timeout_s + ENDED_WITHIN_S
    try:
        with (
            load_view.view(quiet=asked.as_json or not sys.stderr.isatty()) as draw,
            contextlib.suppress(KeyboardInterrupt),
        ):
            result.stopped = True
            while not gathering.until_over(LOOK_S, deadline):
                draw(replace(result, seconds=gathering.look(), stopped=True), time.monotonic() - gathering.begin_s)
            result.stopped = False
    except ProcessDied as error:
        raise CommandError(str(error)) from None
    finally:
        gathering.stop()
    result.seconds = gathering.look()
    result.cpu = {number: max(shares, default=0.0) for number, shares in gathering.cpu.items()}
    return result


# ------------------------------------------------------------------------------------------------------- what is asked
def shape_of(data: Path, asked: Asked) -> Shape:
    """The one shape that the command line names. Raises CommandError, LoadError or TrafficError."""
    kinds = {
        "--rps": asked.rps,
        "--users": asked.users,
        "--ramp": asked.ramp,
        "--stairs": asked.stairs,
        "--trace": asked.trace,
    }
    named = [flag for flag, value in kinds.items() if value is not None]
    if len(named) != 1:
        raise CommandError(f"say one of {', '.join(kinds)}; given: {' and '.join(named) or 'none'}", code=2)
    if asked.duration is not None and named[0] in ("--ramp", "--stairs"):
        raise CommandError(f"--duration goes with --rps, --users and --trace; {named[0]} says its own", code=2)
    seconds = words.seconds(asked.duration, "--duration") if asked.duration else 30.0
    if asked.rps is not None:
        what = f"{asked.rps:,g} requests/s for {seconds:g} s"
        return Shape(what, stages([Stage(seconds, asked.rps, asked.rps)]), (), 0, seconds)
    if asked.users is not None:
        return _users(asked.users, seconds)
    if asked.ramp is not None:
        begin, end, seconds = _numbers("--ramp", asked.ramp, 3)
        what = f"a ramp from {begin:,g} to {end:,g} requests/s in {seconds:g} s"
        return Shape(what, stages([Stage(seconds, begin, end)]), (), 0, seconds)
    if asked.stairs is not None:
        return _stairs(asked.stairs)
    return _trace(data, asked)


def _users(users: int, seconds: float) -> Shape:
    if not 1 <= users <= USERS_MAX:
        raise LoadError(f"--users lies between 1 and {USERS_MAX}, not {users}")
    if not 0 < seconds <= 86_400:
        raise LoadError(f"--duration is more than 0 and at most a day, not {seconds:g} s")
    return Shape(f"{users:,} users for {seconds:g} s", (), (), users, seconds)


def _stairs(text: str) -> Shape:
    steps = stairs(*_numbers("--stairs", text, 4))
    length = steps[0].end_s
    what = f"stairs from {steps[0].rps:,g} to {steps[-1].rps:,g} requests/s, {length:g} s each"
    return Shape(what, stages(Stage(length, step.rps, step.rps) for step in steps), steps, 0, steps[-1].end_s)


def _trace(data: Path, asked: Asked) -> Shape:
    """A CSV of seconds and rates, the endpoint's own record, or a shape as `eyrie simulate` takes it."""
    text = asked.trace or ""
    found = _traffic(data, asked.endpoint, text)
    rates = [rate * asked.scale for rate in found.rates]
    if asked.duration is not None:
        rates = rates[: max(1, int(words.seconds(asked.duration, "--duration")))]
    name = f"{found.name}, times {asked.scale:g}" if asked.scale != 1 else found.name
    return Shape(
        f"trace {name}, {len(rates)} s", stages(Stage(1.0, rate, rate) for rate in rates), (), 0, float(len(rates))
    )


def _traffic(data: Path, endpoint: str, text: str) -> Traffic:
    kind, _, rest = text.partition(":")
    if kind == "recorded":
        hours = words.seconds(rest, "recorded") / 3600 if rest else 1.0
        return RecordedEndpoint(data, endpoint, None).recorded(hours)
    if kind in words.SHAPES:
        return words.shape(text)
    path = Path(text)
    try:
        if path.stat().st_size > TRACE_BYTES_MAX:
            raise CommandError(f"--trace {text}: more than {TRACE_BYTES_MAX // 1024 // 1024} MiB", code=2)
        return from_csv(path.name, path.read_text().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--trace {text}: {getattr(error, 'strerror', None) or error}", code=2) from None


def _numbers(flag: str, text: str, count: int) -> list[float]:
    """Numbers between colons."""
    try:
        found = [float(part) for part in text.split(":")]
    except ValueError:
        found = []
    if len(found) != count:
        form = "FROM:TO:SECONDS" if count == 3 else "FROM:TO:STEP:SECONDS"
        raise CommandError(f"{flag} is {form}, not {text!r}", code=2)
    return found


def _objective_us(text: str) -> float:
    objective = words.objective(text)
    if objective.percent != 99:
        raise CommandError(f"--objective bounds p99, as in p99=200ms, not {text!r}", code=2)
    return objective.limit_ms * 1000


# --------------------------------------------------------------------------------------------------------------- plans
def plans_of(where: Where, asked: Asked, shape: Shape, bodies: list[bytes], kind: str) -> list[Plan]:
    """A plan a process. Raises CommandError."""
    count = asked.processes or processes_for(shape)
    if not 1 <= count <= PROCESSES_MAX:
        raise CommandError(f"--processes lies between 1 and {PROCESSES_MAX}, not {count}", code=2)
    count = min(count, shape.users) if shape.users else count
    connections = asked.connections or CONNECTIONS
    target = _target(where, asked, kind)
    return [
        Plan(
            target=target,
            bodies=bodies,
            models=list(asked.target_models),
            share=share,
            shares=count,
            stages=list(shape.stages),
            poisson=asked.poisson,
            seed=asked.seed,
            users=_part(shape.users, share, count),
            think_s=asked.think_ms / 1000,
            seconds=shape.seconds,
            connections=shape.users or max(1, _part(connections, share, count)),
            waiting_max=WAITING_MAX // count,
            timeout_s=asked.timeout_s,
        )
        for share in range(count)
    ]


def processes_for(shape: Shape) -> int:
    """As many as the load needs, and this host has cores for."""
    highest = max((max(stage.begin_rps, stage.end_rps) for stage in shape.stages), default=0.0)
    needed = max(highest / PROCESS_RPS, shape.users / PROCESS_USERS)
    return max(1, min(int(needed + 0.999), os.cpu_count() or 1))


def _target(where: Where, asked: Asked, kind: str) -> Target:
    address = urlsplit(where.url)
    tls = address.scheme == "https"
    headers = [("Content-Type", kind)]
    if asked.accept:
        headers.append(("Accept", asked.accept))
    if asked.target_variant:
        headers.append(("X-Amzn-SageMaker-Target-Variant", asked.target_variant))
    if any("\r" in value or "\n" in value for _, value in headers) or not all(v.isascii() for _, v in headers):
        raise CommandError("--content-type, --accept and --target-variant are one line of ASCII", code=2)
    return Target(
        host=address.hostname or "127.0.0.1",
        port=address.port or (443 if tls else 80),
        tls=tls,
        path=f"{address.path}/endpoints/{quote(asked.endpoint, safe='')}/invocations",
        headers=headers,
        access_key_id=where.access_key_id,
        secret=where.secret_access_key,
        token=where.token,
        region=where.region,
    )


def _part(whole: int, share: int, shares: int) -> int:
    return whole // shares + (share < whole % shares)


def _commonest(result: Result) -> str:
    return ", ".join(f"{kind} ({count})" for kind, count in result.errors.most_common(3)) or "no reply came"
