"""The pieces of the command line that need no Eyrie: values it refuses, files it writes, tables and lines it prints."""

from __future__ import annotations

import io
import json
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from eyrie.adapters.instance_logs import Line
from eyrie.adapters.process_log import Stamped
from eyrie.cli import data as datadir
from eyrie.cli import env, status, story, up
from eyrie.cli.errors import CommandError
from eyrie.cli.logs import Seen
from eyrie.cli.main import main
from eyrie.cli.parts import Part, last_words
from eyrie.cli.supervisor import how
from eyrie.settings import Settings

RUNNING = {"endpoint": "http://127.0.0.1:7000", "region": "eu-west-1", "version": "1"}


def text(shown: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": -1},
        {"port": 65536},
        {"gateways": 0},
        {"gateways": 1000},
        {"zones": ()},
        {"zones": ("a", "a")},
        {"zones": ("A",)},
        {"zones": ("-",)},
        {"zones": ("a/b",)},
        {"zones": tuple("abcdefghijklmnopqrstuvwxyz0")},
    ],
)
def test_values_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(CommandError) as error:
        up.check(Settings().with_flags(**wrong))
    assert error.value.code == 2
    assert f"--{next(iter(wrong))}" in str(error.value)


@pytest.mark.parametrize("compute", ["proces", "", "docker://remote:2375", "docker:///a?b"])
def test_a_compute_that_there_is_not_is_refused_in_one_line(compute: str) -> None:
    with pytest.raises(CommandError, match="is none of process, docker://,") as error:
        up.check(Settings(compute=compute))
    assert error.value.code == 2
    assert str(error.value).startswith(f"EYRIE_COMPUTE={compute}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("compute", ["ray://", "ray://nowhere", "ray://a:1?endpoint=https://b", "ray:6379"])
def test_a_cluster_that_cannot_be_meant_is_refused(compute: str) -> None:
    with pytest.raises(
        CommandError, match=r"is neither ray \(a cluster of each job's own\) nor ray://HOST:PORT"
    ) as error:
        up.check(Settings(compute=compute))
    assert error.value.code == 2


def test_a_cluster_without_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CommandError, match=r"Ray is not installed: pip install 'eyrie\[ray\]'"):
        up.check(Settings(compute="ray://10.0.0.1:6379?endpoint=http://10.0.0.5:7777"))


def test_the_defaults_and_port_0_are_accepted() -> None:
    up.check(Settings())
    up.check(Settings(port=0, zones=("a", "eu-1b"), gateways=64))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:7"),
        ("0.0.0.0", "http://127.0.0.1:7"),
        ("::", "http://[::1]:7"),
        ("box", "http://box:7"),
    ],
)
def test_the_url_is_one_that_a_client_can_use(host: str, url: str) -> None:
    assert up.Address(host, 7).url == url


