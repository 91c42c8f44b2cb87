"""Filter patterns of the logs API: what a message must be to pass, and what is extracted from it. Pure.

Four forms: terms (`ERROR "not found" -debug ?this ?that`); a regular expression (`%...%`, also as a term); columns of
a line (`[ip, user, ..., status = 4*, bytes > 1000]`); properties of a JSON message (`{ $.a.b[0] = "x*" && $.c > 1 }`).
Matching regards case. What cannot be read is refused with the place where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eyrie.decide.regex import BadRegex, Regex

TERMS_MAX = 100
DEPTH_MAX = 32
_TERM = re.compile(r'([-?]?)(?:"((?:[^"\\]|\\.)*)"|%([^%]*)%|(\S+))')
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\[([^\]]*)\]|(\S+)')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class UnreadablePattern(ValueError):
    """A pattern without meaning; the message is for people."""


class Pattern(Protocol):
    """What a filter pattern means."""

    def match(self, text: str) -> Mapping[str, str] | None:
        """What it extracts from a message that passes; None for one that does not."""
        ...

    @property
    def variables(self) -> frozenset[str]:
        """What it may extract; a metric's value and dimensions may name these."""
        ...


Compared = Callable[[Any], bool]


def parse_pattern(pattern: str) -> Pattern:
    """The meaning of a pattern. Raises UnreadablePattern."""
    stripped = pattern.strip()
    if stripped.startswith("{"):
        return _json(stripped)
    if stripped.startswith("["):
        return _columns(stripped)
    return _terms(stripped)


# --- terms ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What a message must contain, may not contain, and must contain one of."""

    needed: tuple[Compared, ...] = ()
    excluded: tuple[Compared, ...] = ()
    alternatives: tuple[Compared, ...] = ()

    def match(self, text: str) -> Mapping[str, str] | None:
        """Nothing is extracted."""
        if any(found(text) for found in self.excluded) or not all(found(text) for found in self.needed):
            return None
        return {} if not self.alternatives or any(found(text) for found in self.alternatives) else None

    @property
    def variables(self) -> frozenset[str]:
        """None."""
        return frozenset()


def _terms(text: str) -> Terms:
    if text.count('"') - text.count('\\"') & 1:
        raise UnreadablePattern("a quote is not closed")
    kinds: dict[str, list[Compared]] = {"": [], "-": [], "?": []}
    for found in _TERM.finditer(text):
        sign, phrase, regex, word = found.groups()
        if regex is not None:
            kinds[sign].append(_searched(regex))
        else:
            kinds[sign].append(_contains(word if word is not None else phrase.replace('\\"', '"')))
    if sum(map(len, kinds.values())) > TERMS_MAX:
        raise UnreadablePattern(f"a pattern has at most {TERMS_MAX} terms")
    return Terms(tuple(kinds[""]), tuple(kinds["-"]), tuple(kinds["?"]))


def _contains(term: str) -> Compared:
    return lambda text: term in text


def _searched(regex: str) -> Compared:
    """Whether an expression occurs. Raises UnreadablePattern for one that cannot be read."""
    try:
        compiled = Regex(regex)
    except BadRegex as error:
        raise UnreadablePattern(f"%{regex}%: {error}") from None
    return lambda text: isinstance(text, str) and compiled.found(text)


# --- comparisons, of columns and of properties ------------------------------------------------------------------------


def _compared(sign: str, text: str, quoted: bool) -> Compared:
    """A comparison with a value as written. Raises UnreadablePattern."""
    number = float(text) if not quoted and _NUMBER.fullmatch(text) else None
    if sign in ("=", "!="):
        same = _same(text, number)
        return same if sign == "=" else lambda value: value is not None and not same(value)
    if number is None:
        raise UnreadablePattern(f"{sign} compares with numbers, not with {text!r}")
    limit = number
    ordered: dict[str, Callable[[float], bool]] = {
        "<": lambda value: value < limit,
        ">": lambda value: value > limit,
        "<=": lambda value: value <= limit,
        ">=": lambda value: value >= limit,
    }
    compare = ordered[sign]

    def holds(value: Any) -> bool:
        known = _number(value)
        return known is not None and compare(known)

    return holds


def _same(text: str, number: float | None) -> Compared:
    if number is not None:
        return lambda value: _number(value) == number
    if "*" in text:
        wild = re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
        return lambda value: isinstance(value, str) and wild.fullmatch(value) is not None
    return lambda value: value == text


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return None


