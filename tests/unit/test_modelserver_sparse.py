"""Sparse rows and records: scipy's .npz, RecordIO-protobuf in both directions, and what is refused with which words."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from eyrie.modelserver import codecs, recordio
from eyrie.modelserver.codecs import LIBSVM, NPZ, RECORDIO, BadPayload, RowShape
from eyrie.modelserver.frameworks import sklearn, xgboost
from eyrie.modelserver.protobuf import fields, message, text

THREE = RowShape(width=3, absent=0.0)
ROWS = np.array([[1.5, 0.0, -2.0], [0.0, 0.0, 0.25]])


def saved(matrix: Any, compressed: bool = True) -> bytes:
    out = io.BytesIO()
    scipy.sparse.save_npz(out, matrix, compressed=compressed)
    return out.getvalue()


def tensor(kind: int, values: bytes, *more: bytes) -> bytes:
    return message(kind, message(1, values) + b"".join(more))


def record(value: bytes, name: str = "values") -> bytes:
    """A record of one feature; written by hand, from the published schema."""
    data = message(1, message(1, name.encode()) + message(2, value))
    return struct.pack("<II", recordio.MAGIC, len(data)) + data + bytes(-len(data) % 4)


def refused(body: bytes, kind: str, shape: RowShape = THREE) -> str:
    with pytest.raises(BadPayload) as caught:
        codecs.decode(body, kind, shape)
    return str(caught.value)


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, scipy.sparse.csr_array])
def test_npz(make: Any) -> None:
    for compressed in (True, False):
        body = saved(make(ROWS), compressed)
        assert np.array_equal(codecs.decode(body, NPZ, THREE), ROWS)
        assert np.array_equal(codecs.decode(body, NPZ, RowShape()), ROWS)
    assert "Feature size of inference data 3" in refused(saved(make(ROWS)), NPZ, RowShape(width=4))


def test_npz_refused() -> None:
    assert "is not an .npz file" in refused(b"PK but no archive", NPZ)
    assert "no CSR or CSC matrix" in refused(saved(scipy.sparse.coo_matrix(ROWS)), NPZ)
    wide = scipy.sparse.csr_matrix((1 << 20, 1 << 20))
    wide.indptr = np.zeros(9)  # small itself: what it claims would fill any memory
    assert "send fewer rows at once" in refused(saved(wide), NPZ)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.npy", bytes(50_000_000))
    assert "unpacks to more than is read" in refused(bomb.getvalue(), NPZ)
    outside = scipy.sparse.csr_matrix(ROWS)
    outside.indices[0] = 7
    assert "do not agree" in refused(saved(outside), NPZ)


def test_records_of_numbers() -> None:
    rows = ROWS.astype("<f4")
    floats = b"".join(record(tensor(2, row.tobytes())) for row in rows)
    doubles = b"".join(record(tensor(3, row.astype("<f8").tobytes())) for row in rows)
    for body in (floats, doubles):
        assert np.array_equal(codecs.decode(body, RECORDIO, THREE), ROWS)
    whole = record(tensor(7, bytes([1, 2]) + b"\xff" * 9 + b"\x01"))  # -1 is a varint of ten bytes
    assert np.array_equal(codecs.decode(whole, RECORDIO, THREE), [[1, 2, -1]])
    one_by_one = record(message(2, b"".join(b"\x0d" + struct.pack("<f", value) for value in (1, 2, 3))))
    assert np.array_equal(codecs.decode(one_by_one, RECORDIO, THREE), [[1, 2, 3]])


def test_sparse_records() -> None:
    """Keys say the columns; what is left out is what libsvm leaves out."""
    body = record(tensor(2, struct.pack("<2f", 5, 6), message(2, bytes([2, 0])), message(3, bytes([3]))))
    assert np.array_equal(codecs.decode(body, RECORDIO, THREE), [[6, 0, 5]])
    assert np.array_equal(codecs.decode(body, RECORDIO, RowShape(width=3)), [[6, np.nan, 5]], equal_nan=True)
    outside = record(tensor(2, struct.pack("<f", 5), message(2, bytes([3]))))
    assert "recordio-protobuf inference data 4 is larger than" in refused(outside, RECORDIO)
    assert "1 columns and 2 values" in refused(
        record(tensor(2, struct.pack("<2f", 5, 6), message(2, bytes([1])))), RECORDIO
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "holds no rows"),
        (b"1,2,3", "last record is cut"),
        (b"12345678", "magic number"),
        (struct.pack("<II", recordio.MAGIC, 5), "is cut"),
        (struct.pack("<II", recordio.MAGIC, 1 << 29), "cut into parts"),
        (struct.pack("<II", recordio.MAGIC, 4) + b"\xff\xff\xff\xff", "does not end"),
        (record(message(9, b"text")), "no tensor of numbers"),
        (record(tensor(2, b"123")), "tensor is cut"),
        (record(tensor(2, bytes(8))), "Feature size of inference data 2"),
        (record(tensor(2, bytes(12))) + record(tensor(2, bytes(8))), "different lengths"),
        (record(tensor(2, bytes(4), message(2, b"\xff" * 9 + b"\x01"))), "larger than any column"),
    ],
)
def test_records_refused(body: bytes, said: str) -> None:
    assert said in refused(body, RECORDIO)


def test_predictions_as_records() -> None:
    body = codecs.encode_scores(np.array([[0.25, 0.75], [1.0, 0.0]], dtype="float32"), RECORDIO, lines=False)
    assert body[:4] == struct.pack("<I", recordio.MAGIC)
    assert len(body) % 4 == 0
    size = struct.unpack_from("<I", body, 4)[0]
    label = dict(fields(dict(fields(body[8 : 8 + size]))[2]))
    assert text(label[1]) == "score"
    numbers = dict(fields(dict(fields(label[2]))[2]))[1]
    assert numbers == struct.pack("<2f", 0.25, 0.75)
    chosen = codecs.encode_selected([{"predicted_label": 1, "probabilities": [0.25, 0.75]}], RECORDIO)
    assert b"predicted_label" in chosen
    assert struct.pack("<2f", 0.25, 0.75) in chosen


def test_a_few_bytes_claim_no_memory() -> None:
    """Lines of a label alone are rows as wide as the model: refused before they are made."""
    assert "send fewer rows at once" in refused(b"1\n" * 200_000, LIBSVM, RowShape(width=1_000_000))


def test_chosen_outputs_of_several_labels_a_row() -> None:
    known = xgboost.known("binary:logistic", 0, np.array([[0.9, 0.2]]))
    assert known["predicted_label"] == [[1, 0]]
    assert known["probabilities"] == [[0.9, 0.2]]
    chances = [np.array([[0.1, 0.9]]), np.array([[0.3, 0.7]])]
    found = sklearn.known(np.array([[1, 1]]), [np.array([0, 1]), np.array([0, 1])], chances)
    assert found["probabilities"] == [[[0.1, 0.9], [0.3, 0.7]]]
    assert found["labels"] == [[[0, 1], [0, 1]]]
