"""Run by Spark's environment: `eyrie.spark` over a master, local[N] or local-cluster[N,cores,MB].

    python flow_eyrie_spark.py MASTER ENDPOINT PACKAGE ROWS

Prints JSON: what the endpoint and the package said to the rows of the CSV, and in how many Python processes of how many
executors.
"""

from __future__ import annotations

import json
import os
import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, udf

from eyrie import spark


def main() -> None:
    master, endpoint, package, rows = sys.argv[1:5]
    settings = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.executor.memory": "512m"}
    session = SparkSession.builder.master(master).config(map=settings).getOrCreate()
    df = session.read.csv(rows, inferSchema=True).repartition(4)
    columns = df.columns
    ran = df.select(udf(where)(col(columns[0])).alias("where")).distinct().collect()
    places = [row["where"].split() for row in ran]
    told = spark.transform(df, spark.endpoint(endpoint), columns=columns, output="asked")
    told = spark.transform(told, spark.package(package), columns=columns, output="inside")
    found = told.orderBy(*columns).select("asked", "inside").collect()
    counts = {"pids": len({pid for pid, _ in places}), "executors": len({executor for _, executor in places})}
    print("FOUND " + json.dumps({**counts, "rows": [[row.asked, row.inside] for row in found]}))
    session.stop()


def where(_: object) -> str:
    """This Python process, and the executor (a JVM) whose daemon has forked it."""
    with open(f"/proc/{os.getppid()}/status") as status:
        (executor,) = [line.split()[1] for line in status if line.startswith("PPid:")]
    return f"{os.getpid()} {executor}"


if __name__ == "__main__":
    main()