# --- what columns and properties share: a reader of && || ( ) ---------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(?P<sign>&&|\|\||!=|<=|>=|[()=<>])|(?P<path>\$(?:\.?[A-Za-z0-9_\-@:]+|\.?\[(?:\d+|\"[^\"]*\"|'[^']*')\]|\.)*)"
    r"|(?P<text>\"(?:[^\"\\]|\\.)*\")|(?P<regex>%[^%]*%)|(?P<word>[^\s&|()=<>!,\[\]{}\"%]+))"
)
Test = Callable[[Any], bool]


class _Reader:
    """Tokens of a condition, and where each stands."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise UnreadablePattern(f"{text[at:].strip()[:20]!r} is not expected at position {at}")
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind], found.start(kind)))
            at = found.end()
        self._next = 0

    @property
    def kind(self) -> str:
        """Of the next token; "" at the end."""
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    @property
    def word(self) -> str:
        """The next token; "" at the end."""
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def take(self) -> str:
        """The next token, passed. Raises UnreadablePattern at the end."""
        if not self.kind:
            raise UnreadablePattern("it ends too early")
        self._next += 1
        return self._tokens[self._next - 1][1]

    def stray(self) -> UnreadablePattern:
        """What to raise for a next token that is not expected."""
        if not self.kind:
            return UnreadablePattern("it ends too early")
        return UnreadablePattern(f"{self.word!r} is not expected at position {self._tokens[self._next][2]}")

    def either(self, one: Callable[[], Test], depth: int = 0) -> Test:
        """Conditions with ||, && and parentheses around what `one` reads."""
        if depth > DEPTH_MAX:
            raise UnreadablePattern(f"parentheses go at most {DEPTH_MAX} deep")
        tests = [self._both(one, depth)]
        while self.word == "||":
            self.take()
            tests.append(self._both(one, depth))
        return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)

    def _both(self, one: Callable[[], Test], depth: int) -> Test:
        tests = [self._part(one, depth)]
        while self.word == "&&":
            self.take()
            tests.append(self._part(one, depth))
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)

    def _part(self, one: Callable[[], Test], depth: int) -> Test:
        if self.word != "(":
            return one()
        self.take()
        inner = self.either(one, depth + 1)
        if self.take() != ")":
            raise UnreadablePattern("a parenthesis is not closed")
        return inner

    def comparison(self) -> Compared:
        """`= value`, `> 3`, ..."""
        sign = self.take()
        if sign not in ("=", "!=", "<", ">", "<=", ">="):
            raise UnreadablePattern(f"{sign!r} is no comparison")
        if self.kind not in ("text", "regex", "word"):
            raise self.stray()
        kind, text = self.kind, self.take()
        if kind == "regex":
            found = _searched(text[1:-1])
            if sign not in ("=", "!="):
                raise UnreadablePattern(f"{sign} compares with numbers, not with an expression")
            return found if sign == "=" else lambda value: value is not None and not found(value)
        return _compared(sign, text[1:-1].replace('\\"', '"') if kind == "text" else text, kind == "text")


# --- properties of JSON ---------------------------------------------------------------------------------------------

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Properties:
    """A condition over a JSON message; the properties that it names are extracted."""

    test: Test
    paths: Mapping[str, Path]

    def match(self, text: str) -> Mapping[str, str] | None:
        """The named properties that are there."""
        if not text.lstrip().startswith(("{", "[")):
            return None
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not self.test(document):
            return None
        found = {name: at_path(document, path) for name, path in self.paths.items()}
        return {name: shown(value) for name, value in found.items() if value is not _ABSENT}

    @property
    def variables(self) -> frozenset[str]:
        """Any property may be named."""
        return frozenset({"$"})


_ABSENT = object()


def _json(text: str) -> Properties:
    if not text.endswith("}"):
        raise UnreadablePattern("{ is not closed by }")
    reader = _Reader(text[1:-1])
    paths: dict[str, Path] = {}

    def one() -> Test:
        if reader.kind != "path":
            raise reader.stray()
        name = reader.take()
        paths[name] = json_path(name)
        return _property(reader, paths[name])

    test = reader.either(one)
    if reader.kind:
        raise reader.stray()
    return Properties(test, paths)


def _property(reader: _Reader, path: Path) -> Test:
    if reader.kind == "word" and reader.word.upper() in ("IS", "NOT"):
        words = f"{reader.take()} {reader.take()}".upper()
        tests: dict[str, Test] = {
            "IS NULL": lambda value: value is None,
            "IS TRUE": lambda value: value is True,
            "IS FALSE": lambda value: value is False,
            "NOT EXISTS": lambda value: value is _ABSENT,
        }
        if words not in tests:
            raise UnreadablePattern(f"{words!r} is none of IS NULL, IS TRUE, IS FALSE, NOT EXISTS")
        plain = tests[words]
        return lambda document: plain(at_path(document, path))
    compared = reader.comparison()

    def holds(document: Any) -> bool:
        value = at_path(document, path)
        return value is not _ABSENT and compared(shown(value) if isinstance(value, bool) else value)

    return holds


def json_path(name: str) -> Path:
    """The steps of `$.a.b[0]["c d"]`. Raises UnreadablePattern."""
    if not name.startswith("$"):
        raise UnreadablePattern(f"{name!r} is no property: one begins with $.")
    steps: list[str | int] = []
    for found in re.finditer(r"\.?\[(\d+)\]|\.?\[[\"']([^\"']*)[\"']\]|\.?([^.\[\]]+)|(.)", name[1:]):
        if found[4]:
            raise UnreadablePattern(f"{name!r} is no property: {found[4]!r} is not expected")
        steps.append(int(found[1]) if found[1] else found[2] if found[2] is not None else found[3])
    return tuple(steps)


def at_path(document: Any, path: Path) -> Any:
    """The value at a path, or something that `is_there` denies."""
    for step in path:
        if isinstance(document, dict) and isinstance(step, str):
            document = document.get(step, _ABSENT)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return _ABSENT
    return document


def property_of(text: str, name: str) -> str | None:
    """A property of a JSON message, by its path; None where it is not there."""
    try:
        value = at_path(json.loads(text), json_path(name))
    except (ValueError, RecursionError):
        return None
    return None if value is _ABSENT or value is None else shown(value)


def shown(value: Any) -> str:
    """A JSON value as text."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


