"""API keys: made and revoked by the command, checked by a worker that is not restarted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from eyrie.adapters import process_lock
from eyrie.cli import data as datadir
from eyrie.cli import key as command
from eyrie.cli.errors import CommandError
from eyrie.wire.api_keys import ApiKey, KeyRefused, KeyRing, check_endpoint, read_keys

NOW_MS = 1_800_000_000_000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    datadir.ensure_credentials(tmp_path, "123456789012")
    return tmp_path


def made(data: Path, capsys: pytest.CaptureFixture[str], *endpoints: str, expires: str | None = None) -> str:
    command.create(data, "us-east-1", list(endpoints), expires)
    shown = capsys.readouterr()
    assert "not shown again" in shown.err
    return shown.out.strip()


def test_a_key_opens_and_is_not_stored(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = made(data, capsys)
    path = data / "keys.json"
    assert key.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    ring = KeyRing(path)
    for header in (f"Bearer {key}", f"bearer  {key} "):
        found = ring.check(header.encode(), NOW_MS)
        assert (found.account, found.region, found.endpoints) == ("123456789012", "us-east-1", ())
    check_endpoint(found, "any")


def test_a_wrong_key_does_not_open(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = made(data, capsys)
    other = made(data, capsys)
    ring = KeyRing(data / "keys.json")
    mixed = "_".join([*other.split("_")[:2], key.split("_", 2)[2]])
    wrong = [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic abc",
        key.encode(),
        f"Bearer {key}x".encode(),
        f"Bearer {key[:-1]}".encode(),
        f"Bearer {mixed}".encode(),
        f"Bearer eyrie_aaaaaaaaaa_{key.split('_', 2)[2]}".encode(),
        b"Bearer \xff",
    ]
    for header in wrong:
        with pytest.raises(KeyRefused) as refused:
            ring.check(header, NOW_MS)
        assert refused.value.status == 401


def test_a_worker_sees_new_revoked_and_broken_files_without_a_restart(
    data: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = data / "keys.json"
    ring = KeyRing(path)
    first = f"Bearer {made(data, capsys)}".encode()
    ring.refresh()
    known = ring.check(first, NOW_MS)
    second = made(data, capsys)
    command.revoke(data, known.key_id)
    ring.refresh()
    with pytest.raises(KeyRefused):
        ring.check(first, NOW_MS)
    assert ring.check(f"Bearer {second}".encode(), NOW_MS)
    path.write_text("{")
    ring.refresh()
    assert ring.check(f"Bearer {second}".encode(), NOW_MS)
    assert "cannot be read" in caplog.text
    path.unlink()
    ring.refresh()
    with pytest.raises(KeyRefused):
        ring.check(f"Bearer {second}".encode(), NOW_MS)


def test_a_key_may_be_for_some_endpoints_and_for_a_time(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = made(data, capsys, "one", "two", expires="2127-01-31")
    ring = KeyRing(data / "keys.json")
    found = ring.check(f"Bearer {key}".encode(), NOW_MS)
    check_endpoint(found, "two")
    with pytest.raises(KeyRefused, match="not for endpoint three") as refused:
        check_endpoint(found, "three")
    assert refused.value.status == 403
    assert found.expires_ms is not None
    with pytest.raises(KeyRefused, match="expired"):
        ring.check(f"Bearer {key}".encode(), found.expires_ms)


def test_revoking_what_is_not_there_is_told(data: Path) -> None:
    with pytest.raises(CommandError, match="no key nothing"):
        command.revoke(data, "nothing")


def test_one_writer_at_a_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = process_lock.take(data / "keys.lock")
    monkeypatch.setattr(command, "_WAIT_S", 0.05)
    with pytest.raises(CommandError, match="is at work"):
        command.create(data, "us-east-1", [], None)
    assert held > 0


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30s", NOW_MS + 30_000),
        ("90d", NOW_MS + 90 * 86_400_000),
        ("2027-01-31", 1_801_353_600_000),
        ("2027-01-31T01:00:00", 1_801_357_200_000),
    ],
)
def test_ends_are_spans_or_times(text: str, ms: int) -> None:
    assert command.expiry_ms(text, NOW_MS) == ms


@pytest.mark.parametrize("text", ["", "d", "1w", "-1d", "tomorrow", "0s", "1999-01-01", "9999999d"])
def test_ends_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        command.expiry_ms(text, NOW_MS)
    assert refused.value.code == 2


def test_a_name_that_no_endpoint_can_have_is_refused(data: Path) -> None:
    with pytest.raises(CommandError, match="no name of an endpoint"):
        command.create(data, "us-east-1", ["a b"], None)
    assert read_keys(data / "keys.json") == []


def test_the_list_shows_what_they_open() -> None:
    keys = [
        ApiKey("aaaaaaaaaa", "", "1", "us-east-1", (), NOW_MS, None),
        ApiKey("bbbbbbbbbb", "", "1", "eu-west-1", ("one", "two"), NOW_MS, NOW_MS + 1),
    ]
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(command.table(keys, NOW_MS + 2))
        shown = console.export_text()
    assert "all" in shown
    assert "never" in shown
    assert "one, two" in shown
    assert "(expired)" in shown


def test_the_file_is_json_for_people(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(data, capsys, "one")
    (entry,) = json.loads((data / "keys.json").read_text())
    assert entry.keys() == {"key_id", "sha256", "account", "region", "endpoints", "created_ms", "expires_ms"}
