"""Filter patterns of the logs API, their plain-text part: terms that must occur, "phrases", -excluded terms,
?alternatives.

Matching regards case. Patterns over JSON ({ $.x = 1 }), columns ([a, b]) and regular expressions (%x%) are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TERM = re.compile(r'([-?]?)(?:"((?:[^"\\]|\\.)*)"|(\S+))')
TERMS_MAX = 100


class UnreadablePattern(ValueError):
    """A pattern that is not one of terms; the message is for people."""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What a message must contain, may not contain, and must contain one of."""

    needed: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()

    def matches(self, text: str) -> bool:
        """True when a message passes."""
        if any(term in text for term in self.excluded) or not all(term in text for term in self.needed):
            return False
        return not self.alternatives or any(term in text for term in self.alternatives)


def parse_filter(pattern: str) -> LogFilter:
    """The filter that a pattern means. Raises UnreadablePattern."""
    stripped = pattern.strip()
    if stripped[:1] in ("{", "[", "%"):
        raise UnreadablePattern("patterns over JSON, columns or regular expressions are not supported by this Eyrie")
    if stripped.count('"') - stripped.count('\\"') & 1:
        raise UnreadablePattern("a quote is not closed")
    kinds: dict[str, list[str]] = {"": [], "-": [], "?": []}
    for sign, phrase, word in _TERM.findall(stripped):
        kinds[sign].append(phrase.replace('\\"', '"') if phrase else word)
    if sum(len(terms) for terms in kinds.values()) > TERMS_MAX:
        raise UnreadablePattern(f"a pattern has at most {TERMS_MAX} terms")
    return LogFilter(tuple(kinds[""]), tuple(kinds["-"]), tuple(kinds["?"]))
