"""Bytes to rows and predictions to bytes: what the real containers accept, send and refuse.

On the path of every invocation: `app` -> `decode` -> `batcher` -> model -> the model's own encoding, which is built
from the functions at the end of this page. Rows are a list of lists of numbers (fast for one row), or a 2-D array
(fast for many).
"""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from eyrie.modelserver import recordio, sparse

CSV = "text/csv"
JSON = "application/json"
JSONLINES = "application/jsonlines"
NPY = "application/x-npy"
LIBSVM = "text/libsvm"
X_LIBSVM = "text/x-libsvm"
RECORDIO = "application/x-recordio-protobuf"
NPZ = "application/x-npz"
SPARSE = (LIBSVM, X_LIBSVM, RECORDIO, NPZ)

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = list[list[Any]] | Array

NAN = float("nan")
LINES_BYTES_MAX = 65_536  # of lines that are quicker read as JSON than by NumPy
MANY_SCORES = 64  # in one answer: worth more than a `str` for each
SCORE_PLAIN_FROM, SCORE_PLAIN_TO = 2e-4, 1e15  # within these nobody writes a float with an exponent
SHOWN_CHARS_MAX = 80  # of a client's own text inside an error message
_FORMATS = {"float32": "f", "float64": "d"}  # of `struct`
_numbers = msgspec.json.Decoder(list[list[float]]).decode


class Refused(Exception):
    """A request that gets an answer other than 200; `status` is HTTP's, the message is for people."""

    status = 500


class BadPayload(Refused):
    """400: the body is not what its content type says, or does not fit the model."""

    status = 400


class UnsupportedType(Refused):
    """415: nobody here reads this content type."""

    status = 415


class NotAcceptable(Refused):
    """406: none of the types that the client accepts can be written."""

    status = 406


@dataclass(frozen=True, slots=True)
class RowShape:
    """What rows a model takes."""

    width: int | None = None  # numbers in a row; None: the model does not say
    names: tuple[str, ...] = ()  # of the columns, where the model knows them
    absent: float = NAN  # what a libsvm row means by a column that it leaves out
    strings: bool = False  # categories as text are passed on; otherwise they are refused here
    dtype: str = "float64"  # of the array that the model is given
    text: bool = False  # a row is one text, kept as it is


def media_type(header: str) -> str:
    """The type of a Content-Type header, in lower case and without its parameters."""
    return header.partition(";")[0].strip().lower()


def decode(body: bytes, content_type: str, shape: RowShape) -> Rows:
    """Rows of a request body, all of one width. Raises UnsupportedType or BadPayload."""
    kind = content_type if content_type == CSV else media_type(content_type)
    if shape.text and kind in (CSV, JSON, JSONLINES):
        return _texts(body, content_type, kind)
    if kind == CSV:
        rows = _fast_csv(body, shape)
        return rows if rows is not None and _fits(rows, shape) else _csv(body, content_type, shape)
    if kind == JSON:
        return _checked(_json_rows(_load_json(body), shape), shape)
    if kind == JSONLINES:
        return _checked(_json_lines(body, shape), shape)
    if kind == NPY:
        return _checked(_npy(body, shape), shape)
    if kind in SPARSE:
        return _checked(_sparse(body, kind, shape), shape)
    raise UnsupportedType(
        f"Content type {_show(kind)} is not supported. Supported content types are "
        f"{', '.join((CSV, JSON, JSONLINES, NPY, *SPARSE))}."
    )


def guess_type(body: bytes) -> str:
    """The content type of a body that came without one: libsvm has colons, JSON its brackets, the rest is taken for
    CSV.
    """
    start = body[:256].lstrip()
    if start[:1] in (b"[", b"{"):
        return JSON
    return LIBSVM if b":" in start else CSV


# ---------------------------------------------------------------------------------------------------------------- CSV
def one_line(body: bytes, content_type: str) -> bytes | None:
    """A body that is one row of CSV, not read yet; None for any other. Several are quicker read together."""
    if content_type != CSV:
        return None
    line = body.strip(b"\r\n")
    return line if line and b"\n" not in line and b"\r" not in line else None


_MINUS_ZERO = re.compile(rb"-0(?:[^.eE\d]|$)")


def read_lines(lines: Sequence[bytes], shape: RowShape) -> Array | None:
    """Rows of plain decimal numbers, each of the model's width, in one go: a fifth of the time of `float`. None where
    anything is otherwise, for others to look at: what is read here is what `decode` reads.
    """
    text = b"\n".join(lines)
    return _read_text(text, shape) if text.count(b"\n") == len(lines) - 1 else None


