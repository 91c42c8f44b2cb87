"""Models that were really trained, loaded from every kind of file; predictions are the libraries' own, to the bit."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import predict_each
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, LIBSVM, BadPayload
from eyrie.modelserver.frameworks import files
from eyrie.modelserver.frameworks.interface import LoadError, RowModel, Source
from eyrie.modelserver.loader import load

joblib = pytest.importorskip("joblib")
sklearn = pytest.importorskip("sklearn")
xgboost = pytest.importorskip("xgboost")

from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import FeatureUnion, make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402


@dataclass(frozen=True)
class Data:
    """One small made-up data set for every kind of target."""

    rows: Any
    binary: Any
    classes: Any
    value: Any


@pytest.fixture(scope="module")
def data() -> Data:
    chance = np.random.default_rng(7)
    rows = chance.normal(size=(120, 5)).astype(np.float32)
    rows[::9, 2] = np.nan
    total = np.nan_to_num(rows).sum(axis=1)
    return Data(rows, (total > 0).astype(int), np.digitize(total, (-1, 1)), total)


def train(data: Data, objective: str, target: str = "binary", rounds: int = 4, **parameters: Any) -> Any:
    matrix = xgboost.DMatrix(data.rows, getattr(data, target))
    return xgboost.train({"objective": objective, "max_depth": 3, "nthread": 1, **parameters}, matrix, rounds)


@pytest.fixture(scope="module")
def booster(data: Data) -> Any:
    return train(data, "binary:logistic")


@pytest.fixture(scope="module")
def pipeline(data: Data) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(np.nan_to_num(data.rows), data.classes)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "model").mkdir()
    return Source(tmp_path, {})


def rows_model(source: Source, env: Mapping[str, str] | None = None, image: str = "") -> RowModel:
    model = load(replace(source, env=env or {}, image=image))
    assert isinstance(model, RowModel)
    return model


def answer(model: RowModel, body: bytes, kind: str, accept: str = "") -> bytes:
    """One request, through everything between its body and its reply's."""
    wanted = codecs.negotiate(accept, model.offers, model.default_accept)
    (outcome,) = predict_each(model.predict, model.shape, [codecs.decode(body, kind, model.shape)])
    if isinstance(outcome, Exception):
        raise outcome
    return model.encode(outcome, wanted)


def csv_of(rows: Any) -> bytes:
    return "\n".join(",".join("" if cell != cell else repr(float(cell)) for cell in row) for row in rows).encode()


def numbers(body: bytes) -> list[float]:
    return [float(text) for text in body.decode().split(",")]


# ------------------------------------------------------------------------------------------------------------- XGBoost
@pytest.mark.parametrize(
    "name", ["xgboost-model", "xgboost-model.json", "model.json", "model.ubj", "xgboost-model.ubj"]
)
def test_native_xgboost_files(name: str, source: Source, booster: Any, data: Data) -> None:
    form = "ubj" if name.endswith("ubj") else "json"
    (source.model_dir / name).write_bytes(booster.save_raw(form))
    model = rows_model(source)
    expected = booster.predict(xgboost.DMatrix(data.rows))
    assert numbers(answer(model, csv_of(data.rows), CSV)) == expected.tolist()
    assert "binary:logistic, 5 features" in model.title


@pytest.mark.parametrize("form", ["booster", "classifier", "joblib"])
def test_pickled_xgboost(form: str, source: Source, booster: Any, data: Data) -> None:
    classifier = xgboost.XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1).fit(data.rows, data.binary)
    value = booster if form == "booster" else classifier
    expected = (
        booster.predict(xgboost.DMatrix(data.rows)) if form == "booster" else classifier.predict_proba(data.rows)[:, 1]
    )
    if form == "joblib":
        joblib.dump(value, source.model_dir / "model.joblib", compress=3)
    else:
        (source.model_dir / "xgboost-model").write_bytes(pickle.dumps(value))
    assert numbers(answer(rows_model(source), csv_of(data.rows), CSV)) == pytest.approx(expected.tolist(), abs=1e-6)


