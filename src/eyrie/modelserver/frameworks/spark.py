"""Spark ML pipelines, as `PipelineModel.save` or MLeap wrote them, without Spark: the stages are converted when they
are loaded.

Requests and answers are those of the SparkML serving container: a schema from SAGEMAKER_SPARKML_SCHEMA or the request,
rows as CSV or JSON, one output column as CSV or JSON lines. Reached from `loader`; `call` is on the path of every
invocation of such a model.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from eyrie.modelserver import codecs
from eyrie.modelserver.codecs import CSV, JSON, JSONLINES, Array, BadPayload, UnsupportedType
from eyrie.modelserver.frameworks import mleap, spark_session, spark_stages
from eyrie.modelserver.frameworks.files import visible
from eyrie.modelserver.frameworks.gather import worker_threads
from eyrie.modelserver.frameworks.interface import Answer, Defaults, Framework, Invocation, LoadError, Source
from eyrie.modelserver.frameworks.selection import default_accept
from eyrie.modelserver.frameworks.spark_stages import Columns, Saved, Stage

SCHEMA = "SAGEMAKER_SPARKML_SCHEMA"
OFFERS = (CSV, JSONLINES)
STRUCTS = ("basic", "vector", "array")
WHOLE = ("byte", "short", "int", "long")
TYPES = (*WHOLE, "boolean", "double", "float", "string")
PIPELINE = "PipelineModel"
DEPTH_MAX = 8  # of pipelines within pipelines


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a schema."""

    name: str
    type: str  # one of TYPES; "" where nobody says
    struct: str = "basic"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a request's rows hold, and which column is answered."""

    inputs: tuple[Column, ...]
    output: Column


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Converted stages in order, the columns that they need from outside, and the last one that they make."""

    stages: tuple[Stage, ...]
    needs: tuple[str, ...]
    makes: str
    kinds: tuple[str, ...]


class SparkPipeline:
    """A converted pipeline behind the CallModel interface."""

    def __init__(self, pipeline: Pipeline, env: Mapping[str, str]) -> None:
        """Raises LoadError for a schema that cannot be read, or a setting that does not fit."""
        self._stages = pipeline.stages
        self._default_accept = default_accept(env, OFFERS, CSV)
        self.workers = worker_threads(env, otherwise=2)
        guessed = Schema(tuple(Column(name, "") for name in pipeline.needs), Column(pipeline.makes, ""))
        try:
            self._schema = schema_of(json.loads(env[SCHEMA])) if env.get(SCHEMA) else guessed
        except (ValueError, BadPayload) as error:
            raise LoadError(f"{SCHEMA} cannot be read: {error}") from error
        names = ", ".join(column.name for column in self._schema.inputs)
        self.title = f"Spark ML, {' > '.join(pipeline.kinds)}; {names} -> {self._schema.output.name}"

    def call(self, invocation: Invocation) -> Answer:
        """Answer one request; 204 for an empty body. Raises Refused for what the client did wrong."""
        kind = codecs.negotiate(invocation.accept, OFFERS, self._default_accept)
        if not invocation.body:
            return Answer(204, kind, b"")
        schema, rows = read_request(invocation.body, invocation.content_type, self._schema)
        columns = columns_of(rows, schema)
        for stage in self._stages:
            stage(columns)
        if schema.output.name not in columns:
            raise BadPayload(f"the pipeline has no column {schema.output.name!r}, only {', '.join(sorted(columns))}")
        text = "data=text" in invocation.accept.replace(" ", "")
        return Answer(200, kind, write(columns[schema.output.name], schema.output, kind, text))


# ---------------------------------------------------------------------------------------------------- requests, answers
def schema_of(value: Any) -> Schema:
    """A schema from its JSON. Raises BadPayload."""
    if not isinstance(value, dict) or not isinstance(value.get("input"), list) or not value["input"]:
        raise BadPayload('the schema must have a list "input"')
    return Schema(tuple(map(_column, value["input"])), _column(value.get("output")))


def _column(value: Any) -> Column:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise BadPayload('each column of the schema, "output" too, must be an object with a "name"')
    kind, struct = value.get("type", ""), value.get("struct", "basic")
    if kind not in TYPES or struct not in STRUCTS:
        raise BadPayload(
            f"the column {value['name']!r} has type {kind!r} and struct {struct!r}; "
            f"types are {', '.join(TYPES)}, structs {', '.join(STRUCTS)}"
        )
    return Column(value["name"], kind, struct)


def read_request(body: bytes, content_type: str, schema: Schema) -> tuple[Schema, list[list[Any]]]:
    """The schema that holds for a request, and its rows. Raises UnsupportedType or BadPayload."""
    kind = codecs.media_type(content_type) or codecs.guess_type(body)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadPayload("the body is not UTF-8 text") from None
    if kind == CSV:
        return schema, [line for line in csv.reader(io.StringIO(text, newline="")) if line]
    if kind == JSON:
        return _of_json(text, schema)
    if kind == JSONLINES:
        rows: list[list[Any]] = []
        for line in text.splitlines():
            if line.strip():
                schema, more = _of_json(line, schema)
                rows += more
        return schema, rows
    raise UnsupportedType(f"Content type {kind!r} is not supported. Supported are {CSV}, {JSON}, {JSONLINES}.")


def _of_json(text: str, schema: Schema) -> tuple[Schema, list[list[Any]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadPayload(f"the body is not JSON: {error}") from None
    if isinstance(value, dict):
        schema = schema_of(value["schema"]) if "schema" in value else schema
        value = value.get("data")
    if not isinstance(value, list) or not value:
        raise BadPayload('the JSON has no "data" that is a list')
    basic = all(column.struct == "basic" for column in schema.inputs)
    nested = [isinstance(item, list) for item in value]
    many = all(nested) and (basic or all(len(row) == len(schema.inputs) and isinstance(row[0], list) for row in value))
    return schema, value if many else [value]


def columns_of(rows: Sequence[Sequence[Any]], schema: Schema) -> Columns:
    """The columns of rows. Raises BadPayload with the place."""
    if not rows:
        raise BadPayload("the body holds no rows")
    for number, row in enumerate(rows):
        if len(row) != len(schema.inputs):
            raise BadPayload(f"row {number + 1} has {len(row)} values for {len(schema.inputs)} columns of the schema")
    return {
        column.name: _values([row[place] for row in rows], column) for place, column in enumerate(schema.inputs)
    }


def _values(cells: list[Any], column: Column) -> Array:
    if column.struct != "basic":
        if not all(isinstance(cell, list) and len(cell) == len(cells[0]) for cell in cells):
            raise BadPayload(f"the column {column.name!r} must hold a {column.struct} of one length in each row")
        return np.array([[_cell(item, column) for item in cell] for cell in cells])
    values = [_cell(cell, column) for cell in cells]
    return np.array(values, dtype=object if any(isinstance(v, str | type(None)) for v in values) else None)


def _cell(cell: Any, column: Column) -> Any:
    """One value in its column's type; "" and null are missing. Raises BadPayload."""
    if column.type == "string":
        return None if cell is None else str(cell)
    if cell is None or cell == "":
        return float("nan")
    if isinstance(cell, bool) or (column.type == "boolean" and str(cell).lower() in ("true", "false")):
        return float(str(cell).lower() == "true")
    try:
        return int(cell) if column.type in WHOLE else float(cell)
    except (TypeError, ValueError):
        if column.type == "" and isinstance(cell, str):
            return cell
        shown = f"the column {column.name!r} is {column.type or 'basic'}; it cannot hold {str(cell)[:80]!r}"
        raise BadPayload(shown) from None


