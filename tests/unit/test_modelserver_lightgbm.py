"""LightGBM models that were really trained, from text files and pickles; scores are the library's own, to the bit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import predict_each
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, BadPayload
from eyrie.modelserver.frameworks.interface import LoadError, RowModel, Source
from eyrie.modelserver.loader import load

lightgbm = pytest.importorskip("lightgbm")

ROWS = np.random.default_rng(3).normal(size=(200, 4))
ROWS[::11, 1] = np.nan
TOTAL = np.nan_to_num(ROWS).sum(axis=1)
QUIET = {"verbosity": -1, "num_threads": 1, "num_leaves": 7}


def train(objective: str, target: Any, **parameters: Any) -> Any:
    return lightgbm.train({"objective": objective, **QUIET, **parameters}, lightgbm.Dataset(ROWS, target), 5)


@pytest.fixture(scope="module")
def booster() -> Any:
    return train("binary", TOTAL > 0)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "model").mkdir()
    return Source(tmp_path, {})


def model_of(source: Source, env: Mapping[str, str] | None = None, image: str = "") -> RowModel:
    model = load(replace(source, env=env or {}, image=image))
    assert isinstance(model, RowModel)
    return model


def answer(model: RowModel, rows: Any, accept: str = "") -> bytes:
    """One request of CSV rows, through everything between its body and its reply's."""
    body = "\n".join(",".join("" if np.isnan(x) else repr(float(x)) for x in row) for row in rows).encode()
    kind = codecs.negotiate(accept, model.offers, model.default_accept)
    (outcome,) = predict_each(model.predict, model.shape, [codecs.decode(body, CSV, model.shape)])
    if isinstance(outcome, Exception):
        raise outcome
    return model.encode(outcome, kind)


@pytest.mark.parametrize("name", ["model.txt", "lightgbm-model", "churn.txt", "churn.model"])
def test_a_text_model_is_known_by_its_first_line(source: Source, booster: Any, name: str) -> None:
    booster.save_model(source.model_dir / name)
    (source.model_dir / "notes.txt").write_text("trees were pruned\n")
    model = model_of(source)
    assert answer(model, ROWS[:12]) == ",".join(map(str, booster.predict(ROWS[:12]).tolist())).encode()
    assert "lightgbm" in model.title
    assert "binary, 4 features" in model.title


@pytest.mark.parametrize("share", [0.2, 0.4, 0.99])
def test_a_text_model_that_was_cut_short_is_refused_before_the_library_ends_the_process(
    source: Source, booster: Any, share: float
) -> None:
    text = booster.model_to_string()
    (source.model_dir / "model.txt").write_text(text[: int(text.index("end of trees") * share)])
    with pytest.raises(LoadError, match=r"model\.txt is cut short or damaged: tree \d of 5 is not whole"):
        load(source)
    (source.model_dir / "model.txt").write_text(text.replace("Tree=2\n", "Tree 2\n"))
    with pytest.raises(LoadError, match="tree 2 of 5 is not whole"):
        load(source)


def test_many_rows_use_the_threads_of_the_instance_and_give_the_same(source: Source, booster: Any) -> None:
    booster.save_model(source.model_dir / "model.txt")
    model = model_of(source, {"OMP_NUM_THREADS": "2"})
    assert np.array_equal(model.predict(ROWS), booster.predict(ROWS))


def test_a_pickled_booster_and_a_pickled_classifier_give_scores(source: Source, booster: Any) -> None:
    (source.model_dir / "model.pkl").write_bytes(pickle.dumps(booster))
    assert json.loads(answer(model_of(source), ROWS[:2], JSON)) == {
        "predictions": [{"score": score} for score in booster.predict(ROWS[:2]).tolist()]
    }
    classifier = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(ROWS, np.digitize(TOTAL, (-1, 1)))
    (source.model_dir / "model.pkl").write_bytes(pickle.dumps(classifier))
    lines = answer(model_of(source), ROWS[:3], JSONLINES).splitlines()
    assert [json.loads(line)["score"] for line in lines] == classifier.predict_proba(ROWS[:3]).tolist()


def test_under_a_scikit_learn_image_a_pickled_classifier_gives_labels(source: Source) -> None:
    classifier = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(ROWS, np.where(TOTAL > 0, "up", "down"))
    (source.model_dir / "model.pkl").write_bytes(pickle.dumps(classifier))
    given = json.loads(answer(model_of(source, image="eyrie/sklearn"), ROWS[:3]))
    assert given == classifier.predict(ROWS[:3]).tolist()


def test_early_stopping_is_kept(source: Source) -> None:
    data = lightgbm.Dataset(ROWS, TOTAL)
    parameters = {"objective": "regression", "metric": "l2", **QUIET}
    held = lightgbm.Dataset(ROWS[:50], -TOTAL[:50], reference=data)
    stop = lightgbm.early_stopping(2, verbose=False)
    stopped = lightgbm.train(parameters, data, 30, valid_sets=[held], callbacks=[stop])
    assert 0 < stopped.best_iteration < 30
    (source.model_dir / "model.pkl").write_bytes(pickle.dumps(stopped))
    assert np.array_equal(model_of(source).predict(ROWS), stopped.predict(ROWS))


def pair(score: float) -> dict[str, Any]:
    return {"predicted_label": int(score > 0.5), "probabilities": [1 - score, score]}


@pytest.mark.parametrize(
    ("objective", "target", "keys", "wanted"),
    [
        ("binary", TOTAL > 0, "predicted_label,probabilities", pair),
        ("regression", TOTAL, "predicted_score", lambda score: {"predicted_score": score}),
    ],
)
def test_chosen_outputs(source: Source, objective: str, target: Any, keys: str, wanted: Any) -> None:
    trained = train(objective, target)
    trained.save_model(source.model_dir / "model.txt")
    model = model_of(source, {"SAGEMAKER_INFERENCE_OUTPUT": keys})
    scores = trained.predict(ROWS[:3]).tolist()
    assert json.loads(answer(model, ROWS[:3], JSON)) == {"predictions": [wanted(score) for score in scores]}


def test_chosen_outputs_of_several_classes(source: Source) -> None:
    trained = train("multiclass", np.digitize(TOTAL, (-1, 1)), num_class=3)
    trained.save_model(source.model_dir / "model.txt")
    model = model_of(source, {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probability,labels"})
    chances = trained.predict(ROWS[:1])
    (first,) = json.loads(answer(model, ROWS[:1], JSON))["predictions"]
    assert first == {"predicted_label": int(chances.argmax()), "probability": chances.max(), "labels": [0, 1, 2]}


def test_what_is_refused(source: Source, booster: Any) -> None:
    booster.save_model(source.model_dir / "a.txt")
    model = model_of(source)
    with pytest.raises(BadPayload, match="Feature size of inference data 3 is not consistent"):
        answer(model, ROWS[:1, :3])
    booster.save_model(source.model_dir / "b.txt")
    with pytest.raises(LoadError, match="several LightGBM models"):
        model_of(source)
    for path in source.model_dir.iterdir():
        path.unlink()
    (source.model_dir / "model.txt").write_bytes(b"tree\nversion=v4\nnum_class=1\n")
    with pytest.raises(LoadError, match=r"LightGBM .* cannot read model\.txt"):
        model_of(source)
