"""The ids that a worker gives to invocations: `x-amzn-requestid` of every reply, and of what is kept of an exchange."""

from __future__ import annotations

from uuid import uuid4


class RequestIds:
    """Request ids in the shape of a UUID, from one random draw and a count."""

    def __init__(self) -> None:
        self._prefix = str(uuid4())[:24].encode()
        self._count = 1 << 44  # so that it always has twelve hex digits

    def next(self) -> str:
        """The next id, as `line` will have it."""
        return f"{self._prefix.decode()}{self._count + 1:x}"

    def last(self) -> tuple[bytes, int]:
        """The id that `line` gave last, in its two parts: the second in hex digits."""
        return self._prefix, self._count

    def line(self) -> bytes:
        """The header line of the next id."""
        self._count += 1
        return b"x-amzn-requestid: %b%x\r\n" % (self._prefix, self._count)
