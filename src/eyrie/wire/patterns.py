"""The models' regular expressions, which are Java's, in Python's dialect; translated and compiled once, matched in
full.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from functools import lru_cache
from itertools import groupby

_CACHED_MAX = 4096

# Java's POSIX classes, which mean ASCII.
_POSIX = {
    "Alnum": "a-zA-Z0-9",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Lower": "a-z",
    "Upper": "A-Z",
    "Punct": r"!-/:-@\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "Blank": r" \t",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F",
    "Space": r" \t\n\x0b\f\r",
    "ASCII": r"\x00-\x7f",
}
# Patterns that backtrack without end on a text that almost matches, and their equals that do not. A test attacks every
# pattern of the services that are spoken, and compares these pairs.
SAFE = {
    r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?": r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?",
    r"https://([.\-_a-zA-Z0-9]+/?){3,1016}": (
        r"https://(?=(?:[.\-_a-zA-Z0-9]/?){3})[.\-_a-zA-Z0-9]+(?:/[.\-_a-zA-Z0-9]+)*/?"
    ),
    r"^[ \t]*[\x20-\x7E]+([ \t]+[\x20-\x7E]+)*[ \t]*$": r"\t*[\x20-\x7E][\t\x20-\x7E]*",
    r"^[ \t]*[^\x00-\x1F:\x7F]+([ \t]+[^\x00-\x1F:\x7F]+)*[ \t]*$": (
        r"\t*[^\x00-\x1F:\x7F][^\x00-\x08\x0A-\x1F:\x7F]*"
    ),
}

# Longer texts are tried only against one repeated class, which takes linear time; others may take the square of it.
LONG_CHARS = 4096
_ONE_CLASS = re.compile(r"\^?\(?(?:\[(?:[^\]\\]|\\.)*\]|\.|\\.)(?:[*+]|\{\d+,\d*\})\)?\$?")

_CLASS_LETTERS = frozenset("dDsSwW")
_PROPERTY = re.compile(r"\\p\{(?:Is)?(\w+)\}|\\p([A-Z])")
_SURROGATE_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_COUNTED_ANCHOR = re.compile(r"(?<!\\)\$\{\d+(?:,\d*)?\}")


def matches(pattern: str, text: str, bounded: bool = True) -> bool:
    """True if the whole text matches. A pattern that Python cannot express is taken as matched.

    `bounded`: the text's length was checked against a maximum of the model. Without one, a long text does not match a
    pattern that could take long.
    """
    if not bounded and len(text) > LONG_CHARS and not _ONE_CLASS.fullmatch(pattern):
        return False
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(text) is not None


@lru_cache(maxsize=_CACHED_MAX)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[", "--" and the like are plain characters here
            return re.compile(SAFE.get(pattern) or translate(pattern), re.ASCII)
    except (re.error, OverflowError, RecursionError):
        return None


def translate(pattern: str) -> str:
    """A Java pattern as Python spells it."""
    pattern = _COUNTED_ANCHOR.sub("$", pattern)
    pattern = _SURROGATE_PAIR.sub(_joined_pair, pattern)
    out = []
    at, in_class = 0, False
    while at < len(pattern):
        found = _PROPERTY.match(pattern, at)
        if found:
            inner = _property(found.group(1) or found.group(2))
            out.append(inner if in_class else f"[{inner}]")
            at = found.end()
            continue
        char = pattern[at]
        if char == "\\":
            pair = pattern[at : at + 2]
            out.append("\\Z" if pair == "\\z" else pair)
            at += 2
            if in_class and pair[1:] in _CLASS_LETTERS and pattern[at : at + 1] == "-":
                out.append("\\-")  # after a class there can be no range
                at += 1
            continue
        if char == "[":
            out.append("\\[" if in_class else "[")
            in_class = True
        else:
            in_class = in_class and char != "]"
            out.append(char)
        at += 1
    return "".join(out)


def _joined_pair(found: re.Match[str]) -> str:
    high, low = int(found.group(1), 16), int(found.group(2), 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


def _property(name: str) -> str:
    """The inside of a character class for a Unicode category (`L`, `Lu`) or a POSIX class."""
    if name in _POSIX:
        return _POSIX[name]
    wanted = "L" if name in ("IsAlphabetic", "Alphabetic") else name
    spans = sorted(span for category, spans in _categories().items() if category.startswith(wanted) for span in spans)
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in spans)


@lru_cache(maxsize=1)
def _categories() -> dict[str, list[tuple[int, int]]]:
    """The spans of each Unicode category. One pass for all of them, and only over the planes that have characters."""
    spans: dict[str, list[tuple[int, int]]] = {"Cn": [(0x40000, 0xDFFFF)], "Co": [(0xF0000, 0x10FFFF)]}
    for first, last in ((0, 0x3FFFF), (0xE0000, 0xEFFFF)):
        at = first
        for category, run in groupby(map(unicodedata.category, map(chr, range(first, last + 1)))):
            size = sum(1 for _ in run)
            spans.setdefault(category, []).append((at, at + size - 1))
            at += size
    return spans
