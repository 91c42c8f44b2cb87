"""Train Spark pipelines that hold every converted stage, save them, and print what Spark's own transform makes of rows
with new and missing values as JSON.

Run by test_spark.py with the interpreter of .venv-spark.
"""

import json
import os
import random
from pathlib import Path

os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"

from pyspark.ml import Pipeline, classification, clustering, feature, regression
from pyspark.sql import SparkSession


def rows(count):
    chance = random.Random(1)
    made = []
    for number in range(count):
        colour, size = chance.choice("abc"), chance.gauss(0, 1)
        weight = chance.gauss(3, 2) if chance.random() > 0.1 else None
        total = (colour == "a") + size + (weight or 3) - 3
        label = float(total > 0) + float(total > 2)
        made.append((colour, chance.choice(["x", "y"]), size, weight, float(number % 7), label, min(label, 1.0), total))
    return made


def features():
    return [
        feature.StringIndexer(inputCols=["colour", "shape"], outputCols=["ci", "si"], handleInvalid="keep"),
        feature.OneHotEncoder(inputCols=["ci", "si"], outputCols=["co", "so"]),
        feature.Imputer(inputCols=["weight"], outputCols=["filled"], strategy="median"),
        feature.Bucketizer(splits=[-float("inf"), 2, 4, float("inf")], inputCol="age", outputCol="decade"),
        feature.VectorAssembler(inputCols=["size", "filled", "decade"], outputCol="plain"),
        feature.StandardScaler(inputCol="plain", outputCol="standard", withMean=True),
        feature.MinMaxScaler(inputCol="plain", outputCol="ranged"),
        feature.MaxAbsScaler(inputCol="plain", outputCol="shrunk"),
        feature.VectorAssembler(inputCols=["standard", "ranged", "shrunk", "co", "so"], outputCol="features"),
    ]


def models():
    return {
        "binary": classification.LogisticRegression(labelCol="two", regParam=0.01, threshold=0.4, maxIter=20),
        "several": classification.LogisticRegression(labelCol="three", regParam=0.01, maxIter=20),
        "tree": classification.DecisionTreeClassifier(labelCol="three", maxDepth=4),
        "forest": classification.RandomForestClassifier(labelCol="three", numTrees=4, maxDepth=4),
        "boosted": classification.GBTClassifier(labelCol="two", maxIter=3, maxDepth=3),
        "linear": regression.LinearRegression(labelCol="total", regParam=0.01),
        "treer": regression.DecisionTreeRegressor(labelCol="total", maxDepth=4),
        "forestr": regression.RandomForestRegressor(labelCol="total", numTrees=3, maxDepth=4),
        "boostedr": regression.GBTRegressor(labelCol="total", maxIter=3, maxDepth=3),
        "kmeans": clustering.KMeans(k=3, seed=1),
    }


def main() -> None:
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.sql.shuffle.partitions", "1").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    types = "colour string, shape string, size double, weight double, age double"
    made = rows(200)
    frame = spark.createDataFrame(made, types + ", three double, two double, total double").coalesce(1).cache()
    given = [list(row[:5]) for row in made[:20]] + [["new", "y", 0.5, None, 100.0], ["b", None, -9.0, 2.5, -3.0]]
    asked = spark.createDataFrame(given, types).coalesce(1)
    prepared = Pipeline(stages=features()).fit(frame)
    told = {"rows": given, "models": {}}
    ready, asked = prepared.transform(frame).cache(), prepared.transform(asked).cache()
    told["features"] = [row.features.toArray().tolist() for row in asked.select("features").collect()]
    for name, estimator in models().items():
        fitted = estimator.fit(ready)
        whole = prepared.copy()
        whole.stages = [*prepared.stages, fitted]
        whole.save(str(Path.cwd() / name / "pipeline"))
        found = fitted.transform(asked)
        picked = [column for column in ("prediction", "probability", "rawPrediction") if column in found.columns]
        values = found.select(*picked).collect()
        told["models"][name] = {
            column: [value.toArray().tolist() if hasattr(value, "toArray") else value for value in one]
            for column, one in zip(picked, zip(*values, strict=True), strict=True)
        }
    spoken = Pipeline(stages=[feature.Tokenizer(inputCol="colour", outputCol="words"), *features()]).fit(frame)
    last = models()["linear"].fit(spoken.transform(frame))
    spoken.stages.append(last)
    spoken.save(str(Path.cwd() / "spoken" / "pipeline"))
    print(json.dumps(told))


main()
