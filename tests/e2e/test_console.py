"""The console in a real browser over a running Eyrie: log in, deploy by upload, change weights, invoke, search logs.

Runs from `.venv-console`, which has NiceGUI and a driver of Chromium (`make test-heavy`); no page may write to the
browser's log, ask anything of another host, or fail the accessibility check.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from axe_playwright_python.sync_playwright import Axe
from nicegui import Client
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from eyrie.console.app import register
from eyrie.console.desk import new_desk
from eyrie.settings import Settings

from .conftest import Deployed, RealEyrie, not_yet, remove, until

pytestmark = pytest.mark.heavy

PATIENCE_MS = 30_000
SERIOUS = ("serious", "critical")


class Visitor:
    """A person with a browser: what went wrong in it is kept."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.troubles: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"{message.type}: {message.text}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.troubles.append(f"asked for {request.url}")

    def open(self, path: str = "") -> None:
        """Open a page; returns when its heading is there and nothing is loading any more."""
        self.page.goto(f"{self.url}/console{path}")
        self.wait()

    def wait(self) -> None:
        """Until the page can be used."""
        self.page.wait_for_selector("main h1")
        self.page.wait_for_function("!document.body.innerText.includes('Loading …') && window.did_handshake")

    def log_in(self, key: dict[str, str]) -> None:
        self.page.goto(f"{self.url}/console")
        self.page.get_by_label("Access key").fill(key["access_key_id"])
        self.page.get_by_label("Secret").fill(key["secret_access_key"])
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).last.click()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    assert found, "the browser tests need Chromium: apt-get install chromium"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module", autouse=True)
def with_console() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EYRIE_CONSOLE", "on")
        yield


@pytest.fixture(scope="module")
def key(eyrie: RealEyrie) -> dict[str, str]:
    return dict(json.loads((eyrie.data / "credentials.json").read_text())[0])


@contextmanager
def visiting(
    eyrie: RealEyrie, browser: Browser, key: dict[str, str], size: ViewportSize, scheme: Any
) -> Iterator[Visitor]:
    """Somebody who has logged in; nothing may have gone wrong in the browser at the end."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    made = Visitor(context.new_page(), f"http://127.0.0.1:{eyrie.port}")
    made.log_in(key)
    yield made
    context.close()
    assert made.troubles == []


@pytest.fixture
def visitor(eyrie: RealEyrie, browser: Browser, key: dict[str, str]) -> Iterator[Visitor]:
    with visiting(eyrie, browser, key, {"width": 1280, "height": 900}, "light") as made:
        yield made


@pytest.fixture(scope="module")
def churn(deployed: Deployed) -> Deployed:
    deployed.create("churn", 1, ("sklearn", "xgboost"))
    for _ in range(20):
        deployed.ask("churn")
    return deployed


def test_nobody_gets_in_without_the_credentials(eyrie: RealEyrie, browser: Browser, key: dict[str, str]) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{eyrie.port}/console/endpoints?x=1")
    assert "/console/login?next=" in page.url
    page.get_by_label("Access key").fill(key["access_key_id"])
    page.get_by_label("Secret").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not taken")
    page.get_by_label("Secret").fill(key["secret_access_key"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Endpoints")).to_be_visible()
    kept = next(one for one in context.cookies() if one["name"] == "eyrie-session")
    assert kept["httpOnly"]
    assert kept["sameSite"] == "Lax"
    stored = page.evaluate(
        "JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage), document.cookie])"
    )
    assert key["secret_access_key"] not in stored
    assert key["access_key_id"] not in stored
    page.get_by_role("button", name="Log out").click()
    page.goto(f"http://127.0.0.1:{eyrie.port}/console")
    assert "/console/login" in page.url
    context.close()


def test_deploys_a_model_file_in_three_clicks_and_invokes_it(visitor: Visitor, trained: Any, churn: Deployed) -> None:
    model = trained[0][0].archive.parent / "xgboost-model.json"
    visitor.open("/deploy")
    visitor.page.get_by_label("Model file").set_input_files(str(model))
    expect(visitor.page.get_by_text("an XGBoost model (JSON)")).to_be_visible()
    visitor.page.get_by_label("Name of the endpoint").fill("uploaded")
    visitor.page.evaluate("window.socket.disconnect().connect()")  # a moment without the network
    visitor.page.wait_for_function("window.socket.connected")
    visitor.click("Deploy")
    visitor.click("Yes, deploy")
    visitor.page.wait_for_url("**/console/endpoints/uploaded")
    expect(visitor.page.locator(".head .chip", has_text="InService")).to_be_visible()
    visitor.open("/endpoints/uploaded/invoke")
    visitor.page.get_by_label("Body").fill(churn.rows[0])
    visitor.click("Invoke")
    expect(visitor.page.locator(".chip.good", has_text="200")).to_be_visible()
    answer = float(visitor.page.locator("pre.body").inner_text().strip())
    assert round(answer) == churn.truth[0]


def left_behind() -> list[str]:
    """Models, configs, and what lies in the console's bucket."""
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    found = [one["ModelName"] for one in sagemaker.list_models()["Models"]]
    found += [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]]
    buckets = [one["Name"] for one in s3.list_buckets()["Buckets"] if one["Name"] == "eyrie-console"]
    return found + [one["Key"] for name in buckets for one in s3.list_objects_v2(Bucket=name).get("Contents", ())]


