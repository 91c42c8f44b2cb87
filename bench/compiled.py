"""Compiled against not compiled: a scikit-learn pipeline, one row a request through the endpoint, and rows a second in
process.

    python bench/compiled.py [--rounds 3] [--seconds 4] [--connections 32] [--report]

The pipeline (imputer, scaler, forest of 50 trees) is compiled by a compilation job of the same Eyrie; both endpoints
have one instance, and rounds alternate. The median counts. Exit code 1 where the goal is missed, 0 with --report.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import frame
import measure
import world
from eyrie.modelserver.compile import serving
from eyrie.modelserver.frameworks.sklearn import SklearnModel

GOAL = 2.0
SIZES = (1, 32, 100)


def trained() -> tuple[Any, np.ndarray]:
    """A fitted pipeline and rows for it."""
    rows, labels = make_classification(3_000, 20, n_informative=10, random_state=0)
    forest = RandomForestClassifier(50, random_state=0)
    return make_pipeline(SimpleImputer(), StandardScaler(), forest).fit(rows, labels), rows


def in_process(model: Any, rows: np.ndarray, made: bytes, folder: Path) -> None:
    """Rows a second of both, called as the model server calls them."""
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        tar.extractall(folder / "made", filter="data")
    both = {"original": SklearnModel(model, {}), "compiled": serving.load(folder / "made", {})}
    for size in SIZES:
        rates = {}
        for which, served in both.items():
            batch = np.ascontiguousarray(rows[:size], dtype=served.shape.dtype)
            served.predict(batch)
            calls, began = 0, time.perf_counter()
            while time.perf_counter() - began < 0.5:
                served.predict(batch)
                calls += 1
            rates[which] = calls * size / (time.perf_counter() - began)
        told = ", ".join(f"{which} {rate:,.0f} rows/s" for which, rate in rates.items())
        print(f"in process, {size:3} rows a call: {told}, {rates['compiled'] / rates['original']:.1f} x", flush=True)


def through_the_endpoint(
    place: world.Eyrie, bodies: list[bytes], folder: Path, chosen: argparse.Namespace
) -> dict[str, list[float]]:
    """Requests a second of both, round by round."""
    scripts = {
        name: measure.wrk_script(
            folder / f"{name}.lua", measure.signed_requests(place.port, name, bodies, place.signer)
        )
        for name in ("original", "compiled")
    }
    rates: dict[str, list[float]] = {name: [] for name in scripts}
    for number in range(chosen.rounds + 1):  # the first one warms up
        for name, script in scripts.items():
            load = measure.wrk(place.port, script, chosen.seconds if number else 1.0, chosen.connections, None)
            if load.errors:
                raise SystemExit(f"{name}: {load.errors} of {load.requests} requests failed")
            if number:
                rates[name].append(load.rate)
                print(f"{name:8} {load.rate:10,.0f} requests/s  p50 {load.p50_ms:.2f} ms", flush=True)
    return rates


def main() -> int:
    options = frame.arguments(__doc__, seconds=4.0)
    options.add_argument("--connections", type=int, default=32)
    chosen = options.parse_args()
    model, rows = trained()
    bodies = [",".join(map(repr, row)).encode() for row in rows[:1_000].tolist()]
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as name, world.eyrie() as place:
        folder = Path(name)
        joblib.dump(model, folder / "model.joblib")
        archive = world.pack(folder / "model.tar.gz", {"model.joblib": folder / "model.joblib"})
        url = place.upload(archive, "model.tar.gz")
        made = place.compile(url, "SKLEARN", rows.shape[1])
        place.deploy("original", [{"Image": "eyrie/sklearn", "ModelDataUrl": url}])
        place.deploy("compiled", [{"Image": "eyrie/sklearn", "ModelDataUrl": made}])
        key = made.removeprefix(f"s3://{world.BUCKET}/")
        in_process(model, rows, place.client("s3").get_object(Bucket=world.BUCKET, Key=key)["Body"].read(), folder)
        rates = through_the_endpoint(place, bodies, folder, chosen)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    detail = f"{medians['compiled']:,.0f} against {medians['original']:,.0f} requests/s"
    title = f"a scikit-learn pipeline, compiled against not compiled, c = {chosen.connections}"
    ratio = frame.Ratio.of(title, rates["compiled"], rates["original"], GOAL, detail=detail)
    return frame.finish([ratio], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
