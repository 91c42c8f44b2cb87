"""Event patterns: which events a rule picks. Pure; what EventBridge documents as content filtering.

A pattern is an object of the event's own form whose leaves are lists of what is allowed: plain values, or
{"prefix": …}, {"suffix": …}, {"equals-ignore-case": …}, {"wildcard": …}, {"anything-but": …}, {"numeric": [">", 0]},
{"exists": true}, {"cidr": …}. "$or" is a list of patterns, of which one must match.
"""

from __future__ import annotations

import ipaddress
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PATTERN_CHARS_MAX = 4_096
_MISSING = object()
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Check = Callable[[Any], bool]


class PatternError(ValueError):
    """A pattern that cannot be read; the message says where, for people."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a field may be. `absent`: it may be missing."""

    checks: tuple[Check, ...]
    absent: bool = False
    present: bool = False  # anything will do

    def matches(self, value: Any) -> bool:
        """Whether a field's value (or one of a list's) is allowed."""
        if value is _MISSING:
            return self.absent
        if self.present and not isinstance(value, Mapping):
            return True
        values = value if isinstance(value, list) else [value]
        return any(check(one) for one in values for check in self.checks)


@dataclass(frozen=True, slots=True)
class Pattern:
    """All of these fields must match, and one of each list of choices."""

    fields: tuple[tuple[str, Leaf | Pattern], ...]
    choices: tuple[tuple[Pattern, ...], ...] = ()

    def matches(self, event: Any) -> bool:
        """Whether an event is picked."""
        for name, wanted in self.fields:
            value = event.get(name, _MISSING) if isinstance(event, Mapping) else _MISSING
            if isinstance(wanted, Leaf):
                if not wanted.matches(value):
                    return False
            elif not _any_of(wanted, value):
                return False
        return all(any(choice.matches(event) for choice in choices) for choices in self.choices)


def _any_of(wanted: Pattern, value: Any) -> bool:
    """Of a list of objects, one must match."""
    if isinstance(value, list):
        return any(wanted.matches(one) for one in value)
    return wanted.matches(value)


def parse_pattern(text: str) -> Pattern:
    """The pattern of a JSON text. Raises PatternError."""
    if len(text) > PATTERN_CHARS_MAX:
        raise PatternError(f"it has more than {PATTERN_CHARS_MAX} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PatternError(f"it is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise PatternError("it must be an object")
    if not found:
        raise PatternError("it must not be empty")
    return _pattern(found, "")


def _pattern(found: Mapping[str, Any], place: str) -> Pattern:
    fields: list[tuple[str, Leaf | Pattern]] = []
    choices: list[tuple[Pattern, ...]] = []
    for name, value in found.items():
        where = f"{place}.{name}" if place else name
        if name == "$or":
            choices.append(_choices(value, where))
        elif isinstance(value, dict):
            if not value:
                raise PatternError(f"{where} must not be empty")
            fields.append((name, _pattern(value, where)))
        elif isinstance(value, list):
            fields.append((name, _leaf(value, where)))
        else:
            raise PatternError(f"{where} must be an object or an array")
    return Pattern(tuple(fields), tuple(choices))


def _choices(value: Any, where: str) -> tuple[Pattern, ...]:
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, dict) and one for one in value):
        raise PatternError(f"{where} must be an array of at least two objects")
    return tuple(_pattern(one, f"{where}[{n}]") for n, one in enumerate(value))


def _leaf(values: Sequence[Any], where: str) -> Leaf:
    if not values:
        raise PatternError(f"{where} must not be an empty array")
    checks: list[Check] = []
    absent = present = False
    for value in values:
        if isinstance(value, dict) and "exists" in value:
            if len(value) != 1 or not isinstance(value["exists"], bool):
                raise PatternError(f"{where}: exists must be true or false")
            present, absent = present or value["exists"], absent or not value["exists"]
        elif isinstance(value, list):
            raise PatternError(f"{where} must not hold an array")
        else:
            checks.append(_matcher(value, where) if isinstance(value, dict) else _equal(value))
    return Leaf(tuple(checks), absent, present)


