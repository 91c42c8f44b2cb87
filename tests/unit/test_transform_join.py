"""DataProcessing, and what a transform job plans before it reads: paths, joins, names, shares, agreements."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyrie.decide.transform_join import CSV, JSON, JoinError, Sieve, assembled, cells, shaped, sieve
from eyrie.decide.transform_path import PathError, parsed
from eyrie.decide.transform_plan import (
    PlanError,
    agreed,
    container_environment,
    manifest_urls,
    output_key,
    output_name,
    part_bytes,
    progress,
    refuse_twins,
    shares,
    verdict,
)
from eyrie.decide.transform_split import SplitError
from eyrie.domain.transform import Agreed, InputObject, Mark, Processing, Strategy, TransformSpec

ROW = {"id": 7, "features": [1, 2, 3], "a b": {"c": None}}


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("$", ROW, ROW),
        ("$.features", ROW, [1, 2, 3]),
        ("$['a b'].c", ROW, None),
        ("$['id','features']", ROW, [7, [1, 2, 3]]),
        ("$.features[0]", ROW, 1),
        ("$.features[-1]", ROW, 3),
        ("$.features[*]", ROW, [1, 2, 3]),
        ("$[0,5:]", list(range(8)), [0, 5, 6, 7]),
        ("$[1:]", list(range(3)), [1, 2]),
        ("$[:-1]", list(range(3)), [0, 1]),
        ("$[::2]", list(range(5)), [0, 2, 4]),
        ("$[1]", list(range(3)), 1),
    ],
)
def test_a_path_names_what_it_says(path: str, value: object, found: object) -> None:
    assert parsed(path).of(value) == found


@pytest.mark.parametrize("path", ["", "a", "$.", "$[", "$[?(@.a)]", "$..a", "$[1", "$[::0]", "$['a'", "$[9999999999]"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        parsed(path)


@pytest.mark.parametrize(
    ("path", "value"), [("$[3]", [1]), ("$.a", {}), ("$.a", [1]), ("$[0]", {"a": 1}), ("$.a.b", {"a": 1})]
)
def test_what_is_not_there_is_an_error(path: str, value: object) -> None:
    with pytest.raises(PathError):
        parsed(path).of(value)


def made(kind: str, **given: object) -> Sieve:
    found = sieve(Processing(**given), kind, "")  # type: ignore[arg-type]
    assert found is not None
    return found


def test_csv_cells_stay_as_they_stand() -> None:
    row = b'1,"a, ""b""",,2.50\r'
    assert cells(row) == [b"1", b'"a, ""b"""', b"", b"2.50"]
    csv = made(CSV, input_filter="$[1:]", output_filter="$[0,-1]", join=True)
    assert csv.sent(row, 1) == b'"a, ""b""",,2.50'
    assert csv.written(row, b"0.5") == b"1,0.5"
    assert made(CSV, join=True).written(row, b"0.5,0.6") == b'1,"a, ""b""",,2.50,0.5,0.6'
    with pytest.raises(SplitError, match="out of range"):
        made(CSV, input_filter="$[9]").sent(row, 3)


def test_json_gets_the_answer_as_a_member() -> None:
    record = json.dumps(ROW).encode()
    both = json.loads(made(JSON, join=True).written(record, b"[0.5]"))
    assert both == {**ROW, "SageMakerOutput": [0.5]}
    assert json.loads(made(JSON, join=True).written(b"[1,2]", b"0")) == {"SageMakerInput": [1, 2], "SageMakerOutput": 0}
    chosen = made(JSON, input_filter="$.features", output_filter="$['id','SageMakerOutput']", join=True)
    assert chosen.sent(record, 1) == b"[1,2,3]"
    assert json.loads(chosen.written(record, b"0.5")) == [7, 0.5]
    with pytest.raises(JoinError):
        chosen.written(record, b"not json")
    assert made(JSON, output_filter="$.a").written(b"", b'{"a": 1}') == b"1"


def test_answers_must_be_one_a_record() -> None:
    csv = made(CSV, join=True)
    assert shaped(b"5\n6\n", [b"1", b"2"], csv.written) == [b"1,5", b"2,6"]
    with pytest.raises(JoinError, match="2 records with 1 lines"):
        shaped(b"5,6", [b"1", b"2"], csv.written)
    assert assembled([b"a", b"b\n"], lines=True) == b"a\nb\n"
    assert assembled([b"a", b"b\n"], lines=False) == b"ab\n"


