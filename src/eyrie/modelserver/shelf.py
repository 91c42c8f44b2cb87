"""The models of a multi-model container: loaded and unloaded while it serves, each answering for itself.

    POST /models {"model_name", "url"}    200 and {"room": whether one more like it fits}; 409, it is loaded already;
                                          507, no room; 4xx or 5xx, why it cannot be
    GET /models, GET /models/NAME, DELETE /models/NAME, POST /models/NAME/invoke, GET /models/NAME/metadata

A model is loaded in the loader's thread, one at a time, while all others serve. Before that, and after it when it was
larger than thought, room is made: the model that was used least recently goes, never one that has a request. All models
share the worker threads; user code gets a scope a model, so that each has an `inference.py` of its own.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

from eyrie.http1.server import Connection
from eyrie.http1.shapes import PATH, Varying
from eyrie.modelserver import memory
from eyrie.modelserver.frameworks.interface import LoadError, Source
from eyrie.modelserver.hosting import Loaded, load_beside, open_model
from eyrie.modelserver.loader import CONTAINER_ML
from eyrie.modelserver.memory import Heap
from eyrie.modelserver.metadata import describe
from eyrie.modelserver.replier import JSON_LINES, TEXT_LINES, Fields, Replier
from eyrie.modelserver.servable import Ground, RowServable, Servable
from eyrie.modelserver.threads import Workers

log = logging.getLogger("eyrie.modelserver")

LOADS_WAITING_MAX = 256
PAGE = 100
TOLD_BYTES_MAX = 65_536
MESSAGE_CHARS_MAX = 2_000
FILE_FACTOR = 2  # memory of a model for each byte of its files, where it cannot be measured
INVOKE, METADATA = b"/invoke", b"/metadata"
VARYING = {  # of the gateway's invocations
    PATH: Varying(rb"/models/[0-9a-f]{32}/invoke"),
    b"x-amzn-sagemaker-target-model": Varying(rb"[!-~]{1,512}"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=~-]{0,254}")


@dataclass(frozen=True, slots=True)
class Shelved:
    """A model that is loaded."""

    url: str
    loaded: Loaded
    servable: Servable
    bytes: int  # of memory, measured or estimated


@dataclass(slots=True)
class Counts:
    """What GET /eyrie/state tells; totals of this process."""

    hits: int = 0
    misses: int = 0
    loads: int = 0
    failures: int = 0
    evictions: int = 0
    no_room: int = 0
    load_ms_sum: float = 0.0
    load_ms_max: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What all models together may take."""

    bytes_max: int  # 0: no limit was said
    models_max: int
    body_bytes_max: int

    def leave_room(self, models: int, taken: int) -> bool:
        """Whether so many models that take so many bytes stay within them."""
        return models <= self.models_max and (self.bytes_max == 0 or taken <= self.bytes_max)


@dataclass(frozen=True, slots=True)
class _Brought:
    """What the loader's thread brings."""

    loaded: Loaded
    bytes: int
    ms: float


