"""The arithmetic of an assessment: good seconds, budgets, recovery, grades and their rules, comparison, the page."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from eyrie.cli import assess, assess_history, assess_page
from eyrie.cli.assess_load import rows_of
from eyrie.cli.errors import CommandError
from eyrie.decide import assessment as decide
from eyrie.domain.assessment import (
    Assessment,
    Availability,
    FaultRun,
    Performance,
    Scalability,
    Scale,
    Steady,
)
from eyrie.domain.load import Second
from eyrie.domain.metrics import Summary


def second(good: int, bad: int = 0, ms: float = 2.0) -> Second:
    spread = Summary()
    spread.add(ms * 1000, float(good)) if good else None
    errors = Counter({"424 ModelError": bad}) if bad else Counter()
    return Second(good + bad, good + bad, good, errors, spread.copy(), spread.copy())


STEADY = Steady(800.0, 799.0, 0.0, 2.0, 5.0)
PERFORMANCE = Performance(
    1000.0,
    32,
    20.0,
    40.0,
    1000.0,
    1100.0,
    "at 1100/s only 900/s were answered",
    STEADY,
    1,
    47940.0,
    2.9e6,
    0.1,
    0.2,
    0.07,
    (STEADY, replace(STEADY, offered_rps=1100.0, p99_ms=80.0)),
)
RUN = FaultRun("kill-instance", "kill -9 of i-1", at_s=3.0, detect_s=0.1, whole_s=1.5, recover_s=1.5, requests=1000)
FOUND = Assessment(
    "iris",
    "iris-assess-1",
    "c",
    "2026-11-21T00:00:00+00:00",
    200.0,
    "0",
    "2 cores",
    2,
    ("ml.m5.large",),
    8,
    "text/csv",
    100.0,
    PERFORMANCE,
    Availability(0.999, 100, 100, 10_000, 0, 10.0, 0),
    Scalability(
        (Scale(1, 500.0, 3.0, None), Scale(2, 950.0, 3.0, 1.0)),
        500.0,
        0.05,
        0.0,
        0.01,
        None,
        0.95,
        8,
        300.0,
        800.0,
        1.0,
        10.0,
    ),
    (RUN, FaultRun("zone", "a zone is out", skipped="one zone")),
    ({"second": 0, "answered": 100, "failed": 0, "p50_ms": 2.0, "p99_ms": None},),
    ("limits: <none>",),
    ("a note",),
)


def test_a_second_is_good_where_its_requests_keep_the_objective() -> None:
    seconds = {0: second(100), 1: second(99, 1), 2: second(0, 50), 3: Second(), 4: second(1000, 1)}
    found = decide.availability(seconds, 0, 5, 0.999)
    assert (found.seconds, found.good_seconds, found.requests, found.failed, found.longest_bad_s) == (4, 2, 1251, 52, 2)
    assert found.allowed == pytest.approx(1.251)
    assert found.budget_used == pytest.approx(52 / 1.251)
    assert found.of_requests == pytest.approx(1 - 52 / 1251)
    exactly = decide.availability({0: second(999, 1)}, 0, 1, 0.999)
    assert exactly.good_seconds == 1
    assert exactly.budget_used == pytest.approx(1.0)
    assert decide.availability({}, 0, 5, 0.999).of_seconds == 1


def test_what_a_fault_cost_is_told_by_the_seconds_around_it() -> None:
    seconds = {n: second(100) for n in range(10)} | {5: second(40, 60, ms=50.0), 6: second(80, ms=9.0)}
    found = decide.cost_of(RUN, seconds, 3, 5, 6)
    assert (found.requests, found.failed, found.errors) == (180, 60, {"424 ModelError": 60})
    assert found.rate_kept == pytest.approx(0.6)
    assert found.p99_before_ms == pytest.approx(2, rel=0.02)
    assert found.p99_during_ms == pytest.approx(50, rel=0.02)


def test_latency_is_restored_with_three_seconds_together_within_the_limit() -> None:
    spread = [2, 2, 90, 40, 2, 30, 2, 2, 2, 60, 2]
    seconds = {n: second(10, ms=float(ms)) for n, ms in enumerate(spread)}
    assert decide.restored_s(seconds, 2, 9, 10.0) == 4
    assert decide.restored_s(seconds, 2, 11, 10.0) == 4  # a hiccup afterwards is not of the step
    assert decide.restored_s(seconds, 2, 8, 10.0) is None  # two calm seconds are none
    assert decide.restored_s(seconds, 2, 9, 1.0) is None
    assert decide.restored_s({n: second(10) for n in range(9)}, 2, 9, 10.0) == 0
    few = {n: second(1000) for n in range(4)}
    few[1].response.add(90_000.0, 5.0)  # of 3,000 requests: less than the hundredth
    assert decide.restored_s(few, 0, 4, 10.0) == 0
    few[1].response.add(90_000.0, 50.0)
    assert decide.restored_s(few, 0, 4, 10.0) is None
    assert decide.restored_limit_ms(20.0) == 40
    assert decide.restored_limit_ms(0.5) == decide.RESTORED_FLOOR_MS


def test_latency_is_not_restored_while_requests_wait_or_fail() -> None:
    calm = {n: second(100) for n in range(6)}
    waiting = calm | {1: replace(second(100), intended=101)}  # one has no answer yet
    assert decide.restored_s(waiting, 0, 6, 10.0) == 2
    assert decide.restored_s(calm | {1: second(99, 1)}, 0, 6, 10.0) == 2
    assert decide.restored_s({0: second(100)}, 0, 6, 10.0) is None  # nothing was told of the others


def test_scale_is_judged_by_what_the_cores_allow() -> None:
    scales = [Scale(1, 100.0, None, None), Scale(4, 380.0, None, None)]
    assert decide.kept_by_scale(scales, 1, 8) == pytest.approx(0.95)
    assert decide.kept_by_scale([Scale(1, 100.0, None, None), Scale(4, 95.0, None, None)], 2, 2) == pytest.approx(0.95)
    assert decide.kept_by_scale(scales[:1], 1, 8) is None


@pytest.mark.parametrize(("value", "expected"), [(0.0, "A"), (5.0, "A"), (5.01, "B"), (60.0, "D"), (61.0, "E")])
def test_letters_follow_their_limits(value: float, expected: str) -> None:
    assert decide.letter(value, decide.RECOVER_S) == expected


def letters(found: Assessment, p99_ms: float | None = None) -> dict[str, str]:
    return {grade.measure: grade.letter for grade in decide.graded(found, p99_ms).grades}


def test_grades_and_the_whole_grade() -> None:
    found = decide.graded(FOUND, None)
    assert {grade.letter for grade in found.grades} == {"A"}
    assert (found.grade, found.missed) == ("A", ())
    assert all(grade.rule for grade in found.grades)
    assert letters(FOUND, p99_ms=5.0)["performance"] == "A"
    late = decide.graded(FOUND, 4.0)
    assert (late.grade, len(late.missed)) == ("F", 1)
    never = decide.graded(replace(FOUND, faults=(replace(RUN, whole_s=None, recover_s=None),)), None)
    assert never.grade == "F"
    assert "not whole again" in never.missed[0]
    slow = replace(FOUND, faults=(replace(RUN, recover_s=20.0),))
    assert letters(slow)["resiliency"] == "C"
    lost = replace(FOUND, faults=(replace(RUN, failed=1),))
    assert letters(lost)["fault tolerance"] == "C"  # one of a thousand
    other = replace(FOUND, faults=(replace(RUN, answers=10, answers_same=9),))
    assert letters(other)["fault tolerance"] == "F"


def test_an_objective_that_was_missed_is_told_and_costs_the_grade() -> None:
    found = decide.graded(replace(FOUND, availability=Availability(0.999, 100, 98, 10_000, 20, 10.0, 2)), None)
    assert found.grade == "D"
    assert found.missed == ("99.8000% of the requests were good, the objective is 99.9000%",)


def test_what_was_not_measured_is_not_graded() -> None:
    assert assess_page.worst_of(decide.graded(FOUND, None)) == "the worst of five"
    fewer = decide.graded(replace(FOUND, availability=None, faults=()), None)
    assert assess_page.worst_of(fewer) == "the worst of 2: the others have no grade"
    found = decide.graded(replace(FOUND, performance=None, availability=None, scalability=None, faults=()), None)
    assert ({grade.letter for grade in found.grades}, found.grade) == ({"-"}, "-")


def test_more_throughput_than_the_cores_allow_is_no_merit() -> None:
    assert FOUND.scalability is not None
    for step_to_rps, expected in ((None, "-"), (FOUND.scalability.step_to_rps, "A")):
        odd = replace(FOUND, scalability=replace(FOUND.scalability, kept=44.65, step_to_rps=step_to_rps))
        (grade,) = [grade for grade in decide.graded(odd, None).grades if grade.measure == "scalability"]
        assert grade.letter == expected
        assert "which cannot be" in grade.why


def test_two_assessments_are_compared_within_a_tolerance() -> None:
    before = assess_history.document(FOUND)
    same = decide.compared(before, before)
    assert {change.verdict for change in same} == {"same"}
    worse = replace(
        FOUND,
        performance=replace(PERFORMANCE, saturation_rps=700.0, users_rps=1300.0),
        faults=(replace(RUN, recover_s=None),),
    )
    found = {change.name: change.verdict for change in decide.compared(before, assess_history.document(worse))}
    assert found["saturation point"] == "worse"
    assert found["most replies of a closed loop"] == "better"
    assert found["kill-instance: recovered after"] == "worse"
    assert found["p99 at 80 %"] == "same"
    assert FOUND.scalability is not None
    late = replace(FOUND, scalability=replace(FOUND.scalability, restored_s=None))
    found = {change.name: change.verdict for change in decide.compared(before, assess_history.document(late))}
    assert found["latency restored after a step"] == "worse"
    fewer = {c.name: c.verdict for c in decide.compared(before, assess_history.document(replace(FOUND, faults=())))}
    assert fewer["kill-instance: recovered after"] == "gone"


def test_an_assessment_is_kept_found_again_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assess_history, "KEPT_MAX", 2)
    for day in (21, 22, 23):
        assess_history.keep(tmp_path, replace(FOUND, at=f"2026-11-{day}T00:00:00+00:00"), "<p>")
    kept = assess_history.earlier(tmp_path, "iris")
    assert [one["at"][8:10] for one in kept] == ["22", "23"]
    assert len(list((tmp_path / "assessments" / "iris").glob("*.html"))) == 2
    assert assess_history.against(tmp_path, "iris", "last") == kept[-1]
    assert kept[-1]["availability"]["budget_used"] == 0
    with pytest.raises(CommandError, match="no earlier"):
        assess_history.against(tmp_path, "other", "last")
    (tmp_path / "odd.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(CommandError, match="no assessment"):
        assess_history.against(tmp_path, "iris", str(tmp_path / "odd.json"))


class Tags(HTMLParser):
    """Opening tags of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_draws_everything_and_fetches_nothing() -> None:
    found = decide.graded(FOUND, 1.0)
    text = assess_page.page(found, decide.compared(assess_history.document(FOUND), assess_history.document(FOUND)))
    tags = Tags()
    tags.feed(text)
    assert tags.fetched == []
    assert tags.seen["svg"] == 5
    assert "limits: &lt;none&gt;" in text
    for measure in ("Performance", "Availability", "Scalability", "Resiliency", "Fault tolerance"):
        assert measure in text
    assert "Not injected" in text
    assert "Objective missed: p99 at 80 % utilisation is 5 ms" in text
    bare = replace(FOUND, performance=None, availability=None, scalability=None, faults=(), timeline=())
    assert "<svg" not in assess_page.page(decide.graded(bare, None), [])
    assert json.loads(json.dumps(asdict(found)))["grade"] == "F"


def test_rows_are_lines_of_what_is_lines() -> None:
    assert rows_of(b"1,2\n3,4\n\n", "text/csv; charset=utf-8") == 2
    assert rows_of(b"", "text/csv") == 1
    assert rows_of(b"[[1],[2]]", "application/json") == 1


def test_words_of_the_command_line() -> None:
    assert assess.names_of(None) == list(assess.FAULTS)
    assert assess.names_of("none") == []
    assert "kill-control" not in assess.names_of("instance")
    assert assess.names_of("hang, zone") == ["hang", "zone"]
    assert assess.counts_of("1,2,4") == [1, 2, 4]
    for wrong in (lambda: assess.names_of("hung"), lambda: assess.counts_of("0"), lambda: assess.counts_of("a")):
        with pytest.raises(CommandError) as refused:
            wrong()
        assert refused.value.code == 2
