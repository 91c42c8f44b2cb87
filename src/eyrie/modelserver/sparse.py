"""Rows that leave out what is absent: lines of libsvm, and scipy's sparse matrices in .npz files.

On the path of an invocation: `codecs.decode` -> here; the models get dense rows. A body of a few bytes can claim rows
of any size, so each function knows before it reserves memory how much that will be. All raise ValueError with a message
for the client.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Pairs: TypeAlias = tuple[Sequence[int] | Array, Sequence[float] | Array]  # the columns of a row, and their values

CELLS_MAX = 1 << 27  # of the dense rows of one request: 1 GiB as float64
UNTOLD_FACTOR = 64  # cells for each byte of a body, where neither it nor the model says how wide the rows are
WORD_CHARS_MAX = 80  # of a client's own text inside an error message
NPZ_FACTOR = 32  # so many times larger than an .npz file its members may be together
MEMBERS_MAX = 8
_PARTS = ("data", "indices", "indptr")


def dense(rows: Sequence[Pairs], width: int | None, absent: float, body_bytes: int, what: str) -> Array:
    """Rows as wide as the model (None: as the largest column says), what they leave out as `absent`."""
    if width is None:
        width = 1 + max((int(max(columns)) for columns, _ in rows if len(columns)), default=0)
        if width * len(rows) > UNTOLD_FACTOR * max(body_bytes, 1024):
            raise ValueError("the rows are too sparse for a model that does not say how wide they are")
    reserve(len(rows), width)
    filled = np.full((len(rows), width), absent)
    for number, (columns, values) in enumerate(rows):
        if len(columns) != len(values):
            raise ValueError(f"row {number + 1} has {len(columns)} columns and {len(values)} values")
        if len(columns) and max(columns) >= width:
            raise ValueError(
                f"Feature size of {what} inference data {int(max(columns)) + 1} is larger than "
                f"feature size of trained model {width}."
            )
        filled[number, columns] = values
    return filled


def reserve(rows: int, width: int) -> None:
    """Refuse more rows than fit."""
    if rows * width > CELLS_MAX:
        raise ValueError(f"{rows} rows of {width} columns are more than {CELLS_MAX} numbers: send fewer rows at once")


# ------------------------------------------------------------------------------------------------------------- libsvm
def libsvm_rows(text: str) -> list[Pairs]:
    """`[label] index:value ...` a line, indexes as the model was trained on."""
    rows = [pairs for line in text.splitlines() if (pairs := _pairs(line)) is not None]
    if not rows:
        raise ValueError("the body holds no rows")
    return rows


def _pairs(line: str) -> Pairs | None:
    """Columns and values of one line; None for an empty line or a comment."""
    words = line.partition("#")[0].split()
    if not words:
        return None
    columns, values = list[int](), list[float]()
    for position, word in enumerate(words):
        index, colon, value = word.partition(":")
        if not colon and position == 0:
            continue  # the label
        if index == "qid":
            continue
        if not (colon and index.isascii() and index.isdigit() and len(index) < 10):
            raise ValueError(_no_pair(word))
        columns.append(int(index))
        values.append(_value(word, value))
    return columns, values


def _value(word: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(_no_pair(word)) from None


def _no_pair(word: str) -> str:
    shown = word if len(word) <= WORD_CHARS_MAX else word[:WORD_CHARS_MAX] + "..."
    return f"{shown!a} is not of the form index:value"


# ---------------------------------------------------------------------------------------------------------------- npz
def npz_rows(body: bytes, read_npy: Callable[[bytes], Array]) -> Array:
    """`scipy.sparse.save_npz` of a CSR or CSC matrix; `read_npy` reads one array of numbers."""
    members = _members(body)
    missing = {"format", "shape", *_PARTS} - members.keys()
    form = members.get("format", b"")[-3:]  # an array of no dimensions: its bytes are the last ones
    if missing or form not in (b"csr", b"csc"):
        raise ValueError("the .npz file holds no CSR or CSC matrix of scipy.sparse")
    shape = read_npy(members["shape"]).tolist()
    if len(shape) != 2 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError("the matrix has no rows, or no columns")
    reserve(shape[0], shape[1])
    return _filled((shape[0], shape[1]), {name: read_npy(members[name]) for name in _PARTS}, form == b"csr")


def _members(body: bytes) -> dict[str, bytes]:
    """The arrays of an .npz file, by name. Looks at their sizes before it unpacks them."""
    import zipfile  # only here: nothing that a model needs to start
    import zlib

    try:
        with zipfile.ZipFile(io.BytesIO(body)) as file:
            members = file.infolist()
            if len(members) > MEMBERS_MAX or sum(one.file_size for one in members) > NPZ_FACTOR * max(len(body), 1024):
                raise ValueError("the .npz file unpacks to more than is read here")
            return {one.filename.removesuffix(".npy"): file.read(one) for one in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise ValueError(f"the body is not an .npz file: {str(error)[:WORD_CHARS_MAX]!a}") from None


def _filled(shape: tuple[int, int], arrays: dict[str, Array], by_row: bool) -> Array:
    """The matrix, checked: its parts agree with each other, and nothing lies outside."""
    data, indices, starts = (arrays[name].reshape(-1) for name in ("data", "indices", "indptr"))
    lines, places = shape if by_row else shape[::-1]
    if data.dtype.kind not in "biuf" or indices.dtype.kind not in "iu" or starts.dtype.kind not in "iu":
        raise ValueError("the matrix holds something else than numbers")
    bounds: NDArray[np.int64] = starts.astype(np.int64)
    counts = bounds[1:] - bounds[:-1]
    agree = len(starts) == lines + 1 and len(data) == len(indices) == int(counts.sum()) and not (counts < 0).any()
    if not agree or (len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < places):
        raise ValueError("the parts of the matrix do not agree")
    filled = np.zeros(shape)
    along = np.repeat(np.arange(lines), counts)
    np.add.at(filled, (along, indices) if by_row else (indices, along), data)
    return filled
