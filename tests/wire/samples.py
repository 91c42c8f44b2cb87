"""Deterministic values for shapes: what a model allows, drawn with a seeded random.Random. Shared by the wire tests."""

from __future__ import annotations

import random
import re
import warnings
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as sre  # type: ignore[attr-defined]
from typing import Any

from eyrie.wire import patterns
from eyrie.wire.model import Shape

_EPOCH = datetime(2026, 11, 21, 8, 40, 2, tzinfo=UTC)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_TRIES = 60


class Unsampled(Exception):
    """No value was found that satisfies the shape's pattern."""


def sample(shape: Shape, rng: random.Random, depth: int = 0, optional: float = 0.6) -> Any:
    """A value that the shape allows; optional members appear with the given probability, and seldom far down."""
    if shape.kind == "structure":
        return _structure(shape, rng, depth, optional)
    if shape.kind == "list":
        assert shape.element is not None
        count = _count(shape, rng, depth)
        return [sample(shape.element, rng, depth + 1, optional) for _ in range(count)]
    if shape.kind == "map":
        assert shape.key is not None
        assert shape.value is not None
        count = _count(shape, rng, depth)
        pairs: dict[str, Any] = {}
        for _ in range(count * 4):
            if len(pairs) < count:
                pairs[sample(shape.key, rng)] = sample(shape.value, rng, depth + 1, optional)
        return pairs
    return scalar(shape, rng)


def scalar(shape: Shape, rng: random.Random) -> Any:
    """A scalar value that the shape allows."""
    kind = shape.kind
    if kind == "string":
        return rng.choice(shape.enum) if shape.enum else _string(shape, rng)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("integer", "long"):
        low = int(shape.minimum if shape.minimum is not None else -(2**31))
        high = int(shape.maximum if shape.maximum is not None else max(low, 2**31 - 1))
        return rng.randint(low, high)
    if kind in ("float", "double"):
        low_f = shape.minimum if shape.minimum is not None else -1000.0
        high_f = shape.maximum if shape.maximum is not None else max(low_f, 1000.0)
        return rng.randint(0, 1024) / 1024 * (high_f - low_f) + low_f
    if kind == "timestamp":
        whole = shape.location is not None or shape.timestamp_format == "rfc822"
        return _EPOCH + timedelta(
            seconds=rng.randint(-(10**8), 10**8), milliseconds=0 if whole else rng.randint(0, 999)
        )
    size = _size(shape, rng)
    return rng.randbytes(size)


def _structure(shape: Shape, rng: random.Random, depth: int, optional: float) -> dict[str, Any]:
    names = list(shape.members)
    if shape.union:
        plain = [name for name in names if shape.members[name].kind not in ("structure", "list", "map")] or names
        chosen = [rng.choice(plain if depth > 5 else names)]
    else:
        share = optional if depth < 3 else optional / 4 if depth < 6 else 0.0
        chosen = [name for name in names if name in shape.required or rng.random() < share]
    if not chosen and names and depth:
        chosen = [min(names, key=lambda name: shape.members[name].kind in ("structure", "list", "map"))]
    return {
        name: sample(shape.members[name], rng, depth + 1, optional)
        for name in chosen
        if not shape.members[name].eventstream
    }


def _count(shape: Shape, rng: random.Random, depth: int) -> int:
    low = int(shape.minimum or 0) if depth >= 6 else max(1, int(shape.minimum or 0))
    high = int(shape.maximum) if shape.maximum is not None else low + 2
    return rng.randint(low, max(low, min(high, low + 2))) if depth < 6 else low


def _size(shape: Shape, rng: random.Random) -> int:
    low = int(shape.minimum or 0)
    high = int(shape.maximum) if shape.maximum is not None else low + 12
    return rng.randint(low, max(low, min(high, low + 12)))


def _string(shape: Shape, rng: random.Random) -> str:
    if shape.pattern is None:
        return "".join(rng.choice(_ALPHABET) for _ in range(max(1, _size(shape, rng))))[: _ceiling(shape)]
    for attempt in range(_TRIES):
        text = draw(shape.pattern, rng, grow=attempt % 6)
        if (shape.minimum or 0) <= len(text) <= _ceiling(shape) and patterns.matches(shape.pattern, text):
            return text
    low = int(shape.minimum or 1)
    for text in ("a" * low, "0" * low, "", "a-1", "/a", "s3://b/k", "https://h/p/q"):
        if (shape.minimum or 0) <= len(text) <= _ceiling(shape) and patterns.matches(shape.pattern, text):
            return text
    raise Unsampled(f"{shape.name}: {shape.pattern}")


def _ceiling(shape: Shape) -> int:
    return int(shape.maximum) if shape.maximum is not None else 10**6


def draw(pattern: str, rng: random.Random, grow: int = 0) -> str:
    """A text that most likely matches the pattern (lookarounds are ignored); `grow` adds to open repetitions."""
    return "".join(_draw(item, rng, grow) for item in _parsed(pattern))


@lru_cache(maxsize=4096)
def _parsed(pattern: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return sre.parse(patterns.translate(pattern), re.ASCII)


def _draw(item: Any, rng: random.Random, grow: int) -> str:
    op, value = item
    if op in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        low, high, inner = value
        top = min(int(high), int(low) + (grow * 3 if int(high) < 100 else grow * 8))
        return "".join(
            _draw(part, rng, grow) for _ in range(rng.randint(int(low), max(int(low), top))) for part in inner
        )
    if op == codes.SUBPATTERN:
        return "".join(_draw(part, rng, grow) for part in value[3])
    if op == codes.ATOMIC_GROUP:
        return "".join(_draw(part, rng, grow) for part in value)
    if op == codes.BRANCH:
        return "".join(_draw(part, rng, grow) for part in rng.choice(value[1]))
    if op == codes.LITERAL:
        return chr(value)
    if op == codes.NOT_LITERAL:
        return "b" if value == ord("a") else "a"
    if op == codes.ANY:
        return rng.choice(_ALPHABET)
    if op == codes.IN:
        return _draw_class(value, rng)
    return ""  # anchors and lookarounds take no characters


def _is_control(op: Any, value: Any) -> bool:
    """True for what XML cannot hold."""
    return bool((op == codes.LITERAL and value < 0x20) or (op == codes.RANGE and value[1] < 0x20))


def _draw_class(items: list[Any], rng: random.Random) -> str:
    if items[0][0] == codes.NEGATE:
        taken = {chr(value) for op, value in items[1:] if op == codes.LITERAL}
        ranges = [value for op, value in items[1:] if op == codes.RANGE]
        free = [c for c in _ALPHABET + "-/:. " if c not in taken and not any(a <= ord(c) <= b for a, b in ranges)]
        if any(op == codes.CATEGORY and value == codes.CATEGORY_SPACE for op, value in items[1:]):
            free = [c for c in free if not c.isspace()]
        return rng.choice(free)
    shown = [(op, value) for op, value in items[:12] if not _is_control(op, value)] or items[:1]
    op, value = rng.choice(shown)
    if op == codes.LITERAL:
        return chr(value)
    if op == codes.RANGE:
        low, high = value
        low = max(low, min(0x20, high))
        return chr(rng.randint(low, min(high, low + 25)))
    if value in (codes.CATEGORY_DIGIT,):
        return rng.choice("0123456789")
    if value == codes.CATEGORY_SPACE:
        return " "
    return rng.choice(_ALPHABET)
