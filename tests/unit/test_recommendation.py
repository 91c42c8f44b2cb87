"""Inference recommendations, the arithmetic: traffic, when a test has shown enough, what is best, what is proposed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide.recommendation import (
    BATCH,
    COMPILE,
    LOAD_MIN_S,
    WORKERS,
    best_stretch,
    enough,
    instances_for,
    ladder,
    load_seconds,
    next_candidate,
    phases,
    proposal,
    ranked,
    stairs,
    stretches,
    usual_types,
    weights,
    whole_seconds,
    why_none,
)
from eyrie.domain.recommendation import (
    Candidate,
    Level,
    Measured,
    Order,
    Phase,
    ServerlessSize,
    Stopping,
    Stretch,
    Trial,
    TrialState,
    TypeFacts,
)

LARGE, XLARGE = Candidate("ml.c5.large"), Candidate("ml.c5.xlarge")
TYPES = {"ml.c5.large": TypeFacts(2, 4096, 0.1), "ml.c5.xlarge": TypeFacts(4, 8192, 0.2)}
ORDER = Order("m", "s3://b/p", "text/csv", "", (LARGE, XLARGE), False, None, Stopping(), 600, 100, TYPES, 4)


def trial(number: int, candidate: Candidate, rpm: int, latency_ms: float = 10.0, **fields: object) -> Trial:
    made = Trial(number, candidate, TrialState.COMPLETED, "e", "v", measured=Measured(rpm, latency_ms, 4, 0.0))
    return replace(made, **fields)  # type: ignore[arg-type]


def seen(*told: tuple[int, float, float, float]) -> list[Stretch]:
    """Users, rate, errors, latency of stretches of five seconds."""
    rows = enumerate(told)
    return [Stretch(users, 5.0 * n, 5.0 * n + 5, rps, bad, ms) for n, (users, rps, bad, ms) in rows]


# ------------------------------------------------------------------------------------------------------------- traffic
def test_phases_begin_with_their_users_and_more_join() -> None:
    pattern = phases([Phase(1, 6, 30), Phase(5, 0, 10)])
    assert pattern.levels == (Level(0, 1), Level(10, 2), Level(20, 3), Level(30, 5))
    assert pattern.seconds == 40


def test_stairs_and_the_ladder_go_up() -> None:
    assert stairs(10, 3, 2).levels == (Level(0, 2), Level(10, 4), Level(20, 6))
    assert [level.users for level in ladder(60).levels] == [1, 2, 4, 8, 16, 32, 64]
    assert ladder(6).levels == (Level(0, 1), Level(2, 2), Level(4, 4))
    assert ladder(1).seconds == 4  # two steps, so that there is something to compare


@given(st.lists(st.builds(Phase, st.integers(1, 50), st.integers(0, 200), st.integers(1, 300)), min_size=1, max_size=4))
def test_stretches_cover_the_whole_pattern(given_phases: list[Phase]) -> None:
    pattern = phases(given_phases)
    parts = stretches(pattern)
    assert parts[0][0] == 0
    assert parts[-1][1] == pytest.approx(pattern.seconds)
    assert all(before[1] == pytest.approx(after[0]) for before, after in pairwise(parts))
    assert all(begin < end for begin, end, _ in parts)
    assert len(parts) <= 2 * 40 + len(given_phases) * 31


def test_a_long_stretch_loses_the_second_in_which_it_begins() -> None:
    assert list(whole_seconds(10, 15)) == [11, 12, 13, 14]
    assert list(whole_seconds(2, 4)) == [2, 3]
    assert list(whole_seconds(2.5, 4.9)) == [3]


# ------------------------------------------------------------------------------------------------------------ one test
def test_a_test_ends_when_more_users_bring_no_more() -> None:
    up = seen((1, 50, 0, 20), (2, 99, 0, 20), (4, 100, 0, 40))
    assert enough(up, Stopping()) == ""
    assert "2 users" in enough([*up, *seen((8, 101, 0, 80))], Stopping())
    assert enough([*up, *seen((8, 101, 0, 80))], Stopping(flat=False)) == ""
    assert enough(seen((3, 50, 0, 20), (3, 50, 0, 20), (3, 50, 0, 20)), Stopping()) == ""  # users did not grow
    growing = seen((1, 50, 0, 20), (2, 99, 0, 20), (4, 190, 0, 20), (8, 380, 0, 20))
    assert enough(growing, Stopping()) == ""


def test_a_test_ends_at_its_thresholds() -> None:
    one = seen((4, 100, 0.0, 250))
    assert "above 200 ms" in enough(one, Stopping(latency_ms=200))
    assert enough(one, Stopping(latency_ms=300)) == ""
    assert "6000 invocations" in enough(one, Stopping(max_invocations=5_900))
    assert "60%" in enough(seen((4, 10, 0.6, 20)), Stopping())
    assert enough([], Stopping(latency_ms=1)) == ""


def test_the_best_stretch_has_the_fewest_users_of_those_near_the_top() -> None:
    found = seen((1, 50, 0, 20), (2, 98, 0, 21), (4, 100, 0, 40), (8, 130, 0.2, 60))
    best = best_stretch(found, Stopping())
    assert best is not None
    assert best.users == 2
    slow = best_stretch(found, Stopping(latency_ms=20))
    assert slow is not None
    assert slow.users == 1
    assert best_stretch(found, Stopping(latency_ms=5)) is None
    assert "above 5" in why_none(found, Stopping(latency_ms=5))
    assert "100% of the requests failed" in why_none(seen((1, 0, 1.0, 0)), Stopping())
    late = seen((1, 0, 0.0, 0), (2, 4, 0.0, 600))  # the first answers came in the second stretch
    assert why_none(late, Stopping(latency_ms=400.0)) == "P95 was 600 ms with 2 users, above 400 ms"
    assert "no request was answered in" in why_none(seen((1, 0, 0.0, 0), (2, 0, 0.0, 0)), Stopping())


# -------------------------------------------------------------------------------------------------------- what is next
def test_given_candidates_come_first_and_no_more_than_asked_for() -> None:
    assert next_candidate(ORDER, []) == LARGE
    done = [trial(1, LARGE, 100)]
    assert next_candidate(ORDER, done) == XLARGE
    assert next_candidate(replace(ORDER, tests_max=1), done) is None
    assert next_candidate(ORDER, [*done, trial(2, XLARGE, 100)]) is None


def test_a_search_changes_one_setting_of_the_best_at_a_time() -> None:
    order = replace(ORDER, search=True, compilable=True)
    done = [trial(1, LARGE, 1000), trial(2, XLARGE, 1000)]
    compiled = replace(LARGE, environment={COMPILE: "1"})
    assert next_candidate(order, done) == compiled
    faster = [*done, trial(3, compiled, 3000)]
    found = next_candidate(order, faster)
    assert found == replace(LARGE, environment={COMPILE: "1", WORKERS: "1"})  # what helped is kept
    slower = [*done, trial(3, compiled, 500)]
    assert next_candidate(order, slower) == replace(LARGE, environment={WORKERS: "1"})
    tried = [*slower, *(trial(n, replace(LARGE, environment={WORKERS: c}), 900) for n, c in ((4, "1"), (5, "4")))]
    assert next_candidate(order, tried) is None
    assert next_candidate(order, [replace(t, state=TrialState.FAILED, measured=None) for t in done]) is None
    batching = replace(order, batching=True)
    alone, few = (replace(LARGE, environment={BATCH: rows}) for rows in ("1", "16"))
    assert next_candidate(batching, tried) == alone
    assert next_candidate(batching, [*tried, trial(6, alone, 500)]) == few
    assert next_candidate(batching, [*tried, trial(6, alone, 500), trial(7, few, 900)]) is None


def test_time_is_dealt_out_and_comes_to_an_end() -> None:
    first = load_seconds(ORDER, [])
    assert first is not None
    assert 130 < first <= 140
    used = [trial(1, LARGE, 100, took_s=580.0, loaded_s=570.0)]
    assert load_seconds(ORDER, used) == 10
    assert load_seconds(replace(ORDER, candidates=(*ORDER.candidates, Candidate("ml.m5.large"))), used) == LOAD_MIN_S
    assert load_seconds(ORDER, [trial(1, LARGE, 100, took_s=590.0, loaded_s=570.0)]) is None
    fixed = replace(ORDER, pattern=stairs(100, 5, 1))
    assert load_seconds(fixed, []) == 500
    assert load_seconds(fixed, [trial(1, LARGE, 100, took_s=510.0, loaded_s=500.0)]) is None
    assert load_seconds(replace(fixed, budget_s=400), []) is None


def test_usual_types_fit_the_host() -> None:
    rows = {**TYPES, "ml.m5.large": TypeFacts(2, 8192, 0.12), "ml.r5.large": TypeFacts(2, 16384, 0.15)}
    assert usual_types(rows, 2) == ["ml.c5.large", "ml.m5.large"]
    assert usual_types(rows, 1) == ["ml.c5.large", "ml.m5.large"]
    assert usual_types(rows, 4) == ["ml.c5.large", "ml.m5.large", "ml.c5.xlarge"]


# ------------------------------------------------------------------------------------------------------------ the best
def test_the_cheapest_inference_is_best_and_latency_settles_a_tie() -> None:
    one, two = trial(1, LARGE, 1000), trial(2, XLARGE, 1800)
    assert [t.number for t in ranked([two, one], ORDER)] == [1, 2]
    assert [t.number for t in ranked([one, trial(2, XLARGE, 2400)], ORDER)] == [2, 1]
    assert [t.number for t in ranked([one, trial(2, XLARGE, 2010, 5.0)], ORDER)] == [2, 1]
    assert [t.number for t in ranked([one, trial(2, XLARGE, 2010, 15.0)], ORDER)] == [1, 2]
    unknown = replace(ORDER, types={"ml.c5.large": TypeFacts(2, 4096), "ml.c5.xlarge": TypeFacts(4, 8192, 0.2)})
    assert [t.number for t in ranked([one, two], unknown)] == [2, 1]  # no price: what it can do
    assert ranked([replace(one, state=TrialState.FAILED)], ORDER) == []


def test_serverless_is_paid_by_the_time_that_it_works() -> None:
    size = Candidate(serverless=ServerlessSize(1024, 5))
    cheap, dear = trial(1, size, 1000, 1.0), trial(2, size, 1000, 1_000.0)
    assert [t.number for t in ranked([dear, trial(3, LARGE, 1000), cheap], ORDER)] == [1, 3, 2]
    assert size.title == "serverless 1024 MB, 5 at once"


# ------------------------------------------------------------------------------------------------------- how to run it
def test_a_proposal_keeps_instances_at_their_share() -> None:
    measured = Measured(1000, 12.3, 4, 0.0, setup_s=45.0)
    made = proposal(measured, 900, 4_000)
    assert (made.invocations_per_instance, made.latency_ms) == (800, 13)
    assert (made.min_capacity, made.max_capacity) == (2, 5)
    assert (made.scale_out_cooldown_s, made.scale_in_cooldown_s) == (90, 300)
    assert proposal(measured, utilisation=50).invocations_per_instance == 500
    assert (proposal(measured).min_capacity, proposal(measured).max_capacity) == (1, 4)
    assert instances_for(800, measured) == 1
    assert instances_for(801, measured) == 2


def test_weights_follow_what_each_can_do() -> None:
    assert weights([2000, 1000]) == [0.667, 0.333]
    assert weights([]) == []
