"""A real `eyrie up` whose control may be told to die at a point: `mortal_up.py DATA [TIME_SCALE]`."""

from __future__ import annotations

import sys
from pathlib import Path

from eyrie.cli import up
from eyrie.cli.parts import Part, eyrie_command
from eyrie.settings import Settings

CONTROL = Path(__file__).with_name("mortal_control.py")


def command(part: Part) -> list[str]:
    if part.kind == "control":
        return [sys.executable, str(CONTROL), "control"]
    return eyrie_command(part)


if __name__ == "__main__":
    scale = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    settings = Settings(
        console=False,
        data=Path(sys.argv[1]),
        port=0,
        gateways=1,
        slot_imports=(),
        warm_slots=3,
        drain_ms=3_000,
        time_scale=scale,
    )
    up.supervise(settings, lambda line: print(line, flush=True), foreground=True, command=command)
