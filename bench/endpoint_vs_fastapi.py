"""End to end, one row a request: an Eyrie endpoint against FastAPI on uvicorn, the same XGBoost model in the same run.

    python bench/endpoint_vs_fastapi.py [--rounds 3] [--seconds 4] [--connections 32]

Eyrie runs one gateway worker (signatures checked, metering on) and one instance; FastAPI runs one uvicorn worker
(uvloop,
httptools) that checks nothing. Both have all cores and the same 1,000 rows in rotation; rounds alternate, the median
counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3

import measure

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from demo_models import build_models

NAME = "bench"
FASTAPI = """
import sys
import numpy, uvicorn, xgboost
from fastapi import FastAPI, Request, Response

booster = xgboost.Booster(model_file=sys.argv[1])
booster.set_param({"nthread": 1})
app = FastAPI()

@app.post("/invocations")
async def invocations(request: Request) -> Response:
    row = numpy.fromstring(await request.body(), dtype=numpy.float32, sep=",").reshape(1, -1)
    return Response(str(float(booster.inplace_predict(row)[0])), media_type="text/csv")

options = dict(loop="uvloop", http="httptools", log_level="error", access_log=False)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), **options)
"""


def eyrie(data: Path, *arguments: str) -> str:
    """An `eyrie` command on a data directory of its own."""
    command = [sys.executable, "-m", "eyrie", *arguments, "--data", str(data)]
    env = {**os.environ, "EYRIE_CONSOLE": "off"}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=env).stdout.strip()


@contextmanager
def endpoint(folder: Path, archive: Path) -> Iterator[tuple[int, measure.Signer]]:
    """An endpoint with one instance: the port it answers on, and who may sign."""
    data = folder / "eyrie"
    eyrie(data, "up", "--detach", "--port", "0", "--gateways", "1")
    try:
        words = (shlex.split(line) for line in eyrie(data, "env").splitlines())
        env = dict(pair[1].split("=", 1) for pair in words if pair and pair[0] == "export")
        session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"])
        url = env["AWS_ENDPOINT_URL"]
        deploy(session, url, archive)
        key = json.loads((data / "credentials.json").read_text())[0]
        signer = measure.Signer(key["access_key_id"], key["secret_access_key"], env["AWS_REGION"])
        yield int(urlsplit(url).port or 80), signer
    finally:
        eyrie(data, "down")


def deploy(session: boto3.Session, url: str, archive: Path) -> None:
    """The model on one instance, by the ordinary calls."""
    s3, sagemaker = session.client("s3", endpoint_url=url), session.client("sagemaker", endpoint_url=url)
    s3.create_bucket(Bucket=NAME)
    s3.upload_file(str(archive), NAME, "model.tar.gz")
    container = {"Image": "eyrie/xgboost", "ModelDataUrl": f"s3://{NAME}/model.tar.gz"}
    role = "arn:aws:iam::123456789012:role/bench"
    sagemaker.create_model(ModelName=NAME, PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {"VariantName": "v", "ModelName": NAME, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    patience = {"Delay": 1, "MaxAttempts": 120}
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=NAME, WaiterConfig=patience)


def plain_requests(port: int, bodies: list[bytes]) -> list[bytes]:
    """The same rows for a server that checks nothing."""
    head = b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n"
    return [head % (port, len(body)) + body for body in bodies]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--connections", type=int, default=32)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        models, rows, _ = build_models(folder)
        archive = next(model.archive for model in models if model.name == "xgboost")
        bodies = [rows[n % len(rows)].encode() for n in range(1_000)]
        port, signer = stack.enter_context(endpoint(folder, archive))
        other = measure.free_port()
        argv = [sys.executable, "-c", FASTAPI, str(folder / "xgboost-model.json"), str(other)]
        stack.enter_context(measure.process(argv, None))
        measure.wait_for(other, 30.0)
        scripts = {
            "eyrie": (port, measure.wrk_script(folder / "e.lua", measure.signed_requests(port, NAME, bodies, signer))),
            "fastapi": (other, measure.wrk_script(folder / "f.lua", plain_requests(other, bodies))),
        }
        rates: dict[str, list[float]] = {which: [] for which in scripts}
        for round_number in range(chosen.rounds + 1):  # the first one warms up
            for which, (at, script) in scripts.items():
                load = measure.wrk(at, script, chosen.seconds if round_number else 1.0, chosen.connections, None)
                if load.errors:
                    print(f"{which}: {load.errors} of {load.requests} requests failed")
                    return 1
                if round_number:
                    rates[which].append(load.rate)
                    print(f"{which:8} {load.rate:10,.0f} requests/s  p50 {load.p50_ms:.2f} ms", flush=True)
    medians = {which: statistics.median(values) for which, values in rates.items()}
    print(f"median   eyrie {medians['eyrie']:,.0f} requests/s, FastAPI + uvicorn {medians['fastapi']:,.0f} requests/s")
    print(f"ratio    {medians['eyrie'] / medians['fastapi']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
