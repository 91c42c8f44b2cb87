"""The instance's log: stamps, continuation lines, bounds; a real process shows that descriptors 1 and 2 lead there."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

from eyrie.modelserver.log import LINE_CHARS_MAX, LogFile, StampedStream, stamp

STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z .*")


def open_stream(folder: Path, bytes_max: int = 1_000_000) -> tuple[LogFile, StampedStream]:
    file = LogFile(folder, bytes_max)
    return file, StampedStream(file)


def lines(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_a_stamp_is_utc_with_milliseconds() -> None:
    assert stamp(0.0) == "1970-01-01T00:00:00.000Z"
    assert stamp(1_795_250_402.123) == "2026-11-21T08:40:02.123Z"


def test_each_print_is_one_stamped_line(tmp_path: Path) -> None:
    _, stream = open_stream(tmp_path)
    print("one", 1, file=stream)
    print("half", end="", file=stream)
    print(" whole", file=stream)
    found = lines(tmp_path)
    assert [line[25:] for line in found] == ["one 1", "half whole"]
    assert all(STAMPED.fullmatch(line) for line in found)


def test_lines_of_one_event_follow_the_stamped_one(tmp_path: Path) -> None:
    _, stream = open_stream(tmp_path)
    logger = logging.Logger("x")
    logger.addHandler(logging.StreamHandler(stream))
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("it failed")
    found = lines(tmp_path)
    assert STAMPED.fullmatch(found[0])
    assert found[0].endswith("it failed")
    assert found[1] == "Traceback (most recent call last):"
    assert found[-1] == "ValueError: no"


def test_threads_do_not_share_half_lines(tmp_path: Path) -> None:
    _, stream = open_stream(tmp_path)
    stream.write("mine ")
    thread = threading.Thread(target=lambda: print("theirs", file=stream))
    thread.start()
    thread.join()
    stream.write("too\n")
    assert [line[25:] for line in lines(tmp_path)] == ["theirs", "mine too"]


def test_an_unended_line_is_written_at_the_end(tmp_path: Path) -> None:
    _, stream = open_stream(tmp_path)
    stream.write("last words")
    stream.finish()
    stream.finish()
    assert [line[25:] for line in lines(tmp_path)] == ["last words"]


def test_the_two_files_stay_in_their_bound(tmp_path: Path) -> None:
    _, stream = open_stream(tmp_path, 20_000)
    for number in range(2_000):
        print(f"line {number} " + "x" * 40, file=stream)
        sizes = [path.stat().st_size for path in tmp_path.iterdir()]
        assert sum(sizes) <= 20_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert lines(tmp_path)[-1].split()[2] == "1999"
    older = (tmp_path / "log.1").read_text().splitlines()
    assert int(older[-1].split()[2]) + 1 == int(lines(tmp_path)[0].split()[2])


def test_what_others_write_to_the_file_is_bounded_by_the_check(tmp_path: Path) -> None:
    file, _ = open_stream(tmp_path, 20_000)
    with open(tmp_path / "log", "ab") as other:
        other.write(b"native noise\n" * 1_000)
    file.check()
    assert (tmp_path / "log").stat().st_size == 0
    assert (tmp_path / "log.1").stat().st_size == 13_000


def test_a_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for word in ("first", "second"):
        _, stream = open_stream(tmp_path)
        print(word, file=stream)
    assert [line[25:] for line in lines(tmp_path)] == ["first", "second"]


def test_endless_lines_and_odd_characters(tmp_path: Path) -> None:
    _, stream = open_stream(tmp_path, 10_000_000)
    stream.write("y" * (3 * LINE_CHARS_MAX))
    stream.write("\udcff\n")
    assert os.path.getsize(tmp_path / "log") > 3 * LINE_CHARS_MAX
    assert max(map(len, lines(tmp_path))) <= LINE_CHARS_MAX + 30


def test_several_processes_rotate_one_log_together(tmp_path: Path) -> None:
    files = [LogFile(tmp_path, 20_000) for _ in range(3)]  # each with a descriptor of its own, as after a fork
    for number in range(600):
        files[number % 3].write(b"%d %s\n" % (number, b"x" * 60))
    known = (tmp_path / "log.1").read_text() + (tmp_path / "log").read_text()
    numbers = sorted(int(line.split()[0]) for line in known.splitlines())
    assert numbers == list(range(numbers[0], 600))  # nothing between the oldest line that is kept and the newest
    assert len(numbers) > 100
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000 + 3 * 70
    for file in files:
        file.check()
        file.write(b"last\n")
    assert (tmp_path / "log").read_text().count("last") == 3
