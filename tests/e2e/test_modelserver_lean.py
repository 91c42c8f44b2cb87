"""Frameworks imported without their companions, each in a Python of its own: what is left out, that it can be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("xgboost")

TRAIN = """
import pickle, sys
import numpy as np, xgboost
rows = np.random.default_rng(3).normal(size=(40, 3))
model = xgboost.XGBClassifier(n_estimators=3).fit(rows, rows[:, 0] > 0)
model.get_booster().save_model(sys.argv[1] + "/a.json")
pickle.dump(model, open(sys.argv[1] + "/b.pkl", "wb"))
"""
LEAN = """
import sys
from eyrie.modelserver import lean
lean.import_lean("xgboost")
assert not {name.partition(".")[0] for name in sys.modules} & {"sklearn", "pandas"}
assert "numpy.f2py" not in sys.modules and lean.is_lean("xgboost")
"""


def run(code: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    run(TRAIN, str(made))
    return made


def test_a_model_file_needs_no_companion_and_a_pickle_gets_them(folder: Path) -> None:
    run(
        LEAN
        + """
import os, pathlib, shutil
import numpy as np
from eyrie.modelserver import loader
from eyrie.modelserver.frameworks.interface import Source
folder, rows = pathlib.Path(sys.argv[1]), np.zeros((2, 3), dtype="float32")
def load(*names):
    ml = folder / f"of-{len(names)}"
    (ml / "model").mkdir(parents=True)
    for name in names:
        shutil.copy(folder / name, ml / "model")
    return loader.load(Source(ml, {}, "eyrie/xgboost"))
alone = load("a.json")
before = alone.predict(rows)
assert lean.is_lean("xgboost") and "sklearn" not in sys.modules
pair = load("a.json", "b.pkl")  # an ensemble of a model file and a pickle
assert np.allclose(pair.predict(rows), before)
assert not lean.is_lean("xgboost") and "sklearn" in sys.modules
assert np.array_equal(alone.predict(rows), before), "what was loaded lives on"
""",
        str(folder),
    )


def test_after_forgetting_everything_is_there() -> None:
    run(
        LEAN
        + """
lean.forget()
import xgboost, numpy
assert xgboost.XGBClassifier().get_params() and xgboost.plot_importance
assert numpy.testing.assert_allclose and numpy.f2py.get_include
"""
    )


def test_a_companion_that_is_there_is_not_hidden() -> None:
    run(
        """
import sys
from eyrie.modelserver import lean
lean.import_lean("sklearn")
assert lean.import_lean("xgboost").XGBClassifier().get_params()
assert not lean.is_lean("xgboost")
lean.forget()
assert "xgboost" in sys.modules
"""
    )


def test_what_is_not_installed_is_told() -> None:
    run(
        """
from eyrie.modelserver import lean
try:
    lean.import_lean("no_such_framework")
except ModuleNotFoundError as error:
    assert error.name == "no_such_framework"
else:
    raise AssertionError
lean.forget()
"""
    )
