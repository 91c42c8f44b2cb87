"""XGBoost's own in-place prediction, called without the checks and conversions of its Python layer.

Those take 100 of the 160 microseconds that one row costs, and the server has made the same checks already. The C
function is public (c_api.h); how Python reaches the library is not, so whatever differs in a version to come makes
`direct` say None, and the ordinary call is used. On the path of every invocation of an XGBoost model.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from eyrie.modelserver.codecs import Array

Predict = Callable[[Array], Array]
TRIED_ROWS = (1, 70, 3)  # the same place for rows is used again, with more of them and with fewer


def direct(booster: Any, trees: tuple[int, int], width: int, ordinary: Predict) -> Predict | None:
    """The quick way to predict with a booster; None where it cannot be had or does not give the ordinary way's very
    bits.
    """
    try:
        quick = _call(booster, trees, width)
        for count in TRIED_ROWS:
            rows = _samples(count, width)
            if not np.array_equal(quick(rows), ordinary(rows), equal_nan=True):
                return None
    except Exception:  # the boundary to a foreign library's inside: any surprise means the ordinary way
        return None
    return quick


def _samples(count: int, width: int) -> Array:
    """Rows with large, small, negative and missing values; the same ones every time."""
    rows = np.random.default_rng(count).normal(scale=100.0, size=(count, width)).astype(np.float32)
    rows[:, ::7] = np.nan
    return rows


def _call(booster: Any, trees: tuple[int, int], width: int) -> Predict:
    from xgboost import core

    if width < 1:
        raise ValueError("rows of no known width")
    settings = json.dumps(
        {
            "type": 0,
            "training": False,
            "iteration_begin": trees[0],
            "iteration_end": trees[1],
            "missing": math.nan,
            "strict_shape": False,
            "cache_id": 0,
        }
    ).encode()
    idle: list[_Desk] = [_Desk(core._LIB, core.XGBoostError)]

    def predict(rows: Array) -> Array:
        """Scores of rows. Raises XGBoostError, and ValueError for an array that C must not see."""
        if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != width or not rows.flags.c_contiguous:
            raise ValueError(f"rows of {rows.dtype} and shape {rows.shape} where {width} contiguous float32 are wanted")
        try:
            desk = idle.pop()
        except IndexError:  # another thread is at it
            desk = _Desk(core._LIB, core.XGBoostError)
        try:
            return desk.predict(booster.handle, rows, settings)
        finally:
            idle.append(desk)

    return predict


class _Desk:
    """What a call needs besides the rows, for one thread at a time: where XGBoost keeps them while it predicts, and
    where it tells of the scores. Made afresh, the first alone takes a third of the call: XGBoost reads its control
    group's limits for each.
    """

    def __init__(self, library: Any, error: type[Exception]) -> None:
        self._library = library
        self._error = error
        self._proxy = ctypes.c_void_p()
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._dimensions = ctypes.c_uint64()
        self._scores = ctypes.POINTER(ctypes.c_float)()
        self._out = tuple(map(ctypes.byref, (self._shape, self._dimensions, self._scores)))
        self._check(library.XGProxyDMatrixCreate(ctypes.byref(self._proxy)))

    def predict(self, booster: Any, rows: Array, settings: bytes) -> Array:
        """Scores of contiguous float32 rows. Raises XGBoostError."""
        address = rows.__array_interface__["data"][0]
        described = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}' % (address, *rows.shape)
        self._check(
            self._library.XGBoosterPredictFromDense(booster, described, settings, self._proxy, *self._out)
        )
        sizes = self._shape[: self._dimensions.value]
        copied = np.frombuffer(ctypes.string_at(self._scores, math.prod(sizes) * 4), dtype=np.float32)
        return copied if len(sizes) == 1 else copied.reshape(sizes)

    def _check(self, failed: int) -> None:
        if failed:
            self._library.XGBGetLastError.restype = ctypes.c_char_p
            raise self._error(self._library.XGBGetLastError().decode(errors="replace"))

    def __del__(self) -> None:
        if self._proxy:
            self._library.XGDMatrixFree(self._proxy)
