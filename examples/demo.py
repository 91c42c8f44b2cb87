"""The main job, end to end, with unmodified boto3: deploy two real models to two zones, invoke, break, heal, delete.

Run it with `make demo`. It starts an Eyrie of its own on a free port with a temporary data directory, and leaves
nothing behind. It exits with 1 when any promise was broken, and says which.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import boto3

from demo_models import Model, build_models
from demo_traffic import Tally, Traffic, invoke
from eyrie.cli.client import ControlClient

ENDPOINT = "breast-cancer"
BUCKET = "demo-models"
ZONES = ("a", "b")
INSTANCES_A_VARIANT = 2
HEAL_WITHIN_S = {"kill -9": 2.0, "SIGSTOP": 10.0}
TOO_LONG_S = 60.0
ASKED_UNDER_FIRE = 2_000
KEEP_ASKING_S = 20.0
ACCURACY_WANTED = 0.93
SHARE_TOLERANCE = 0.02


class Demo:
    """One run: what was promised and broken, and a clock for the progress lines."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.broken: list[str] = []
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """One line of progress with the seconds since the start."""
        print(f"[{time.monotonic() - self.began:5.1f} s] {text}", flush=True)

    def promise(self, kept: bool, text: str) -> None:
        """Note a promise that was broken."""
        if not kept:
            self.broken.append(text)
            self.say(f"BROKEN: {text}")

    def eyrie(self, *arguments: str) -> str:
        """Run an `eyrie` command on our data directory; its output."""
        command = [sys.executable, "-m", "eyrie", *arguments, "--data", str(self.data)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        if done.returncode:
            raise SystemExit(f"eyrie {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def point_boto3_here(self) -> None:
        """Set the environment as a user's `eval "$(eyrie env)"` would."""
        for line in self.eyrie("env").splitlines():
            verb, *words = shlex.split(line)
            if verb == "export":
                name, _, value = words[0].partition("=")
                os.environ[name] = value
            else:
                for name in words:
                    os.environ.pop(name, None)

    def instances(self) -> list[dict[str, Any]]:
        """The instances of our endpoint, as `eyrie status` shows them."""
        return [i for e in self.control.status()["endpoints"] if e["name"] == ENDPOINT for i in e["instances"]]

    @property
    def control(self) -> ControlClient:
        """Signed calls for what `eyrie status` knows."""
        return ControlClient(self.data, os.environ["AWS_REGION"])


def main() -> int:
    """Run the demo; the exit code."""
    demo = Demo(Path(tempfile.mkdtemp(prefix="eyrie-demo-")))
    try:
        demo.say(demo.eyrie("up", "--detach", "--port", "0", "--zones", ",".join(ZONES)))
        demo.point_boto3_here()
        run(demo)
    except KeyboardInterrupt:
        demo.promise(False, "interrupted")
    finally:
        seen = stop(demo)
    demo.promise(not seen, f"processes left behind: {seen}")
    return conclude(demo)


def run(demo: Demo) -> None:
    """Train, deploy, invoke, break, heal, delete."""
    demo.say("training an XGBoost model and a scikit-learn pipeline on scikit-learn's breast cancer data")
    models, rows, truth = build_models(demo.data)
    deploy(demo, models)
    measure(demo, rows, truth)
    look_at_console(demo)
    broken_under_load(demo, rows)
    delete(demo, models)


def deploy(demo: Demo, models: list[Model]) -> None:
    """Upload, create the models, a config with a variant each, the endpoint, and wait for it."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.create_bucket(Bucket=BUCKET)
    for model in models:
        s3.upload_file(str(model.archive), BUCKET, f"{model.name}/model.tar.gz")
        url = f"s3://{BUCKET}/{model.name}/model.tar.gz"
        sagemaker.create_model(
            ModelName=model.name,
            PrimaryContainer={"Image": model.image, "ModelDataUrl": url},
            ExecutionRoleArn="arn:aws:iam::123456789012:role/demo",
        )
    variants = [
        {
            "VariantName": model.name,
            "ModelName": model.name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": INSTANCES_A_VARIANT,
            "InitialVariantWeight": 1.0,
        }
        for model in models
    ]
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=variants)
    began = time.monotonic()
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    demo.say(f"creating endpoint {ENDPOINT}: {len(variants)} variants, {INSTANCES_A_VARIANT} instances each")
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=ENDPOINT, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    demo.say(f"InService after {time.monotonic() - began:.1f} s (boto3's own waiter)")
    zones = Counter((i["variant"], i["zone"]) for i in demo.instances() if i["state"] == "READY")
    demo.say(
        "instances: " + ", ".join(f"{variant} in zone {zone}: {n}" for (variant, zone), n in sorted(zones.items()))
    )
    wanted = {(model.name, zone): 1 for model in models for zone in ZONES}
    demo.promise(zones == wanted, f"one instance of each variant in each zone, but it is {dict(zones)}")


def measure(demo: Demo, rows: list[str], truth: list[int]) -> None:
    """Invoke with every test row, several times over; print accuracy, shares and latency."""
    runtime = boto3.client("sagemaker-runtime")
    tally, right = Tally(), 0
    rounds = 14
    for _ in range(rounds):
        for row, label in zip(rows, truth, strict=True):
            right += round(invoke(runtime, ENDPOINT, row, tally)) == label
    asked = rounds * len(rows)
    accuracy = right / asked
    shares = {variant: count / asked for variant, count in sorted(tally.variants.items())}
    shown = ", ".join(f"{variant} {share:.1%}" for variant, share in shares.items())
    demo.say(f"{asked} requests ({len(rows)} test rows, {rounds} times): accuracy {accuracy:.3f}; answered by {shown}")
    demo.say(f"latency as boto3 sees it: p50 {tally.percentile_ms(50):.1f} ms, p99 {tally.percentile_ms(99):.1f} ms")
    demo.promise(accuracy >= ACCURACY_WANTED, f"accuracy at least {ACCURACY_WANTED}, but it is {accuracy:.3f}")
    even = len(shares) == 2 and all(abs(share - 0.5) <= SHARE_TOLERANCE for share in shares.values())
    demo.promise(even, f"each variant answers half, but it is {shown}")


def look_at_console(demo: Demo) -> None:
    """It was started after all else; whoever comes too early waits, or is asked to come again."""
    page = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"] + "/console", headers={"Accept": "text/html"})
    deadline, shown = time.monotonic() + TOO_LONG_S, False
    while not shown and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(page, timeout=TOO_LONG_S) as reply:
            shown = b"Access key" in reply.read()
    demo.promise(shown, "the console shows its log-in page")
    demo.say(f"the console is at {page.full_url} as long as this runs; keys: {demo.data / 'credentials.json'}")


def broken_under_load(demo: Demo, rows: list[str]) -> None:
    """Kill one instance and hang another while invocations go on; print failures and the times to heal."""
    with Traffic(ENDPOINT, rows) as traffic:
        time.sleep(1.0)
        victims = [i for i in demo.instances() if i["routed"]]
        variants = sorted({i["variant"] for i in victims})
        for how, signum, variant in (
            ("kill -9", signal.SIGKILL, variants[0]),
            ("SIGSTOP", signal.SIGSTOP, variants[-1]),
        ):
            victim = next(i for i in victims if i["variant"] == variant)
            demo.say(f"{how} of {variant} instance {victim['id']} (zone {victim['zone']}, process {victim['pid']})")
            for pid in processes_of(int(victim["pid"])):
                os.kill(pid, signum)
            healed_s = seconds_until_whole(demo, victim["id"], len(variants) * INSTANCES_A_VARIANT)
            demo.say(f"fleet whole again after {healed_s:.2f} s; failed so far: {traffic.failures()}")
            limit = HEAL_WITHIN_S[how]
            demo.promise(healed_s <= limit, f"whole again within {limit:g} s of {how}, but it took {healed_s:.2f} s")
        keep_asking(traffic)
    wire, boto = traffic.wire, traffic.boto
    demo.say(
        f"under fire: on the wire (no client retries) {wire.failed} of {wire.asked} requests failed; "
        f"as boto3 sees it (its defaults) {boto.failed} of {boto.asked}; p99 {wire.percentile_ms(99):.1f} ms"
    )
    for name, tally in (("on the wire", wire), ("as boto3 sees it", boto)):
        reasons = "; ".join(f"{count} x {why}" for why, count in tally.reasons.most_common(3))
        demo.promise(tally.failed == 0, f"no request fails {name}, but {tally.failed} of {tally.asked} did: {reasons}")


def keep_asking(traffic: Traffic) -> None:
    """Let the load go on until enough was asked to mean something, however slow the host is."""
    deadline = time.monotonic() + KEEP_ASKING_S
    while traffic.wire.asked + traffic.boto.asked < ASKED_UNDER_FIRE and time.monotonic() < deadline:
        time.sleep(0.1)


def seconds_until_whole(demo: Demo, victim: str, wanted: int) -> float:
    """Seconds until as many instances as wanted are READY and routed, the victim not among them."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < TOO_LONG_S:
        serving = [i["id"] for i in demo.instances() if i["state"] == "READY" and i["routed"]]
        if victim not in serving and len(serving) >= wanted:
            return time.monotonic() - began
        time.sleep(0.02)
    return waited


def delete(demo: Demo, models: list[Model]) -> None:
    """Delete everything that was made."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName=ENDPOINT)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=ENDPOINT, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    sagemaker.delete_endpoint_config(EndpointConfigName=ENDPOINT)
    for model in models:
        sagemaker.delete_model(ModelName=model.name)
        s3.delete_object(Bucket=BUCKET, Key=f"{model.name}/model.tar.gz")
    s3.delete_bucket(Bucket=BUCKET)
    demo.say("deleted the endpoint, its config, the models and the bucket")
    demo.promise(not sagemaker.list_endpoints()["Endpoints"], "no endpoint is left")


def stop(demo: Demo) -> list[int]:
    """End our Eyrie; the processes that still belong to it."""
    if (demo.data / "version").exists():
        demo.say(demo.eyrie("down"))
    deadline = time.monotonic() + 5.0
    while (left := belonging_to(demo.data)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def processes_of(pid: int) -> list[int]:
    """An instance's processes by its first one, which comes last: a server may have forked workers."""
    parents = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/stat")}
    children = [child for child, path in parents.items() if parent_of(path) == pid]
    return [*(found for child in children for found in processes_of(child)), pid]


def parent_of(stat: Path) -> int:
    """The parent of the process of a /proc/PID/stat; 0 for one that has ended."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def belonging_to(data: Path) -> list[int]:
    """Every process, whoever started it, that names our data directory: as an argument, a variable or an open file."""
    wanted = str(data).encode()
    own = str(os.getpid())
    others = (process for process in Path("/proc").iterdir() if process.name.isdigit() and process.name != own)
    return [int(process.name) for process in others if names(process, wanted)]


def names(process: Path, wanted: bytes) -> bool:
    """Whether a process names a path; one that ends meanwhile, or that is not ours to see, does not."""
    try:
        if wanted in (process / "cmdline").read_bytes() or wanted in (process / "environ").read_bytes():
            return True
        return any(wanted in os.fsencode(os.readlink(fd)) for fd in (process / "fd").iterdir())
    except OSError:
        return False


def conclude(demo: Demo) -> int:
    """The last lines, and the exit code; logs are kept only where something went wrong."""
    if demo.broken:
        print(f"\n{len(demo.broken)} promises broken:", *demo.broken, f"logs are kept in {demo.data}/logs", sep="\n  ")
        return 1
    shutil.rmtree(demo.data)
    demo.say("every promise was kept, and no process or file is left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
