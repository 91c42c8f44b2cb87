"""What the benchmarks share: processes pinned to cores, their CPU time from /proc, wrk and its signed requests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

PEERS = Path(__file__).parent.parent  # where `make bench-peers` puts an environment for each
ACCESS, SECRET, ACCOUNT, REGION = "AKIDBENCH", "bench-secret", "123456789012", "us-east-1"


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose key requests are signed with."""

    access: str
    secret: str
    region: str


BENCH = Signer(ACCESS, SECRET, REGION)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float = 0.0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def cpu_s(pid: int) -> float:
    """CPU seconds that all threads of a process have used."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def processes(data: Path, endpoint: str) -> dict[str, list[int]]:
    """The pids of the gateways of an Eyrie with its data there, and of the first instance in an endpoint's route."""
    table = next(path for path in (data / "routes").glob("*.json") if path.stem.endswith(f".{endpoint}"))
    box = str(Path(json.loads(table.read_bytes())["variants"][0]["targets"][0]["socket"]).parent)
    marks = {"gateway": (b"eyrie.app\0gateway", str(data)), "instance": (b"eyrie.modelserver\0", box)}
    found: dict[str, list[int]] = {part: [] for part in marks}
    for entry in Path("/proc").iterdir():
        try:
            argv = (entry / "cmdline").read_bytes()
            said = argv + (entry / "environ").read_bytes() + (entry / "mountinfo").read_bytes()
        except OSError:  # no process, or another user's
            continue
        for part, (mark, place) in marks.items():
            if mark in argv and place.encode() in said and b"bwrap\0" not in argv:
                found[part].append(int(entry.name))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def wait_for_path(path: Path, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} did not appear")
        time.sleep(0.02)


@contextlib.contextmanager
def process(argv: list[str], core: int | None, env: dict[str, str] | None = None, **more: object) -> Iterator[int]:
    """A process, pinned to one core unless that is None, ended with the block."""
    child = subprocess.Popen(
        [*_pinned(core), *argv],
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        **more,  # type: ignore[call-overload]
    )
    try:
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def process_group(argv: list[str], env: dict[str, str], log: IO[bytes]) -> Iterator[int]:
    """A process that may start more, in a session of its own, which ends with the block."""
    child = subprocess.Popen(
        argv,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def family(root: int) -> list[int]:
    """A process and all that descends from it or shares its session."""
    parents, sessions = {}, {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)], sessions[int(entry.name)] = int(fields[1]), int(fields[3])
    found = {pid for pid, session in sessions.items() if session == root} | {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found & parents.keys())


@contextlib.contextmanager
def stopped(root: int) -> Iterator[None]:
    """A process and all that it started stand still within the block: what they do when idle is not another's cost."""
    pids = family(root)
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def peer_program(peer: str, name: str) -> str:
    """A program of a peer's own environment. Exits where it is not installed."""
    program = PEERS / f".venv-bench-{peer}" / "bin" / name
    if not program.exists():
        raise SystemExit(f"{peer} is not installed: make bench-peers")
    return str(program)


def peer_version(peer: str, package: str) -> str:
    """The version of a package in a peer's lock."""
    lock = Path(__file__).with_name("peers") / f"{peer}.lock"
    found = re.search(rf"^{re.escape(package)}==(\S+)", lock.read_text(), re.M)
    return found[1] if found else "of an unknown version"


def _pinned(core: int | None) -> list[str]:
    return [] if core is None else ["taskset", "-c", str(core)]


def signed_requests(
    port: int, endpoint: str, bodies: list[bytes], key: Signer = BENCH, models: list[str] | None = None
) -> list[bytes]:
    """One signed InvokeEndpoint a body, as boto3 sends it: the bytes of the whole request. `models`: TargetModels."""
    signer = SigV4Auth(Credentials(key.access, key.secret), "sagemaker", key.region)
    requests = []
    for number, body in enumerate(bodies):
        headers = {
            "Content-Type": "text/csv",
            "Accept": "text/csv",
            "User-Agent": "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux lang/python md/pyimpl#CPython",
            "amz-sdk-invocation-id": f"6bb8a1b0-0000-4000-8000-{number:012x}",
            "amz-sdk-request": "attempt=1",
        }
        if models is not None:
            headers["X-Amzn-SageMaker-Target-Model"] = models[number]
        path = f"/endpoints/{endpoint}/invocations"
        request = AWSRequest("POST", f"http://127.0.0.1:{port}{path}", headers=headers, data=body)
        signer.add_auth(request)
        lines = {"Host": f"127.0.0.1:{port}", "Accept-Encoding": "identity", **dict(request.headers.items())}
        lines["Content-Length"] = str(len(body))
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        requests.append(head.encode() + body)
    return requests


def wrk_script(path: Path, requests: list[bytes]) -> Path:
    """A wrk script that sends these requests in rotation, as they are."""
    quoted = ",\n".join('"' + "".join(f"\\{byte:03d}" for byte in request) + '"' for request in requests)
    path.write_text(
        f"local requests = {{\n{quoted}\n}}\nlocal n = 0\n"
        "request = function() n = n % #requests + 1; return requests[n] end\n"
    )
    return path


def wrk(port: int, script: Path, seconds: float, connections: int, core: int | None) -> Load:
    """Run wrk for whole seconds (it takes no others), on one core unless that is None."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(script)]
    argv = [*_pinned(core), *argv]
    said = subprocess.run([*argv, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", said)
    if found is None:
        raise SystemExit(said)
    took = float(found[2]) / (1000 if found[3] == "ms" else 1)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    cut = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    errors = (int(bad[1]) if bad else 0) + (sum(int(n) for n in cut.groups()) if cut else 0)
    return Load(int(found[1]), took, errors, _quantile_ms(said, 50), _quantile_ms(said, 99))


def _quantile_ms(said: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", said)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]] if found else 0.0
