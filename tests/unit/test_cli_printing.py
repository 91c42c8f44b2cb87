"""Where standard output is no UTF-8 terminal: other encodings, full disks, readers that leave."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eyrie.cli import printing

EYRIE = [sys.executable, "-P", "-m", "eyrie"]


@pytest.mark.parametrize(
    ("encoding", "printed"), [("ascii", b"a ? ? \xff\n"), ("latin-1", b"a \xb7 ? \xff\n"), ("utf-8", None)]
)
def test_what_an_encoding_does_not_have_is_no_traceback(encoding: str, printed: bytes | None) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    printing.tolerate(stream)
    print("a · ▁ \udcff", file=stream, flush=True)
    assert raw.getvalue() == (printed or "a · ▁ ".encode() + b"\xff\n")


def test_a_command_in_such_a_place(tmp_path: Path) -> None:
    """`down` names the data directory."""
    data = tmp_path / "für ▁"
    data.mkdir()
    (data / "version").write_text("1\n")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*EYRIE, "down", "--data", str(data)], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"/f?r ?\n")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*EYRIE, "version"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b"eyrie: cannot write: No space left on device\n"
    assert done.returncode == 1


def test_a_reader_that_left_before_anything_was_said(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run([*EYRIE, "version"], stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
