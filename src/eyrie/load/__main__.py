"""One process of a load test: `python -m eyrie.load`, a plan on standard input, and once it has told that it is ready,
when to begin; lines of what it sees on standard output. It ends when its work is over, on SIGTERM, or when nobody reads
its lines any more.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from time import monotonic, process_time
from typing import Any

import msgspec

from eyrie.load.loops import ClosedLoop, Loop, OpenLoop
from eyrie.load.plan import Plan, decoded
from eyrie.load.recorder import Recorder

TELL_S = 0.25
SWEEP_S = 0.05
GRACE_S = 1.0  # beyond a request's own time
STOP_S = 3.0  # for what was begun, when it is told to end


def main() -> int:
    """Run one plan."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = decoded(sys.stdin.buffer.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which tells us
    try:
        import uvloop

        _tell(b'{"ready":true}\n')
        begin = sys.stdin.buffer.readline()
        if not begin:  # whoever started us is gone, or gave up
            return 1
        uvloop.run(run(msgspec.structs.replace(plan, begin_s=float(begin))))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 0


async def run(plan: Plan) -> None:
    """Begin, tell what is seen, end. Raises BrokenPipeError when nobody listens any more."""
    recorder = Recorder(plan.begin_s)
    work: Loop = OpenLoop(plan, recorder) if plan.stages else ClosedLoop(plan, recorder)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.set_exception_handler(_broken)
    gc.freeze()
    work.begin()
    end = plan.begin_s + plan.seconds
    told, used = monotonic(), process_time()
    while True:
        await asyncio.sleep(SWEEP_S)
        work.sweep()
        now = monotonic()
        if stopped.is_set():
            stopped.clear()
            work.stop()
            end = min(end, now + STOP_S - plan.timeout_s - GRACE_S)
        if now - told >= TELL_S:
            busy, told, used = (process_time() - used) / (now - told), now, process_time()
            _tell(recorder.line(cpu=busy))
        if (now >= end and work.over) or now > end + plan.timeout_s + GRACE_S:
            break
    work.close()
    _tell(recorder.line(over=True))


def _broken(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A mistake of ours in a callback: end at once, rather than count wrongly."""
    print(context.get("message"), repr(context.get("exception")), file=sys.stderr, flush=True)
    os._exit(70)


def _tell(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
