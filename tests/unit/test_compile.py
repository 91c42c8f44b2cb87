"""Compilation of models: graphs that answer like the original, a comparison that notices when they do not, and the
choice of the faster.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from eyrie.modelserver.batcher import stack
from eyrie.modelserver.codecs import BadPayload, RowShape, decode
from eyrie.modelserver.compile import manifest as manifests
from eyrie.modelserver.compile import serving, subject, timing
from eyrie.modelserver.compile.compare import Answers, compare
from eyrie.modelserver.compile.compiler import COMPILED, ORIGINAL, Compiled, compile_model
from eyrie.modelserver.compile.rows import UNKNOWN, Group
from eyrie.modelserver.frameworks.interface import LoadError, RowModel
from eyrie.modelserver.frameworks.lightgbm import LightGBMModel
from eyrie.modelserver.frameworks.sklearn import SklearnModel
from eyrie.modelserver.frameworks.xgboost import XGBoostModel

CHANCE = np.random.default_rng(7)
ROWS = CHANCE.normal(50.0, 20.0, size=(240, 5))
CLASSES = (ROWS[:, 0] > 50).astype(int) + (ROWS[:, 1] > 60)
NAMES = np.array(["low", "mid", "high"])[CLASSES]
NUMBERS = ROWS @ np.array([3.0, -1.0, 0.5, 0.0, 2.0])


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is faster has its own tests; elsewhere one round does."""
    monkeypatch.setattr(timing, "ROUNDS", 1)
    monkeypatch.setattr(timing, "ROUND_S", 0.0)


def pipeline(final: Any) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), final)


def trees() -> Any:
    return RandomForestClassifier(12, max_depth=5, random_state=0)


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: pipeline(LogisticRegression()).fit(ROWS, NAMES),
    "forest": lambda: pipeline(trees()).fit(ROWS, CLASSES),
    "boosted": lambda: GradientBoostingRegressor(n_estimators=10, random_state=0).fit(ROWS, NUMBERS),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=5).fit(ROWS, CLASSES),
    "ridge": lambda: Ridge().fit(ROWS, NUMBERS),
    "voting": lambda: VotingClassifier([("a", LogisticRegression(max_iter=2000)), ("b", trees())], voting="soft").fit(
        ROWS, NAMES
    ),
    "xgboost": lambda: pipeline(xgboost.XGBClassifier(n_estimators=8)).fit(ROWS, CLASSES),
    "lightgbm": lambda: pipeline(lightgbm.LGBMClassifier(n_estimators=8, verbosity=-1)).fit(ROWS, CLASSES),
}


def booster(objective: str, **more: Any) -> XGBoostModel:
    labels = CLASSES if "num_class" in more else (CLASSES > 0).astype(int)
    matrix = xgboost.DMatrix(ROWS.astype(np.float32), labels)
    return XGBoostModel([xgboost.train({"objective": objective, "seed": 1, **more}, matrix, 12)], {})


def light(objective: str, **more: Any) -> LightGBMModel:
    labels = CLASSES if more else (CLASSES > 0).astype(int)
    given = {"objective": objective, "verbosity": -1, "min_data_in_leaf": 5, **more}
    return LightGBMModel(lightgbm.train(given, lightgbm.Dataset(ROWS, labels), 12), {})


def compiled_of(model: RowModel, folder: Path, env: dict[str, str] | None = None) -> tuple[Compiled, RowModel]:
    """Compile, write, and load what was written."""
    made = compile_model(model, folder)
    assert made.agreement is not None, made.reason
    assert made.agreement.agrees, made.reason
    made.write(folder)
    return made, serving.load(folder, env or {})


def answer(model: RowModel, body: bytes, kind: str, accept: str) -> bytes:
    rows = stack([decode(body, kind, model.shape)], model.shape)
    return model.encode(model.predict(rows), accept)


