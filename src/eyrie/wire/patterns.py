"""The models' regular expressions, which are Java's, in Python's dialect; translated and compiled once, matched in
full.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from functools import lru_cache

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
    "IsAlphabetic": "",
}
_CLASS_LETTERS = frozenset("dDsSwW")
_PROPERTY = re.compile(r"\\p\{(?:Is)?(\w+)\}|\\p([A-Z])")
_SURROGATE_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_COUNTED_ANCHOR = re.compile(r"(?<!\\)\$\{\d+(?:,\d*)?\}")


def matches(pattern: str, text: str) -> bool:
    """True if the whole text matches. A pattern that Python cannot express is taken as matched."""
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(text) is not None


@lru_cache(maxsize=_CACHED_MAX)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[", "--" and the like are plain characters here
            return re.compile(translate(pattern), re.ASCII)
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


@lru_cache(maxsize=64)
def _property(name: str) -> str:
    """The inside of a character class for a Unicode category (`L`, `Lu`) or a POSIX class."""
    if _POSIX.get(name):
        return _POSIX[name]
    category = "L" if name == "IsAlphabetic" or name == "Alphabetic" else name
    ranges: list[str] = []
    start: int | None = None
    for code in range(0x110000 + 1):
        inside = code < 0x110000 and unicodedata.category(chr(code)).startswith(category)
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            ranges.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    return "".join(ranges)
