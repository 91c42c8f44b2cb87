"""Control is killed with SIGKILL as it enters each phase of a deployment, one phase after the other, under load from 32
clients: the deployment ends as it would have, no request fails but those that a bad green answered itself, and green
never had more than its share. Real processes, on a clock that is thirty times as fast.

A completing deployment and one that is given back are heavy tests; every end of every policy is run by
`EYRIE_EVERY_KILL=1 pytest -m heavy tests/chaos/test_kill_rollouts.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import rollouts_world as world
from botocore.exceptions import BotoCoreError, ClientError
from rollouts_world import POLICIES, Load, Tables, until

from eyrie.adapters import process_lock

STANDIN = Path(__file__).parent / "standins" / "mortal_up.py"
SCALE = 30
ENDPOINT = "killed"
LONG_BAKE_S = 1_500
BEGINNING = ("PROVISIONING", "SHIFTING", "BAKING")
PHASES = {
    "completes": (*BEGINNING, "TERMINATION_WAIT", "RETIRING"),
    "an alarm": (*BEGINNING, "ROLLING_BACK"),
    "never healthy": ("PROVISIONING", "ROLLING_BACK"),
    "500s": (*BEGINNING, "ROLLING_BACK"),
    "slow": (*BEGINNING, "ROLLING_BACK"),
    "time limit": ("PROVISIONING", "ROLLING_BACK"),
}
CONFIGS = {"never healthy": "stillborn", "500s": "broken", "slow": "slow", "time limit": "late"}
METRICS = {"500s": ("broken", "Invocation5XXErrors", 0.5), "slow": ("slow", "ModelLatency", 100_000)}
SOME = [("canary", "completes"), ("all at once", "never healthy")]
EVERY = [(how, what) for what in PHASES for how in POLICIES]
CELLS = EVERY if os.environ.get("EYRIE_EVERY_KILL") else SOME


@dataclass
class Stage:
    """One Eyrie whose control may be told where to die, and those who load its endpoint."""

    data: Path
    load: Load

    def arm(self, phase: str) -> int:
        """Let control die when the deployment has entered this phase; the pid that will die."""
        (self.data / "die-at").write_text(f"after commit deployment {phase}")
        return int((self.data / "run" / "control.lock").read_text())

    def died(self, pid: int) -> bool:
        """Whether control is gone."""
        return not (self.data / "die-at").exists() and process_lock.holder(self.data / "run" / "control.lock") != pid

    @property
    def control(self) -> int | None:
        """The pid of the one that is there now."""
        return process_lock.holder(self.data / "run" / "control.lock")

    @property
    def table(self) -> Path:
        return next((self.data / "routes").glob(f"*.{ENDPOINT}.json"))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory(prefix="eyrie-chaos-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        data = Path(folder) / "data"
        command = [sys.executable, str(STANDIN), str(data), str(SCALE)]
        up = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert up.stdout is not None
        try:
            assert "ready" in up.stdout.readline()
            aim(data, patch)
            sagemaker = boto3.client("sagemaker")
            world.create_configs(boto3.client("s3"), sagemaker)
            sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="one")
            world.settled(sagemaker, ENDPOINT)
            with Load(data, ENDPOINT) as load:
                until(lambda: load.answered > 10 * world.CLIENTS)
                yield Stage(data, load)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(60)
            up.stdout.close()


def aim(data: Path, patch: pytest.MonkeyPatch) -> None:
    """Point boto3's default session at it; control is away at times, so that clients try again."""
    key = json.loads((data / "credentials.json").read_text())[0]
    port = json.loads((data / "env.json").read_text())["port"]
    given = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    given |= {"AWS_ACCESS_KEY_ID": key["access_key_id"], "AWS_SECRET_ACCESS_KEY": key["secret_access_key"]}
    for name, value in {**given, "AWS_MAX_ATTEMPTS": "1"}.items():
        patch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setattr(boto3, "DEFAULT_SESSION", None)


def described() -> dict[str, Any] | None:
    """The endpoint; None while control is away."""
    with suppress(ClientError, BotoCoreError):
        found: dict[str, Any] = boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
        return found
    return None


