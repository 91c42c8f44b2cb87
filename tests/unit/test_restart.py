"""The back-off of the supervisor: at once, then later and later, then calm again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide import restart


def test_the_first_death_is_followed_by_a_start_at_once() -> None:
    assert restart.delay_ms(restart.failures_after(0, lived_ms=3)) == 0


def test_dying_young_again_and_again_waits_ever_longer_up_to_a_bound() -> None:
    failures, delays = 0, []
    for _ in range(12):
        failures = restart.failures_after(failures, lived_ms=50)
        delays.append(restart.delay_ms(failures))
    assert delays == [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000]


def test_a_process_that_lived_long_starts_with_a_clean_sheet() -> None:
    assert restart.failures_after(9, lived_ms=restart.STABLE_AFTER_MS) == 1


@given(st.integers(0, 10**9))
def test_the_delay_never_leaves_its_bounds(failures: int) -> None:
    assert 0 <= restart.delay_ms(failures) <= restart.DELAY_MAX_MS