NO_MODELS = {
    "empty.json": b"",
    "numbers.json": b'{"a": [1, 2]}',
    "notes.txt": b"no model at all",
    "model.joblib": b"\x80\x04}\x94.",
    "model.onnx": b"\x00" * 64,
    "model.tar.gz": b"\x1f\x8b\x08 and then nothing that unpacks",
    "<b>bold.bin": b"\x00\xff" * 32,
}


def test_what_is_no_model_is_told_in_words_and_leaves_nothing(
    visitor: Visitor, trained: Any, churn: Deployed, tmp_path: Path
) -> None:
    before, page = left_behind(), visitor.page
    visitor.open("/deploy")
    deploy = page.get_by_role("button", name="Deploy", exact=True)
    for name, content in {"model.joblib": None, **NO_MODELS}.items():  # the first one is a model
        if content is None:
            page.get_by_label("Model file").set_input_files(str(trained[0][0].archive.parent / name))
            expect(deploy).to_be_visible()
            continue
        (tmp_path / name).write_bytes(content)
        page.get_by_label("Model file").set_input_files(str(tmp_path / name))
        expect(page.get_by_role("alert")).to_contain_text(name)
        expect(deploy).to_be_hidden()
    page.get_by_label("Model file").set_input_files(str(trained[0][0].archive))
    expect(page.get_by_text("Taken for")).to_be_visible()
    page.get_by_label("Name of the endpoint").fill("churn")  # there is one of this name
    visitor.click("Deploy")
    visitor.click("Yes, deploy")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("already")
    assert left_behind() == before


def test_changes_weights_and_sees_the_split_move(visitor: Visitor, churn: Deployed) -> None:
    visitor.open("/endpoints/churn")
    expect(visitor.page.get_by_role("img", name="Traffic: sklearn 50 %, xgboost 50 %")).to_be_visible()
    visitor.click("Change weights")
    visitor.page.get_by_label("sklearn", exact=True).fill("3")
    visitor.click("Apply")
    expect(visitor.page.get_by_text("On its way.")).to_be_visible()
    assert wrong_with(visitor.page) == []  # with the notification
    expect(visitor.page.get_by_role("img", name="Traffic: sklearn 75 %, xgboost 25 %")).to_be_visible()
    variants = boto3.client("sagemaker").describe_endpoint(EndpointName="churn")["ProductionVariants"]
    assert {v["VariantName"]: v["DesiredWeight"] for v in variants} == {"sklearn": 3.0, "xgboost": 1.0}


def test_an_impossible_weight_is_told_in_the_dialog(visitor: Visitor, churn: Deployed) -> None:
    visitor.open("/endpoints/churn")
    visitor.click("Scale")
    visitor.page.get_by_label("sklearn", exact=True).fill("1.5")
    visitor.click("Apply")
    expect(visitor.page.get_by_role("alert")).to_contain_text("whole number")
    expect(visitor.page.get_by_role("button", name="Apply")).to_be_enabled()
    assert wrong_with(visitor.page, dialog=True) == []
    visitor.click("Cancel")