def _read_text(text: bytes, shape: RowShape) -> Array | None:
    """The same for the lines of one text."""
    if shape.text or b"]" in text or b"\r" in text:
        return None  # what JSON takes for something else than CSV does
    if _MINUS_ZERO.search(text):  # nor has it one among its whole numbers
        return None
    try:
        rows = _numbers(b"[[%b]]" % text.replace(b"\n", b"],["))
    except msgspec.DecodeError:
        return None
    widths = set(map(len, rows))
    width = shape.width or len(rows[0])
    if widths != {width} or not width:
        return None
    return _packed(rows, width, shape.dtype)


def _packed(rows: list[list[float]], width: int, dtype: str) -> Array:
    """A 2-D array of rows of one width."""
    try:
        packed = struct.pack(f"{len(rows) * width}{_FORMATS[dtype]}", *chain.from_iterable(rows))
    except (KeyError, OverflowError):  # beyond float32 is infinity, as everywhere in this field
        with np.errstate(over="ignore"):
            return np.array(rows, dtype=dtype)
    return np.frombuffer(bytearray(packed), dtype=dtype).reshape(-1, width)


def _fast_csv(body: bytes, shape: RowShape) -> Rows | None:
    """Plain numbers, commas and newlines; None when there is anything else, for the careful reader to look at."""
    if b"_" in body:  # float() reads 1_000, no CSV means that
        return None
    text = body.strip(b"\r\n")
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            return None
    try:
        if b"\n" not in text:
            return [list(map(float, text.split(b",")))]
        rows = _read_text(text, shape) if len(text) <= LINES_BYTES_MAX else None
        if rows is not None:
            return rows
        if not text.isascii():  # NumPy's reader would take it for something else
            return None
        return np.loadtxt(io.BytesIO(text), delimiter=",", comments=None, ndmin=2)
    except ValueError:
        return None


def _fits(rows: Rows, shape: RowShape) -> bool:
    return shape.width is None or len(rows[0]) == shape.width


def _csv(body: bytes, content_type: str, shape: RowShape) -> Rows:
    """CSV with quotes, other delimiters, missing values, a header row or text, told from each other or refused with
    the place.
    """
    text = _utf8(body, "CSV").strip("\r\n")
    delimiter = _delimiter(text.partition("\n")[0])
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if line]
    except csv.Error as error:
        raise BadPayload(f"the body is not CSV: {error}") from None
    if not lines:
        raise BadPayload("the body holds no rows")
    lines, order = _header(lines, content_type, shape)
    rows = [[_number(cell.strip(), r, c, shape) for c, cell in enumerate(line)] for r, line in enumerate(lines)]
    _same_width(rows)
    if order is not None:
        rows = [[row[i] for i in order] for row in rows]
    return _checked(rows, shape)


def _delimiter(line: str) -> str:
    for mark in (",", ";", "\t", " "):
        if mark in line:
            return mark
    return ","


def _header(lines: list[list[str]], content_type: str, shape: RowShape) -> tuple[list[list[str]], list[int] | None]:
    """The lines without a header row, and the order that its names put the columns in (None: as they come)."""
    first = [cell.strip() for cell in lines[0]]
    declared = "header=present" in content_type.replace(" ", "").lower()
    named = bool(shape.names) and set(shape.names) <= set(first)
    if not declared and not named:
        return lines, None
    if len(lines) == 1:
        raise BadPayload("the body holds a header row and nothing else")
    if not named:
        return lines[1:], None
    if len(set(first)) != len(first):
        raise BadPayload("the header row names a column twice")
    if any(len(line) != len(first) for line in lines[1:]):
        raise BadPayload(f"the header row names {len(first)} columns, and a row below it has another number of values")
    return lines[1:], [first.index(name) for name in shape.names]


def _number(cell: str, row: int, column: int, shape: RowShape) -> Any:
    if not cell:
        return NAN
    try:
        if "_" in cell:
            raise ValueError
        return float(cell)
    except ValueError:
        if shape.strings:
            return cell
        hint = "; header rows are read only where the model knows its columns' names" if row == column == 0 else ""
        raise BadPayload(f"row {row + 1}, column {column + 1}: {_show(cell)} is not a number{hint}") from None


