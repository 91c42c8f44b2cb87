"""An inference pipeline of four containers against its single slowest container, one request at a time.

    python bench/pipeline.py [--rounds 5] [--seconds 3] [--report]

Impute -> scale -> a random forest -> the label's name: three containers of user code (inference.py) around a
scikit-learn model that takes most of the time. Its own endpoint gets the rows that the second container would give it.
Both endpoints have one instance; their answers are compared with the model's before anything is measured.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

import frame
import measure
import world

GOAL = 1.2
TREES = 200
REQUESTS = 500
TRANSFORM = """
import io, os
import joblib
import numpy as np

def model_fn(folder):
    return joblib.load(os.path.join(folder, "step.joblib"))

def input_fn(data, content_type):
    text = data if isinstance(data, str) else data.decode()
    return np.array([[float(cell) for cell in line.split(",")] for line in text.splitlines()])

def predict_fn(rows, step):
    return step.transform(rows)

def output_fn(rows, accept):
    return "\\n".join(",".join(map(repr, row)) for row in rows.tolist()), "text/csv"
"""
NAMES = """
def model_fn(folder):
    return ("malignant", "benign")

def input_fn(data, content_type):
    text = data if isinstance(data, str) else data.decode()
    return [int(float(line)) for line in text.splitlines() if line]

def predict_fn(labels, names):
    return [names[label] for label in labels]

def output_fn(found, accept):
    return "\\n".join(found), "text/csv"
"""


def csv(row: np.ndarray[Any, Any]) -> str:
    return ",".join(f"{value!r}" for value in row.tolist())


def containers(folder: Path, eyrie: world.Eyrie) -> tuple[list[dict[str, Any]], list[bytes], list[bytes], list[str]]:
    """The four, trained and uploaded; bodies for them and for the forest alone, and what the pipeline must say."""
    rows, labels = load_breast_cancer(return_X_y=True)
    imputer = SimpleImputer().fit(rows)
    scaler = StandardScaler().fit(imputer.transform(rows))
    scaled = scaler.transform(imputer.transform(rows))
    forest = RandomForestClassifier(TREES, random_state=7, n_jobs=1).fit(scaled, labels)
    for name, model in (("impute", imputer), ("scale", scaler), ("forest", forest)):
        joblib.dump(model, folder / f"{name}.joblib")
    (folder / "transform.py").write_text(TRANSFORM)
    (folder / "names.py").write_text(NAMES)
    inside = {
        "impute": {"step.joblib": folder / "impute.joblib", "code/inference.py": folder / "transform.py"},
        "scale": {"step.joblib": folder / "scale.joblib", "code/inference.py": folder / "transform.py"},
        "forest": {"model.joblib": folder / "forest.joblib"},
        "names": {"code/inference.py": folder / "names.py"},
    }
    made = []
    for name, files in inside.items():
        url = eyrie.upload(world.pack(folder / f"{name}.tar.gz", files), f"pipeline/{name}.tar.gz")
        forest_s = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}  # no client's Accept reaches it inside
        environment = forest_s if name == "forest" else {"SAGEMAKER_PROGRAM": "inference.py"}
        made.append({"Image": "eyrie/sklearn", "ModelDataUrl": url, "Environment": environment})
    whole = [csv(rows[number % len(rows)]).encode() for number in range(REQUESTS)]
    alone = [csv(scaled[number % len(rows)]).encode() for number in range(REQUESTS)]
    found = forest.predict(scaled)
    return made, whole, alone, [("malignant", "benign")[found[number % len(rows)]] for number in range(REQUESTS)]


def check(eyrie: world.Eyrie, bodies: list[bytes], wanted: list[str]) -> None:
    """The pipeline says what its parts would."""
    runtime = eyrie.client("sagemaker-runtime")
    for body, name in list(zip(bodies, wanted, strict=True))[:50]:
        reply = runtime.invoke_endpoint(EndpointName="pipeline", ContentType="text/csv", Accept="text/csv", Body=body)
        said = reply["Body"].read().decode().strip()
        if said != name:
            raise SystemExit(f"the pipeline says {said!r}, and should say {name!r}")


def p50_of(port: int, script: Path, seconds: float) -> float:
    """Median latency in milliseconds, one request at a time."""
    seen = measure.wrk(port, script, seconds, 1, None)
    if seen.errors:
        raise SystemExit(f"{seen.errors} of {seen.requests} requests failed")
    return seen.p50_ms


def main() -> int:
    chosen = frame.arguments(__doc__, rounds=5, seconds=3.0).parse_args()
    with tempfile.TemporaryDirectory(prefix="eyrie-pipeline-") as name, world.eyrie() as eyrie:
        folder = Path(name)
        made, whole, alone, wanted = containers(folder, eyrie)
        eyrie.deploy("forest", [made[2]])
        eyrie.deploy("pipeline", made)
        check(eyrie, whole, wanted)
        scripts = {
            "pipeline": measure.wrk_script(
                folder / "pipeline.lua", measure.signed_requests(eyrie.port, "pipeline", whole, eyrie.signer)
            ),
            "forest": measure.wrk_script(
                folder / "forest.lua", measure.signed_requests(eyrie.port, "forest", alone, eyrie.signer)
            ),
        }
        sides = {side: (lambda path=path: p50_of(eyrie.port, path, chosen.seconds)) for side, path in scripts.items()}
        seen = frame.rounds(chosen.rounds, sides)
        four, one = statistics.median(seen["pipeline"]), statistics.median(seen["forest"])
        detail = f"p50 {four:.2f} ms of four, {one:.2f} ms of the forest alone"
        title = "a 4-container pipeline against its single slowest container, p50"
        ratio = frame.Ratio.of(title, seen["pipeline"], seen["forest"], GOAL, at_most=True, detail=detail)
        return frame.finish([ratio], chosen.report)


if __name__ == "__main__":
    sys.exit(main())
