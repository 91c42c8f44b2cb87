"""`python -m eyrie.modelserver`: one slot, see `slot`."""

from __future__ import annotations

import os
import sys

from eyrie.modelserver.slot import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # user threads that never end must not keep a stopped instance alive