# --------------------------------------------------------------------------------------------------------------- JSON
def _load_json(body: bytes) -> Any:
    try:
        return json.loads(_utf8(body, "JSON"))
    except ValueError as error:
        raise BadPayload(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadPayload("the JSON is nested too deeply") from None


def _json_rows(value: Any, shape: RowShape) -> Rows:
    """Rows of a JSON document: a row, a list of rows, {"instances": [...]}, {"inputs"|"data": ...} or {"columns",
    "data"}.
    """
    if isinstance(value, dict):
        value = _unwrapped(value, shape)
    if not isinstance(value, list):
        raise BadPayload(f"the JSON holds {_kind(value)} where a row or a list of rows is wanted")
    if not value:
        raise BadPayload("the body holds no rows")
    if not isinstance(value[0], list | dict):
        value = [value]
    return [_json_row(row, r, shape) for r, row in enumerate(value)]


def _unwrapped(value: dict[str, Any], shape: RowShape) -> Any:
    """What is inside the objects that rows come wrapped in."""
    inner: Any = value
    while isinstance(inner, dict):
        if "columns" in inner and "data" in inner:
            return _split_frame(inner["columns"], inner["data"], shape)
        if shape.names and set(shape.names) <= inner.keys():
            return [inner]
        key = next((key for key in ("instances", "inputs", "data", "features", "values") if key in inner), None)
        if key is None:
            raise BadPayload(
                'the JSON object has none of "instances", "inputs", "data", "features"' + _names_hint(shape)
            )
        inner = inner[key]
    return inner


def _split_frame(names: Any, rows: Any, shape: RowShape) -> Any:
    if not isinstance(names, list) or not isinstance(rows, list):
        raise BadPayload('"columns" and "data" must be lists')
    return [_zipped(names, row) for row in rows] if shape.names else rows


def _zipped(names: list[Any], row: Any) -> dict[str, Any]:
    if not isinstance(row, list) or len(row) != len(names):
        raise BadPayload('a row of "data" does not have as many values as there are "columns"')
    return {str(name): value for name, value in zip(names, row, strict=True)}


def _json_row(row: Any, number: int, shape: RowShape) -> list[Any]:
    if isinstance(row, dict):
        if shape.names and set(shape.names) <= row.keys():
            row = [row[name] for name in shape.names]
        elif shape.names and not row.keys() & {"features", "data", "values", "inputs"}:
            missing = sorted(set(shape.names) - row.keys())
            raise BadPayload(f"row {number + 1} lacks the column {_show(missing[0])}")
        else:
            row = _unwrapped(row, shape)
    if not isinstance(row, list):
        raise BadPayload(f"row {number + 1} is {_kind(row)}, not a list of numbers")
    return [_json_cell(cell, number, c, shape) for c, cell in enumerate(row)]


def _json_cell(cell: Any, row: int, column: int, shape: RowShape) -> Any:
    if isinstance(cell, float):
        return cell
    if isinstance(cell, int):  # and bool
        return _finite(cell, row, column)
    if cell is None:
        return NAN
    if isinstance(cell, str):
        return _number(cell.strip(), row, column, shape)
    raise BadPayload(f"row {row + 1}, column {column + 1} is {_kind(cell)}, not a number")


def _finite(cell: int, row: int, column: int) -> float:
    try:
        return float(cell)
    except OverflowError:
        raise BadPayload(f"row {row + 1}, column {column + 1} is too large a number") from None


def _json_lines(body: bytes, shape: RowShape) -> Rows:
    rows: list[list[Any]] = []
    for line in body.splitlines():
        if not line.strip():
            continue
        value = _load_json(line)
        value = _unwrapped_line(value, shape)
        rows.append(_json_row(value, len(rows), shape))
    if not rows:
        raise BadPayload("the body holds no rows")
    return rows


def _unwrapped_line(value: Any, shape: RowShape) -> Any:
    """The row of one line; `{"instances": [row]}` on a line of its own is one row too."""
    if isinstance(value, dict) and not (shape.names and set(shape.names) <= value.keys()) and "instances" in value:
        value = value["instances"]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list | dict):
        return value[0]
    return value


# --------------------------------------------------------------------------------------------------------------- texts
def _texts(body: bytes, content_type: str, kind: str) -> Rows:
    """Rows of one text each: a line of CSV, a text of a JSON list, or a row that is a list with one text."""
    if kind == CSV:
        values: list[Any] = _text_lines(body, content_type)
    elif kind == JSON:
        value = _unwrapped_text(_load_json(body))
        values = value if isinstance(value, list) else [value]
    else:
        values = [_unwrapped_text(_load_json(line)) for line in body.splitlines() if line.strip()]
    if not values:
        raise BadPayload("the body holds no rows")
    rows: list[list[Any]] = []
    for number, value in enumerate(values):
        cells = _unwrapped_text(value)
        if isinstance(cells, list) and len(cells) == 1:
            cells = cells[0]
        if not isinstance(cells, str):
            what = f"{len(cells)} values" if isinstance(cells, list) else _kind(cells)
            raise BadPayload(f"row {number + 1} is {what} where one text is wanted")
        rows.append([cells])
    return rows


