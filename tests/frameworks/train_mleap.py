"""Train scikit-learn models and let mleap write them as bundles: folders and zips. Prints rows and what scikit-learn
makes of them as JSON.

mleap's writer for Spark is a Java library that comes from Maven, not from PyPI; its writer for scikit-learn is in the
package. Run by test_spark.py with the interpreter of .venv-spark.
"""

import json
import random
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from mleap.sklearn.base import LinearRegression
from mleap.sklearn.extensions.data import Imputer
from mleap.sklearn.preprocessing.data import FeatureExtractor, LabelEncoder
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

for name in ("ensemble.forest", "logistic", "pipeline"):
    import_module(f"mleap.sklearn.{name}")  # each teaches scikit-learn's own classes to write themselves
NUMBERS, RANGED = ["size", "filled"], ["age"]


def rows(count):
    chance = random.Random(2)
    made = []
    for _ in range(count):
        weight = round(chance.gauss(3, 2), 3) if chance.random() > 0.1 else None
        made.append([chance.choice("abc"), round(chance.gauss(0, 1), 3), weight, float(chance.randrange(50))])
    return pd.DataFrame(made, columns=["colour", "size", "weight", "age"])


def features(frame):
    """Fitted steps in order, the rows as they leave the last one, and the names of its columns."""
    label = LabelEncoder(["colour"], "label")
    labels = label.fit_transform(frame["colour"])
    hot = OneHotEncoder(sparse_output=False)
    hot.mlinit(prior_tf=label, output_features="hot")
    one_hot = hot.fit_transform(labels.reshape(-1, 1))
    hot.n_values_ = [len(label.classes_)]  # mleap asks for what scikit-learn called so once
    imputer = Imputer("weight", "filled", strategy="median")
    whole = frame.assign(filled=np.asarray(imputer.fit(frame).transform(frame)).ravel())
    steps, parts, names = [label, hot, imputer], [one_hot], [f"hot{i}" for i in range(one_hot.shape[1])]
    scaled = []
    for columns, scaler, out in ((NUMBERS, StandardScaler(), "standard"), (RANGED, MinMaxScaler(), "ranged")):
        extractor = FeatureExtractor(input_scalars=columns, output_vector=f"{out}_in", output_vector_items=columns)
        taken = extractor.fit_transform(whole)
        scaler.mlinit(prior_tf=extractor, output_features=out)
        parts.append(scaler.fit_transform(taken.to_numpy()))
        names += columns
        steps += [extractor, scaler]
        scaled.append(scaler)
    last = FeatureExtractor(input_vectors=[hot, *scaled], output_vector="features", output_vector_items=names)
    last.skip_fit_transform = True
    matrix = np.hstack(parts)
    last.fit_transform(matrix)
    return [*steps, last], matrix, names


def models():
    return {
        "binary": (LogisticRegression(), "two"),
        "several": (LogisticRegression(), "three"),
        "linear": (LinearRegression(), "total"),
        "tree": (DecisionTreeClassifier(max_depth=4, random_state=1), "three"),
        "treer": (DecisionTreeRegressor(max_depth=4, random_state=1), "total"),
        "forest": (RandomForestClassifier(4, max_depth=4, random_state=1), "three"),
        "forestr": (RandomForestRegressor(3, max_depth=4, random_state=1), "total"),
    }


def main():
    frame = rows(300)
    steps, matrix, names = features(frame)
    total = frame["size"] + (frame["colour"] == "a") + frame["age"] / 25 + frame["weight"].fillna(3)
    labels = {"total": total, "two": (total > 5).astype(int), "three": (total > 4).astype(int) + (total > 6)}
    told = {"rows": frame.astype(object).where(frame.notna(), None).to_numpy().tolist(), "models": {}}
    for name, (model, label) in models().items():
        target = labels[label].to_numpy()
        model.fit(matrix, target.reshape(-1, 1) if name == "linear" else target)
        given = {"feature_names": names} if "tree" in name or "forest" in name else {}
        model.mlinit(input_features="features", prediction_column="prediction", **given)
        pipeline = Pipeline([(step.name, step) for step in [*steps, model]])
        pipeline.mlinit()
        pipeline.serialize_to_bundle(str(Path.cwd()), name, init=True)
        if name == "forest":
            shutil.rmtree(name)  # only the zip of this one
        told["models"][name] = np.ravel(model.predict(matrix)).astype(float).tolist()
    print(json.dumps(told))


main()
