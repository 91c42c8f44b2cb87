"""How many workers an instance gets."""

from __future__ import annotations

import pytest

from eyrie.decide.workers import WORKERS_MAX, workers


@pytest.mark.parametrize(
    ("vcpu_milli", "cpus", "environment", "wanted"),
    [
        (1000, 8, {}, 1),
        (2000, 8, {}, 2),
        (4000, 8, {}, 4),
        (96_000, 2, {}, 2),  # more would only wait for each other
        (500, 8, {}, 1),
        (1500, 8, {}, 1),
        (96_000, 512, {}, WORKERS_MAX),
        (1000, 1, {"MODEL_SERVER_WORKERS": "4"}, 4),
        (8000, 8, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}, 1),
        (1000, 8, {"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "MODEL_SERVER_WORKERS": "4"}, 3),
        (2000, 8, {"MODEL_SERVER_WORKERS": "many"}, 2),
        (2000, 8, {"MODEL_SERVER_WORKERS": ""}, 2),
        (2000, 8, {"MODEL_SERVER_WORKERS": "99999"}, WORKERS_MAX),
    ],
)
def test_one_a_vcpu_unless_the_model_says_otherwise(
    vcpu_milli: int, cpus: int, environment: dict[str, str], wanted: int
) -> None:
    assert workers(vcpu_milli, cpus, [environment]) == wanted


def test_of_several_containers_the_one_that_asks_for_most_is_heard() -> None:
    asked = [{}, {"MODEL_SERVER_WORKERS": "2"}, {"SAGEMAKER_MODEL_SERVER_WORKERS": "3"}]
    assert workers(1000, 1, asked) == 3


def test_a_foreign_image_minds_its_own_workers() -> None:
    assert workers(8000, 8, [{"MODEL_SERVER_WORKERS": "4"}], foreign=True) == 1
