"""KServe's REST client against an endpoint: `flow_kserve.py ADDRESS KEY ENDPOINT ROWS.npy`; prints what it saw."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def flow(address: str, key: str, endpoint: str, path: str) -> dict[str, Any]:
    rows = np.load(path)
    headers = {"Authorization": f"Bearer {key}"}
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    url = f"http://{address}"
    found: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, endpoint, headers=headers),
        "unknown ready": await client.is_model_ready(url, "unknown", headers=headers),
    }
    for name, binary in (("binary", True), ("json", False)):
        tensor = InferInput("x", list(rows.shape), "FP64")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        request = InferRequest(model_name=endpoint, infer_inputs=[tensor])
        answer = await client.infer(url, request, model_name=endpoint, headers=dict(headers))
        found[name] = answer.outputs[0].as_numpy().tolist()
    await client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(flow(*sys.argv[1:]))))
