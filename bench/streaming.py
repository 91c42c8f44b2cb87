"""What a streamed reply costs: time to its first part, and the gateway's CPU a part; and an infer request of the Open
Inference Protocol beside InvokeEndpoint, by the gateway's CPU a request. A real Eyrie, one gateway worker, boto3 reads.

    python bench/streaming.py [--parts 5000] [--streams 20]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import world

CODE = """
import time


def model_fn(model_dir):
    return None


def transform_fn(model, data, content_type, accept):
    if content_type != "text/csv":
        return data, content_type
    count, pause_ms = data.split(",")
    return pieces(int(count), float(pause_ms) / 1000), "text/plain"


def pieces(count, pause_s):
    for _ in range(count):
        yield b"a token or so "
        if pause_s:
            time.sleep(pause_s)
"""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
REQUESTS = 2_000


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def streams(client: Any, parts: int, count: int, pause_ms: float = 0) -> tuple[list[float], int]:
    """Seconds to each stream's first part, and how many parts came in all."""
    first, total = [], 0
    for _ in range(count):
        began = time.perf_counter()
        body = f"{parts},{pause_ms}".encode()
        reply = client.invoke_endpoint_with_response_stream(EndpointName="s", ContentType="text/csv", Body=body)
        for number, _event in enumerate(reply["Body"]):
            if number == 0:
                first.append(time.perf_counter() - began)
            total += 1
    return first, total


def gateway_us(pid: int, call: Callable[[], None], count: int) -> float:
    """The gateway's CPU a call, in microseconds."""
    for _ in range(50):
        call()
    before = cpu_s(pid)
    for _ in range(count):
        call()
    return (cpu_s(pid) - before) / count * 1e6


def infer_call(eyrie: world.Eyrie) -> Callable[[], None]:
    key = eyrie.run("key", "create", "--endpoint", "s")
    time.sleep(1)
    text = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 32], "parameters": {"binary_data_size": 128}}]}
    text["parameters"] = {"binary_data_output": True}  # type: ignore[assignment]
    head = json.dumps(text).encode()
    connection = http.client.HTTPConnection("127.0.0.1", eyrie.port)
    headers = {"Authorization": f"Bearer {key}", "Inference-Header-Content-Length": str(len(head))}

    def call() -> None:
        connection.request("POST", "/v2/models/s/infer", head + bytes(128), headers)
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 200, body

    return call


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", type=int, default=5_000)
    parser.add_argument("--streams", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, world.eyrie() as eyrie:
        code = Path(folder) / "inference.py"
        code.write_text(CODE)
        archive = world.pack(Path(folder) / "s.tar.gz", {"code/inference.py": code})
        eyrie.deploy("s", [{"Image": "eyrie/sklearn", "ModelDataUrl": eyrie.upload(archive, "s.tar.gz")}])
        client = eyrie.client("sagemaker-runtime")
        pid = json.loads(eyrie.run("status", "--json"))["processes"]["gateway-0"]
        streams(client, 10, 20)
        first, _ = streams(client, 1, 200)
        print(f"time to the first part: p50 {statistics.median(first) * 1e3:.2f} ms (boto3's signing included)")
        for parts, count, pause_ms in ((asked.parts, asked.streams, 0.0), (1_000, 2, 2.0)):
            before = cpu_s(pid)
            _, total = streams(client, parts, count, pause_ms)
            spent_us = (cpu_s(pid) - before) * 1e6
            print(
                f"pieces of 14 bytes, {pause_ms:g} ms apart: {parts * count} came as {total} parts; "
                f"gateway CPU {spent_us / total:.1f} us a part, {spent_us / parts / count:.2f} us a piece"
            )

        def whole() -> None:
            client.invoke_endpoint(EndpointName="s", ContentType="application/x-npy", Body=bytes(200))["Body"].read()

        print(f"gateway CPU an InvokeEndpoint from boto3: {gateway_us(pid, whole, REQUESTS):.0f} us")
        print(f"gateway CPU an infer request, binary tensors: {gateway_us(pid, infer_call(eyrie), REQUESTS):.0f} us")


if __name__ == "__main__":
    main()
