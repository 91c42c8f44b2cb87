"""CPU credits: earning, spending, what is left to use, how that is held, and that a restart forgets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.adapters.instance_types import load_instance_types
from eyrie.control.credits import BurstCredits
from eyrie.control.sampling import Watched
from eyrie.decide.credits import after, allowed_milli, first, settled
from eyrie.domain.credits import BurstRule, Credits
from eyrie.domain.instance_types import InstanceType, InstanceTypes
from eyrie.domain.names import EndpointKey
from eyrie.domain.usage import InstanceUsage
from eyrie.modelserver.pace import HELD_MAX, Pace, PaceError, read_pace

RULE = BurstRule(2000, 400, 24.0, 576.0)  # t2.medium without launch credits
KEY = EndpointKey("123456789012", "us-east-1", "churn")
START = InstanceUsage("i-1", KEY, "v", "ml.t2.medium", 2000, 4096, "/s", 0, 0, 0, 0.0)
HOUR_MS, HOUR_US = 3_600_000, 3_600_000_000


@pytest.mark.parametrize(
    ("name", "per_hour", "most", "launch", "unlimited"),
    [
        ("ml.t2.medium", 24, 576, 60, False),
        ("ml.t2.large", 36, 864, 60, False),
        ("ml.t2.xlarge", 54, 1296, 120, False),
        ("ml.t2.2xlarge", 81.6, 1958.4, 240, False),
        ("ml.t3.medium", 24, 576, 0, True),
        ("ml.t3.xlarge", 96, 2304, 0, True),
        ("ml.t3.2xlarge", 192, 4608, 0, True),
    ],
)
def test_the_table_says_what_amazon_publishes(
    tmp_path: Path, name: str, per_hour: float, most: float, launch: float, unlimited: bool
) -> None:
    rule = load_instance_types(tmp_path).get(name).burst
    assert rule is not None
    assert rule.credits_per_hour == pytest.approx(per_hour)
    assert (rule.credits_max, rule.launch_credits, rule.unlimited) == (pytest.approx(most), launch, unlimited)
    assert load_instance_types(tmp_path).get("ml.m5.large").burst is None


def seen(hours: float, cores: float) -> InstanceUsage:
    return replace(START, at_us=int(hours * HOUR_US), cpu_us=int(hours * cores * HOUR_US))


def credits_after(rule: BurstRule, hours: float, cores: float, earned: float = 0.0) -> Credits:
    before = replace(first(rule, START, 0), earned=earned)
    return after(rule, before, seen(hours, cores), int(hours * HOUR_MS))


def test_idle_earns_to_the_maximum_and_the_baseline_costs_what_it_earns() -> None:
    assert credits_after(RULE, 1, 0).balance == pytest.approx(24)
    assert credits_after(RULE, 48, 0).balance == 576
    assert credits_after(RULE, 5, 0.4, earned=100).balance == pytest.approx(100)
    assert credits_after(RULE, 1, 1.4, earned=100).balance == pytest.approx(100 + 24 - 84)


def test_launch_credits_go_first() -> None:
    rule = replace(RULE, launch_credits=60.0)
    found = credits_after(rule, 0.5, 1.0, earned=5)  # 30 used, 12 earned
    assert (found.launch, found.earned) == (pytest.approx(30), pytest.approx(17))


def test_an_unlimited_one_goes_on_pays_back_and_is_charged_beyond_a_day() -> None:
    rule = replace(RULE, unlimited=True)
    found = credits_after(rule, 1, 2.0, earned=10)  # 120 used, 24 earned
    assert (found.balance, found.surplus, found.charged) == (0, pytest.approx(86), 0)
    back = settled(rule, found, 50, 0)
    assert (back.balance, back.surplus) == (0, pytest.approx(36))
    assert settled(rule, back, 40, 0).balance == pytest.approx(4)
    far = settled(rule, found, 0, 1000)
    assert (far.surplus, far.charged) == (576, pytest.approx(86 + 1000 - 576))
    assert allowed_milli(rule, far) == 2000


def test_what_may_be_used_fades_to_the_baseline() -> None:
    allowed = [allowed_milli(RULE, replace(first(RULE, START, 0), earned=e)) for e in (100, 8, 4, 1, 0)]
    assert allowed == [2000, 2000, 1200, 600, 400]


def test_time_away_is_made_up_for_and_a_new_boot_only_earns() -> None:
    before = replace(first(RULE, START, 0), earned=100.0)
    assert after(RULE, before, seen(2, 1.0), 2 * HOUR_MS).balance == pytest.approx(100 + 48 - 120)
    booted = replace(before, at_us=5 * HOUR_US, cpu_us=10)
    assert after(RULE, booted, seen(1, 1.0), HOUR_MS).balance == pytest.approx(124)


def test_a_scaled_clock_spends_as_fast_as_it_earns() -> None:
    before = replace(first(RULE, START, 0), earned=100.0)
    found = after(RULE, before, seen(1 / 60, 1.4), HOUR_MS)  # a real minute of a clock sixty times as fast
    assert found.balance == pytest.approx(100 + 24 - 84)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=30), st.booleans())
def test_no_balance_leaves_its_bounds(steps: list[tuple[float, float]], unlimited: bool) -> None:
    rule = replace(RULE, launch_credits=30.0, unlimited=unlimited)
    credits = first(rule, START, 0)
    for earned, used in steps:
        before, credits = credits, settled(rule, credits, earned, used)
        assert 0 <= credits.earned <= rule.credits_max
        assert 0 <= credits.launch <= before.launch
        assert 0 <= credits.surplus <= rule.credits_max
        assert credits.charged >= before.charged
        assert unlimited or credits.surplus == credits.charged == 0
        assert rule.baseline_milli <= allowed_milli(rule, credits) <= rule.vcpu_milli


# --- the part of control --------------------------------------------------------------------------------------------


class Slots:
    """The Usages port: what was told to instances, and kept of them."""

    def __init__(self, held: bool = True) -> None:
        self.caps: list[tuple[str, int]] = []
        self.kept: dict[str, Credits] = {}
        self.held = held

    def read(self) -> list[InstanceUsage]:
        return []

    def throttle(self, instance_id: str, vcpu_milli: int) -> bool:
        self.caps.append((instance_id, vcpu_milli))
        return self.held

    def remember(self, instance_id: str, credits: Credits) -> None:
        self.kept[instance_id] = credits

    def recall(self, instance_id: str) -> Credits | None:
        return self.kept.get(instance_id)


TYPES = InstanceTypes(
    {"ml.t2.medium": InstanceType("ml.t2.medium", 2, 4096, cpu_baseline_percent=20, launch_credits=8)}
)


def heard(credits: BurstCredits, minutes: float, cores: float, **changes: Any) -> dict[str, float]:
    """After so many minutes of so much CPU since the start: the metrics of /aws/sagemaker/Endpoints by name."""
    usage = replace(seen(minutes / 60, cores), **changes)
    found = credits.hear({"i-1": Watched(START, usage)}, int(minutes * 60_000))
    return {m.metric.name: m.summary.total for m in found if m.metric.namespace == "AWS/EC2"}


def test_an_instance_is_throttled_when_its_credits_end_and_let_go_when_they_are_back() -> None:
    slots = Slots()
    credits = BurstCredits(slots, TYPES)
    assert heard(credits, 0, 0) == {
        "CPUCreditUsage": 0, "CPUCreditBalance": 8, "CPUSurplusCreditBalance": 0, "CPUSurplusCreditsCharged": 0
    }  # fmt: skip
    found = heard(credits, 10, 1.0)
    assert (found["CPUCreditUsage"], found["CPUCreditBalance"]) == (pytest.approx(10), pytest.approx(2))
    heard(credits, 30, 1.0)
    assert slots.caps == [("i-1", 2000), ("i-1", 800), ("i-1", 400)]
    heard(credits, 60, 0.5)  # its counter stands still for half an hour
    assert slots.caps[-1] == ("i-1", 2000)


def test_a_restarted_control_goes_on_with_what_was_kept() -> None:
    slots = Slots()
    heard(BurstCredits(slots, TYPES), 0, 0)
    found = heard(BurstCredits(slots, TYPES), 10, 1.0)
    assert found["CPUCreditBalance"] == pytest.approx(2)


def test_what_nothing_can_hold_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    slots = Slots(held=False)
    credits = BurstCredits(slots, TYPES)
    for minutes in (0, 1, 2):
        heard(credits, minutes, 0)
    assert len(slots.caps) == 3
    assert len(caplog.records) == 1


def test_other_types_have_no_credits() -> None:
    credits = BurstCredits(Slots(), TYPES)
    assert heard(credits, 1, 1.0, instance_type="ml.m5.large") == {}
    assert heard(credits, 1, 1.0, instance_type="ml.odd.type") == {}


# --- admission by the model server ----------------------------------------------------------------------------------


class Asking:
    """A connection, as far as admission looks at it."""

    def __init__(self) -> None:
        self.alive = True


def test_requests_wait_while_the_process_is_ahead_of_its_cpu_time() -> None:
    used, served = [0.0], []

    def serve(connection: Any, data: bytes) -> None:
        served.append(data)
        used[0] += 0.03  # seconds of CPU

    async def scenario() -> Mapping[bytes, float]:
        loop = asyncio.get_running_loop()
        pace = Pace(loop, serve, lambda: used[0])
        pace.set(500)
        await asyncio.sleep(0.02)  # earns 10 ms
        begun = loop.time()
        gone = Asking()
        for name in (b"1", b"gone", b"2", b"3"):
            assert pace.take(cast(Any, gone if name == b"gone" else Asking()), name)
        gone.alive = False
        assert served == [b"1"]
        while len(served) < 3:
            await asyncio.sleep(0.005)
            assert loop.time() - begun < 5
        return {name: loop.time() - begun for name in served}

    took = asyncio.run(scenario())
    assert served == [b"1", b"2", b"3"]
    assert took[b"3"] >= 0.09  # 60 ms of CPU at half a core, less the 10 ms that were there


def test_too_many_that_wait_are_refused_and_a_pace_is_read_strictly() -> None:
    async def scenario() -> bool:
        pace = Pace(asyncio.get_running_loop(), lambda connection, data: None, lambda: 1.0)
        pace._room_s = -1e9
        assert all(pace.take(cast(Any, Asking()), b"") for _ in range(HELD_MAX))
        assert pace._timer is not None
        pace._timer.cancel()
        return pace.take(cast(Any, Asking()), b"")

    assert asyncio.run(scenario()) is False
    assert read_pace(b'{"vcpu_milli": 400}') == 400
    for body in (
        b"",
        b"[]",
        b"3",
        b'{"vcpu_milli": 0}',
        b'{"vcpu_milli": true}',
        b'{"vcpu_milli": 1.5}',
        b"[" * 10_000,
    ):
        with pytest.raises(PaceError):
            read_pace(body)
