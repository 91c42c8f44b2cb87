"""Requests a CPU second: one gateway worker (SigV4 and metering on) against HAProxy (one thread, checks nothing).

The same run, the same upstream, 1,000 distinct signed requests in rotation, so that no verdict can be cached; the
server under test on one core, wrk and the upstream on the other; rounds alternate, the median of seven counts. CPU
seconds are
those of the server's process, from /proc. The goal is a ratio of at least 0.38.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import statistics
import sys
import tempfile
from pathlib import Path

import msgspec

import measure
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, Target, VariantRoute
from eyrie.settings import Settings

GOAL = 0.38
SERVER_CORE, LOAD_CORE = 0, 1

HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend door
    bind 127.0.0.1:{port}
    default_backend models
backend models
    balance leastconn
{servers}
"""


def prepare(data: Path, sockets: list[str]) -> None:
    """The data folder of a gateway: credentials, and a table of two variants with two instances each."""
    for name in ("run", "routes", "logs"):
        (data / name).mkdir(parents=True)
    entry = {"access_key_id": measure.ACCESS, "secret_access_key": measure.SECRET, "account": measure.ACCOUNT}
    (data / "credentials.json").write_text(json.dumps([entry]))
    targets = [Target(f"i-{n}", path, "ab"[n % 2]) for n, path in enumerate(sockets)]
    least = RoutingStrategy.LEAST_OUTSTANDING_REQUESTS
    variants = (
        VariantRoute("Main", 0.9, least, "primary", tuple(targets[:2])),
        VariantRoute("Next", 0.1, least, "primary", tuple(targets[2:])),
    )
    key = EndpointKey(measure.ACCOUNT, measure.REGION, "bench")
    route = EndpointRoute(key, 1, variants)
    (data / "routes" / f"{key.slug}.json").write_bytes(msgspec.json.encode(route))


def gateway(data: Path, stack: contextlib.ExitStack, python: list[str]) -> tuple[int, int]:
    """One worker on a core of its own; its port and pid."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    fd = listener.fileno()
    argv = [*python, "-m", "eyrie.app", "gateway", "--index", "0", "--listen-fd", str(fd)]
    env = Settings(data=data, gateways=1).to_env()
    pid = stack.enter_context(measure.process(argv, SERVER_CORE, env, pass_fds=(fd,)))
    port = int(listener.getsockname()[1])
    listener.close()
    measure.wait_for_path(data / "run" / "gateway-0.sock")
    return port, pid


def haproxy(folder: Path, sockets: list[str], stack: contextlib.ExitStack) -> tuple[int, int]:
    """HAProxy on the same core; its port and pid."""
    port = measure.free_port()
    servers = "\n".join(f"    server m{n} unix@{path}" for n, path in enumerate(sockets))
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, servers=servers))
    pid = stack.enter_context(measure.process(["haproxy", "-f", str(config), "-db"], SERVER_CORE))
    measure.wait_for(port)
    return port, pid


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--gateway-only", action="store_true")
    chosen = options.parse_args()
    for tool in ("wrk", "taskset", *(() if chosen.gateway_only else ("haproxy",))):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sockets = [str(folder / f"m{n}.s") for n in range(4)]
        here = Path(__file__).parent
        stack.enter_context(measure.process([sys.executable, str(here / "upstream.py"), *sockets], LOAD_CORE))
        measure.wait_for_path(Path(sockets[-1]))
        prepare(folder / "data", sockets)
        servers = {"gateway": gateway(folder / "data", stack, [sys.executable, "-P"])}
        if not chosen.gateway_only:
            servers["haproxy"] = haproxy(folder, sockets, stack)
        bodies = [",".join(f"{(n * 31 + i * 7) % 997 / 997:.8f}" for i in range(20)).encode() for n in range(1_000)]
        rates: dict[str, list[float]] = {which: [] for which in servers}
        scripts = {
            which: measure.wrk_script(folder / f"{which}.lua", measure.signed_requests(port, "bench", bodies))
            for which, (port, _) in servers.items()
        }
        for which, (port, _) in servers.items():
            measure.wrk(port, scripts[which], 1, chosen.connections, LOAD_CORE)
        for _ in range(chosen.rounds):
            for which, (port, pid) in servers.items():
                before = measure.cpu_s(pid)
                load = measure.wrk(port, scripts[which], chosen.seconds, chosen.connections, LOAD_CORE)
                used = measure.cpu_s(pid) - before
                rates[which].append(load.requests / used)
                rate, cost_us = load.requests / used, used / load.requests * 1e6
                print(
                    f"{which:8} {rate:10,.0f} requests a CPU second  {cost_us:6.1f} us"
                    f"  {load.rate:9,.0f} requests/s  p50 {load.p50_ms:.2f} ms  errors {load.errors}",
                    flush=True,
                )
                if load.errors:
                    return 1
    return report(rates)


def report(rates: dict[str, list[float]]) -> int:
    medians = {which: statistics.median(values) for which, values in rates.items()}
    for which, median in medians.items():
        print(f"median   {which:8} {median:10,.0f} requests a CPU second")
    if "haproxy" not in medians:
        return 0
    ratio = medians["gateway"] / medians["haproxy"]
    print(f"ratio    {ratio:.3f}  (goal {GOAL})")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
