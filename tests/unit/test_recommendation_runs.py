"""Runs of inference recommendations jobs, seen from control: begun, asked to end, forgotten when nothing is left."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyrie.adapters import launch, recommendation_runs
from eyrie.adapters.recommendation_runs import RecommendationRuns
from eyrie.adapters.slots import Slot, SlotRecord
from eyrie.domain.jobs import Job, JobKey, JobSpec, JobState
from eyrie.domain.recommendation import Candidate, Ledger, Trial, TrialState
from eyrie.recommender.samples import Unusable, unpacked
from eyrie.settings import Settings

RUN = "r-0123456789abcde0"
SPEC = JobSpec("recommend", {}, {"order": {"model": "m"}}, "", 60_000, 1_000, 512, resumable=True)
JOB = Job(
    JobKey("InferenceRecommendationsJob", "123456789012", "us-east-1", "j"), RUN, SPEC, JobState.RUNNING, "", 0, 0
)


class Clock:
    def now_ms(self) -> int:
        return 10_000


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each started program was told; it ends at once."""
    found: list[dict[str, Any]] = []

    def start(launcher: launch.Launcher, slot: Slot, record: SlotRecord) -> None:
        found.append(json.loads((slot.path / "run.json").read_bytes()))
        os.close(slot.hold_lock())
        (slot.path / "status").write_text('{"child-pid": 2147480000}\n{"exit-code": 0}\n')

    monkeypatch.setattr(launch.Launcher, "start", start)
    return found


@pytest.fixture
def runs(tmp_path: Path) -> RecommendationRuns:
    return RecommendationRuns(Settings(data=tmp_path), None, Clock(), "no caps")


def test_a_run_is_begun_once_an_attempt(runs: RecommendationRuns, started: list[dict[str, Any]]) -> None:
    runs.fetch(JOB)
    assert [(seen.started, seen.alive) for seen in runs.inventory()] == [(False, False)]
    runs.start(JOB)
    runs.start(JOB)
    assert [(told["order"], told["sweep"], told["note"]) for told in started] == [({"model": "m"}, False, "no caps")]
    seen = runs.inventory()[0]
    assert (seen.started, seen.alive, seen.exit_code, seen.attempt) == (True, False, 0, 0)
    runs.start(replace(JOB, attempt=1))
    assert (len(started), runs.inventory()[0].attempt) == (2, 1)


def packed(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def test_what_was_measured_is_its_progress(
    runs: RecommendationRuns, started: list[dict[str, Any]], tmp_path: Path
) -> None:
    runs.start(JOB)
    over = Trial(1, Candidate("ml.c5.large"), TrialState.FAILED, "e", "v", reason="no")
    begun = Trial(2, Candidate("ml.c5.xlarge"), TrialState.IN_PROGRESS, "e", "v")
    ledger = Ledger("loading", tests=(over, begun))
    (tmp_path / "jobs" / RUN / "box" / "progress.json").write_bytes(msgspec.json.encode(ledger))
    (tmp_path / "jobs" / RUN / "box" / "result.json").write_text('{"error": "nothing could be measured"}')
    seen = runs.inventory()[0]
    assert (seen.done, seen.error) == (1, "nothing could be measured")
    assert msgspec.convert(seen.progress, Ledger) == ledger
    assert json.loads(json.dumps(seen.progress)) == seen.progress  # as a document gives it back


def test_a_run_is_forgotten_when_nothing_is_left(
    runs: RecommendationRuns, started: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.start(JOB)
    folder = tmp_path / "jobs" / RUN
    runs.forget(RUN)
    assert [told["sweep"] for told in started] == [False, True]
    runs.forget(RUN)
    assert len(started) == 2  # it was begun just now
    monkeypatch.setattr(recommendation_runs, "SWEEP_AGAIN_S", 0.0)
    runs.forget(RUN)
    assert len(started) == 3
    (folder / "box" / "log").write_text("2026-01-01T00:00:00.000Z INFO done\n")
    (folder / "box" / "removed").touch()
    runs.forget(RUN)
    assert not folder.exists()
    archived = tmp_path / "logs" / "jobs" / "InferenceRecommendationsJob" / "123456789012.us-east-1.j.log"
    assert "INFO done" in archived.read_text()
    runs.forget(RUN)


def test_who_is_asked_to_end_is_killed_when_that_takes_too_long(
    runs: RecommendationRuns, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    monkeypatch.setattr(recommendation_runs.ending, "terminate", lambda slot: did.append("asked"))
    monkeypatch.setattr(recommendation_runs.ending, "kill", lambda slot: did.append("killed"))
    monkeypatch.setattr(recommendation_runs, "REMOVE_WITHIN_S", -1.0)
    runs.start(JOB)
    runs.stop(RUN)
    assert did == ["asked"]
    runs.stop(RUN)
    assert did == ["asked", "killed"]


def test_a_payload_is_an_archive_or_a_body() -> None:
    assert unpacked(packed({"b": b"2", "a": b"1", "d/.hidden": b"x"}), "s3://b/p") == [b"1", b"2"]
    assert unpacked(b"1,2,3", "s3://b/p") == [b"1,2,3"]
    with pytest.raises(Unusable, match="broken archive"):
        unpacked(packed({"a": b"1" * 100_000})[:80], "s3://b/p")
