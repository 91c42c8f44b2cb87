"""A model package in the process that asks: for Spark's executors and Ray's workers, where there is no server.

It answers a body as the model server would: the same readers, the same calls, the same writers. Packages are unpacked
model archives (`model.tar.gz`), one model each, of a framework or of user code.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from eyrie.modelserver import environment, loader
from eyrie.modelserver.batcher import predict_each
from eyrie.modelserver.codecs import decode, guess_type, negotiate
from eyrie.modelserver.frameworks.interface import Invocation, RowModel, Source
from eyrie.modelserver.replier import status_of

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
        model = self._model
        try:
            if not isinstance(model, RowModel):
                headers = {"content-type": content_type, "accept": accept}
                answer = model.call(Invocation(body, content_type, accept, headers))
                return answer.status, answer.body if answer.pieces is None else b"".join(map(_bytes, answer.pieces))
            kind = negotiate(accept, model.offers, model.default_accept)
            (outcome,) = predict_each(
                model.predict, model.shape, [decode(body, content_type or guess_type(body), model.shape)]
            )
            if isinstance(outcome, Exception):
                raise outcome
            return OK, model.encode(outcome, kind)
        except Exception as error:  # the boundary to foreign code: whatever a model raises is the answer
            return status_of(error), (str(error) or type(error).__name__).encode()


def _bytes(piece: bytes | str) -> bytes:
    return piece if isinstance(piece, bytes) else piece.encode()


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack `model.tar.gz` into `folder/model`, whose parent is what `InsideModel` takes; the folder.

    For archives that one trusts as one's own code. Raises tarfile.TarError, OSError.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "model", filter="data")
    return folder