def test_watches_a_canary_shift_and_rolls_back(visitor: Visitor, churn: Deployed) -> None:
    sagemaker = boto3.client("sagemaker")
    churn.create("canary", 1, ("sklearn",))
    variant = {
        "VariantName": "sklearn",
        "ModelName": "xgboost",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="canary-2", ProductionVariants=[variant])
    routing = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 6}
    policy = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    visitor.open("/endpoints/canary/deployment")
    sagemaker.update_endpoint(EndpointName="canary", EndpointConfigName="canary-2", DeploymentConfig=policy)
    expect(visitor.page.get_by_role("img", name="sklearn (old) 50 %, sklearn (new) 50 %")).to_be_visible()
    churn.wait_in_service("canary")
    expect(visitor.page.locator(".steps li.done", has_text="Done")).to_be_visible()
    visitor.click("Roll back")
    expect(visitor.page.get_by_role("dialog")).to_contain_text("canary")
    visitor.page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    until(lambda: sagemaker.describe_endpoint(EndpointName="canary")["EndpointStatus"] != "InService")
    churn.wait_in_service("canary")
    assert sagemaker.describe_endpoint(EndpointName="canary")["EndpointConfigName"] == "canary"
    churn.delete("canary")


def test_searches_the_logs(visitor: Visitor, churn: Deployed) -> None:
    visitor.open("/endpoints/churn/logs")
    lines = visitor.page.locator(".log div")
    expect(lines.first).to_be_visible()
    visitor.page.get_by_role("textbox", name="Search").fill("nothing-says-this")
    visitor.click("Search")
    expect(visitor.page.get_by_text("No line matches in this time.")).to_be_visible()
    visitor.open("/logs")
    visitor.click("Run")
    expect(visitor.page.get_by_text("Complete:")).to_be_visible()
    expect(visitor.page.get_by_role("table", name="What the query found")).to_be_visible()
    visitor.page.get_by_label("Query (Logs Insights)").fill("no such command")
    visitor.click("Run")
    expect(visitor.page.get_by_role("alert")).to_contain_text("commands are")
    expect(visitor.page.get_by_role("table")).to_have_count(0)  # what the query before it found


def test_the_console_comes_back_and_delays_nothing(eyrie: RealEyrie, visitor: Visitor, churn: Deployed) -> None:
    before = eyrie.processes()["console"]
    os.kill(before, signal.SIGKILL)
    assert churn.ask("churn")
    until(lambda: eyrie.processes().get("console", before) != before)
    visitor.page.goto(f"{visitor.url}/console")  # waits in the gateway until it is back; its sessions are gone
    expect(visitor.page.get_by_role("button", name="Log in")).to_be_visible()
    visitor.troubles.clear()  # the page that was open lost its channel, and says so


def test_control_away_is_said_in_words(eyrie: RealEyrie, visitor: Visitor, churn: Deployed, tmp_path: Path) -> None:
    control = eyrie.processes()["control"]
    visitor.open("/endpoints/churn")
    os.kill(control, signal.SIGSTOP)
    try:
        expect(visitor.page.get_by_role("alert")).to_contain_text("does not answer", timeout=60_000)
    finally:
        os.kill(control, signal.SIGCONT)
    expect(visitor.page.get_by_role("alert")).to_have_count(0, timeout=60_000)


# ---- endpoints of other kinds, and jobs ----


def variant_of(model: str, **more: Any) -> dict[str, Any]:
    return {
        "VariantName": model,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1.0,
        **more,
    }


