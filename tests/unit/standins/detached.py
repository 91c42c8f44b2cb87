"""`eyrie up --detach` with a stand-in for its life, `detached.py FOLDER ready|error`: so, once FOLDER/go is there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from eyrie.cli import up
from eyrie.cli.errors import CommandError


def main() -> None:
    folder, end = Path(sys.argv[1]), sys.argv[2]

    def life(tell: Callable[[str], None]) -> None:
        (folder / "begun").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        if end == "error":
            raise CommandError("no")
        tell("ready")
        (folder / "lived").touch()

    try:
        up.in_background(life)
    except CommandError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
