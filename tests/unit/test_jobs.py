"""What is next for a job: every way from QUEUED to an end, and the reconciler over a store that may refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from eyrie.adapters.store_sql import SqlStore
from eyrie.control.jobs import Jobs, encode, job_of
from eyrie.decide.jobs import ATTEMPTS_MAX, JobSeen, Work, plan
from eyrie.domain.jobs import JOB_MOVES, Job, JobKey, JobSpec, JobState, RunSeen, WorkDone
from eyrie.ports import ArtifactError, Commit, Document

S = JobState
SPEC = JobSpec("compile", {"model": "s3://b/model.tar.gz"}, {"output": "o.tar.gz"}, "s3://b/out", 60_000, 1000, 1024)
JOB = Job(JobKey("CompilationJob", "123456789012", "us-east-1", "j"), "j-0000000000000000", SPEC, S.QUEUED, "", 0, 0)
RUN = RunSeen(JOB.run_id, started=True, alive=True)


def now(state: JobState, **fields: object) -> Job:
    return replace(JOB, state=state, started_ms=1_000, **fields)  # type: ignore[arg-type]


def test_a_job_goes_its_way() -> None:
    assert plan(JOB, JobSeen(None, room=False), 5).job == JOB
    job = plan(JOB, JobSeen(None), 5).job
    assert (job.state, plan(job, JobSeen(None), 6).work) == (S.FETCHING, Work.FETCH)
    job = plan(job, JobSeen(None, WorkDone(Work.FETCH)), 1_000).job
    waiting = RunSeen(JOB.run_id, started=False, alive=False)
    assert (job.state, job.started_ms, plan(job, JobSeen(waiting), 7).work) == (S.RUNNING, 1_000, Work.START)
    made = plan(job, JobSeen(RUN), 2_000)
    assert (made.job, made.work, made.wake_ms) == (job, None, 61_000)
    job = plan(job, JobSeen(replace(RUN, alive=False, exit_code=0)), 3_000).job
    gone = replace(RUN, alive=False, exit_code=0)
    assert (job.state, plan(job, JobSeen(gone), 3_000).work) == (S.UPLOADING, Work.UPLOAD)
    job = plan(job, JobSeen(gone, WorkDone(Work.UPLOAD, outputs={"artifact": "s3://x"})), 4_000).job
    assert (job.state, job.ended_ms, job.outputs) == (S.COMPLETED, 4_000, {"artifact": "s3://x"})
    assert plan(job, JobSeen(gone), 5_000).work is Work.FORGET
    assert plan(job, JobSeen(None), 5_000).work is None


@pytest.mark.parametrize(
    ("job", "seen", "reason"),
    [
        (now(S.FETCHING), JobSeen(None, WorkDone(Work.FETCH, "not there")), "not there"),
        (now(S.RUNNING), JobSeen(replace(RUN, started=False, alive=False), WorkDone(Work.START, "no room")), "no room"),
        (now(S.RUNNING), JobSeen(replace(RUN, alive=False, exit_code=1, error="bad model")), "bad model"),
        (
            now(S.RUNNING),
            JobSeen(replace(RUN, alive=False, exit_code=137, ending="killed by signal 9")),
            "InternalError: the program killed by signal 9",
        ),
        (now(S.UPLOADING), JobSeen(RUN, WorkDone(Work.UPLOAD, "no bucket")), "no bucket"),
        (now(S.STOPPING, overdue="TimeOut: x"), JobSeen(replace(RUN, alive=False)), "TimeOut: x"),
    ],
)
def test_a_job_fails_with_the_reason(job: Job, seen: JobSeen, reason: str) -> None:
    made = plan(job, seen, 9_000).job
    assert (made.state, made.reason, made.ended_ms) == (S.FAILED, reason, 9_000)


def test_a_job_that_takes_too_long_or_writes_too_much_is_stopped_and_fails() -> None:
    for seen in (JobSeen(RUN), JobSeen(replace(RUN, excess="it wrote too much"))):
        made = plan(now(S.RUNNING), seen, 61_000 if not RUN.excess and seen.run == RUN else 2_000).job
        assert made.state is S.STOPPING
        assert made.overdue
        assert plan(made, JobSeen(RUN), 61_000).work is Work.STOP
        assert plan(made, JobSeen(replace(RUN, alive=False)), 62_000).job.state is S.FAILED


@pytest.mark.parametrize("state", [S.QUEUED, S.FETCHING, S.RUNNING, S.UPLOADING])
def test_a_job_is_stopped_from_wherever_it_is(state: JobState) -> None:
    made = plan(now(state, stop_asked=True), JobSeen(RUN), 2_000).job
    assert made.state is S.STOPPING
    assert plan(made, JobSeen(RUN), 2_000).work is Work.STOP
    assert plan(made, JobSeen(replace(RUN, alive=False)), 2_000).job.state is S.STOPPED


def test_a_job_whose_sandbox_is_gone_begins_again_a_few_times() -> None:
    job = now(S.RUNNING)
    for attempt in range(1, ATTEMPTS_MAX):
        job = plan(job, JobSeen(None), 2_000).job
        assert (job.state, job.attempt, job.run_id[-1]) == (S.FETCHING, attempt, str(attempt))
        job = replace(job, state=S.RUNNING)
    assert plan(job, JobSeen(None), 2_000).job.state is S.FAILED
    again = replace(now(S.RUNNING), attempt=1)  # in its new sandbox it runs, and ends, like the first time
    assert plan(again, JobSeen(RUN), 2_000).work is None
    assert plan(again, JobSeen(replace(RUN, alive=False, exit_code=0)), 2_000).job.state is S.UPLOADING
    unseen = replace(RUN, alive=False, exit_code=None, ending="gone, its lock is free")
    assert plan(now(S.RUNNING), JobSeen(unseen), 2_000).job.state is S.FETCHING


def test_a_resumable_job_goes_on_where_it_was_as_long_as_it_gets_further() -> None:
    job = replace(now(S.RUNNING), spec=replace(SPEC, resumable=True))
    dead = replace(RUN, alive=False, exit_code=137, ending="killed by signal 9")
    for attempt in range(1, 2 * ATTEMPTS_MAX):
        run = replace(dead, attempt=attempt - 1, done=10 * attempt)
        job = plan(job, JobSeen(run), 2_000).job
        assert (job.state, job.attempt, job.run_id) == (S.RUNNING, attempt, JOB.run_id)
        assert plan(job, JobSeen(run), 2_000).work is Work.START
    for _ in range(ATTEMPTS_MAX - 2):
        job = plan(job, JobSeen(replace(dead, attempt=job.attempt, done=job.done)), 3_000).job
        assert job.state is S.RUNNING
    assert plan(job, JobSeen(replace(dead, attempt=job.attempt, done=job.done)), 3_000).job.state is S.FAILED
    assert plan(job, JobSeen(replace(dead, attempt=job.attempt, exit_code=0)), 3_000).job.state is S.UPLOADING


def test_what_a_job_lacks_is_mended_until_that_is_refused() -> None:
    job, lame = now(S.RUNNING), replace(RUN, lacking="instance t-1 is gone")
    assert plan(job, JobSeen(lame), 2_000).work is Work.MEND
    stopping = plan(job, JobSeen(lame, WorkDone(Work.MEND, "it ended 3 times")), 2_000).job
    assert (stopping.state, stopping.overdue) == (S.STOPPING, "it ended 3 times")
    assert plan(stopping, JobSeen(replace(lame, alive=False)), 2_000).job.state is S.FAILED


def test_what_a_program_tells_is_stored_now_and_then() -> None:
    told = replace(RUN, progress={"percent": 5})
    job = plan(now(S.RUNNING, told_ms=1_500), JobSeen(told), 2_000).job
    assert job.progress == {}
    assert plan(job, JobSeen(told), 2_500).job.progress == {"percent": 5}
    assert plan(job, JobSeen(replace(told, alive=False, exit_code=0)), 2_000).job.progress == {"percent": 5}


def test_every_state_has_an_end() -> None:
    assert {state for state, ways in JOB_MOVES.items() if not ways} == {S.COMPLETED, S.FAILED, S.STOPPED}


class Clock:
    def now_ms(self) -> int:
        return 10_000


class Runs:
    """Jobs that end well at once; fetching may fail."""

    def __init__(self) -> None:
        self.seen: dict[str, RunSeen] = {}
        self.most = 0
        self.did: list[str] = []

    def fetch(self, job: Job) -> None:
        self.did.append(f"fetch {job.key.name}")
        if job.key.name == "broken":
            raise ArtifactError("no such archive")
        if job.key.name == "flaky" and self.did.count("fetch flaky") == 1:
            raise ConnectionError("try again")
        self.seen[job.run_id] = RunSeen(job.run_id, started=False, alive=False)
        self.most = max(self.most, len(self.seen))

    def start(self, job: Job) -> None:
        self.seen[job.run_id] = RunSeen(job.run_id, started=True, alive=False, exit_code=0)

    def inventory(self) -> list[RunSeen]:
        return list(self.seen.values())

    def stop(self, run_id: str) -> None:
        self.did.append(f"stop {run_id}")

    def upload(self, job: Job) -> dict[str, str]:
        return {"artifact": f"s3://b/{job.key.name}", "digest": "d"}

    def forget(self, run_id: str) -> None:
        self.seen.pop(run_id, None)


def put(store: SqlStore, names: Mapping[str, int], kind: str = "CompilationJob") -> None:
    for name, number in names.items():
        job = replace(JOB, key=replace(JOB.key, kind=kind, name=name), run_id=f"j-{number:015x}0", created_ms=number)
        store.commit(Commit(puts=[Document(job.key.kind, job.key.scope, name, 0, number, number, encode(job))]))


async def drive(jobs: Jobs, store: SqlStore, count: int, kind: str = "CompilationJob") -> dict[str, Job]:
    """Until so many jobs have ended and nothing is left of them."""
    driving = asyncio.create_task(jobs.run())
    async with asyncio.timeout(60.0):
        while True:
            found = {d.name: job_of(d) for d in store.scan(kind)}
            if sum(job.ended for job in found.values()) == count and not jobs._runs.inventory():
                break
            await asyncio.sleep(0.01)
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)
    return found


def test_the_reconciler_brings_every_job_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyrie.control.jobs.RETRY_S", 0.01)
    store, runs = SqlStore(f"sqlite:///{tmp_path / 'eyrie.db'}"), Runs()
    runs.seen["j-00000000000000f0"] = RunSeen("j-00000000000000f0", started=True, alive=True)  # nobody's
    put(store, {"one": 1, "two": 2, "broken": 3, "flaky": 4})
    found = asyncio.run(drive(Jobs(store, runs, Clock(), 1), store, 4))
    store.close()
    assert {name: job.state for name, job in found.items()} == {
        "one": S.COMPLETED,
        "two": S.COMPLETED,
        "broken": S.FAILED,
        "flaky": S.COMPLETED,
    }
    assert found["broken"].reason == "no such archive"
    assert found["one"].outputs == {"artifact": "s3://b/one", "digest": "d"}
    assert runs.did == [
        "stop j-00000000000000f0",
        "fetch one",
        "fetch two",
        "fetch broken",
        "fetch flaky",
        "fetch flaky",
    ]


def test_work_done_is_taken_only_once_its_task_is_over(tmp_path: Path) -> None:
    """Between the two a round may begin: it must not lose what was done, or the work is done again."""
    store, runs = SqlStore(f"sqlite:///{tmp_path / 'eyrie.db'}"), Runs()
    put(store, {"one": 1})
    run_id = "j-0000000000000010"

    async def rounds() -> None:
        jobs = Jobs(store, runs, Clock(), 1)
        await jobs._round()
        fetch = jobs._working[run_id]
        await fetch
        jobs._working[run_id] = fetch  # as it stands until the loop has called what waits for the task
        await jobs._round()
        assert run_id in jobs._done
        del jobs._working[run_id]
        await jobs._round()
        assert run_id not in jobs._done

    asyncio.run(rounds())
    store.close()
    assert runs.did == ["fetch one"]


@pytest.mark.parametrize(("kind", "most"), [("CompilationJob", 3), ("InferenceRecommendationsJob", 1)])
def test_jobs_that_measure_are_under_way_one_at_a_time(tmp_path: Path, kind: str, most: int) -> None:
    store, runs = SqlStore(f"sqlite:///{tmp_path / 'eyrie.db'}"), Runs()
    put(store, {"one": 1, "two": 2, "three": 3}, kind)
    jobs = Jobs(store, runs, Clock(), 3)
    owed, _ = jobs._look({}, set())
    assert len(owed) == most
    found = asyncio.run(drive(jobs, store, 3, kind))
    store.close()
    assert {job.state for job in found.values()} == {S.COMPLETED}
