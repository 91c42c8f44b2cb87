"""KServe's model server with workers as many as cores: `python serve_kserve.py MODEL PORT WORKERS`; its V1 protocol."""

import sys
from typing import Any

import kserve
import numpy
import xgboost


class Rows(kserve.Model):
    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self.booster = xgboost.Booster(model_file=file)
        self.booster.set_param({"nthread": 1})
        self.ready = True

    def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        rows = numpy.asarray(payload["instances"], dtype=numpy.float32)
        return {"predictions": self.booster.inplace_predict(rows).tolist()}


if __name__ == "__main__":
    file, port, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    server = kserve.ModelServer(
        http_port=port, workers=workers, enable_grpc=False, enable_latency_logging=False, access_log_format=None
    )
    server.start([Rows("rows", file)])
