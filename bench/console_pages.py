"""How long the console's pages take until they can be used: every page in headless Chromium, several times each.

    python bench/console_pages.py [--rounds 5] [--seconds 20] [--data DIR] [--names endpoint=churn,model=xgboost]

Measured from the request until the page's heading stands there and nothing on it says any more that it loads, with the
browser's cache filled, as for anybody who stays. By default an Eyrie of its own with an endpoint of two variants, an
asynchronous and a serverless one, a batch transform job, a dashboard and `--seconds` of load; `--data` measures one
that runs already, with the names of `--names` (pages whose name is not given are left out). Runs itself again in
`.venv-console`, which has NiceGUI and what drives the browser (`make setup-console`).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))  # the demo's models

import world
from frame import Ratio, arguments, finish, machine, versions

NAME = "slowest page of the console against 1 s"
GOAL_S = 1.0
PATIENCE_MS = 30_000
CONSOLE_PYTHON = Path(__file__).parent.parent / ".venv-console/bin/python"
LAPTOP = {"width": 1280, "height": 900}
# Every page; what stands in braces is the name of one of a kind.
PAGES = (
    "", "/endpoints", "/endpoints/{endpoint}", "/endpoints/{endpoint}/deployment", "/endpoints/{endpoint}/scaling",
    "/endpoints/{endpoint}/availability", "/endpoints/{endpoint}/logs", "/endpoints/{endpoint}/invoke",
    "/endpoints/{endpoint}/story", "/endpoints/{queued}/queue", "/endpoints/{serverless}/serverless", "/deploy",
    "/models", "/models/{model}", "/jobs", "/jobs/transform/{transform}", "/shadow", "/shadow/{endpoint}", "/costs",
    "/alarms", "/dashboards", "/dashboards/{dashboard}", "/metrics", "/logs", "/events",
)  # fmt: skip
NAMES = {
    "endpoint": "churn",
    "model": "sklearn",
    "queued": "queued",
    "serverless": "serverless",
    "transform": "scored",
    "dashboard": "churn",
}
LOADED = "!!document.querySelector('main h1') && !document.body.innerText.includes('Loading …')"


def main() -> int:
    """Deploy, load, open every page in turn."""
    options = arguments(__doc__, rounds=5, seconds=20.0)
    options.add_argument("--data", type=Path, help="the data directory of an Eyrie that runs: no own one is started")
    options.add_argument("--names", default="", help="with --data: what there is, as KIND=NAME,KIND=NAME ...")
    chosen = options.parse_args()
    if importlib.util.find_spec("playwright") is None:
        return again_where_a_browser_is(chosen.report)
    browser = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if browser is None:
        return finish([without("there is no Chromium here")], chosen.report)
    print(f"{machine()}; {versions('nicegui', 'playwright')}", flush=True)
    if chosen.data is not None:
        names = dict(pair.split("=", 1) for pair in chosen.names.split(",") if pair)
        return finish([judged(measured(world.Eyrie(chosen.data), browser, names, chosen.rounds))], chosen.report)
    with world.eyrie(console=True) as eyrie:
        with asked(eyrie, populate(eyrie)):
            time.sleep(chosen.seconds)
            took_s = measured(eyrie, browser, NAMES, chosen.rounds)
        return finish([judged(took_s)], chosen.report)


def again_where_a_browser_is(report: bool) -> int:
    """This program once more in the console's environment; a row that says why where there is none."""
    if not CONSOLE_PYTHON.exists():
        return finish([without("there is no .venv-console: make setup-console")], report)
    return subprocess.run([CONSOLE_PYTHON, *sys.argv], check=False).returncode


def without(why: str) -> Ratio:
    """A row without a figure."""
    return Ratio(NAME, None, 1.0, at_most=True, detail=why)


def judged(took_s: Mapping[str, list[float]]) -> Ratio:
    """The slowest page's median against the goal; its worst is the slowest of all visits."""
    medians = {path: statistics.median(times) for path, times in took_s.items()}
    slowest = max(medians, key=lambda path: medians[path])
    worst = max(max(times) for times in took_s.values())
    middle = statistics.median(medians.values())
    detail = f"/console{slowest} {medians[slowest]:.2f} s; half of {len(medians)} pages within {middle:.2f} s"
    return Ratio(NAME, medians[slowest] / GOAL_S, 1.0, worst / GOAL_S, at_most=True, detail=detail)


