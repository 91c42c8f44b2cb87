"""`--json`: every command has it, in one way, and what it prints is JSON and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from test_cli_help import COMMANDS
from typer.testing import CliRunner

import eyrie.cli
from eyrie.cli import data as datadir
from eyrie.cli import documents, logs, transform
from eyrie.cli.errors import CommandError
from eyrie.cli.main import app

# Why a command has none.
WITHOUT = {
    ("capture", "cat"): "a record is a line of JSON already",
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_answers_programs(words: tuple[str, ...]) -> None:
    has = any("--json" in option.opts for option in COMMANDS[words].params)
    assert has != (words in WITHOUT), f"eyrie {' '.join(words)} either has --json or a reason"


def test_one_function_prints_the_documents() -> None:
    """Nobody prints JSON past it, but where people are to copy it."""
    folder = Path(eyrie.cli.__file__).parent
    found = [
        path.name
        for path in sorted(folder.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" and "json.dumps" in ast.unparse(node)
    ]
    assert found == ["simulate.py"]  # the policy that --tune found, indented


def test_what_a_command_line_says_is_told_by_name() -> None:
    """Options in their places would be swapped unnoticed."""
    modules = [importlib.import_module(f"eyrie.cli.{found.name}") for found in pkgutil.iter_modules(eyrie.cli.__path__)]
    told = {
        cls
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if name in ("Asked", "Wish") and is_dataclass(cls)
    }
    assert len(told) >= 10
    assert [f"{cls.__module__}.{f.name}" for cls in told for f in fields(cls) if not f.kw_only] == []


def test_a_document_is_json_for_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
    documents.print_document({"a": [float("nan"), (1.5, float("inf"))], "at": at, "path": Path("/x"), "é": "ü\n"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out, parse_constant=pytest.fail)
    assert found == {"a": [None, [1.5, None]], "at": "2026-11-22T01:02:03+00:00", "path": "/x", "é": "ü\n"}


def answered(*arguments: str) -> Any:
    """What a command prints, which is one document."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that an Eyrie has run with."""
    datadir.make(tmp_path)
    datadir.check_version(tmp_path)
    datadir.ensure_credentials(tmp_path, "123456789012")
    datadir.write_env(tmp_path, {"endpoint": "http://127.0.0.1:7", "region": "us-east-1", "port": 7})
    return tmp_path


def test_commands_that_need_no_running_eyrie(data: Path) -> None:
    there = ("--data", str(data), "--json")
    assert answered("version", "--json").keys() == {"version"}
    assert answered("env", *there)["AWS_ENDPOINT_URL"] == "http://127.0.0.1:7"
    assert answered("down", *there) == {"stopped": False, "data": str(data)}
    made = answered("key", "create", "--endpoint", "iris", *there)
    assert made["key"].startswith(f"eyrie_{made['key_id']}_")
    assert [one["key_id"] for one in answered("key", "list", *there)] == [made["key_id"]]
    assert "sha256" not in made
    assert answered("key", "revoke", made["key"], *there) == {"revoked": made["key_id"]}
    assert answered("assess", "iris", "--history", *there) == []


def test_a_simulation_for_programs(tmp_path: Path) -> None:
    there = ("--traffic", "constant:20,duration=5m", "--data", str(tmp_path), "--json")
    page = tmp_path / "page.html"
    found = answered("simulate", "--policy", "fixed:2", "--policy", "hpa", "--html", str(page), *there)
    assert page.exists()
    assert [one["policy"] for one in found["policies"]] == ["fixed:2", "hpa"] or len(found["policies"]) == 2
    assert all(isinstance(one["actions"], list) for one in found["policies"])
    tuned = answered("simulate", "--tune", "--trials", "3", *there)["tuned"]
    assert tuned["ScalableTarget"]["MinCapacity"] == 1
    assert tuned["ScalingPolicies"]
    rollout = tmp_path / "rollout.json"
    rollout.write_text('{"InstanceCount": 2}')
    replayed = answered("simulate", "--rollout", str(rollout), "--runs", "2", *there)
    assert [one["outcome"] for one in replayed["runs"]] == ["SUCCEEDED", "SUCCEEDED"]


class Job:
    """Stands in for control: a job that ends as it is told."""

    def __init__(self, status: str) -> None:
        self.asked: list[str] = []
        self._status = status

    def sagemaker(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(operation)
        output = {"S3OutputPath": "s3://b/out"}
        failed = {"FailureReason": "bad rows"} if self._status == "Failed" else {}
        return {"TransformJobStatus": self._status, "TransformOutput": output, **failed}


WISH = transform.Wish(
    model="m", input="s3://b/in", output="s3://b/out", content_type="text/csv", split="Line", strategy="", join=False,
    gzip=False, instance_type="ml.m5.large", instances=1, bad_records="", name="job",
)  # fmt: skip


@pytest.mark.parametrize("to_its_end", [False, True])
def test_a_job_that_was_started_is_one_document(
    tmp_path: Path, to_its_end: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transform, "_client", lambda data: Job("Completed"))
    transform.run(tmp_path, WISH, to_its_end, as_json=True)
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "job": "job",
        "status": "Completed" if to_its_end else "InProgress",
        "output": "s3://b/out",
        "failure": None,
        "progress": {},
    }
    assert told.err == ""


def test_a_job_that_failed_is_told_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transform, "_client", lambda data: Job("Failed"))
    with pytest.raises(CommandError, match="bad rows"):
        transform.follow(tmp_path, "job", as_json=True)
    assert json.loads(capsys.readouterr().out)["failure"] == "bad rows"


def test_lines_of_a_log_are_objects(capsys: pytest.CaptureFixture[str]) -> None:
    from eyrie.adapters.instance_logs import Line

    logs.show([(Line(1, 'said "so"'), "main/i-1"), (Line(2, "é"), "main/i-2")], as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"at_ms": 1, "stream": "main/i-1", "message": 'said "so"'}
    assert lines[1]["message"] == "é"
