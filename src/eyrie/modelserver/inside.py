"""A model package in the process that asks: for Spark's executors and Ray's workers, where there is no server.

It answers a body as the model server would: the same readers, the same calls, the same writers. Packages are unpacked
model archives (`model.tar.gz`), one model each, of a framework or of user code.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from eyrie.modelserver import environment, loader
from eyrie.modelserver.batcher import Outcome, predict_each
from eyrie.modelserver.codecs import Refused, Rows, decode, guess_type, negotiate
from eyrie.modelserver.frameworks.interface import CallModel, Invocation, RowModel, Source
from eyrie.modelserver.replier import refusal_of

OK = 200


class InsideModel:
    """A loaded model. One a process; calls from one thread at a time."""

    def __init__(self, ml: Path, env: Mapping[str, str] | None = None, image: str = "") -> None:
        """`ml` has the package in `ml/model`. Raises LoadError, or what a framework or user code raises."""
        source = Source(ml, {**os.environ, **(env or {})}, image)
        os.environ.update(env or {})
        environment.extend_path(loader.code_paths(source, loader.script_path(source)))
        self._model = loader.load(source)
        self.title = self._model.title

    def answer(self, body: bytes, content_type: str, accept: str = "") -> tuple[int, bytes]:
        """HTTP's status and the body that the model server would have answered."""
        (found,) = self.answers([body], content_type, accept)
        return found

    def answers(self, bodies: Sequence[bytes], content_type: str, accept: str = "") -> list[tuple[int, bytes]]:
        """The answer to each of several requests; a model of rows predicts them together."""
        model = self._model
        if not isinstance(model, RowModel):
            return [_called(model, body, content_type, accept) for body in bodies]
        try:
            kind = negotiate(accept, model.offers, model.default_accept)
        except Refused as refused:
            return [refusal_of(refused)] * len(bodies)
        read = [_read(model, body, content_type) for body in bodies]
        good = [rows for rows in read if not isinstance(rows, Exception)]
        outcomes = iter(predict_each(model.predict, model.shape, good) if good else ())
        return [_written(model, next(outcomes) if not isinstance(one, Exception) else one, kind) for one in read]


def _called(model: CallModel, body: bytes, content_type: str, accept: str) -> tuple[int, bytes]:
    try:
        answer = model.call(Invocation(body, content_type, accept, {"content-type": content_type, "accept": accept}))
        return answer.status, answer.body if answer.pieces is None else b"".join(map(_bytes, answer.pieces))
    except Exception as error:  # the boundary to foreign code: whatever a model raises is the answer
        return refusal_of(error)


def _read(model: RowModel, body: bytes, content_type: str) -> Rows | Exception:
    try:
        return decode(body, content_type or guess_type(body), model.shape)
    except Refused as refused:
        return refused


def _written(model: RowModel, outcome: Outcome, kind: str) -> tuple[int, bytes]:
    if isinstance(outcome, Exception):
        return refusal_of(outcome)
    try:
        return OK, model.encode(outcome, kind)
    except Exception as error:  # the boundary to foreign code: what cannot be written is its request's error
        return refusal_of(error)


def _bytes(piece: bytes | str) -> bytes:
    return piece if isinstance(piece, bytes) else piece.encode()


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack `model.tar.gz` into `folder/model`, whose parent is what `InsideModel` takes; the folder.

    For archives that one trusts as one's own code. Raises tarfile.TarError, OSError.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "model", filter="data")
    return folder
