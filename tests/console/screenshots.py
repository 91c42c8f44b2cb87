"""Makes the pictures of docs/guides/console.md: an Eyrie of its own, two models, some load, a canary, a browser.

`make screenshots` runs it; it takes about two minutes and leaves nothing behind but docs/images/console-*.png.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import boto3
from playwright.sync_api import Browser, Page, sync_playwright

from demo_models import build_models

IMAGES = Path(__file__).parents[2] / "docs/images"
LOAD_S = 75.0
ROLE = "arn:aws:iam::123456789012:role/any"
CANARY = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 90}
LAPTOP, TALL, PHONE = ({"width": w, "height": h} for w, h in ((1280, 800), (1280, 1260), (390, 844)))


def eyrie(data: Path, *arguments: str) -> str:
    """Run a command on the data directory; what it prints."""
    command = [sys.executable, "-P", "-m", "eyrie", *arguments, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def deploy(folder: Path) -> list[str]:
    """Two models as two variants of an endpoint, a policy and an alarm; rows to ask it with."""
    models, rows, _ = build_models(folder)
    s3, sagemaker, scaling = (boto3.client(name) for name in ("s3", "sagemaker", "application-autoscaling"))
    s3.create_bucket(Bucket="models")
    variants = []
    for model, count in zip(models, (2, 1), strict=True):
        s3.upload_file(str(model.archive), "models", f"{model.name}.tar.gz")
        container = {"Image": model.image, "ModelDataUrl": f"s3://models/{model.name}.tar.gz"}
        sagemaker.create_model(ModelName=model.name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        place = {"InstanceType": "ml.m5.large", "InitialInstanceCount": count, "InitialVariantWeight": float(count)}
        variants.append({"VariantName": model.name, "ModelName": model.name, **place})
    for config in ("churn-1", "churn-2"):
        sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="churn-1")
    patient = {"Delay": 1, "MaxAttempts": 300}
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="churn", WaiterConfig=patient)
    target: dict[str, Any] = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/churn/variant/xgboost",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=6)
    return rows


def load(rows: list[str], stop: threading.Event) -> None:
    """Ask until told to stop, now more and now less."""
    runtime = boto3.client("sagemaker-runtime")
    for at in range(10**9):
        if stop.wait(0.02 + 0.02 * (at // 300 % 2)):
            return
        runtime.invoke_endpoint(EndpointName="churn", ContentType="text/csv", Body=rows[at % len(rows)])["Body"].read()


def page_of(browser: Browser, url: str, key: dict[str, str], size: Any, scheme: Any) -> Page:
    """A page that is logged in."""
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{url}/console")
    page.get_by_label("Access key").fill(key["access_key_id"])
    page.get_by_label("Secret").fill(key["secret_access_key"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("main h1")
    return page


def shoot(page: Page, url: str, path: str, name: str) -> None:
    """One picture, once the page has nothing to load any more."""
    page.goto(f"{url}/console{path}")
    page.wait_for_selector("main h1")
    page.wait_for_function("!document.body.innerText.includes('Loading …')")
    time.sleep(4.0)  # for charts to be drawn once more
    page.screenshot(path=IMAGES / f"console-{name}.png")


def pictures(browser: Browser, url: str, key: dict[str, str]) -> None:
    """All of them."""
    laptop = page_of(browser, url, key, LAPTOP, "light")
    shoot(laptop, url, "", "overview")
    shoot(laptop, url, "/costs", "costs")
    shoot(page_of(browser, url, key, TALL, "light"), url, "/endpoints/churn", "endpoint")
    dark = page_of(browser, url, key, LAPTOP, "dark")
    boto3.client("sagemaker").update_endpoint(
        EndpointName="churn",
        EndpointConfigName="churn-2",
        DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": CANARY}},
    )
    dark.goto(f"{url}/console/endpoints/churn/deployment")
    dark.wait_for_selector(".bar[aria-label*='(new) 33']")
    shoot(dark, url, "/endpoints/churn/deployment", "canary-dark")
    shoot(page_of(browser, url, key, PHONE, "light"), url, "/endpoints/churn", "phone")


def main() -> None:
    """Everything, and its end."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("screenshots need Chromium: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its Eyrie is ended on the way out
    folder = Path(tempfile.mkdtemp(prefix="eyrie-pictures-"))
    data, stop = folder / "data", threading.Event()
    try:
        eyrie(data, "up", "--detach", "--port", "0")
        for line in eyrie(data, "env").splitlines():
            verb, *words = shlex.split(line)
            if verb == "export":
                os.environ.update([words[0].split("=", 1)])
        rows = deploy(folder)
        asking = threading.Thread(target=load, args=(rows, stop))
        asking.start()
        time.sleep(LOAD_S)
        key = json.loads((data / "credentials.json").read_text())[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            pictures(browser, os.environ["AWS_ENDPOINT_URL"], key)
            browser.close()
    finally:
        stop.set()
        eyrie(data, "down")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
