"""FastAPI on uvicorn, workers as many as cores: `python serve_fastapi.py MODEL PORT WORKERS`.

One CSV row a request, read as it comes (no pydantic), as fast as this pair goes: uvloop and httptools, no access log.
"""

import os
import sys

import numpy
import uvicorn
import xgboost
from fastapi import FastAPI, Request, Response

booster = xgboost.Booster(model_file=os.environ.setdefault("MODEL", sys.argv[1] if len(sys.argv) > 1 else ""))
booster.set_param({"nthread": 1})
app = FastAPI()


@app.post("/invocations")
async def invocations(request: Request) -> Response:
    row = numpy.fromstring(await request.body(), dtype=numpy.float32, sep=",").reshape(1, -1)
    return Response(str(float(booster.inplace_predict(row)[0])), media_type="text/csv")


if __name__ == "__main__":
    uvicorn.run(
        "serve_fastapi:app",
        host="127.0.0.1",
        port=int(sys.argv[2]),
        workers=int(sys.argv[3]),
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
    )