@pytest.fixture(scope="module")
def kinds(churn: Deployed) -> Deployed:
    """An asynchronous endpoint with a request in its queue, a serverless one, and a transform job that was done."""
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    s3.put_object(Bucket="models", Key="in/rows.csv", Body="\n".join(churn.rows[:50]))
    sagemaker.create_transform_job(
        TransformJobName="scored",
        ModelName="sklearn",
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://models/in/"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        },
        TransformOutput={"S3OutputPath": "s3://models/out", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    queue = {"OutputConfig": {"S3OutputPath": "s3://models/answers", "S3FailurePath": "s3://models/failures"}}
    sagemaker.create_endpoint_config(
        EndpointConfigName="queued", ProductionVariants=[variant_of("sklearn")], AsyncInferenceConfig=queue
    )
    limits = {"MemorySizeInMB": 1024, "MaxConcurrency": 5}
    at_rest = {"VariantName": "all", "ModelName": "sklearn", "ServerlessConfig": limits}
    sagemaker.create_endpoint_config(EndpointConfigName="serverless", ProductionVariants=[at_rest])
    for name in ("queued", "serverless"):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name in ("queued", "serverless"):
        churn.wait_in_service(name)
    churn.ask("serverless")
    boto3.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="queued", Body=churn.rows[0].encode(), ContentType="text/csv"
    )
    until(lambda: s3.list_objects_v2(Bucket="models", Prefix="answers").get("KeyCount"), 60.0)
    until(
        lambda: sagemaker.describe_transform_job(TransformJobName="scored")["TransformJobStatus"] == "Completed", 90.0
    )
    return churn


def test_queue_serverless_and_transform_pages_show_what_is_there(visitor: Visitor, kinds: Deployed) -> None:
    visitor.open("/endpoints/queued")
    visitor.page.get_by_role("link", name="Queue").click()
    expect(visitor.page.get_by_text("s3://models/answers")).to_be_visible()
    expect(visitor.page.locator(".figure", has_text="Processed in this time").locator("dd")).to_have_text("1")
    visitor.open("/endpoints/serverless/serverless")
    expect(visitor.page.get_by_text("1024 MB an instance, 5 requests at once")).to_be_visible()
    expect(visitor.page.locator(".figure", has_text="Cold starts in this time").locator("dd")).not_to_have_text("0")
    visitor.open("/jobs")
    visitor.page.get_by_role("link", name="scored").click()
    expect(visitor.page.locator(".head .chip", has_text="Completed")).to_be_visible()
    expect(visitor.page.locator(".figure", has_text="Records").first.locator("dd")).to_have_text("50")
    expect(visitor.page.get_by_role("img", name="Progress: 100 %")).to_be_visible()


@pytest.mark.soak
def test_a_recommendations_job_is_watched_and_stopped(visitor: Visitor, churn: Deployed, tmp_path: Path) -> None:
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    (tmp_path / "row.csv").write_text(churn.rows[0])
    with tarfile.open(tmp_path / "payload.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "row.csv", "row.csv")
    s3.upload_file(str(tmp_path / "payload.tar.gz"), "models", "payload.tar.gz")
    payload = {"SamplePayloadUrl": "s3://models/payload.tar.gz", "SupportedContentTypes": ["text/csv"]}
    stairs = {"DurationInSeconds": 20, "NumberOfSteps": 20, "UsersPerStep": 1}
    sagemaker.create_inference_recommendations_job(
        JobName="tried",
        JobType="Advanced",
        RoleArn="arn:aws:iam::123456789012:role/test",
        InputConfig={
            "ModelName": "sklearn",
            "JobDurationInSeconds": 900,
            "ContainerConfig": {"PayloadConfig": payload},
            "EndpointConfigurations": [{"InstanceType": "ml.m5.large"}],
            "TrafficPattern": {"TrafficType": "STAIRS", "Stairs": stairs},
        },
    )
    visitor.open("/jobs")
    visitor.page.get_by_role("link", name="tried").click()
    expect(visitor.page.get_by_text("900 s at the most")).to_be_visible()
    expect(visitor.page.locator(".head .chip", has_text="IN_PROGRESS")).to_be_visible(timeout=60_000)
    assert looked_at(visitor, ("/jobs/recommendations/tried",)) == {}
    visitor.click("Stop")
    expect(visitor.page.get_by_role("dialog")).to_contain_text("removed")
    visitor.page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(visitor.page.locator(".head .chip", has_text="STOPPED")).to_be_visible(timeout=120_000)
    assert sagemaker.describe_inference_recommendations_job(JobName="tried")["Status"] == "STOPPED"


def test_a_shadow_test_is_watched_and_its_shadow_promoted(visitor: Visitor, churn: Deployed) -> None:
    sagemaker = boto3.client("sagemaker")
    churn.create("tested", 1, ("sklearn",))
    infrastructure = {
        "InfrastructureType": "RealTimeInference",
        "RealTimeInferenceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    sagemaker.create_inference_experiment(
        Name="candidate",
        Type="ShadowMode",
        RoleArn="arn:aws:iam::123456789012:role/test",
        EndpointName="tested",
        ModelVariants=[
            {"ModelName": name, "VariantName": name, "InfrastructureConfig": infrastructure}
            for name in ("sklearn", "xgboost")
        ],
        ShadowModeConfig={
            "SourceModelVariantName": "sklearn",
            "ShadowModelVariants": [{"ShadowModelVariantName": "xgboost", "SamplingPercentage": 100}],
        },
    )
    until(lambda: sagemaker.describe_inference_experiment(Name="candidate")["Status"] == "Running", 60.0)
    for row in churn.rows[:40]:
        churn.ask("tested", row)
    visitor.open("/shadow")
    visitor.page.get_by_role("link", name="candidate").click()
    expect(visitor.page.locator("main h1")).to_have_text("candidate")
    expect(visitor.page.locator("th", has_text="Production: sklearn")).to_be_visible()
    copies = visitor.page.locator(".figure", has_text="Copies compared").locator("dd")
    expect(copies).not_to_have_text("0")
    visitor.click("Promote the shadow")
    expect(visitor.page.get_by_role("dialog")).to_contain_text("xgboost takes the place of sklearn")
    visitor.click("Promote")
    until(lambda: sagemaker.describe_inference_experiment(Name="candidate")["Status"] == "Completed", 90.0)
    churn.wait_in_service("tested")
    (left,) = sagemaker.describe_endpoint(EndpointName="tested")["ProductionVariants"]
    assert left["VariantName"] == "xgboost"
    churn.delete("tested")


# ---- every page, in every look ----

PAGES: Mapping[str, Sequence[str]] = {  # what is opened of each route; "nobody" is not there
    "/": ("",),
    "/endpoints": ("/endpoints",),
    "/endpoints/{name}": ("/endpoints/churn", "/endpoints/queued", "/endpoints/serverless", "/endpoints/nobody"),
    **{
        f"/endpoints/{{name}}/{section}": (f"/endpoints/churn/{section}",)
        for section in ("deployment", "scaling", "availability", "logs", "invoke", "story")
    },
    "/endpoints/{name}/queue": ("/endpoints/queued/queue", "/endpoints/churn/queue"),
    "/endpoints/{name}/serverless": ("/endpoints/serverless/serverless", "/endpoints/churn/serverless"),
    "/models": ("/models",),
    "/models/{name}": ("/models/sklearn", "/models/nobody"),
    "/jobs": ("/jobs",),
    "/jobs/transform/{name}": ("/jobs/transform/scored", "/jobs/transform/nobody"),
    "/jobs/recommendations/{name}": ("/jobs/recommendations/nobody",),
    "/shadow": ("/shadow",),
    "/shadow/{name}": ("/shadow/churn",),
    "/costs": ("/costs",),
    "/alarms": ("/alarms",),
    "/dashboards": ("/dashboards",),
    "/dashboards/{name}": ("/dashboards/all", "/dashboards/nobody"),
    "/metrics": ("/metrics",),
    "/logs": ("/logs",),
    "/events": ("/events",),
    "/audit": ("/audit",),
    "/deploy": ("/deploy", "/deploy?endpoint=churn&model=sklearn"),
}
EVERY_PATH = [path for paths in PAGES.values() for path in paths]
SIZES: Mapping[str, ViewportSize] = {
    "laptop": {"width": 1280, "height": 800},
    "phone": {"width": 390, "height": 844},
}
LOOKS = [(scheme, size) for scheme in ("light", "dark") for size in SIZES]


def wrong_with(page: Page, dialog: bool = False) -> list[str]:
    """What the accessibility check finds that is serious, and whether the page is wider than its window; once nothing
    moves: what fades in or out has less contrast for a moment. Of a `dialog` contrasts are not checked: it takes the
    dimmed page for the ground of its buttons.
    """
    page.wait_for_function(
        "document.getAnimations().every(a => a.playState != 'running' || a.effect.getTiming().iterations == Infinity)"
    )
    options = {"rules": {"color-contrast": {"enabled": not dialog}}}
    violations = Axe().run(page, options=options).response["violations"]
    found = [told(v) for v in violations if v["impact"] in SERIOUS]
    wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return found + ([f"{wide} pixels wide, in {room}"] if wide > room else [])


def told(violation: dict[str, Any]) -> str:
    """A finding in a line: what, where, and why."""
    node = violation["nodes"][0]
    return f"{violation['id']}: {node['html'][:160]}: {node['failureSummary'][:300]}"


def looked_at(visitor: Visitor, paths: Sequence[str], sizes: Sequence[str] = ("laptop",)) -> dict[str, list[str]]:
    """What is wrong with pages, by path and size. How long pages take: bench/console_pages.py."""
    found = {}
    for path in paths:
        visitor.open(path)
        for size in sizes:
            visitor.page.set_viewport_size(SIZES[size])
            if wrong := wrong_with(visitor.page):
                found[f"{path or '/'} {size}"] = wrong
    return found


@pytest.fixture(scope="module")
def everything(kinds: Deployed) -> Deployed:
    """What pages show beside endpoints and jobs: a policy, alarms that ring and not, a dashboard of each widget."""
    cloudwatch, scaling = boto3.client("cloudwatch"), boto3.client("application-autoscaling")
    where: dict[str, Any] = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/churn/variant/sklearn",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**where, MinCapacity=1, MaxCapacity=2)
    tracking = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_scaling_policy(
        **where,
        PolicyName="keep",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 1e6,
            "PredefinedMetricSpecification": tracking,
            "DisableScaleIn": True,
        },
    )
    for name, threshold in (("busy", 0.0), ("quiet", 1e9)):
        cloudwatch.put_metric_alarm(
            AlarmName=name,
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            Dimensions=[{"Name": "EndpointName", "Value": "churn"}],
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=threshold,
            ComparisonOperator="GreaterThanThreshold",
        )
    cloudwatch.put_dashboard(DashboardName="all", DashboardBody=json.dumps(BOARD))
    return kinds


def widget(kind: str, **properties: Any) -> dict[str, Any]:
    return {"type": kind, "width": 12, "height": 6, "properties": {"region": "us-east-1", **properties}}


ASKED = ["AWS/SageMaker", "Invocations", "EndpointName", "churn"]
BOARD = {
    "widgets": [
        {"type": "text", "properties": {"markdown": "# Churn\n- **who** asks `it`\n\n[a runbook](https://example.com)"}},
        widget("metric", metrics=[[*ASKED[:1], "NoSuchMetric"]], title="Nothing"),
        widget("metric", metrics=[[{"expression": "SUM(nothing)", "id": "e1"}]], title="Wrong"),
        widget("metric", metrics=[[*ASKED, {"stat": "Sum", "id": "m1"}], [{"expression": "m1 * 2", "label": "twice"}]]),
        widget("metric", metrics=[[*ASKED, {"stat": "Sum"}]], view="singleValue", title="Asked"),
        widget("metric", annotations={"alarms": ["arn:aws:cloudwatch:us-east-1:123456789012:alarm:busy"]}),
        {"type": "alarm", "properties": {"alarms": ["arn:aws:cloudwatch:us-east-1:123456789012:alarm:busy"]}},
        widget("log", query="SOURCE '/aws/sagemaker/Endpoints/churn' | fields @message | limit 3", title="Said"),
        widget("log", query="SOURCE '/aws/sagemaker/Endpoints/churn' | no such command", title="Not a query"),
        {"type": "custom", "properties": {"endpoint": "arn:aws:lambda:us-east-1:123456789012:function:f"}},
    ]
}


def test_every_route_of_the_console_is_among_the_pages() -> None:
    register(new_desk(Settings()))
    assert set(Client.page_routes.values()) == set(PAGES)


def test_every_page_is_accessible(
    eyrie: RealEyrie, browser: Browser, key: dict[str, str], everything: Deployed
) -> None:
    """Each page in one of the four looks; `test_every_page_is_accessible_in_every_look` has them all."""
    found = {}
    for at, (scheme, size) in enumerate(LOOKS):
        with visiting(eyrie, browser, key, SIZES[size], scheme) as visitor:
            found |= looked_at(visitor, EVERY_PATH[at :: len(LOOKS)], (size,))
    assert found == {}


@pytest.mark.soak
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_in_every_look(
    eyrie: RealEyrie, browser: Browser, key: dict[str, str], everything: Deployed, scheme: Any
) -> None:
    with visiting(eyrie, browser, key, SIZES["laptop"], scheme) as visitor:
        assert looked_at(visitor, EVERY_PATH, tuple(SIZES)) == {}
        visitor.page.goto(f"{visitor.url}/console/login")
        assert wrong_with(visitor.page) == []


def test_long_figures_make_no_page_wider_than_a_phone(
    eyrie: RealEyrie, browser: Browser, key: dict[str, str], churn: Deployed
) -> None:
    with visiting(eyrie, browser, key, SIZES["phone"], "light") as visitor:
        visitor.open()
        written = "document.querySelectorAll('.figure dd').forEach((at) => { at.textContent = '>99.9 % · >99.9 %'; })"
        assert visitor.page.evaluate(f"{written}, document.documentElement.scrollWidth") == SIZES["phone"]["width"]


def test_one_can_choose_between_light_and_dark(visitor: Visitor) -> None:
    visitor.open()
    assert visitor.page.evaluate("document.documentElement.dataset.theme") == "light"
    visitor.page.get_by_role("button", name="Light or dark").click()
    visitor.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")


def test_a_dashboard_shows_each_widget_or_why_not(visitor: Visitor, everything: Deployed) -> None:
    visitor.open("/dashboards/all")
    cards = visitor.page.locator(".widget")
    expect(cards).to_have_count(len(BOARD["widgets"]))
    expect(cards.nth(1)).to_contain_text("Nothing was measured")
    expect(cards.nth(2).get_by_role("alert")).to_contain_text("e1")
    expect(cards.nth(3).locator("svg")).to_contain_text("twice")
    expect(cards.nth(4).locator(".figure")).to_contain_text("Invocations churn")
    expect(cards.nth(5).locator("svg")).to_contain_text("busy")
    expect(cards.nth(6)).to_contain_text("Invocations >")
    expect(cards.nth(7).locator("td, th").first).to_be_visible()
    expect(cards.nth(8).get_by_role("alert")).to_be_visible()
    expect(cards.nth(9)).to_contain_text("not drawn here")
    expect(visitor.page.locator(".trouble").get_by_role("alert")).to_have_count(0)


def test_with_auth_off_everybody_is_in(browser: Browser, trained: Any) -> None:
    """Nobody is asked who he is; what the console does is done for the default account, as for any client."""
    eyrie = not_yet()
    context = browser.new_context()
    try:
        eyrie.up("--auth", "off")
        visitor = Visitor(context.new_page(), f"http://127.0.0.1:{eyrie.port}")
        visitor.page.goto(f"{visitor.url}/console")
        expect(visitor.page.get_by_role("heading", name="Overview")).to_be_visible()
        expect(visitor.page.get_by_text("Everybody: nothing is verified here").first).to_be_attached()
        expect(visitor.page.get_by_role("button", name="Log out")).to_have_count(0)
        visitor.open("/deploy")
        visitor.page.get_by_label("Model file").set_input_files(str(trained[0][0].archive.parent / "model.joblib"))
        expect(visitor.page.get_by_text("Taken for")).to_be_visible()
        visitor.page.get_by_label("Name of the endpoint").fill("open")
        visitor.click("Deploy")
        visitor.click("Yes, deploy")
        visitor.page.wait_for_url("**/console/endpoints/open")
        expect(visitor.page.locator(".head .chip", has_text="InService")).to_be_visible(timeout=60_000)
        visitor.open("/endpoints/open/invoke")
        visitor.page.get_by_label("Body").fill(trained[1][0])
        visitor.click("Invoke")
        expect(visitor.page.locator(".chip.good", has_text="200")).to_be_visible()
        assert visitor.troubles == []
        context.close()
        eyrie.down()
    finally:
        remove(eyrie)
