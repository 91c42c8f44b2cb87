"""Have msgspec describe types while there is one thread.

msgspec makes its description of a dataclass or a Struct when it is first read into, keeps it on the class, and puts it
there before it is complete: another thread that reads into the same class meanwhile follows a null pointer, and the
process is gone (0.22; `tests/unit/test_described.py`). So whoever reads into a type in several threads has it described
as its module is imported.
"""

from __future__ import annotations

from typing import Any

import msgspec


def described(*types: Any) -> None:
    """Describe these types, and all that they are made of."""
    for each in types:
        msgspec.json.Decoder(each)