def test_under_scikit_learns_image_a_pickled_classifier_answers_labels(source: Source, data: Data) -> None:
    classifier = xgboost.XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(data.rows, data.binary)
    joblib.dump(classifier, source.model_dir / "model.joblib")
    image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
    model = rows_model(source, image=image)
    assert json.loads(answer(model, csv_of(data.rows[:3]), CSV)) == classifier.predict(data.rows[:3]).tolist()


@pytest.mark.parametrize(
    ("objective", "target", "parameters"),
    [
        ("reg:squarederror", "value", {}),
        ("reg:squarederror", "value", {"booster": "gblinear"}),
        ("reg:squarederror", "value", {"booster": "dart"}),
        ("binary:hinge", "binary", {}),
        ("multi:softmax", "classes", {"num_class": 3}),
        ("rank:pairwise", "value", {}),
        ("count:poisson", "binary", {}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # gblinear is going to leave XGBoost
def test_objectives_and_boosters(
    objective: str, target: str, parameters: dict[str, Any], source: Source, data: Data
) -> None:
    trained = train(data, objective, target, **parameters)
    trained.save_model(source.model_dir / "model.ubj")
    got = numbers(answer(rows_model(source), csv_of(data.rows), CSV))
    assert got == pytest.approx(trained.predict(xgboost.DMatrix(data.rows)).tolist(), abs=1e-6)


def test_softprob_is_a_list_of_chances_a_row(source: Source, data: Data) -> None:
    trained = train(data, "multi:softprob", "classes", num_class=3)
    trained.save_model(source.model_dir / "model.json")
    expected = trained.predict(xgboost.DMatrix(data.rows[:2])).tolist()
    model = rows_model(source)
    assert json.loads(answer(model, csv_of(data.rows[:1]), CSV)) == expected[0]
    assert json.loads(answer(model, csv_of(data.rows[:2]), CSV, JSON)) == {
        "predictions": [{"score": e} for e in expected]
    }


def test_every_way_to_send_the_same_rows_scores_the_same(source: Source, booster: Any, data: Data) -> None:
    booster.save_model(source.model_dir / "model.json")
    model = rows_model(source)
    rows = data.rows[:9]
    present = [[(i, float(v)) for i, v in enumerate(row) if v == v] for row in rows]
    bodies = {
        CSV: csv_of(rows),
        JSON: json.dumps({"instances": [[None if v != v else float(v) for v in row] for row in rows]}).encode(),
        LIBSVM: "\n".join(" ".join(f"{i}:{v!r}" for i, v in row) for row in present).encode(),
        codecs.NPY: codecs.encode_npy(rows),
    }
    expected = booster.predict(xgboost.DMatrix(rows)).tolist()
    for kind, body in bodies.items():
        assert numbers(answer(model, body, kind)) == expected, kind


def test_early_stopping_predicts_up_to_the_best_round(source: Source, data: Data) -> None:
    trained = train(data, "reg:squarederror", "value", rounds=9)
    trained.set_attr(best_iteration="2")
    trained.save_model(source.model_dir / "model.json")
    expected = trained.predict(xgboost.DMatrix(data.rows), iteration_range=(0, 3)).tolist()
    assert numbers(answer(rows_model(source), csv_of(data.rows), CSV)) == expected


def test_several_models_are_an_ensemble(source: Source, data: Data) -> None:
    trained = [train(data, "reg:squarederror", "value", rounds=n) for n in (1, 3, 6)]
    for number, part in enumerate(trained):
        part.save_model(source.model_dir / f"xgboost-model-{number}.json")
    matrix = xgboost.DMatrix(data.rows)
    mean = np.mean([part.predict(matrix) for part in trained], axis=0)
    assert numbers(answer(rows_model(source), csv_of(data.rows), CSV)) == pytest.approx(mean.tolist(), abs=1e-6)
    alone = rows_model(source, {"SAGEMAKER_INFERENCE_ENSEMBLE": "false"})
    assert numbers(answer(alone, csv_of(data.rows), CSV)) == trained[0].predict(matrix).tolist()


def test_an_ensemble_of_classes_votes(source: Source, data: Data) -> None:
    trained = [train(data, "multi:softmax", "classes", rounds=n, num_class=3, seed=n) for n in (1, 2, 6)]
    for number, part in enumerate(trained):
        part.save_model(source.model_dir / f"m{number}.ubj")
    votes = np.array([part.predict(xgboost.DMatrix(data.rows)) for part in trained]).T
    expected = [float(max(sorted(set(v)), key=lambda label, v=v: list(v).count(label))) for v in votes]  # type: ignore[misc]
    assert numbers(answer(rows_model(source), csv_of(data.rows), CSV)) == expected


def test_models_of_different_widths_are_no_ensemble(source: Source, booster: Any, data: Data) -> None:
    booster.save_model(source.model_dir / "a.json")
    narrow = xgboost.train({"nthread": 1}, xgboost.DMatrix(data.rows[:, :2], data.value), 1)
    narrow.save_model(source.model_dir / "b.json")
    with pytest.raises(LoadError, match="different numbers of features"):
        load(source)


def test_batch_transform_writes_a_line_a_row(source: Source, booster: Any, data: Data) -> None:
    booster.save_model(source.model_dir / "model.json")
    body = answer(rows_model(source, {"SAGEMAKER_BATCH": "true"}), csv_of(data.rows[:2]), CSV)
    assert body.decode().splitlines() == [str(v) for v in booster.predict(xgboost.DMatrix(data.rows[:2])).tolist()]
    assert body.endswith(b"\n")


def test_selected_outputs_of_a_binary_booster(source: Source, booster: Any, data: Data) -> None:
    booster.save_model(source.model_dir / "model.json")
    model = rows_model(source, {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_label, probability,probabilities,labels"})
    score = float(booster.predict(xgboost.DMatrix(data.rows[:1]))[0])
    got = json.loads(answer(model, csv_of(data.rows[:1]), CSV, JSON))["predictions"][0]
    assert got == {
        "predicted_label": int(score > 0.5),
        "probability": score,
        "probabilities": [1.0 - score, score],
        "labels": [0, 1],
    }
    assert list(got) == ["predicted_label", "probability", "probabilities", "labels"]


def test_selected_outputs_of_several_classes_and_of_a_regression(source: Source, data: Data) -> None:
    trained = train(data, "multi:softprob", "classes", num_class=3)
    trained.save_model(source.model_dir / "model.json")
    chances = trained.predict(xgboost.DMatrix(data.rows[:1]))[0]
    env = {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probability,predicted_score"}
    (line,) = answer(rows_model(source, env), csv_of(data.rows[:1]), CSV, JSONLINES).splitlines()
    got = json.loads(line)
    assert (got["predicted_label"], got["probability"]) == (int(chances.argmax()), float(chances.max()))
    assert got["predicted_score"] != got["predicted_score"]  # NaN: a classifier has none
    regression = train(data, "reg:squarederror", "value")
    regression.save_model(source.model_dir / "model.json")
    body = answer(rows_model(source, {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_score"}), csv_of(data.rows[:2]), CSV)
    assert body.decode().splitlines() == [str(v) for v in regression.predict(xgboost.DMatrix(data.rows[:2])).tolist()]


def test_an_unknown_selected_output_is_named(source: Source, booster: Any) -> None:
    booster.save_model(source.model_dir / "model.json")
    with pytest.raises(LoadError, match="names 'colour'"):
        load(replace(source, env={"SAGEMAKER_INFERENCE_OUTPUT": "colour"}))


def test_named_features_take_columns_in_any_order(source: Source, data: Data) -> None:
    names = ["v", "w", "x", "y", "z"]
    trained = xgboost.train({"nthread": 1}, xgboost.DMatrix(data.rows, data.value, feature_names=names), 3)
    trained.save_model(source.model_dir / "model.json")
    body = b"z,y,x,w,v\n" + csv_of(data.rows[:4, ::-1])
    expected = trained.predict(xgboost.DMatrix(data.rows[:4], feature_names=names)).tolist()
    assert numbers(answer(rows_model(source), body, CSV)) == expected


def test_the_quick_way_into_xgboost_is_taken_and_falls_back(
    source: Source, booster: Any, data: Data, monkeypatch: Any
) -> None:
    from eyrie.modelserver.frameworks import xgboost_direct

    def ordinary(rows: Any) -> Any:
        return booster.inplace_predict(rows)

    quick = xgboost_direct.direct(booster, (0, 0), 5, ordinary)
    assert quick is not None
    assert np.array_equal(quick(data.rows), booster.inplace_predict(data.rows))
    with pytest.raises(ValueError, match="contiguous float32"):
        quick(data.rows.astype(np.float64))
    with pytest.raises(ValueError, match="contiguous float32"):
        quick(data.rows[:, :3])
    assert xgboost_direct.direct(booster, (0, 0), 5, lambda rows: ordinary(rows) + 1) is None
    monkeypatch.setattr(xgboost.core, "_LIB", object())
    assert xgboost_direct.direct(booster, (0, 0), 5, ordinary) is None


def test_the_old_binary_format_is_explained(source: Source) -> None:
    (source.model_dir / "xgboost-model").write_bytes(b"binf" + bytes(300))
    with pytest.raises(LoadError, match=r"old binary format.*save it as model\.json"):
        load(source)


def test_a_broken_native_file_is_one_plain_line(source: Source, booster: Any) -> None:
    (source.model_dir / "model.json").write_bytes(booster.save_raw("json")[:500])
    with pytest.raises(LoadError, match=r"cannot read model\.json") as caught:
        load(source)
    assert "\n" not in str(caught.value)
    assert "Stack trace" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- scikit-learn
@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "anything.pickle", "model.skops"])
def test_a_pipeline_from_every_kind_of_file(name: str, source: Source, pipeline: Any, data: Data) -> None:
    if name.endswith("joblib"):
        joblib.dump(pipeline, source.model_dir / name)
    elif name.endswith("skops"):
        pytest.importorskip("skops.io").dump(pipeline, source.model_dir / name)
    else:
        (source.model_dir / name).write_bytes(pickle.dumps(pipeline))
    rows = np.nan_to_num(data.rows).astype(float)
    model = rows_model(source)
    assert json.loads(answer(model, csv_of(rows), CSV)) == pipeline.predict(rows).tolist()
    assert "StandardScaler > LogisticRegression, 5 features" in model.title


def test_answers_of_a_regression_keep_every_bit(source: Source, data: Data) -> None:
    rows = np.nan_to_num(data.rows).astype(float)
    trained = LinearRegression().fit(rows, data.value)
    joblib.dump(trained, source.model_dir / "model.joblib")
    model = rows_model(source)
    expected = trained.predict(rows[:4])
    assert json.loads(answer(model, csv_of(rows[:4]), CSV)) == expected.tolist()
    assert numbers(answer(model, csv_of(rows[:4]), CSV, CSV).strip().replace(b"\n", b",")) == expected.tolist()
    assert answer(model, csv_of(rows[:4]), CSV, codecs.NPY) == codecs.encode_npy(expected)


def test_labels_may_be_text(source: Source, data: Data) -> None:
    rows = np.nan_to_num(data.rows)
    labels = np.array(["no", "yes"])[data.binary]
    trained = LogisticRegression().fit(rows, labels)
    joblib.dump(trained, source.model_dir / "model.joblib")
    assert json.loads(answer(rows_model(source), csv_of(rows[:5]), CSV)) == trained.predict(rows[:5]).tolist()


def test_chosen_outputs_of_a_classifier(source: Source, pipeline: Any, data: Data) -> None:
    joblib.dump(pipeline, source.model_dir / "model.joblib")
    rows = np.nan_to_num(data.rows[:3]).astype(float)
    model = rows_model(source, {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probabilities,labels"})
    got = json.loads(answer(model, csv_of(rows), CSV))["predictions"]
    assert [record["predicted_label"] for record in got] == pipeline.predict(rows).tolist()
    assert [record["probabilities"] for record in got] == pipeline.predict_proba(rows).tolist()
    assert got[0]["labels"] == [0, 1, 2]


def test_categories_as_text(source: Source) -> None:
    rows = np.array([["red", 1.0], ["blue", 2.0], ["red", 3.0], ["green", 4.0]], dtype=object)
    columns = ColumnTransformer([("colour", OneHotEncoder(handle_unknown="ignore"), [0])], remainder="passthrough")
    trained = make_pipeline(columns, LinearRegression()).fit(rows, [1.0, 2.0, 3.0, 4.0])
    joblib.dump(trained, source.model_dir / "model.joblib")
    model = rows_model(source)
    assert json.loads(answer(model, b"red,1\ngreen,4", CSV)) == trained.predict(rows[[0, 3]]).tolist()
    assert json.loads(answer(model, b'[["blue", 2.0]]', JSON)) == trained.predict(rows[[1]]).tolist()


def test_what_a_model_refuses_is_the_clients_fault(source: Source, pipeline: Any) -> None:
    joblib.dump(pipeline, source.model_dir / "model.joblib")
    model = rows_model(source)
    with pytest.raises(BadPayload, match="Unable to evaluate payload provided: Input X contains NaN"):
        answer(model, b"1,2,,4,5", CSV)
    with pytest.raises(BadPayload, match="data 2 is not consistent"):
        answer(model, b"1,2", CSV)


def test_a_forest_predicts_in_one_thread(source: Source, data: Data) -> None:
    rows = np.nan_to_num(data.rows)
    trained = RandomForestClassifier(n_estimators=3, n_jobs=-1).fit(rows, data.classes)
    joblib.dump(trained, source.model_dir / "model.joblib")
    model = rows_model(source)
    assert json.loads(answer(model, csv_of(rows), CSV)) == trained.predict(rows).tolist()
    assert model._estimator.n_jobs == 1  # type: ignore[attr-defined]


class Home:
    """A type that skops has no reason to trust."""

    def __init__(self) -> None:
        self.rooms = 3

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), self.rooms)


def test_skops_refuses_strange_types_until_they_are_named(source: Source) -> None:
    pytest.importorskip("skops.io").dump(Home(), source.model_dir / "model.skops")
    with pytest.raises(LoadError, match="SKOPS_TRUSTED_TYPES=") as caught:
        load(source)
    setting = str(caught.value).rpartition("SKOPS_TRUSTED_TYPES=")[2]
    model = rows_model(source, {"SKOPS_TRUSTED_TYPES": setting})
    assert json.loads(answer(model, b"1,2", CSV)) == [3]


def test_the_default_answer_may_be_set(source: Source, pipeline: Any) -> None:
    joblib.dump(pipeline, source.model_dir / "model.joblib")
    model = rows_model(source, {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"})
    assert model.default_accept == CSV
    with pytest.raises(LoadError, match="image/png"):
        load(replace(source, env={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "image/png"}))


# -------------------------------------------------------------------------------------------------- choosing the files
def test_the_usual_name_wins_over_other_pickles(source: Source, pipeline: Any, data: Data) -> None:
    joblib.dump(pipeline, source.model_dir / "model.joblib")
    joblib.dump(StandardScaler(), source.model_dir / "scaler.joblib")
    assert "LogisticRegression" in rows_model(source).title


def test_two_estimators_without_a_usual_name_are_refused(source: Source, pipeline: Any) -> None:
    for name in ("a.joblib", "b.joblib"):
        joblib.dump(pipeline, source.model_dir / name)
    with pytest.raises(LoadError, match="several models"):
        load(source)


def test_papers_beside_the_model_do_not_matter(source: Source, booster: Any) -> None:
    booster.save_model(source.model_dir / "xgboost-model.json")
    (source.model_dir / "README.md").write_text("hello")
    (source.model_dir / "config.json").write_text('{"a": 1}')
    (source.model_dir / ".hidden").write_bytes(b"\x80\x04")
    (source.model_dir / "folder").mkdir()
    assert "xgboost" in rows_model(source).title


def test_an_empty_folder_and_a_strange_one_say_what_is_wanted(source: Source) -> None:
    with pytest.raises(LoadError, match="the model folder is empty"):
        load(source)
    (source.model_dir / "weights.bin").mkdir()
    (source.model_dir / "model.tflite").write_bytes(b"\x08\x07")
    with pytest.raises(LoadError, match=r"model\.tflite, weights\.bin/\): wanted is"):
        load(source)
    shutil.rmtree(source.model_dir)
    with pytest.raises(LoadError, match="empty"):
        load(source)


def test_a_pickle_of_another_version_is_loaded_with_a_warning(source: Source, data: Data) -> None:
    from sklearn.exceptions import InconsistentVersionWarning

    trained = LinearRegression().fit(np.nan_to_num(data.rows), data.value)
    written = pickle.dumps(trained).replace(sklearn.__version__.encode(), b"0" * len(sklearn.__version__))
    (source.model_dir / "model.pkl").write_bytes(written)
    with pytest.warns(InconsistentVersionWarning):
        assert rows_model(source).shape.width == 5


def test_something_that_cannot_predict_is_refused(source: Source) -> None:
    joblib.dump({"a": 1}, source.model_dir / "model.joblib")
    with pytest.raises(LoadError, match="a dict, which has no predict method"):
        load(source)


@pytest.mark.parametrize(("library", "extra"), [("xgboost", "xgboost"), ("sklearn", "sklearn"), ("joblib", "sklearn")])
def test_a_framework_that_is_missing_names_its_extra(
    library: str, extra: str, source: Source, booster: Any, pipeline: Any, monkeypatch: Any
) -> None:
    import builtins

    if library == "xgboost":
        booster.save_model(source.model_dir / "model.json")
    else:
        joblib.dump(pipeline, source.model_dir / "model.joblib")
    real = builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(LoadError, match=rf"needs {library}, .*pip install 'eyrie\[{extra}\]'"):
        load(source)


def test_a_pytorch_archive_is_not_taken_for_skops(source: Source, booster: Any) -> None:
    with zipfile.ZipFile(source.model_dir / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert files.kind_of(source.model_dir / "model.pt") == ""
    booster.save_model(source.model_dir / "model.json")
    assert isinstance(load(source), RowModel)


def test_an_estimator_beside_boosters_is_refused_by_name(source: Source, booster: Any, pipeline: Any) -> None:
    booster.save_model(source.model_dir / "a.json")
    joblib.dump(pipeline, source.model_dir / "b.joblib")
    with pytest.raises(LoadError, match="a Pipeline lies beside XGBoost models"):
        load(source)


def test_a_pickle_of_a_module_that_is_not_here_names_it(source: Source) -> None:
    (source.model_dir / "model.pkl").write_bytes(b"\x80\x04\x8c\x0blandthatsnt\x8c\x05Model\x93)\x81.")
    with pytest.raises(LoadError, match="needs the module 'landthatsnt'"):
        load(source)


FILMS = ["good film", "bad film, awful", "great good", "awful 7"]


@pytest.mark.parametrize("wrapped", ["pipeline", "union", "search"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, json.dumps(FILMS)),
        (JSON, json.dumps({"instances": [[text] for text in FILMS]})),
        (JSON, json.dumps({"data": [{"features": [text]} for text in FILMS]})),
        (JSONLINES, "\n".join(json.dumps(text) for text in FILMS)),
        (JSONLINES, "\n".join(json.dumps({"features": [text]}) for text in FILMS)),
        (CSV, 'good film\n"bad film, awful"\ngreat good\nawful 7\n'),
        ("text/csv; header=present", 'review\ngood film\n"bad film, awful"\ngreat good\nawful 7\n'),
    ],
)
def test_a_pipeline_that_begins_with_a_vectorizer_takes_a_text_a_row(
    source: Source, wrapped: str, kind: str, body: str
) -> None:
    model: Any = make_pipeline(CountVectorizer(), LogisticRegression())
    if wrapped == "union":
        model = make_pipeline(FeatureUnion([("a", CountVectorizer()), ("b", TfidfVectorizer())]), LogisticRegression())
    elif wrapped == "search":
        model = GridSearchCV(model, {"logisticregression__C": [1.0]}, cv=2)
    told = model.fit(FILMS, ["pos", "neg", "pos", "neg"]).predict(FILMS).tolist()
    joblib.dump(model, source.model_dir / "model.joblib")
    loaded = rows_model(source)
    assert json.loads(answer(loaded, body.encode(), kind)) == told == ["pos", "neg", "pos", "neg"]
    assert json.loads(answer(loaded, b"7\n12.5", CSV)) == model.predict(["7", "12.5"]).tolist()
    for wrong in (b"[3]", b'[["a", "b"]]', b'{"review": "a"}', b"[]"):
        with pytest.raises(BadPayload):
            codecs.decode(wrong, JSON, loaded.shape)


def test_a_search_over_a_pipeline_takes_the_text_that_its_best_one_takes(source: Source) -> None:
    rows = np.array([["red", 1.0], ["blue", 2.0], ["red", 3.0], ["blue", 4.0]], dtype=object)
    columns = ColumnTransformer([("colour", OneHotEncoder(handle_unknown="ignore"), [0])], remainder="passthrough")
    search = GridSearchCV(make_pipeline(columns, LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2)
    joblib.dump(search.fit(rows, [1, 0, 1, 0]), source.model_dir / "model.joblib")
    assert json.loads(answer(rows_model(source), b"red,1\nblue,2", CSV)) == [1, 0]


@pytest.mark.parametrize("compress", [0, ("gzip", 3), ("lzma", 3), ("bz2", 3)])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_pickle_that_was_cut_short_says_so(
    source: Source, data: Data, compress: Any, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mapped:
        monkeypatch.setattr(files, "MAPPED_BYTES_MIN", 1)
    path = source.model_dir / "model.joblib"
    joblib.dump(RandomForestClassifier(3).fit(np.nan_to_num(data.rows), data.binary), path, compress=compress)
    whole = path.read_bytes()
    for share in (0.1, 0.35, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(LoadError, match=r"model\.joblib is a pickle that is cut short or damaged: .+"):
            load(source)


def test_arrays_of_a_large_pickle_are_mapped_and_those_of_a_packed_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAPPED_BYTES_MIN", 10_000)
    array = np.arange(5_000, dtype=np.float64)
    for name, compress, mapped in (("a.joblib", 0, True), ("b.joblib", 3, False)):
        joblib.dump({"array": array}, tmp_path / name, compress=compress)
        found = files.read_pickle(tmp_path / name)["array"]
        assert isinstance(found, np.memmap) is mapped
        found[0] = 7  # of this process alone
        assert files.read_pickle(tmp_path / name)["array"][0] == 0
    joblib.dump({"array": array[:10]}, tmp_path / "small.joblib")
    assert not isinstance(files.read_pickle(tmp_path / "small.joblib")["array"], np.memmap)
