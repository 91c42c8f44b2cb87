"""A batch transform against a plain script: a large CSV through an XGBoost model, both on all cores.

    python bench/transform.py [--rows 10000000] [--trees 100] [--rounds 3] [--report]

The plain script reads a local file in the same chunks (6 MiB of whole lines), has a process a core parse each chunk
(by pandas where that is installed, else by NumPy), predict and write its scores as text, and puts them into one file in
order; its time begins after its imports. The job reads the same bytes from the bucket and writes its output there; its
time is from the call of CreateTransformJob to the TransformEndTime that Describe tells, so it has all of its beginning
(an instance claims the model, the run is started) and its end (the output is made whole). Both outputs must be the same
bytes. Then the job runs once more, is killed half-way (`kill -9` of its run), and must end with these bytes again.

Ten million rows, 2 GB, are written and uploaded first. On two quiet cores the whole takes about five minutes and 7 GB
of disk; `--rows 1000000` one minute, in which a job's beginning and end weigh ten times as much.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

import frame
import world

GOAL = 0.8
COLUMNS, BLOCK_ROWS = 28, 50_000
LOOK_S, LOOK_CLOSELY_S = 0.5, 0.1  # between two looks at a job: each takes CPU from it
INSTANCE, INSTANCE_BYTES = "ml.m5.large", 8 << 30
PLAIN = """
import io, os, sys, time
from multiprocessing import Pool
import numpy as np, xgboost
try:
    import pandas
except ImportError:
    pandas = None
CHUNK = 6 << 20
model = None

def begin(path):
    global model
    model = xgboost.Booster()
    model.load_model(path)
    model.set_param({"nthread": 1})

def work(chunk):
    if pandas is not None:
        rows = pandas.read_csv(io.BytesIO(chunk), header=None, dtype="float32").to_numpy()
    else:
        rows = np.loadtxt(io.BytesIO(chunk), delimiter=",", dtype="float32")
    return "\\n".join(map(str, model.inplace_predict(rows).tolist())) + "\\n"

def chunks(path):
    rest = b""
    with open(path, "rb") as file:
        while piece := file.read(CHUNK - len(rest)):
            data = rest + piece
            cut = data.rfind(b"\\n") + 1
            rest = data[cut:]
            yield data[:cut]

if __name__ == "__main__":
    source, target, path = sys.argv[1:4]
    began = time.monotonic()
    with Pool(len(os.sched_getaffinity(0)), begin, [path]) as pool, open(target, "w") as out:
        for text in pool.imap(work, chunks(source)):
            out.write(text)
    print("seconds", time.monotonic() - began)
