"""LightGBM: boosters from text model files or pickles, answered in the forms of the XGBoost container's algorithm mode.

LightGBM has no container of its own that answers without a script, so a LightGBM score looks like an XGBoost score to a
client. Reached from `loader`; `predict` is on the path of every invocation of such a model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import stack
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, NPY, RECORDIO, Array, BadPayload, RowShape
from eyrie.modelserver.frameworks import files
from eyrie.modelserver.frameworks.gather import intra_op_threads
from eyrie.modelserver.frameworks.interface import Defaults, Framework, LoadError, Source
from eyrie.modelserver.frameworks.selection import default_accept, records, selected_keys

log = logging.getLogger("eyrie.modelserver")

START = b"tree\nversion="  # of a text model file, whatever its name
USUAL = ("model.txt", "lightgbm-model", "lightgbm-model.txt")
ONE_THREAD_ROWS_MAX = 64  # up to here one thread is quicker than waking others


def is_text_model(start: bytes) -> bool:
    """Whether a file that begins like this is a LightGBM text model."""
    return start.replace(b"\r\n", b"\n").startswith(START)


def read_booster(path: Path) -> Any:
    """The booster of a text model file. Raises LoadError."""
    import lightgbm

    _check_whole(path)
    try:
        return lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as error:
        raise LoadError(f"LightGBM {lightgbm.__version__} cannot read {path.name}: {error}") from error


def _check_whole(path: Path) -> None:
    """Raises LoadError where the file holds less than its head says: LightGBM ends the process over one."""
    text = path.read_bytes().replace(b"\r\n", b"\n")
    start = text.find(b"\nTree=") + 1
    head = text[:start] if start else text
    sizes = head.partition(b"\ntree_sizes=")[2].partition(b"\n")[0].split()
    if not all(size.isdigit() for size in sizes):
        raise LoadError(f"{path.name} is damaged: its tree_sizes are no numbers")
    for number, size in enumerate(map(int, sizes)):
        if not start or not text.startswith(b"Tree=%d\n" % number, start) or start + size > len(text):
            raise LoadError(f"{path.name} is cut short or damaged: tree {number} of {len(sizes)} is not whole")
        start += size


def booster_of(value: Any) -> Any | None:
    """The booster of an unpickled object: itself, or that of LGBMClassifier and its kin; None for anything else."""
    if not type(value).__module__.startswith("lightgbm"):
        return None
    if type(value).__name__ == "Booster":
        return value
    return getattr(value, "booster_", None)


class LightGBMModel:
    """One booster behind the RowModel interface."""

    empty_status = 204

    def __init__(self, booster: Any, env: Mapping[str, str], threads: int = 1) -> None:
        """`threads` is how many one large request may use. Raises LoadError for a setting that does not fit."""
        import lightgbm

        self._booster = booster
        self._native_error = lightgbm.basic.LightGBMError
        self._threads = threads
        self._keys = selected_keys(env)
        self._batch = env.get("SAGEMAKER_BATCH", "").lower() == "true"
        self._rounds = booster.best_iteration if booster.best_iteration > 0 else None
        self.offers = (CSV, JSON, JSONLINES, RECORDIO) if self._keys else (CSV, JSON, JSONLINES, NPY, RECORDIO)
        self.default_accept = default_accept(env, self.offers, CSV)
        if booster.pandas_categorical:
            log.warning(
                "this model was trained on categories of a data frame: send their codes, as pandas numbers them"
            )
        self.objective = str(booster.params.get("objective", "") or _objective(booster))
        self.shape = RowShape(width=int(booster.num_feature()), names=_names(booster))
        self.title = f"lightgbm {lightgbm.__version__}, {self.objective or 'booster'}, {self.shape.width} features"

    def predict(self, rows: Array) -> Array:
        """Scores of the rows, as `Booster.predict` gives them."""
        threads = 1 if len(rows) <= ONE_THREAD_ROWS_MAX else self._threads
        try:
            raw = np.asarray(self._booster.predict(rows, num_iteration=self._rounds, num_threads=threads))
        except (self._native_error, ValueError, TypeError) as error:
            raise BadPayload(f"Unable to evaluate payload provided: {error}") from error
        return records(self._keys, known(self.objective, raw), len(raw)) if self._keys else raw

    @property
    def booster(self) -> Any:
        """What it is made of: to compile it."""
        return self._booster

    def encode(self, values: Array, kind: str) -> bytes:
        """CSV, JSON or JSON lines as the XGBoost container writes them."""
        if self._keys:
            return codecs.encode_selected(values.tolist(), kind)
        return codecs.encode_scores(values, kind, self._batch)


def _names(booster: Any) -> tuple[str, ...]:
    """The columns' names where they are more than LightGBM's own numbering."""
    names = tuple(str(name) for name in booster.feature_name())
    return () if names == tuple(f"Column_{number}" for number in range(len(names))) else names


def _objective(booster: Any) -> str:
    """The objective of a booster that does not keep its parameters, as its text form has it."""
    for line in booster.model_to_string(num_iteration=1).splitlines()[:12]:
        name, _, value = line.partition("=")
        if name == "objective":
            return str(value.partition(" ")[0])
    return ""


def known(objective: str, raw: Array) -> dict[str, list[Any]]:
    """What an objective's scores tell, by key of SAGEMAKER_INFERENCE_OUTPUT."""
    count, scores = len(raw), raw.tolist()
    if raw.ndim == 2:
        best = raw.max(axis=1).tolist()
        return {
            "predicted_label": raw.argmax(axis=1).tolist(),
            "probability": best,
            "raw_score": best,
            "probabilities": scores,
            "raw_scores": scores,
            "labels": [list(range(raw.shape[1]))] * count,
        }
    if objective.startswith(("binary", "cross_entropy")):
        pairs = [[1.0 - score, score] for score in scores]
        return {
            "predicted_label": (raw > 0.5).astype(int).tolist(),
            "probability": scores,
            "raw_score": scores,
            "probabilities": pairs,
            "raw_scores": pairs,
            "labels": [[0, 1]] * count,
        }
    return {"predicted_score": scores, "raw_score": scores}


