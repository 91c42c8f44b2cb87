"""What data capture at 100 % costs: CPU time a request of a gateway worker that captures against one that does not.

    python bench/capture.py [--rounds 7] [--seconds 3]

`hop` says how: the same core, the same upstream and requests, the sides in turn. CPU seconds are those of all threads
of the worker's process, writing to disk included. Records are JSON lines of about 600 bytes; control, which would
upload them, does not run.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from pathlib import Path

import frame
import hop
from eyrie.domain.capture import CaptureRoute

GOAL = 1.2
CAPTURE = CaptureRoute(100, "s3://bench/captured", True, True)


def capturing(folder: Path, sockets: list[str], stack: contextlib.ExitStack) -> tuple[int, int]:
    """The same worker, whose variants are captured; its port and pid."""
    return hop.gateway(folder / "capturing", sockets, stack, capture=CAPTURE)


def main() -> int:
    options = frame.arguments(__doc__, rounds=7, seconds=3.0)
    options.add_argument("--connections", type=int, default=32)
    chosen = options.parse_args()
    hops = hop.measured("capture", capturing, chosen.rounds, chosen.seconds, chosen.connections)
    without, captured = ([1 / rate for rate in hops[which].per_cpu] for which in ("gateway", "capture"))
    each_us = [statistics.median(side) * 1e6 for side in (captured, without)]
    detail = f"{each_us[0]:.1f} against {each_us[1]:.1f} us of CPU a request"
    name = "gateway worker, capturing every request and reply, against the same without"
    return frame.finish([frame.Ratio.of(name, captured, without, GOAL, at_most=True, detail=detail)], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
