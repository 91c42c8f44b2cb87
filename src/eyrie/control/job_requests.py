"""What every Create...Job operation ends with: the job is stored with its tags, and begins as soon as there is room."""

from __future__ import annotations

from eyrie.control import jobs
from eyrie.control.context import Context, Params, without
from eyrie.control.family import plain
from eyrie.control.records import new_tags
from eyrie.domain.jobs import Job, JobKey, JobSpec, JobState
from eyrie.ports import Commit


def store_job(context: Context, params: Params, key: JobKey, arn_type: str, run: str, spec: JobSpec) -> None:
    """Store a job that was asked for by `params`. `run`: the letter that its runs are told apart by (`AllRuns`)."""
    job = Job(
        key=key,
        run_id=f"{run}-{context.identity.token(15)}0",
        spec=spec,
        state=JobState.QUEUED,
        reason="it was asked for",
        created_ms=context.now_ms,
        modified_ms=context.now_ms,
        request=plain(without(params, "Tags")),
    )
    document = context.new(key.kind, key.name, jobs.encode(job))
    context.store.commit(Commit(puts=[document, *new_tags(context, arn_type, key.name, params)]))
    context.wake_jobs()
