"""An assessment begins nothing that its time does not allow, and says what that was."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eyrie.cli import assess_faults, assess_load
from eyrie.cli.assess_budget import USUAL_S, Budget, scales_s, usual_s
from eyrie.cli.assess_copy import Subject
from eyrie.cli.assess_faults import Breaking
from eyrie.cli.assess_load import Lengths, Sender, Step
from eyrie.cli.chaos_place import Place
from eyrie.cli.progress import Progress
from eyrie.decide.load import Stair
from eyrie.domain.assessment import OVER, Steady
from eyrie.domain.load import Second

LENGTHS = Lengths(1.0, 1.0, 1.0, 1)
SUBJECT = Subject("e", "c", {"v": 2}, {"v": "ml.m5.large"})


class Sent:
    """What a sender would have seen: a saturation point that lies ever lower."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.progress, self.climbs = budget, Progress(quiet=True), 0
        self.public = SimpleNamespace(where=None)
        self.endpoint, self.kind, self.models, self.bodies = "e", "text/csv", (), [b"1"]

    def users(self, *_: object) -> Steady:
        """A closed loop."""
        return Steady(0.0, 100.0, 0.0, 1.0, 2.0)

    def climbed(self, begin: float, *_: object) -> list[Stair]:
        """One stair, that is not kept up with."""
        self.climbs += 1
        return [Stair(begin, begin / 2, 0.0, 1000.0, 2000.0, 0)]

    def begin(self, *_: object) -> Any:
        """A load that is over."""
        seconds = {0: Second()}
        return SimpleNamespace(begin_s=0.0, stop=lambda: None, look=lambda: seconds, check=lambda: None)


def over() -> Budget:
    """No time is left of a hundred seconds."""
    return Budget(100.0, time.monotonic() - 200.0)


def test_what_fits_is_not_noted_and_what_does_not_is() -> None:
    budget = Budget(1000.0)
    assert budget.fits("hang", 10.0)
    assert not budget.fits("slow", 2000.0)
    assert budget.left_out == ["slow"]
    assert budget.climbs()
    assert not Budget(1000.0, time.monotonic() - 500.0).climbs()


def test_more_time_is_taken_where_more_is_asked_for() -> None:
    faults = ["hang", "slow"]
    assert usual_s(faults, 4.0, 1, [1, 2, 4]) == usual_s([], 60.0, 9, [1]) == USUAL_S < 300
    assert usual_s(faults, 4.0, 3, [1, 2, 4]) == USUAL_S + 2 * 2 * 12.0
    assert usual_s(faults, 30.0, 1, [1, 2, 4]) == USUAL_S + 2 * 26.0
    assert usual_s(faults, 4.0, 1, [1, 2, 4, 8]) == USUAL_S + scales_s([8])


@pytest.mark.parametrize(("late", "climbs"), [(False, assess_load.CLIMBS_MAX), (True, 1)])
def test_further_stairs_give_way_first(late: bool, climbs: int, tmp_path: Path) -> None:
    sent = Sent(over() if late else Budget(1000.0))
    assess_load.performance(cast(Sender, sent), SUBJECT, tmp_path, LENGTHS, None)
    assert sent.climbs == climbs
    assert [text.partition(" from")[0] for text in sent.budget.left_out] == ["further stairs"] * late


def test_faults_and_numbers_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent(over())
    monkeypatch.setattr(assess_faults, "Public", lambda _: None)
    monkeypatch.setattr(assess_faults.Answers, "learn", lambda *_: False)
    asked = Breaking(["hang", "slow"], 4.0, 0.8, 1, 10.0, 0.999, 90.0, 45.0)
    window = assess_faults.broken(cast(Sender, sent), cast(Place, None), ["v"], asked, sent.budget)
    assert [(run.fault, run.skipped) for run in window.faults] == [("hang", OVER), ("slow", OVER)]
    scale = assess_load.scalability(cast(Sender, sent), SUBJECT, tmp_path, [1, 2], LENGTHS, 1.0, Step())
    assert scale.scales == ()
    assert sent.budget.left_out == ["hang", "slow", "1 instances a variant", "2 instances a variant"]
