"""Run rows through the pipelines and bundles of the working directory, as Eyrie converts them: no Spark, no MLeap.
Prints the columns that models made, by file, as JSON.

Run by test_spark.py with the interpreter of .venv-spark.
"""

import json
import sys
from pathlib import Path

from eyrie.modelserver.frameworks import mleap, spark
from eyrie.modelserver.frameworks.interface import Source


def main() -> None:
    here = Path.cwd()
    asked = json.loads((here / "rows.json").read_text())
    inputs = tuple(spark.Column(name, kind) for name, kind in asked["types"].items())
    told = {}
    for place in sorted(here.iterdir()):
        saved = place / "pipeline" if (place / "pipeline").is_dir() else place
        if (saved == place and not mleap.found_at(place)) or place.name == "spoken":
            continue  # "spoken" is for Spark itself
        pipeline = spark.read(saved, Source(here, {}))
        columns = spark.columns_of(asked["rows"], spark.Schema(inputs, spark.Column(pipeline.makes, "")))
        for stage in pipeline.stages:
            stage(columns)
        wanted = ("features", "prediction", "probability", "rawPrediction")
        told[place.name] = {name: columns[name].tolist() for name in wanted if name in columns}
    foreign = [name for name in ("pyspark", "mleap") if name in sys.modules]
    print(json.dumps({"models": told, "foreign": foreign}))


main()
