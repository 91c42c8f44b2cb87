"""A multi-model endpoint with boto3 against a real Eyrie: dozens of XGBoost models on two instances, eviction under a
small budget, an instance killed under load, and what is refused."""

from __future__ import annotations

import contextlib
import os
import signal
import tarfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import xgboost
from botocore.config import Config
from botocore.exceptions import ClientError

from eyrie.cli.client import ControlUnreachable

from .conftest import ROLE, WAIT, RealEyrie, until

MODELS, FEATURES = 24, 8


class Many:
    """Models below one prefix, and what each says to one row."""

    def __init__(self, eyrie: RealEyrie, folder: Path) -> None:
        self.eyrie = eyrie
        draw = np.random.default_rng(3)
        rows = draw.normal(size=(200, FEATURES)).astype(np.float32)
        self.row = ",".join(f"{value:.9g}" for value in rows[0])
        self.said: dict[str, float] = {}
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="many")
        for number in range(MODELS):
            labels = (rows @ draw.normal(size=FEATURES) > 0).astype(int)
            settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
            booster = xgboost.train(settings, xgboost.DMatrix(rows, labels), num_boost_round=8)
            booster.save_model(folder / "xgboost-model.json")
            name = f"group/m{number}.tar.gz"
            with tarfile.open(folder / "m.tar.gz", "w:gz") as tar:
                tar.add(folder / "xgboost-model.json", "xgboost-model.json")
            s3.upload_file(str(folder / "m.tar.gz"), "many", f"models/{name}")
            self.said[name] = float(booster.inplace_predict(rows[:1])[0])
        s3.close()

    def deploy(
        self, endpoint: str, instances: int, environment: dict[str, str] | None = None, **container: Any
    ) -> None:
        sagemaker = boto3.client("sagemaker")
        primary = {"Image": "eyrie/xgboost", "Mode": "MultiModel", "ModelDataUrl": "s3://many/models/", **container}
        sagemaker.create_model(
            ModelName=endpoint, PrimaryContainer={**primary, "Environment": environment or {}}, ExecutionRoleArn=ROLE
        )
        variant = {
            "VariantName": "v",
            "ModelName": endpoint,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": instances,
        }
        sagemaker.create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=endpoint, WaiterConfig=WAIT)
        sagemaker.close()

    def ask(self, endpoint: str, model: str | None, runtime: Any = None) -> float:
        """One invocation without client retries."""
        mine = runtime or boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        more = {"TargetModel": model} if model is not None else {}
        reply = mine.invoke_endpoint(
            EndpointName=endpoint, ContentType="text/csv", Accept="text/csv", Body=self.row, **more
        )
        said = float(reply["Body"].read())
        if runtime is None:
            mine.close()
        return said

    def right(self, endpoint: str, model: str) -> bool:
        return self.ask(endpoint, model) == pytest.approx(self.said[model], abs=1e-5)

    def loaded(self, endpoint: str) -> dict[str, int]:
        """Models by instance, as /eyrie/status has them; none while control is away."""
        with contextlib.suppress(ControlUnreachable):
            return {i["id"]: i["models"] for i in self.eyrie.instances(endpoint) if i["state"] == "READY"}
        return {}


@pytest.fixture(scope="module")
def many(eyrie: RealEyrie, tmp_path_factory: pytest.TempPathFactory) -> Many:
    return Many(eyrie, tmp_path_factory.mktemp("many"))