# ----------------------------------------------------------------------------------------------------- the same answers
@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_a_compiled_estimator_answers_in_the_original_s_form(name: str, tmp_path: Path) -> None:
    original = SklearnModel(ESTIMATORS[name](), {})
    made, compiled = compiled_of(original, tmp_path)
    one, other = original.predict(ROWS), compiled.predict(np.asarray(ROWS, dtype=compiled.shape.dtype))
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    if one.dtype.kind == "f":
        np.testing.assert_allclose(one, other, rtol=1e-5)
    else:
        assert one.tolist() == other.tolist()
        body = b"\n".join(b",".join(b"%r" % value for value in row) for row in ROWS[:3].tolist())
        for accept in original.offers:
            assert answer(original, body, "text/csv", accept) == answer(compiled, body, "text/csv", accept)
    assert (original.offers, original.default_accept) == (compiled.offers, compiled.default_accept)
    assert made.agreement is not None
    assert sum(made.agreement.rows.values()) >= 1400


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: booster("binary:logistic"), id="xgboost binary"),
        pytest.param(lambda: booster("multi:softprob", num_class=3), id="xgboost softprob"),
        pytest.param(lambda: booster("multi:softmax", num_class=3), id="xgboost softmax"),
        pytest.param(lambda: booster("reg:squarederror"), id="xgboost regression"),
        pytest.param(lambda: booster("count:poisson"), id="xgboost poisson"),
        pytest.param(lambda: booster("binary:hinge"), id="xgboost hinge"),
        pytest.param(lambda: booster("binary:logistic", booster="dart", rate_drop=0.5), id="dart"),
        pytest.param(lambda: light("binary"), id="lightgbm binary"),
        pytest.param(lambda: light("multiclass", num_class=3), id="lightgbm multiclass"),
        pytest.param(lambda: light("regression"), id="lightgbm regression"),
    ],
)
def test_boosters_agree_on_every_threshold(model: Any, tmp_path: Path) -> None:
    original = model()
    made, compiled = compiled_of(original, tmp_path)
    assert made.agreement is not None
    assert made.agreement.rows["on thresholds"] > 0
    rows = np.asarray(ROWS, dtype=original.shape.dtype)
    one, other = original.predict(rows), compiled.predict(rows)
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_chosen_outputs_are_the_original_s(tmp_path: Path) -> None:
    env = {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probabilities,labels"}
    body = b"1,2,3,4,5\n60,60,60,60,60"
    estimator = ESTIMATORS["forest"]()
    compiled = compiled_of(SklearnModel(estimator, {}), tmp_path, env)[1]
    one = json.loads(answer(SklearnModel(estimator, env), body, "text/csv", "application/json"))
    other = json.loads(answer(compiled, body, "text/csv", "application/json"))
    for theirs, ours in zip(one["predictions"], other["predictions"], strict=True):
        assert list(theirs) == list(ours)
        assert theirs.pop("probabilities") == pytest.approx(ours.pop("probabilities"), abs=1e-5)
        assert theirs == ours
    scores = booster("multi:softprob", num_class=3)
    also = compiled_of(scores, tmp_path, env)[1]
    found = json.loads(answer(also, body, "text/csv", "application/json"))["predictions"]
    assert [sorted(record) for record in found] == [["labels", "predicted_label", "probabilities"]] * 2


def test_a_pipeline_with_text_columns_takes_and_refuses_the_same_categories(tmp_path: Path) -> None:
    rows = np.empty((120, 3), dtype=object)
    rows[:, 0] = CHANCE.choice(["red", "green"], 120)
    rows[:, 1] = CHANCE.normal(size=120)
    rows[:, 2] = CHANCE.choice(["s", "m", "l"], 120)
    labels = np.where(rows[:, 0] == "red", "yes", "no")
    columns = [("text", OneHotEncoder(), [0, 2]), ("number", StandardScaler(), [1])]
    original = SklearnModel(make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(rows, labels), {})
    compiled = compiled_of(original, tmp_path)[1]
    assert compiled.predict(rows).tolist() == original.predict(rows).tolist()
    strange = np.array([["blue", 0.5, "s"]], dtype=object)
    for model in (original, compiled):
        with pytest.raises(BadPayload, match="unknown categories"):
            model.predict(strange)


def test_a_compiled_model_refuses_what_the_original_refuses(tmp_path: Path) -> None:
    original = SklearnModel(LogisticRegression(max_iter=2000).fit(ROWS, CLASSES), {})
    compiled = compiled_of(original, tmp_path)[1]
    for value in (np.nan, np.inf):
        row = np.array([[1.0, value, 3.0, 4.0, 5.0]])
        with pytest.raises(BadPayload) as theirs:
            original.predict(row)
        with pytest.raises(BadPayload) as ours:
            compiled.predict(row)
        assert str(ours.value) == str(theirs.value)
    imputed = SklearnModel(ESTIMATORS["logistic"](), {})
    row = np.array([[1.0, np.nan, 3.0, 4.0, 5.0]])
    assert compiled_of(imputed, tmp_path)[1].predict(row).tolist() == imputed.predict(row).tolist()


# ------------------------------------------------------------------------------------------------- what is not compiled
def test_a_graph_that_disagrees_is_noticed_and_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(opened: subject.Subject) -> subject.Subject:
        """The same model with one threshold moved by the least that a float32 can."""

        def moved() -> subject.Graph:
            right = opened.ways[0][1]()
            graph = onnx.load_from_string(right.onnx)
            for attribute in graph.graph.node[0].attribute:
                if attribute.name == "nodes_values":
                    first = next(i for i, value in enumerate(attribute.floats) if value)
                    attribute.floats[first] = float(np.nextafter(np.float32(attribute.floats[first]), np.float32(-1e9)))
            return replace(right, onnx=graph.SerializeToString())

        return replace(opened, ways=[("moved", moved)])

    real = subject.subject_of
    monkeypatch.setattr("eyrie.modelserver.compile.compiler.subject_of", lambda model: wrong(real(model)))
    made = compile_model(booster("binary:logistic"), tmp_path)
    assert made.decision == ORIGINAL
    assert made.reason.startswith("it disagrees: just below")
    assert "rows differ, the first at" in made.reason
    made.write(tmp_path)
    assert json.loads((tmp_path / "compiled" / "report.json").read_text())["decision"] == ORIGINAL
    assert manifests.read(tmp_path) is None


def test_rows_of_the_owner_take_part(tmp_path: Path) -> None:
    (tmp_path / "compile").mkdir()
    (tmp_path / "compile" / "rows.csv").write_text("1,2,3,4,5\n6,7,8,9,10\n")
    made = compile_model(booster("binary:logistic"), tmp_path)
    assert made.agreement is not None
    assert made.agreement.rows["compile/rows.csv"] == 2
    (tmp_path / "compile" / "rows.csv").write_text("1,2\n")
    spoilt = compile_model(booster("binary:logistic"), tmp_path)
    assert spoilt.decision == ORIGINAL
    assert "compile/rows.csv cannot be read" in spoilt.reason


class Odd:
    """An estimator that nobody can convert."""

    n_features_in_ = 5

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows)[:, 0]


