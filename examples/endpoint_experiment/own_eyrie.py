"""An Eyrie of the experiment's own: a temporary data directory, a free port, a clock that runs `factor` times as fast.

Its table of instance types says what a vCPU of an ml.t2.medium is on this host: both instances must fit beside the load
and whatever else runs here, so that it is a share of a core, by what is measured to be free. Credits are in proportion.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eyrie.adapters.clock import SystemClock
from eyrie.cli.data import check_version

TYPE = "ml.t2.medium"
INSTANCES = 2
BASELINE = 0.20  # of each vCPU, what it may use for ever
VCPU = 2
CREDITS_A_VCPU = 30  # at its start; a credit is one vCPU for a minute
WARM_WITHIN_S = 180.0
FOR_INSTANCES = 0.5  # of what is free, for the two; the rest is for the load, the gateway and everything else
SHARE_MIN, SHARE_MAX = 0.06, 0.5  # of a core, a vCPU; at most so much that one process can use it all
MEASURED_S = 2.0
SPIN = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\n"
SPIN += "while time.monotonic() < end: pass\nprint(time.process_time())"


@dataclass(frozen=True, slots=True)
class OwnEyrie:
    """A running one; boto3's environment points at it."""

    data: Path
    factor: float
    free: float  # cores of this host that nobody used
    share: float  # of a core, each vCPU of an instance

    @property
    def cores(self) -> float:
        """What an instance may use, in cores of this host."""
        return VCPU * self.share

    @property
    def clock(self) -> SystemClock:
        """Its time: metrics and its own logs are stamped with it, so that two hours of them are two hours."""
        return SystemClock(self.factor)

    def run(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """An `eyrie` command on its data directory; what it prints. Raises SystemExit where it fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, timeout=timeout_s)
        if done.returncode:
            raise SystemExit(f"eyrie {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def command(self, *arguments: str) -> list[str]:
        """The command line of that."""
        return [sys.executable, "-P", "-m", "eyrie", *arguments, data_flag(arguments[0]), str(self.data)]


def data_flag(command: str) -> str:
    """How a command is told which Eyrie is meant: --data of `eyrie load` is what it sends."""
    return "--eyrie" if command == "load" else "--data"


@contextmanager
def running(factor: float, credits: float = CREDITS_A_VCPU) -> Iterator[OwnEyrie]:
    """Start it, with so many credits a vCPU of an instance. Stop it at the end and leave nothing behind, unless
    something went wrong: then logs stay.
    """
    data = Path(tempfile.mkdtemp(prefix="eyrie-experiment-"))
    free = free_cores()
    share = round(min(SHARE_MAX, max(SHARE_MIN, FOR_INSTANCES * free / INSTANCES / VCPU)), 2)
    eyrie = OwnEyrie(data, factor, free, share)
    row = {
        "vcpu": VCPU,
        "cpu_percent": 100 * share,
        "memory_mb": 4096,
        "usd_per_hour": 0.056,
        "cpu_baseline_percent": 100 * BASELINE,
        "launch_credits": credits * eyrie.cores,
    }
    (data / "instance_types.json").write_text(json.dumps({"types": {TYPE: row}}))
    check_version(data)  # makes it a data directory
    os.environ["EYRIE_TIME_SCALE"] = str(factor)
    try:
        eyrie.run("up", "--detach", "--port", "0", "--zones", "a,b,c")
        point_boto3_at(eyrie)
        warm(eyrie)
        yield eyrie
    except BaseException:
        print(f"logs are kept in {data}/logs", file=sys.stderr)
        eyrie.run("down")
        raise
    eyrie.run("down")
    shutil.rmtree(data)


def free_cores() -> float:
    """How many cores this host gives to whoever wants all: one process each that turns in circles for a while."""
    command = [sys.executable, "-c", SPIN, f"{MEASURED_S:g}"]
    spinning = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in os.sched_getaffinity(0)]
    return sum(float(process.communicate()[0]) for process in spinning) / MEASURED_S


def warm(eyrie: OwnEyrie) -> None:
    """Wait for a warm slot: compressed, the time that an instance may take to start is too short for a cold one."""
    deadline = time.monotonic() + WARM_WITHIN_S
    while json.loads(eyrie.run("status", "--json")).get("slots", {}).get("warm", 0) < 1:
        if time.monotonic() > deadline:
            raise SystemExit(f"no slot was warm within {WARM_WITHIN_S:g} s: this host is too busy for the experiment")
        time.sleep(1.0)


def point_boto3_at(eyrie: OwnEyrie) -> None:
    """Set the environment as `eval "$(eyrie env)"` would."""
    for line in eyrie.run("env").splitlines():
        verb, *words = shlex.split(line)
        if verb == "export":
            name, _, value = words[0].partition("=")
            os.environ[name] = value
        else:
            for name in words:
                os.environ.pop(name, None)
