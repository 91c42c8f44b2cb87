"""A compilation job's own work: load the model of an archive, compile it, and put an archive together that serves the
result: the original's files, and `compiled/` beside them.

Whatever is wrong with the model or the request is a ClientError with one plain line.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyrie.modelserver import loader
from eyrie.modelserver.compile import manifest as manifests
from eyrie.modelserver.compile.compiler import Compiled, compile_model
from eyrie.modelserver.compile.errors import ClientError
from eyrie.modelserver.compile.manifest import Manifest
from eyrie.modelserver.frameworks.interface import LoadError, RowModel, Source

log = logging.getLogger("eyrie.compile")

OUTPUT = "output.tar.gz"
FAMILIES = {"XGBOOST": ("xgboost",), "SKLEARN": ("sklearn", "lightgbm")}  # Neo has no word for LightGBM


@dataclass(frozen=True, slots=True)
class Made:
    """What a job made."""

    report: Mapping[str, Any]
    size: int  # of the archive, in bytes


def run(ml: Path, box: Path, given: Mapping[str, Any]) -> Made:
    """Do a job: `given` has `framework`, `shapes` and `target`. Raises ClientError."""
    model = _load(ml)
    _check_shapes(given.get("shapes") or {}, model)
    work = box / "work"
    work.mkdir(exist_ok=True)
    compiled = compile_model(model, ml / "model", str(given["target"]))
    log.info("%s: %s", compiled.decision, compiled.reason)
    if compiled.manifest is None:
        raise ClientError(f"The model was not compiled: {compiled.reason}. It serves as it is.")
    _check_framework(str(given["framework"]), compiled.manifest)
    compiled.write(work)
    return Made(compiled.report(), _pack(ml / "model", work, box / OUTPUT, compiled))


def _load(ml: Path) -> RowModel:
    source = Source(ml, {})
    try:
        script = loader.script_path(source)
        model = None if script is not None else loader.load_files(source)
    except LoadError as error:
        raise ClientError(f"the model could not be loaded: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # the boundary to foreign code: whatever unpickling or a library raises
        raise ClientError(f"the model could not be loaded: {type(error).__name__}: {error}") from error
    if model is None:
        raise ClientError("the archive has code/inference.py: what user code does cannot be compiled")
    if not isinstance(model, RowModel):
        raise ClientError(f"{model.title}: only models of rows are compiled")
    return model


def _check_shapes(shapes: Mapping[str, Any], model: RowModel) -> None:
    """What DataInputConfig says must fit: one input of rows as wide as the model."""
    for name, shape in shapes.items():
        width = shape[-1] if shape else None
        if len(shapes) > 1 or len(shape) != 2 or (model.shape.width is not None and width != model.shape.width):
            raise ClientError(
                f"InputConfiguration: DataInputConfig gives {name!r} the shape {shape}; this model takes rows of "
                f"{model.shape.width} values: [1, {model.shape.width}]"
            )


def _check_framework(framework: str, manifest: Manifest) -> None:
    if manifest.family not in FAMILIES.get(framework, ()):
        raise ClientError(f"InputConfiguration: Framework is {framework}, and the archive holds {manifest.title}")


def _pack(model: Path, work: Path, target: Path, compiled: Compiled) -> int:
    """The archive: files of the original, without an earlier `compiled/`, then what was made. Its size in bytes."""

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name.partition("/")[0] == manifests.FOLDER:
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        for path in sorted(model.iterdir()):
            archive.add(path, path.name, filter=kept)
        archive.add(work / manifests.FOLDER, manifests.FOLDER)
    log.info("%s: %d bytes", target.name, target.stat().st_size)
    return target.stat().st_size
