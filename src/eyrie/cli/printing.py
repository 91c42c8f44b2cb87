"""Standard output as it may be: of another encoding than UTF-8, a pipe whose reader left, a file on a full disk."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_HANDLER = "eyrie.tolerate"


def tolerate(stream: object) -> None:
    """Let a stream print what its encoding does not have as `?`, and bytes of file names as they are."""
    codecs.register_error(_HANDLER, _instead)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_HANDLER)


def _instead(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return b"".join(bytes([ord(x) - 0xDC00]) if "\udc80" <= x <= "\udcff" else b"?" for x in letters), error.end


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """What was printed is out at the end, or this raises OSError: later, nobody would be told."""
    try:
        yield
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def give_up() -> None:
    """Nothing that is still to be printed can be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
