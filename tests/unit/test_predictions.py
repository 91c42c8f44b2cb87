"""Reading predictions out of replies: every shape that containers answer, and nothing that raises or grows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from eyrie.decide.predictions import (
    BODY_BYTES_MAX,
    CELLS_MAX,
    LABEL_CHARS_MAX,
    ROWS_MAX,
    Row,
    agree,
    cell_of,
    rows,
    signal,
)

JSON = "application/json"
KINDS = [JSON, "text/csv", "application/jsonlines", "text/plain; charset=utf-8", "application/x-npy", ""]


def of(value: Any) -> tuple[Row, ...] | None:
    return rows(JSON, json.dumps(value).encode())


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"predictions": [0.5, 2]}, (0.5, 2.0)),
        ({"predictions": [{"score": 0.9, "predicted_label": 1}]}, (1.0,)),  # linear learner
        ({"predictions": [{"closest_cluster": 5.0, "distance_to_cluster": 36.5}]}, (5.0,)),  # k-means
        ({"predictions": [{"score": 0.25}]}, (0.25,)),
        ({"predictions": [[0.1, 0.9], [0.7, 0.3]]}, ((0.1, 0.9), (0.7, 0.3))),  # TensorFlow Serving
        ([{"label": ["__label__4"], "prob": [0.5]}], ("__label__4",)),  # BlazingText
        ([{"label": "POSITIVE", "score": 0.99}], ("POSITIVE",)),  # a pipeline of Hugging Face
        ([[{"label": "NO", "score": 0.2}, {"label": "YES", "score": 0.8}]], ("YES",)),  # and one that tells all scores
        ([{"generated_text": "a poem"}], ("a poem",)),
        ({"outputs": [{"name": "y", "shape": [2], "datatype": "INT64", "data": [1, 0]}]}, (1.0, 0.0)),
        ({"outputs": [{"shape": [2, 2], "data": [0.1, 0.9, 0.8, 0.2]}]}, ((0.1, 0.9), (0.8, 0.2))),
        ({"outputs": [{"shape": [0], "data": []}]}, ()),
        ([1, "a", None, True], (1.0, "a", "null", "true")),
        (0.5, (0.5,)),
        ({"b": 2, "a": "x"}, (("x", 2.0),)),
        ([], ()),
        ([[]], ((),)),
    ],
)
def test_shapes_of_json(value: Any, read: tuple[Row, ...]) -> None:
    assert of(value) == read


@pytest.mark.parametrize(
    ("kind", "body", "read"),
    [
        ("text/csv", b"0.5\n0.25\n", (0.5, 0.25)),
        ("text/csv; charset=utf-8", b"setosa,0.5\r\nvirginica,0.25", (("setosa", 0.5), ("virginica", 0.25))),
        ("text/csv", b'"a, b"\n', ("a, b",)),
        ("text/csv", b"nan\n-inf\n1_000\n", ("nan", "-inf", "1_000")),
        ("text/csv", b"", ()),
        ("text/plain", b"one\n2\n", ("one", 2.0)),
        ("application/jsonlines", b'{"score": 0.5}\n\n{"score": 1}\n', (0.5, 1.0)),
        ("application/vnd.api+json", b"[1]", (1.0,)),
        (JSON, b"[NaN, -Infinity, 1e999]", ("nan", "-inf", "inf")),
        (JSON, b"[1" + b"0" * 400 + b"]", ("inf",)),
    ],
)
def test_other_types(kind: str, body: bytes, read: tuple[Row, ...]) -> None:
    assert rows(kind, body) == read


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"\xff\xfe"),
        (JSON, b"[" * 100_000),
        (JSON, b"[1" + b"0" * 5_000 + b"]"),  # more digits than Python turns into a number
        (JSON, b"1" * (BODY_BYTES_MAX + 1)),
        ("text/csv", b'"open\n'),
        ("text/csv", b'"a"b\n'),
        ("application/jsonlines", b'{"score": 1}\nno\n'),
        ("application/x-npy", b"\x93NUMPY"),
        ("application/octet-stream", b"1"),
        ("", b"1"),
    ],
)
def test_what_cannot_be_read_says_nothing(kind: str, body: bytes) -> None:
    assert rows(kind, body) is None


def test_everything_is_bounded() -> None:
    many = rows("text/csv", b"1\n" * (ROWS_MAX + 5))
    assert many is not None
    assert len(many) == ROWS_MAX
    assert len(of([0] * (ROWS_MAX + 5)) or ()) == ROWS_MAX
    wide = of([list(range(CELLS_MAX + 5))])
    assert wide is not None
    assert isinstance(wide[0], tuple)
    assert len(wide[0]) == CELLS_MAX
    first, second = of(["x" * 999, "x" * 998 + "y"]) or ("", "")
    assert first != second
    assert max(len(str(first)), len(str(second))) < LABEL_CHARS_MAX + 24


def test_what_a_row_says_in_one_word() -> None:
    assert signal("yes") == "yes"
    assert signal(0.5) == 0.5
    assert signal((0.1, 0.7, 0.2)) == "class 1"
    assert signal(("yes", 0.7)) == "yes"
    assert signal((3.0, 4.0)) == 3.0
    assert signal(()) == ""


def test_when_two_rows_agree() -> None:
    assert agree("a", "a")
    assert not agree("a", "b")
    assert agree(1.0, 1.0 + 1e-9)
    assert not agree(1.0, 1.1)
    assert agree(1.0, 1.1, within=0.2)
    assert not agree(1.0, "1")
    assert agree((0.1, 0.9), (0.3, 0.7))  # the same class
    assert not agree((0.1, 0.9), (0.7, 0.3))
    assert agree(("a", 1.0), ("a", 1.0))
    assert not agree(("a", 1.0), ("a",))


CELLS = some.one_of(some.text(max_size=20), some.floats(), some.integers(), some.booleans(), some.none())
VALUES = some.recursive(
    CELLS, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4)
)


@settings(max_examples=200, deadline=None)
@given(some.sampled_from(KINDS), some.binary(max_size=200))
def test_no_bytes_raise(kind: str, body: bytes) -> None:
    rows(kind, body)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_any_json_is_read_as_rows_that_agree_with_themselves(value: Any) -> None:
    read = of(value)
    assert read is not None
    for row in read:
        assert agree(row, row)
        assert isinstance(signal(row), str | float)
        for cell in row if isinstance(row, tuple) else (row,):
            assert isinstance(cell, str) or cell == cell


@settings(max_examples=100, deadline=None)
@given(some.lists(some.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_numbers_are_the_same_in_every_type(numbers: list[float]) -> None:
    expected = tuple(x + 0.0 for x in numbers)
    assert of(numbers) == expected
    assert of({"predictions": [{"score": x} for x in numbers]}) == expected
    assert rows("text/csv", "\n".join(map(repr, numbers)).encode()) == expected
    assert rows("application/jsonlines", "\n".join(map(repr, numbers)).encode()) == expected


def test_labels_fall_into_cells_that_stay_the_same() -> None:
    labels = ["setosa", "versicolor", "virginica", "\ud800", ""]
    assert [cell_of(label, 32) for label in labels] == [cell_of(label, 32) for label in labels]
    assert {cell_of(f"label {n}", 32) for n in range(1_000)} == set(range(1, 33))
