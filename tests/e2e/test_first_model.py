"""From a model file to an endpoint, and what the commands then say of it, as a new user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from demo_models import Model

from .conftest import RealEyrie, until

ROW = "0.5,1.5"


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def elsewhere(eyrie: RealEyrie, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """A command whose `--data` is what it sends."""
    command = [sys.executable, "-P", "-m", "eyrie", *arguments, "--eyrie", str(eyrie.data)]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("first") / "sorter.bin"
    joblib.dump(LogisticRegression().fit([[0, 0], [1, 1], [0, 1], [2, 2]], [0, 1, 0, 1]), path)
    return path


@pytest.fixture(scope="module")
def sorter(eyrie: RealEyrie, model: Path) -> subprocess.CompletedProcess[str]:
    """The model deployed as its user would, and what the command said."""
    done = eyrie.run("deploy", str(model), "--instances", "1", "--zones", "2")
    assert done.returncode == 0, done.stderr + eyrie.last_logs()
    return done


def test_one_command_from_a_file_to_an_endpoint_that_answers(
    eyrie: RealEyrie, sorter: subprocess.CompletedProcess[str]
) -> None:
    assert "sklearn.linear_model" in sorter.stderr
    assert "eyrie/sklearn, real-time, 2 instances" in sorter.stdout
    (line,) = [row for row in sorter.stdout.splitlines() if "boto3.client" in row]
    assert 'Body="0,0"' in line  # the width was asked of the endpoint itself
    body = eval(line.removeprefix("  boto3  "), {"boto3": boto3})  # what is printed can be pasted
    assert json.loads(body) == [0]
    assert {i["zone"] for i in eyrie.instances("sorter")} == {"a", "b"}


@pytest.mark.usefixtures("sorter")
def test_invoke_sends_text_files_and_pipes(eyrie: RealEyrie, tmp_path: Path) -> None:
    row = tmp_path / "rows.json"
    row.write_text("[[2, 2], [0, 0]]")
    assert json.loads(elsewhere(eyrie, "invoke", "sorter", "--data", str(row)).stdout) == [1, 0]
    found = told(elsewhere(eyrie, "invoke", "sorter", "--json", given=ROW))
    assert (found["variant"], json.loads(found["body"])) == ("main", [1])
    assert "the model answered 4" in refusal(elsewhere(eyrie, "invoke", "sorter", "--data", "1,2,3"))
    assert "no such file" in refusal(elsewhere(eyrie, "invoke", "sorter", "--data", "./absent.csv"))


@pytest.mark.heavy
@pytest.mark.usefixtures("sorter")
def test_a_load_is_answered_whole_and_reported(eyrie: RealEyrie, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    found = told(
        elsewhere(
            eyrie, "load", "sorter", "--rps", "100", "--duration", "2s", "--data", ROW, "--html", str(page), "--json"
        )
    )
    assert (found["requests"], found["answered"], found["errors"]) == (200, 200, {})
    assert found["response_ms"]["p50"] >= found["service_ms"]["p50"] > 0
    assert "<svg" in page.read_text()
    bad = elsewhere(eyrie, "load", "sorter", "--users", "3", "--duration", "1s", "--data", "1,2,3", "--json")
    assert "was answered well: 424 ModelError" in refusal(bad)


@pytest.mark.heavy
@pytest.mark.usefixtures("sorter")
def test_the_table_and_the_log_tell_of_it(eyrie: RealEyrie) -> None:
    elsewhere(eyrie, "invoke", "sorter", "--data", ROW)
    (row,) = until(lambda: [r for r in told(eyrie.run("endpoints", "--json"))["endpoints"] if r["rps"] > 0])
    assert (row["name"], row["status"], row["zones"]) == ("sorter", "InService", {"a": 1, "b": 1})
    assert "nobody" in refusal(elsewhere(eyrie, "invoke", "nobody", "--data", ROW))
    assert "sorter" in eyrie.run("endpoints").stdout
    assert "a:1 b:1" in eyrie.run("top", "--once").stdout
    assert "scikit-learn" in eyrie.run("tail", "sorter", "--no-follow").stdout
    assert "nobody" in refusal(eyrie.run("tail", "nobody", "--no-follow"))


@pytest.mark.heavy
@pytest.mark.usefixtures("sorter")
def test_a_fault_is_injected_under_load_and_healed(eyrie: RealEyrie) -> None:
    before = eyrie.serving("sorter")
    found = told(eyrie.run("chaos", "sorter", "--kill-instance", "--yes", "--json"))
    (run,) = found["runs"]
    assert run["requests"] > 100
    assert run["failed"] <= 2
    assert run["whole_s"] > 0
    assert len(eyrie.serving("sorter") - before) == 1
    assert "--yes" in refusal(eyrie.run("chaos", "sorter", "--kill-control"))


@pytest.mark.heavy
@pytest.mark.usefixtures("sorter")
def test_deploying_again_updates_and_a_model_that_fails_is_given_back(
    eyrie: RealEyrie, trained: tuple[list[Model], list[str], list[int]], tmp_path: Path
) -> None:
    better = tmp_path / "sorter.joblib"
    joblib.dump(LogisticRegression().fit([[0, 0], [1, 1], [0, 1], [2, 2]], [1, 0, 1, 0]), better)
    found = told(eyrie.run("deploy", str(better), "--json"))
    assert (found["endpoint"], found["updated"], found["instances"]) == ("sorter", True, 2)
    assert json.loads(elsewhere(eyrie, "invoke", "sorter", "--data", ROW).stdout) == [0]
    odd = tmp_path / "sorter.pkl"
    odd.write_bytes(b"\x80\x04}\x94.")
    assert "a pickled dict" in refusal(eyrie.run("deploy", str(odd)))
    assert "two types" in refusal(eyrie.run("deploy", str(better), "--serverless", "--async"))


@pytest.mark.heavy
@pytest.mark.usefixtures("sorter")
def test_delete_takes_away_what_deploy_made(eyrie: RealEyrie) -> None:
    assert "--yes" in refusal(eyrie.run("delete", "sorter"))
    gone = told(eyrie.run("delete", "sorter", "--yes", "--json"))["deleted"]
    assert sum(name.startswith("model/") for name in gone) == 2
    sagemaker = boto3.client("sagemaker")
    assert sagemaker.list_models()["Models"] == sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    until(lambda: not eyrie.instances("sorter"))
    assert "there is no endpoint" in refusal(eyrie.run("delete", "sorter", "--yes"))
