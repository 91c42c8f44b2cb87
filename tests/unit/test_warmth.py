"""Which warm slots are kept, started and taken: pure decisions."""

from __future__ import annotations

from importlib import import_module

import pytest

from eyrie.decide.warmth import (
    KINDS_MAX,
    RECENT_MS,
    Contents,
    How,
    Need,
    Use,
    choose,
    need_of,
    next_start,
    surplus,
    wanted,
)
from eyrie.domain.kinds import FRAMEWORKS, PLAIN, frameworks_of, kind_of
from eyrie.modelserver.loader import FRAMEWORKS as SERVED

FIRST = "sklearn+xgboost"
ALL = tuple(FRAMEWORKS)
NOW = 10 * RECENT_MS
THREE = {"sklearn": 1, "xgboost": 1, "torch": 1}


@pytest.mark.parametrize(
    ("uses", "slots", "expected"),
    [
        ({}, 2, {FIRST: 2}),
        ({}, 0, {}),
        ({"xgboost": Use(3, NOW)}, 0, {}),
        ({"xgboost": Use(1, NOW)}, 2, {"xgboost": 1, FIRST: 1}),
        ({"xgboost": Use(5, NOW)}, 4, {"xgboost": 3, FIRST: 1}),
        ({"xgboost": Use(1, NOW), "sklearn": Use(4, NOW)}, 2, {"sklearn": 1, "xgboost": 1}),
        ({"xgboost": Use(2, NOW), "sklearn": Use(4, NOW), "torch": Use(0, 1)}, 2, {"sklearn": 1, "xgboost": 1}),
        ({"xgboost": Use(2, NOW), "sklearn": Use(4, NOW), "torch": Use(0, NOW)}, 2, THREE),
        ({"xgboost": Use(2, NOW), "sklearn": Use(6, NOW)}, 6, {"sklearn": 4, "xgboost": 1, FIRST: 1}),
        ({"torch": Use(0, NOW - RECENT_MS)}, 1, {"torch": 1}),
        ({"torch": Use(0, NOW - RECENT_MS - 1)}, 1, {FIRST: 1}),
        ({"torch": Use(2, 0)}, 1, {"torch": 1}),
        ({FIRST: Use(1, NOW)}, 2, {FIRST: 2}),
    ],
)  # fmt: skip
def test_every_kind_in_use_has_a_slot_and_the_rest_follows_the_instances(
    uses: dict[str, Use], slots: int, expected: dict[str, int]
) -> None:
    found = wanted(uses, FIRST, slots, NOW)
    assert found == expected
    assert list(found) == list(expected), "the most urgent kind comes first"


def test_kinds_are_bounded() -> None:
    uses = {f"k{number}": Use(0, NOW - number) for number in range(20)}
    assert list(wanted(uses, FIRST, 2, NOW)) == [f"k{number}" for number in range(KINDS_MAX)]


def test_a_kind_without_any_slot_is_started_before_a_second_of_another() -> None:
    wants = {"sklearn": 2, "xgboost": 1}
    assert next_start(wants, {}) == "sklearn"
    assert next_start(wants, {"sklearn": 1}) == "xgboost"
    assert next_start(wants, {"sklearn": 1, "xgboost": 1}) == "sklearn"
    assert next_start(wants, {"sklearn": 2, "xgboost": 1}) is None


def test_a_slot_too_many_goes_only_when_nothing_is_lacking() -> None:
    assert surplus({"xgboost": 1}, {"sklearn": 1}) is None
    assert surplus({"xgboost": 1}, {"sklearn": 1, "xgboost": 1}) == "sklearn"
    assert surplus({"xgboost": 1}, {"xgboost": 2}) == "xgboost"
    assert surplus({"xgboost": 1}, {"xgboost": 1}) is None


def test_a_claim_takes_what_fits_best() -> None:
    xgboost = Need("xgboost")
    assert choose(xgboost, [FIRST, "xgboost", "sklearn"]) == (1, How.WARM)
    assert choose(xgboost, ["sklearn", FIRST], ["xgboost"]) == (1, How.WARM)
    assert choose(xgboost, ["sklearn", PLAIN], ["sklearn", "xgboost"]) == (1, How.EARLY)
    assert choose(xgboost, ["sklearn", PLAIN], ["sklearn"]) == (1, How.PART)
    assert choose(xgboost, ["sklearn"], ["sklearn", PLAIN]) is None
    assert choose(Need(FIRST), [PLAIN, "torch", "sklearn"]) == (2, How.PART)
    assert choose(Need(PLAIN), ["sklearn", PLAIN]) == (1, How.WARM)
    assert choose(Need(PLAIN, frozenset({"sklearn"})), [FIRST, "sklearn"], ["torch"]) == (0, How.EARLY)
    assert choose(Need(FIRST, frozenset({"torch"})), ["torch"]) is None


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        ((Contents("eyrie/xgboost", ("xgboost-model.json",)),), "xgboost"),
        ((Contents("6833.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1", ("model.ubj",)),), "xgboost"),
        ((Contents("eyrie/xgboost", ("model.pkl",)),), "sklearn+xgboost"),
        ((Contents("eyrie/xgboost", ("code/", "xgboost-model")),), "sklearn+xgboost"),
        ((Contents("eyrie/sklearn", ("model.joblib", "code/")),), "sklearn"),
        ((Contents("", ("model.ubj",)),), "xgboost"),
        ((Contents("", ("model.onnx",)),), "onnx"),
        ((Contents("", ("model.skops",)),), "sklearn"),
        ((Contents("", ("code/",)),), PLAIN),
        ((Contents("eyrie/sklearn", ("model.joblib", "compiled/")),), "onnx"),
        ((Contents("eyrie/sklearn", ("model.joblib",)), Contents("eyrie/xgboost", ("model.ubj",))), "sklearn+xgboost"),
        ((Contents("eyrie/tensorflow", ("1/",)),), PLAIN),
        ((Contents("eyrie/sklearn", ("model.joblib",), ("scikit-learn",)),), PLAIN),
    ],
)  # fmt: skip
def test_the_kind_is_told_by_image_and_files(contents: tuple[Contents, ...], kind: str) -> None:
    assert need_of(contents, [name for name in ALL if name != "tensorflow"]).kind == kind


def test_requirements_of_their_own_must_not_meet_what_is_imported() -> None:
    need = need_of([Contents("eyrie/xgboost", ("model.ubj",), ("scikit-learn", "six"))], ALL)
    assert need == Need("xgboost", frozenset({"sklearn"}))
    assert choose(need, [FIRST]) is None


def test_the_table_is_the_model_servers() -> None:
    assert set(SERVED) == set(FRAMEWORKS)
    for name, known in FRAMEWORKS.items():
        served = import_module(f"eyrie.modelserver.frameworks.{name}").FRAMEWORK
        assert (served.library, set(served.images)) == (known.library, set(known.images))


def test_a_kind_is_its_frameworks() -> None:
    assert kind_of(["xgboost", "sklearn"]) == FIRST
    assert frameworks_of(FIRST) == ("sklearn", "xgboost")
    assert (kind_of([]), frameworks_of(PLAIN)) == (PLAIN, ())
