"""BentoML with workers as many as cores and adaptive batching: `bentoml serve serve_bentoml:Rows`, MODEL its file."""

import os

import bentoml
import numpy
import xgboost


@bentoml.service(workers="cpu_count", traffic={"timeout": 60})
class Rows:
    def __init__(self) -> None:
        self.booster = xgboost.Booster(model_file=os.environ["MODEL"])
        self.booster.set_param({"nthread": 1})

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1_000)
    def predict(self, rows: numpy.ndarray) -> numpy.ndarray:
        return self.booster.inplace_predict(numpy.asarray(rows, dtype=numpy.float32))

    @bentoml.api
    def predict_one(self, rows: numpy.ndarray) -> numpy.ndarray:
        return self.booster.inplace_predict(numpy.asarray(rows, dtype=numpy.float32))
