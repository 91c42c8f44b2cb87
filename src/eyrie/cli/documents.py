"""`--json`: the one way in which a command answers a program.

Standard output holds JSON and nothing else: one document on one line, or, of a command that follows something, an
object a line. A problem stays what it is for people too: a line on standard error and an exit code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def print_document(found: Any) -> None:
    """Print it on a line of its own, at once."""
    print(text_of(found), flush=True)


def text_of(found: Any) -> str:
    """As JSON: times as ISO 8601, what is no finite number as null."""
    return json.dumps(_finite(found), default=_plain)


def _finite(found: Any) -> Any:
    """The same without NaN and infinities, which JSON does not have."""
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    if isinstance(found, Mapping):
        return {key: _finite(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(value) for value in found]
    return found


def _plain(found: Any) -> str:
    return found.isoformat() if isinstance(found, datetime) else str(found)
