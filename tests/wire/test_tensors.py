"""Tensors in their three spellings, against NumPy."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eyrie.wire import tensors
from eyrie.wire.tensors import Tensor, TensorError

KINDS = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def arrays() -> st.SearchStrategy[tuple[str, Any]]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
    return st.sampled_from(sorted(KINDS)).flatmap(
        lambda name: st.tuples(
            st.just(name),
            hnp.arrays(KINDS[name], shapes, elements={"allow_subnormal": False} if name.startswith("FP") else None),
        )
    )


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@given(arrays())
@settings(max_examples=60, deadline=None)
def test_every_spelling_says_the_same(made: tuple[str, Any]) -> None:
    datatype, array = made
    raw = tensors.from_raw("x", datatype, array.shape, array.tobytes())
    assert np.array_equal(np.load(io.BytesIO(tensors.to_npy(raw))), array, equal_nan=True)
    assert tensors.to_raw(raw) == array.tobytes()
    assert tensors.from_npy("x", saved(array)) == raw
    assert tensors.from_npy("x", saved(np.asfortranarray(array))) == raw
    assert tensors.from_npy("x", saved(array.astype(array.dtype.newbyteorder(">")))) == raw
    assert np.array_equal(np.array(tensors.nested(raw), array.dtype).reshape(array.shape), array, equal_nan=True)
    if datatype.startswith("FP") and not np.isfinite(array).all():
        return
    for data in (array.tolist(), array.ravel().tolist()):
        if math.prod(array.shape) or data == []:
            got = tensors.from_json("x", datatype, array.shape, json.loads(json.dumps(data)))
            assert np.array_equal(np.load(io.BytesIO(tensors.to_npy(got))), array)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6))
@settings(deadline=None)
def test_text_travels_in_each(texts: list[str]) -> None:
    tensor = tensors.from_json("t", "BYTES", (len(texts), 1), texts)
    assert tensors.from_raw("t", "BYTES", (len(texts), 1), tensors.to_raw(tensor)) == tensor
    assert tensors.nested(tensor) == [[text] for text in texts]
    array = np.array(texts)
    assert tensors.values(tensors.from_npy("t", saved(array))) == array.tolist()
    ascii_only = np.array([text.encode("ascii", "ignore") for text in texts])
    found = tensors.from_npy("t", saved(ascii_only))
    assert found.data == [text.rstrip(b"\0") for text in ascii_only.tolist()]


def test_half_a_float_is_widened() -> None:
    wide = np.array([1.5, -2.0, math.inf], np.float32)
    half = (wide.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    got = tensors.from_raw("x", "BF16", (3,), half)
    assert (got.datatype, got.data) == ("FP32", wide.tobytes())


def test_null_is_not_a_number() -> None:
    (first, second) = tensors.values(tensors.from_json("x", "FP32", (2,), [None, 1]))
    assert math.isnan(first)
    assert second == 1.0


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", (2,), [1]),
        ("FP32", (2,), "ab"),
        ("FP32", (2,), None),
        ("FP32", (2,), ["1", "2"]),
        ("FP32", (2, 2), [[1, 2], [3]]),
        ("FP32", (2, 2), [[1, 2], 3]),
        ("FP32", (2, 2), [[[1, 2]], [[3, 4]]]),
        ("FP32", (10**9, 0), [[]]),
        ("FP16", (1,), [1e6]),
        ("INT8", (1,), [128]),
        ("INT8", (1,), [1.0]),
        ("INT64", (1,), [None]),
        ("INT64", (1,), [2**63]),
        ("UINT8", (1,), [-1]),
        ("BOOL", (1,), [2]),
        ("BOOL", (1,), ["true"]),
        ("BYTES", (1,), [1]),
        ("BYTES", (1,), [None]),
        ("FP64", (1,), [10**400]),
    ],
)
def test_json_data_that_does_not_fit_is_refused(datatype: str, shape: tuple[int, ...], data: Any) -> None:
    with pytest.raises(TensorError, match="tensor 'x'"):
        tensors.from_json("x", datatype, shape, data)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", (2,), b"1234567"),
        ("FP32", (2**31 - 1, 2**31 - 1), b""),
        ("BOOL", (1,), b"\x02"),
        ("BYTES", (1,), b"\x05\x00\x00\x00abc"),
        ("BYTES", (1,), b"\x05\x00"),
        ("BYTES", (1,), b"\xff\xff\xff\xffabc"),
        ("BYTES", (2,), b"\x00\x00\x00\x00"),
        ("BYTES", (1,), b"\x00\x00\x00\x00" * 2),
        ("BYTES", (1,), b""),
    ],
)
def test_raw_data_that_does_not_fit_is_refused(datatype: str, shape: tuple[int, ...], raw: bytes) -> None:
    with pytest.raises(TensorError, match="tensor 'x'"):
        tensors.from_raw("x", datatype, shape, raw)


def header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        header("{"),
        header("[]"),
        header("{'descr': 1, 'fortran_order': False, 'shape': (1,)}"),
        header("{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}", b"12345678"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': 1}", b"12345678"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", b"12345678"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", b"12345678"),
        header("{'descr': '<f8', 'fortran_order': True, 'shape': (1000000000000, 0)}", b"1"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"12345678"),
        header("{'descr': '<c16', 'fortran_order': False, 'shape': (1,)}", b"1234567812345678"),
        header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff\xff\xff\xff"),
        header("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}"),
        header("(" * 5_000),
        header("__import__('os')"),
    ],
)
def test_arrays_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(TensorError):
        tensors.from_npy("x", body)


def test_an_array_without_elements_costs_nothing() -> None:
    body = header("{'descr': '<f8', 'fortran_order': True, 'shape': (1000000000000, 0)}")
    assert tensors.from_npy("x", body).data == b""


@pytest.mark.parametrize(
    ("found", "datatype", "shape"),
    [
        ([1, 2], "INT64", (2,)),
        ([1, 2.5, None], "FP64", (3,)),
        ([[1.0], [2.0]], "FP64", (2, 1)),
        ([True], "BOOL", (1,)),
        ([["a", "b"]], "BYTES", (1, 2)),
        ([], "INT64", (0,)),
        ([[], []], "INT64", (2, 0)),
    ],
)
def test_lists_are_tensors(found: list[Any], datatype: str, shape: tuple[int, ...]) -> None:
    tensor = tensors.from_list("x", found)
    assert tensor is not None
    assert (tensor.datatype, tensor.shape) == (datatype, shape)


@pytest.mark.parametrize("found", [[[1], [1, 2]], [[1], 2], [1, "a"], [{}], [True, 1], [2**64], [[[[1]], [1]]]])
def test_some_lists_are_none(found: list[Any]) -> None:
    assert tensors.from_list("x", found) is None


def test_columns_become_rows() -> None:
    one = tensors.from_json("a", "FP64", (2,), [1, None])
    two = tensors.from_json("b", "BYTES", (2, 1), ["x", "y"])
    assert tensors.columns([one, two]) == [[1.0, "x"], [None, "y"]]
    assert tensors.columns([one, Tensor("c", "UINT8", (1,), b"1")]) is None
    assert tensors.columns([Tensor("c", "UINT8", (2, 2), b"1234")]) is None
