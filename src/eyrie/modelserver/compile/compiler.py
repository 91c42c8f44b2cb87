"""Compiles a served model: converts it, compares, measures, and says which of the two is to be served and why.

Runs where the model's own libraries are: in the sandbox of a compilation job, or beside a model server that was asked
to compile at load. Nothing here raises for a model that cannot be compiled: that is an outcome, with its reason.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver.batcher import predict_each
from eyrie.modelserver.codecs import RowShape
from eyrie.modelserver.compile import manifest as manifests
from eyrie.modelserver.compile import probing, timing
from eyrie.modelserver.compile.compare import TOLERANCE, Agreement, Answers, compare
from eyrie.modelserver.compile.errors import CannotConvert
from eyrie.modelserver.compile.manifest import Manifest
from eyrie.modelserver.compile.rows import Group, generate, supplied
from eyrie.modelserver.compile.serving import CompiledModel, session
from eyrie.modelserver.compile.subject import Graph, Subject, subject_of
from eyrie.modelserver.frameworks.interface import LoadError, RowModel

log = logging.getLogger("eyrie.compile")

COMPILED, ORIGINAL = "compiled", "original"
LIBRARIES = ("numpy", "scikit-learn", "xgboost-cpu", "xgboost", "lightgbm", "onnx", "onnxruntime", "skl2onnx")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of it. Where `graph` is empty the model could not be compiled, and `reason` says why."""

    decision: str  # "compiled" or "original"
    reason: str  # one line
    original: str  # the original's title
    agreement: Agreement | None = None
    timings: Sequence[timing.Timing] = ()
    tried: Sequence[str] = ()  # ways that were tried before the one that was taken, and what was wrong with them
    way: str = ""
    graph: bytes = b""
    manifest: Manifest | None = None
    seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        """As `compiled/report.json` has it."""
        agreement = self.agreement or Agreement()
        return {
            "decision": self.decision,
            "reason": self.reason,
            "original": self.original,
            "way": self.way,
            "tried": list(self.tried),
            "rows": agreement.rows,
            "rows_compared": sum(agreement.rows.values()),
            "refused_alike": agreement.refused_alike,
            "labels_different": agreement.labels_different,
            "largest_difference": agreement.largest_difference,
            "tolerance": TOLERANCE,
            "timings": [
                {
                    "rows": t.rows,
                    "original_us": round(t.original_us, 2),
                    "compiled_us": round(t.compiled_us, 2),
                    "gain": round(t.gain, 2),
                }
                for t in self.timings
            ],
            "gain": round(timing.overall(self.timings), 2) if self.timings else None,
            "versions": versions(),
            "host": {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()},
            "seconds": round(self.seconds, 2),
        }

    def write(self, folder: Path) -> None:
        """`compiled/` in a folder: the graph and its manifest where there are any, and the report."""
        target = folder / manifests.FOLDER
        target.mkdir(parents=True, exist_ok=True)
        if self.manifest is not None:
            (target / manifests.GRAPH).write_bytes(self.graph)
            (target / manifests.MANIFEST).write_text(self.manifest.written())
        (target / manifests.REPORT).write_text(json.dumps(self.report(), indent=1, default=str) + "\n")


def compile_model(model: RowModel, folder: Path, made_for: str = "") -> Compiled:
    """Compile a model that was loaded from `folder`, where its owner's rows are looked for too."""
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = _compile(model, folder, made_for)
    except CannotConvert as error:
        made = Compiled(ORIGINAL, f"it cannot be converted: {error}", model.title)
    return replace(made, seconds=time.monotonic() - began)