def _text_lines(body: bytes, content_type: str) -> list[list[str]]:
    try:
        read = csv.reader(io.StringIO(_utf8(body, "CSV").strip("\r\n"), newline=""), strict=True)
        lines = [line for line in read if line]
    except csv.Error as error:
        raise BadPayload(f"the body is not CSV: {error}") from None
    return _header(lines, content_type, RowShape())[0] if lines else []


def _unwrapped_text(value: Any) -> Any:
    return _unwrapped(value, RowShape()) if isinstance(value, dict) else value


# ------------------------------------------------------------------------------------------------- npy, sparse rows
def _npy(body: bytes, shape: RowShape) -> Array:
    """Rows in NumPy's format. One dimension is taken for one row."""
    array = read_npy(body, "biufUS" if shape.strings else "biuf", 2)
    if shape.text:
        return array.reshape(-1, 1) if array.ndim == 1 else array
    return array.reshape(1, -1) if array.ndim == 1 else array


def read_npy(body: bytes, kinds: str, dims_max: int) -> Array:
    """An array in NumPy's format, of these kinds of dtype and 1 to `dims_max` dimensions: never pickles. It shares the
    body's bytes. Raises BadPayload.
    """
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dims, fortran, dtype = read(stream)
    except (ValueError, SyntaxError, RecursionError, MemoryError, OverflowError, TypeError, KeyError) as error:
        raise BadPayload(f"the body is not an .npy array: {_show(str(error))}") from None
    if dtype.kind not in kinds:
        raise BadPayload(f"an array of {_show(str(dtype))} is not accepted, only numbers")
    count = 1
    for size in dims:
        count *= size
    if count <= 0 or not 1 <= len(dims) <= dims_max:
        wanted = "a list of rows" if dims_max == 2 else "a tensor"
        raise BadPayload(f"an array of shape {_show(str(dims))} is not {wanted}")
    offset = stream.tell()
    if count * dtype.itemsize != len(body) - offset:  # before anything of the claimed size is reserved
        raise BadPayload("the array is not as long as its header says")
    flat = np.frombuffer(body, dtype=dtype, count=count, offset=offset)
    return flat.reshape(dims, order="F" if fortran else "C")


def _sparse(body: bytes, kind: str, shape: RowShape) -> Array:
    """libsvm, RecordIO or .npz: what a row leaves out is absent."""
    try:
        if kind == RECORDIO:
            return recordio.read(body, shape.width, shape.absent)
        if kind == NPZ:
            return sparse.npz_rows(body, lambda data: read_npy(data, "biuf", 1))
        return sparse.dense(sparse.libsvm_rows(_utf8(body, "libsvm")), shape.width, shape.absent, len(body), "libsvm")
    except ValueError as error:
        raise BadPayload(str(error)) from None


# ------------------------------------------------------------------------------------------------------------- checks
def _checked(rows: Rows, shape: RowShape) -> Rows:
    """The rows, all of one width and that of the model. Raises BadPayload."""
    if not isinstance(rows, np.ndarray):
        _same_width(rows)
    width = len(rows[0])
    if shape.width is not None and width != shape.width:
        raise BadPayload(
            f"Feature size of inference data {width} is not consistent with "
            f"feature size of trained model {shape.width}."
        )
    if width == 0:
        raise BadPayload("row 1 holds no values")
    return rows


def _same_width(rows: Sequence[Sequence[Any]]) -> None:
    width = len(rows[0])
    for number, row in enumerate(rows):
        if len(row) != width:
            raise BadPayload(f"row {number + 1} has {len(row)} values where row 1 has {width}")


def _names_hint(shape: RowShape) -> str:
    return f", nor every column of the model ({_show(', '.join(shape.names))})" if shape.names else ""


def _utf8(body: bytes, what: str) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadPayload(f"the body is not {what}: it is not UTF-8 text") from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _show(text: str) -> str:
    return ascii(text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "...")


