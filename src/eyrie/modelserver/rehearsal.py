"""What a first model costs that a second one does not: modules that are imported late, code that was never run, pages
that were never touched. A slot pays that before it waits, with a model of a few numbers that nobody sees.

Used by `slot` after its imports, and by nothing else. It leaves no thread and no file behind: an instance of several
workers is forked from what has rehearsed.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eyrie.modelserver import codecs, loader
from eyrie.modelserver.batcher import stack
from eyrie.modelserver.frameworks.interface import RowModel, Source
from eyrie.modelserver.measure import pace

log = logging.getLogger("eyrie.modelserver")

COLUMNS = 4
ROW = b"1,0,0.5,-2"


def rehearse(libraries: Sequence[str], again: bool = False) -> None:
    """Load a small model of each of these libraries that is imported, and let it predict. What fails is only noted;
    `again`, after a fork, nothing is.
    """
    for library in libraries:
        make = SPECIMENS.get(library)
        if make is None or library not in sys.modules:
            continue
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a model that learnt from four rows
                _serve(library, make(Path(folder)))
        except Exception as error:  # the boundary to foreign code: a first model will be slower, nothing else
            if not again:
                log.info("%s was not rehearsed: %s: %s", library, type(error).__name__, error)
            continue
        if not again:
            log.info("rehearsed %s in %d ms", library, int((time.monotonic() - began) * 1000))


def _serve(library: str, path: Path) -> None:
    """From a model's file to an answer, as an instance goes."""
    framework = next(known for known in loader.frameworks() if known.library == library)
    source = Source(path.parent.parent, {}, f"eyrie/{framework.name}")
    model = framework.serve([framework.read(found, source) for found in framework.find(source)], source)
    assert isinstance(model, RowModel)
    pace(model.predict, model.shape, time.perf_counter)
    scores = model.predict(stack([codecs.decode(ROW, codecs.CSV, model.shape)], model.shape))
    for kind in model.offers:
        model.encode(scores, kind)


def _xgboost(folder: Path) -> Path:
    """A booster of one tree."""
    import numpy as np
    import xgboost

    rows = np.eye(COLUMNS, dtype="float32")
    settings = {"objective": "binary:logistic", "max_depth": 1, "nthread": 1}
    booster = xgboost.train(settings, xgboost.DMatrix(rows, rows[:, 0], nthread=1), 1)
    path = _model(folder, "xgboost-model.json")
    booster.save_model(path)
    return path


def _sklearn(folder: Path) -> Path:
    """A classifier behind a scaler."""
    import joblib
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.eye(COLUMNS)
    path = _model(folder, "model.joblib")
    joblib.dump(make_pipeline(StandardScaler(), LogisticRegression(max_iter=5)).fit(rows, rows[:, 0] > 0), path)
    return path


def _model(folder: Path, name: str) -> Path:
    (folder / "model").mkdir()
    return folder / "model" / name


SPECIMENS: Mapping[str, Callable[[Path], Any]] = {"xgboost": _xgboost, "sklearn": _sklearn}
