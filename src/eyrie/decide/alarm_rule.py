"""The rule of a composite alarm: its grammar, its truth, and when its actions are held back. Pure.

    ALARM("cpu") AND NOT (OK(latency) OR INSUFFICIENT_DATA("arn:aws:cloudwatch:…:alarm:errors"))
    AT_LEAST(2, ALARM, (a, "b", c))        AT_LEAST(50%, NOT OK, (a, b))

NOT binds stronger than AND, AND stronger than OR. An alarm that does not exist counts as INSUFFICIENT_DATA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from eyrie.domain.alarms import Alarm, AlarmState, CompositeRule, Suppression

CHILDREN_MAX = 100
ELEMENTS_MAX = 500
DEPTH_MAX = 64
_TOKEN = re.compile(r"\s*(?:(?P<text>\"[^\"]*\")|(?P<sign>[(),])|(?P<word>[^\s(),\"]+))")
_STATES = {str(state): state for state in AlarmState}


class RuleError(ValueError):
    """A rule that cannot be read; the message says where, for people."""


@dataclass(frozen=True, slots=True)
class Is:
    """ALARM("name"): an alarm, by name or ARN, is in a state."""

    alarm: str
    state: AlarmState


@dataclass(frozen=True, slots=True)
class Constant:
    """TRUE or FALSE"""

    value: bool


@dataclass(frozen=True, slots=True)
class Not:
    """NOT rule"""

    rule: Rule


@dataclass(frozen=True, slots=True)
class Both:
    """rule AND rule AND …"""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """rule OR rule OR …"""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """AT_LEAST(n, STATE, (…)): so many of these alarms, or such a share of them, are in a state (or are not)."""

    count: int
    percent: bool
    state: AlarmState
    negated: bool
    alarms: tuple[str, ...]

    @property
    def needed(self) -> int:
        """How many it takes."""
        return math.ceil(self.count * len(self.alarms) / 100) if self.percent else self.count


Rule = Is | Constant | Not | Both | Either | AtLeast
States = Callable[[str], AlarmState | None]  # of an alarm, by name or ARN


def parse_rule(expression: str) -> Rule:
    """The tree of a rule. Raises RuleError."""
    reader = _Reader(_tokens(expression))
    rule = reader.either()
    if reader.word:
        raise RuleError(f"{reader.word!r} is not expected there")
    children = set(children_of(rule))
    if len(children) > CHILDREN_MAX:
        raise RuleError(f"it speaks of {len(children)} alarms; {CHILDREN_MAX} are the most")
    return rule


def children_of(rule: Rule) -> Iterator[str]:
    """The alarms that a rule speaks of, as it names them, in its order."""
    match rule:
        case Is(alarm, _):
            yield alarm
        case AtLeast(alarms=alarms):
            yield from alarms
        case Not(inner):
            yield from children_of(inner)
        case Both(rules) | Either(rules):
            for part in rules:
                yield from children_of(part)


def holds(rule: Rule, states: States) -> bool:
    """Whether a rule is true."""
    match rule:
        case Is(alarm, state):
            return _state(states, alarm) is state
        case AtLeast(state=state, negated=negated, alarms=alarms):
            return sum((_state(states, alarm) is state) is not negated for alarm in alarms) >= rule.needed
        case Constant(value):
            return value
        case Not(inner):
            return not holds(inner, states)
        case Both(rules):
            return all(holds(part, states) for part in rules)
        case Either(rules):
            return any(holds(part, states) for part in rules)


def _state(states: States, alarm: str) -> AlarmState:
    return states(alarm) or AlarmState.INSUFFICIENT_DATA


def _tokens(expression: str) -> list[str]:
    found, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise RuleError(f"{text[at : at + 20]!r} cannot be read")
        found.append(token[0].strip())
        at = token.end()
    if not found:
        raise RuleError("it is empty")
    if len(found) > ELEMENTS_MAX * 8:
        raise RuleError(f"it has more than {ELEMENTS_MAX} elements")
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._elements = 0

    @property
    def word(self) -> str:
        """The token that comes; "" at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *words: str) -> str:
        if self.word.upper() in words:
            self._at += 1
            return self._tokens[self._at - 1].upper()
        return ""

    def _need(self, word: str) -> None:
        if not self._take(word):
            raise RuleError(f"{word!r} is expected instead of {self.word or 'the end'!r}")

    def either(self) -> Rule:
        """rule OR rule …"""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise RuleError("it is nested too deeply")
        rules = [self._both()]
        while self._take("OR"):
            rules.append(self._both())
        self._depth -= 1
        return rules[0] if len(rules) == 1 else Either(tuple(rules))

    def _both(self) -> Rule:
        rules = [self._negation()]
        while self._take("AND"):
            rules.append(self._negation())
        return rules[0] if len(rules) == 1 else Both(tuple(rules))

    def _negation(self) -> Rule:
        negations = 0
        while self._take("NOT"):
            negations += 1
            if negations > DEPTH_MAX:
                raise RuleError("it is nested too deeply")
        rule = self._atom()
        for _ in range(negations):
            rule = Not(rule)
        return rule

    def _atom(self) -> Rule:
        self._elements += 1
        if self._elements > ELEMENTS_MAX:
            raise RuleError(f"it has more than {ELEMENTS_MAX} elements")
        if self._take("("):
            rule = self.either()
            self._need(")")
            return rule
        word = self._take("TRUE", "FALSE", "AT_LEAST", *_STATES)
        if word in ("TRUE", "FALSE"):
            return Constant(word == "TRUE")
        if not word:
            wanted = "ALARM(…), OK(…), INSUFFICIENT_DATA(…), AT_LEAST(…), TRUE or FALSE"
            raise RuleError(f"{wanted} is expected instead of {self.word or 'the end'!r}")
        self._need("(")
        rule = self._at_least() if word == "AT_LEAST" else Is(self._name(), _STATES[word])
        self._need(")")
        return rule

    def _name(self) -> str:
        word = self.word
        if word in ("", "(", ")", ",", '""'):
            raise RuleError(f"the name of an alarm is expected instead of {word or 'the end'!r}")
        self._at += 1
        return word[1:-1] if word.startswith('"') else word

    def _at_least(self) -> AtLeast:
        number = re.fullmatch(r"(\d{1,3})(%?)", self.word)
        if number is None or not int(number[1]):
            raise RuleError(f"a number or a percentage is expected instead of {self.word or 'the end'!r}")
        self._at += 1
        self._need(",")
        negated = bool(self._take("NOT"))
        state = self._take(*_STATES)
        if not state:
            raise RuleError(f"a state is expected instead of {self.word or 'the end'!r}")
        self._need(",")
        self._need("(")
        alarms = [self._name()]
        while self._take(","):
            alarms.append(self._name())
        self._need(")")
        most = 100 if number[2] else len(alarms)
        if int(number[1]) > most:
            raise RuleError(f"AT_LEAST({number[0]}, …) is more than there are")
        return AtLeast(int(number[1]), bool(number[2]), _STATES[state], negated, tuple(alarms))


