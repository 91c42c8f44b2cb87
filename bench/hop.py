"""One gateway hop on one core, for `gateway_vs_haproxy.py` and `gateway_vs_envoy.py`: our worker beside another proxy.

The same run, the same upstream, 1,000 distinct signed requests in rotation, so that no verdict can be cached; the
server under test on one core, wrk and the upstream on the other; rounds alternate. Ours checks every signature and
meters; the other checks nothing. CPU seconds are those of the server's process, from /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import measure
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, Target, VariantRoute
from eyrie.settings import Settings

SERVER_CORE, LOAD_CORE = 0, 1
INSTANCES = 4

Proxy = Callable[[Path, list[str], contextlib.ExitStack], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Hop:
    """What one proxy did in each round."""

    rates: list[float]  # requests a second
    per_cpu: list[float]  # requests a CPU second


def measured(other: str, proxy: Proxy | None, rounds: int, seconds: float, connections: int) -> dict[str, Hop]:
    """The hops of "gateway" and of the other proxy. Exits where a tool is missing or a request fails."""
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed")
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("the server and the load need a core each")
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sockets = [str(folder / f"m{n}.s") for n in range(INSTANCES)]
        upstream = Path(__file__).with_name("upstream.py")
        stack.enter_context(measure.process([sys.executable, str(upstream), *sockets], LOAD_CORE))
        measure.wait_for_path(Path(sockets[-1]))
        servers = {"gateway": gateway(folder / "data", sockets, stack)}
        if proxy is not None:
            servers[other] = proxy(folder, sockets, stack)
        return _rounds(folder, servers, rounds, seconds, connections)


def _rounds(
    folder: Path, servers: dict[str, tuple[int, int]], rounds: int, seconds: float, connections: int
) -> dict[str, Hop]:
    bodies = [",".join(f"{(n * 31 + i * 7) % 997 / 997:.8f}" for i in range(20)).encode() for n in range(1_000)]
    scripts = {
        which: measure.wrk_script(folder / f"{which}.lua", measure.signed_requests(port, "bench", bodies))
        for which, (port, _) in servers.items()
    }
    hops = {which: Hop([], []) for which in servers}
    for number in range(rounds + 1):  # the first one warms up
        for which, (port, pid) in servers.items():
            before = measure.cpu_s(pid)
            load = measure.wrk(port, scripts[which], seconds if number else 1.0, connections, LOAD_CORE)
            used = measure.cpu_s(pid) - before
            if load.errors:
                raise SystemExit(f"{which}: {load.errors} of {load.requests} requests failed")
            if not number:
                continue
            hops[which].rates.append(load.rate)
            hops[which].per_cpu.append(load.requests / used)
            cost_us, busy = used / load.requests * 1e6, used / load.seconds
            print(
                f"{which:8} {load.rate:9,.0f} requests/s  {load.requests / used:9,.0f} a CPU second"
                f"  {cost_us:6.1f} us  core {busy:4.0%} busy  p50 {load.p50_ms:.2f} ms",
                flush=True,
            )
    return hops


def gateway(data: Path, sockets: list[str], stack: contextlib.ExitStack, **of_variants: Any) -> tuple[int, int]:
    """One worker on a core of its own; its port and pid. `of_variants`: what both variants' routes have besides."""
    prepare(data, sockets, **of_variants)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    fd = listener.fileno()
    argv = [sys.executable, "-P", "-m", "eyrie.app", "gateway", "--index", "0", "--listen-fd", str(fd)]
    env = Settings(data=data, gateways=1).to_env()
    pid = stack.enter_context(measure.process(argv, SERVER_CORE, env, pass_fds=(fd,)))
    port = int(listener.getsockname()[1])
    listener.close()
    measure.wait_for_path(data / "run" / "gateway-0.sock")
    return port, pid


def prepare(data: Path, sockets: list[str], **of_variants: Any) -> None:
    """The data folder of a gateway: credentials, and a table of two variants with two instances each."""
    for name in ("run", "routes", "logs"):
        (data / name).mkdir(parents=True)
    entry = {"access_key_id": measure.ACCESS, "secret_access_key": measure.SECRET, "account": measure.ACCOUNT}
    (data / "credentials.json").write_text(json.dumps([entry]))
    targets = [Target(f"i-{n}", path, "ab"[n % 2]) for n, path in enumerate(sockets)]
    least = RoutingStrategy.LEAST_OUTSTANDING_REQUESTS
    variants = (
        VariantRoute("Main", 0.9, least, "primary", tuple(targets[:2]), **of_variants),
        VariantRoute("Next", 0.1, least, "primary", tuple(targets[2:]), **of_variants),
    )
    key = EndpointKey(measure.ACCOUNT, measure.REGION, "bench")
    route = EndpointRoute(key, 1, variants)
    (data / "routes" / f"{key.slug}.json").write_bytes(msgspec.json.encode(route))
