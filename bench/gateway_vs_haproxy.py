"""Requests a CPU second: one gateway worker (SigV4 and metering on) against HAProxy (one thread, checks nothing).

    python bench/gateway_vs_haproxy.py [--rounds 7] [--seconds 3] [--gateway-only]

`hop` says how. HAProxy leaves its core partly idle, since wrk and the upstream share the other one: so CPU seconds.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import sys
from pathlib import Path

import frame
import hop
import measure

GOAL = 0.4

CONFIG = """
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


def haproxy(folder: Path, sockets: list[str], stack: contextlib.ExitStack) -> tuple[int, int]:
    """HAProxy on the same core; its port and pid."""
    if shutil.which("haproxy") is None:
        raise SystemExit("haproxy is not installed")
    port = measure.free_port()
    servers = "\n".join(f"    server m{n} unix@{path}" for n, path in enumerate(sockets))
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(port=port, servers=servers))
    pid = stack.enter_context(measure.process(["haproxy", "-f", str(config), "-db"], hop.SERVER_CORE))
    measure.wait_for(port)
    return port, pid


def main() -> int:
    options = frame.arguments(__doc__, rounds=7, seconds=3.0)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--gateway-only", action="store_true", help="no HAProxy: to profile the gateway")
    chosen = options.parse_args()
    proxy = None if chosen.gateway_only else haproxy
    hops = hop.measured("haproxy", proxy, chosen.rounds, chosen.seconds, chosen.connections)
    medians = {which: statistics.median(each.per_cpu) for which, each in hops.items()}
    for which, median in medians.items():
        print(f"median   {which:8} {median:10,.0f} requests a CPU second")
    if proxy is None:
        return 0
    detail = f"{medians['gateway']:,.0f} against {medians['haproxy']:,.0f} requests a CPU second"
    name = "gateway hop, one core, SigV4 and metering on, against HAProxy, one thread"
    return frame.finish(
        [frame.Ratio.of(name, hops["gateway"].per_cpu, hops["haproxy"].per_cpu, GOAL, detail=detail)], chosen.report
    )


if __name__ == "__main__":
    sys.exit(main())
