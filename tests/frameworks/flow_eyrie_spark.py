"""Run by Spark's environment: `eyrie.spark` over a local master with several executors' worth of Python processes.

    python flow_eyrie_spark.py ENDPOINT PACKAGE ROWS

Prints JSON: what the endpoint and the package said to the rows of the CSV, and in how many processes.
"""

from __future__ import annotations

import json
import os
import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, udf

from eyrie import spark


def main() -> None:
    endpoint, package, rows = sys.argv[1:4]
    master = os.environ.get("EYRIE_TEST_MASTER", "local[3]")
    session = SparkSession.builder.master(master).config("spark.ui.enabled", "false").getOrCreate()
    df = session.read.csv(rows, inferSchema=True).repartition(4)
    columns = df.columns
    pids = df.select(udf(lambda _: str(os.getpid()))(col(columns[0]))).distinct().count()
    told = spark.transform(df, spark.endpoint(endpoint), columns=columns, output="asked")
    told = spark.transform(told, spark.package(package), columns=columns, output="inside")
    found = told.orderBy(*columns).select("asked", "inside").collect()
    print("FOUND " + json.dumps({"pids": pids, "rows": [[row.asked, row.inside] for row in found]}))
    session.stop()


if __name__ == "__main__":
    main()