def test_the_ready_line_has_all_that_is_needed(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    line = up.Ready(up.Address("127.0.0.1", 7), data, True, 0, 1.5).line()
    for part in ("http://127.0.0.1:7", str(data), str(data / "credentials.json"), f"--data {shlex.quote(str(data))}"):
        assert part in line
    assert "http://127.0.0.1:7/console · 1.5 s" in line


def test_credentials_are_random_private_and_kept(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    path = datadir.ensure_credentials(tmp_path / "one", "123456789012")
    datadir.ensure_credentials(tmp_path / "two", "123456789012")
    assert path.stat().st_mode & 0o777 == 0o600
    first = datadir.credential(tmp_path / "one")
    assert first.secret_access_key != datadir.credential(tmp_path / "two").secret_access_key
    assert (len(first.access_key_id), len(first.secret_access_key), first.account) == (20, 40, "123456789012")
    datadir.ensure_credentials(tmp_path / "one", "123456789012")
    assert datadir.credential(tmp_path / "one") == first


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", '[{"access_key_id": "a"}]', "\x00"])
def test_credentials_that_are_no_credentials_are_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "credentials.json").write_text(content)
    with pytest.raises(CommandError, match="cannot be understood"):
        datadir.credential(tmp_path)


@pytest.mark.parametrize("content", ["one", "-1", "1.5", ""])
def test_a_version_that_is_no_number_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "version").write_text(content)
    with pytest.raises(CommandError, match="format number"):
        datadir.check_version(tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "env.json"
    datadir.write_env(tmp_path, {"a": 1})
    datadir.write_env(tmp_path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["env.json"]


def test_down_uses_the_settings_that_run(tmp_path: Path) -> None:
    datadir.write_env(tmp_path, {"settings": Settings(data=tmp_path, drain_ms=7).to_env()})
    assert datadir.running_settings(Settings(data=tmp_path)).drain_ms == 7
    (tmp_path / "env.json").write_text("{}")
    assert datadir.running_settings(Settings(data=tmp_path, drain_ms=9)).drain_ms == 9


def test_env_prints_lines_that_a_shell_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "it's here"
    data.mkdir()
    datadir.write_env(data, RUNNING)
    datadir.ensure_credentials(data, "210987654321")
    env.run(data, as_json=False)
    script = (
        capsys.readouterr().out
        + 'echo "$AWS_ENDPOINT_URL $AWS_REGION $AWS_DEFAULT_REGION"; cat "$SAGEMAKER_USER_CONFIG_OVERRIDE"'
    )
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("http://127.0.0.1:7000 eu-west-1 eu-west-1\nSchemaVersion: '1.0'\n")
    assert "DefaultS3Bucket: sagemaker-eu-west-1-210987654321\n" in done.stdout


def instance(number: int, zone: str, state: str, routed: bool) -> dict[str, object]:
    named = {"id": f"i-{number}", "variant": "v", "zone": zone, "state": state, "pid": 100 + number}
    return {**named, "isolation": "bubblewrap", "started_ms": 1, "routed": routed}


def test_status_shows_endpoints_and_instances_by_zone() -> None:
    variants = [
        {"name": "v", "weight": 0.5, "desired": 2, "ready": 1},
        {"name": "w", "weight": 2, "desired": 1, "ready": 1},
    ]
    instances = [instance(2, "b", "UNKNOWN", False), instance(1, "a", "READY", True), instance(3, "a", "READY", True)]
    endpoint = {"name": "e[1]", "region": "r", "status": "InService", "variants": variants, "instances": instances}
    counts = {"wanted": 2, "waiting": 1, "starting": 1, "warm": 7, "early": 0, "part": 0, "missed": 3}
    kind = {"kind": "sklearn", **counts, "early_worst_ms": 0, "part_worst_ms": 0, "missed_worst_ms": 1400}
    told = {"now_ms": 150_000, "endpoints": [endpoint], "slots": {"warm": 2}, "warm_kinds": [kind]}
    shown = "\n".join(text(table) for table in status.tables({"control": 5}, told))
    rows = [line.split() for line in shown.splitlines()]
    assert ["control", "5"] in rows
    assert next(row for row in rows if row[:1] == ["up"])[:2] == ["up", "gone:"]
    assert ["e[1]", "r", "InService", "v", "0.5", "1/2"] in rows
    assert ["w", "2", "1/1"] in rows
    assert ["sklearn", "2", "1", "1", "7", "0", "0", "3", "(1400", "ms)"] in rows
    assert ["a", "(2)", "i-1", "e[1]", "v", "READY", "yes", "101", "bubblewrap", "2", "m"] in rows
    assert ["b", "(1)", "i-2", "e[1]", "v", "UNKNOWN", "no", "102", "bubblewrap", "2", "m"] in rows


def test_status_without_what_control_tells_shows_the_processes() -> None:
    assert len(status.tables({"up": 1, "gateway-0": 2}, {})) == 1


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(-5, "0 s"), (1999, "1 s"), (119_000, "119 s"), (120_000, "2 m"), (7_200_000, "2 h"), (10**9, "11 d")],
)
def test_ages_are_short(ms: int, shown: str) -> None:
    assert status.age(ms) == shown


def test_a_story_is_a_row_an_event() -> None:
    event = {
        "at_ms": 1_795_000_000_123,
        "kind": "Endpoint",
        "name": "e",
        "what": "instance READY",
        "why": "answered [200]",
    }
    shown = text(story.told([event]))
    assert "2026-11-18 11:06:40.123" in shown
    assert "answered [200]" in shown


