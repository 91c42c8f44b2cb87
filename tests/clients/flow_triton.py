"""tritonclient against an endpoint: `flow_triton.py ADDRESS KEY ENDPOINT ROWS.npy`; prints what it saw as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def asked(client: Any, endpoint: str, rows: Any, raw_in: bool, raw_out: bool, name: str = "y", **more: Any) -> Any:
    tensor = triton.InferInput("x", list(rows.shape), {"f": "FP32", "d": "FP64"}[rows.dtype.char])
    tensor.set_data_from_numpy(rows, binary_data=raw_in)
    wanted = [triton.InferRequestedOutput(name, binary_data=raw_out)] if name else None
    return client.infer(endpoint, [tensor], outputs=wanted, **more)


def refused(call: Any) -> str:
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "it was not refused"


def main(address: str, key: str, endpoint: str, path: str) -> None:
    rows = np.load(path)
    headers = {"Authorization": f"Bearer {key}"}  # copied for each call: the client writes into what it is given
    found: dict[str, Any] = {}
    with triton.InferenceServerClient(address) as client:
        found["live"] = client.is_server_live()
        found["ready"] = client.is_server_ready()
        found["server"] = client.get_server_metadata()
        found["model ready"] = client.is_model_ready(endpoint, headers=dict(headers))
        found["unknown ready"] = client.is_model_ready("unknown", headers=dict(headers))
        found["model"] = client.get_model_metadata(endpoint, headers=dict(headers))
        version = found["model"]["versions"][0]
        answers = {
            "binary": asked(client, endpoint, rows, True, True, headers=dict(headers)),
            "json": asked(client, endpoint, rows, False, False, headers=dict(headers)),
            "mixed": asked(
                client, endpoint, rows.astype(np.float32), True, False, headers=dict(headers), request_id="7"
            ),
            "version": asked(client, endpoint, rows, True, True, headers=dict(headers), model_version=version),
        }
        for name, answer in answers.items():
            found[name] = answer.as_numpy("y").tolist()
        found["id"] = answers["mixed"].get_response()["id"]
        plain = asked(client, endpoint, rows, True, True, name="", headers=dict(headers))
        (output,) = plain.get_response()["outputs"]
        found["plain"] = plain.as_numpy(output["name"]).tolist()
        found["narrow"] = refused(lambda: asked(client, endpoint, rows[:, 1:], True, True, headers=dict(headers)))
        found["no key"] = refused(lambda: asked(client, endpoint, rows, True, True))
        pending = [client.async_infer(endpoint, answer_of(rows[n : n + 1]), headers=dict(headers)) for n in range(8)]
        found["async"] = [float(p.get_result().as_numpy(output["name"])[0]) for p in pending]
    print(json.dumps(found))


def answer_of(row: Any) -> list[Any]:
    tensor = triton.InferInput("x", list(row.shape), "FP64")
    tensor.set_data_from_numpy(row)
    return [tensor]


if __name__ == "__main__":
    main(*sys.argv[1:])
