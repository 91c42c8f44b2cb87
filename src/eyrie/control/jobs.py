"""The reconciler of jobs, and its driver: looks at every job that is not over, commits what `decide/jobs` says, and has
the work done that is then owed.

The API writes job documents and calls `wake`; all else is seen by looking. A job is one document of its kind. What a
job is owed follows from its state, so nothing is lost when control dies: the next one looks, and does it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from eyrie.adapters.described import described
from eyrie.control.wakeup import Wakeup
from eyrie.decide.jobs import JobPlan, JobSeen, Work, plan
from eyrie.domain.jobs import HOLDS_ROOM, Job, JobKey, RunSeen, WorkDone
from eyrie.ports import ArtifactError, Clock, Commit, Conflict, Document, Event, JobRuns, StartRefused, Store

described(Job)  # it is read into in several threads

LOG = logging.getLogger(__name__)
KINDS = ("CompilationJob", "TransformJob", "InferenceRecommendationsJob")  # the nouns whose documents are jobs
ALONE = frozenset({"InferenceRecommendationsJob"})  # one of them at a time: they measure this host
LOOK_PERIOD_S = 0.2  # while a job is under way
ROUND_PERIOD_S = 5.0
RETRY_S = 1.0
TRIES_MAX = 5  # of one piece of work
STEPS_MAX = 10  # of one job in one look
T = TypeVar("T")


def encode(job: Job) -> dict[str, Any]:
    """The document body of a job."""
    body: dict[str, Any] = msgspec.to_builtins(job)
    return body


def decode(body: dict[str, Any]) -> Job:
    """The job of a document body. Raises msgspec.ValidationError for anything else."""
    return msgspec.convert(body, Job)


class Jobs:
    """Brings every job to its end. One thread looks; a few do the work."""

    def __init__(self, store: Store, runs: JobRuns, clock: Clock, jobs_max: int) -> None:
        """`jobs_max`: jobs under way at once; others wait in the order that they were created."""
        self._store, self._runs, self._clock, self._jobs_max = store, runs, clock, jobs_max
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._hands = ThreadPoolExecutor(jobs_max + 1, thread_name_prefix="job-work")
        self._wakeup = Wakeup()
        self._working: dict[str, asyncio.Task[None]] = {}  # by run: one piece of work at a time
        self._done: dict[str, WorkDone] = {}

    def wake(self) -> None:
        """A job was created or changed: look soon. From any thread."""
        self._wakeup.wake()

    async def run(self) -> None:
        """Drive until cancelled."""
        try:
            while True:
                self._wakeup.begin_round()
                busy = await self._round()
                await self._wakeup.wait(LOOK_PERIOD_S if busy else ROUND_PERIOD_S)
        finally:
            for task in list(self._working.values()):
                task.cancel()
            await asyncio.gather(*self._working.values(), return_exceptions=True)
            self._looks.shutdown(wait=True, cancel_futures=True)
            self._hands.shutdown(wait=False, cancel_futures=True)

    async def _round(self) -> bool:
        """Look at all jobs once; True while there is something to wait for."""
        working = set(self._working)
        # What a task has done is told before the task itself is over: the next round takes it, with the job.
        taken = {run_id: done for run_id, done in self._done.items() if run_id not in working}
        try:
            owed, busy = await self._aside(lambda: self._look(taken, working))
        except Exception:  # the boundary of a round: the next one may go better
            LOG.exception("a look at the jobs failed")
            return True
        for run_id in taken:
            self._done.pop(run_id, None)
        for job, work in owed:
            self._begin(job, work)
        return busy or bool(self._working)

    # ------------------------------------------------------------------------------------- on the thread of looks
    def _look(self, done: dict[str, WorkDone], working: set[str]) -> tuple[list[tuple[Job, Work]], bool]:
        """Decide for every job, oldest first; what is owed now, and whether any job is under way."""
        seen = {run.run_id: run for run in self._runs.inventory()}
        documents = sorted(self._documents(), key=lambda d: (d.created_ms, d.name))
        under_way = Counter(job.key.kind for job in jobs_of(documents) if job.state in HOLDS_ROOM)
        owed: list[tuple[Job, Work]] = []
        busy = False
        for document in documents:
            job = decode(document.body)
            if job.ended and job.run_id not in seen:
                continue
            busy = True
            if job.run_id in working:
                continue
            held = job.state in HOLDS_ROOM
            room = held or self._has_room(job.key.kind, under_way)
            now, work = self._decide(document, job, seen.get(job.run_id), done.get(job.run_id), room)
            under_way[job.key.kind] += (now.state in HOLDS_ROOM) - held
            if work is not None:
                owed.append((now, work))
        self._end_orphans(seen, {decode(d.body).run_id for d in documents})
        return owed, busy

    def _has_room(self, kind: str, under_way: Counter[str]) -> bool:
        return under_way.total() < self._jobs_max and not (kind in ALONE and under_way[kind])

    def _documents(self) -> list[Document]:
        return [document for kind in KINDS for document in self._store.scan(kind)]

    def _decide(
        self, document: Document, job: Job, run: RunSeen | None, done: WorkDone | None, room: bool
    ) -> tuple[Job, Work | None]:
        """Step until nothing changes, each step committed; the job, and what it is owed."""
        made = JobPlan(job)
        for _ in range(STEPS_MAX):
            made = plan(job, JobSeen(run, done, room), self._clock.now_ms())
            if made.job == job:
                return job, made.work
            try:
                document = self._store_plan(document, made)
            except Conflict:
                self.wake()  # the API changed it meanwhile: the next look decides again
                return job, None
            job = made.job
        return job, made.work

    def _store_plan(self, document: Document, made: JobPlan) -> Document:
        key, now_ms = made.job.key, self._clock.now_ms()
        for note in made.notes:
            LOG.info("%s %s: %s: %s", key.kind, key.name, note.what, note.why)
        events = [Event(key.kind, key.scope, key.name, now_ms, note.what, note.why) for note in made.notes]
        put = replace(document, body=encode(made.job), modified_ms=now_ms)
        self._store.commit(Commit(puts=[put], events=events))
        return replace(put, version=put.version + 1)

    def _end_orphans(self, seen: dict[str, RunSeen], known: set[str]) -> None:
        """What no job has: its job was deleted. It is not in the way of a new one of the same name."""
        for run_id, run in seen.items():
            if run_id not in known:
                if run.alive:
                    self._runs.stop(run_id)
                self._runs.forget(run_id)

    # ------------------------------------------------------------------------------------------ on the event loop
    def _begin(self, job: Job, work: Work) -> None:
        """Have a piece of work done, unless another one is under way for the job."""
        if job.run_id in self._working:
            return
        task = asyncio.get_running_loop().create_task(self._work(job, work))
        self._working[job.run_id] = task

        def over(ended: asyncio.Task[None]) -> None:
            self._working.pop(job.run_id, None)
            self._wakeup.wake()

        task.add_done_callback(over)

    async def _work(self, job: Job, work: Work) -> None:
        for attempt in range(1, TRIES_MAX + 1):
            try:
                outputs = await asyncio.get_running_loop().run_in_executor(self._hands, self._do, job, work)
                self._done[job.run_id] = WorkDone(work, outputs=outputs)
                return
            except (ArtifactError, StartRefused) as error:
                self._done[job.run_id] = WorkDone(work, str(error))
                return
            except Exception as error:  # the boundary of a piece of work: whatever the world threw, it is owed still
                LOG.exception("%s of %s failed, try %d", work, job.run_id, attempt)
                reason = f"InternalError: {type(error).__name__}: {error}"
            await asyncio.sleep(RETRY_S)
        self._done[job.run_id] = WorkDone(work, reason)

    def _do(self, job: Job, work: Work) -> dict[str, str]:
        if work is Work.FETCH:
            self._runs.fetch(job)
        elif work in (Work.START, Work.MEND):
            self._runs.start(job)
        elif work is Work.STOP:
            self._runs.stop(job.run_id)
        elif work is Work.UPLOAD:
            return self._runs.upload(job)
        else:
            self._runs.forget(job.run_id)
        return {}

    async def _aside(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._looks, function)


def job_of(document: Document) -> Job:
    """The job that a document holds."""
    return decode(document.body)


def key_of(document: Document) -> JobKey:
    """Which job a document is of."""
    return JobKey(document.kind, document.scope.account, document.scope.region, document.name)


def jobs_of(documents: Sequence[Document]) -> list[Job]:
    """The jobs that documents hold."""
    return [decode(document.body) for document in documents]