"""


def make(folder: Path, rows: int, trees: int) -> tuple[Path, Path]:
    """The CSV and the model."""
    chance = np.random.default_rng(7)
    block = chance.normal(size=(min(rows, BLOCK_ROWS), COLUMNS)).round(4)
    labels = block[:, 0] * block[:, 1] + block[:, 2] > 0
    trained = xgboost.train({"objective": "binary:logistic", "max_depth": 6}, xgboost.DMatrix(block, labels), trees)
    model = folder / "xgboost-model.json"
    trained.save_model(model)
    lines = "\n".join(",".join(map(str, row)) for row in block.tolist()) + "\n"
    source = folder / "rows.csv"
    with source.open("w") as file:
        for _ in range(max(1, rows // len(block))):
            file.write(lines)
    return source, model


def plain(folder: Path, source: Path, model: Path) -> float:
    """Seconds that the script takes; its output is plain.out."""
    script = folder / "plain.py"
    script.write_text(PLAIN)
    command = [sys.executable, str(script), str(source), str(folder / "plain.out"), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[1])


class Job:
    """One transform job of the benchmark."""

    def __init__(self, eyrie: world.Eyrie, name: str) -> None:
        self.eyrie, self.name = eyrie, name
        self.sagemaker = eyrie.client("sagemaker")
        self.run_bytes = 0

    def run(self, half_way: Callable[[int], None] | None = None) -> float:
        """To its end; seconds. `half_way` is called once with the pid of its run, when half of the input is read."""
        began = datetime.now(UTC)
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{world.BUCKET}/in/"}}
        self.sagemaker.create_transform_job(
            TransformJobName=self.name,
            ModelName="rows",
            TransformInput={"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
            TransformOutput={"S3OutputPath": f"s3://{world.BUCKET}/{self.name}", "AssembleWith": "Line"},
            TransformResources={"InstanceType": INSTANCE, "InstanceCount": 1},
        )
        while (job := self.sagemaker.describe_transform_job(TransformJobName=self.name))[
            "TransformJobStatus"
        ] == "InProgress":
            pid = self.pid()
            if pid:
                self.run_bytes = max(self.run_bytes, peak_bytes(pid))
                told = re.search(r'"percent":([\d.]+)', str(job.get("Environment", {}).get("EYRIE_PROGRESS", "")))
                if half_way and told and float(told[1]) >= 40:
                    half_way(pid)
                    half_way = None
            time.sleep(LOOK_CLOSELY_S if half_way else LOOK_S)
        if job["TransformJobStatus"] != "Completed":
            raise SystemExit(f"{self.name}: {job['TransformJobStatus']}: {job.get('FailureReason')}")
        ended: datetime = job["TransformEndTime"]
        return (ended - began).total_seconds()

    def pid(self) -> int:
        """Of its run, by what the launcher wrote; 0 where there is none."""
        for status in (self.eyrie.data / "jobs").glob("t-*/status"):
            with contextlib.suppress(OSError):
                found = re.findall(r'"child-pid": (\d+)', status.read_text())
                if found:
                    return int(found[-1])
        return 0

    def digest(self) -> str:
        body = self.eyrie.client("s3").get_object(Bucket=world.BUCKET, Key=f"{self.name}/rows.csv.out")["Body"]
        return digest_of(body.iter_chunks(1 << 20))

    def instance_bytes(self) -> float:
        """The most memory that its instance used, by its metric."""
        cloudwatch = self.eyrie.client("cloudwatch")
        now = datetime.now(UTC)
        listed = cloudwatch.list_metrics(Namespace="/aws/sagemaker/TransformJobs", MetricName="MemoryUtilization")
        most = 0.0
        for metric in listed["Metrics"]:
            if metric["Dimensions"][0]["Value"].startswith(self.name + "/"):
                points = cloudwatch.get_metric_statistics(
                    Namespace=metric["Namespace"],
                    MetricName=metric["MetricName"],
                    Dimensions=metric["Dimensions"],
                    StartTime=now - timedelta(hours=1),
                    EndTime=now + timedelta(minutes=1),
                    Period=3600,
                    Statistics=["Maximum"],
                )["Datapoints"]
                most = max([most, *(point["Maximum"] for point in points)])
        return most / 100 * INSTANCE_BYTES


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


def digest_of(pieces: Any) -> str:
    sums = hashlib.sha256()
    for piece in pieces:
        sums.update(piece)
    return sums.hexdigest()


def kill(pid: int) -> None:
    tell("half of it is done: killed")
    os.kill(pid, signal.SIGKILL)


def tell(what: str) -> None:
    """How far the benchmark is."""
    print(f"{datetime.now(UTC):%H:%M:%S} {what}", flush=True)


def told(name: str, rows: int, measure: Callable[[], float]) -> float:
    """What was measured, which is seconds for so many rows; printed as well."""
    took_s = measure()
    tell(f"{name}: {took_s:.2f} s, {rows / took_s:,.0f} rows/s")
    return took_s


def main() -> int:
    options = frame.arguments(__doc__, rounds=3)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--trees", type=int, default=100, help="of the model, each 6 deep")
    chosen = options.parse_args()
    rows = chosen.rows
    print(frame.machine(), frame.versions("xgboost-cpu", "numpy", "pandas"), sep="\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="eyrie-transform-") as made, world.eyrie() as eyrie:
        folder = Path(made)
        tell(f"writing {rows:,} rows")
        source, model = make(folder, rows, chosen.trees)
        archive = world.pack(folder / "model.tar.gz", {"xgboost-model.json": model})
        url = eyrie.upload(archive, "model.tar.gz")
        tell(f"uploading {source.stat().st_size / 1e6:.0f} MB")
        eyrie.client("s3").upload_file(str(source), world.BUCKET, "in/rows.csv")
        container = {"Image": "eyrie/xgboost", "ModelDataUrl": url}
        eyrie.client("sagemaker").create_model(
            ModelName="rows", ExecutionRoleArn=world.ROLE, PrimaryContainer=container
        )
        numbers = iter(range(1_000))
        jobs: list[Job] = []

        def transform() -> float:
            jobs.append(Job(eyrie, f"round-{next(numbers)}"))
            return jobs[-1].run()

        sides: dict[str, Callable[[], float]] = {"plain": lambda: plain(folder, source, model), "job": transform}
        took = frame.rounds(chosen.rounds, {side: partial(told, side, rows, run) for side, run in sides.items()})
        with (folder / "plain.out").open("rb") as file:
            wanted = digest_of(iter(lambda: file.read(1 << 20), b""))
        if jobs[-1].digest() != wanted:
            raise SystemExit("the job's output is not the script's")
        tell("the outputs are the same; once more, killed half-way")
        killed = Job(eyrie, "killed")
        killed_s = killed.run(kill)
        same = "the same bytes" if killed.digest() == wanted else "OTHER BYTES"
        peak = max(job.run_bytes for job in jobs) / 1e6
        instance = max(job.instance_bytes() for job in jobs) / 1e6
        print(f"killed at half: {killed_s:.1f} s in all, {same}; input {source.stat().st_size / 1e6:.0f} MB")
        speeds = [f"{rows / statistics.median(took[side]):,.0f}" for side in ("job", "plain")]
        reader = "pandas" if importlib.util.find_spec("pandas") else "NumPy"
        detail = (
            f"{rows:,} rows, {chosen.trees} trees: {speeds[0]} rows/s against {speeds[1]} ({reader}); "
            f"killed at half and resumed: {same}; "
            f"peak memory {peak:.0f} MB the run, {instance:.0f} MB the instance"
        )
        ratio = frame.Ratio.of(
            "batch transform against a plain script", took["plain"], took["job"], GOAL, detail=detail
        )
        code = frame.finish([ratio], chosen.report)
    return code if same == "the same bytes" else 1


if __name__ == "__main__":
    sys.exit(main())
