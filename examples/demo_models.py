"""Two real models of one question for the demo, packed as SageMaker wants them: a `model.tar.gz` each."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import joblib
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 7


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model ready for upload."""

    name: str
    image: str
    archive: Path


def build_models(folder: Path) -> tuple[list[Model], list[str], list[int]]:
    """Train both models; they, the test rows as CSV, and the true labels."""
    data, target = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        data, target, test_size=0.25, random_state=SEED, stratify=target
    )

    booster = xgboost.XGBClassifier(n_estimators=60, max_depth=3, random_state=SEED, n_jobs=1).fit(x_train, y_train)
    booster.get_booster().save_model(folder / "xgboost-model.json")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x_train, y_train)
    joblib.dump(pipeline, folder / "model.joblib")

    models = [
        Model("xgboost", "eyrie/xgboost", pack(folder / "xgboost-model.json")),
        Model("sklearn", "eyrie/sklearn", pack(folder / "model.joblib")),
    ]
    rows = [",".join(f"{value:.6g}" for value in row) for row in x_test]
    return models, rows, [int(label) for label in y_test]


def pack(path: Path) -> Path:
    """The archive that holds this one file."""
    archive = path.with_name(f"{path.stem}.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(path, arcname=path.name)
    return archive