# --- what is held back ----------------------------------------------------------------------------------------------


def suppression(alarm: Alarm, rule: CompositeRule, suppressor: Alarm | None, now_ms: int) -> Suppression | None:
    """Why the actions of a composite alarm are held back now; None: they are not.

    While the suppressor is in ALARM, for the extension after it left, and for the wait after the alarm's own change,
    in which the suppressor may still follow.
    """
    if not rule.suppressor:
        return None
    before = alarm.suppression
    found = _held_back(alarm, rule, suppressor, now_ms)
    if found is None:
        return None
    by, reason = found
    since_ms = before.since_ms if before is not None and before.by == by else now_ms
    return Suppression(by, reason, since_ms)


def _held_back(alarm: Alarm, rule: CompositeRule, suppressor: Alarm | None, now_ms: int) -> tuple[str, str] | None:
    if suppressor is not None and suppressor.state is AlarmState.ALARM:
        return "Alarm", f"Actions suppressed by {suppressor.arn} in ALARM"
    if suppressor is not None and now_ms < suppressor.left_alarm_ms + rule.extension_s * 1000:
        return "ExtensionPeriod", f"Actions suppressed for {rule.extension_s} s after {suppressor.arn} left ALARM"
    if now_ms < alarm.transitioned_ms + rule.wait_s * 1000:
        return "WaitPeriod", f"Actions suppressed for {rule.wait_s} s, in which {rule.suppressor} may go into ALARM"
    return None


def in_cycle(name: str, children: Mapping[str, frozenset[str]]) -> bool:
    """Whether a composite alarm would depend on itself: `children` by the name of each composite alarm."""
    seen: set[str] = set()
    waiting = list(children.get(name, ()))
    while waiting:
        child = waiting.pop()
        if child == name:
            return True
        if child not in seen:
            seen.add(child)
            waiting.extend(children.get(child, ()))
    return False
