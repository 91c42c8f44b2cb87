"""The common frame of the benchmarks: rounds in turn, ratios with their goals, the machine and the versions.

A benchmark measures its sides in turn (`rounds`), divides them round by round (`Ratio.of`), and ends with
`finish`, which prints a line `ratio X (goal Y)` for each ratio. `bench/table.py` reads these lines, so a benchmark
is also a program of its own:

    options = arguments(__doc__)
    chosen = options.parse_args()
    ...
    sys.exit(finish([Ratio.of("gateway against Envoy", ours, theirs, goal=1.5)], chosen.report))
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_LINE = re.compile(
    r"ratio\s+(?P<value>[\d.]+|none) \(goal (?P<goal>[\d.]+)(?P<most> or less)?\)"
    r"(?: worst (?P<worst>[\d.]+))?(?: \| (?P<name>[^|]*))?(?: \| (?P<detail>.*))?\s*"
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One row of the table: a ratio of two figures of one run, its goal, and the figures in words.

    `value` is the median of the rounds' ratios and `worst` the one furthest from the goal's side; `value` is None where
    it could not be measured, and `detail` then says why. A goal is a least one, unless `at_most`.
    """

    name: str
    value: float | None
    goal: float
    worst: float | None = None
    at_most: bool = False
    detail: str = ""

    @classmethod
    def of(
        cls, name: str, above: list[float], below: list[float], goal: float, at_most: bool = False, detail: str = ""
    ) -> Ratio:
        """`above` over `below`, round by round."""
        each = [a / b for a, b in zip(above, below, strict=True)]
        worst = max(each) if at_most else min(each)
        return cls(name, statistics.median(each), goal, worst, at_most, detail)

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def line(self) -> str:
        """What `parsed` reads back."""
        shown = "none" if self.value is None else f"{self.value:.3g}"
        if self.value is not None and self.value >= 100:
            shown = f"{self.value:.0f}"
        words = f"ratio {shown} (goal {self.goal:g}{' or less' if self.at_most else ''})"
        if self.worst is not None:
            words += f" worst {self.worst:.3g}" if self.worst < 100 else f" worst {self.worst:.0f}"
        return f"{words} | {self.name} | {self.detail}" if self.detail else f"{words} | {self.name}"


def parsed(line: str, name: str = "") -> Ratio | None:
    """The ratio that a benchmark's line tells, `name` where it names none; None for any other line."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    value = None if found["value"] == "none" else float(found["value"])
    worst = float(found["worst"]) if found["worst"] else None
    known = (found["name"] or name).strip()
    return Ratio(known, value, float(found["goal"]), worst, bool(found["most"]), (found["detail"] or "").strip())


def arguments(doc: str | None, rounds: int = 3, seconds: float = 2.0) -> argparse.ArgumentParser:
    """The options that every benchmark has; it may add its own."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=rounds, help="how often each side is measured, in turn")
    options.add_argument("--seconds", type=float, default=seconds, help="how long each time")
    options.add_argument("--report", action="store_true", help="exit with 0 also where a goal is missed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started is ended on the way out
    return options


def rounds(count: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure the sides in turn, `count` times, so that whatever else the machine does meets them all."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(count):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def finish(ratios: list[Ratio], report: bool) -> int:
    """Print the ratios; the exit code: 0 where every goal is met, or where only a report was asked for."""
    for ratio in ratios:
        print(ratio.line(), flush=True)
    return 0 if report or all(ratio.met for ratio in ratios) else 1


def machine() -> str:
    """This machine in a few words: processor, cores, memory, kernel."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    kib = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    memory = f"{int(kib[1]) / 1_048_576:.0f} GiB" if kib else "unknown memory"
    name = model[1].strip() if model else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {name}, {memory}, Linux {platform.release()}"


def versions(*packages: str) -> str:
    """Python's version and those of packages of this environment."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
