"""The application inside the container: Flask, one model for all requests of a worker, loaded before the first."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import flask
import joblib
import numpy as np

MODEL_DIR = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))

app = flask.Flask(__name__)


class Predictor:
    """The model of this worker process."""

    def __init__(self, folder: Path) -> None:
        self._model = joblib.load(folder / "model.joblib")

    def predict(self, rows: np.ndarray) -> list[float]:
        """One number a row."""
        return [float(number) for number in self._model.predict(rows)]


predictor = Predictor(MODEL_DIR)  # a model that does not load ends the worker, and so the container: seen at once


@app.get("/ping")
def ping() -> flask.Response:
    """200 with an empty body: this container can serve."""
    return flask.Response(status=200)


@app.post("/invocations")
def invocations() -> flask.Response:
    """CSV rows in, a prediction a line out; JSON where the client accepts that."""
    kind = flask.request.mimetype
    if kind != "text/csv":
        return refusal(f"this container reads text/csv, not {kind or 'a body without a type'}", 415)
    try:
        rows = np.loadtxt(io.StringIO(flask.request.get_data(as_text=True)), delimiter=",", ndmin=2)
        found = predictor.predict(rows)
    except ValueError as error:
        return refusal(f"the rows cannot be used: {error}", 400)
    if flask.request.accept_mimetypes.best == "application/json":
        return flask.Response(json.dumps({"predictions": found}), mimetype="application/json")
    return flask.Response("".join(f"{number}\n" for number in found), mimetype="text/csv")


def refusal(text: str, status: int) -> flask.Response:
    """What the caller finds in ModelError: OriginalStatusCode and OriginalMessage."""
    return flask.Response(text, status=status, mimetype="text/plain")
