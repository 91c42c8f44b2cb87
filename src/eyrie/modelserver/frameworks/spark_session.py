"""Spark itself, for a saved pipeline with a stage that is not converted here: pyspark and a JVM in the instance.

The last resort of `spark`: each request becomes a data frame of one partition, which costs tens of milliseconds where a
converted pipeline takes less than one. Where pyspark or Java is missing, the refusal names the stage and what would
serve it.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array, BadPayload
from eyrie.modelserver.frameworks.interface import LoadError
from eyrie.modelserver.frameworks.spark_stages import Columns, Stage

log = logging.getLogger("eyrie.modelserver")

HEAP_DEFAULT = "1g"
HEAP = "SPARK_DRIVER_MEMORY"  # Spark's own name, of the container's environment


def refusal() -> str | None:
    """Why Spark cannot run here, or None."""
    if find_spec("pyspark") is None:
        return "pip install 'eyrie[pyspark]', and a Java runtime, would serve it with Spark itself"
    if _java() is None:
        return "a Java runtime beside pyspark would serve it with Spark itself"
    return None


def stage_of(path: Path, why: LoadError) -> Stage:
    """The whole saved pipeline as one stage. Raises LoadError: `why`, where Spark cannot run here."""
    refused = refusal()
    if refused is not None:
        raise LoadError(f"{why}; {refused}") from why
    log.info("%s: served by Spark itself, in a JVM", why)
    session = _session()
    model = import_module("pyspark.ml").PipelineModel.load(str(path))
    one = threading.Lock()  # a session has one planner: requests in a row are no slower than side by side

    def stage(columns: Columns) -> None:
        with one:
            columns.update(_transformed(session, model, columns))

    return stage


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin" if home else None)


def _session() -> Any:
    """A local session without a page of its own, that binds to the loopback."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("HADOOP_USER_NAME", "model")
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": os.environ.get(HEAP, HEAP_DEFAULT),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "1",
        "spark.local.dir": "/tmp",
        "spark.sql.warehouse.dir": "/tmp/spark-warehouse",
        "spark.driver.extraJavaOptions": "-Duser.home=/tmp -Duser.name=model",
    }
    builder = import_module("pyspark.sql").SparkSession.builder.master("local[1]").appName("eyrie")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _transformed(session: Any, model: Any, columns: Columns) -> Columns:
    """What the pipeline makes of columns: all that can be told as numbers, text or vectors."""
    names = list(columns)
    types = ", ".join(f"`{name}` {_type(columns[name])}" for name in names)
    rows = list(zip(*(_cells(columns[name]) for name in names), strict=True))
    try:
        frame = session.createDataFrame(rows, types).coalesce(1)
        found = model.transform(frame)
        made = [name for name in found.columns if name not in columns]
        collected = found.select(*made).collect()
    except Exception as error:  # the boundary to foreign code: what Spark refuses is its request's error
        raise BadPayload(f"Spark refused the request: {_short(error)}") from error
    return {name: _array([row[name] for row in collected]) for name in made}


def _short(error: Exception) -> str:
    """The first line of the innermost cause that Java tells of, in a length that one reads."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return (causes or lines or [type(error).__name__])[-1 if causes else 0][:300]


def _type(values: Array) -> str:
    if values.ndim == 2:
        return "array<double>"
    if values.dtype == object and any(isinstance(value, str) for value in values.tolist()):
        return "string"
    return "bigint" if values.dtype.kind in "iu" else "double"


def _cells(values: Array) -> list[Any]:
    return [None if value is None else value for value in values.tolist()]


def _array(values: Sequence[Any]) -> Array:
    plain = [value.toArray().tolist() if hasattr(value, "toArray") else value for value in values]
    if plain and isinstance(plain[0], list) and len({len(value) for value in plain}) == 1:
        return np.array(plain)
    return np.array(plain, dtype=object if any(isinstance(v, str | list | type(None)) for v in plain) else None)