# ---------------------------------------------------------------------------------------------------------- the browser
def measured(eyrie: world.Eyrie, browser: str, names: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    """Seconds until each page could be used, of `rounds` visits in turn; printed as a table."""
    from playwright.sync_api import sync_playwright

    paths = {page: page.format(**names) for page in PAGES if all(kind in names for kind in kinds_of(page))}
    took_s: dict[str, list[float]] = {path: [] for path in paths.values()}
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = running.new_context(viewport=LAPTOP).new_page()
        page.set_default_timeout(PATIENCE_MS)
        url = eyrie.env["AWS_ENDPOINT_URL"]
        print(f"log-in with an empty cache until the overview: {log_in(page, url, eyrie):.2f} s", flush=True)
        for _ in range(rounds):
            for path, times in took_s.items():
                times.append(visit(page, f"{url}/console{path}"))
        running.close()
    print(f"{'page':44} median  worst   (s, {rounds} visits)")
    for path, times in sorted(took_s.items(), key=lambda each: -statistics.median(each[1])):
        print(f"/console{path:36} {statistics.median(times):6.2f} {max(times):6.2f}", flush=True)
    return took_s


def kinds_of(page: str) -> list[str]:
    """The names that a page's path needs."""
    return [part[1:-1] for part in page.split("/") if part.startswith("{")]


def visit(page: Any, url: str) -> float:
    """Open a page; seconds until it can be used."""
    began = time.monotonic()
    page.goto(url, wait_until="commit")
    page.wait_for_function(LOADED)
    return time.monotonic() - began


def log_in(page: Any, url: str, eyrie: world.Eyrie) -> float:
    """Log in; seconds from the click until the overview can be used."""
    key = json.loads((eyrie.data / "credentials.json").read_text())[0]
    page.goto(f"{url}/console")
    page.get_by_label("Access key").fill(key["access_key_id"])
    page.get_by_label("Secret").fill(key["secret_access_key"])
    began = time.monotonic()
    page.get_by_role("button", name="Log in").click()
    page.wait_for_function(LOADED)
    return time.monotonic() - began


# ------------------------------------------------------------------------------------------------- what there is to see
def populate(eyrie: world.Eyrie) -> list[str]:
    """Something on every page: endpoints of three kinds, a job, an alarm, a policy, a dashboard. Rows to ask with."""
    from demo_models import build_models

    folder = eyrie.data / "bench"
    folder.mkdir()
    models, rows, _ = build_models(folder)
    sagemaker = eyrie.client("sagemaker")
    for model in models:
        container = {"Image": model.image, "ModelDataUrl": eyrie.upload(model.archive, f"{model.name}.tar.gz")}
        sagemaker.create_model(ModelName=model.name, PrimaryContainer=container, ExecutionRoleArn=world.ROLE)
    start_job(eyrie, sagemaker, rows)
    place: dict[str, Any] = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
    variants = [{"VariantName": model.name, "ModelName": model.name, **place} for model in models]
    queue = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": f"s3://{world.BUCKET}/answers"}}}
    limits = {"MemorySizeInMB": 1024, "MaxConcurrency": 5}
    at_rest = {"ModelName": "sklearn", "VariantName": "all", "ServerlessConfig": limits}
    kinds: dict[str, dict[str, Any]] = {
        "churn": {"ProductionVariants": variants},
        "queued": {"ProductionVariants": variants[:1], **queue},
        "serverless": {"ProductionVariants": [at_rest]},
    }
    for name, config in kinds.items():
        sagemaker.create_endpoint_config(EndpointConfigName=name, **config)
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    watch_it(eyrie)
    for name in kinds:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=world.IN_SERVICE)
    return list(rows)


def start_job(eyrie: world.Eyrie, sagemaker: Any, rows: list[str]) -> None:
    """A batch transform job; nobody waits for its end."""
    eyrie.client("s3").put_object(Bucket=world.BUCKET, Key="in/rows.csv", Body="\n".join(rows))
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{world.BUCKET}/in/"}}
    sagemaker.create_transform_job(
        TransformJobName=NAMES["transform"],
        ModelName="sklearn",
        TransformInput={"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
        TransformOutput={"S3OutputPath": f"s3://{world.BUCKET}/out", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )


def watch_it(eyrie: world.Eyrie) -> None:
    """A scaling policy, an alarm and a dashboard of the endpoint."""
    of: dict[str, Any] = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/churn/variant/xgboost",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling, cloudwatch = eyrie.client("application-autoscaling"), eyrie.client("cloudwatch")
    scaling.register_scalable_target(**of, MinCapacity=1, MaxCapacity=2)
    predefined = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_scaling_policy(
        **of,
        PolicyName="by-requests",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 1e6, "PredefinedMetricSpecification": predefined},
    )
    metric = ["AWS/SageMaker", "Invocations", "EndpointName", "churn", "VariantName", "xgboost"]
    drawn = {"region": eyrie.env["AWS_REGION"], "stat": "Sum", "period": 60, "metrics": [metric]}
    widget = {"type": "metric", "x": 0, "y": 0, "width": 24, "height": 6, "properties": drawn}
    cloudwatch.put_dashboard(DashboardName="churn", DashboardBody=json.dumps({"widgets": [widget]}))
    cloudwatch.put_metric_alarm(
        AlarmName="churn-slow",
        Namespace="AWS/SageMaker",
        MetricName="ModelLatency",
        ExtendedStatistic="p99",
        Dimensions=[{"Name": "EndpointName", "Value": "churn"}, {"Name": "VariantName", "Value": "xgboost"}],
        Period=60,
        EvaluationPeriods=2,
        Threshold=5e5,
        ComparisonOperator="GreaterThanThreshold",
    )


@contextmanager
def asked(eyrie: world.Eyrie, rows: list[str]) -> Iterator[None]:
    """`eyrie load` with twenty requests a second meanwhile and for as long as pages are looked at."""
    data = eyrie.data / "rows.csv"
    data.write_text("\n".join(rows))
    command = [sys.executable, "-P", "-m", "eyrie", "load", "churn", "--rps", "20", "--duration", "600s"]
    command += ["--data", str(data), "--each-line", "--json", "--processes", "1", "--eyrie", str(eyrie.data)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait(30)


if __name__ == "__main__":
    sys.exit(main())