def test_following_logs_shows_each_line_once() -> None:
    seen = Seen()
    first = [(Line(1, "a"), "v/i"), (Line(2, "b"), "v/i")]
    assert seen.new(first) == first
    more = [*first, (Line(2, "c"), "v/i"), (Line(2, "b"), "v/i"), (Line(1, "x"), "v/j"), (Line(3, "d"), "v/i")]
    assert [line.text for line, _ in seen.new(more)] == ["c", "b", "x", "d"]
    rotated = more[3:]
    assert seen.new(rotated) == []


def test_a_process_log_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    script = (
        "import sys, pathlib, logging; from eyrie.adapters.process_log import ProcessLog\n"
        "log = logging.getLogger('a'); log.addHandler(ProcessLog(pathlib.Path(sys.argv[1]), 1000))\n"
        "for n in range(100): log.warning('line %d', n)\n"
        "print('plain', flush=True)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    files = [path.with_name("x.log.1"), path]
    assert all(0 < p.stat().st_size < 1100 for p in files)
    lines = "".join(p.read_text() for p in files).splitlines()
    assert lines[-1] == "plain"
    assert lines[-2].endswith("WARNING a: line 99")


def test_a_log_stamp_has_milliseconds_in_utc() -> None:
    record = logging.LogRecord("n", logging.INFO, "", 0, "hello", None, None)
    record.created, record.msecs = 1_795_000_000.123, 123.0
    assert Stamped().format(record) == "2026-11-18T11:06:40.123Z INFO n: hello"


def test_last_words_are_the_end_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert last_words(Part("control"), tmp_path) == ""
    Part("control").log(tmp_path).write_text("x\n" * 9000 + "  File z\nValueError: it broke\n")
    assert last_words(Part("control"), tmp_path, lines=2) == "File z | ValueError: it broke"


def test_an_end_is_told_in_words() -> None:
    assert how(9) == "was killed by SIGKILL"
    assert how(256 * 3) == "ended with code 3"


def test_doctor_names_the_extra_of_a_framework_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.metadata

    from eyrie.cli import doctor

    def version(package: str) -> str:
        if package == "tensorflow":
            return "2.99"
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    doctor.run(Settings(), as_json=False)
    told = capsys.readouterr().out
    assert "pip install 'eyrie[torch]'" in told
    assert "2.99" in told
    assert "tensorflow-cpu" not in told
    doctor.run(Settings(), as_json=True)
    found = {one["what"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["torch"]["good"], found["tensorflow"]["found"]) == (False, "2.99")


def test_what_lists_for_people_lists_for_programs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eyrie.cli import key

    datadir.make(tmp_path)
    datadir.ensure_credentials(tmp_path, "123456789012")
    key.create(tmp_path, "us-east-1", ["iris"], None)
    secret = capsys.readouterr().out.strip()
    key.show(tmp_path, as_json=True)
    text = capsys.readouterr().out
    (shown,) = json.loads(text)
    assert (shown["endpoints"], shown["expires_ms"], shown["expired"]) == (["iris"], None, False)
    assert secret not in text
    assert "sha256" not in text


def test_a_data_directory_keeps_its_port(tmp_path: Path) -> None:
    assert up.last_port(tmp_path) is None
    datadir.write_env(tmp_path, {"port": 41234})
    assert up.last_port(tmp_path) == 41234
    for wrong in (0, 70000, "41234", None):
        datadir.write_env(tmp_path, {"port": wrong})
        assert up.last_port(tmp_path) is None
    (tmp_path / "env.json").write_text("no json")
    assert up.last_port(tmp_path) is None


@pytest.mark.parametrize("command", ["down", "doctor"])
def test_a_directory_that_there_cannot_be_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    long = tmp_path / ("x" * 300)
    monkeypatch.setattr("sys.argv", ["eyrie", command, "--data", str(long)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(f"eyrie: cannot use {long}")
    assert told.endswith(": File name too long\n")