# ------------------------------------------------------------------------------------------------------------- Accept
@lru_cache(maxsize=256)
def negotiate(accept: str, offers: tuple[str, ...], default: str) -> str:
    """The type to answer with: the client's best that is offered, the default for none or */*. Raises NotAcceptable."""
    best, best_rank = "", (0.0, 0, 0.0)
    for position, part in enumerate(accept.split(",")):
        wanted, _, parameters = part.partition(";")
        wanted = wanted.strip().lower()
        quality = _quality(parameters)
        match = _match(wanted, offers, default)
        rank = (quality, -wanted.count("*"), -float(position))
        if match and quality > 0 and (not best or rank > best_rank):
            best, best_rank = match, rank
    if best:
        return best
    if not accept.strip():
        return default
    raise NotAcceptable(
        f"Accept type {_show(accept)} is not supported. Supported accept types are {', '.join(offers)}."
    )


def _match(wanted: str, offers: tuple[str, ...], default: str) -> str:
    if wanted in ("*/*", "*"):
        return default
    if wanted.endswith("/*"):
        family = wanted[:-1]
        return default if default.startswith(family) else next((o for o in offers if o.startswith(family)), "")
    return wanted if wanted in offers else ""


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


# ----------------------------------------------------------------------------------------------------------- encoding
def encode_plain(values: Array, kind: str) -> bytes:
    """Predictions as the serving toolkits write them: a JSON list, a CSV line a row, a JSON value a line, or .npy."""
    if kind == JSON:
        return json.dumps(values.tolist(), default=str).encode()
    if kind == JSONLINES:
        return "".join(json.dumps(value, default=str) + "\n" for value in values.tolist()).encode()
    if kind == CSV:
        return _csv_lines(values.tolist() if values.ndim > 1 else ([value] for value in values.tolist()))
    if kind == NPY:
        return encode_npy(values)
    raise NotAcceptable(f"Accept type {_show(kind)} is not supported.")


def _csv_lines(rows: Iterable[list[Any]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()


def encode_npy(values: Array) -> bytes:
    """An .npy file of an array of numbers or text. Raises NotAcceptable for one of objects, which only a pickle could
    hold.
    """
    if values.dtype.kind not in "biufcUS":
        values = np.array([str(value) for value in values.ravel().tolist()]).reshape(values.shape)
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def encode_scores(values: Array, kind: str, lines: bool) -> bytes:
    """Predictions as the XGBoost container writes them; `lines` is its batch transform form (one a line, for CSV)."""
    if kind == CSV:
        if values.size == 1 and values.ndim == 1 and not lines:
            return b"%a" % values.item()
        if values.ndim == 1 and len(values) >= MANY_SCORES and values.dtype in (np.float32, np.float64):
            return _many_scores(values, b"\n") + b"\n" if lines else _many_scores(values, b",")
        texts = map(str, values.tolist())
        return ("\n".join(texts) + "\n" if lines else ",".join(texts)).encode()
    if kind == JSON:
        return json.dumps({"predictions": [{"score": value} for value in values.tolist()]}).encode()
    if kind == JSONLINES:
        return "".join(json.dumps({"score": value}) + "\n" for value in values.tolist()).encode()
    if kind == NPY:
        return encode_npy(values)
    if kind == RECORDIO:
        return recordio.write([{"score": value} for value in values])
    raise NotAcceptable(f"Accept type {_show(kind)} is not supported.")


def encode_scores_each(values: Array, kind: str, lines: bool) -> list[bytes]:
    """What `encode_scores` writes for each prediction alone."""
    if kind == CSV and values.ndim == 1 and not lines:
        return [b"%a" % value for value in values.tolist()]
    return [encode_scores(value, kind, lines) for value in values[:, None]]


def _many_scores(values: Array, joint: bytes) -> bytes:
    """Floating-point numbers as `str` writes them, in a fifth of its time: msgspec finds the same digits, and writes
    them alike where neither of the two takes an exponent.
    """
    given = values.tolist()
    texts: list[bytes] = msgspec.json.encode(given)[1:-1].split(b",")
    sizes = np.abs(values)
    alike = ((sizes >= SCORE_PLAIN_FROM) & (sizes < SCORE_PLAIN_TO)) | (sizes == 0)
    for number in np.flatnonzero(~alike).tolist():
        texts[number] = str(given[number]).encode()
    return joint.join(texts)


def encode_selected(records: list[dict[str, Any]], kind: str) -> bytes:
    """Chosen outputs (SAGEMAKER_INFERENCE_OUTPUT), one record a row, in the XGBoost container's forms."""
    if kind == JSON:
        return json.dumps({"predictions": records}).encode()
    if kind == JSONLINES:
        return "".join(json.dumps(record) + "\n" for record in records).encode()
    if kind == CSV:
        return _csv_lines(list(record.values()) for record in records).rstrip(b"\n")
    if kind == RECORDIO:
        return recordio.write(records)
    raise NotAcceptable(f"Accept type {_show(kind)} is not supported.")