def test_what_has_no_onnx_form_says_so(tmp_path: Path) -> None:
    made = compile_model(SklearnModel(Odd(), {}), tmp_path)
    assert (made.decision, made.graph) == (ORIGINAL, b"")
    assert made.reason.startswith("it cannot be converted: ")
    categorical = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 1, "min_data_per_group": 1, "cat_smooth": 1.0},
        lightgbm.Dataset(np.round(ROWS[:, :2] / 10), CLASSES > 0, categorical_feature=[0]),
        5,
    )
    refused = compile_model(LightGBMModel(categorical, {}), tmp_path)
    assert "categorical splits" in refused.reason


# ------------------------------------------------------------------------------------------------------- the comparison
def answers(predict: Any, probabilities: Any = lambda rows: None) -> Answers:
    return Answers(predict, probabilities, RowShape())


GROUP = [Group("g", np.arange(8.0).reshape(4, 2))]


def test_labels_must_be_equal() -> None:
    right = answers(lambda rows: (rows[:, 0] > 2).astype(int))
    wrong = answers(lambda rows: (rows[:, 0] > 4).astype(int))
    assert compare(right, right, GROUP).agrees
    found = compare(right, wrong, GROUP)
    assert (found.agrees, found.labels_different) == (False, 1)


def test_probabilities_must_be_within_the_tolerance() -> None:
    def chances(shift: float) -> Answers:
        return answers(lambda rows: np.zeros(len(rows), dtype=int), lambda rows: np.full((len(rows), 2), 0.25) + shift)

    assert compare(chances(0.0), chances(0.9e-5), GROUP).agrees
    found = compare(chances(0.0), chances(1.1e-5), GROUP)
    assert not found.agrees
    assert found.largest_difference == pytest.approx(1.1e-5)


