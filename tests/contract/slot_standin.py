"""A model server in miniature: the contract of a slot (docs/concepts/processes.md) in the standard library, up in
milliseconds.

`POST /invocations` runs its body as Python inside the slot and answers the JSON of `result`, so that a test can do
what a hostile model could. `ml/model/behaviour.json` may say: {"exit_on_load": 3, "ignore_term": true, "never_ready":
true}.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--box", type=Path, required=True)
    parser.add_argument("--ml", type=Path, required=True)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--imports")
    parser.add_argument("--log-bytes-max")
    parser.add_argument("--fail-at-start", action="store_true")
    options = parser.parse_args()
    if options.fail_at_start:
        sys.exit("standin: told to fail")
    os.set_inheritable(options.lock_fd, False)
    Server(options).serve()


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.box, self.ml = options.box, options.ml
        self.phase, self.claimed_for, self.behaviour = "waiting", None, {}
        signal.signal(signal.SIGTERM, self.terminate)

    def terminate(self, *_: object) -> None:
        if not self.behaviour.get("ignore_term"):
            self.log("SIGTERM")
            os._exit(0)

    def log(self, text: str) -> None:
        with open(self.box / "log", "a") as file:
            file.write(f"2026-11-21T00:00:00.000Z {text}\n")

    def serve(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.box / "s"))
        listener.listen(64)
        self.log("waiting")
        while True:
            conversation, _ = listener.accept()
            with conversation, conversation.makefile("rwb") as stream:
                try:
                    self.answer(stream)
                except OSError:
                    continue

    def answer(self, stream: object) -> None:
        method, target, _ = stream.readline().decode().split()
        length = 0
        while (line := stream.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        status, body = self.route(method, target, stream.read(length))
        stream.write(f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        stream.flush()

    def route(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        if target == "/ping":
            return (200 if self.phase == "ready" else 503), b""
        if target == "/eyrie/phase":
            return 200, json.dumps({"phase": self.phase}).encode()
        if target == "/eyrie/claim":
            return self.claim(json.loads(body)), b""
        return self.run(body)

    def claim(self, told: dict) -> int:
        if self.claimed_for not in (None, told["instance_id"]):
            return 409
        if self.claimed_for is None:
            self.claimed_for = told["instance_id"]
            os.environ.update(told["environment"])
            self.load()
        return 202

    def load(self) -> None:
        self.log(f"claimed for {self.claimed_for}")
        path = self.ml / "model" / "behaviour.json"
        if path.exists():
            self.behaviour = json.loads(path.read_text())
        if "exit_on_load" in self.behaviour:
            self.log("ModelLoadError: the model is not a model")
            os._exit(self.behaviour["exit_on_load"])
        if not self.behaviour.get("never_ready"):
            self.phase = "ready"

    def run(self, code: bytes) -> tuple[int, bytes]:
        names: dict = {"os": os, "time": time}
        try:
            exec(code.decode(), names)
            return 200, json.dumps(names.get("result")).encode()
        except BaseException as fault:
            return 500, json.dumps(f"{type(fault).__name__}: {fault}").encode()


if __name__ == "__main__":
    main()
