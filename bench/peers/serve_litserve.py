"""LitServe with workers as many as cores: `python serve_litserve.py MODEL PORT WORKERS [BATCH]`."""

import sys
from typing import Any

import litserve
import numpy
import xgboost


class Rows(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.booster = xgboost.Booster(model_file=sys.argv[1])
        self.booster.set_param({"nthread": 1})

    def decode_request(self, request: dict[str, Any]) -> numpy.ndarray:
        return numpy.asarray(request["input"], dtype=numpy.float32)

    def predict(self, x: numpy.ndarray) -> numpy.ndarray:
        return self.booster.inplace_predict(x if x.ndim == 2 else x.reshape(1, -1))

    def encode_response(self, output: numpy.ndarray) -> dict[str, float]:
        return {"output": float(numpy.ravel(output)[0])}


if __name__ == "__main__":
    batch = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    api = Rows(max_batch_size=batch, batch_timeout=0.001 if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=int(sys.argv[3]))
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False, access_log=False)
