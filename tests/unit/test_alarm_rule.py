"""The rules of composite alarms: grammar, truth, and bounds; and the bands of anomaly detection."""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyrie.decide.alarm_bands import DAY_MS, HOUR_MS, POINTS_MIN, Training, train
from eyrie.decide.alarm_rule import (
    AtLeast,
    Both,
    Constant,
    Either,
    Is,
    Not,
    Rule,
    RuleError,
    children_of,
    holds,
    in_cycle,
    parse_rule,
)
from eyrie.domain.alarms import AlarmState

NAMES = st.text("abcXYZ09-_. :/é", min_size=1, max_size=12).filter(lambda name: name.strip() == name)
LEAVES = st.one_of(
    st.builds(Is, NAMES, st.sampled_from(AlarmState)),
    st.builds(Constant, st.booleans()),
    st.builds(
        lambda alarms, state, negated: AtLeast(1, False, state, negated, tuple(alarms)),
        st.lists(NAMES, min_size=1, max_size=3),
        st.sampled_from(AlarmState),
        st.booleans(),
    ),
)
RULES: st.SearchStrategy[Rule] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda rules: Both(tuple(rules)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda rules: Either(tuple(rules)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=12,
)


def written(rule: Rule) -> str:
    match rule:
        case Is(alarm, state):
            return f'{state}("{alarm}")'
        case Constant(value):
            return str(value).upper()
        case Not(inner):
            return f"NOT ({written(inner)})"
        case AtLeast(count=count, state=state, negated=negated, alarms=alarms):
            names = ", ".join(f'"{alarm}"' for alarm in alarms)
            return f"AT_LEAST({count}, {'NOT ' if negated else ''}{state}, ({names}))"
        case Both(rules):
            return " AND ".join(f"({written(part)})" for part in rules)
        case Either(rules):
            return " OR ".join(f"({written(part)})" for part in rules)


def truth(rule: Rule, states: dict[str, AlarmState]) -> bool:
    """What a rule means, said in another way."""
    match rule:
        case Is(alarm, state):
            return states.get(alarm, AlarmState.INSUFFICIENT_DATA) == state
        case Constant(value):
            return value
        case Not(inner):
            return not truth(inner, states)
        case AtLeast(count=count, state=state, negated=negated, alarms=alarms):
            return sum((states.get(a, AlarmState.INSUFFICIENT_DATA) == state) != negated for a in alarms) >= count
        case Both(rules):
            return min(truth(part, states) for part in rules)
        case Either(rules):
            return max(truth(part, states) for part in rules)


@given(RULES, st.data())
def test_a_written_rule_reads_back_and_means_the_same(rule: Rule, data: st.DataObject) -> None:
    names = sorted(set(children_of(rule)))
    states = {name: data.draw(st.sampled_from(AlarmState)) for name in names[1:]}  # the first does not exist
    read = parse_rule(written(rule))
    assert holds(read, states.get) is truth(rule, states)
    assert list(children_of(read)) == list(children_of(rule))


@given(st.text('ALRMOKNTD()", %\n', max_size=60))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    with contextlib.suppress(RuleError):
        assert isinstance(list(children_of(parse_rule(text))), list)


def test_not_binds_before_and_before_or() -> None:
    assert parse_rule("NOT TRUE AND FALSE OR TRUE") == Either(
        (Both((Not(Constant(True)), Constant(False))), Constant(True))
    )
    assert parse_rule("alarm(x) and ok(y)") == Both((Is("x", AlarmState.ALARM), Is("y", AlarmState.OK)))
    assert parse_rule("AT_LEAST(50%, NOT OK, (a, b, c))") == AtLeast(50, True, AlarmState.OK, True, ("a", "b", "c"))
    assert AtLeast(50, True, AlarmState.OK, True, ("a", "b", "c")).needed == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("ALARM(", "the name of an alarm is expected"),
        ("ALARM(a) ALARM(b)", "'ALARM' is not expected there"),
        ("ALARM(a) AND", "is expected instead of 'the end'"),
        ("WRONG(a)", "is expected instead of 'WRONG'"),
        ("(ALARM(a)", "')' is expected"),
        ("AT_LEAST(3, ALARM, (a, b))", "is more than there are"),
        ("AT_LEAST(x, ALARM, (a, b))", "a number or a percentage"),
        ("AT_LEAST(1, FINE, (a, b))", "a state is expected"),
        ("(" * 70 + "TRUE" + ")" * 70, "nested too deeply"),
        ("NOT " * 70 + "TRUE", "nested too deeply"),
        (" OR ".join(f"ALARM(a{n})" for n in range(101)), "101 alarms; 100 are the most"),
        (" OR ".join(["TRUE"] * 501), "more than 500 elements"),
    ],
)
def test_what_is_no_rule_is_told(text: str, told: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text)
    assert told in str(caught.value)


def test_an_alarm_may_not_depend_on_itself() -> None:
    children = {"a": frozenset({"b", "x"}), "b": frozenset({"c"}), "c": frozenset({"y"})}
    assert not in_cycle("a", children)
    assert in_cycle("a", {**children, "c": frozenset({"a"})})


def daily(days: int, noise: float = 1.0, **odd: Any) -> dict[int, float]:
    """A wave a day, a value every five minutes, with some outliers."""
    chance = random.Random(7)
    found = {}
    for n in range(days * 288):
        at_ms = n * 300_000
        found[at_ms] = 100 + 50 * math.sin(2 * math.pi * at_ms / DAY_MS) + chance.gauss(0, noise)
        if chance.random() < 0.02:
            found[at_ms] = 1_000.0
    return found


def test_a_band_knows_the_time_of_day_and_shrugs_off_outliers() -> None:
    band = train(daily(7))
    assert band is not None
    noon, night = 7 * DAY_MS + DAY_MS // 4, 7 * DAY_MS + 3 * DAY_MS // 4
    for at_ms, centre in ((noon, 150), (night, 50)):
        lower, upper = band.at(at_ms, 4)
        assert lower < centre < upper
        assert upper - lower < 40
    lower, upper = band.at(noon, 4)
    assert not lower < 50 < upper  # what is usual at night is odd at noon


def test_a_band_without_days_is_the_level() -> None:
    band = train({n * 60_000: 10.0 + n % 3 for n in range(120)})
    assert band is not None
    assert band.season_ms == 0
    lower, upper = band.at(10 * HOUR_MS, 3)
    assert lower < 10 < 12 < upper
    assert train({n * 60_000: 1.0 for n in range(POINTS_MIN - 1)}) is None


def test_a_band_follows_a_lasting_change_and_leaves_out_what_it_is_told() -> None:
    history = daily(7)
    raised = {at: value + (30 if at >= 6 * DAY_MS else 0) for at, value in history.items()}
    fast, slow = train(raised, Training(speed="FAST")), train(raised, Training(speed="SLOW"))
    assert fast is not None
    assert slow is not None
    assert fast.shift > 20 > slow.shift
    told = Training(excluded=((0, 5 * DAY_MS),))
    less = train(history, told)
    assert less is not None
    assert less.points == len([at for at in history if at >= 5 * DAY_MS])
