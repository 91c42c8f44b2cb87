"""What holds for every test: an Eyrie that one starts has no process for the console, unless the test looks at it."""

from __future__ import annotations

import os

os.environ.setdefault("EYRIE_CONSOLE", "off")