def _compile(model: RowModel, folder: Path, made_for: str) -> Compiled:
    subject = subject_of(model)
    groups = [*generate(subject.columns, subject.boundaries, model.shape.dtype), *supplied(folder, model.shape)]
    usual = _usual(model, groups[0])
    limits = Manifest(
        family=subject.family,
        title=model.title,
        shape=model.shape,
        output="",
        dtype=model.predict(usual).dtype.str,
        ndim=model.predict(usual).ndim,
        classes=subject.classes,
        objective=subject.objective,
        num_class=subject.num_class,
        refusals=probing.refusals(model, subject.columns, usual),
        known=probing.known_categories(model, subject.columns, usual),
        made_for=made_for,
        versions=versions(),
    )
    tried: list[str] = []
    last: Compiled | None = None
    for way, make in subject.ways:
        try:
            graph = make()
            manifest = _manifest(limits, graph)
            compiled = CompiledModel(manifest, session(graph.onnx), {})
            agreement = compare(_answers(model, subject), _answers(compiled, None), groups)
        except (CannotConvert, LoadError) as error:
            tried.append(f"{way}: {error}")
            continue
        if agreement.agrees:
            agreed = Compiled(COMPILED, "", model.title, agreement, (), tried, way, graph.onnx, manifest)
            return _faster(model, compiled, groups[0], agreed)
        tried.append(f"{way}: {agreement.difference}")
        last = Compiled(ORIGINAL, f"it disagrees: {agreement.difference}", model.title, agreement, (), tried, way)
    if last is not None:
        return last
    raise CannotConvert("; ".join(tried))


def _faster(model: RowModel, compiled: CompiledModel, ordinary: Group, agreed: Compiled) -> Compiled:
    """Measure both, and keep the faster."""
    rows = _taken(model, ordinary)
    both = timing.Called(model.predict, rows), timing.Called(compiled.predict, _cast(rows, compiled.shape))
    timings = timing.measure(*both, time.perf_counter)
    gain = timing.overall(timings)
    each = ", ".join(f"{t.rows}: {t.original_us:.0f} to {t.compiled_us:.0f}" for t in timings)
    decision = COMPILED if gain > 1.0 else ORIGINAL
    words = f"it agrees and is {gain:.1f} times as fast" if gain > 1.0 else f"it agrees, but is no faster ({gain:.2f})"
    assert agreed.manifest is not None
    return replace(
        agreed,
        decision=decision,
        reason=f"{words}; microseconds by rows: {each}",
        timings=timings,
        manifest=replace(agreed.manifest, decision=decision),
    )


def _manifest(limits: Manifest, graph: Graph) -> Manifest:
    shape = limits.shape
    return replace(
        limits,
        shape=RowShape(shape.width, shape.names, shape.absent, shape.strings, graph.dtype),
        output=graph.output,
        probabilities=graph.probabilities,
        columns=graph.columns,
        digest=hashlib.sha256(graph.onnx).hexdigest(),
    )


def _answers(model: RowModel, subject: Subject | None) -> Answers:
    """A model for the comparison, which hands both the same rows; `subject` of the original, None for its graph."""
    shape = model.shape
    chances = model.probabilities if isinstance(model, CompiledModel) else subject.chances if subject else None
    return Answers(
        lambda rows: model.predict(_cast(rows, shape)),
        (lambda rows: chances(_cast(rows, shape))) if chances is not None else lambda rows: None,
        shape,
    )


def _cast(rows: Any, shape: RowShape) -> Any:
    """Rows as the server would stack them for a model."""
    with np.errstate(over="ignore"):
        return rows if rows.dtype == object else np.ascontiguousarray(rows, dtype=shape.dtype)


def _usual(model: RowModel, ordinary: Group) -> Any:
    """A row that the model takes. Raises CannotConvert where it takes none of those that were made up."""
    return _taken(model, ordinary)[:1]


def _taken(model: RowModel, group: Group) -> Any:
    """The rows of a group that the model does not refuse. Raises CannotConvert where there are none."""
    rows = group.rows[:100]
    outcomes = predict_each(model.predict, model.shape, [rows[i : i + 1] for i in range(len(rows))])
    taken = np.array([not isinstance(outcome, Exception) for outcome in outcomes])
    if not taken.any():
        raise CannotConvert(f"it refuses every row that was made up for it: {outcomes[0]}")
    return rows[taken]


def versions() -> dict[str, str]:
    """Of the libraries that take part, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
