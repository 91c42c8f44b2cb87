"""How many asynchronous requests a second are accepted durably, against what the disk allows plainly.

    python bench/async_accept.py [--connections 64] [--gateways 1]

wrk sends signed InvokeEndpointAsync calls, as boto3 makes them, through a gateway worker to dispatch; each is answered
with 202 once its row is synced to disk. The endpoint has no instance, so nothing but accepting is measured. In turn
with it, on this disk: SQLite as plainly as it can be used, one commit a request (WAL, synchronous=FULL), and commits
of as many requests as wrk has connections, which is what group commit comes to where nothing else is done.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import frame
import measure
import world

NAME = "accept"
ROW = b"0.1,0.2,0.3,0.4"
CODE = b"def model_fn(folder):\n    return None\n\n\ndef predict_fn(body, model):\n    return body\n"


def deploy(eyrie: world.Eyrie, folder: Path) -> None:
    """An asynchronous endpoint with no instance left."""
    code = folder / "inference.py"
    code.write_bytes(CODE)
    url = eyrie.upload(world.pack(folder / "m.tar.gz", {"code/inference.py": code}), "m.tar.gz")
    image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
    sagemaker = eyrie.client("sagemaker")
    container = {"Image": image, "ModelDataUrl": url, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}
    sagemaker.create_model(ModelName=NAME, ExecutionRoleArn=world.ROLE, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": NAME, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    paths = {"S3OutputPath": f"s3://{world.BUCKET}/out", "S3FailurePath": f"s3://{world.BUCKET}/bad"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=NAME, ProductionVariants=[variant], AsyncInferenceConfig={"OutputConfig": paths}
    )
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    in_service = sagemaker.get_waiter("endpoint_in_service")
    in_service.wait(EndpointName=NAME, WaiterConfig=world.IN_SERVICE)
    none = [{"VariantName": "v", "DesiredInstanceCount": 0}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=NAME, DesiredWeightsAndCapacities=none)
    in_service.wait(EndpointName=NAME, WaiterConfig=world.IN_SERVICE)


def signed(eyrie: world.Eyrie, body: bytes) -> bytes:
    """A call as boto3 sends it."""
    key, path = eyrie.signer, f"/endpoints/{NAME}/async-invocations"
    headers = {"X-Amzn-SageMaker-Content-Type": "text/csv"}
    if not body:
        headers["X-Amzn-SageMaker-InputLocation"] = f"s3://{world.BUCKET}/in.csv"
    request = AWSRequest("POST", f"http://127.0.0.1:{eyrie.port}{path}", headers=headers, data=body)
    SigV4Auth(Credentials(key.access, key.secret), "sagemaker", key.region).add_auth(request)
    lines = {"Host": f"127.0.0.1:{eyrie.port}", **dict(request.headers.items()), "Content-Length": str(len(body))}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    return head.encode() + body


def plain(folder: Path, seconds: float, together: int) -> float:
    """Rows a second that SQLite makes durable, `together` in a commit."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        db = sqlite3.connect(Path(place) / "plain.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE requests (number INTEGER PRIMARY KEY, head TEXT NOT NULL, body BLOB NOT NULL)")
        rows, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            db.execute("BEGIN IMMEDIATE")
            for _ in range(together):
                db.execute("INSERT INTO requests (head, body) VALUES (?, ?)", ("x" * 400, ROW))
            db.execute("COMMIT")
            rows += together
        db.close()
        return rows / took


def main() -> int:
    options = frame.arguments(__doc__, rounds=5, seconds=3.0)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--gateways", type=int, default=1)
    chosen = options.parse_args()
    print(frame.machine(), flush=True)
    with world.eyrie(gateways=chosen.gateways) as eyrie, tempfile.TemporaryDirectory() as scratch:
        deploy(eyrie, Path(scratch))
        scripts = {
            name: measure.wrk_script(Path(scratch) / f"{name}.lua", [signed(eyrie, body)])
            for name, body in (("location", b""), ("body", ROW))
        }

        def accepted(name: str) -> float:
            load = measure.wrk(eyrie.port, scripts[name], chosen.seconds, chosen.connections, None)
            if load.errors:
                raise SystemExit(f"{load.errors} of {load.requests} calls were not accepted")
            return load.rate

        found = frame.rounds(
            chosen.rounds,
            {
                "location": lambda: accepted("location"),
                "body": lambda: accepted("body"),
                "one": lambda: plain(eyrie.data, 1.0, 1),
                "group": lambda: plain(eyrie.data, 1.0, chosen.connections),
            },
        )
    rates = {name: sorted(each)[len(each) // 2] for name, each in found.items()}
    words = (
        f"{rates['location']:.0f} requests/s by location and {rates['body']:.0f} by body, signed and checked, each "
        f"synced before its 202; plain SQLite: {rates['one']:.0f} commits/s of one row, "
        f"{rates['group']:.0f} rows/s in commits of {chosen.connections}"
    )
    name = "asynchronous requests accepted durably against one plain commit each"
    return frame.finish([frame.Ratio.of(name, found["location"], found["one"], 1.0, detail=words)], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
