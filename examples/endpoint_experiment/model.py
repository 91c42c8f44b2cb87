"""The experiment's model: XGBoost behind code of one's own, as a bring-your-own container serves it: a row a request,
parsed and predicted by itself. It predicts the row again and again until the request has used as much CPU as it is told
to (EXPERIMENT_WORK_MS), so that a request can cost what it cost in the public account.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

TREES = 200
INFERENCE = """
import io
import os
import time

import numpy
import xgboost

WORK_S = float(os.environ.get("EXPERIMENT_WORK_MS", "0")) / 1000


def model_fn(model_dir):
    booster = xgboost.Booster()
    booster.load_model(os.path.join(model_dir, "xgboost-model.json"))
    booster.set_param({"nthread": 1})
    return booster


def transform_fn(booster, body, content_type, accept):
    until = time.thread_time() + WORK_S
    while True:
        rows = numpy.loadtxt(io.StringIO(body), delimiter=",", ndmin=2)
        scores = booster.predict(xgboost.DMatrix(rows, nthread=1))
        if time.thread_time() >= until:
            break
    return "\\n".join(f"{score:.6f}" for score in scores), "text/csv"
"""


@dataclass(frozen=True, slots=True)
class Made:
    """An archive to upload, and a file with a request a line."""

    archive: Path
    rows: Path


def make(folder: Path) -> Made:
    """Train on scikit-learn's breast cancer data, and pack the model with its code."""
    data, target = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, _ = train_test_split(data, target, test_size=0.25, random_state=7, stratify=target)
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "seed": 7},
        xgboost.DMatrix(x_train, y_train),
        TREES,
    )
    booster.save_model(folder / "xgboost-model.json")
    (folder / "inference.py").write_text(INFERENCE)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        archive.add(folder / "xgboost-model.json", "xgboost-model.json")
        archive.add(folder / "inference.py", "code/inference.py")
    (folder / "rows.csv").write_text("".join(",".join(f"{value:.6g}" for value in row) + "\n" for row in x_test))
    return Made(folder / "model.tar.gz", folder / "rows.csv")
