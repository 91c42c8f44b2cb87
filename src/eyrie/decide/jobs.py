"""What is next for a job: a pure function from the job and what is seen of it to the job as it is then, and one piece
of work that is owed to it.

The owed work follows from the state alone, so that after a crash it is simply done again: every piece may run twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from eyrie.domain.jobs import JOB_MOVES, Job, JobState, RunSeen, WorkDone
from eyrie.domain.plan import Note
from eyrie.domain.transition import moved

_S = JobState
ATTEMPTS_MAX = 3  # beginnings of a job whose sandbox vanishes without a word
TELL_EVERY_MS = 1_000  # how often what a program tells is stored
LATE = "the time limit of {seconds} s (MaxRuntimeInSeconds) was reached"


class Work(StrEnum):
    """Everything that a job may need done to the world."""

    FETCH = "fetch"
    START = "start"
    STOP = "stop"
    MEND = "mend"  # of what it needs, have again what is gone
    UPLOAD = "upload"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class JobSeen:
    """What a decision rests on."""

    run: RunSeen | None  # what the runner has of it; None: nothing
    done: WorkDone | None = None  # how the last piece of work ended, if it has since the last look
    room: bool = True  # another job may begin


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The job as it is now, why, what is owed, and when to look again even if nothing happens."""

    job: Job
    notes: tuple[Note, ...] = ()
    work: Work | None = None
    wake_ms: int | None = None


def plan(job: Job, seen: JobSeen, now_ms: int) -> JobPlan:
    """One step. To be repeated until nothing changes."""
    if job.ended:
        return JobPlan(job, work=Work.FORGET if seen.run is not None else None)
    if job.stop_asked and job.state is not _S.STOPPING:
        return _move(job, _S.STOPPING, "stop was asked for", now_ms)
    if job.state is _S.QUEUED:
        return _move(job, _S.FETCHING, "there is room", now_ms) if seen.room else JobPlan(job)
    if job.state is _S.FETCHING:
        return _fetching(job, seen, now_ms)
    if job.state is _S.RUNNING:
        return _running(job, seen, now_ms)
    if job.state is _S.UPLOADING:
        return _uploading(job, seen, now_ms)
    return _stopping(job, seen, now_ms)


def _fetching(job: Job, seen: JobSeen, now_ms: int) -> JobPlan:
    done = _ended(seen, Work.FETCH)
    if done is None:
        return JobPlan(job, work=Work.FETCH)
    if done.error is not None:
        return _fail(job, done.error, now_ms)
    return _move(job, _S.RUNNING, "its inputs are here", now_ms, started_ms=now_ms)


def _running(job: Job, seen: JobSeen, now_ms: int) -> JobPlan:
    run, due_ms = seen.run, job.started_ms + job.spec.max_runtime_ms
    if run is None:
        return _again(job, "its sandbox is gone", now_ms)
    if not run.started or (job.spec.resumable and run.attempt < job.attempt):
        done = _ended(seen, Work.START)
        if done is not None and done.error is not None:
            return _fail(job, done.error, now_ms)
        return JobPlan(job, work=Work.START)
    if run.progress != job.progress and (not run.alive or now_ms >= job.told_ms + TELL_EVERY_MS):
        return JobPlan(replace(job, progress=run.progress, told_ms=now_ms))
    if not run.alive:
        return _over(job, run, now_ms)
    if run.lacking:
        return _mend(job, seen, now_ms)
    if run.excess:
        return _move(job, _S.STOPPING, run.excess, now_ms, overdue=run.excess)
    if now_ms >= due_ms:
        why = LATE.format(seconds=job.spec.max_runtime_ms // 1000)
        return _move(job, _S.STOPPING, why, now_ms, overdue=f"TimeOut: {why}")
    return JobPlan(job, wake_ms=due_ms)


def _mend(job: Job, seen: JobSeen, now_ms: int) -> JobPlan:
    """Something that it needs is gone."""
    done = _ended(seen, Work.MEND)
    if done is not None and done.error is not None:
        return _move(job, _S.STOPPING, done.error, now_ms, overdue=done.error)
    return JobPlan(job, work=Work.MEND)


def _over(job: Job, run: RunSeen, now_ms: int) -> JobPlan:
    """Its program has ended."""
    if run.error:
        return _fail(job, run.error, now_ms)
    if job.spec.resumable and run.exit_code != 0:
        return _resume(job, run, now_ms)
    if run.exit_code is None:
        return _again(job, f"its program is {run.ending}", now_ms)
    if run.exit_code != 0:
        return _fail(job, f"InternalError: the program {run.ending}", now_ms)
    return _move(job, _S.UPLOADING, "its program has ended well", now_ms)


def _uploading(job: Job, seen: JobSeen, now_ms: int) -> JobPlan:
    done = _ended(seen, Work.UPLOAD)
    if done is None and seen.run is None:
        return _again(job, "its outputs are gone", now_ms)
    if done is None:
        return JobPlan(job, work=Work.UPLOAD)
    if done.error is not None:
        return _fail(job, done.error, now_ms)
    return _move(job, _S.COMPLETED, "its outputs are in the bucket", now_ms, outputs=done.outputs, ended_ms=now_ms)


def _stopping(job: Job, seen: JobSeen, now_ms: int) -> JobPlan:
    if seen.run is not None and seen.run.alive:
        return JobPlan(job, work=Work.STOP)
    if job.overdue:
        return _fail(job, job.overdue, now_ms)
    return _move(job, _S.STOPPED, "it was stopped", now_ms, ended_ms=now_ms)


def _again(job: Job, why: str, now_ms: int) -> JobPlan:
    """Begin once more in a new sandbox; whatever is left of the old one belongs to nobody, and is removed."""
    attempt = job.attempt + 1
    if attempt >= ATTEMPTS_MAX:
        return _fail(job, f"InternalError: {why}, after {ATTEMPTS_MAX} attempts", now_ms)
    run_id = f"{job.run_id[:-1]}{attempt:x}"
    return _move(job, _S.FETCHING, f"{why}: it begins again", now_ms, run_id=run_id, attempt=attempt)


def _resume(job: Job, run: RunSeen, now_ms: int) -> JobPlan:
    """Start its program again, which goes on where it was; a few times in a row without getting any further."""
    idle = job.idle + 1 if run.done <= job.done else 1
    why = f"its program is {run.ending}"
    if idle >= ATTEMPTS_MAX:
        return _fail(job, f"InternalError: {why}, {idle} times without getting any further", now_ms)
    now = replace(
        job, attempt=job.attempt + 1, idle=idle, done=run.done, reason=f"{why}: it goes on", modified_ms=now_ms
    )
    return JobPlan(now, (Note("job resumed", why),))


def _ended(seen: JobSeen, work: Work) -> WorkDone | None:
    return seen.done if seen.done is not None and seen.done.work == work else None


def _fail(job: Job, reason: str, now_ms: int) -> JobPlan:
    return _move(job, _S.FAILED, reason, now_ms, ended_ms=now_ms)


def _move(job: Job, state: JobState, why: str, now_ms: int, **fields: object) -> JobPlan:
    moved(JOB_MOVES, f"{job.key.kind} {job.key.name}", job.state, state)
    now = replace(job, state=state, reason=why, modified_ms=now_ms, **fields)  # type: ignore[arg-type]
    return JobPlan(now, (Note(f"job {state}", why),))