def _equal(wanted: Any) -> Check:
    """The same value of the same sort: 1 is 1.0, and neither is true."""
    if isinstance(wanted, bool) or wanted is None:
        return lambda value: value is wanted
    if isinstance(wanted, int | float):
        return lambda value: _is_number(value) and value == wanted
    return lambda value: isinstance(value, str) and value == wanted


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _matcher(found: Mapping[str, Any], where: str) -> Check:
    if len(found) != 1:
        raise PatternError(f"{where}: a matcher has exactly one key, not {len(found)}")
    ((kind, wanted),) = found.items()
    if kind == "numeric":
        return _numeric(wanted, where)
    if kind == "anything-but":
        return _anything_but(wanted, where)
    if kind == "cidr":
        return _cidr(wanted, where)
    return _text(kind, wanted, where)


def _text(kind: str, wanted: Any, where: str) -> Check:
    """The matchers of texts."""
    ignoring = kind in ("prefix", "suffix") and isinstance(wanted, dict) and set(wanted) == {"equals-ignore-case"}
    told = wanted["equals-ignore-case"] if ignoring else wanted
    if kind not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
        raise PatternError(f"{where}: unrecognized match type {kind}")
    if not isinstance(told, str) or (not told and kind == "wildcard"):
        raise PatternError(f"{where}: {kind} must be a text")
    if kind == "equals-ignore-case":
        return lambda value: isinstance(value, str) and value.lower() == told.lower()
    if kind == "wildcard":
        if "**" in told:
            raise PatternError(f"{where}: consecutive wildcard characters")
        expression = re.compile(_wildcard(told), re.DOTALL)
        return lambda value: isinstance(value, str) and expression.fullmatch(value) is not None
    fold: Callable[[str], str] = str.lower if ignoring else str
    test: Callable[[str, str], bool] = str.startswith if kind == "prefix" else str.endswith
    return lambda value: isinstance(value, str) and test(fold(value), fold(told))


def _wildcard(text: str) -> str:
    """`*` is anything, `\\*` a star. Atomic and lazy as it can be: each star stops at the first place that fits."""
    parts = re.split(r"(\\[*\\]|\*)", text)
    told = [".*" if part == "*" else re.escape(part[1:] if part[:1] == "\\" else part) for part in parts]
    stars = [n for n, part in enumerate(parts) if part == "*"]
    if len(stars) < 2:
        return "".join(told)
    # A star that is followed by a text need never be given back: the first place where that text fits is the best.
    found, last = [], stars[-1]
    for n, part in enumerate(told):
        if n in stars and n != last and n + 1 < len(told) and told[n + 1]:
            found.append(f"(?>.*?{told[n + 1]})")
        elif n - 1 in stars and n - 1 != last and part:
            continue
        else:
            found.append(part)
    return "".join(found)


def _numeric(wanted: Any, where: str) -> Check:
    pairs = list(zip(wanted[::2], wanted[1::2], strict=False)) if isinstance(wanted, list) else []
    good = all(isinstance(sign, str) and sign in _SIGNS and _is_number(number) for sign, number in pairs)
    if not pairs or len(wanted) % 2 or len(pairs) > 2 or not good:
        raise PatternError(f'{where}: numeric must be as [">", 0, "<=", 5]')
    return lambda value: _is_number(value) and all(_SIGNS[sign](value, number) for sign, number in pairs)


def _anything_but(wanted: Any, where: str) -> Check:
    if isinstance(wanted, dict):
        kinds = set(wanted)
        if len(kinds) != 1 or not kinds <= {"prefix", "suffix", "equals-ignore-case", "wildcard"}:
            raise PatternError(f"{where}: anything-but takes prefix, suffix, equals-ignore-case or wildcard")
        ((kind, told),) = wanted.items()
        excluded = [_text(kind, one, where) for one in (told if isinstance(told, list) else [told])]
    else:
        values = wanted if isinstance(wanted, list) else [wanted]
        if not values or not all(isinstance(one, str) or _is_number(one) for one in values):
            raise PatternError(f"{where}: anything-but must name texts or numbers")
        excluded = [_equal(one) for one in values]
    if not excluded:
        raise PatternError(f"{where}: anything-but must not be empty")
    return lambda value: not any(check(value) for check in excluded)


def _cidr(wanted: Any, where: str) -> Check:
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except (ValueError, TypeError):
        raise PatternError(f"{where}: cidr must be as 10.0.0.0/24") from None

    def check(value: Any) -> bool:
        try:
            return ipaddress.ip_address(value) in network
        except (ValueError, TypeError):
            return False

    return check
