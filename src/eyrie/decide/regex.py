"""Regular expressions that users send: in time linear to the text, whatever they are (RE2), so that none holds up a
process. Pure.
"""

from __future__ import annotations

import re2

REGEX_CHARS_MAX = 1_000
_MEMORY_BYTES_MAX = 4 << 20  # of a compiled expression


class BadRegex(ValueError):
    """An expression that cannot be read; the message is for people."""


class Regex:
    """One expression. Back references and looking around are not among what RE2 takes."""

    def __init__(self, text: str, ignore_case: bool = False) -> None:
        """Raises BadRegex."""
        if len(text) > REGEX_CHARS_MAX:
            raise BadRegex(f"a regular expression has at most {REGEX_CHARS_MAX} characters")
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MEMORY_BYTES_MAX
        options.case_sensitive = not ignore_case
        try:
            self._compiled = re2.compile(text, options)
        except re2.error as error:
            told = error.args[0] if error.args else ""
            raise BadRegex(told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)) from None
        self.names: tuple[str, ...] = tuple(
            sorted(self._compiled.groupindex, key=self._compiled.groupindex.__getitem__)
        )

    def found(self, text: str) -> bool:
        """Whether it occurs in a text."""
        return self._compiled.search(text) is not None

    def groups(self, text: str) -> dict[str, str | None] | None:
        """Its named groups where it first occurs; None where it does not."""
        match = self._compiled.search(text)
        return None if match is None else match.groupdict()