# ---------------------------------------------------------------------------------------------------- the table's entry
def find(source: Source) -> list[Path]:
    """Text model files, whatever their names; the one that is named as usual where there is one."""
    found = [path for path in files.visible(source.model_dir) if path.is_file() and _is_text_model(path)]
    return [path for path in found if path.name in USUAL][:1] or found


def _is_text_model(path: Path) -> bool:
    with path.open("rb") as file:
        return is_text_model(file.read(64))


def owns(value: Any, source: Source) -> bool:
    """A pickled booster; a pickled LGBMClassifier too, unless the image is scikit-learn's, which wants its labels."""
    if not type(value).__module__.startswith("lightgbm") or booster_of(value) is None:
        return False
    return type(value).__name__ == "Booster" or not source.image_says("sklearn", "scikit")


def serve(objects: Sequence[Any], source: Source) -> LightGBMModel:
    """One booster."""
    if len(objects) > 1:
        raise LoadError(f"there are several LightGBM models: name one {USUAL[0]}, or choose in code/inference.py")
    return LightGBMModel(booster_of(objects[0]), source.env, intra_op_threads(source.env))


def defaults(load: Callable[[str], Any]) -> Defaults:
    """Handlers for a script: rows as float64, and `model.predict` of them."""
    return Defaults(load, _decode, _predict)


def _decode(body: bytes, kind: str) -> Array:
    return stack([codecs.decode(body, kind, RowShape())], RowShape())


def _predict(value: Any, model: Any) -> Any:
    try:
        return model.predict(value)
    except ValueError as error:
        raise BadPayload(f"Unable to evaluate payload provided: {error}") from error


FRAMEWORK = Framework(
    name="lightgbm",
    library="lightgbm",
    images=("lightgbm",),
    wanted="a text model file of LightGBM (*.txt)",
    find=find,
    read=lambda path, source: read_booster(path),
    serve=serve,
    defaults=defaults,
    owns=owns,
)
