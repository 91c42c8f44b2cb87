"""Run every benchmark, fifty minutes, nobody watching: `make bench` prints the table, `make bench-table` the README's.

    python bench/table.py [--only NAME ...] [--resume] [--short] [--print]

One benchmark after the other, each a process of its own with a time limit. One that fails, or a peer that does not
start, is a row that says why. What a benchmark leaves running is ended: orphans become children of this process.
What was measured is kept in build/bench-table.json as it comes: after an interruption, or to repeat one that failed,
`--resume` measures what is missing there, and `--only` (which measures those named again) completes it. The README
is written when every benchmark has been run.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import frame

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
KEPT = HERE.parent / "build" / "bench-table.json"
SHORT = ("--rounds", "1", "--seconds", "1")
BEGIN, END = "<!-- benchmarks: begin (make bench-table) -->", "<!-- benchmarks: end -->"
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script, how long it may take, and what its first ratio is called where the script does not say."""

    script: str
    limit_s: float
    name: str
    goal: float
    at_most: bool = False


BENCHMARKS = (
    Benchmark("gateway_vs_envoy.py", 120, "gateway hop against Envoy", 1.5),
    Benchmark("gateway_vs_haproxy.py", 150, "gateway hop against HAProxy", 0.4),
    Benchmark("capture.py", 90, "gateway with data capture against without", 1.2, at_most=True),
    Benchmark("shadow.py", 300, "production with a shadow of all requests against without", 1.35, at_most=True),
    Benchmark("endpoint_vs_peers.py", 1_000, "endpoint against its peers", 8),
    Benchmark("rows.py", 150, "100 CSV rows a request", 0.5),
    Benchmark("compiled.py", 150, "compiled against not compiled", 2),
    Benchmark("serverless.py", 420, "first answer from zero against 200 ms", 1, at_most=True),
    Benchmark("many_models.py", 420, "500 models behind one endpoint", 1.3, at_most=True),
    Benchmark("pipeline.py", 150, "a pipeline of four against its slowest container", 1.2, at_most=True),
    Benchmark("shared_memory.py", 180, "memory of four workers against one", 2, at_most=True),
    Benchmark("scaling_decisions.py", 60, "scaling decisions a second a core", 1),
    Benchmark("metrics_ingest.py", 60, "metric ingestion against 100,000 points/s", 1),
    Benchmark("metric_queries.py", 60, "GetMetricData of 100 series over a day against 200 ms", 1, at_most=True),
    Benchmark("log_queries.py", 60, "log events put against 50,000 a second", 1),
    Benchmark("scaling_policies.py", 240, "eyrie:Fast on the frontier of cost and quality", 1),
    Benchmark("simulate_many.py", 400, "a simulated day of very many endpoints", 15, at_most=True),
    Benchmark("async_accept.py", 150, "asynchronous requests accepted durably against one plain commit each", 1),
    Benchmark("async_chaos.py", 420, "asynchronous requests with exactly one end, everything killed at random", 1),
    Benchmark("transform.py", 900, "batch transform against a plain script", 0.8),
    Benchmark("assess_agrees.py", 600, "assess against wrk, requests/s", 1.2, at_most=True),
    Benchmark("console_pages.py", 400, "slowest page of the console against 1 s", 1, at_most=True),
    Benchmark("cold_start.py", 240, "cold start", 100, at_most=True),
)


@dataclass(slots=True)
class Results:
    """The lines that the benchmarks printed, by script, and the seconds that they took; kept in a file."""

    lines: dict[str, list[str]]
    took_s: dict[str, float]
    short: bool = False

    @classmethod
    def read(cls, path: Path) -> Results:
        """What was kept; nothing where there is no such file."""
        if not path.exists():
            return cls({}, {})
        kept = json.loads(path.read_text())
        return cls(kept["lines"], kept["took_s"], kept["short"])

    def write(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"lines": self.lines, "took_s": self.took_s, "short": self.short}, indent=1))

    def ratios(self, benchmark: Benchmark) -> list[frame.Ratio]:
        """What a benchmark found; a row that says so where it was not run."""
        lines = self.lines.get(benchmark.script)
        if lines is None:
            return [without(benchmark, "not run")]
        return [ratio for line in lines if (ratio := frame.parsed(line, benchmark.name)) is not None]

    def whole(self, benchmark: Benchmark) -> bool:
        """Whether nothing of a benchmark is missing."""
        return benchmark.script in self.lines and all(r.value is not None for r in self.ratios(benchmark))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these benchmarks, without .py")
    options.add_argument("--resume", action="store_true", help="keep what was measured before, measure the rest")
    options.add_argument("--short", action="store_true", help="one round of a second each: to see that all of it runs")
    options.add_argument("--print", action="store_true", help="print the table, and leave the README as it is")
    chosen = options.parse_args()
    if unknown := sorted(set(chosen.only) - {Path(b.script).stem for b in BENCHMARKS}):
        options.error(f"no benchmark is called {', '.join(unknown)}")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    results = Results.read(KEPT) if chosen.resume or chosen.only else Results({}, {})
    results.short |= chosen.short
    for number, benchmark in enumerate(BENCHMARKS, 1):
        named = Path(benchmark.script).stem in chosen.only
        if not named and (chosen.only or results.whole(benchmark)):
            continue
        print(f"--- {number} of {len(BENCHMARKS)}: {benchmark.script}", flush=True)
        began = time.monotonic()
        results.lines[benchmark.script] = run(benchmark, SHORT if chosen.short else ())
        results.took_s[benchmark.script] = time.monotonic() - began
        end_orphans()
        results.write(KEPT)
        print(f"    took {results.took_s[benchmark.script]:.0f} s", flush=True)
    text = table(results)
    print(text)
    if chosen.print or results.short or any(b.script not in results.lines for b in BENCHMARKS):
        print("the README is left as it is")
    else:
        README.write_text(placed(README.read_text(), text))
    return 0


