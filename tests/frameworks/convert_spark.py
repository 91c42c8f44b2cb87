"""Run rows through pipelines that train_spark.py saved, as Eyrie converts them: no Spark. Prints the columns as JSON.

Run by test_spark.py with the interpreter of .venv-spark.
"""

import json
import sys
from pathlib import Path

from eyrie.modelserver.frameworks import spark
from eyrie.modelserver.frameworks.interface import Source


def main() -> None:
    here = Path.cwd()
    types = {"colour": "string", "shape": "string", "size": "double", "weight": "double", "age": "double"}
    inputs = tuple(spark.Column(name, kind) for name, kind in types.items())
    given = json.loads((here / "rows.json").read_text())
    told = {}
    for folder in sorted(path.parent for path in here.glob("*/pipeline")):
        pipeline = spark.read(folder / "pipeline", Source(here, {}))
        columns = spark.columns_of(given, spark.Schema(inputs, spark.Column(pipeline.makes, "")))
        for stage in pipeline.stages:
            stage(columns)
        wanted = ("features", "prediction", "probability", "rawPrediction")
        told[folder.name] = {name: columns[name].tolist() for name in wanted if name in columns}
    print(json.dumps({"models": told, "spark": "pyspark" in sys.modules}))


main()
