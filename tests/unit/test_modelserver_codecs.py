"""Rows in, predictions out: what is read, what is written, and what is refused with which words."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eyrie.modelserver import codecs
from eyrie.modelserver.batcher import stack
from eyrie.modelserver.codecs import (
    CSV,
    JSON,
    JSONLINES,
    LIBSVM,
    NPY,
    BadPayload,
    NotAcceptable,
    RowShape,
    UnsupportedType,
)

THREE = RowShape(width=3)
NAMED = RowShape(width=2, names=("age", "fare"))
NAN = math.nan
number = st.floats(width=64)
matrices = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=number)


def read(body: bytes | str, kind: str, shape: RowShape = RowShape()) -> list[list[Any]]:  # noqa: B008
    rows = codecs.decode(body.encode() if isinstance(body, str) else body, kind, shape)
    return np.asarray(rows).tolist() if isinstance(rows, np.ndarray) else rows


def same(left: Any, right: Any) -> bool:
    return np.array_equal(np.asarray(left, dtype=float), np.asarray(right, dtype=float), equal_nan=True)


def refused(body: bytes | str, kind: str, shape: RowShape = RowShape()) -> str:  # noqa: B008
    with pytest.raises(BadPayload) as caught:
        read(body, kind, shape)
    assert caught.value.status == 400
    return str(caught.value)


@settings(deadline=None)
@given(matrices)
def test_every_format_brings_back_the_numbers_it_was_written_with(matrix: np.ndarray) -> None:
    rows = matrix.tolist()
    shape = RowShape(width=matrix.shape[1])
    stream = io.BytesIO()
    np.save(stream, matrix)
    csv = "\n".join(",".join(map(repr, row)) for row in rows)
    libsvm = "\n".join("1 " + " ".join(f"{i}:{v!r}" for i, v in enumerate(row)) for row in rows)
    bodies = {
        CSV: csv.encode(),
        JSON: json.dumps(rows).encode(),
        JSONLINES: "\n".join(map(json.dumps, rows)).encode(),
        NPY: stream.getvalue(),
        LIBSVM: libsvm.encode(),
    }
    for kind, body in bodies.items():
        assert same(read(body, kind, shape), rows), kind


@settings(deadline=None)
@given(matrices)
def test_plain_encodings_read_back(matrix: np.ndarray) -> None:
    shape = RowShape(width=matrix.shape[1])
    for kind in (JSON, JSONLINES, CSV, NPY):
        assert same(read(codecs.encode_plain(matrix, kind), kind, shape), matrix.tolist()), kind


NUMBERISH = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.text(alphabet="0123456789.eE+-naif_ xX\t#\0\x0b\x0c\x1c\xa0j(", max_size=4),
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.lists(NUMBERISH, min_size=2, max_size=3), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
def test_the_quick_reader_of_plain_numbers_reads_what_the_careful_one_reads(rows: list[list[str]], end: str) -> None:
    first, *others = (",".join(row) for row in rows)
    quoted = ",".join(f'"{cell}"' for cell in rows[0])  # a quote is what only the careful one knows
    found: list[Any] = []
    for body in (end.join([first, *others]), end.join([quoted, *others])):
        try:
            found.append(codecs.decode(body.encode(), CSV, RowShape()))
        except BadPayload:
            found.append(None)
    quick, careful = found
    assert (quick is None) == (careful is None)
    assert quick is None or (np.shape(quick) == np.shape(careful) and same(quick, careful))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_body_whatsoever_gets_anything_but_rows_or_a_refusal(body: bytes) -> None:
    for kind in (CSV, JSON, JSONLINES, NPY, LIBSVM):
        for shape in (RowShape(), THREE, NAMED, RowShape(strings=True)):
            with contextlib.suppress(BadPayload):
                rows = codecs.decode(body, kind, shape)
                assert len(rows) > 0
                assert {len(row) for row in rows} == {shape.width or len(rows[0])}


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("1,2,3", [[1, 2, 3]]),
        ("1,2,3\n", [[1, 2, 3]]),
        ("1,2,3\r\n4,5,6\r\n", [[1, 2, 3], [4, 5, 6]]),
        ("1,,3", [[1, NAN, 3]]),
        (",,", [[NAN, NAN, NAN]]),
        ("1,2,3\n\n4,5,6\n", [[1, 2, 3], [4, 5, 6]]),
        (" 1 , 2,3 ", [[1, 2, 3]]),
        ("1;2;3", [[1, 2, 3]]),
        ("1\t2\t3", [[1, 2, 3]]),
        ("1 2 3", [[1, 2, 3]]),
        ('"1","2","3"', [[1, 2, 3]]),
        ("nan,inf,-inf", [[NAN, math.inf, -math.inf]]),
        ("1e3,-2.5E-2,.5", [[1000, -0.025, 0.5]]),
        ("\ufeff1,2,3", [[1, 2, 3]]),
    ],
)
def test_csv(body: str, rows: list[list[float]]) -> None:
    assert same(read(body, CSV, THREE), rows)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("1,2", "Feature size of inference data 2 is not consistent with feature size of trained model 3"),
        ("1,2,3,4", "data 4"),
        ("1,2,3\n4,5", "row 2 has 2 values where row 1 has 3"),
        ("1,x,3", "row 1, column 2: 'x' is not a number"),
        ("1,2,3\n4,5,six", "row 2, column 3: 'six' is not a number"),
        ("1,2,1_000", "'1_000' is not a number"),
        ("a,b,c\n1,2,3", "header rows are read only where the model knows its columns' names"),
        ("", "no rows"),
        ("\n\n", "no rows"),
        ('"1,2,3', "not CSV"),
        (b"\xff\xfe1,2,3", "not UTF-8"),
    ],
)
def test_csv_that_is_refused_says_where(body: str | bytes, words: str) -> None:
    assert words in refused(body, CSV, THREE)


def test_a_clients_own_text_is_cut_and_made_harmless_in_messages() -> None:
    message = refused("1,2," + "é\x07" * 500, CSV, THREE)
    assert message.isascii()
    assert len(message) < 800


def test_a_header_row_puts_columns_in_the_models_order() -> None:
    assert read("fare,cabin,age\n7.5,3,22\n8,4,23", CSV, NAMED) == [[22, 7.5], [23, 8]]
    assert read("age,fare\n1,2", CSV, NAMED) == [[1, 2]]
    assert "header row and nothing else" in refused("fare,age", CSV, NAMED)
    assert "names a column twice" in refused("age,fare,age\n1,2,3", CSV, NAMED)
    assert "another number of values" in refused("age,fare\n1,2,3", CSV, NAMED)
    assert "not a number" in refused("age,price\n1,2", CSV, NAMED)


def test_a_declared_header_is_skipped() -> None:
    assert read("a,b,c\n1,2,3", "text/csv; header=present", THREE) == [[1, 2, 3]]


def test_text_cells_pass_only_where_the_model_takes_them() -> None:
    shape = RowShape(width=2, strings=True)
    assert read("red,1\nblue,2", CSV, shape) == [["red", 1.0], ["blue", 2.0]]
    assert read('[["red", 1]]', JSON, shape) == [["red", 1.0]]
    assert "'red' is not a number" in refused('[["red", 1]]', JSON, RowShape(width=2))


@pytest.mark.parametrize(
    "document",
    [
        [1, 2, 3],
        [[1, 2, 3]],
        {"instances": [[1, 2, 3]]},
        {"instances": [{"features": [1, 2, 3]}]},
        {"instances": [{"data": {"features": {"values": [1, 2, 3]}}}]},
        {"inputs": [[1, 2, 3]]},
        {"data": [[1, 2, 3]]},
        {"data": {"features": {"values": [1, 2, 3]}}},
        {"features": [1, 2, 3]},
        {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]},
        ["1", "2", "3"],
    ],
)
def test_json_shapes(document: Any) -> None:
    assert read(json.dumps(document), JSON, THREE) == [[1, 2, 3]]


def test_json_values_that_are_not_numbers() -> None:
    assert same(read("[[null, true, NaN]]", JSON, THREE), [[NAN, 1, NAN]])


def test_json_columns_by_name() -> None:
    assert read('{"instances": [{"fare": 1, "age": 2, "x": 9}]}', JSON, NAMED) == [[2, 1]]
    assert read('[{"fare": 1, "age": 2}]', JSON, NAMED) == [[2, 1]]
    assert read('{"fare": 1, "age": 2}', JSON, NAMED) == [[2, 1]]
    assert read('{"columns": ["fare", "age"], "data": [[1, 2], [3, 4]]}', JSON, NAMED) == [[2, 1], [4, 3]]
    assert "lacks the column 'age'" in refused('[{"fare": 1}]', JSON, NAMED)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "no rows"),
        ("[[]]", "data 0"),
        ("7", "a number where a row"),
        ('"x"', "text where a row"),
        ("{}", 'none of "instances"'),
        ("[[1,2,3],[4]]", "data"),
        ("[[1,2,[3]]]", "a list, not a number"),
        ("[[1,2,{}]]", "an object, not a number"),
        ("[1,2,[3]]", "a list, not a number"),
        ("[[1,2,3],7]", "row 2 is a number"),
        ('{"columns": 3, "data": []}', "must be lists"),
        ('{"columns": ["a"], "data": 3}', "must be lists"),
        ("[" * 100_000, "nested too deeply"),
        ("[[1,2,1" + "0" * 400 + "]]", "too large a number"),
    ],
)
def test_json_that_is_refused(body: str, words: str) -> None:
    message = refused(body, JSON, THREE)
    assert words in message or "row 2 has" in message


def test_json_lines() -> None:
    body = '[1,2,3]\n\n{"features": [4,5,6]}\n{"data": {"features": {"values": [7,8,9]}}}\n{"instances": [[1,1,1]]}\n'
    assert read(body, JSONLINES, THREE) == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 1, 1]]
    assert "no rows" in refused("\n\n", JSONLINES, THREE)
    assert "not JSON" in refused("[1,2,3]\n[4,", JSONLINES, THREE)


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def test_npy_kinds_and_orders() -> None:
    assert read(npy(np.array([1, 2, 3])), NPY, THREE) == [[1, 2, 3]]
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert read(npy(fortran), NPY, THREE) == fortran.tolist()
    assert read(npy(np.array([[True, False, True]])), NPY, THREE) == [[True, False, True]]
    assert read(npy(np.arange(3, dtype=">i2")), NPY, THREE) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not an .npy array"),
        (b"\x93NUMPY\x01\x00\x10\x00not a header....", "not an .npy array"),
        (npy(np.array([[1.0, 2.0, 3.0]]))[:-1], "not as long as its header says"),
        (npy(np.array([[1.0, 2.0, 3.0]])) + b"x", "not as long as its header says"),
        (npy(np.array([["a"]])), "not accepted, only numbers"),
        (npy(np.array([{}], dtype=object), allow_pickle=True), "not accepted, only numbers"),
        (npy(np.zeros((1, 2, 3))), "is not a list of rows"),
        (npy(np.zeros((0, 3))), "is not a list of rows"),
        (npy(np.array(1.0)), "is not a list of rows"),
        (npy(np.zeros((2, 4))), "data 4"),
    ],
)
def test_npy_that_is_refused(body: bytes, words: str) -> None:
    assert words in refused(body, NPY, THREE)


def test_an_npy_header_that_claims_the_world_reserves_nothing() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    header += b" " * (118 - len(header)) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    assert "not as long" in refused(body, NPY, THREE)


def test_an_npy_pickle_is_not_run(tmp_path: Any) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "trapped"), "w"))

    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (118 - len(header)) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + pickle.dumps(Trap())
    refused(body, NPY, THREE)
    assert not (tmp_path / "trapped").exists()


def test_libsvm() -> None:
    assert same(read("0:1 2:3", LIBSVM, THREE), [[1, NAN, 3]])
    assert same(read("1 0:1\n0 1:2 # note\n\n", LIBSVM, THREE), [[1, NAN, NAN], [NAN, 2, NAN]])
    assert same(read("1 qid:4 1:5", "text/x-libsvm", THREE), [[NAN, 5, NAN]])
    assert same(read("0:1 2:3", LIBSVM, RowShape(width=3, absent=0.0)), [[1, 0, 3]])
    assert same(read("0:1 2:3", LIBSVM), [[1, NAN, 3]])
    assert "Feature size of libsvm inference data 4 is larger than" in refused("3:1", LIBSVM, THREE)
    assert "not of the form index:value" in refused("1 0=1", LIBSVM, THREE)
    assert "not of the form index:value" in refused("0:x", LIBSVM, THREE)
    assert "not of the form index:value" in refused("-1:2", LIBSVM, THREE)
    assert "too sparse" in refused("999999999:1", LIBSVM)
    assert "no rows" in refused("# nothing", LIBSVM)


def test_other_content_types_are_415_and_named() -> None:
    with pytest.raises(UnsupportedType, match="'image/png' is not supported") as caught:
        read(b"1", "Image/PNG; q=1")
    assert caught.value.status == 415


def test_parameters_and_case_of_a_content_type_do_not_matter() -> None:
    assert read("1,2,3", "Text/CSV; charset=utf-8; label_size=1", THREE) == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("body", "kind"), [(b"1,2", CSV), (b"1 0:2", LIBSVM), (b" [1]", JSON), (b'{"instances":[]}', JSON), (b"", CSV)]
)
def test_a_body_without_a_content_type(body: bytes, kind: str) -> None:
    assert codecs.guess_type(body) == kind


OFFERS = (CSV, JSON, JSONLINES)


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("", CSV),
        ("*/*", CSV),
        ("application/json", JSON),
        ("Application/JSON", JSON),
        ("application/json, text/csv", JSON),
        ("text/csv;q=0.5, application/json;q=0.9", JSON),
        ("image/png, */*;q=0.1", CSV),
        ("image/png, application/*", JSON),
        ("text/*", CSV),
        ("*/*, application/jsonlines", JSONLINES),
        ("application/json; charset=utf-8", JSON),
        ("text/html, application/json;q=0.3, text/csv;q=0", JSON),
    ],
)
def test_accept(accept: str, answer: str) -> None:
    assert codecs.negotiate(accept, OFFERS, CSV) == answer


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "application/x-npy", "text/csv;q=zero", ";;"])
def test_accept_that_cannot_be_met_is_406(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="Supported accept types are text/csv") as caught:
        codecs.negotiate(accept, OFFERS, CSV)
    assert caught.value.status == 406


def test_scores_as_the_xgboost_container_writes_them() -> None:
    one, two = np.float32([0.25]), np.float32([0.25, 0.5])
    table = np.float32([[0.25, 0.75], [0.5, 0.5]])
    assert codecs.encode_scores(one, CSV, lines=False) == b"0.25"
    assert codecs.encode_scores(two, CSV, lines=False) == b"0.25,0.5"
    assert codecs.encode_scores(two, CSV, lines=True) == b"0.25\n0.5\n"
    assert codecs.encode_scores(table, CSV, lines=False) == b"[0.25, 0.75],[0.5, 0.5]"
    assert json.loads(codecs.encode_scores(two, JSON, lines=False)) == {
        "predictions": [{"score": 0.25}, {"score": 0.5}]
    }
    assert codecs.encode_scores(two, JSONLINES, lines=False) == b'{"score": 0.25}\n{"score": 0.5}\n'
    assert np.load(io.BytesIO(codecs.encode_scores(table, NPY, lines=False))).tolist() == table.tolist()


EDGES = [1e-4, 2e-4, 9.99e-5, 1e15, 1e16, 1e17, 123456789012345680.0, 5e-324, 0.0, -0.0, NAN, math.inf, -math.inf, 0.1]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.lists(st.floats(width=32) | st.sampled_from(EDGES) | st.floats(1e-5, 1e-3), min_size=1, max_size=40),
)
def test_many_scores_are_written_as_each_alone_would_be(dtype: Any, given_scores: list[float]) -> None:
    with np.errstate(over="ignore"):
        scores = np.resize(np.array(given_scores).astype(dtype), codecs.MANY_SCORES + 3)
    wanted = [str(score) for score in scores.tolist()]
    assert codecs.encode_scores(scores, CSV, lines=True).decode() == "\n".join(wanted) + "\n"
    assert codecs.encode_scores(scores, CSV, lines=False).decode() == ",".join(wanted)


@settings(deadline=None)
@given(st.floats(width=32))
def test_a_single_score_keeps_every_bit(score: float) -> None:
    written = codecs.encode_scores(np.array([score], dtype=np.float32), CSV, lines=False)
    assert same(np.float32(float(written)), np.float32(score))


def test_plain_predictions_may_be_labels() -> None:
    labels = np.array(["cat", "dog, big"])
    assert codecs.encode_plain(labels, JSON) == b'["cat", "dog, big"]'
    assert codecs.encode_plain(labels, CSV) == b'cat\n"dog, big"\n'
    assert codecs.encode_plain(labels, JSONLINES) == b'"cat"\n"dog, big"\n'
    assert np.load(io.BytesIO(codecs.encode_plain(labels.astype(object), NPY))).tolist() == labels.tolist()


def test_selected_outputs() -> None:
    records = [{"predicted_label": 1, "probabilities": [0.4, 0.6]}, {"predicted_label": 0, "probabilities": [0.9, 0.1]}]
    assert json.loads(codecs.encode_selected(records, JSON)) == {"predictions": records}
    assert codecs.encode_selected(records, CSV) == b'1,"[0.4, 0.6]"\n0,"[0.9, 0.1]"'
    assert codecs.encode_selected(records, JSONLINES).splitlines()[1] == json.dumps(records[1]).encode()


@pytest.mark.parametrize("encode", [codecs.encode_plain, codecs.encode_selected])
def test_nothing_is_written_in_a_type_that_nobody_offered(encode: Any) -> None:
    with pytest.raises(NotAcceptable):
        encode(np.array([]), "image/png")


# ------------------------------------------------------------------------------------------------ lines read together
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.floats(-1e6, 1e6).map(lambda value: f"{value:.7g}"),
    st.sampled_from(["0", "-0", "-0 ", " -0", "-0.0", "-0e1", "1E5", " 2", "3 ", "1e-400"]),
)
strange = st.sampled_from(
    ["", "nan", "inf", "+1", ".5", "1.", "01", "1_0", '"1"', "x", "[1]", "1],[2", "null", "true", "1e400", "\t4", "é"]
)


@given(st.lists(st.lists(numbers | strange, min_size=2, max_size=2), min_size=1, max_size=5), st.sampled_from("fd"))
def test_lines_read_together_are_what_each_of_them_says(rows: list[list[str]], kind: str) -> None:
    shape = codecs.RowShape(width=2, dtype={"f": "float32", "d": "float64"}[kind])
    lines = [",".join(row).encode() for row in rows]
    together = codecs.read_lines(lines, shape)
    if together is not None:
        wanted = stack([codecs.decode(line, codecs.CSV, shape) for line in lines], shape)
        assert together.dtype == wanted.dtype
        assert np.array_equal(together, wanted)
        assert np.array_equal(np.signbit(together), np.signbit(wanted))
        together[0, 0] = 0  # a model may write into its rows


def test_lines_of_plain_numbers_are_read_together() -> None:
    shape = codecs.RowShape(width=3, dtype="float32")
    read = codecs.read_lines([b"1,2.5,-3e2", b"4,-0.25, 6"], shape)
    assert read is not None
    assert read.tolist() == [[1.0, 2.5, -300.0], [4.0, -0.25, 6.0]]
    for odd in (b"1,2", b"1,2,3,4", b"1,,3", b"", b"1],[2,3", b"1,2\n,3", b"1,2\r,3", b"1,2,-0"):
        assert codecs.read_lines([b"1,2,3", odd], shape) is None
    assert codecs.read_lines([b"1,2,1e39"], shape) is not None  # infinity in float32
    assert codecs.one_line(b"1,2,3\r\n", codecs.CSV) == b"1,2,3"
    assert codecs.one_line(b"1,2\n3,4", codecs.CSV) is None
    assert codecs.one_line(b"\n", codecs.CSV) is None
    assert codecs.one_line(b"1,2,3", codecs.JSON) is None


@pytest.mark.parametrize("kind", [codecs.CSV, codecs.JSON, codecs.JSONLINES, codecs.NPY])
@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("columns", [0, 2])
def test_scores_written_each_are_what_each_alone_would_be(kind: str, lines: bool, columns: int) -> None:
    scores = np.array([0.1, 1e-7, -3.0, np.inf], dtype=np.float32)
    values = np.stack([scores] * columns, axis=1) if columns else scores
    alone = [codecs.encode_scores(values[n : n + 1], kind, lines) for n in range(len(values))]
    assert codecs.encode_scores_each(values, kind, lines) == alone
