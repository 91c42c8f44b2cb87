"""How traffic, objectives and faults are written on a command line: `flash:base=50,peak=500`, `p99=200ms`, `kill@600`.

Each parser raises ValueError with the field and the value that make no sense.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eyrie.sim import traffic
from eyrie.sim.traffic import Traffic, TrafficError

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?")
_SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_OBJECTIVE = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)\s*=\s*(.+)")

SHAPES: Mapping[str, Callable[..., Traffic]] = {
    "constant": traffic.constant,
    "poisson": traffic.poisson,
    "diurnal": traffic.diurnal,
    "flash": traffic.flash_crowd,
    "onoff": traffic.on_off,
}
# a word of the command line -> the parameter it sets, and whether it is a span of time
_WORDS: Mapping[str, tuple[str, bool]] = {
    "rate": ("rate", False),
    "low": ("low", False),
    "high": ("high", False),
    "base": ("base", False),
    "peak": ("peak", False),
    "duration": ("seconds", True),
    "period": ("period_s", True),
    "peak_at": ("peak_s", True),
    "at": ("at_s", True),
    "rise": ("rise_s", True),
    "hold": ("hold_s", True),
    "fall": ("fall_s", True),
    "on": ("on_s", True),
    "off": ("off_s", True),
}


@dataclass(frozen=True, slots=True)
class Objective:
    """Of each minute's requests, `percent` are answered within `limit_ms`."""

    percent: float
    limit_ms: float

    def __str__(self) -> str:
        return f"p{self.percent:g} <= {self.limit_ms:g} ms"


def seconds(text: str, field: str) -> float:
    """A span: `90`, `250ms`, `15m`, `24h`."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise TrafficError(f"{field} must be a span of time like 90s, 15m or 24h, and is {text!r}")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def objective(text: str) -> Objective:
    """`p99=200ms`: percentile and limit (milliseconds where no unit stands)."""
    found = _OBJECTIVE.fullmatch(text.strip())
    if found is None or not 0 < float(found[1]) < 100:
        raise ValueError(f"an objective is like p99=200ms, and this is {text!r}")
    bare = found[2].strip()
    limit_ms = float(bare) if re.fullmatch(r"\d+(\.\d+)?", bare) else seconds(bare, "objective") * 1000
    if limit_ms <= 0:
        raise ValueError(f"an objective's limit must be positive, and this is {text!r}")
    return Objective(float(found[1]), limit_ms)


def shape(text: str) -> Traffic:
    """`constant:100`, `diurnal:low=20,high=200,duration=24h`. Raises TrafficError naming what is wrong."""
    kind, _, rest = text.partition(":")
    build = SHAPES.get(kind)
    if build is None:
        raise TrafficError(f"traffic is a file, `recorded`, or one of {', '.join(SHAPES)}, not {kind[:40]!r}")
    known = inspect.signature(build).parameters
    given: dict[str, float | int] = {}
    for word in filter(None, (w.strip() for w in rest.split(","))):
        name, value = _set(kind, word, tuple(known))
        given[name] = value
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in given]
    if missing:
        raise TrafficError(f"{kind} needs {' and '.join(missing)}: {kind}:{','.join(f'{n}=...' for n in missing)}")
    return build(**given)


def _set(kind: str, word: str, known: tuple[str, ...]) -> tuple[str, float | int]:
    name, equals, value = word.partition("=")
    if not equals:  # `constant:100`
        name, value = known[0], word
    parameter, span = _WORDS.get(name.strip(), ("", False))
    if parameter not in known:
        words = [w for w, (p, _) in _WORDS.items() if p in known]
        raise TrafficError(f"{kind} has no {name.strip()!r}: it takes {', '.join(words)}")
    if span:
        return parameter, round(seconds(value, name))
    try:
        return parameter, float(value)
    except ValueError:
        raise TrafficError(f"{name} must be a number, and is {value!r}") from None