def run(benchmark: Benchmark, arguments: Sequence[str]) -> list[str]:
    """The lines of ratios that a benchmark printed; one that says why where there are none."""
    if not (HERE / benchmark.script).exists():
        return [without(benchmark, "not measured: there is no such benchmark yet").line()]
    with tempfile.NamedTemporaryFile("w+") as said, open(said.name, encoding="utf-8", errors="replace") as read:
        argv = [sys.executable, "-u", str(HERE / benchmark.script), "--report", *arguments]
        child = subprocess.Popen(argv, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        late = not ended(child, benchmark.limit_s, read)
        if late:
            child.terminate()
            if not ended(child, GRACE_S, read):
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        read.seek(0)
        lines = read.read().splitlines()
    found = [ratio.line() for line in lines if (ratio := frame.parsed(line, benchmark.name)) is not None]
    if late:
        found.append(without(benchmark, f"not finished within {benchmark.limit_s:g} s").line())
    elif not found:
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        found.append(without(benchmark, f"failed: {last[-160:]}").line())
    return found


def ended(child: subprocess.Popen[bytes], seconds: float, said: IO[str]) -> bool:
    """Whether it ends by itself in time; meanwhile what it says is shown, and orphans that end are waited for, as init
    would.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        show(said)
        over = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if over is None:
            time.sleep(0.05)
        elif over.si_pid == child.pid:
            child.wait()
            show(said)
            return True
        else:
            os.waitpid(over.si_pid, 0)
    return False


def show(said: IO[str]) -> None:
    """Print what has been said since."""
    if new := said.read():
        print(new.replace("\n", "\n    "), end="", flush=True)


def without(benchmark: Benchmark, why: str) -> frame.Ratio:
    """A row without a figure."""
    return frame.Ratio(benchmark.name, None, benchmark.goal, at_most=benchmark.at_most, detail=why)


def end_orphans() -> None:
    """End what a benchmark left: all that are our children now, until there are none."""
    while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for pid in map(int, children):
            print(f"    left running, ended: {pid} {name_of(pid)}", flush=True)
            os.kill(pid, signal.SIGKILL)  # ours and not waited for: it cannot be another by now
            os.waitpid(pid, 0)


def name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def table(results: Results) -> str:
    """The block of the README."""
    ratios = [ratio for benchmark in BENCHMARKS for ratio in results.ratios(benchmark)]
    took_s = sum(results.took_s.values())
    met = sum(ratio.met for ratio in ratios)
    lines = [
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {frame.machine()}; {frame.versions('eyrie', 'xgboost-cpu')}.",
        f"Ratios are medians of rounds measured in turn, in one run of {took_s / 60:.0f} minutes;"
        f" {met} of {len(ratios)} goals met.",
        "",
        "| what | goal | median | worst round | met | figures |",
        "|---|---|---|---|---|---|",
        *(row(ratio) for ratio in ratios),
    ]
    return "\n".join(lines)


def row(ratio: frame.Ratio) -> str:
    """One line of the table."""
    goal = f"{ratio.goal:g} x{' or less' if ratio.at_most else ''}"
    value = "-" if ratio.value is None else f"{ratio.value:g} x"
    worst = "-" if ratio.worst is None else f"{ratio.worst:g} x"
    detail = ratio.detail.replace("|", "/")
    return f"| {ratio.name} | {goal} | {value} | {worst} | {'yes' if ratio.met else 'no'} | {detail} |"


def placed(readme: str, text: str) -> str:
    """The README with the block between its markers replaced. Raises ValueError where the markers are missing."""
    block = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.S)
    if len(block.findall(readme)) != 1:
        raise ValueError(f"{README.name} must have one block between {BEGIN} and {END}")
    return block.sub(lambda _: f"{BEGIN}\n{text}\n{END}", readme)


if __name__ == "__main__":
    sys.exit(main())
