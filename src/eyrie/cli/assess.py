"""`eyrie assess ENDPOINT`: the five measures of one endpoint. Deploys a copy, loads it, breaks it, watches, reports.

Loads are `eyrie.load`'s, faults `eyrie chaos`'. The arithmetic and the grades are in `decide.assessment`, the law of
scale in `decide.scalability`, the page in `assess_page`, what was kept in `assess_history`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from eyrie import __version__
from eyrie.adapters.host import host_facts
from eyrie.cli import assess_budget, assess_copy, assess_history, assess_load, assess_page, assess_view, chaos, payload
from eyrie.cli import data as datadir
from eyrie.cli.assess_budget import Budget
from eyrie.cli.assess_copy import Subject
from eyrie.cli.assess_faults import SHARED, Breaking, Window, broken
from eyrie.cli.assess_load import Lengths, Sender
from eyrie.cli.chaos_place import Place
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError
from eyrie.cli.progress import Progress
from eyrie.cli.public import Public
from eyrie.decide import assessment as decide
from eyrie.domain.assessment import LETTERS, Assessment, Change, Performance, Scalability
from eyrie.load.gathering import ProcessDied
from eyrie.settings import Settings

MISSED, WORSE = 3, 4  # exit codes
FAULTS = (
    "kill-instance", "hang", "slow", "memory", "crash-loop", "fill-box", "zone",
    "kill-gateway", "kill-control", "stop-control", "lock-store", "full-disk",
)  # fmt: skip
USUAL, QUICK = Lengths(6.0, 3.0, 10.0, 3), Lengths(2.0, 1.0, 2.0, 1)
FAULT_LOAD = 0.3  # of the saturation point
FAULT_RPS_MAX = 300.0
FAULT_RPS_USUAL = 50.0  # where there is no saturation point


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    endpoint: str
    in_place: bool
    objective: float  # percent of the requests
    p99_ms: float | None
    at_least: str | None
    against: str | None
    faults: Sequence[str]
    instances: Sequence[int]  # a variant
    rps: float | None  # while things are broken
    seconds: float
    runs: int
    send: str | None
    each_line: bool
    content_type: str | None
    models: Sequence[str]
    quick: bool
    within_s: float
    time_s: float | None  # what is begun; None: what the rest of it takes usually
    html: Path | None
    out: Path | None
    as_json: bool


def run(data: Path, asked: Asked) -> None:
    """Assess, keep, report. Raises CommandError: code 3 for an objective that was missed, 4 for worse than before."""
    public = Public.of(data)
    if public.where.data is None:
        raise CommandError("assess breaks things of this host's own Eyrie: say its --data directory", code=2)
    chaos.tidied(data)
    before = None if asked.against is None else assess_history.against(data, asked.endpoint, asked.against)
    signal.signal(signal.SIGTERM, _stopped)
    with Progress(quiet=asked.as_json) as progress:
        found = _assessed(data, public, asked, progress)
    changes = [] if before is None else decide.compared(before, assess_history.document(found))
    page = assess_page.page(found, changes)
    told = assess_history.keep(data, found, page)
    _write(asked.html, page)
    document = {**assess_history.document(found), "changes": [assess_history.plain(one) for one in changes]}
    _write(asked.out, json.dumps(document, indent=1) + "\n")
    if asked.as_json:
        print_document(document)
    else:
        assess_view.show_assessment(found, changes, told[1] if asked.html is None else asked.html)
    _judged(found, asked, changes)


def confirmation(asked: Asked) -> str:
    """The question before anything is broken."""
    what = f"{asked.endpoint} itself" if asked.in_place else f"a copy of {asked.endpoint}"
    shared = [name for name in asked.faults if name in SHARED]
    besides = f", and break what serves every endpoint of this Eyrie ({', '.join(shared)})" if shared else ""
    return f"Load and break {what}{besides}?"


def names_of(text: str | None) -> list[str]:
    """The faults that --faults names: names between commas, all, instance (those of the endpoint's own), none. Raises
    CommandError.
    """
    known = {
        "all": list(FAULTS),
        "instance": [name for name in FAULTS if name not in SHARED],
        "none": [],
    }
    if text is None or text in known:
        return known[text or "all"]
    found = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in found if name not in FAULTS]
    if unknown:
        raise CommandError(f"--faults: {unknown[0]!r} is none of {', '.join(FAULTS)}, all, instance, none", code=2)
    return found


def counts_of(text: str) -> list[int]:
    """The numbers of instances that --instances names. Raises CommandError."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [0]
    if any(not 1 <= count <= 64 for count in found) or len(found) > 16:
        raise CommandError(f"--instances {text!r}: at most 16 numbers from 1 to 64, as 1,2,4", code=2)
    return found


def _stopped(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _assessed(data: Path, public: Public, asked: Asked, progress: Progress) -> Assessment:
    """Everything between the copy and its end, which comes whatever happens."""
    began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    assess_copy.swept(public, progress)
    original = assess_copy.subject_of(public, asked.endpoint)
    bodies, kind = _bodies(public, asked)
    usual_s = assess_budget.usual_s(asked.faults, asked.seconds, asked.runs, asked.instances)
    budget = Budget(asked.time_s or usual_s, began)
    with ExitStack() as undo:
        if asked.in_place:
            subject = original
            undo.callback(assess_copy.in_place(public, subject).end)
        else:
            subject, guard = assess_copy.copied(public, original, progress, asked.within_s)
            undo.callback(_away, guard, progress)
        sender = Sender(public, subject.name, bodies, kind, asked.models, progress, budget)
        place = Place(data, public.where.region, subject.name)
        chaos.settled(place, asked.within_s, progress)
        try:
            measured = _measured(data, sender, subject, place, asked)
        except ProcessDied as error:
            raise CommandError(str(error)) from None
    performance, window, scale, rps = measured
    found = Assessment(
        endpoint=asked.endpoint,
        assessed=subject.name,
        config=subject.config,
        at=at,
        took_s=round(time.monotonic() - began, 1),
        version=__version__,
        host=_host(),
        instances=subject.instances,
        instance_types=tuple(dict.fromkeys(subject.types.values())),
        body_bytes=round(sum(map(len, bodies)) / len(bodies)),
        content_type=kind,
        fault_rps=round(rps, 2),
        performance=performance,
        availability=None if window is None else window.availability,
        scalability=scale,
        faults=() if window is None else window.faults,
        timeline=() if window is None else window.timeline,
        missing=tuple(_missing(data)),
        notes=tuple(_notes(subject, asked)),
        left_out=tuple(budget.left_out),
    )
    return decide.graded(found, asked.p99_ms)


def _measured(
    data: Path, sender: Sender, subject: Subject, place: Place, asked: Asked
) -> tuple[Performance, Window | None, Scalability, float]:
    lengths = QUICK if asked.quick else USUAL
    performance = assess_load.performance(sender, subject, data, lengths, asked.p99_ms)
    stepped = assess_load.step(sender, lengths, performance)  # before anything is broken: what heals takes CPU
    usual = FAULT_LOAD * performance.saturation_rps if performance.saturation_rps else FAULT_RPS_USUAL
    rps = asked.rps or max(1.0, min(FAULT_RPS_MAX, usual))
    window = None
    if asked.faults:
        breaking = Breaking(
            asked.faults, asked.seconds, 0.8, asked.runs, rps, round(asked.objective / 100, 9), asked.within_s,
            assess_budget.scales_s(asked.instances),
        )  # fmt: skip
        window = broken(sender, place, list(subject.variants), breaking, sender.budget)
    scale = assess_load.scalability(sender, subject, data, asked.instances, lengths, asked.within_s, stepped)
    return performance, window, scale, rps


def _away(guard: assess_copy.Undo, progress: Progress) -> None:
    progress.now("deleting the copy")
    guard.end()
    progress.step("the copy is gone")


def _bodies(public: Public, asked: Asked) -> tuple[list[bytes], str]:
    if asked.send is None:
        body, kind = chaos.request_of(public, asked.endpoint, None)
        return [body], asked.content_type or kind
    return payload.bodies(asked.send, asked.each_line, asked.content_type)


def _host() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{len(os.sched_getaffinity(0))} cores, {memory / 1e9:.0f} GB, {os.uname().sysname} {os.uname().release}"


def _missing(data: Path) -> list[str]:
    """What isolation and limits this host does not offer."""
    facts = host_facts(datadir.running_settings(Settings(data=data)))
    return [
        f"{fact.what}: {fact.found}{'; ' + fact.advice if fact.advice else ''}" for fact in facts if fact.good is False
    ]


def _notes(subject: Subject, asked: Asked) -> list[str]:
    notes = ["load and endpoint share this host's cores: another machine would load it harder"]
    if not asked.in_place and subject.described.get("DataCaptureConfig", {}).get("EnableCapture"):
        notes.append("the config captures data: the copy's requests were captured too")
    if not asked.in_place:
        notes.append("scaling policies belong to an endpoint's name: the copy has none, and no tags of the endpoint")
    if os.geteuid():
        notes.append("Eyrie runs as a user without rights of administration")
    return notes


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        try:
            path.write_text(text)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from None


def _judged(found: Assessment, asked: Asked, changes: Sequence[Change]) -> None:
    """Raises CommandError with the code that gates a pipeline."""
    missed = list(found.missed)
    if asked.at_least is not None and (found.grade == "-" or found.grade > asked.at_least):
        missed.append(f"the grade is {found.grade}, at least {asked.at_least} was asked for")
    if asked.at_least is not None and found.left_out:
        missed.append(f"the grade is not of all of it: {len(found.left_out)} things did not fit into --time")
    if missed:
        raise CommandError("; ".join(missed), code=MISSED)
    worse = [change.name for change in changes if change.verdict == "worse"]
    if worse:
        raise CommandError(f"worse than before: {', '.join(worse)}", code=WORSE)


def check(asked: Asked) -> Asked:
    """With its words made whole. Raises CommandError for what cannot be meant."""
    if not 0 < asked.objective < 100:
        raise CommandError(f"--objective {asked.objective:g}: a percentage between 0 and 100, as 99.9", code=2)
    if asked.at_least is not None and asked.at_least.upper() not in LETTERS:
        raise CommandError(f"--at-least {asked.at_least!r} is none of {', '.join(LETTERS)}", code=2)
    return replace(asked, at_least=None if asked.at_least is None else asked.at_least.upper())
