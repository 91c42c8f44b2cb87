"""`eyrie up` with stand-ins for its parts, `up.py DATA PORT GATEWAYS`. It notes the end of instances in DATA/order."""

from __future__ import annotations

import sys
from pathlib import Path

from eyrie.cli import up
from eyrie.cli.errors import CommandError
from eyrie.cli.parts import Part
from eyrie.settings import Settings

PART = Path(__file__).with_name("part.py")


def main() -> None:
    data = Path(sys.argv[1])
    settings = Settings(data=data, port=int(sys.argv[2]), gateways=int(sys.argv[3]), drain_ms=2000, console=False)

    def command(part: Part) -> list[str]:
        return [sys.executable, str(PART), part.kind, str(part.index), str(data)]

    def end(_: Settings) -> None:
        with open(data / "order", "a") as order:
            order.write("instances\n")

    try:
        up.supervise(settings, lambda line: print(line, flush=True), foreground=True, command=command, end=end)
    except CommandError as error:
        sys.exit(f"eyrie: {error}")


if __name__ == "__main__":
    main()
