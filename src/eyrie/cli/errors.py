"""The one error of the command line: a line for people, and the exit code."""

from __future__ import annotations


class CommandError(Exception):
    """Printed as `eyrie: MESSAGE` on standard error; the command exits with `code`."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
