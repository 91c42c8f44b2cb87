"""Predictions within Spark: a column, or a whole DataFrame, through an endpoint or through the model package itself.

    from eyrie import spark
    scored = spark.transform(df, spark.endpoint("churn"), columns=["a", "b", "c"])
    scored = spark.transform(df, spark.package("s3://models/churn.tar.gz"), columns=["a", "b", "c"])
    udf = spark.udf(spark.endpoint("churn"))
    df.withColumn("score", udf("a", "b", "c"))

Rows go out as CSV, many in a request; each gets the line of the answer that is its own, as text, number or array by
`returns`. An executor's Python process opens its connection, or loads the package, once. Executors reach Eyrie as
boto3 does (AWS_ENDPOINT_URL and the rest of `eyrie env`, from the driver's environment where `endpoint` and `package`
are called) and need `eyrie` installed, with the framework of a model that they run. Needs `eyrie[pyspark]` and pandas.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

CSV = "text/csv"
ROWS_MAX = 2_000  # in a request
OK = 200
_PASSED = (
    "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION",
    "AWS_REGION",
)  # fmt: skip


class PredictionFailed(RuntimeError):
    """The model refused rows, or gave another number of answers; the message is for people."""


class Predictor(Protocol):
    """Who answers; it is sent to the executors, and opened there."""

    def opened(self) -> Callable[[bytes], bytes]:
        """What answers a body of CSV rows, in this process. Raises PredictionFailed when it is called."""
        ...


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, called from the executors."""

    name: str
    variant: str = ""
    accept: str = CSV
    environment: Mapping[str, str] = field(default_factory=dict)

    def opened(self) -> Callable[[bytes], bytes]:
        """A client of this process; it retries as boto3 does by default."""
        client = _client("sagemaker-runtime", tuple(sorted(self.environment.items())))
        more = {"TargetVariant": self.variant} if self.variant else {}

        def ask(body: bytes) -> bytes:
            from botocore.exceptions import ClientError

            try:
                reply = client.invoke_endpoint(
                    EndpointName=self.name, ContentType=CSV, Accept=self.accept, Body=body, **more
                )
            except ClientError as error:
                raise PredictionFailed(str(error)) from None
            found: bytes = reply["Body"].read()
            return found

        return ask


@dataclass(frozen=True)
class Package:
    """A model package, run inside the executors: as a batch transform would run it."""

    url: str  # s3:// URL, or a path that every executor has
    image: str = ""
    model_environment: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def opened(self) -> Callable[[bytes], bytes]:
        """The model, loaded once in this process."""
        given = tuple(sorted({"SAGEMAKER_BATCH": "true", **self.model_environment}.items()))
        model = _loaded(self.url, self.image, given, tuple(sorted(self.environment.items())))

        def ask(body: bytes) -> bytes:
            status, answer = model.answer(body, CSV, CSV)
            if status != OK:
                raise PredictionFailed(f"the model answered {status}: {answer[:500].decode('utf-8', 'replace')}")
            found: bytes = answer
            return found

        return ask


def endpoint(name: str, *, variant: str = "", accept: str = CSV) -> Endpoint:
    """An endpoint of the Eyrie that this environment points at."""
    return Endpoint(name, variant, accept, _environment())


def package(url: str, *, image: str = "", env: Mapping[str, str] | None = None) -> Package:
    """A model archive: an s3:// URL, or a path that every executor has. `env` is its container's environment."""
    return Package(url, image, dict(env or {}), _environment())


def transform(
    df: Any, by: Predictor, *, columns: Sequence[str] | None = None, output: str = "prediction", returns: str = "double"
) -> Any:
    """The DataFrame with a column of predictions: of these columns, in this order (all of them where none are named).

    `returns` is Spark's type of it: double, string, array<double> ...
    """
    return df.withColumn(output, udf(by, returns)(*(columns or df.columns)))


def udf(by: Predictor, returns: str = "double") -> Any:
    """A pandas UDF of any number of columns."""
    from pyspark.sql.functions import PandasUDFType, pandas_udf

    read = reader(returns)

    def predict(batches: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
        import pandas

        ask = by.opened()
        for batch in batches:
            frame = pandas.concat(batch if isinstance(batch, tuple) else (batch,), axis=1)
            yield pandas.Series([read(line) for line in answers(frame, ask)])

    return pandas_udf(predict, returnType=returns, functionType=PandasUDFType.SCALAR_ITER)


def answers(frame: Any, ask: Callable[[bytes], bytes]) -> list[str]:
    """One line for each row of a pandas frame. Raises PredictionFailed."""
    found: list[str] = []
    for start in range(0, len(frame), ROWS_MAX):
        part = frame.iloc[start : start + ROWS_MAX]
        body = part.to_csv(header=False, index=False, lineterminator="\n").encode()
        text = ask(body).decode().strip("\n")
        lines = text.split("\n")
        if len(lines) != len(part) and len(lines) == 1:  # real-time XGBoost puts all scores on one line
            lines = text.split(",")
        if len(lines) != len(part):
            raise PredictionFailed(f"the model answered {len(part)} rows with {len(lines)} lines")
        found += lines
    return found


def reader(returns: str) -> Callable[[str], Any]:
    """What makes a value of a line, for one of Spark's types."""
    kind = returns.replace(" ", "").lower()
    if kind in ("double", "float"):
        return float
    if kind in ("int", "long", "bigint"):
        return lambda line: int(float(line))
    if kind in ("array<double>", "array<float>"):
        return lambda line: [float(cell) for cell in line.split(",")]
    return str


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


@lru_cache(maxsize=8)
def _client(service: str, environment: tuple[tuple[str, str], ...]) -> Any:
    """A botocore client of this process."""
    from botocore.session import get_session

    given = dict(environment)
    return get_session().create_client(
        service,
        endpoint_url=given.get("AWS_ENDPOINT_URL"),
        region_name=given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or "us-east-1",
        aws_access_key_id=given.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=given.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=given.get("AWS_SESSION_TOKEN"),
    )


def _of_the_executor() -> str | None:
    """A folder that Spark removes when the executor ends: its Python processes end without a word, and a model may
    read its files until then.
    """
    return os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0] or None


@lru_cache(maxsize=4)
def _loaded(
    url: str, image: str, model_environment: tuple[tuple[str, str], ...], environment: tuple[tuple[str, str], ...]
) -> Any:
    """The model of this process."""
    from eyrie.modelserver.inside import InsideModel, unpacked

    folder = Path(tempfile.mkdtemp(prefix="eyrie-package-", dir=_of_the_executor()))
    archive = Path(url)
    if url.startswith("s3://"):
        bucket, _, key = url.removeprefix("s3://").partition("/")
        archive = folder / "model.tar.gz"
        reply = _client("s3", environment).get_object(Bucket=bucket, Key=key)
        with archive.open("wb") as file:
            for piece in reply["Body"].iter_chunks(1 << 20):
                file.write(piece)
    return InsideModel(unpacked(archive, folder), dict(model_environment), image)