def settled() -> dict[str, Any] | None:
    """The endpoint, once nothing is on its way."""
    found = described()
    return found if found is not None and found["EndpointStatus"] == "InService" else None


def begin(how: str, what: str, config: str) -> None:
    """UpdateEndpoint; its answer is lost where control dies of it."""
    wanted = world.policy(how, 90 if what == "completes" else LONG_BAKE_S)
    if what == "time limit":
        wanted = world.policy(how, 60, limit_s=600)
    elif what == "an alarm":
        wanted |= world.alarm(f"trouble-{how}", "Tests", f"Trouble {how}", 0.5, [])
    elif what in METRICS:
        wanted |= world.alarm_on(ENDPOINT, *METRICS[what])
    boto3.client("sagemaker").update_endpoint(EndpointName=ENDPOINT, EndpointConfigName=config, DeploymentConfig=wanted)


def ring(how: str) -> None:
    """The alarm's metric is told, once control is there to hear it."""

    def told() -> bool:
        with suppress(ClientError, BotoCoreError):
            trouble = {"MetricName": f"Trouble {how}", "Value": 1.0}
            boto3.client("cloudwatch").put_metric_data(Namespace="Tests", MetricData=[trouble])
            return True
        return False

    until(told)


def killed_in_each(stage: Stage, how: str, what: str, config: str) -> int:
    """Begin, and let control die in phase after phase; how often it did."""
    phases = PHASES[what]
    pid = stage.arm(phases[0])
    begin(how, what, config)
    for number, phase in enumerate(phases):
        until(lambda: stage.died(pid), 180.0, f"control dies in {phase}")  # noqa: B023 - called before the next round
        if number + 1 < len(phases):
            (stage.data / "die-at").write_text(f"after commit deployment {phases[number + 1]}")
        pid = until(lambda: (now := stage.control) != pid and now, 120.0, "control is back")  # noqa: B023 - likewise
        if what == "an alarm" and phase == "BAKING":
            ring(how)
    return len(phases)


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("how", "what"), CELLS)
def test_killed_in_every_phase(stage: Stage, how: str, what: str) -> None:
    before = until(settled)
    failed, since_ms = stage.load.failures, int(before["LastModifiedTime"].timestamp() * 1000)
    config = CONFIGS.get(what) or ("two" if before["EndpointConfigName"] == "one" else "one")
    with Tables(stage.table) as tables:
        blue = next(iter(tables.seen[tables.newest].weights))
        deaths = killed_in_each(stage, how, what, config)
        found = until(settled, 240.0, "the end")
    assert found["EndpointConfigName"] == (config if what == "completes" else before["EndpointConfigName"])
    assert ("FailureReason" in found) == (what != "completes")
    words = stage.load.words
    until(lambda: stage.load.words > words + 1)
    assert set(stage.load.failures - failed) <= ({"424 ModelError"} if config == "broken" else set())
    green = max(fleet for table in tables.seen.values() for fleet in table.weights)
    shares = {round(table.share(green), 9) for table in tables.seen.values()} if green > blue else {0.0}
    assert shares <= set(world.SHARES[how])
    assert max(shares) == pytest.approx(expected(how, what))
    logs = boto3.client("logs")  # where a second is found a little after it is over
    records = until(lambda: (one := world.counted(logs, ENDPOINT, since_ms, tables)).requests and one, 60.0, "records")
    # what is told while control is away is lost: between two such gaps the count is exact again, but for what was dealt
    # in a gap and answered after it: of a slow green that may be as many as there are clients
    slack = 1 + deaths * (world.CLIENTS if what == "slow" else 2)
    assert world.excesses(records, tables, green if green > blue else 0, slack=slack) == []
    assert Counter({f: n for f, n in records.errors.items() if n and f != green}) == Counter()


def expected(how: str, what: str) -> float:
    """The most that green ever has of the traffic."""
    if what == "completes":
        return 1.0
    return 0.0 if what in ("never healthy", "time limit") else world.SHARES[how][1]