def write(values: Array, output: Column, kind: str, text: bool) -> bytes:
    """One line a row: CSV, `{"features": [...]}`, or `{"source": "..."}` for text."""
    rows = values if values.ndim == 2 else values[:, None]
    cells = [[_plain(cell, output.type) for cell in row] for row in rows.tolist()]
    if kind == CSV:
        return "\n".join(",".join(map(str, row)) for row in cells).encode()
    if text:
        lines = [json.dumps({"source": " ".join(map(str, row))}) for row in cells]
    else:
        lines = [json.dumps({"features": row}) for row in cells]
    return "\n".join(lines).encode()


def _plain(cell: Any, kind: str) -> Any:
    if kind in WHOLE and isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if kind in ("double", "float") and isinstance(cell, int):
        return float(cell)
    return str(cell) if kind == "string" else cell


# --------------------------------------------------------------------------------------------------- the saved pipeline
def find(source: Source) -> list[Path]:
    """The folder of a saved pipeline, or an MLeap bundle: the archive's top, or one below."""
    below = visible(source.model_dir)
    folders = [source.model_dir, *(path for path in below if path.is_dir())]
    found = [folder for folder in folders if (folder / "stages").is_dir() and _metadata_file(folder) is not None]
    return (found or [path for path in [source.model_dir, *below] if mleap.found_at(path)])[:1]


def _metadata_file(folder: Path) -> Path | None:
    return next(iter(sorted((folder / "metadata").glob("part-*"))), None)


