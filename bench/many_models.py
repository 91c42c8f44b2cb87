"""500 XGBoost models behind one multi-model endpoint against a single-model endpoint, each on one instance.

    python bench/many_models.py [--models 500] [--rounds 5] [--seconds 3] [--report]

Every model is trained apart (another seed each) and lies in S3 as an archive of its own. All are loaded by a first
request each, which is checked against the model's own answer; then uniform traffic (a shuffled rotation over all
models) and the single-model endpoint are measured in turn, one request at a time: the ratio is of their p50 latencies.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

import frame
import measure
import world

GOAL = 1.3
FEATURES, ROWS, TREES = 20, 500, 30
LOADERS = 8
TOLERANCE = 1e-5
IMAGE = "eyrie/xgboost"


def train(folder: Path, count: int) -> tuple[np.ndarray[Any, Any], list[xgboost.Booster]]:
    """Rows, and as many different models of them, saved in folders of their own."""
    draw = np.random.default_rng(7)
    rows = draw.normal(size=(ROWS, FEATURES)).astype(np.float32)
    boosters = []
    for number in range(count):
        labels = (rows @ draw.normal(size=FEATURES) + draw.normal(size=ROWS) > 0).astype(int)
        settings = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "seed": number}
        boosters.append(xgboost.train(settings, xgboost.DMatrix(rows, labels), num_boost_round=TREES))
        boosters[-1].save_model(folder / f"{number}.json")
    return rows, boosters


def upload(eyrie: world.Eyrie, folder: Path, count: int) -> str:
    """Every model as an archive below one prefix; the prefix."""
    first = world.pack(folder / "0.tar.gz", {"xgboost-model.json": folder / "0.json"})
    url = eyrie.upload(first, "many/m0.tar.gz")
    s3 = eyrie.client("s3")
    for number in range(1, count):
        archive = world.pack(folder / f"{number}.tar.gz", {"xgboost-model.json": folder / f"{number}.json"})
        s3.upload_file(str(archive), world.BUCKET, f"many/m{number}.tar.gz")
    return url.removesuffix("m0.tar.gz")


def load_all(eyrie: world.Eyrie, rows: np.ndarray[Any, Any], boosters: list[xgboost.Booster]) -> list[float]:
    """One request to each model, its answer compared with the model's own; milliseconds of each."""
    row, runtime = csv(rows[0]), eyrie.client("sagemaker-runtime")

    def load(number: int) -> float:
        began = time.perf_counter()
        reply = runtime.invoke_endpoint(
            EndpointName="many", TargetModel=f"m{number}.tar.gz", ContentType="text/csv", Accept="text/csv", Body=row
        )
        said, took = float(reply["Body"].read()), time.perf_counter() - began
        wanted = float(boosters[number].inplace_predict(rows[:1])[0])
        if abs(said - wanted) > TOLERANCE:
            raise SystemExit(f"model {number} says {said}, and should say {wanted}")
        return took * 1000

    with ThreadPoolExecutor(LOADERS) as threads:
        return list(threads.map(load, range(len(boosters))))


def csv(row: np.ndarray[Any, Any]) -> str:
    return ",".join(f"{value:.9g}" for value in row)


def p50_of(port: int, script: Path, seconds: float) -> float:
    """Median latency in milliseconds, one request at a time."""
    seen = measure.wrk(port, script, seconds, 1, None)
    if seen.errors:
        raise SystemExit(f"{seen.errors} of {seen.requests} requests failed")
    return seen.p50_ms


def main() -> int:
    options = frame.arguments(__doc__, rounds=5, seconds=3.0)
    options.add_argument("--models", type=int, default=500, help="how many models")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="eyrie-many-") as name, world.eyrie() as eyrie:
        folder = Path(name)
        rows, boosters = train(folder, chosen.models)
        prefix = upload(eyrie, folder, chosen.models)
        eyrie.deploy("one", [{"Image": IMAGE, "ModelDataUrl": f"{prefix}m0.tar.gz"}])
        eyrie.deploy("many", [{"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": prefix}])
        took = load_all(eyrie, rows, boosters)
        first = f"first request to a model: median {statistics.median(took):.0f} ms, {LOADERS} at a time"
        print(f"{chosen.models} models loaded and right; {first}", flush=True)
        order = [number % chosen.models for number in range(2 * chosen.models)]
        random.Random(7).shuffle(order)
        bodies = [csv(rows[number % ROWS]).encode() for number in range(len(order))]
        models = [f"m{number}.tar.gz" for number in order]
        many = measure.signed_requests(eyrie.port, "many", bodies, eyrie.signer, models)
        one = measure.signed_requests(eyrie.port, "one", bodies, eyrie.signer)
        many_script = measure.wrk_script(folder / "many.lua", many)
        one_script = measure.wrk_script(folder / "one.lua", one)
        seen = frame.rounds(
            chosen.rounds,
            {
                "many": lambda: p50_of(eyrie.port, many_script, chosen.seconds),
                "one": lambda: p50_of(eyrie.port, one_script, chosen.seconds),
            },
        )
        many_ms, one_ms = statistics.median(seen["many"]), statistics.median(seen["one"])
        detail = f"p50 {many_ms:.3f} ms over {chosen.models} models, {one_ms:.3f} ms of one; {first}"
        title = f"{chosen.models} XGBoost models, uniform traffic, p50 once loaded, against a single-model endpoint"
        ratio = frame.Ratio.of(title, seen["many"], seen["one"], GOAL, at_most=True, detail=detail)
        return frame.finish([ratio], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
