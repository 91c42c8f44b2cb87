"""The frame of the benchmarks: what a ratio says and is read back as, and a table that survives its benchmarks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import frame
import table

BENCH = Path(frame.__file__).parent


def test_a_ratio_is_the_median_of_its_rounds_and_the_worst_of_them() -> None:
    more = frame.Ratio.of("speed", [30.0, 10.0, 20.0], [10.0, 10.0, 10.0], goal=1.5)
    assert (more.value, more.worst, more.met) == (2.0, 1.0, True)
    less = frame.Ratio.of("latency", [30.0, 10.0, 20.0], [10.0, 10.0, 10.0], goal=1.5, at_most=True)
    assert (less.value, less.worst, less.met) == (2.0, 3.0, False)


words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="|"), min_size=1)
figures = st.floats(0.01, 9_000)


@given(words, words, st.none() | figures, st.none() | figures, figures, st.booleans())
def test_a_ratio_reads_back_from_its_line(
    name: str, detail: str, value: float | None, worst: float | None, goal: float, at_most: bool
) -> None:
    ratio = frame.Ratio(name.strip() or "n", value, goal, worst, at_most, detail.strip())
    back = frame.parsed(ratio.line())
    assert back is not None
    assert (back.name, back.detail, back.at_most) == (ratio.name, ratio.detail, at_most)
    assert back.goal == pytest.approx(goal, rel=1e-5)
    for read, was in ((back.value, value), (back.worst, worst)):
        assert read == (was if was is None else pytest.approx(was, rel=0.01))


def test_a_short_line_is_a_ratio_too_and_another_line_is_none() -> None:
    assert frame.parsed("ratio    0.413 (goal 0.4)", "hop") == frame.Ratio("hop", 0.413, 0.4)
    assert frame.parsed("ratio none (goal 8) | hop | it did not start") == frame.Ratio(
        "hop", None, 8, detail="it did not start"
    )
    for line in ("", "median 3", "ratio", "ratio x (goal 1)", "the ratio 1 (goal 1)"):
        assert frame.parsed(line) is None


def test_missing_a_goal_is_an_exit_code_unless_only_a_report_was_asked_for() -> None:
    met, missed = frame.Ratio("a", 2.0, 1.5), frame.Ratio("b", 1.0, 1.5)
    assert frame.finish([met], report=False) == 0
    assert frame.finish([met, missed], report=False) == 1
    assert frame.finish([met, missed], report=True) == 0
    assert not frame.Ratio("c", None, 0.0).met


def test_the_table_takes_the_place_of_the_one_before() -> None:
    first, second, *rest = table.BENCHMARKS
    hop, other = frame.Ratio("hop", 1.6, 1.5, 1.4, detail="a | b"), frame.Ratio("other", None, 2)
    lines = {first.script: [hop.line()], second.script: [other.line()]}
    text = table.table(table.Results(lines, {first.script: 61.0}))
    assert "| hop | 1.5 x | 1.6 x | 1.4 x | yes | a / b |" in text
    assert "| other | 2 x | - | - | no |  |" in text
    assert text.count("not run") == len(rest)
    assert "1 of " in text
    readme = f"before\n{table.BEGIN}\nold \\1\n{table.END}\nafter\n"
    once = table.placed(readme, text)
    assert once == f"before\n{table.BEGIN}\n{text}\n{table.END}\nafter\n"
    assert table.placed(once, text) == once
    with pytest.raises(ValueError, match="one block"):
        table.placed("nothing", text)


SCRIPTS = {
    "good.py": "print('ratio 2 (goal 1) worst 1.9 | good | figures')",
    "plain.py": "print('ratio 2 (goal 1)')",
    "bad.py": "raise SystemExit('no peer today')",
    "late.py": "import signal, time\nprint('ratio 3 (goal 1) | early', flush=True)\nsignal.pause()",
    "leaves.py": (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print('left', child.pid)\nprint('ratio 1 (goal 1) | leaves')"
    ),
}
RUN = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import table
table.HERE = Path(sys.argv[2])
ctypes.CDLL(None).prctl(table.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
for name in [*sys.argv[3:], "absent.py"]:
    benchmark = table.Benchmark(name, 1.0, f"named {name}", 1)
    kept = table.Results({name: table.run(benchmark, ())}, {})
    table.end_orphans()
    print([(r.name, r.value, r.detail) for r in kept.ratios(benchmark)])
"""


def test_a_benchmark_that_fails_is_a_row_and_what_it_leaves_is_ended(tmp_path: Path) -> None:
    for name, source in SCRIPTS.items():
        (tmp_path / name).write_text(source)
    argv = [sys.executable, "-c", RUN, str(BENCH), str(tmp_path), *SCRIPTS]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("[")]
    assert rows == [
        "[('good', 2.0, 'figures')]",
        "[('named plain.py', 2.0, '')]",
        "[('named bad.py', None, 'failed: no peer today')]",
        "[('early', 3.0, ''), ('named late.py', None, 'not finished within 1 s')]",
        "[('leaves', 1.0, '')]",
        "[('named absent.py', None, 'not measured: there is no such benchmark yet')]",
    ]
    left = re.search(r"left (\d+)$", done.stdout, re.M)
    assert left is not None
    assert not os.path.exists(f"/proc/{left[1]}")