def test_dozens_of_models_on_two_instances_and_one_killed_under_load(many: Many) -> None:
    many.deploy("fleet", instances=2)
    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(lambda name: many.right("fleet", name), many.said))
    assert all(many.right("fleet", name) for name in many.said)
    until(lambda: len(loaded := many.loaded("fleet")) == 2 and all(loaded.values()))  # both have a share of the models
    before = many.loaded("fleet")

    answers: Counter[str] = Counter()
    stop = threading.Event()

    def traffic(seed: int) -> None:
        runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        names = list(many.said)
        while not stop.is_set():
            seed = (seed * 7 + 5) % len(names)
            name = names[seed]
            try:
                said = many.ask("fleet", name, runtime)
                answers["right" if abs(said - many.said[name]) < 1e-5 else "wrong"] += 1
            except ClientError as error:
                answers[f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"] += 1
        runtime.close()

    workers = [threading.Thread(target=traffic, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    until(lambda: answers["right"] > 50)
    victim = next(i for i in many.eyrie.instances("fleet") if i["id"] in before)
    os.kill(victim["pid"], signal.SIGKILL)
    until(lambda: len(many.loaded("fleet")) == 2 and victim["id"] not in many.loaded("fleet"))
    at = answers["right"]
    until(lambda: answers["right"] > at + 100)
    stop.set()
    for worker in workers:
        worker.join(60)
    assert set(answers) == {"right"}, answers
    assert all(many.right("fleet", name) for name in many.said)


def test_loaded_models_serve_while_control_is_dead(many: Many) -> None:
    name = next(iter(many.said))
    assert many.right("fleet", name)
    os.kill(many.eyrie.processes()["control"], signal.SIGKILL)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert many.right("fleet", name)
    until(lambda: len(many.loaded("fleet")) == 2)
    boto3.client("sagemaker").delete_endpoint(EndpointName="fleet")


def test_models_are_evicted_under_a_small_budget_and_come_back(many: Many) -> None:
    many.deploy("small", instances=1, environment={"MULTI_MODEL_MODELS_MAX": "5"})
    names = list(many.said)[:12]
    for _ in range(2):
        assert all(many.right("small", name) for name in names)
    (instance,) = many.loaded("small")
    slots = [p.parent for p in (many.eyrie.data / "slots").glob("*/spec.json") if instance in p.read_text()]
    placed = until(lambda: len(list((slots[0] / "ml" / "models").iterdir())) <= 5 + 9)
    assert placed
    boto3.client("sagemaker").delete_endpoint(EndpointName="small")


def test_an_overwritten_archive_is_taken_up_when_the_model_is_loaded_again(many: Many) -> None:
    many.deploy("fresh", instances=1, MultiModelConfig={"ModelCacheSetting": "Disabled"})
    first, second = list(many.said)[:2]
    s3 = boto3.client("s3")
    s3.copy_object(Bucket="many", Key="models/new.tar.gz", CopySource=f"many/models/{first}")
    assert many.ask("fresh", "new.tar.gz") == pytest.approx(many.said[first], abs=1e-5)
    s3.copy_object(Bucket="many", Key="models/new.tar.gz", CopySource=f"many/models/{second}")
    until(lambda: many.ask("fresh", "new.tar.gz") == pytest.approx(many.said[second], abs=1e-5))
    boto3.client("sagemaker").delete_endpoint(EndpointName="fresh")


def test_what_is_wrong_is_said_in_the_words_of_the_service(many: Many) -> None:
    many.deploy("words", instances=1)
    boto3.client("s3").put_object(Bucket="many", Key="models/broken.tar.gz", Body=b"this is no archive")
    for model, code, text in (
        (None, "ValidationError", "is missing a target model header"),
        ("nope.tar.gz", "ValidationError", "Failed to download model data(bucket: many, key: models/nope.tar.gz)"),
        ("broken.tar.gz", "ValidationError", "is not a readable tar.gz archive"),
        ("../escape.tar.gz", "ValidationError", "is not valid"),
    ):
        with pytest.raises(ClientError) as error:
            many.ask("words", model)
        assert error.value.response["Error"]["Code"] == code
        assert text in error.value.response["Error"]["Message"]
    empty = many.eyrie.data.parent / "empty.tar.gz"
    with tarfile.open(empty, "w:gz"):
        pass
    boto3.client("s3").upload_file(str(empty), "many", "models/empty.tar.gz")
    empty.unlink()
    with pytest.raises(ClientError) as error:
        many.ask("words", "empty.tar.gz")
    assert error.value.response["Error"]["Code"] == "ModelError"
    assert "model folder" in error.value.response["OriginalMessage"]
    assert many.right("words", next(iter(many.said)))
    boto3.client("sagemaker").delete_endpoint(EndpointName="words")
