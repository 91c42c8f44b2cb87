"""A container of somebody's own in miniature: the SageMaker contract (`serve`, GET /ping, POST /invocations, port 8080
or SAGEMAKER_BIND_TO_PORT) in the standard library, one thread a connection.

`POST /invocations` runs its body as Python and answers the JSON of `result`, so that a test can do what hostile code
could. `/opt/ml/model/behaviour.json` may say: {"exit_on_load": 3, "ignore_term": true, "never_ready": true}.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

ML = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))


class Contract(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: ClassVar[dict] = {}

    def do_GET(self) -> None:
        known = self.path == "/ping"
        self.answer(404 if not known else 503 if self.behaviour.get("never_ready") else 200, b"")

    def do_POST(self) -> None:
        code = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        names: dict = {"os": os, "time": time, "threading": threading}
        try:
            exec(code.decode(), names)
            status, body = 200, json.dumps(names.get("result")).encode()
        except BaseException as fault:
            status, body = 500, json.dumps(f"{type(fault).__name__}: {fault}").encode()
        self.answer(status, body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *given: object) -> None:
        """Nothing an answer: the tests look at the last lines."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """As its base does, without looking up a name."""
        super(http.server.HTTPServer, self).server_bind()
        self.server_name, self.server_port = "instance", self.server_address[1]


def main() -> None:
    told = ML / "model" / "behaviour.json"
    if told.exists():
        Contract.behaviour = json.loads(told.read_text())
    if "exit_on_load" in Contract.behaviour:
        print("ModelLoadError: the model is not a model", flush=True)
        os._exit(Contract.behaviour["exit_on_load"])

    def terminate(*_: object) -> None:
        if not Contract.behaviour.get("ignore_term"):
            print("SIGTERM", flush=True)
            os._exit(0)

    signal.signal(signal.SIGTERM, terminate)
    print(f"{' '.join(sys.argv)}: serving the model", flush=True)
    Server(("0.0.0.0", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Contract).serve_forever()


if __name__ == "__main__":
    main()