class Shelf:
    """All models of one process, by name. Lives on the event loop."""

    parallel = 1

    def __init__(
        self, base: Source, ground: Ground, loader: Workers, threads: int, limits: Limits, hostname: str
    ) -> None:
        """`base`: the container's own folder, environment and image; `loader`: a thread for loading, `threads`: as for
        `RowServable`.
        """
        self._base = base
        self._ground = ground
        self._loader = loader
        self._threads = threads
        self._limits = limits
        self._hostname = hostname
        self._heap = Heap()
        self._models: OrderedDict[bytes, Shelved] = OrderedDict()  # the least recently used first
        self._loading: dict[bytes, list[Connection]] = {}  # who asked for a model that is being loaded
        self._bytes = 0
        self._number = 0
        self.counts = Counts()

    # ----------------------------------------------------------------------------------------------------- requests
    def head(self, connection: Connection) -> None:
        """A request below /models."""
        if connection.shape is not None:  # an invocation, like one before
            connection.collect(self._limits.body_bytes_max)
            return
        path, _, query = connection.target.partition(b"?")
        method = connection.method
        name = path[len(b"/models/") :]
        if path == b"/models":
            if method == b"POST":
                connection.collect(TOLD_BYTES_MAX)
            elif method == b"GET":
                connection.reply(200, JSON_LINES, json.dumps(self._page(query)).encode())
            else:
                _wrong_method(connection, b"GET, POST")
        elif name.endswith(INVOKE):
            if method == b"POST":
                connection.collect(self._limits.body_bytes_max)
            else:
                _wrong_method(connection, b"POST")
        elif name.endswith(METADATA) and method == b"GET":
            self._tell_metadata(connection, unquote_to_bytes(name[: -len(METADATA)]))
        elif method == b"GET":
            self._tell(connection, unquote_to_bytes(name))
        elif method == b"DELETE":
            self._delete(connection, unquote_to_bytes(name))
        else:
            _wrong_method(connection, b"GET, DELETE")

    def body(self, connection: Connection, data: bytes) -> None:
        """The body of an invocation, or of a request to load."""
        target = connection.target.partition(b"?")[0]
        if not target.endswith(INVOKE):
            self._asked_to_load(connection, data)
            return
        name = target[len(b"/models/") : -len(INVOKE)]
        if b"%" in name:
            name = unquote_to_bytes(name)
        model = self._models.get(name)
        if model is None:
            self.counts.misses += 1
            connection.reply(404, TEXT_LINES, b"this model is not loaded")
            return
        self.counts.hits += 1
        self._models.move_to_end(name)
        model.servable.invoke(connection, data, _fields(connection, model.servable))

    def invoke(self, replier: Replier, body: bytes, fields: Fields) -> None:
        """POST /invocations, which names no model."""
        replier.reply(400, TEXT_LINES, b"this container has many models: POST /models/NAME/invoke")

    @property
    def busy(self) -> bool:
        """Whether a request is in any of them."""
        return any(model.servable.busy for model in self._models.values())

    def state(self) -> dict[str, Any]:
        """What GET /eyrie/state tells of it. A miss is an invocation of a model that is not loaded."""
        counts = self.counts
        return {
            "loaded": len(self._models),
            "loading": len(self._loading),
            "bytes": self._bytes,
            "bytes_max": self._limits.bytes_max,
            "hits": counts.hits,
            "misses": counts.misses,
            "loads": counts.loads,
            "failures": counts.failures,
            "evictions": counts.evictions,
            "no_room": counts.no_room,
            "load_ms_sum": round(counts.load_ms_sum, 3),
            "load_ms_max": round(counts.load_ms_max, 3),
        }

    # ------------------------------------------------------------------------------------------------------- the list
    def _page(self, query: bytes) -> dict[str, Any]:
        """GET /models: a page of them by name; the token is the last name of the page before."""
        after = parse_qs(query.decode("latin-1")).get("next_page_token", [""])[0].encode()
        names = sorted(name for name in self._models if name > after)
        page: dict[str, Any] = {"models": [self._entry(name) for name in names[:PAGE]]}
        if len(names) > PAGE:
            page["nextPageToken"] = names[PAGE - 1].decode()
        return page

    def _entry(self, name: bytes) -> dict[str, str]:
        return {"modelName": name.decode(), "modelUrl": self._models[name].url}

    def _tell(self, connection: Connection, name: bytes) -> None:
        if name in self._models:
            connection.reply(200, JSON_LINES, json.dumps(self._entry(name)).encode())
        else:
            connection.reply(404, TEXT_LINES, b"this model is not loaded")

    def _tell_metadata(self, connection: Connection, name: bytes) -> None:
        model = self._models.get(name)
        if model is None:
            connection.reply(404, TEXT_LINES, b"this model is not loaded")
        else:
            connection.reply(200, JSON_LINES, json.dumps(describe(self._hostname, model.loaded)).encode())

    def _delete(self, connection: Connection, name: bytes) -> None:
        if name not in self._models:
            connection.reply(404, TEXT_LINES, b"this model is not loaded")
            return
        self._drop(name)
        connection.reply(200, TEXT_LINES, b"")
        self._loader.run(self._heap.give_back, _nothing)

    # -------------------------------------------------------------------------------------------------------- loading
    def _asked_to_load(self, connection: Connection, data: bytes) -> None:
        try:
            name, url, folder = self._read(data)
        except ValueError as error:
            connection.reply(400, TEXT_LINES, str(error).encode())
            return
        if name in self._models:
            connection.reply(409, TEXT_LINES, b"this model is loaded already")
        elif name in self._loading:
            self._loading[name].append(connection)
        elif not folder.is_dir():
            connection.reply(404, TEXT_LINES, f"there is no folder {url}".encode())
        else:
            self._begin(connection, name, url, folder)

    def _read(self, data: bytes) -> tuple[bytes, str, Path]:
        """Name, URL and folder of a request to load. Raises ValueError."""
        try:
            told = json.loads(data)
        except ValueError:
            raise ValueError("the body is not JSON") from None
        name, url = (told.get(key) for key in ("model_name", "url")) if isinstance(told, dict) else (None, None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError("model_name is not 1 to 255 letters, digits and ._=~-")
        if not isinstance(url, str) or not url.startswith(CONTAINER_ML + "/") or ".." in url.split("/"):
            raise ValueError(f"url is not a path below {CONTAINER_ML}")
        folder = self._base.ml / url[len(CONTAINER_ML) :].strip("/")
        if folder.name != "model":
            raise ValueError("url does not end in /model")
        return name.encode(), url, folder

    def _begin(self, connection: Connection, name: bytes, url: str, folder: Path) -> None:
        if not self._make_room(memory.folder_bytes(folder), 1):
            self.counts.no_room += 1
            connection.reply(507, TEXT_LINES, b"there is no room for this model, and all others are in use")
            return
        self._number += 1
        package = f"_model_{self._number}"

        def work() -> _Brought:
            return self._bring(package, folder)

        def done(outcome: Any) -> None:
            self._brought(name, url, outcome)

        if self._loader.run(work, done):
            self._loading[name] = [connection]
        else:
            connection.reply(503, b"retry-after: 1\r\n" + TEXT_LINES, b"too many models are being loaded")

    def _bring(self, package: str, folder: Path) -> _Brought:
        """In the loader's thread."""
        began, modules, used = time.perf_counter(), set(sys.modules), self._heap.used_bytes()
        loaded = load_beside(package, Source(folder.parent, self._base.env, self._base.image))
        files = memory.folder_bytes(folder)
        cost = self._heap.used_bytes() - used
        others = sys.modules.keys() - modules
        if any(
            not name.startswith(package) for name in others
        ):  # a library came along, which is not this model's alone
            cost = FILE_FACTOR * files
        return _Brought(loaded, max(cost, files), (time.perf_counter() - began) * 1000)

    def _brought(self, name: bytes, url: str, outcome: Any) -> None:
        waiting = self._loading.pop(name)
        if isinstance(outcome, BaseException):
            self.counts.failures += 1
            _tell_all(waiting, *_failure(name, outcome))
            return
        self._count_load(outcome.ms)
        servable = open_model(outcome.loaded, self._ground, self._threads)
        self._models[name] = Shelved(url, outcome.loaded, servable, outcome.bytes)
        self._bytes += outcome.bytes
        if not self._make_room(0, 0, spared=name):
            self._drop(name)
            self.counts.no_room += 1
            _tell_all(waiting, 507, b"this model is larger than the room that there is, and all others are in use")
            return
        log.info("loaded model %s: %s, %d bytes, %.1f ms", name.decode(), _title(outcome), outcome.bytes, outcome.ms)
        room = json.dumps({"room": self._limits.leave_room(len(self._models) + 1, self._bytes + outcome.bytes)})
        waiting[0].reply(200, JSON_LINES, room.encode())
        _tell_all(waiting[1:], 409, b"this model is loaded already")

    def _count_load(self, ms: float) -> None:
        self.counts.loads += 1
        self.counts.load_ms_sum += ms
        self.counts.load_ms_max = max(self.counts.load_ms_max, ms)

    # ----------------------------------------------------------------------------------------------------------- room
    def _make_room(self, wanted_bytes: int, wanted_models: int, spared: bytes = b"") -> bool:
        """Unload what was used least recently until this much more fits; False where nothing more may go."""
        limits = self._limits
        if 0 < limits.bytes_max < wanted_bytes or (spared and 0 < limits.bytes_max < self._models[spared].bytes):
            return False  # not even alone
        coming = len(self._loading) + wanted_models
        dropped = False
        while len(self._models) + coming > limits.models_max or 0 < limits.bytes_max < self._bytes + wanted_bytes:
            idle = next((n for n, model in self._models.items() if n != spared and not model.servable.busy), None)
            if idle is None:
                return False
            log.info("unloading model %s to make room", idle.decode())
            self._drop(idle)
            self.counts.evictions += 1
            dropped = True
        if dropped:
            self._loader.run(self._heap.give_back, _nothing)
        return True

    def _drop(self, name: bytes) -> None:
        model = self._models.pop(name)
        self._bytes -= model.bytes
        if model.loaded.scope is not None:
            model.loaded.scope.close()


def limits(env: Mapping[str, str], memory_mb: int, workers: int, body_bytes_max: int) -> Limits:
    """What an instance's memory and a container's environment allow."""
    bytes_max = memory.budget_bytes(env, memory_mb, workers, memory.resident_bytes())
    models_max = memory.number_of(env, memory.MODELS_MAX, memory.MODELS_MAX_DEFAULT)
    return Limits(bytes_max, models_max, body_bytes_max)


def _title(brought: _Brought) -> str:
    return brought.loaded.model.title


def _failure(name: bytes, error: BaseException) -> tuple[int, bytes]:
    """Status and message of a model that cannot be loaded; what is not its owner's plain line is logged whole."""
    if isinstance(error, LoadError):
        log.error("model %s could not be loaded: %s", name.decode(), " ".join(str(error).split()))
        return 400, str(error)[:MESSAGE_CHARS_MAX].encode("utf-8", "backslashreplace")
    trace = "".join(traceback.format_exception(error)).rstrip()
    log.error("model %s could not be loaded\n%s", name.decode(), trace)
    return 500, f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX].encode("utf-8", "backslashreplace")


def _fields(connection: Connection, servable: Servable) -> Fields:
    """The headers of an invocation. The gateway's differ in path, TargetModel and length, which rows have no use for: a
    head of theirs is recognised by its shape, and its fields are made once.
    """
    shape = connection.shape
    if shape is None:
        shape = connection.remember()
        if shape is not None and shape.derived is None:
            shape.derived = {name: value for name, value in connection.fields.items() if name not in shape.groups}
        return connection.fields
    known: Fields = shape.derived
    return known if isinstance(servable, RowServable) else connection.fields


def _tell_all(waiting: list[Connection], status: int, message: bytes) -> None:
    for connection in waiting:
        connection.reply(status, TEXT_LINES, message)


def _wrong_method(connection: Connection, allowed: bytes) -> None:
    connection.reply(405, b"allow: " + allowed + b"\r\n" + TEXT_LINES, b"wrong method for this path")


def _nothing(outcome: Any) -> None:
    """For work of which nothing comes back."""