@pytest.mark.parametrize(
    ("member", "given"), [("InputFilter", {"input_filter": "$["}), ("OutputFilter", {"output_filter": "$["})]
)
def test_a_path_that_is_none_is_told_with_its_member(member: str, given: dict[str, str]) -> None:
    with pytest.raises(PathError, match=rf"DataProcessing\.{member}: '\$\[' .* it breaks off"):
        sieve(Processing(**given), "text/csv", "")


def test_processing_needs_a_type_that_can_be_taken_apart() -> None:
    assert sieve(Processing(), "image/png", "") is None
    for kind, accept in (("image/png", ""), (CSV, JSON)):
        with pytest.raises(PathError):
            sieve(Processing(join=True), kind, accept)


# ------------------------------------------------------------------------------------------------------------ the plan
SPEC = TransformSpec("s3://b/in/", "s3://b/out")


def test_the_request_then_the_container_then_the_default() -> None:
    told = {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": "8"}
    assert agreed(SPEC, {}) == Agreed(Strategy.MULTI_RECORD, 6 << 20, 1)
    assert agreed(SPEC, told) == Agreed(Strategy.SINGLE_RECORD, 8 << 20, 4)
    assert agreed(SPEC, {"MaxPayloadInMB": -1, "MaxConcurrentTransforms": "x", "BatchStrategy": 3}) == agreed(SPEC, {})
    asked = TransformSpec("", "", strategy=Strategy.MULTI_RECORD, max_payload_mb=0, max_concurrent=2)
    assert agreed(asked, told) == Agreed(Strategy.MULTI_RECORD, 0, 2)
    assert container_environment(SPEC) == {"SAGEMAKER_BATCH": "true"}
    assert container_environment(asked) == {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0",
        "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
    }


@settings(max_examples=30)
@given(st.integers(0, 30), st.integers(1, 7))
def test_every_object_is_in_one_share(count: int, instances: int) -> None:
    objects = [InputObject("b", f"k{n:02}", f"k{n:02}", 1) for n in range(count)]
    dealt = shares(list(reversed(objects)), instances)
    assert len(dealt) == instances
    assert sorted((one for share in dealt for one in share), key=lambda one: one.key) == objects
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert all(share == sorted(share, key=lambda one: one.key) for share in dealt)


@pytest.mark.parametrize(
    ("key", "prefix", "name"),
    [("in/a.csv", "in/", "a.csv"), ("in/x/a.csv", "in/", "x/a.csv"), ("in/a.csv", "in/a", "a.csv"), ("a", "", "a")],
)
def test_an_output_is_named_after_its_key(key: str, prefix: str, name: str) -> None:
    assert output_name(key, prefix) == name
    assert output_key("/out/", name) == f"out/{name}.out"


def test_a_manifest_is_read_or_refused() -> None:
    text = b'[{"prefix": "s3://b/p/"}, "a.csv", "x/b.csv"]'
    assert manifest_urls(text) == [("s3://b/p/a.csv", "a.csv"), ("s3://b/p/x/b.csv", "x/b.csv")]
    for bad in (
        b"{",
        b"[]",
        b'["a"]',
        b'[{"prefix": "b/"}]',
        b'[{"prefix": "s3://b/"}, 3]',
        b'[{"prefix": "s3://b/"}, "a", "a"]',
    ):
        with pytest.raises(PlanError):
            manifest_urls(bad)
    with pytest.raises(PlanError, match="same output"):
        refuse_twins([InputObject("b", "x", "n", 1), InputObject("c", "x", "n", 1)])


def test_parts_hold_any_output() -> None:
    assert part_bytes(0) == part_bytes(999) == 8 << 20
    assert sum(map(part_bytes, range(10_000))) > 400 << 30


def test_progress_and_the_verdict() -> None:
    marks = [Mark(index=1, bytes_read=50, records=5), Mark(index=0, bytes_read=25)]
    told = progress(marks, [[50], [50, 100]], "Transforming", 2)
    assert (told.percent, told.objects, told.objects_done, told.resumed) == (37.5, 3, 1, 2)
    assert verdict(marks) == ""
    failed = [Mark(failed=("s3://b/x, record 3: no",), failed_count=1), Mark(failed=("y",), failed_count=2)]
    assert verdict(failed).startswith("ClientError: s3://b/x, record 3: no (and 2 more")
    assert verdict([Mark(failed=("ClientError: s3://b/x: no",), failed_count=1)]).count("ClientError") == 1
