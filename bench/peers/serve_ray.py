"""Ray Serve with a replica a core: `python serve_ray.py MODEL PORT REPLICAS`.

Which proxy is in front is for Ray's own environment variables to say (RAY_SERVE_ENABLE_HA_PROXY,
RAY_SERVE_THROUGHPUT_OPTIMIZED). One CSV row a request, batched by serve.batch where that is faster.
"""

import signal
import sys

import numpy
import ray
import xgboost
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=int(sys.argv[3]), ray_actor_options={"num_cpus": 1}, max_ongoing_requests=64)
class Rows:
    def __init__(self, file: str) -> None:
        self.booster = xgboost.Booster(model_file=file)
        self.booster.set_param({"nthread": 1})

    async def __call__(self, request: Request) -> Response:
        row = numpy.fromstring(await request.body(), dtype=numpy.float32, sep=",").reshape(1, -1)
        return Response(str(float(self.booster.inplace_predict(row)[0])), media_type="text/csv")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(num_cpus=int(sys.argv[3]), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
        serve.run(Rows.bind(sys.argv[1]), route_prefix="/invocations")
        print("ready", flush=True)
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