# --- columns of a line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Columns:
    """Conditions over the words of a line, by position; "..." in `names` stands for any number of words."""

    names: tuple[str, ...]
    tests: Mapping[str, Test]

    def match(self, text: str) -> Mapping[str, str] | None:
        """The words by `$name`; unnamed ones by `$1`, `$2` ..."""
        words = _words(text)
        if "..." in self.names:
            missing = len(words) - len(self.names) + 1
            if missing < 0:
                return None
            at = self.names.index("...")
            names: Sequence[str] = (*self.names[:at], *[""] * missing, *self.names[at + 1 :])
        else:
            names = self.names
        if len(words) != len(names):
            return None
        found = {name or str(n): word for n, (name, word) in enumerate(zip(names, words, strict=True), 1)}
        if all(test(found) for test in self.tests.values()):
            return {f"${name}": word for name, word in found.items()}
        return None

    @property
    def variables(self) -> frozenset[str]:
        """The names of the columns."""
        return frozenset(f"${name}" for name in self.names if name)


def _words(text: str) -> list[str]:
    """The words of a line; what is quoted or in brackets is one."""
    return [next(part for part in found if part is not None) for found in map(_groups, _WORD.finditer(text))]


def _groups(found: re.Match[str]) -> tuple[str | None, ...]:
    return found.groups()


def _columns(text: str) -> Columns:
    if not text.endswith("]"):
        raise UnreadablePattern("[ is not closed by ]")
    names: list[str] = []
    tests: dict[str, Test] = {}
    for number, column in enumerate(_split(text[1:-1]), 1):
        written = column.strip()
        if not written and column != text[1:-1]:
            names.append("")
            continue
        if written == "...":
            names.append("...")
            continue
        found = re.match(r"\w[\w.\-]*", written)
        if found is None:
            raise UnreadablePattern(f"{column.strip()!r}: a column begins with its name")
        name = found[0]
        names.append(name)
        if column.strip() != name:
            tests[f"{number}"] = _column(name, column)
    if names.count("...") > 1 or len(set(names) - {""}) < len([n for n in names if n]):
        raise UnreadablePattern("columns have names of their own, and there is one ... at most")
    return Columns(tuple(names), tests)


def _column(name: str, text: str) -> Test:
    reader = _Reader(text)

    def one() -> Test:
        if reader.kind != "word" or reader.take() != name:
            raise UnreadablePattern(f"the conditions of the column {name!r} must be about it")
        compared = reader.comparison()
        return lambda found: compared(found[name])

    test = reader.either(one)
    if reader.kind:
        raise reader.stray()
    return test


def _split(text: str) -> list[str]:
    """The columns: split at commas that are not in quotes or expressions."""
    parts, quote, start = [], "", 0
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in ('"', "%"):
            quote = character
        elif character == ",":
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]