def test_probabilities_on_two_sides_of_a_half_are_two_labels() -> None:
    above, below = (answers(lambda rows, p=p: np.full(len(rows), p)) for p in (0.5 + 1e-7, 0.5 - 1e-7))
    assert compare(above, below, GROUP).labels_different == 4


def test_numbers_are_compared_by_their_size_and_their_type() -> None:
    def number(value: float, dtype: str = "f8") -> Answers:
        return answers(lambda rows: np.full(len(rows), value, dtype=dtype))

    assert compare(number(1e6), number(1e6 + 1), GROUP).agrees
    assert not compare(number(10.0), number(10.1), GROUP).agrees
    assert not compare(number(10.0), number(10.0, "f4"), GROUP).agrees
    assert compare(number(float("nan")), number(float("nan")), GROUP).agrees
    assert not compare(number(1.0), number(float("nan")), GROUP).agrees


def test_refusals_must_be_alike() -> None:
    def strict(limit: float) -> Answers:
        def predict(rows: Any) -> Any:
            if (rows[:, 0] > limit).any():
                raise BadPayload("too large")
            return rows[:, 0]

        return answers(predict)

    found = compare(strict(3.0), strict(3.0), GROUP)
    assert (found.agrees, found.refused_alike) == (True, 2)
    assert "the original refuses" in compare(strict(3.0), strict(9.0), GROUP).difference
    assert "the compiled model refuses" in compare(strict(9.0), strict(3.0), GROUP).difference


# ----------------------------------------------------------------------------------------------------------- the choice
def test_the_faster_is_found_by_a_clock() -> None:
    now = [0.0]

    def costs(seconds: float) -> timing.Called:
        def predict(rows: Any) -> Any:
            now[0] += seconds * len(rows)
            return rows

        return timing.Called(predict, np.zeros((3, 2)))

    timings = timing.measure(costs(3e-5), costs(1e-5), lambda: now[0])
    assert [t.rows for t in timings] == [1, 8, 32, 100]
    assert [round(t.gain, 3) for t in timings] == [3.0] * 4
    assert timing.overall(timings) == pytest.approx(3.0)


def test_a_compiled_model_that_is_slower_leaves_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slower = [timing.Timing(size, 10.0, 20.0) for size in timing.SIZES]
    monkeypatch.setattr("eyrie.modelserver.compile.compiler.timing.measure", lambda *given: slower)
    made = compile_model(booster("binary:logistic"), tmp_path)
    assert (made.decision, made.report()["gain"]) == (ORIGINAL, 0.5)
    assert made.reason.startswith("it agrees, but is no faster")
    made.write(tmp_path)
    found = manifests.read(tmp_path)
    assert found is not None
    assert found.decision == ORIGINAL


def test_the_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made, _ = compiled_of(SklearnModel(ESTIMATORS["logistic"](), {}), tmp_path)
    assert made.decision == COMPILED
    assert manifests.read(tmp_path) == made.manifest
    report = json.loads((tmp_path / "compiled" / "report.json").read_text())
    assert report["rows_compared"] >= 1400
    assert [t["rows"] for t in report["timings"]] == [1, 8, 32, 100]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 9}', '{"format": 1, "family": "x"}', "[" * 100_000])
def test_a_spoilt_manifest_is_a_load_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "manifest.json").write_text(text)
    with pytest.raises(LoadError, match=r"manifest\.json cannot be read"):
        manifests.read(tmp_path)


def test_unknown_text_cannot_be_a_category() -> None:
    assert not UNKNOWN.isascii()