def read(path: Path, source: Source) -> Pipeline:
    """The converted pipeline of a folder or a bundle. Raises LoadError."""
    if mleap.found_at(path):
        return _pipeline(mleap.stages(path))
    import_module("pyarrow")  # before anything else, so that its absence is what is told
    stages = _stages(path, DEPTH_MAX)
    return _pipeline(stages, lambda why: (spark_session.stage_of(path, why),))


def _refused(why: LoadError) -> tuple[Stage, ...]:
    raise why


def _pipeline(
    stages: Sequence[Saved], otherwise: Callable[[LoadError], tuple[Stage, ...]] = _refused
) -> Pipeline:
    """Stages, converted; `otherwise` takes the place of all where one cannot be. Raises LoadError."""
    made: list[str] = []
    needs: dict[str, None] = {}
    for saved in stages:
        needs.update(dict.fromkeys(name for name in _inputs(saved) if name not in made))
        made += _outputs(saved)
    if not stages:
        raise LoadError("the saved pipeline has no stages")
    kinds = tuple(saved.kind for saved in stages)
    try:
        built = tuple(map(spark_stages.build, stages))
    except LoadError as why:
        built = otherwise(why)
    return Pipeline(built, tuple(needs), made[-1] if made else "", kinds)


def _stages(folder: Path, depth: int) -> list[Saved]:
    """The stages of a saved pipeline, those of pipelines within it in their place."""
    metadata = _metadata(folder)
    if not str(metadata.get("class", "")).endswith(PIPELINE) or depth == 0:
        raise LoadError(f"{folder.name} is a Spark {metadata.get('class')}, not a {PIPELINE}: save the fitted pipeline")
    found: list[Saved] = []
    uids = metadata["paramMap"]["stageUids"]
    for number, uid in enumerate(uids):
        inner = folder / "stages" / f"{number:0{len(str(len(uids)))}d}_{uid}"
        if (inner / "stages").is_dir():
            found += _stages(inner, depth - 1)
        else:
            found.append(_saved(inner))
    return found


def _metadata(folder: Path) -> dict[str, Any]:
    path = _metadata_file(folder)
    try:
        found = json.loads(path.read_text().partition("\n")[0]) if path is not None else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LoadError(f"{folder.name} has no metadata of a Spark ML stage that can be read")
    return found


def _saved(folder: Path) -> Saved:
    metadata = _metadata(folder)
    params = {**metadata.get("defaultParamMap", {}), **metadata.get("paramMap", {})}
    kind = str(metadata.get("class", "")).rpartition(".")[2]
    return Saved(kind, params, metadata, _rows(folder / "data"), _rows(folder / "treesMetadata"))


def _rows(folder: Path) -> list[dict[str, Any]]:
    """What lies in the parquet files of a folder."""
    from pyarrow import parquet

    files = [path for path in visible(folder) if path.suffix == ".parquet"]
    return [row for path in files for row in parquet.ParquetFile(path).read().to_pylist()]


def _inputs(saved: Saved) -> list[str]:
    names = saved.params.get("inputCols") or [saved.params.get("inputCol") or saved.params.get("featuresCol")]
    return [str(name) for name in names if name]


def _outputs(saved: Saved) -> list[str]:
    names = list(saved.params.get("outputCols") or [])
    if not names and _inputs(saved) and not saved.params.get("featuresCol"):
        names = [saved.params.get("outputCol")]
    made = [saved.params.get(name) for name in ("rawPredictionCol", "probabilityCol", "predictionCol")]
    return [str(name) for name in [*names, *made] if name]


def serve(objects: Sequence[Any], source: Source) -> SparkPipeline:
    """The one pipeline."""
    return SparkPipeline(objects[0], source.env)


def defaults(load: Callable[[str], Any]) -> Defaults:
    """Handlers for a script: rows by the schema of the environment are not known here, so columns as a dictionary."""
    return Defaults(load, lambda body, kind: json.loads(body), _predict)


def _predict(columns: Mapping[str, Any], pipeline: Pipeline) -> Array:
    """The last column that the pipeline makes of a dictionary of columns."""
    given: Columns = {name: np.asarray(values) for name, values in columns.items()}
    for stage in pipeline.stages:
        stage(given)
    return given[pipeline.makes]


FRAMEWORK = Framework(
    name="spark",
    library="pyarrow",
    images=("sparkml", "eyrie/spark"),
    wanted="a folder of Spark's PipelineModel.save, an MLeap bundle",
    find=find,
    read=read,
    serve=serve,
    defaults=defaults,
)
