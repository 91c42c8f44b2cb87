"""Patterns of log lines: what many lines have in common once numbers, ids and quoted values are masked. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

LINE_CHARS_MAX = 300
TEMPLATES_MAX = 5_000
_MASKS = (
    (re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?\b"), "<time>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<id>"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,}\b"), "<id>"),
    (re.compile(r"\"[^\"]*\"|'[^']*'"), "<text>"),
    (re.compile(r"[+-]?\d+(?:[.,:]\d+)*(?:[eE][+-]?\d+)?"), "<n>"),
)
_TROUBLE = re.compile(
    r"error|exception|traceback|fail|fatal|panic|denied|refused|timed? ?out|killed|out of memory|cannot|unable|abort",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class LogPattern:
    """Lines alike: their template, how many, from when to when, and one of them."""

    template: str
    count: int
    first_ms: int
    last_ms: int
    example: str  # of several lines the last: what it came to
    streams: tuple[str, ...]

    @property
    def is_trouble(self) -> bool:
        """Whether its words are those of something going wrong."""
        return _TROUBLE.search(self.template) is not None


def template_of(text: str) -> str:
    """A line with its variable parts masked. Of several lines (a traceback) the first and the last count: where it
    began, and what it came to.
    """
    lines = text.strip().splitlines() or [""]
    told = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
    told = told[:LINE_CHARS_MAX]
    for mask, name in _MASKS:
        told = mask.sub(name, told)
    return " ".join(told.split())


def brief(text: str) -> str:
    """One line of an event: of several the last."""
    lines = text.strip().splitlines() or [""]
    return lines[-1].strip()[:LINE_CHARS_MAX]


def mined(lines: Iterable[tuple[int, str, str]]) -> list[LogPattern]:
    """The patterns of lines, (milliseconds, stream, text), by when each was first seen. Beyond TEMPLATES_MAX patterns
    further ones are not told apart.
    """
    found: dict[str, LogPattern] = {}
    for at_ms, stream, text in lines:
        template = template_of(text)
        known = found.get(template)
        if known is None:
            if len(found) >= TEMPLATES_MAX:
                continue
            found[template] = LogPattern(template, 1, at_ms, at_ms, brief(text), (stream,))
            continue
        streams = known.streams if stream in known.streams or len(known.streams) > 20 else (*known.streams, stream)
        first = at_ms < known.first_ms
        found[template] = LogPattern(
            template,
            known.count + 1,
            min(at_ms, known.first_ms),
            max(at_ms, known.last_ms),
            brief(text) if first else known.example,
            streams,
        )
    return sorted(found.values(), key=lambda pattern: pattern.first_ms)


def unseen_before(patterns: Iterable[LogPattern], at_ms: int) -> list[LogPattern]:
    """Those that were first seen at a time or later: trouble first, then the most frequent."""
    new = [pattern for pattern in patterns if pattern.first_ms >= at_ms]
    return sorted(new, key=lambda pattern: (not pattern.is_trouble, -pattern.count, pattern.first_ms))
