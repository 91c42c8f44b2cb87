"""What the tests of hosting share: a connection that keeps its replies, containers written to a folder, a server
claimed for them on the test's own event loop.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

from eyrie.http1.server import Connection
from eyrie.modelserver.app import ModelServer, Phase
from eyrie.modelserver.threads import Pools


class Recorder:
    """What a connection of http1 is to the application, with its replies kept."""

    def __init__(self, target: str, body: bytes = b"", method: str = "POST", **headers: str) -> None:
        self.method, self.target, self.data = method.encode(), target.encode(), body
        self.fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        self.alive = True
        self.context: Any = None
        self.listener: Any = None
        self.writing_paused = False
        self.replies: list[tuple[int, bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.finished = self.aborted = False
        self.shape = None

    def collect(self, limit: int) -> None:
        self.limit = limit

    def remember(self) -> None:
        """It knows no shapes."""

    def reply(self, status: int, lines: bytes, body: bytes) -> None:
        assert not self.replies
        self.replies.append((status, lines, body))

    def start(self, status: int, lines: bytes, length: int | None) -> None:
        assert not self.replies
        self.replies.append((status, lines, b""))

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True

    @property
    def status(self) -> int:
        return self.replies[0][0]

    @property
    def lines(self) -> bytes:
        return self.replies[0][1]

    @property
    def body(self) -> bytes:
        return self.replies[0][2]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def give(server: ModelServer, recorder: Recorder) -> Recorder:
    """Hand a request over as http1 would."""
    connection = cast(Connection, recorder)
    server.head(connection)
    if not recorder.replies:
        server.body(connection, recorder.data)
    return recorder


async def ask(server: ModelServer, target: str, body: bytes = b"", method: str = "POST", **headers: str) -> Recorder:
    recorder = give(server, Recorder(target, body, method, **headers))
    await until(lambda: recorder.replies)
    return recorder


def write(ml: Path, folder: str, **scripts: str) -> Path:
    """Code files of a container; its model folder."""
    model = ml / folder / "model"
    (model / "code").mkdir(parents=True, exist_ok=True)
    for name, text in scripts.items():
        (model / "code" / f"{name}.py").write_text(dedent(text))
    return model


@asynccontextmanager
async def hosting(ml: Path, containers: list[dict[str, Any]], **claim: Any) -> AsyncIterator[ModelServer]:
    """A server that is ready with these containers."""
    exits: list[int] = []
    server = ModelServer(ml, asyncio.get_running_loop(), Pools(), exits.append)
    body = json.dumps({"instance_id": "i-1", "containers": containers} | claim).encode()
    assert give(server, Recorder("/eyrie/claim", body)).status == 202
    await until(lambda: server.phase is Phase.READY or exits)
    assert exits == []
    yield server


@contextmanager
def unchanged() -> Iterator[None]:
    """What loading changes in a process, put back."""
    environ, variables = os.environ, dict(os.environ)
    path, finders, modules = list(sys.path), list(sys.meta_path), set(sys.modules)
    yield
    gc.unfreeze()
    os.environ = environ  # noqa: B003
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)
    sys.path[:], sys.meta_path[:] = path, finders
    for name in set(sys.modules) - modules:
        if name.startswith(("_container_", "_model_", "inference")):
            del sys.modules[name]
