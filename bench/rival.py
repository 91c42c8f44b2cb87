"""The model that the endpoint benchmarks serve: XGBoost, 100 trees of depth 6 over 20 features, and rows to ask it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
import xgboost

TREES, DEPTH, FEATURES, ROWS, SEED = 100, 6, 20, 1_000, 7


@dataclass(frozen=True, slots=True)
class Rival:
    """A trained model's file, rows it never saw, as CSV lines, and what it answers to each when called directly."""

    file: Path
    rows: list[str]
    answers: list[float]


def train(folder: Path) -> Rival:
    """Train it; the same every time."""
    chance = numpy.random.default_rng(SEED)
    seen = chance.normal(size=(4_000, FEATURES)).astype(numpy.float32)
    label = (seen[:, 0] * seen[:, 1] + numpy.sin(seen[:, 2] * 3) + seen[:, 3:].sum(axis=1) / 9 > 0).astype(int)
    settings = {"objective": "binary:logistic", "max_depth": DEPTH, "nthread": 1, "seed": SEED}
    booster = xgboost.train(settings, xgboost.DMatrix(seen, label), num_boost_round=TREES)
    file = folder / "xgboost-model.json"
    booster.save_model(file)
    rows = [",".join(f"{value:.6g}" for value in row) for row in chance.normal(size=(ROWS, FEATURES))]
    asked = numpy.array([[float(cell) for cell in row.split(",")] for row in rows], dtype=numpy.float32)
    return Rival(file, rows, [float(answer) for answer in booster.inplace_predict(asked)])
