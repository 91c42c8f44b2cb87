"""The grammar of metric math: from text to a tree. Pure; `metric_math` says what a tree means.

Strongest first: ( ) and calls, unary minus, ^ (to the right), * /, + -, comparisons, && and AND, || and OR.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

DEPTH_MAX = 64
TOKENS_MAX = 1_000


class MathError(ValueError):
    """An expression that has no meaning; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Number:
    """3.5"""

    value: float


@dataclass(frozen=True, slots=True)
class Text:
    """'…' or "…" """

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """m1, or a word as REPEAT or ASC"""

    name: str


@dataclass(frozen=True, slots=True)
class Array:
    """[m1, m2]"""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """left sign right"""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Call:
    """FUNCTION(arguments)"""

    function: str
    arguments: tuple[Node, ...]


Node = Number | Text | Name | Array | Operation | Call

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")|(?P<sign><=|>=|==|!=|&&|\|\||[-+*/^<>()\[\],]))"
)
_LEVELS = (("||",), ("&&",), ("<", ">", "<=", ">=", "==", "!="), ("+", "-"), ("*", "/"))
_WORDS = {"AND": "&&", "OR": "||"}


def parse(expression: str) -> Node:
    """The tree of an expression. Raises MathError saying where it cannot be read."""
    reader = _Reader(_tokens(expression))
    node = reader.level(0)
    if reader.kind:
        raise MathError(f"{reader.word!r} is not expected there")
    return node


def names_of(node: Node) -> frozenset[str]:
    """Every name that an expression speaks of."""
    match node:
        case Name(name):
            return frozenset((name,))
        case Operation(_, left, right):
            return names_of(left) | names_of(right)
        case Array(items) | Call(_, items):
            return frozenset().union(*map(names_of, items))
    return frozenset()


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise MathError(f"{text[at : at + 20]!r} cannot be read")
        kind = str(token.lastgroup)
        word = token[kind]
        if kind == "name" and word in _WORDS:
            kind, word = "sign", _WORDS[word]
        found.append((kind, word))
        at = token.end()
    if not found:
        raise MathError("the expression is empty")
    if len(found) > TOKENS_MAX:
        raise MathError(f"the expression has more than {TOKENS_MAX} parts")
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def kind(self) -> str:
        """Of the token that comes; "" at the end."""
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    @property
    def word(self) -> str:
        """The token that comes."""
        return self._tokens[self._at][1] if self._at < len(self._tokens) else "the end"

    def _take(self, *signs: str) -> str:
        if self.kind == "sign" and self.word in signs:
            self._at += 1
            return self._tokens[self._at - 1][1]
        return ""

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise MathError(f"{sign!r} is expected instead of {self.word!r}")

    def level(self, number: int) -> Node:
        """An operation of this level or a stronger one."""
        if number == len(_LEVELS):
            return self._power()
        node = self.level(number + 1)
        while sign := self._take(*_LEVELS[number]):
            node = Operation(sign, node, self.level(number + 1))
        return node

    def _power(self) -> Node:
        if self._take("-"):
            return self._deeper(lambda: Operation("-", Number(0.0), self._power()))
        node = self._atom()
        if self._take("^"):
            return self._deeper(lambda: Operation("^", node, self._power()))
        return node

    def _deeper(self, read: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise MathError("the expression is nested too deeply")
        node = read()
        self._depth -= 1
        return node

    def _atom(self) -> Node:
        kind, word = self.kind, self.word
        if self._take("("):
            node = self._deeper(lambda: self.level(0))
            self._need(")")
            return node
        if self._take("["):
            return Array(self._list("]"))
        if kind in ("", "sign"):
            raise MathError(f"a value is expected instead of {word!r}")
        self._at += 1
        if kind == "number":
            return Number(float(word))
        if kind == "text":
            return Text(word[1:-1])
        if self._take("("):
            return Call(word.upper(), self._list(")"))
        return Name(word)

    def _list(self, end: str) -> tuple[Node, ...]:
        if self._take(end):
            return ()
        items = [self._deeper(lambda: self.level(0))]
        while self._take(","):
            items.append(self._deeper(lambda: self.level(0)))
        self._need(end)
        return tuple(items)
